//! What every way of fetching a file has in common.

use std::ffi::OsStr;
use std::fs;
#[cfg(target_os = "linux")]
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};

/// A bar for `total` bytes, if that is known.
pub fn progress(total: Option<u64>) -> anyhow::Result<ProgressBar> {
    Ok(match total {
        Some(total) => ProgressBar::new(total).with_style(ProgressStyle::with_template(
            "{bar:30} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left",
        )?),
        None => ProgressBar::no_length()
            .with_style(ProgressStyle::with_template("{bytes} {bytes_per_sec}")?),
    })
}

/// Where a file stands until it is whole: beside the target, so that it can be renamed.
pub fn partial(target: &Path) -> PathBuf {
    beside(target, ".part")
}

/// A file beside another, of its name and `suffix`.
pub fn beside(path: &Path, suffix: impl AsRef<OsStr>) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(suffix);
    path.with_file_name(name)
}

/// Which end of a copy failed.
#[derive(Debug)]
pub enum CopyError {
    /// What was read from.
    Source(io::Error),
    /// What was written to.
    Target(io::Error),
}

impl From<CopyError> for io::Error {
    fn from(error: CopyError) -> io::Error {
        match error {
            CopyError::Source(error) | CopyError::Target(error) => error,
        }
    }
}

/// Copies `from` to `to` and into the digest.
pub fn copy(
    from: &mut impl Read,
    to: &mut impl Write,
    digest: &mut Sha256,
    bar: &ProgressBar,
) -> Result<(), CopyError> {
    let mut buffer = vec![0; 1 << 18];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                to.write_all(&buffer[..n]).map_err(CopyError::Target)?;
                digest.update(&buffer[..n]);
                bar.inc(n as u64);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(CopyError::Source(e)),
        }
    }
}

/// Gives a file that is whole and checked its name.
///
/// What of it the system still holds in memory came in small pieces. It is dropped here, so that
/// the first load reads the file anew, in huge pages where there are such: weights then come from
/// memory half as fast again in every process, until the file leaves the memory.
pub fn keep(part: &Path, target: &Path) -> anyhow::Result<()> {
    #[cfg(target_os = "linux")]
    {
        let file = File::open(part).with_context(|| part.display().to_string())?;
        // Pages that are not on the disk yet cannot be dropped.
        file.sync_all().with_context(|| part.display().to_string())?;
        // It is advice, and a refusal costs only speed.
        let advice = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED;
        let _ = nix::fcntl::posix_fadvise(&file, 0, 0, advice);
    }
    fs::rename(part, target).with_context(|| target.display().to_string())
}

/// A digest as text.
pub fn hex(digest: Sha256) -> String {
    digest.finalize().iter().map(|b| format!("{b:02x}")).collect()
}
