//! SentencePiece's compiled normalization table (`tokenizer.ggml.precompiled_charsmap`).
//!
//! Four bytes give the length of a trie, which follows as an XOR-compressed double array of
//! 32-bit little-endian units; the rest are replacement texts, each ended by a zero. A path
//! through the trie is the text to replace, its value the place of the replacement.

use crate::{Error, Result};

/// Real tables replace at most some 20 bytes by at most some 40. The bounds keep a hostile table
/// from walking over the whole text at every byte, and from blowing it up.
const MAX_KEY: usize = 128;
const MAX_REPLACEMENT: usize = 1024;

/// The table.
pub(crate) struct CharsMap {
    units: Vec<u32>,
    replacements: Vec<u8>,
}

impl CharsMap {
    /// Reads the table; an empty one replaces nothing.
    pub(crate) fn new(blob: &[u8]) -> Result<CharsMap> {
        if blob.is_empty() {
            return Ok(CharsMap { units: Vec::new(), replacements: Vec::new() });
        }
        let bad = |reason: &str| {
            Error::Tokenizer(format!("tokenizer.ggml.precompiled_charsmap: {reason}"))
        };
        let Some((len, rest)) = blob.split_first_chunk::<4>() else {
            return Err(bad("shorter than its header"));
        };
        let len = u32::from_le_bytes(*len) as usize;
        let Some((units, replacements)) = rest.split_at_checked(len) else {
            return Err(bad("its trie is longer than the table"));
        };
        if !len.is_multiple_of(4) {
            return Err(bad("its trie is not a whole number of units"));
        }
        if replacements.last().is_some_and(|&b| b != 0) {
            return Err(bad("its last replacement has no end"));
        }
        let units = units.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        Ok(CharsMap { units: units.collect(), replacements: replacements.to_vec() })
    }

    /// The replacement for the longest beginning of `text` that has one, and the length of that
    /// beginning. A path that leaves the table ends there.
    pub(crate) fn longest(&self, text: &[u8]) -> Option<(usize, &[u8])> {
        // A unit holds the offset of its children (`base`), the byte that leads to it and, as
        // bit 31, that it is a value; a child that is a value stands at the base itself.
        let base = |unit: u32| (unit >> 10) << ((unit & 1 << 9) >> 6);
        let mut at = base(*self.units.first()?);
        let mut best = None;
        for (i, &byte) in text.iter().take(MAX_KEY).enumerate() {
            at ^= u32::from(byte);
            let Some(&unit) = self.units.get(at as usize) else { break };
            if byte == 0 || unit & (1 << 31 | 0xff) != u32::from(byte) {
                break;
            }
            at ^= base(unit);
            if unit & 1 << 8 != 0 {
                let Some(&value) = self.units.get(at as usize) else { break };
                best = Some((i + 1, value & !(1 << 31)));
            }
        }
        let (len, offset) = best?;
        let replacement = self.replacements.get(offset as usize..)?;
        let end = memchr::memchr(0, &replacement[..replacement.len().min(MAX_REPLACEMENT)])?;
        Some((len, &replacement[..end]))
    }

    /// Whether any replacement begins with `byte`.
    pub(crate) fn may_begin_with(&self, byte: u8) -> bool {
        let Some(&root) = self.units.first() else { return false };
        let at = (root >> 10) << ((root & 1 << 9) >> 6) ^ u32::from(byte);
        let unit = self.units.get(at as usize);
        unit.is_some_and(|unit| unit & (1 << 31 | 0xff) == u32::from(byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A table of one entry, laid out by hand: "a" becomes `to`.
    fn table(to: &[u8]) -> Vec<u8> {
        // Root: base 0x100 ^ ... children of the root stand at 256 ^ byte.
        let mut units = vec![0u32; 1024];
        units[0] = 256 << 10;
        let a = 256 ^ b'a' as usize;
        // The unit of "a": label, leaf bit, and base such that its value stands at 512.
        units[a] = (512 ^ a as u32) << 10 | 1 << 8 | u32::from(b'a');
        units[512] = 1 << 31;
        let mut blob = (units.len() as u32 * 4).to_le_bytes().to_vec();
        units.iter().for_each(|unit| blob.extend(unit.to_le_bytes()));
        blob.extend(to);
        blob.push(0);
        blob
    }

    #[test]
    fn a_key_gives_its_replacement() {
        let map = CharsMap::new(&table(b"xyz")).unwrap();
        assert_eq!(map.longest(b"abc"), Some((1, &b"xyz"[..])));
        assert_eq!(map.longest(b"bca"), None);
        assert_eq!(map.longest(b""), None);
        assert!(map.may_begin_with(b'a') && !map.may_begin_with(b'b'));
    }

    #[test]
    fn tables_that_lie_are_refused_or_replace_nothing() {
        let good = table(b"xyz");
        let mut long = good.clone();
        long[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(CharsMap::new(&long).is_err());
        assert!(CharsMap::new(&good[..3]).is_err());
        assert!(CharsMap::new(&good[..good.len() - 1]).is_err());
        assert!(CharsMap::new(&[1, 0, 0, 0, 0]).is_err());
        let huge = CharsMap::new(&table(&vec![b'x'; 1 << 20])).unwrap();
        assert_eq!(huge.longest(b"abc"), None);
        assert_eq!(CharsMap::new(&[0, 0, 0, 0]).unwrap().longest(b"a"), None);
        assert_eq!(CharsMap::new(&[]).unwrap().longest(b"a"), None);
    }

    proptest! {
        #[test]
        fn no_table_panics(units in prop::collection::vec(any::<u32>(), 0..64), text: Vec<u8>) {
            let mut blob = (units.len() as u32 * 4).to_le_bytes().to_vec();
            units.iter().for_each(|unit| blob.extend((unit & 0x8003_ffff).to_le_bytes()));
            blob.extend(b"abc\0");
            let map = CharsMap::new(&blob).unwrap();
            map.longest(&text);
        }
    }
}
