//! A file's bytes in memory: the one place of this library with unsafe code.

#![allow(unsafe_code)]

use std::fs::File;
use std::ops::Deref;
use std::path::Path;

use crate::{Error, Result};

/// A mapped file, or bytes that an app brought itself.
///
/// The file must not be shortened while it is mapped: the system ends a process that reads pages
/// which are no longer there. Replacing a file by renaming another over it is safe.
#[derive(Debug)]
pub struct Mmap(Source);

#[derive(Debug)]
enum Source {
    Mapped(memmap2::Mmap),
    Owned(Vec<u8>),
}

impl Mmap {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be opened or mapped, or is no file.
    pub fn open(path: &Path) -> Result<Mmap> {
        let io = |source| Error::Io { path: path.to_path_buf(), source };
        let file = File::open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if metadata.is_dir() {
            return Err(io(std::io::Error::other("is a directory, not a GGUF file")));
        }
        if metadata.len() == 0 {
            return Ok(Mmap(Source::Owned(Vec::new())));
        }
        // SAFETY: the mapping is private and read-only. That nobody shortens the file is the
        // caller's to ensure, as this type's documentation says; no Rust value but bytes is made
        // of its content.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(io)?;
        Ok(Mmap(Source::Mapped(map)))
    }

    /// Takes bytes that are in memory already.
    pub fn from_bytes(bytes: Vec<u8>) -> Mmap {
        Mmap(Source::Owned(bytes))
    }

    /// Reads all pages now.
    pub fn prefault(&self) {
        let Source::Mapped(map) = &self.0 else { return };
        #[cfg(unix)]
        {
            // Advice that is not taken leaves the loop below as it is.
            let _ = map.advise(memmap2::Advice::WillNeed);
        }
        let mut sum = 0u8;
        for page in map.chunks(4096) {
            sum = sum.wrapping_add(page[0]);
        }
        std::hint::black_box(sum);
    }

    /// Keeps all pages in memory.
    ///
    /// # Errors
    /// What the system says, for one that the limit of locked memory (`ulimit -l`) is too low.
    pub fn lock(&self) -> std::io::Result<()> {
        match &self.0 {
            #[cfg(unix)]
            Source::Mapped(map) => map.lock(),
            _ => Ok(()),
        }
    }
}

impl Deref for Mmap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Source::Mapped(map) => map,
            Source::Owned(bytes) => bytes,
        }
    }
}
