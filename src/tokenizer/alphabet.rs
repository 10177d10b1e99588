//! GPT-2's alphabet: a printable character for each of the 256 bytes.
//!
//! The printable characters of Latin-1 stand for themselves; the 68 other bytes, in order, are
//! U+0100 and on. Vocabularies of byte-level BPE are written in it.

/// The character of each byte.
const CHARS: [char; 256] = {
    let mut table = ['\0'; 256];
    let (mut byte, mut next) = (0usize, 0x100u32);
    while byte < 256 {
        table[byte] = if stands_for_itself(byte as u8) {
            byte as u8 as char
        } else {
            let c = next;
            next += 1;
            match char::from_u32(c) {
                Some(c) => c,
                None => '\0',
            }
        };
        byte += 1;
    }
    table
};

const LAST: u32 = 0x143;

/// The byte of each character up to [`LAST`]; 256 where there is none.
const BYTES: [u16; LAST as usize + 1] = {
    let mut table = [256u16; LAST as usize + 1];
    let mut byte = 0;
    while byte < 256 {
        table[CHARS[byte] as usize] = byte as u16;
        byte += 1;
    }
    table
};

const fn stands_for_itself(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff)
}

/// Appends the bytes that `text` stands for to `out`. `false`, with `out` as it was, if it holds
/// anything that is not in the alphabet.
pub(crate) fn decode(text: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let mut at = 0;
    while let Some(&b) = text.get(at) {
        // Nothing in the alphabet is longer than two bytes of UTF-8.
        let (c, len) = match b {
            0..0x80 => (u32::from(b), 1),
            0xc2..0xe0 => {
                let tail = text.get(at + 1).copied().unwrap_or(0);
                if tail & 0xc0 != 0x80 {
                    out.truncate(start);
                    return false;
                }
                (u32::from(b & 0x1f) << 6 | u32::from(tail & 0x3f), 2)
            }
            _ => (u32::MAX, 1),
        };
        match BYTES.get(c as usize) {
            Some(&byte) if byte < 256 => out.push(byte as u8),
            _ => {
                out.truncate(start);
                return false;
            }
        }
        at += len;
    }
    true
}

/// Appends the text that stands for `bytes` to `out`.
pub(crate) fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    let mut utf8 = [0; 4];
    for &byte in bytes {
        out.extend_from_slice(CHARS[byte as usize].encode_utf8(&mut utf8).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        encode(bytes, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_byte_has_a_character_and_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        let text = text_of(&all);
        assert_eq!(text.chars().count(), 256);
        let mut back = Vec::new();
        assert!(decode(text.as_bytes(), &mut back));
        assert_eq!(back, all);
        assert_eq!(text_of(b" \n\0\x7f\xa0\xad"), "\u{120}\u{10a}\u{100}\u{121}\u{142}\u{143}");
    }

    #[test]
    fn text_outside_the_alphabet_is_refused_and_leaves_nothing() {
        for text in ["a b", "\n", "\u{144}", "中", "a\u{ad}"] {
            let mut out = vec![1];
            assert!(!decode(text.as_bytes(), &mut out), "{text:?}");
            assert_eq!(out, [1]);
        }
        for bytes in [&b"\xc3"[..], b"\xc3\x28", b"\xff", b"\x80"] {
            assert!(!decode(bytes, &mut Vec::new()));
        }
    }
}
