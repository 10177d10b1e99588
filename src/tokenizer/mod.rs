//! Text to tokens and back, from the metadata of a GGUF file alone.
//!
//! Four kinds of models are known: byte-pair encoding (`gpt2`, `gemma4`, `whitespace`),
//! SentencePiece's byte-pair model (`llama`), WordPiece (`bert`) and unigram (`t5`). They give
//! the tokens that llama.cpp gives; the few deliberate differences are:
//!
//! - byte-pair models use the model's own regular expressions where llama.cpp approximates them
//!   (see the list of pre-tokenizers in `pretok`);
//! - WordPiece follows BERT's own tokenizer in what it takes for a control character and in
//!   giving up on words of more than 100 characters;
//! - a byte-pair file that names no beginning or end of sequence has none, where llama.cpp takes
//!   token 11;
//! - special tokens that overlap in a text are taken from left to right.
//!
//! Encoding takes time linear in the text up to a logarithm, whatever the text is.

mod alphabet;
mod boundary;
mod bpe;
mod cache;
mod charsmap;
mod load;
mod merge;
mod pretok;
mod special;
mod spm;
mod stream;
mod trie;
mod unigram;
mod vocab;
mod wordpiece;

pub use pretok::recognize_pre_tokenizer;
pub use stream::{StreamDecoder, Utf8Stream};

use boundary::SPACE;
use bpe::Bpe;
use cache::WordCache;
use merge::Merger;
use special::{Fragment, Specials};
use spm::Spm;
use unigram::Unigram;
use vocab::{Vocab, attr};
use wordpiece::WordPiece;

use crate::{Error, Result};

/// What to do where a file does not say, or says what is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenizerOptions {
    /// The pre-tokenizer to use instead of the file's `tokenizer.ggml.pre`.
    ///
    /// A name that is not known is an error that lists those that are.
    pub pre: Option<String>,
}

/// How to encode a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Add the tokens that begin and end a sequence, where the model wants them.
    pub add_special: bool,
    /// Take the texts of control tokens, such as `<|im_start|>`, for these tokens. Without it
    /// they are plain text: what a user types cannot steer the model.
    pub parse_special: bool,
}

impl Default for EncodeOptions {
    /// A prompt of plain text: sequence tokens are added, special tokens are not parsed.
    fn default() -> EncodeOptions {
        EncodeOptions { add_special: true, parse_special: false }
    }
}

/// The kinds of tokenizer models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// Byte-pair encoding.
    Bpe,
    /// SentencePiece's byte-pair model.
    Spm,
    /// BERT's WordPiece.
    WordPiece,
    /// SentencePiece's unigram model.
    Unigram,
}

/// The tokens with a part to play, as far as the file has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs)] // The names are those of the GGUF keys.
pub struct SpecialTokens {
    /// Begins a sequence.
    pub bos: Option<u32>,
    /// Ends a sequence.
    pub eos: Option<u32>,
    /// Ends a turn of a conversation.
    pub eot: Option<u32>,
    /// Ends a message that calls a tool.
    pub eom: Option<u32>,
    /// Stands for what the vocabulary lacks.
    pub unk: Option<u32>,
    /// Separates two texts.
    pub sep: Option<u32>,
    /// Fills up a batch.
    pub pad: Option<u32>,
    /// Stands for a word to guess.
    pub mask: Option<u32>,
    pub fim_pre: Option<u32>,
    pub fim_suf: Option<u32>,
    pub fim_mid: Option<u32>,
    pub fim_pad: Option<u32>,
    pub fim_rep: Option<u32>,
    pub fim_sep: Option<u32>,
}

enum Model {
    Bpe {
        bpe: Bpe,
        escape_spaces: bool,
        /// Drop white space, and lower the letters if so asked: the model "whitespace".
        words: Option<load::Lowercase>,
    },
    Spm(Spm),
    WordPiece(WordPiece),
    Unigram(Box<Unigram>),
}

/// A tokenizer. It never changes: any number of threads may use one at once.
pub struct Tokenizer {
    vocab: Vocab,
    model: Model,
    specials: Specials,
    ids: SpecialTokens,
    /// Tokens that end a generation, sorted.
    eog: Vec<u32>,
    suppressed: Vec<u32>,
    add_bos: bool,
    add_eos: bool,
    /// Text begins with a space that encoding adds.
    add_space_prefix: bool,
    /// Decoding takes a space away from the beginning.
    strip_first_space: bool,
}

impl Tokenizer {
    /// The tokens of a text.
    pub fn encode(&self, text: &str, opts: EncodeOptions) -> Result<Vec<u32>> {
        if text.len() >= u32::MAX as usize / 32 {
            // Places are 32 bits, and normalization makes texts longer.
            return Err(Error::Tokenizer(format!("a text of {} bytes is too long", text.len())));
        }
        let mut out = Vec::with_capacity(text.len() / 4 + 4);
        let bert = matches!(self.model, Model::WordPiece(_));
        if opts.add_special && (self.add_bos || bert) {
            out.extend(self.ids.bos);
        }
        let mut work = Work { merger: Merger::default(), cache: WordCache::for_text(text.len()) };
        // SentencePiece puts a space before a text, and after each special token.
        let mut after_special = true;
        self.specials.split(&self.vocab, text, opts.parse_special, |fragment| {
            match fragment {
                Fragment::Token(id) => {
                    out.push(id);
                    after_special = true;
                }
                Fragment::Text(text) => {
                    let prefix = self.add_space_prefix && after_special;
                    self.encode_text(text, prefix, &mut work, &mut out)?;
                    after_special = false;
                }
            }
            Ok(())
        })?;
        if opts.add_special {
            if bert {
                out.extend(self.ids.sep);
            } else if self.add_eos {
                out.extend(self.ids.eos);
            }
        }
        Ok(out)
    }

    fn encode_text(
        &self,
        text: &str,
        prefix: bool,
        work: &mut Work,
        out: &mut Vec<u32>,
    ) -> Result<()> {
        let Work { merger, cache } = work;
        let vocab = &self.vocab;
        match &self.model {
            Model::Bpe { bpe, words: Some(lowercase), .. } => {
                for word in text.split_whitespace() {
                    let word = lowercase.apply(word);
                    bpe.encode(vocab, word.as_bytes(), merger, cache, out)?;
                }
            }
            Model::Bpe { bpe, escape_spaces: true, .. } => {
                bpe.encode(vocab, &escape_spaces(text, false), merger, cache, out)?;
            }
            Model::Bpe { bpe, .. } => bpe.encode(vocab, text.as_bytes(), merger, cache, out)?,
            Model::Spm(spm) => spm.encode(vocab, &escape_spaces(text, prefix), merger, cache, out),
            Model::WordPiece(model) => model.encode(vocab, text, cache, out),
            Model::Unigram(model) => model.encode(text, out)?,
        }
        Ok(())
    }

    /// The text of tokens: what [`Tokenizer::encode`] made them of.
    ///
    /// The space that encoding puts before a text is taken away again. Control tokens are written
    /// out if `special`, else left out. Bytes that are no UTF-8 become U+FFFD; see
    /// [`Tokenizer::decode_bytes`] for the bytes as they are, and [`Tokenizer::decoder`] for text
    /// that comes a token at a time.
    pub fn decode(&self, tokens: &[u32], special: bool) -> String {
        let bytes = self.decode_bytes(tokens, special);
        String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }

    /// The bytes of the text of tokens; see [`Tokenizer::decode`].
    pub fn decode_bytes(&self, tokens: &[u32], special: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(tokens.len().saturating_mul(4));
        let mut at_start = true;
        for &id in tokens {
            self.append_piece(id, special, &mut at_start, &mut out);
        }
        out
    }

    /// A decoder that takes one token at a time and gives out whole characters.
    ///
    /// As it stands it goes on from other tokens, as an answer does from its prompt: a space
    /// before the first word is kept.
    pub fn decoder(&self) -> StreamDecoder<'_> {
        StreamDecoder::new(self)
    }

    /// The bytes that a token stands for in a text, wherever it stands: the text of a control
    /// token, nothing for a token that is not used. `None` if there is no such token.
    pub fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        ((id as usize) < self.vocab.len()).then(|| {
            let mut out = Vec::new();
            self.append_piece(id, true, &mut false, &mut out);
            out
        })
    }

    /// Appends what a token stands for. At the start of a text a space is left out if encoding
    /// put it there.
    pub(crate) fn append_piece(
        &self,
        id: u32,
        special: bool,
        at_start: &mut bool,
        out: &mut Vec<u8>,
    ) {
        let attr = self.vocab.attr(id);
        if attr & (attr::CONTROL | attr::UNKNOWN) != 0 {
            if special {
                self.vocab.append_text(id, out);
            }
        } else if attr & attr::USER_DEFINED != 0 {
            self.vocab.append_text(id, out);
            *at_start = false;
        } else if attr & attr::NORMAL != 0 {
            let bytes = self.vocab.bytes(id);
            let escaped = match &self.model {
                Model::Bpe { escape_spaces, .. } => *escape_spaces,
                _ => true,
            };
            if !escaped {
                out.extend_from_slice(bytes);
            } else {
                let from = out.len();
                unescape_spaces(bytes, out);
                if *at_start && self.strip_first_space && out.get(from) == Some(&b' ') {
                    out.remove(from);
                }
            }
            *at_start = false;
        } else if attr & attr::BYTE != 0 {
            match self.vocab.byte_of(id) {
                Some(byte) => out.push(byte),
                None => out.extend_from_slice(self.vocab.bytes(id)),
            }
            *at_start = false;
        }
    }

    /// The kind of the model.
    pub fn kind(&self) -> Kind {
        match self.model {
            Model::Bpe { .. } => Kind::Bpe,
            Model::Spm(_) => Kind::Spm,
            Model::WordPiece(_) => Kind::WordPiece,
            Model::Unigram(_) => Kind::Unigram,
        }
    }

    /// How many tokens there are.
    pub fn n_vocab(&self) -> usize {
        self.vocab.len()
    }

    /// The tokens with a part to play.
    pub fn special_tokens(&self) -> &SpecialTokens {
        &self.ids
    }

    /// The token that begins a sequence.
    pub fn bos(&self) -> Option<u32> {
        self.ids.bos
    }

    /// The token that ends a sequence.
    pub fn eos(&self) -> Option<u32> {
        self.ids.eos
    }

    /// The token that ends a turn of a conversation.
    pub fn eot(&self) -> Option<u32> {
        self.ids.eot
    }

    /// The token that fills up a batch.
    pub fn pad(&self) -> Option<u32> {
        self.ids.pad
    }

    /// The token for what the vocabulary lacks.
    pub fn unk(&self) -> Option<u32> {
        self.ids.unk
    }

    /// Whether [`EncodeOptions::add_special`] puts [`Tokenizer::bos`] before a text.
    pub fn add_bos(&self) -> bool {
        self.add_bos
    }

    /// Begins each chunk of `n` tokens as the model wants it: with BOS, in place of its first token.
    /// So llama.cpp's tools cut a text whose parts are computed by themselves. Chunks of one token
    /// stay.
    pub fn begin_chunks(&self, tokens: &mut [u32], n: usize) {
        if let (true, Some(bos)) = (self.add_bos && n > 1, self.ids.bos) {
            tokens.iter_mut().step_by(n).for_each(|first| *first = bos);
        }
    }

    /// Whether [`EncodeOptions::add_special`] puts [`Tokenizer::eos`] after a text.
    pub fn add_eos(&self) -> bool {
        self.add_eos
    }

    /// Whether a token ends a generation: the end of the sequence, of a turn or of a message, and
    /// the tokens that are known for it by their text, such as `<|im_end|>` and `<end_of_turn>`.
    pub fn is_eog(&self, id: u32) -> bool {
        self.eog.binary_search(&id).is_ok()
    }

    /// All tokens for which [`Tokenizer::is_eog`] holds, in order.
    pub fn eog_tokens(&self) -> &[u32] {
        &self.eog
    }

    /// Whether a token steers the model rather than being text.
    pub fn is_control(&self, id: u32) -> bool {
        self.vocab.is(id, attr::CONTROL)
    }

    /// Whether a token is found only in a text whose special tokens are parsed, and written out
    /// only by a decoder that writes out special tokens.
    pub fn is_special(&self, id: u32) -> bool {
        self.vocab.is(id, attr::CONTROL | attr::UNKNOWN)
    }

    /// Tokens that the model is never to produce, by `tokenizer.ggml.suppress_tokens`.
    pub fn suppressed_tokens(&self) -> &[u32] {
        &self.suppressed
    }

    /// The token that the file writes as `text`, such as `<|im_end|>` or, in a byte-level
    /// vocabulary, `Ġthe`.
    pub fn token_id(&self, text: &str) -> Option<u32> {
        self.vocab.find_text(text.as_bytes())
    }

    /// A token as the file writes it.
    pub fn token_text(&self, id: u32) -> Option<String> {
        ((id as usize) < self.vocab.len())
            .then(|| String::from_utf8_lossy(&self.vocab.text(id)).into_owned())
    }
}

/// What encoding needs while it lasts.
struct Work {
    merger: Merger,
    cache: WordCache,
}

fn escape_spaces(text: &str, prefix: bool) -> Vec<u8> {
    let spaces = memchr::memchr_iter(b' ', text.as_bytes()).count();
    let mut out = Vec::with_capacity(text.len() + 2 * spaces + SPACE.len());
    if prefix {
        out.extend_from_slice(SPACE);
    }
    let mut start = 0;
    for at in memchr::memchr_iter(b' ', text.as_bytes()) {
        out.extend_from_slice(&text.as_bytes()[start..at]);
        out.extend_from_slice(SPACE);
        start = at + 1;
    }
    out.extend_from_slice(&text.as_bytes()[start..]);
    out
}

fn unescape_spaces(mut bytes: &[u8], out: &mut Vec<u8>) {
    while let Some((&first, rest)) = bytes.split_first() {
        (bytes, _) = match bytes.strip_prefix(SPACE) {
            Some(rest) => (rest, out.push(b' ')),
            None => (rest, out.push(first)),
        };
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("kind", &self.kind())
            .field("n_vocab", &self.n_vocab())
            .field("special_tokens", &self.ids)
            .finish_non_exhaustive()
    }
}
