//! The tokens themselves: their bytes in one arena, their attributes, and the way from text to id.

use std::borrow::Cow;
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable, hash_table::Entry};

use super::alphabet;
use crate::{Error, Result};

/// What a token is, as bits; more than one may be set.
pub(crate) mod attr {
    /// Stands for what the vocabulary lacks.
    pub(crate) const UNKNOWN: u16 = 1;
    /// Reserved, never produced.
    pub(crate) const UNUSED: u16 = 1 << 1;
    /// Text.
    pub(crate) const NORMAL: u16 = 1 << 2;
    /// Steers the model; not text.
    pub(crate) const CONTROL: u16 = 1 << 3;
    /// Text that is never cut.
    pub(crate) const USER_DEFINED: u16 = 1 << 4;
    /// `<0x0A>`: one byte.
    pub(crate) const BYTE: u16 = 1 << 5;
    /// Swallows the white space before it.
    pub(crate) const LSTRIP: u16 = 1 << 6;
    /// Swallows the white space after it.
    pub(crate) const RSTRIP: u16 = 1 << 7;
    /// The bits that come from the type of a token.
    pub(crate) const ALL_KINDS: u16 = UNKNOWN | UNUSED | NORMAL | CONTROL | USER_DEFINED | BYTE;
    /// An earlier token has the same text.
    pub(super) const REPEATED: u16 = 1 << 14;
    /// The arena holds the bytes that the text stands for in GPT-2's alphabet.
    pub(super) const DECODED: u16 = 1 << 15;

    /// The attribute of a `tokenizer.ggml.token_type`.
    pub(crate) fn of_token_type(token_type: i32) -> u16 {
        match token_type {
            1 => NORMAL,
            2 => UNKNOWN,
            3 => CONTROL,
            4 => USER_DEFINED,
            5 => UNUSED,
            6 => BYTE,
            _ => 0,
        }
    }
}

/// The tokens of a model.
pub(crate) struct Vocab {
    arena: Vec<u8>,
    /// Token `i` is `arena[starts[i]..starts[i + 1]]`.
    starts: Vec<u32>,
    attrs: Vec<u16>,
    map: HashTable<u32>,
    hasher: DefaultHashBuilder,
    byte_level: bool,
    max_len: usize,
}

impl Vocab {
    /// A vocabulary without tokens. With `byte_level` the tokens are written in GPT-2's alphabet.
    pub(crate) fn with_capacity(n_tokens: usize, byte_level: bool) -> Vocab {
        let mut starts = Vec::with_capacity(n_tokens + 1);
        starts.push(0);
        Vocab {
            // Real vocabularies have about eight bytes a token; more than that grows.
            arena: Vec::with_capacity(n_tokens.saturating_mul(9)),
            starts,
            attrs: Vec::with_capacity(n_tokens),
            map: HashTable::with_capacity(n_tokens),
            hasher: DefaultHashBuilder::default(),
            byte_level,
            max_len: 0,
        }
    }

    /// Adds the next token. Where two tokens have the same text, the first is the one found.
    pub(crate) fn push(&mut self, text: &[u8], attr: u16) -> Result<()> {
        let id = self.attrs.len() as u32;
        let start = self.arena.len();
        let decoded = self.byte_level && alphabet::decode(text, &mut self.arena);
        if !decoded {
            self.arena.extend_from_slice(text);
        }
        let Ok(end) = u32::try_from(self.arena.len()) else {
            return Err(Error::Tokenizer("tokens of more than 4 GiB".into()));
        };
        self.starts.push(end);
        self.attrs.push(attr | if decoded { attr::DECODED } else { 0 });
        self.max_len = self.max_len.max(self.arena.len() - start);
        if start == self.arena.len() {
            return Ok(());
        }
        let (arena, starts, attrs, hasher) = (&self.arena, &self.starts, &self.attrs, &self.hasher);
        let bytes =
            |id: u32| &arena[starts[id as usize] as usize..starts[id as usize + 1] as usize];
        let new = &arena[start..];
        let same = |&other: &u32| {
            bytes(other) == new && (attrs[other as usize] & attr::DECODED != 0) == decoded
        };
        let entry = self.map.entry(hasher.hash_one(new), same, |&id| hasher.hash_one(bytes(id)));
        match entry {
            Entry::Vacant(entry) => {
                entry.insert(id);
            }
            Entry::Occupied(_) => self.change_attr(id, attr::REPEATED, 0),
        }
        Ok(())
    }

    /// How many tokens there are.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.attrs.len()
    }

    /// The length in bytes of the longest token.
    #[inline]
    pub(crate) fn max_len(&self) -> usize {
        self.max_len
    }

    /// The attributes of a token; none if there is no such token.
    #[inline]
    pub(crate) fn attr(&self, id: u32) -> u16 {
        self.attrs.get(id as usize).copied().unwrap_or(0)
    }

    /// Whether a token has any attribute of `mask`.
    #[inline]
    pub(crate) fn is(&self, id: u32, mask: u16) -> bool {
        self.attr(id) & mask != 0
    }

    /// Sets and clears attributes of a token.
    pub(crate) fn change_attr(&mut self, id: u32, set: u16, clear: u16) {
        if let Some(attr) = self.attrs.get_mut(id as usize) {
            *attr = *attr & !clear | set;
        }
    }

    /// The bytes by which a token is matched: decoded from the alphabet where they can be.
    #[inline]
    pub(crate) fn bytes(&self, id: u32) -> &[u8] {
        match self.starts.get(id as usize..=id as usize + 1) {
            Some(&[start, end]) => &self.arena[start as usize..end as usize],
            _ => &[],
        }
    }

    /// The token whose bytes these are: in a byte-level vocabulary, what is written in the
    /// alphabet, and else plain text.
    #[inline]
    pub(crate) fn find(&self, bytes: &[u8]) -> Option<u32> {
        self.find_as(bytes, self.byte_level)
    }

    fn find_as(&self, bytes: &[u8], decoded: bool) -> Option<u32> {
        if bytes.len() > self.max_len {
            return None;
        }
        let same = |&id: &u32| self.bytes(id) == bytes && self.is(id, attr::DECODED) == decoded;
        self.map.find(self.hasher.hash_one(bytes), same).copied()
    }

    /// Whether a token is what [`Vocab::find`] finds by its bytes.
    #[inline]
    pub(crate) fn is_first(&self, id: u32) -> bool {
        self.is(id, attr::DECODED) == self.byte_level && !self.is(id, attr::REPEATED)
    }

    /// The token that the file writes as `text`.
    pub(crate) fn find_text(&self, text: &[u8]) -> Option<u32> {
        let mut bytes = Vec::new();
        if self.byte_level && alphabet::decode(text, &mut bytes) {
            self.find_as(&bytes, true)
        } else {
            self.find_as(text, false)
        }
    }

    /// A token as the file writes it.
    pub(crate) fn text(&self, id: u32) -> Cow<'_, [u8]> {
        if self.is(id, attr::DECODED) {
            let mut text = Vec::new();
            self.append_text(id, &mut text);
            Cow::Owned(text)
        } else {
            Cow::Borrowed(self.bytes(id))
        }
    }

    /// Appends [`text`](Self::text) to `out`.
    pub(crate) fn append_text(&self, id: u32, out: &mut Vec<u8>) {
        if self.is(id, attr::DECODED) {
            alphabet::encode(self.bytes(id), out);
        } else {
            out.extend_from_slice(self.bytes(id));
        }
    }

    /// The byte of a `<0x0A>` token.
    pub(crate) fn byte_of(&self, id: u32) -> Option<u8> {
        match self.bytes(id) {
            [b'<', b'0', b'x', high, low, b'>'] => {
                let digit = |b: u8| (b as char).to_digit(16);
                Some((digit(*high)? << 4 | digit(*low)?) as u8)
            }
            _ => None,
        }
    }

    /// Calls `f` with the byte before each `text` inside a token.
    pub(crate) fn each_byte_before(&self, text: &[u8], mut f: impl FnMut(u8)) {
        let mut id = 0;
        for at in memchr::memmem::find_iter(&self.arena, text) {
            while self.starts.get(id + 1).is_some_and(|&end| end as usize <= at) {
                id += 1;
            }
            let (start, end) = (self.starts[id] as usize, self.starts[id + 1] as usize);
            if at > start && at + text.len() <= end {
                f(self.arena[at - 1]);
            }
        }
    }

    /// The token of each byte that no other token covers, by its text `<0x0A>`.
    pub(crate) fn byte_tokens(&self) -> [Option<u32>; 256] {
        std::array::from_fn(|byte| self.find_as(format!("<0x{byte:02X}>").as_bytes(), false))
    }
}
