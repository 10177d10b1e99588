//! How many cores are worth a thread.
//!
//! Two threads on one physical core share its multipliers and its path to memory, so one is
//! enough; on chips with big and little cores the little ones hold the others up.

use std::collections::HashSet;
use std::path::Path;

/// Cores this fast, against the fastest, count as big: percent.
const BIG: u64 = 60;

/// Threads to compute with if nobody says: physical cores, of several kinds the big ones, but no
/// more than this process may use.
pub fn default_threads() -> usize {
    let allowed = std::thread::available_parallelism().map_or(1, |n| n.get());
    big_cores(Path::new("/sys/devices/system/cpu")).map_or(allowed, |n| n.min(allowed))
}

/// Counts the big physical cores that Linux describes in `folder`; `None` where it does not.
fn big_cores(folder: &Path) -> Option<usize> {
    let number =
        |path: &Path| -> Option<u64> { std::fs::read_to_string(path).ok()?.trim().parse().ok() };
    let mut cores = Vec::new();
    for entry in std::fs::read_dir(folder).ok()?.flatten() {
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|n| n.strip_prefix("cpu")) else { continue };
        if id.is_empty() || !id.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        let cpu = entry.path();
        // A core that is switched off has no topology.
        let Some(core) = number(&cpu.join("topology/core_id")) else { continue };
        let package = number(&cpu.join("topology/physical_package_id")).unwrap_or(0);
        let cluster = number(&cpu.join("topology/cluster_id")).unwrap_or(0);
        let capacity = number(&cpu.join("cpu_capacity")).unwrap_or(1024);
        cores.push(((package, cluster, core), capacity));
    }
    let most = cores.iter().map(|(_, capacity)| *capacity).max()?;
    let big = cores.iter().filter(|(_, capacity)| capacity * 100 >= most * BIG);
    let ids: HashSet<_> = big.map(|(id, _)| id).collect();
    Some(ids.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder like the kernel's, with a core's package, number and capacity for each processor.
    fn tree(name: &str, cpus: &[(u64, u64, Option<u64>)]) -> std::path::PathBuf {
        let root = std::env::temp_dir().join(format!("siskin-cores-{}-{name}", std::process::id()));
        for (i, (package, core, capacity)) in cpus.iter().enumerate() {
            let topology = root.join(format!("cpu{i}/topology"));
            std::fs::create_dir_all(&topology).unwrap();
            std::fs::write(topology.join("core_id"), format!("{core}\n")).unwrap();
            std::fs::write(topology.join("physical_package_id"), format!("{package}\n")).unwrap();
            if let Some(capacity) = capacity {
                let path = root.join(format!("cpu{i}/cpu_capacity"));
                std::fs::write(path, format!("{capacity}\n")).unwrap();
            }
        }
        std::fs::create_dir_all(root.join("cpufreq")).unwrap();
        root
    }

    #[test]
    fn physical_big_cores_are_counted() {
        let two_each: Vec<_> = (0..8).map(|i| (0, i % 4, None)).collect();
        let two_packages: Vec<_> = (0..4).map(|i| (i / 2, i % 2, None)).collect();
        let big_little: Vec<_> =
            (0..6).map(|i| (0, i, Some(if i < 2 { 1024 } else { 446 }))).collect();
        let cases = [
            ("two threads a core", two_each, Some(4)),
            ("two packages", two_packages, Some(4)),
            ("big and little", big_little, Some(2)),
            ("nothing", vec![], None),
        ];
        for (name, cpus, want) in cases {
            let root = tree(&name.replace(' ', "-"), &cpus);
            assert_eq!(big_cores(&root), want, "{name}");
            std::fs::remove_dir_all(root).unwrap();
        }
    }
}
