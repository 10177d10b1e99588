//! SentencePiece's unigram model: of all ways to cover a text with tokens, the likeliest.

use super::boundary::SPACE;
use super::charsmap::CharsMap;
use super::pretok::char_at;
use super::trie::Trie;
use super::vocab::{Vocab, attr};
use crate::{Error, Result};

/// An unknown character costs this much more than the rarest token.
const UNKNOWN_PENALTY: f32 = 10.0;

/// The worst that Unicode's own normalization does is 13.
const MAX_GROWTH: usize = 16;

/// How the text is normalized first, by the keys of the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whitespace {
    /// A space is put before the text.
    pub(crate) add_prefix: bool,
    /// Runs of spaces become one, and those at the ends go.
    pub(crate) merge_runs: bool,
}

/// What the search needs beside the vocabulary.
pub(crate) struct Unigram {
    tokens: Trie,
    /// Tokens that normalization leaves alone.
    user_defined: Trie,
    charsmap: CharsMap,
    /// Bytes that some entry of the table begins with.
    replaced: [bool; 256],
    scores: Vec<f32>,
    unknown: Option<u32>,
    unknown_score: f64,
    whitespace: Whitespace,
}

/// The best way to cover the text up to a byte.
#[derive(Clone, Copy)]
struct Best {
    score: f64,
    token: u32,
    start: u32,
}

impl Unigram {
    /// `scores` has an entry for each token, none of them NaN.
    pub(crate) fn new(
        vocab: &Vocab,
        mut scores: Vec<f32>,
        charsmap: CharsMap,
        whitespace: Whitespace,
        unknown: Option<u32>,
    ) -> Unigram {
        let with = |mask: u16| {
            let ids = (0..vocab.len() as u32).filter(|&id| vocab.is(id, mask));
            Trie::new(ids.map(|id| (vocab.bytes(id), id)).collect())
        };
        let tokens = with(attr::NORMAL | attr::USER_DEFINED | attr::UNUSED);
        let user_defined = with(attr::USER_DEFINED);
        let mut lowest = f32::INFINITY;
        for (id, score) in scores.iter_mut().enumerate() {
            if vocab.is(id as u32, attr::NORMAL) {
                lowest = lowest.min(*score);
            }
            // Scores are log probabilities: none is likelier than certain.
            if vocab.is(id as u32, attr::USER_DEFINED) {
                *score = 0.0;
            }
            // Sums of them must stay numbers.
            *score = score.clamp(-1e30, 1e30);
        }
        let lowest = if lowest.is_finite() { lowest } else { 0.0 };
        let replaced = std::array::from_fn(|byte| charsmap.may_begin_with(byte as u8));
        Unigram {
            tokens,
            user_defined,
            charsmap,
            replaced,
            scores,
            unknown,
            unknown_score: f64::from(lowest - UNKNOWN_PENALTY),
            whitespace,
        }
    }

    /// Appends the tokens of `text` to `out`.
    pub(crate) fn encode(&self, text: &str, out: &mut Vec<u32>) -> Result<()> {
        let text = self.normalize(text.as_bytes())?;
        let none = Best { score: f64::NEG_INFINITY, token: u32::MAX, start: 0 };
        let mut best = vec![none; text.len() + 1];
        best[0].score = 0.0;
        let mut at = 0;
        while at < text.len() {
            let char_len = char_at(&text, at).1;
            let score = best[at].score;
            let mut whole_char = false;
            let mut offer = |len: usize, token: u32, score: f64| {
                let slot = &mut best[at + len];
                if score > slot.score {
                    *slot = Best { score, token, start: at as u32 };
                }
            };
            self.tokens.prefixes(&text[at..], |len, token| {
                whole_char |= len == char_len;
                offer(len, token, score + f64::from(self.scores[token as usize]));
            });
            if !whole_char {
                offer(char_len, u32::MAX, score + self.unknown_score);
            }
            at += char_len;
        }
        // Back from the end; neighbouring unknown characters are one unknown token.
        let before = out.len();
        let mut end = text.len();
        let mut last_unknown = false;
        while end > 0 {
            let Best { token, start, .. } = best[end];
            let unknown = token == u32::MAX;
            if !unknown {
                out.push(token);
            } else if !last_unknown {
                out.extend(self.unknown);
            }
            last_unknown = unknown;
            // Every start lies before its end; a step of one keeps that true of anything.
            end = (start as usize).min(end - 1);
        }
        out[before..].reverse();
        Ok(())
    }

    fn normalize(&self, text: &[u8]) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(text.len() + text.len() / 4 + SPACE.len());
        let Whitespace { add_prefix, merge_runs } = self.whitespace;
        let (mut begun, mut in_word) = (false, false);
        let mut put = |bytes: &[u8]| {
            for &byte in bytes {
                if byte == b' ' {
                    in_word = false;
                    if !merge_runs {
                        out.extend_from_slice(SPACE);
                    }
                    continue;
                }
                if !in_word {
                    in_word = true;
                    if (add_prefix && !begun) || merge_runs {
                        out.extend_from_slice(SPACE);
                        begun = true;
                    }
                }
                out.push(byte);
            }
        };
        let (mut at, mut written) = (0, 0);
        while at < text.len() {
            let mut len = 0;
            self.user_defined.prefixes(&text[at..], |n, _| len = n);
            if len == 0
                && self.replaced[text[at] as usize]
                && let Some((n, replacement)) = self.charsmap.longest(&text[at..])
            {
                written += replacement.len();
                if written > MAX_GROWTH * text.len() + 4096 {
                    return Err(Error::Tokenizer(format!(
                        "tokenizer.ggml.precompiled_charsmap makes the text more than \
                         {MAX_GROWTH} times as long"
                    )));
                }
                put(replacement);
                at += n;
                continue;
            }
            if len == 0 {
                len = char_at(text, at).1;
            }
            put(&text[at..at + len]);
            at += len;
        }
        Ok(out)
    }
}
