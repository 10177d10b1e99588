//! What short words became, for the length of one call: English repeats itself.

use std::hash::BuildHasher;

use hashbrown::DefaultHashBuilder;

/// Longest word that is kept.
const MAX_BYTES: usize = 15;
/// Most tokens of a word that is kept.
const MAX_TOKENS: usize = 3;
const SLOTS: usize = 8192;
/// Texts shorter than this are not worth the table.
const MIN_TEXT: usize = 2048;

#[derive(Clone, Copy, Default)]
struct Slot {
    /// The bytes of the word, padded with zeros, and its length in the last.
    key: u128,
    tokens: [u32; MAX_TOKENS],
    n: u32,
}

/// A direct-mapped table from word to tokens.
#[derive(Default)]
pub(crate) struct WordCache {
    slots: Vec<Slot>,
    hasher: DefaultHashBuilder,
}

impl WordCache {
    /// A cache for a text of `len` bytes.
    pub(crate) fn for_text(len: usize) -> WordCache {
        let slots = if len < MIN_TEXT { Vec::new() } else { vec![Slot::default(); SLOTS] };
        WordCache { slots, ..Default::default() }
    }

    /// Appends the tokens of `word` to `out`, those that `encode` appends, remembered if short.
    #[inline]
    pub(crate) fn get_or_encode(
        &mut self,
        word: &[u8],
        out: &mut Vec<u32>,
        encode: impl FnOnce(&mut Vec<u32>),
    ) {
        if self.slots.is_empty() || word.len() > MAX_BYTES {
            encode(out);
            return;
        }
        let key = key(word);
        let at = self.hasher.hash_one(key) as usize % SLOTS;
        let slot = &self.slots[at];
        if slot.key == key {
            out.extend_from_slice(&slot.tokens[..slot.n as usize]);
            return;
        }
        let before = out.len();
        encode(out);
        let new = &out[before..];
        if new.len() <= MAX_TOKENS {
            let mut tokens = [0; MAX_TOKENS];
            tokens[..new.len()].copy_from_slice(new);
            self.slots[at] = Slot { key, tokens, n: new.len() as u32 };
        }
    }
}

/// The bytes of a word of up to 15 bytes and its length as one number. Never zero for a word
/// that is not empty.
#[inline]
fn key(word: &[u8]) -> u128 {
    let mut bytes = [0u8; 16];
    bytes[..word.len()].copy_from_slice(word);
    bytes[15] = word.len() as u8;
    u128::from_le_bytes(bytes)
}
