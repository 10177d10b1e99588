//! A file's bytes in memory: the one place of this library with unsafe code.

#![allow(unsafe_code)]

use std::fs::File;
use std::ops::{Deref, Range};
use std::path::Path;

use crate::{Error, Result};

/// The smallest page of any system that Siskin runs on.
const PAGE: usize = 4096;

/// A mapped file, or bytes that an app brought itself. It begins at a multiple of 8.
///
/// The file must not be shortened while it is mapped: the system ends a process that reads pages
/// which are no longer there. Replacing a file by renaming another over it is safe.
#[derive(Debug)]
pub struct Mmap(Source);

#[derive(Debug)]
enum Source {
    Mapped(memmap2::Mmap),
    Owned(Vec<u8>),
    /// A copy at a multiple of 8, and how many of its bytes count.
    Aligned(Vec<u64>, usize),
}

impl Mmap {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be opened or mapped, or is no file.
    pub fn open(path: &Path) -> Result<Mmap> {
        let io = |source| Error::Io { path: path.to_path_buf(), source };
        // Asked before opening: to open a pipe would wait for somebody to write to it.
        let metadata = std::fs::metadata(path).map_err(io)?;
        if metadata.is_dir() {
            return Err(io(std::io::Error::other("this is a directory, not a GGUF file")));
        }
        if !metadata.is_file() {
            return Err(io(std::io::Error::other("this is not a regular file, so not mapped")));
        }
        let file = File::open(path).map_err(io)?;
        if file.metadata().map_err(io)?.len() == 0 {
            return Ok(Mmap(Source::Owned(Vec::new())));
        }
        // SAFETY: the mapping is read-only. That nobody shortens the file is the
        // caller's to ensure, as this type's documentation says; no Rust value but bytes is made
        // of its content, and no check of the content is relied upon for memory safety.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(io)?;
        // Linux then reads a file that it does not have yet in pieces of a huge page, where the
        // file system has these (ext4, xfs, btrfs since 6.16): weights come from memory half as
        // fast again. It is advice, and a refusal changes nothing.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Mmap(Source::Mapped(map)))
    }

    /// Takes bytes that are in memory already. They are copied only if they do not begin at a
    /// multiple of 8, as large allocations do.
    pub fn from_bytes(bytes: Vec<u8>) -> Mmap {
        if bytes.as_ptr().addr().is_multiple_of(8) {
            return Mmap(Source::Owned(bytes));
        }
        let mut aligned = vec![0u64; bytes.len().div_ceil(8)];
        bytemuck::cast_slice_mut(&mut aligned)[..bytes.len()].copy_from_slice(&bytes);
        Mmap(Source::Aligned(aligned, bytes.len()))
    }

    /// Asks the system to begin reading a range, and returns at once. Nothing happens where the
    /// bytes are not a file's or the system takes no advice.
    pub fn will_need(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let (Source::Mapped(map), Some(len)) = (&self.0, self.len_of(&range)) {
            // It is advice: a refusal changes nothing.
            let _ = map.advise_range(memmap2::Advice::WillNeed, range.start, len);
        }
        #[cfg(not(unix))]
        let _ = range;
    }

    /// Gives back the memory of the whole pages in a range, which are read again if they are used
    /// again: for those who go through a file once. Nothing happens where the bytes are not a
    /// file's.
    pub fn forget(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let (Source::Mapped(map), Some(len)) = (&self.0, self.len_of(&range)) {
            let start = range.start.next_multiple_of(PAGE);
            let end = (range.start + len) / PAGE * PAGE;
            if start < end {
                let advice = memmap2::UncheckedAdvice::DontNeed;
                // SAFETY: the pages are those of a file that is mapped read-only, so that nothing
                // that was written is lost: the next access reads the same bytes from the file.
                // It is advice: a refusal changes nothing.
                let _ = unsafe { map.unchecked_advise_range(advice, start, end - start) };
            }
        }
        #[cfg(not(unix))]
        let _ = range;
    }

    /// Reads all pages of a range now, so that the first use does not wait for them one by one.
    pub fn prefault_range(&self, range: Range<usize>) {
        let (Source::Mapped(map), Some(len)) = (&self.0, self.len_of(&range)) else { return };
        #[cfg(target_os = "linux")]
        if map.advise_range(memmap2::Advice::PopulateRead, range.start, len).is_ok() {
            return;
        }
        self.will_need(range.clone());
        let mut sum = 0u8;
        for page in map[range.start..range.start + len].chunks(PAGE) {
            sum = sum.wrapping_add(page[0]);
        }
        std::hint::black_box(sum);
    }

    /// Reads all pages now.
    pub fn prefault(&self) {
        self.prefault_range(0..self.len());
    }

    /// Keeps all pages in memory, after reading those that are not there.
    ///
    /// # Errors
    /// What the system says, with the limit of locked memory (`ulimit -l`) where it is known.
    pub fn lock(&self) -> std::io::Result<()> {
        match &self.0 {
            #[cfg(unix)]
            Source::Mapped(map) => map.lock().map_err(|error| {
                let limit = locked_limit().unwrap_or_else(|| "not known".into());
                let reason = format!(
                    "{} bytes cannot be locked in memory: {error}; the limit (ulimit -l) is {limit}",
                    map.len()
                );
                std::io::Error::new(error.kind(), reason)
            }),
            _ => Ok(()),
        }
    }

    /// The length of a range, if it lies in the file and is not empty.
    fn len_of(&self, range: &Range<usize>) -> Option<usize> {
        self.get(range.clone()).map(<[u8]>::len).filter(|len| *len > 0)
    }
}

/// How much memory this process may lock, where the system tells.
#[cfg(unix)]
fn locked_limit() -> Option<String> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|l| l.strip_prefix("Max locked memory"))?;
    let soft = line.split_whitespace().next()?;
    Some(if soft == "unlimited" { soft.into() } else { format!("{soft} bytes") })
}

impl Deref for Mmap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Source::Mapped(map) => map,
            Source::Owned(bytes) => bytes,
            Source::Aligned(words, len) => &bytemuck::cast_slice(words)[..*len],
        }
    }
}
