//! Generating: an iterator over tokens, and one over text.

use crate::sampler::{DRY_DEFAULT_BREAKERS, DryBreakers, Sampler, SamplerParams, StopStrings};
use crate::tokenizer::{EncodeOptions, Utf8Stream};
use crate::{Error, Result, Session};

/// How to generate.
#[derive(Clone, Debug)]
pub struct GenerateOptions {
    /// How tokens are chosen.
    pub sampler: SamplerParams,
    /// Tokens at the most; the context's end is the other limit.
    pub max_tokens: usize,
    /// Texts that end the answer; they are not part of it. Of token iterators they are ignored.
    pub stop: Vec<String>,
    /// Goes on past the tokens by which the model ends an answer.
    pub ignore_eos: bool,
    /// Writes control tokens out as text.
    pub special: bool,
    /// Texts across which DRY sees no repetition.
    pub dry_breakers: Vec<String>,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        GenerateOptions {
            sampler: SamplerParams::default(),
            max_tokens: usize::MAX,
            stop: Vec::new(),
            ignore_eos: false,
            special: false,
            dry_breakers: DRY_DEFAULT_BREAKERS.map(String::from).to_vec(),
        }
    }
}

/// Why an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it with this token.
    EndOfGeneration(u32),
    /// It has as many tokens as were asked for.
    MaxTokens,
    /// The context is full.
    ContextFull,
    /// A stop string came, the one with this index.
    Stop(usize),
}

/// The tokens of an answer, each computed when it is asked for.
pub struct Tokens<'s> {
    session: &'s mut Session,
    sampler: Sampler,
    left: usize,
    ignore_eos: bool,
    /// Given out, but not computed yet.
    pending: Option<u32>,
    finish: Option<Finish>,
    failed: bool,
}

impl Tokens<'_> {
    /// Why the answer ended; `None` until then.
    pub fn finish(&self) -> Option<&Finish> {
        self.finish.as_ref()
    }

    /// The session.
    pub fn session(&self) -> &Session {
        self.session
    }

    fn step(&mut self) -> Result<Option<u32>> {
        if self.left == 0 {
            self.finish = Some(Finish::MaxTokens);
            return Ok(None);
        }
        if let Some(token) = self.pending {
            if self.session.tokens().len() == self.session.shape().n_ctx {
                self.finish = Some(Finish::ContextFull);
                return Ok(None);
            }
            self.session.decode(token)?;
            self.pending = None;
        }
        let token = self.sampler.sample(self.session.logits(), self.session.tokens())?;
        if !self.ignore_eos && self.session.engine().tokenizer().is_eog(token) {
            self.finish = Some(Finish::EndOfGeneration(token));
            return Ok(None);
        }
        self.left -= 1;
        self.pending = Some(token);
        Ok(Some(token))
    }
}

impl Iterator for Tokens<'_> {
    type Item = Result<u32>;

    fn next(&mut self) -> Option<Result<u32>> {
        if self.finish.is_some() || self.failed {
            return None;
        }
        let step = self.step().transpose();
        self.failed = matches!(step, Some(Err(_)));
        step
    }
}

/// Bytes of a piece of text for which there is room from the beginning: more than a token has in
/// any vocabulary that is trained, but for a run of spaces here and there.
const PIECE_BYTES: usize = 1024;

/// The text of an answer, in pieces of whole characters: as an iterator of strings, or by
/// [`next_piece`](Self::next_piece), which allocates none.
pub struct TextStream<'s> {
    tokens: Tokens<'s>,
    stop: StopStrings,
    special: bool,
    bytes: Vec<u8>,
    utf8: Utf8Stream,
    /// The piece that was last given out.
    piece: String,
    n_tokens: usize,
    ended: bool,
}

impl TextStream<'_> {
    /// Why the answer ended; `None` until then.
    pub fn finish(&self) -> Option<&Finish> {
        self.tokens.finish()
    }

    /// Tokens generated so far.
    pub fn n_tokens(&self) -> usize {
        self.n_tokens
    }

    /// The session.
    pub fn session(&self) -> &Session {
        self.tokens.session()
    }
}

impl TextStream<'_> {
    /// Generates until there is text to show; `None` once the answer has ended. Nothing is
    /// allocated for it: the text is lent until the next call.
    ///
    /// ```no_run
    /// # fn f(session: &mut siskin::Session, prompt: &[u32]) -> siskin::Result<()> {
    /// let mut answer = session.stream(prompt, &siskin::GenerateOptions::default())?;
    /// while let Some(piece) = answer.next_piece()? {
    ///     print!("{piece}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Session::decode`], and [`Error::Logits`]; the answer has ended then.
    pub fn next_piece(&mut self) -> Result<Option<&str>> {
        self.piece.clear();
        while !self.ended && self.piece.is_empty() {
            let text = match self.tokens.next() {
                Some(Err(e)) => {
                    self.ended = true;
                    return Err(e);
                }
                Some(Ok(token)) => {
                    self.n_tokens += 1;
                    self.bytes.clear();
                    let tokenizer = self.tokens.session.engine().tokenizer();
                    let mut at_start = false;
                    tokenizer.append_piece(token, self.special, &mut at_start, &mut self.bytes);
                    self.utf8.push(&self.bytes)
                }
                None => {
                    self.ended = true;
                    self.utf8.finish()
                }
            };
            if let Some(which) = self.stop.push(text, &mut self.piece) {
                self.ended = true;
                self.tokens.finish = Some(Finish::Stop(which));
            } else if self.ended {
                self.stop.finish(&mut self.piece);
            }
        }
        Ok(Some(self.piece.as_str()).filter(|piece| !piece.is_empty()))
    }
}

impl Iterator for TextStream<'_> {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Result<String>> {
        self.next_piece().map(|piece| piece.map(String::from)).transpose()
    }
}

impl Session {
    /// Computes `prompt`, keeping what the session has computed of it already, and returns the
    /// tokens that follow.
    ///
    /// # Errors
    /// As [`prefill`](Self::prefill), and for sampler settings out of range.
    pub fn generate(&mut self, prompt: &[u32], options: &GenerateOptions) -> Result<Tokens<'_>> {
        let n_vocab = self.engine().hparams().n_vocab;
        let breakers = if options.sampler.uses_dry() {
            let tokenizer = self.engine().tokenizer();
            let plain = EncodeOptions { add_special: false, parse_special: false };
            DryBreakers::new(
                n_vocab,
                &options.dry_breakers,
                |token, out| tokenizer.append_piece(token, true, &mut false, out),
                |tail| {
                    let text = String::from_utf8_lossy(tail);
                    tokenizer.encode(&text, plain).unwrap_or_default()
                },
            )
        } else {
            DryBreakers::none()
        };
        let mut sampler = Sampler::new(&options.sampler, n_vocab, breakers)?;
        sampler.reserve(self.shape().n_ctx)?;
        self.resume(prompt)?;
        Ok(Tokens {
            session: self,
            sampler,
            left: options.max_tokens,
            ignore_eos: options.ignore_eos,
            pending: None,
            finish: None,
            failed: false,
        })
    }

    /// As [`generate`](Self::generate), with text for tokens.
    ///
    /// # Errors
    /// As [`generate`](Self::generate).
    pub fn stream(&mut self, prompt: &[u32], options: &GenerateOptions) -> Result<TextStream<'_>> {
        let mut stop = StopStrings::new(&options.stop)?;
        stop.reserve(PIECE_BYTES);
        let longest_stop = options.stop.iter().map(String::len).max().unwrap_or(0);
        Ok(TextStream {
            tokens: self.generate(prompt, options)?,
            stop,
            special: options.special,
            bytes: Vec::with_capacity(PIECE_BYTES),
            utf8: Utf8Stream::with_capacity(PIECE_BYTES),
            piece: String::with_capacity(PIECE_BYTES + longest_stop),
            n_tokens: 0,
            ended: false,
        })
    }

    /// Makes `tokens` what the session has computed: what it has of them already stays, the rest
    /// is computed. Returns how many stayed.
    ///
    /// # Errors
    /// As [`prefill`](Self::prefill).
    pub fn resume(&mut self, tokens: &[u32]) -> Result<usize> {
        if tokens.is_empty() {
            return Err(Error::Invalid("the prompt has no tokens".into()));
        }
        let common = self.tokens().iter().zip(tokens).take_while(|(a, b)| a == b).count();
        // The last token is computed again, for its logits.
        let keep = common.min(tokens.len() - 1);
        let kept = if self.rewind(keep) { keep } else { 0 };
        self.prefill(&tokens[kept..])?;
        Ok(kept)
    }
}
