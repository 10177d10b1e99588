//! Finding the tokens that are taken out of a text before it is tokenized.
//!
//! Of two that begin at the same place the longer counts, of two that overlap the one that begins
//! first. (llama.cpp searches for the longest token in the whole text, then for the next: that
//! differs only where two such tokens overlap, and takes time in the number of tokens.)

use std::sync::OnceLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use super::vocab::{Vocab, attr};
use crate::{Error, Result};

/// More text than this in special tokens is no vocabulary but an attack on memory.
const MAX_TEXT: usize = 4 << 20;

/// Longer tokens are not looked for: where a short one begins like a very long one, each place
/// would be searched as far as the long one goes. Real ones have some 30 bytes.
const MAX_TOKEN: usize = 512;

/// A part of a text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fragment<'a> {
    /// Text to tokenize.
    Text(&'a str),
    /// A token that stood in the text.
    Token(u32),
}

/// The two sets of tokens to look for.
pub(crate) struct Specials {
    /// What is found in any text: user-defined tokens.
    always: Option<Matcher>,
    /// What is found where special tokens are parsed, built when first asked for.
    parsed: OnceLock<std::result::Result<Option<Matcher>, String>>,
}

struct Matcher {
    automaton: AhoCorasick,
    ids: Vec<u32>,
}

impl Specials {
    pub(crate) fn new(vocab: &Vocab) -> Result<Specials> {
        let always = Matcher::new(vocab, |attr| {
            attr & attr::USER_DEFINED != 0 && attr & (attr::CONTROL | attr::UNKNOWN) == 0
        });
        let always = always.map_err(Error::Tokenizer)?;
        Ok(Specials { always, parsed: OnceLock::new() })
    }

    /// Calls `f` for the parts of `text` in order.
    pub(crate) fn split<'a>(
        &self,
        vocab: &Vocab,
        text: &'a str,
        parse_special: bool,
        mut f: impl FnMut(Fragment<'a>) -> Result<()>,
    ) -> Result<()> {
        let matcher = if parse_special {
            let parsed = self.parsed.get_or_init(|| {
                Matcher::new(vocab, |attr| {
                    attr & (attr::USER_DEFINED | attr::CONTROL | attr::UNKNOWN) != 0
                })
            });
            parsed.as_ref().map_err(|reason| Error::Tokenizer(reason.clone()))?
        } else {
            &self.always
        };
        let Some(matcher) = matcher else {
            return if text.is_empty() { Ok(()) } else { f(Fragment::Text(text)) };
        };
        let mut start = 0;
        // What a token swallows to its right is searched no more.
        let mut input = aho_corasick::Input::new(text);
        while let Some(found) = matcher.automaton.find(input.clone()) {
            let id = matcher.ids[found.pattern().as_usize()];
            let mut before = &text[start..found.start()];
            if vocab.is(id, attr::LSTRIP) {
                before = before.trim_end_matches(is_c_space);
            }
            if !before.is_empty() {
                f(Fragment::Text(before))?;
            }
            f(Fragment::Token(id))?;
            start = found.end();
            if vocab.is(id, attr::RSTRIP) {
                start = text.len() - text[start..].trim_start_matches(is_c_space).len();
            }
            input.set_start(start);
        }
        if start < text.len() {
            f(Fragment::Text(&text[start..]))?;
        }
        Ok(())
    }
}

/// What C's `isspace` takes for white space.
fn is_c_space(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}

impl Matcher {
    fn new(
        vocab: &Vocab,
        wanted: impl Fn(u16) -> bool,
    ) -> std::result::Result<Option<Matcher>, String> {
        let (mut patterns, mut ids, mut total) = (Vec::new(), Vec::new(), 0);
        for id in 0..vocab.len() as u32 {
            if !wanted(vocab.attr(id)) {
                continue;
            }
            let text = vocab.text(id);
            // A token that is no UTF-8 cannot stand in a text.
            let fits = (1..=MAX_TOKEN).contains(&text.len());
            if !fits || std::str::from_utf8(&text).is_err() {
                continue;
            }
            total += text.len();
            if total > MAX_TEXT {
                return Err(format!("special tokens of more than {} MiB", MAX_TEXT >> 20));
            }
            patterns.push(text);
            ids.push(id);
        }
        if patterns.is_empty() {
            return Ok(None);
        }
        // The other kinds take time or memory in the square of a token's length, or are slower.
        let automaton = AhoCorasick::builder()
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .match_kind(MatchKind::LeftmostLongest)
            .build(&patterns)
            .map_err(|error| format!("special tokens: {error}"))?;
        Ok(Some(Matcher { automaton, ids }))
    }
}
