//! The family of patterns that GPT-2 began: contractions, letters, numbers, symbols, white space,
//! in that order, each model with its own variation. One walk serves them all.

use super::class::{
    ASCII_LETTER, ASCII_PUNCT, L, LOWER, M, N, P, S, UPPER, W, char_at, classes_at, is_han, run,
    run_not,
};

/// How English contractions are split off.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Contraction {
    /// They are not.
    None,
    /// `'s|'t|'re|'ve|'m|'ll|'d`
    Lower,
    /// The same in any case.
    AnyCase,
}

/// What a word of letters is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Letters {
    /// ` ?\p{L}+`
    Spaced,
    /// `[^\r\n\p{L}\p{N}]?\p{L}+`
    Plain,
    /// `[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+`
    Marked,
    /// `[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+`
    Phrase,
    /// Capitals then small letters, `[^\r\n\p{L}\p{N}]?U*V+|[^\r\n\p{L}\p{N}]?U+V*` with
    /// U = `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]` and V = `[\p{Ll}\p{Lm}\p{Lo}\p{M}]`.
    Cased {
        /// A contraction in any case may end the word.
        suffix: bool,
        /// Han characters are a word by themselves: `\p{Han}+` comes first.
        han_apart: bool,
    },
}

/// What a word of digits is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbers {
    /// ` ?\p{N}+`
    Spaced,
    /// `\p{N}{1,n}`
    UpTo(usize),
}

/// What may follow a run of symbols in the same word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tail {
    None,
    /// `[\r\n]*`
    Newlines,
    /// `[\r\n/]*`
    NewlinesAndSlashes,
    /// `[\r\n/]?`
    OneNewlineOrSlash,
}

/// How a run of white space is cut.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Spaces {
    /// `\s+(?!\S)|\s+`
    AllButLast,
    /// `\s*[\r\n]+|\s+(?!\S)|\s+`
    Lines,
    /// `\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|...|\s{4}(?!\S)|\s{1,2}(?!\S)|\s`
    LinesThenPowers,
}

/// A pattern of the family.
pub(super) struct Words {
    pub(super) contraction: Contraction,
    pub(super) letters: Letters,
    pub(super) numbers: Numbers,
    pub(super) tail: Tail,
    pub(super) spaces: Spaces,
}

impl Words {
    /// Calls `f` for every word; together they are the text.
    pub(super) fn split(&self, text: &[u8], mut f: impl FnMut(&[u8])) {
        let mut at = 0;
        while at < text.len() {
            let (class, len) = classes_at(text, at);
            let mut end = self.word_end(text, at, class, len);
            if end == at {
                // Only white space is left.
                end = match self.spaces {
                    Spaces::AllButLast => space_end(text, at, false),
                    Spaces::Lines => space_end(text, at, true),
                    Spaces::LinesThenPowers => {
                        at = powers_of_spaces(text, at, &mut f);
                        continue;
                    }
                };
            }
            // Every alternative takes at least a character; this holds even if one did not.
            let end = end.max(at + len.max(1)).min(text.len());
            f(&text[at..end]);
            at = end;
        }
    }

    /// The end of the word at `at`, or `at` where only white space can match.
    #[inline]
    fn word_end(&self, text: &[u8], at: usize, class: u16, len: usize) -> usize {
        let first = text[at];
        if first == b'\'' {
            let end = match self.contraction {
                Contraction::None => at,
                Contraction::Lower => contraction_end(text, at, false),
                Contraction::AnyCase => contraction_end(text, at, true),
            };
            if end > at {
                return end;
            }
        }
        let after_space = if first == b' ' { at + 1 } else { at };
        let end = match self.letters {
            Letters::Spaced => {
                let end = run(text, after_space, L);
                if end > after_space { end } else { at }
            }
            Letters::Plain => with_lead(text, at, class, len, |p| run(text, p, L)),
            Letters::Marked => with_lead(text, at, class, len, |p| run(text, p, L | M)),
            Letters::Phrase => with_lead(text, at, class, len, |p| phrase_end(text, p)),
            Letters::Cased { suffix, han_apart } => {
                cased_end(text, at, class, len, suffix, han_apart)
            }
        };
        if end > at {
            return end;
        }
        match self.numbers {
            Numbers::Spaced => {
                let end = run(text, after_space, N);
                if end > after_space {
                    return end;
                }
            }
            Numbers::UpTo(max) => {
                if class & N != 0 {
                    return run_up_to(text, at, N, max);
                }
            }
        }
        let other = if self.letters == Letters::Marked { W | L | M | N } else { W | L | N };
        let end = run_not(text, after_space, other);
        if end > after_space { self.tail_end(text, end) } else { at }
    }

    fn tail_end(&self, text: &[u8], mut at: usize) -> usize {
        match self.tail {
            Tail::None => {}
            Tail::Newlines => at = newlines_end(text, at),
            Tail::NewlinesAndSlashes => {
                while matches!(text.get(at), Some(b'\r' | b'\n' | b'/')) {
                    at += 1;
                }
            }
            Tail::OneNewlineOrSlash => {
                if matches!(text.get(at), Some(b'\r' | b'\n' | b'/')) {
                    at += 1;
                }
            }
        }
        at
    }
}

/// The end of `letters` at `at` with an optional `[^\r\n\p{L}\p{N}]` before, or `at`.
///
/// A lead that the letters could take too (a mark) gives the same end either way, so trying
/// without it first changes nothing.
#[inline]
fn with_lead(
    text: &[u8],
    at: usize,
    class: u16,
    len: usize,
    letters: impl Fn(usize) -> usize,
) -> usize {
    let end = letters(at);
    if end > at || class & (L | N) != 0 || matches!(text[at], b'\r' | b'\n') {
        return end;
    }
    let end = letters(at + len);
    if end > at + len { end } else { at }
}

/// The end of `(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+`: letters with their marks, and single spaces
/// that a letter follows.
fn phrase_end(text: &[u8], at: usize) -> usize {
    let (class, len) = classes_at(text, at);
    if class & L == 0 {
        return at;
    }
    let mut end = at + len;
    loop {
        end = run(text, end, L | M);
        if text.get(end) == Some(&b' ') {
            let (class, len) = classes_at(text, end + 1);
            if class & L != 0 {
                end += 1 + len;
                continue;
            }
        }
        return end;
    }
}

/// The end of a word of capitals and small letters, or `at`; see [`Letters::Cased`].
fn cased_end(
    text: &[u8],
    at: usize,
    class: u16,
    len: usize,
    suffix: bool,
    han_apart: bool,
) -> usize {
    if han_apart {
        let end = run_han(text, at);
        if end > at {
            return end;
        }
    }
    let cased = |p: usize, mask: u16| {
        let mut p = p;
        loop {
            let (class, len) = classes_at(text, p);
            if class & mask == 0 || (han_apart && len >= 3 && is_han(char_at(text, p).0)) {
                return p;
            }
            p += len;
        }
    };
    // `U*V+`: what U* took and V could take too is given back until V+ finds something.
    let small_ending = |start: usize| {
        let capitals = cased(start, UPPER);
        let end = cased(capitals, LOWER);
        if end > capitals {
            return end;
        }
        let (mut p, mut both_end) = (start, start);
        while p < capitals {
            let (class, len) = classes_at(text, p);
            p += len;
            if class & LOWER != 0 {
                both_end = p;
            }
        }
        both_end
    };
    // `U+V*`
    let capital_start = |start: usize| {
        let capitals = cased(start, UPPER);
        if capitals > start { cased(capitals, LOWER) } else { start }
    };
    let lead = class & (L | N) == 0 && !matches!(text[at], b'\r' | b'\n');
    let mut end = at;
    for ending in [&small_ending as &dyn Fn(usize) -> usize, &capital_start] {
        if lead {
            end = ending(at + len);
            if end > at + len {
                break;
            }
        }
        end = ending(at);
        if end > at {
            break;
        }
    }
    if suffix && end > at && text.get(end) == Some(&b'\'') {
        return contraction_end(text, end, true);
    }
    end
}

/// The end of `\p{Han}+`.
fn run_han(text: &[u8], mut at: usize) -> usize {
    while at < text.len() {
        let (c, len) = char_at(text, at);
        if len < 3 || !is_han(c) {
            break;
        }
        at += len;
    }
    at
}

/// The end of the run from `at` of at most `max` characters of the classes of `mask`.
pub(super) fn run_up_to(text: &[u8], mut at: usize, mask: u16, max: usize) -> usize {
    for _ in 0..max {
        let (class, len) = classes_at(text, at);
        if class & mask == 0 {
            break;
        }
        at += len;
    }
    at
}

/// The end of `'s|'t|'re|'ve|'m|'ll|'d` at an apostrophe, or `at`.
fn contraction_end(text: &[u8], at: usize, any_case: bool) -> usize {
    let letter = |i: usize| {
        let b = text.get(at + i).copied().unwrap_or(0);
        if any_case { b.to_ascii_lowercase() } else { b }
    };
    match (letter(1), letter(2)) {
        (b's' | b't' | b'm' | b'd', _) => at + 2,
        (b'r' | b'v', b'e') | (b'l', b'l') => at + 3,
        _ => at,
    }
}

fn newlines_end(text: &[u8], mut at: usize) -> usize {
    while matches!(text.get(at), Some(b'\r' | b'\n')) {
        at += 1;
    }
    at
}

/// The run of white space at `at`: its end, the start of its last character, and the end of its
/// last newline (0 without one).
fn spaces(text: &[u8], at: usize) -> (usize, usize, usize) {
    let (mut end, mut last, mut newline) = (at, at, 0);
    loop {
        let (class, len) = classes_at(text, end);
        if class & W == 0 {
            return (end, last, newline);
        }
        if matches!(text[end], b'\r' | b'\n') {
            newline = end + 1;
        }
        last = end;
        end += len;
    }
}

/// The end of `\s*[\r\n]+` (with `lines`), else of `\s+(?!\S)`, else of `\s+`; or `at`.
pub(super) fn space_end(text: &[u8], at: usize, lines: bool) -> usize {
    let (end, last, newline) = spaces(text, at);
    if lines && newline > 0 {
        newline
    } else if end < text.len() && last > at {
        last
    } else {
        end
    }
}

/// Cuts the run of white space at `at` as [`Spaces::LinesThenPowers`] says; returns where to go
/// on. A last single space is left where a word may begin with it.
fn powers_of_spaces(text: &[u8], at: usize, f: &mut impl FnMut(&[u8])) -> usize {
    let (end, _, newline) = spaces(text, at);
    if newline > 0 {
        f(&text[at..newline]);
        return newline;
    }
    let mut left = 0;
    let mut p = at;
    while p < end {
        p += classes_at(text, p).1;
        left += 1;
    }
    let at_end = end == text.len();
    let mut start = at;
    loop {
        // One space more must follow, or the end of the text.
        let free = if at_end { left } else { left - 1 };
        let take = [512, 256, 128, 64, 32, 16, 8, 4, 2, 1].into_iter().find(|&n| n <= free);
        // Without one, `\s` takes a single character: here only the first of the run.
        let take = match take {
            Some(n) => n,
            None if start == at => 1,
            None => return start,
        };
        let word_end = run_up_to(text, start, W, take);
        f(&text[start..word_end]);
        start = word_end;
        left -= take;
        if left == 0 {
            return start;
        }
    }
}

/// The pattern of DeepSeek V3 and its relatives, which leaves gaps between its matches:
/// `[ASCII punctuation][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|`
/// then `\s*[\r\n]+|\s+(?!\S)|\s+`, or with `single_newlines` no `[\r\n]*` and
/// `[\r\n]|\s+(?!\S)|\s+`.
///
/// Returns the end of the match at `at`, or `at`.
pub(super) fn deepseek_end(text: &[u8], at: usize, single_newlines: bool) -> usize {
    let (class, len) = classes_at(text, at);
    let newline = matches!(text[at], b'\r' | b'\n');
    if class & ASCII_PUNCT != 0 {
        let end = run(text, at + len, ASCII_LETTER);
        if end > at + len {
            return end;
        }
    }
    let end = run(text, at, L | M);
    if end > at {
        return end;
    }
    if !newline && class & (L | P | S) == 0 {
        let end = run(text, at + len, L | M);
        if end > at + len {
            return end;
        }
    }
    let after_space = if text[at] == b' ' { at + 1 } else { at };
    let end = run(text, after_space, P | S);
    if end > after_space {
        return if single_newlines { end } else { newlines_end(text, end) };
    }
    if class & W == 0 {
        at
    } else if single_newlines && newline {
        at + len
    } else {
        space_end(text, at, !single_newlines)
    }
}
