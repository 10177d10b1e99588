//! How much memory the machine has to give.

use std::path::Path;

use siskin_quant::buffer::OutOfMemory;

use crate::{Error, Result};

impl From<OutOfMemory> for Error {
    fn from(error: OutOfMemory) -> Error {
        Error::Memory(error.to_string())
    }
}

/// `n` zeros, whose pages are touched only when they are used.
///
/// # Errors
/// [`Error::Memory`], where a plain vector would end the process.
pub fn zeros<T: bytemuck::Zeroable>(n: usize) -> Result<Vec<T>> {
    bytemuck::allocation::try_zeroed_vec(n).map_err(|()| refused::<T>(n))
}

/// An empty vector with room for `n` items.
///
/// # Errors
/// As [`zeros`].
pub fn reserved<T>(n: usize) -> Result<Vec<T>> {
    let mut list = Vec::new();
    reserve(&mut list, n)?;
    Ok(list)
}

/// Makes room in a vector for `n` items in all.
///
/// # Errors
/// As [`zeros`].
pub fn reserve<T>(list: &mut Vec<T>, n: usize) -> Result<()> {
    let more = n.saturating_sub(list.len());
    list.try_reserve_exact(more).map_err(|_| refused::<T>(n))
}

fn refused<T>(n: usize) -> Error {
    OutOfMemory { bytes: n.saturating_mul(size_of::<T>()) }.into()
}

/// Bytes that can be allocated without swapping, as the kernel and the control groups of this
/// process say; `None` where nothing says.
pub fn available() -> Option<u64> {
    available_under(Path::new("/"))
}

fn available_under(root: &Path) -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    let kernel = read("proc/meminfo").and_then(|text| {
        let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kib.checked_mul(1024)
    });
    // The process's own group, from there up; in a container the namespace hides what is above.
    let own = read("proc/self/cgroup").unwrap_or_default();
    let mut path = own.lines().find_map(|l| l.strip_prefix("0::/")).unwrap_or("").to_string();
    let mut least = kernel;
    loop {
        let number = |name: &str| -> Option<u64> {
            read(&format!("sys/fs/cgroup/{path}/{name}"))?.trim().parse().ok()
        };
        if let Some(max) = number("memory.max") {
            // Pages of files can be given back: they do not count as used.
            let stat = read(&format!("sys/fs/cgroup/{path}/memory.stat")).unwrap_or_default();
            let inactive = stat.lines().find_map(|l| l.strip_prefix("inactive_file "));
            let files = inactive.and_then(|n| n.trim().parse().ok()).unwrap_or(0);
            let used = number("memory.current").unwrap_or(0).saturating_sub(files);
            let left = max.saturating_sub(used);
            least = Some(least.map_or(left, |l| l.min(left)));
        }
        match path.rfind('/') {
            Some(at) => path.truncate(at),
            None if path.is_empty() => return least,
            None => path.clear(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(name: &str, files: &[(&str, &str)]) -> std::path::PathBuf {
        let root =
            std::env::temp_dir().join(format!("siskin-memory-{}-{name}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_least_of_kernel_and_control_groups_counts() {
        let meminfo = ("proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:    4096 kB\n");
        let cases = [
            ("kernel", vec![meminfo], Some(4096 * 1024)),
            ("none", vec![("proc/x", "")], None),
            (
                "group",
                vec![
                    meminfo,
                    ("proc/self/cgroup", "0::/a/b\n"),
                    ("sys/fs/cgroup/a/b/memory.max", "max\n"),
                    ("sys/fs/cgroup/a/memory.max", "1000000\n"),
                    ("sys/fs/cgroup/a/memory.current", "400000\n"),
                    ("sys/fs/cgroup/a/memory.stat", "anon 5\ninactive_file 100000\n"),
                ],
                Some(700_000),
            ),
        ];
        for (name, files, want) in cases {
            let root = tree(name, &files);
            assert_eq!(available_under(&root), want, "{name}");
            std::fs::remove_dir_all(root).unwrap();
        }
    }
}
