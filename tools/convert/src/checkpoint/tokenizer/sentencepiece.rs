//! tokenizer.model: SentencePiece's protocol buffer, of which a few fields matter.

use std::path::Path;

use super::vocab::TokenType;
use crate::{Error, Result};

/// A piece.
pub(super) struct PieceEntry {
    pub(super) text: String,
    pub(super) score: f32,
    pub(super) ty: TokenType,
}

/// The model.
pub(super) struct SentencePiece {
    pub(super) pieces: Vec<PieceEntry>,
    /// It is of the unigram kind, else of merges.
    pub(super) unigram: bool,
    pub(super) charsmap: Vec<u8>,
    pub(super) add_dummy_prefix: bool,
    pub(super) remove_extra_whitespaces: bool,
}

/// A field's value.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Fixed([u8; 4]),
}

/// A message as its fields, from the front.
struct Message<'a>(&'a [u8]);

impl<'a> Message<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, n: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(n).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    /// The next field: its number and value; `Some(None)` at the end, `None` if it is broken.
    fn next(&mut self) -> Option<Option<(u64, Field<'a>)>> {
        if self.0.is_empty() {
            return Some(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Field::Number(self.varint()?),
            1 => Field::Bytes(self.take(8)?),
            2 => {
                let n = self.varint()?;
                Field::Bytes(self.take(n)?)
            }
            5 => Field::Fixed(self.take(4)?.try_into().ok()?),
            _ => return None,
        };
        Some(Some((tag >> 3, value)))
    }
}

fn token_type(number: u64) -> Option<TokenType> {
    Some(match number {
        1 => TokenType::Normal,
        2 => TokenType::Unknown,
        3 => TokenType::Control,
        4 => TokenType::UserDefined,
        5 => TokenType::Unused,
        6 => TokenType::Byte,
        _ => return None,
    })
}

impl SentencePiece {
    /// Reads the bytes of the file at `path`.
    pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<SentencePiece> {
        let mut model = SentencePiece {
            pieces: Vec::new(),
            unigram: true,
            charsmap: Vec::new(),
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
        };
        let mut message = Message(bytes);
        loop {
            let at = bytes.len() - message.0.len();
            let broken = || Error::file(path, format!("byte {at}: not a SentencePiece model"));
            match message.next().ok_or_else(broken)? {
                None => break,
                Some((1, Field::Bytes(piece))) => {
                    model.pieces.push(parse_piece(piece).ok_or_else(broken)?);
                }
                Some((2, Field::Bytes(trainer))) => {
                    let kind = parse_trainer(trainer).ok_or_else(broken)?;
                    model.unigram = match kind {
                        1 => true,
                        2 => false,
                        kind => {
                            let reason = format!("a model of kind {kind}: words or characters");
                            return Err(Error::file(path, reason));
                        }
                    };
                }
                Some((3, Field::Bytes(normalizer))) => {
                    model.parse_normalizer(normalizer).ok_or_else(broken)?;
                }
                Some(_) => {}
            }
        }
        if model.pieces.is_empty() {
            return Err(Error::file(path, "no pieces: not a SentencePiece model"));
        }
        Ok(model)
    }

    fn parse_normalizer(&mut self, bytes: &[u8]) -> Option<()> {
        let mut message = Message(bytes);
        while let Some((number, value)) = message.next()? {
            match (number, value) {
                (2, Field::Bytes(map)) => self.charsmap = map.to_vec(),
                (3, Field::Number(n)) => self.add_dummy_prefix = n != 0,
                (4, Field::Number(n)) => self.remove_extra_whitespaces = n != 0,
                _ => {}
            }
        }
        Some(())
    }
}

fn parse_piece(bytes: &[u8]) -> Option<PieceEntry> {
    let mut entry = PieceEntry { text: String::new(), score: 0.0, ty: TokenType::Normal };
    let mut message = Message(bytes);
    while let Some((number, value)) = message.next()? {
        match (number, value) {
            (1, Field::Bytes(text)) => entry.text = std::str::from_utf8(text).ok()?.to_string(),
            (2, Field::Fixed(score)) => {
                entry.score = Some(f32::from_le_bytes(score)).filter(|x| x.is_finite())?;
            }
            (3, Field::Number(n)) => entry.ty = token_type(n)?,
            _ => {}
        }
    }
    Some(entry)
}

/// The kind of model: 1 for unigram, 2 for merges.
fn parse_trainer(bytes: &[u8]) -> Option<u64> {
    let (mut message, mut kind) = (Message(bytes), 1);
    while let Some((number, value)) = message.next()? {
        if let (3, Field::Number(n)) = (number, value) {
            kind = n;
        }
    }
    Some(kind)
}
