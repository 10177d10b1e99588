//! Large memory.
//!
//! A vector of cache lines would be aligned too, but the standard allocator writes the zeros of
//! memory that is aligned to more than 16 bytes itself: all of a cache of keys and values would be
//! touched before the first token, and a process that has not as much memory would end. Pages that
//! are mapped are zero, and there, when they are first used; what they begin at is a multiple of
//! any cache line; and the system's refusal is an error like others.

use memmap2::MmapMut;

/// Zero bytes whose pages take memory only once they are written to; aligned to 64.
#[derive(Debug)]
pub struct Buffer(MmapMut);

/// Memory that the system does not give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory {
    /// Bytes that were asked for.
    pub bytes: usize,
}

impl std::fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1} MiB of memory cannot be allocated", self.bytes as f64 / 1_048_576.0)
    }
}

impl std::error::Error for OutOfMemory {}

impl Buffer {
    /// `bytes` zeros.
    ///
    /// # Errors
    /// [`OutOfMemory`]
    pub fn zeroed(bytes: usize) -> Result<Buffer, OutOfMemory> {
        // Not advised to be of huge pages: a head's positions are less than one, so the first
        // token would touch nearly all of a cache.
        MmapMut::map_anon(bytes).map(Buffer).map_err(|_| OutOfMemory { bytes })
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, to write.
    pub fn as_bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_zero_aligned_and_as_long_as_asked() {
        for bytes in [0, 1, 64, 4097, 3 << 20] {
            let mut buffer = Buffer::zeroed(bytes).unwrap();
            assert_eq!(buffer.as_bytes().len(), bytes);
            assert!(buffer.as_bytes().as_ptr().addr().is_multiple_of(64));
            assert!(buffer.as_bytes().iter().all(|b| *b == 0));
            buffer.as_bytes_mut().fill(1);
        }
    }

    #[test]
    fn more_than_there_is_is_an_error() {
        for bytes in [1 << 60, usize::MAX] {
            let error = Buffer::zeroed(bytes).unwrap_err();
            assert_eq!(error, OutOfMemory { bytes });
            assert!(error.to_string().contains("MiB"), "{error}");
        }
    }
}
