//! Where a text may be cut before its pairs are merged, without changing what they make.
//!
//! SentencePiece and its relatives merge over a whole text with U+2581 for a space. Every merge
//! makes a token, so between a character and a U+2581 that no token holds in this order nothing
//! can ever be joined: the text falls apart there. That makes words of it, which are short and
//! repeat.

use super::vocab::Vocab;

/// The character that stands for a space, in UTF-8.
pub(crate) const SPACE: &[u8] = "\u{2581}".as_bytes();

/// Which characters may stand before a U+2581 inside a token.
pub(crate) struct Boundary {
    /// By the last byte of the character.
    joins: [bool; 256],
}

impl Boundary {
    /// Looks through all texts that merges can make.
    pub(crate) fn new(vocabs: &[&Vocab]) -> Boundary {
        let mut joins = [false; 256];
        for vocab in vocabs {
            vocab.each_byte_before(SPACE, |byte| joins[byte as usize] = true);
        }
        Boundary { joins }
    }

    /// Calls `f` for every part of `text` that can be merged by itself.
    pub(crate) fn split(&self, text: &[u8], mut f: impl FnMut(&[u8])) {
        let mut start = 0;
        for at in memchr::memmem::find_iter(text, SPACE) {
            if at > start && !self.joins[text[at - 1] as usize] {
                f(&text[start..at]);
                start = at;
            }
        }
        if start < text.len() {
            f(&text[start..]);
        }
    }
}
