//! What a character is, as far as the pre-tokenizers ask.
//!
//! ASCII is answered from a table of 128 entries, the rest from the Unicode general category.

use unicode_general_category::{GeneralCategory as Gc, get_general_category};

/// `\p{L}`
pub(crate) const L: u16 = 1;
/// `\p{N}`
pub(crate) const N: u16 = 1 << 1;
/// `\p{M}`
pub(crate) const M: u16 = 1 << 2;
/// `\p{P}`
pub(crate) const P: u16 = 1 << 3;
/// `\p{S}`
pub(crate) const S: u16 = 1 << 4;
/// `\s`: the White_Space property.
pub(crate) const W: u16 = 1 << 5;
/// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`: what may stand where a capital does.
pub(crate) const UPPER: u16 = 1 << 6;
/// `[\p{Ll}\p{Lm}\p{Lo}\p{M}]`: what may stand where a small letter does.
pub(crate) const LOWER: u16 = 1 << 7;
/// `\p{Nd}`
pub(crate) const ND: u16 = 1 << 8;
/// `[\p{Cc}\p{Cf}\p{Co}]`
pub(crate) const CONTROL: u16 = 1 << 9;
/// Characters that a word is made of in the sense of `\b`.
pub(crate) const WORD: u16 = 1 << 10;
/// `\p{Mn}`
pub(crate) const MN: u16 = 1 << 11;
/// ASCII punctuation and symbols: ``[!-/:-@\[-`{-~]``.
pub(crate) const ASCII_PUNCT: u16 = 1 << 12;
/// `[A-Za-z]`
pub(crate) const ASCII_LETTER: u16 = 1 << 13;
/// `[0-9]`
pub(crate) const ASCII_DIGIT: u16 = 1 << 14;
/// ``[\p{P}$+<=>^~|`]`` is P or this.
pub(crate) const ASCII_SYMBOL: u16 = 1 << 15;

const ASCII: [u16; 128] = {
    let mut table = [0u16; 128];
    let mut i = 0;
    while i < 128 {
        let c = i as u8;
        let mut f = 0;
        if c.is_ascii_uppercase() {
            f |= L | UPPER | WORD | ASCII_LETTER;
        } else if c.is_ascii_lowercase() {
            f |= L | LOWER | WORD | ASCII_LETTER;
        } else if c.is_ascii_digit() {
            f |= N | ND | WORD | ASCII_DIGIT;
        } else if matches!(c, b'$' | b'+' | b'<' | b'=' | b'>' | b'^' | b'`' | b'|' | b'~') {
            f |= S | ASCII_PUNCT | ASCII_SYMBOL;
        } else if c.is_ascii_punctuation() {
            f |= P | ASCII_PUNCT;
            if c == b'_' {
                f |= WORD;
            }
        } else if c == b' ' {
            f |= W;
        } else {
            f |= CONTROL;
            if matches!(c, b'\t' | b'\n' | 0x0b | 0x0c | b'\r') {
                f |= W;
            }
        }
        table[i] = f;
        i += 1;
    }
    table
};

/// The classes of a character.
#[inline]
pub(crate) fn classes(c: char) -> u16 {
    match ASCII.get(c as usize) {
        Some(&f) => f,
        None => classes_beyond_ascii(c),
    }
}

fn classes_beyond_ascii(c: char) -> u16 {
    let f = match get_general_category(c) {
        Gc::UppercaseLetter | Gc::TitlecaseLetter => L | UPPER | WORD,
        Gc::LowercaseLetter => L | LOWER | WORD,
        Gc::ModifierLetter | Gc::OtherLetter => L | UPPER | LOWER | WORD,
        Gc::NonspacingMark => M | MN | UPPER | LOWER | WORD,
        Gc::SpacingMark | Gc::EnclosingMark => M | UPPER | LOWER | WORD,
        Gc::DecimalNumber => N | ND | WORD,
        Gc::LetterNumber => N | WORD,
        Gc::OtherNumber => N,
        Gc::ConnectorPunctuation => P | WORD,
        Gc::DashPunctuation
        | Gc::OpenPunctuation
        | Gc::ClosePunctuation
        | Gc::InitialPunctuation
        | Gc::FinalPunctuation
        | Gc::OtherPunctuation => P,
        Gc::MathSymbol | Gc::CurrencySymbol | Gc::ModifierSymbol => S,
        // Circled letters are alphabetic, so that `\b` takes them for letters.
        Gc::OtherSymbol if c.is_alphabetic() => S | WORD,
        Gc::OtherSymbol => S,
        Gc::Control | Gc::Format | Gc::PrivateUse => CONTROL,
        _ => 0,
    };
    if c.is_whitespace() { f | W } else { f }
}

/// The character that starts at `at`, and its length in bytes.
///
/// `text` is UTF-8 and `at` is the start of a character; where they are not, the answer is the
/// replacement character and one byte, so that a walk always goes on.
#[inline]
pub(crate) fn char_at(text: &[u8], at: usize) -> (char, usize) {
    match text.get(at) {
        Some(&b) if b < 0x80 => (b as char, 1),
        Some(&b) => wide_char_at(text, at, b),
        None => (char::REPLACEMENT_CHARACTER, 1),
    }
}

fn wide_char_at(text: &[u8], at: usize, first: u8) -> (char, usize) {
    let tail = |i: usize| text.get(at + i).map_or(0, |&b| u32::from(b & 0x3f));
    let first = u32::from(first);
    let (value, len) = if first < 0xe0 {
        ((first & 0x1f) << 6 | tail(1), 2)
    } else if first < 0xf0 {
        ((first & 0x0f) << 12 | tail(1) << 6 | tail(2), 3)
    } else {
        ((first & 0x07) << 18 | tail(1) << 12 | tail(2) << 6 | tail(3), 4)
    };
    match char::from_u32(value) {
        Some(c) if at + len <= text.len() => (c, len),
        _ => (char::REPLACEMENT_CHARACTER, 1),
    }
}

/// The classes of the character at `at` and its length; no class and no length past the end.
#[inline]
pub(crate) fn classes_at(text: &[u8], at: usize) -> (u16, usize) {
    match text.get(at) {
        None => (0, 0),
        Some(&b) if b < 0x80 => (ASCII[b as usize], 1),
        Some(_) => {
            let (c, len) = char_at(text, at);
            (classes_beyond_ascii(c), len)
        }
    }
}

/// The end of the run of characters from `at` on that are in one of the classes of `mask`.
#[inline]
pub(crate) fn run(text: &[u8], mut at: usize, mask: u16) -> usize {
    loop {
        let (f, len) = classes_at(text, at);
        if f & mask == 0 {
            return at;
        }
        at += len;
    }
}

/// The end of the run of characters from `at` on that are in no class of `mask`.
#[inline]
pub(crate) fn run_not(text: &[u8], mut at: usize, mask: u16) -> usize {
    loop {
        let (f, len) = classes_at(text, at);
        if len == 0 || f & mask != 0 {
            return at;
        }
        at += len;
    }
}

/// Whether a list of inclusive ranges, in order, holds a character.
pub(crate) fn in_ranges(ranges: &[(u32, u32)], c: char) -> bool {
    let c = c as u32;
    let next = ranges.partition_point(|&(lo, _)| lo <= c);
    next > 0 && c <= ranges[next - 1].1
}

/// `\p{Han}`: the characters whose script is Han.
pub(crate) fn is_han(c: char) -> bool {
    const HAN: &[(u32, u32)] = &[
        (0x2e80, 0x2e99),
        (0x2e9b, 0x2ef3),
        (0x2f00, 0x2fd5),
        (0x3005, 0x3005),
        (0x3007, 0x3007),
        (0x3021, 0x3029),
        (0x3038, 0x303b),
        (0x3400, 0x4dbf),
        (0x4e00, 0x9fff),
        (0xf900, 0xfa6d),
        (0xfa70, 0xfad9),
        (0x16fe2, 0x16fe3),
        (0x16ff0, 0x16ff1),
        (0x20000, 0x2a6df),
        (0x2a700, 0x2b739),
        (0x2b740, 0x2b81d),
        (0x2b820, 0x2cea1),
        (0x2ceb0, 0x2ebe0),
        (0x2ebf0, 0x2ee5d),
        (0x2f800, 0x2fa1d),
        (0x30000, 0x3134a),
        (0x31350, 0x323af),
    ];
    in_ranges(HAN, c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fancy_regex::Regex;

    #[test]
    fn every_class_is_the_one_that_a_regex_engine_has() {
        let cases: &[(&str, u16)] = &[
            (r"\p{L}", L),
            (r"\p{N}", N),
            (r"\p{M}", M),
            (r"\p{P}", P),
            (r"\p{S}", S),
            (r"\s", W),
            (r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", UPPER),
            (r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]", LOWER),
            (r"\p{Nd}", ND),
            (r"[\p{Cc}\p{Cf}\p{Co}]", CONTROL),
            (r"[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}]", WORD),
            (r"\p{Mn}", MN),
            (r"[!-/:-@\[-`{-~]", ASCII_PUNCT),
            (r"[A-Za-z]", ASCII_LETTER),
            (r"[0-9]", ASCII_DIGIT),
            (r"[$+<=>^~|`]", ASCII_SYMBOL),
        ];
        let all: String = ('\0'..=char::MAX).collect();
        for &(pattern, class) in cases {
            // One pass over all characters: the runs that match against the runs in the class.
            let regex = Regex::new(&format!("(?:{pattern})+")).unwrap();
            let found: Vec<_> =
                regex.find_iter(&all).map(|m| m.unwrap()).map(|m| m.start()..m.end()).collect();
            let mut ours = Vec::new();
            let bytes = all.as_bytes();
            let mut at = 0;
            while at < bytes.len() {
                let end = run(bytes, at, class);
                if end > at {
                    ours.push(at..end);
                }
                at = run_not(bytes, end, class);
            }
            let name = |ranges: &[std::ops::Range<usize>]| -> Vec<String> {
                let chars = ranges.iter().flat_map(|r| all[r.clone()].chars());
                chars.map(|c| format!("{:x}", c as u32)).collect()
            };
            if ours != found {
                let (a, b) = (name(&ours), name(&found));
                let only = |x: &[String], y: &[String]| {
                    let y: std::collections::HashSet<_> = y.iter().collect();
                    x.iter().filter(|c| !y.contains(c)).take(40).cloned().collect::<Vec<_>>()
                };
                // The two sides may follow different versions of Unicode in the newest characters.
                let (x, y) = (only(&a, &b), only(&b, &a));
                panic!("{pattern}: only here {x:?}, only there {y:?}");
            }
        }
    }

    #[test]
    fn han_is_the_script_han() {
        let regex = Regex::new(r"\p{Han}").unwrap();
        for c in '\0'..=char::MAX {
            let mut buf = [0; 4];
            assert_eq!(
                is_han(c),
                regex.is_match(c.encode_utf8(&mut buf)).unwrap(),
                "{:x}",
                c as u32
            );
        }
    }

    #[test]
    fn a_walk_over_bytes_that_are_not_utf8_goes_on() {
        for text in [&b"\xff\xfe"[..], b"\xe2\x96", b"\xf0\x9f\x98", b"\xc3", b"\x80"] {
            let mut at = 0;
            while at < text.len() {
                at += char_at(text, at).1;
            }
            assert_eq!(at, text.len());
        }
    }
}
