//! BERT's WordPiece: words are normalized, then covered from the left by the longest tokens.
//!
//! The order of things is that of BERT's own tokenizer: control characters go, white space
//! splits, Chinese characters stand alone, accents are stripped, letters lowered, punctuation
//! stands alone. A word of more than 100 characters, or one that tokens do not cover, is one
//! unknown token.

use unicode_normalization::char::decompose_canonical;

use super::boundary::SPACE;
use super::cache::WordCache;
use super::pretok::{ASCII_PUNCT, CONTROL, MN, P, classes};
use super::vocab::Vocab;

const MAX_WORD_CHARS: usize = 100;

/// How text is normalized, and what stands for words that are not covered.
#[derive(Clone, Copy)]
pub(crate) struct WordPiece {
    pub(crate) lowercase: bool,
    pub(crate) strip_accents: bool,
    pub(crate) unknown: Option<u32>,
}

/// The word that is being collected, with the U+2581 that marks the beginning of a word.
struct Word {
    text: Vec<u8>,
    chars: usize,
}

impl Word {
    fn push(&mut self, c: char) {
        self.text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        self.chars += 1;
    }
}

/// Where words go when they are whole.
struct Sink<'a> {
    model: WordPiece,
    vocab: &'a Vocab,
    cache: &'a mut WordCache,
    out: &'a mut Vec<u32>,
    word: Word,
}

impl Sink<'_> {
    fn end_word(&mut self) {
        let word = &mut self.word;
        if word.chars > 0 {
            self.cache.get_or_encode(&word.text, self.out, |out| {
                self.model.encode_word(self.vocab, word, out);
            });
            word.text.truncate(SPACE.len());
            word.chars = 0;
        }
    }

    fn alone(&mut self, c: char) {
        self.end_word();
        self.word.push(c);
        self.end_word();
    }

    fn push(&mut self, c: char) {
        if classes(c) & (P | ASCII_PUNCT) != 0 { self.alone(c) } else { self.word.push(c) }
    }

    fn push_lowered(&mut self, c: char) {
        if self.model.lowercase {
            c.to_lowercase().for_each(|c| self.push(c));
        } else {
            self.push(c);
        }
    }
}

impl WordPiece {
    /// Appends the tokens of `text` to `out`.
    pub(crate) fn encode(
        &self,
        vocab: &Vocab,
        text: &str,
        cache: &mut WordCache,
        out: &mut Vec<u32>,
    ) {
        let word = Word { text: SPACE.to_vec(), chars: 0 };
        let mut sink = Sink { model: *self, vocab, cache, out, word };
        for c in text.chars() {
            if matches!(c, ' ' | '\t' | '\n' | '\r') {
                sink.end_word();
            } else if c.is_ascii_alphanumeric() {
                let c = if self.lowercase { c.to_ascii_lowercase() } else { c };
                sink.word.push(c);
            } else if c == '\0' || c == char::REPLACEMENT_CHARACTER || classes(c) & CONTROL != 0 {
                continue;
            } else if c.is_whitespace() {
                sink.end_word();
            } else if is_chinese(c) {
                sink.alone(c);
            } else if self.strip_accents {
                decompose_canonical(c, |c| {
                    if classes(c) & MN == 0 {
                        sink.push_lowered(c);
                    }
                });
            } else {
                sink.push_lowered(c);
            }
        }
        sink.end_word();
    }

    fn encode_word(&self, vocab: &Vocab, word: &Word, out: &mut Vec<u32>) {
        let before = out.len();
        if word.chars <= MAX_WORD_CHARS {
            let text = &word.text[..];
            let mut start = 0;
            while start < text.len() {
                // The mark alone is not the beginning of a word.
                let shortest = if start == 0 { SPACE.len() + 1 } else { start + 1 };
                let longest = text.len().min(start + vocab.max_len());
                let whole = |&end: &usize| text.get(end).is_none_or(|&b| b & 0xc0 != 0x80);
                let mut ends = (shortest..=longest).rev().filter(whole);
                match ends.find_map(|end| Some((end, vocab.find(&text[start..end])?))) {
                    Some((end, id)) => {
                        out.push(id);
                        start = end;
                    }
                    None => {
                        out.truncate(before);
                        break;
                    }
                }
            }
        }
        if out.len() == before {
            out.extend(self.unknown);
        }
    }
}

/// The characters that BERT takes for Chinese words.
fn is_chinese(c: char) -> bool {
    matches!(c,
        '\u{4e00}'..='\u{9fff}'
        | '\u{3400}'..='\u{4dbf}'
        | '\u{20000}'..='\u{2a6df}'
        | '\u{2a700}'..='\u{2b73f}'
        | '\u{2b740}'..='\u{2b81f}'
        // Not 2b820: BERT's tokenizer has it so.
        | '\u{2b920}'..='\u{2ceaf}'
        | '\u{f900}'..='\u{faff}'
        | '\u{2f800}'..='\u{2fa1f}')
}
