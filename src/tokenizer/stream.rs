//! From tokens to text, one token at a time.

use super::Tokenizer;

/// Gathers bytes and gives out text as soon as its characters are whole.
///
/// What can be no UTF-8 whatever follows becomes U+FFFD, as [`String::from_utf8_lossy`] has it.
///
/// ```
/// let mut stream = siskin::tokenizer::Utf8Stream::default();
/// assert_eq!(stream.push(b"caf\xc3"), "caf");
/// assert_eq!(stream.push(b"\xa9"), "é");
/// assert_eq!(stream.finish(), "");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Utf8Stream {
    /// The beginning of a character, at most three bytes.
    pending: Vec<u8>,
    text: String,
}

impl Utf8Stream {
    /// One that allocates nothing more for pieces of up to `bytes` bytes.
    pub fn with_capacity(bytes: usize) -> Utf8Stream {
        const UNFINISHED: usize = 3;
        let longest = UNFINISHED + bytes;
        // At the worst, each byte becomes a U+FFFD.
        let text = String::with_capacity(char::REPLACEMENT_CHARACTER.len_utf8() * longest);
        Utf8Stream { pending: Vec::with_capacity(longest), text }
    }

    /// Takes bytes; returns the text that is now whole.
    pub fn push(&mut self, bytes: &[u8]) -> &str {
        self.text.clear();
        self.pending.extend_from_slice(bytes);
        let mut rest = &self.pending[..];
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    self.text.push_str(text);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    // These bytes were just found valid: nothing is replaced.
                    self.text.push_str(&String::from_utf8_lossy(valid));
                    rest = after;
                    match error.error_len() {
                        Some(len) => {
                            self.text.push(char::REPLACEMENT_CHARACTER);
                            rest = &rest[len..];
                        }
                        None => break,
                    }
                }
            }
        }
        let done = self.pending.len() - rest.len();
        self.pending.drain(..done);
        &self.text
    }

    /// Ends the text: a character that never became whole is U+FFFD.
    pub fn finish(&mut self) -> &str {
        self.text.clear();
        if !self.pending.is_empty() {
            self.pending.clear();
            self.text.push(char::REPLACEMENT_CHARACTER);
        }
        &self.text
    }
}

/// Turns the tokens of one sequence into text as they come; see [`Tokenizer::decoder`].
pub struct StreamDecoder<'a> {
    tokenizer: &'a Tokenizer,
    special: bool,
    at_start: bool,
    bytes: Vec<u8>,
    utf8: Utf8Stream,
}

impl<'a> StreamDecoder<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer) -> StreamDecoder<'a> {
        StreamDecoder {
            tokenizer,
            special: false,
            at_start: false,
            bytes: Vec::new(),
            utf8: Utf8Stream::default(),
        }
    }

    /// Whether control tokens are written out. They are not unless this says so.
    pub fn with_special(mut self, special: bool) -> Self {
        self.special = special;
        self
    }

    /// Says that the tokens begin a text, so that the space that encoding put before it goes.
    /// Without this the tokens go on from others, as an answer does from its prompt.
    pub fn from_start(mut self) -> Self {
        self.at_start = true;
        self
    }

    /// Takes a token; returns the text that is now whole.
    pub fn push(&mut self, id: u32) -> &str {
        self.bytes.clear();
        self.tokenizer.append_piece(id, self.special, &mut self.at_start, &mut self.bytes);
        self.utf8.push(&self.bytes)
    }

    /// Ends the text; returns what is left of it.
    pub fn finish(&mut self) -> &str {
        self.utf8.finish()
    }
}
