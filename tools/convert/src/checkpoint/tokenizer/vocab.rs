//! A vocabulary as it is put together, a token for each row of the embeddings.

use std::path::Path;

use super::super::keys::Keys;
use crate::{Error, Result};

/// `tokenizer.ggml.token_type`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenType {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

struct Token {
    text: String,
    ty: TokenType,
    score: f32,
}

/// Tokens by their ids. Rows of the embeddings that are no token's are padding.
pub(super) struct Tokens {
    tokens: Vec<Option<Token>>,
    scored: bool,
    /// Added tokens that the embeddings have no row for.
    beyond: usize,
}

impl Tokens {
    /// Room for as many as the embeddings have rows.
    pub(super) fn new(n_vocab: usize) -> Tokens {
        Tokens { tokens: (0..n_vocab).map(|_| None).collect(), scored: true, beyond: 0 }
    }

    /// Sets a token of the model's own vocabulary.
    pub(super) fn set(
        &mut self,
        path: &Path,
        id: u32,
        text: &str,
        ty: TokenType,
        score: f32,
    ) -> Result<()> {
        let n = self.tokens.len();
        let Some(slot) = self.tokens.get_mut(id as usize) else {
            let reason = format!("token {text:?} has id {id}, but the model has {n} tokens");
            return Err(Error::file(path, reason));
        };
        if let Some(other) = slot {
            let reason = format!("tokens {:?} and {text:?} both have id {id}", other.text);
            return Err(Error::file(path, reason));
        }
        *slot = Some(Token { text: text.to_string(), ty, score });
        Ok(())
    }

    /// Sets a token that was added to a vocabulary, in place of what is there.
    pub(super) fn add(&mut self, id: u32, text: &str, special: bool, score: f32) {
        let Some(slot) = self.tokens.get_mut(id as usize) else {
            self.beyond += 1;
            return;
        };
        *slot = Some(if special || looks_special(text) {
            Token { text: text.to_string(), ty: TokenType::Control, score }
        } else {
            // Spaces are escaped in the vocabulary's own texts only.
            let text = text.replace('\u{2581}', " ");
            Token { text, ty: TokenType::UserDefined, score }
        });
    }

    /// The token that stands for what the vocabulary lacks, by its type.
    pub(super) fn unknown(&self) -> Option<u32> {
        let is = |token: &Option<Token>| {
            token.as_ref().is_some_and(|token| token.ty == TokenType::Unknown)
        };
        self.tokens.iter().position(is).and_then(|id| u32::try_from(id).ok())
    }

    /// The kind of model has no scores.
    pub(super) fn without_scores(&mut self) {
        self.scored = false;
    }

    /// What a user should know.
    pub(super) fn note(&self) -> Option<String> {
        let n = self.beyond;
        (n > 0)
            .then(|| format!("{n} added tokens are left out: the model has no embeddings of them"))
    }

    /// Writes the keys.
    pub(super) fn put(self, keys: &mut Keys) {
        let n = self.tokens.len();
        let (mut texts, mut types) = (Vec::with_capacity(n), Vec::with_capacity(n));
        let mut scores = Vec::with_capacity(n);
        for (i, token) in self.tokens.into_iter().enumerate() {
            let token = token.unwrap_or_else(|| Token {
                text: format!("[PAD{i}]"),
                ty: TokenType::Unused,
                score: -10_000.0,
            });
            texts.push(token.text.into_bytes());
            types.push(token.ty as i32);
            scores.push(token.score);
        }
        keys.set("tokenizer.ggml.tokens", texts);
        if self.scored {
            keys.set("tokenizer.ggml.scores", scores);
        }
        keys.set("tokenizer.ggml.token_type", types);
    }
}

/// Whether a token that a tokenizer takes for text is meant to steer the model, by llama.cpp's
/// rules.
fn looks_special(text: &str) -> bool {
    let between = |start: &str, end: &str| text.starts_with(start) && text.ends_with(end);
    matches!(text, "<pad>" | "<mask>" | "<2mass>" | "[@BOS@]")
        || between("<|", "|>")
        || between("<｜", "｜>")
        || between("<unused", ">")
}

/// `<0x0A>`: one byte.
pub(super) fn is_byte(text: &str) -> bool {
    let digits = text.strip_prefix("<0x").and_then(|text| text.strip_suffix('>'));
    digits.is_some_and(|d| d.len() == 2 && d.bytes().all(|b| b.is_ascii_hexdigit()))
}
