//! The steps that a pre-tokenizer is made of. Each step cuts a text into pieces that the next one
//! cuts further: what it matches is a piece of its own, and so is what lies between two matches.

use super::class::{
    ASCII_DIGIT, ASCII_LETTER, N, ND, W, WORD, char_at, classes_at, in_ranges, run, run_not,
};
use super::words::{Words, deepseek_end, run_up_to};

/// A set of characters.
pub(super) enum Set {
    /// Those of the classes of a mask.
    Classes(u16),
    /// Those of a mask or of a list of inclusive ranges.
    Also(u16, &'static [(u32, u32)]),
    /// All but those of a mask or of a list of inclusive ranges.
    Not(u16, &'static [(u32, u32)]),
}

impl Set {
    fn has(&self, class: u16, text: &[u8], at: usize) -> bool {
        match self {
            Set::Classes(mask) => class & mask != 0,
            Set::Also(mask, ranges) => class & mask != 0 || in_ranges(ranges, char_at(text, at).0),
            Set::Not(mask, ranges) => class & mask == 0 && !in_ranges(ranges, char_at(text, at).0),
        }
    }
}

/// What may come once before a run.
#[derive(Clone, Copy)]
pub(super) enum Lead {
    None,
    /// ` ?`
    Space,
    /// `\s?`
    White,
}

/// `lead set{min,max}`
pub(super) struct Run {
    pub(super) lead: Lead,
    pub(super) set: Set,
    pub(super) min: usize,
    pub(super) max: usize,
}

impl Run {
    const fn of(set: Set, min: usize, max: usize) -> Run {
        Run { lead: Lead::None, set, min, max }
    }

    /// `set+`
    pub(super) const fn all(set: Set) -> Run {
        Run::of(set, 1, usize::MAX)
    }

    /// `set{1,max}`
    pub(super) const fn up_to(max: usize, set: Set) -> Run {
        Run::of(set, 1, max)
    }

    /// `set{n}`
    pub(super) const fn exactly(n: usize, set: Set) -> Run {
        Run::of(set, n, n)
    }

    /// `lead set+`
    pub(super) const fn led(lead: Lead, set: Set) -> Run {
        Run { lead, set, min: 1, max: usize::MAX }
    }

    fn end(&self, text: &[u8], at: usize, class: u16, len: usize) -> usize {
        let lead = match self.lead {
            Lead::None => 0,
            Lead::Space => usize::from(text[at] == b' '),
            Lead::White if class & W != 0 => len,
            Lead::White => 0,
        };
        let end = self.run_end(text, at + lead);
        // The set may hold white space itself: then the run may do without the lead.
        match end {
            Some(end) => end,
            None if lead > 0 => self.run_end(text, at).unwrap_or(at),
            None => at,
        }
    }

    fn run_end(&self, text: &[u8], mut at: usize) -> Option<usize> {
        let mut n = 0;
        while n < self.max {
            let (class, len) = classes_at(text, at);
            if len == 0 || !self.set.has(class, text, at) {
                break;
            }
            at += len;
            n += 1;
        }
        (n >= self.min).then_some(at)
    }
}

/// A step.
pub(super) enum Step {
    /// The first of several runs that matches.
    Runs(&'static [Run]),
    /// A pattern of the family of GPT-2.
    Words(&'static Words),
    /// The main pattern of DeepSeek V3; `true` for the variant that takes newlines one by one.
    DeepSeek(bool),
    /// `[^\n]+|\n+`
    Newlines,
    /// `\s+$`
    TrailingSpace,
    /// Decimal digits in threes, counted from the right.
    Threes(Threes),
    /// `<sentinel:[0-9]+>`
    Sentinel,
    /// `IMGIMG[A-I]{1,4}Z`
    Image,
    /// `[\t\n]|    |  `
    Indents,
}

/// Which digits [`Step::Threes`] takes, and where it takes them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Threes {
    /// `\d{1,3}(?=(?:\d{3})*\b)`: where no letter follows the digits.
    BeforeBoundary,
    /// `(?=(?:\d{3})+(?!\d))`: cuts only, so that up to two digits stay with what is before.
    Cuts,
    /// Every run of `\p{N}`.
    Numbers,
}

/// Cuts `text` by all `steps` in turn and calls `f` for every piece.
pub(super) fn split(steps: &[Step], text: &[u8], f: &mut impl FnMut(&[u8])) {
    if text.is_empty() {
        return;
    }
    let Some((step, rest)) = steps.split_first() else {
        f(text);
        return;
    };
    let mut piece = |piece: &[u8]| split(rest, piece, f);
    match step {
        Step::Words(words) if rest.is_empty() => words.split(text, f),
        Step::Words(words) => words.split(text, piece),
        Step::Newlines => {
            let mut start = 0;
            while start < text.len() {
                let newline = text[start] == b'\n';
                let end = text[start..].iter().position(|&b| (b == b'\n') != newline);
                let end = end.map_or(text.len(), |n| start + n);
                piece(&text[start..end]);
                start = end;
            }
        }
        Step::TrailingSpace => {
            let mut end = text.len();
            let mut last = text.len();
            while last > 0 {
                last -= 1;
                if text[last] & 0xc0 == 0x80 {
                    continue;
                }
                if classes_at(text, last).0 & W == 0 {
                    break;
                }
                end = last;
            }
            piece(&text[..end]);
            piece(&text[end..]);
        }
        Step::Threes(kind) => threes(*kind, text, &mut piece),
        _ => {
            let (mut start, mut at) = (0, 0);
            while at < text.len() {
                if let Step::Runs([Run { lead: Lead::None, set: Set::Classes(mask), .. }]) = step {
                    at = run_not(text, at, *mask);
                    if at == text.len() {
                        break;
                    }
                }
                let (class, len) = classes_at(text, at);
                let end = match step {
                    Step::Runs(runs) => runs
                        .iter()
                        .map(|run| run.end(text, at, class, len))
                        .find(|&end| end > at)
                        .unwrap_or(at),
                    Step::DeepSeek(single) => deepseek_end(text, at, *single),
                    Step::Sentinel => sentinel_end(text, at),
                    Step::Image => image_end(text, at),
                    _ => indent_end(text, at),
                };
                if end > at {
                    piece(&text[start..at]);
                    piece(&text[at..end]);
                    (start, at) = (end, end);
                } else {
                    at += len.max(1);
                }
            }
            piece(&text[start..]);
        }
    }
}

fn threes(kind: Threes, text: &[u8], piece: &mut impl FnMut(&[u8])) {
    let mask = if kind == Threes::Numbers { N } else { ND };
    let (mut start, mut at) = (0, 0);
    while at < text.len() {
        let (class, len) = classes_at(text, at);
        if class & mask == 0 {
            at += len.max(1);
            continue;
        }
        let end = run(text, at, mask);
        if kind == Threes::BeforeBoundary && classes_at(text, end).0 & WORD != 0 {
            at = end;
            continue;
        }
        let mut count = 0;
        let mut p = at;
        while p < end {
            p += classes_at(text, p).1;
            count += 1;
        }
        let first = run_up_to(text, at, mask, count % 3);
        let mut cut = |p: usize| {
            if p > start {
                piece(&text[start..p]);
                start = p;
            }
        };
        // Cuts alone leave what ends in digits, and what begins with them, in one piece.
        let isolated = kind != Threes::Cuts;
        if isolated {
            cut(at);
        }
        let mut p = first;
        while p < end {
            cut(p);
            p = run_up_to(text, p, mask, 3);
        }
        if isolated {
            cut(end);
        }
        at = end;
    }
    piece(&text[start..]);
}

fn sentinel_end(text: &[u8], at: usize) -> usize {
    const OPEN: &[u8] = b"<sentinel:";
    if !text[at..].starts_with(OPEN) {
        return at;
    }
    let digits = at + OPEN.len();
    let end = run(text, digits, ASCII_DIGIT);
    if end > digits && text.get(end) == Some(&b'>') { end + 1 } else { at }
}

fn image_end(text: &[u8], at: usize) -> usize {
    const OPEN: &[u8] = b"IMGIMG";
    if !text[at..].starts_with(OPEN) {
        return at;
    }
    let letters = at + OPEN.len();
    let end = run_up_to(text, letters, ASCII_LETTER, 4);
    let n = text[letters..end].iter().take_while(|b| (b'A'..=b'I').contains(b)).count();
    if n > 0 && text.get(letters + n) == Some(&b'Z') { letters + n + 1 } else { at }
}

fn indent_end(text: &[u8], at: usize) -> usize {
    if matches!(text[at], b'\t' | b'\n') {
        return at + 1;
    }
    let n = text[at..].iter().take(4).take_while(|&&b| b == b' ').count();
    match n {
        4 => at + 4,
        2 | 3 => at + 2,
        _ => at,
    }
}
