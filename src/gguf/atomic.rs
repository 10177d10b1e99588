//! A file that is whole or not there.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Error, Result};

/// Writes beside the target, under another name, and renames when all is written.
///
/// Without [`commit`](Self::commit), whatever the reason, the target stays as it was and what was
/// written is removed when this is dropped.
///
/// ```no_run
/// use std::io::Write;
///
/// let mut file = siskin::gguf::AtomicFile::create("report.txt")?;
/// file.write_all(b"whole")?;
/// file.commit()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct AtomicFile {
    target: PathBuf,
    temporary: PathBuf,
    /// `None` once it is renamed.
    file: Option<BufWriter<File>>,
}

/// Tells apart the files that one process writes at a time.
static COUNTER: AtomicU64 = AtomicU64::new(0);

impl AtomicFile {
    /// Begins a file that will be at `target`.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be written to.
    pub fn create(target: impl AsRef<Path>) -> Result<AtomicFile> {
        let target = target.as_ref().to_path_buf();
        let Some(name) = target.file_name() else {
            let reason = format!("{} is not the name of a file", target.display());
            return Err(Error::Invalid(reason));
        };
        loop {
            let mut temporary = OsString::from(".");
            temporary.push(name);
            let count = COUNTER.fetch_add(1, Ordering::Relaxed);
            temporary.push(format!(".{}-{count}.tmp", std::process::id()));
            let temporary = target.with_file_name(temporary);
            match OpenOptions::new().write(true).create_new(true).open(&temporary) {
                Ok(file) => {
                    let file = Some(BufWriter::with_capacity(1 << 18, file));
                    return Ok(AtomicFile { target, temporary, file });
                }
                // Left by a process of the same number that was killed.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(Error::Io { path: temporary, source }),
            }
        }
    }

    /// Where the file will be.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Where what is written stands until [`commit`](Self::commit): to be read by whom it was
    /// written for, if it is to be no more than temporary.
    pub fn temporary(&self) -> &Path {
        &self.temporary
    }

    fn io(&self, source: io::Error) -> Error {
        Error::Io { path: self.target.clone(), source }
    }

    /// Has the system write everything to the disk, so that no more than a name is missing.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot.
    pub fn sync(&mut self) -> Result<()> {
        let Some(buffer) = &mut self.file else { return Ok(()) };
        let written = buffer.flush().and_then(|()| buffer.get_ref().sync_all());
        written.map_err(|source| self.io(source))
    }

    /// Has the system write everything to the disk and gives the file its name.
    ///
    /// # Errors
    /// [`Error::Io`]; the target is then as it was before, unless it was the folder, with the new
    /// name in it, that could not be written to the disk.
    pub fn commit(mut self) -> Result<()> {
        self.sync()?;
        fs::rename(&self.temporary, &self.target).map_err(|source| self.io(source))?;
        self.file = None;
        sync_folder(&self.target).map_err(|source| self.io(source))
    }
}

/// Has the system write a folder to the disk, and so the new name in it.
fn sync_folder(path: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match File::open(folder)?.sync_all() {
        // Some network file systems cannot.
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => Ok(()),
        other => other,
    }
}

impl Write for AtomicFile {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.file.as_mut().map_or(Ok(0), |f| f.write(data))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some(buffer) = self.file.take() {
            // What is in the buffer shall not be written; the file has to be closed before it can
            // be removed on every system.
            let (file, _) = buffer.into_parts();
            drop(file);
            // There is nobody to tell if it cannot be removed.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}
