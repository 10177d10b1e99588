//! Importance without a text of the user's: the model reads a text that is built in, and what its
//! columns are multiplied with there is measured, before it is quantized.
//!
//! Where nothing is known of the columns, the error of a weight that is multiplied with large inputs
//! counts no more than that of one whose inputs are all but zero. A few hundred tokens of any text
//! tell the two apart; of 96, 160 and 256 none was better than the others in text and in code (mean
//! KL divergence from the source of Q4_0 and Q3_K_M files of Qwen2.5 0.5B and Gemma 3 270M). What
//! that leaves of the divergence is in benches/record/quality.md. The text is in several languages,
//! some of programming, and begins with a sentence of each kind.
//!
//! The model has to be one that the runtime runs, in a GGUF file that it can map. What is none is
//! written to one for the time being, in its own types, beside the file that is to be made. Pages of a
//! matrix are given back as soon as it was multiplied (where the system takes such advice), so that
//! memory stays small whatever the model's size; what is said of columns that are used together takes
//! 256 bytes for each column of the inputs. Since the runtime computes the same bits everywhere, so
//! does this.

use std::ops::ControlFlow;
use std::path::Path;

use siskin::gguf::{AtomicFile, ByteOrder, GgufFile};
use siskin::model::{Hparams, ImatrixOptions, archs};
use siskin::{
    CancelHandle, EncodeOptions, Engine, EngineOptions, Session, SessionOptions, Tokenizer,
    TokenizerOptions,
};
use siskin_quant::table::KernelTable;

use crate::{Error, Imatrix, Plan, Progress, Result, Source, write};

/// The text.
const TEXT: &str = include_str!("calibration.txt");

/// The most tokens that are computed in a row.
const CHUNK: usize = 512;

/// The text's most tokens, of each amount.
const QUICK: usize = 192;
const FULL: usize = 2048;

/// How much is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// 192 tokens: the importance of each column.
    Quick,
    /// All of the text, up to 2048 tokens: which columns are used together, too, for quantizing
    /// with feedback.
    Full,
}

impl Amount {
    /// The most tokens.
    fn tokens(self) -> usize {
        match self {
            Amount::Quick => QUICK,
            Amount::Full => FULL,
        }
    }
}

/// A model that is ready to read the text.
pub struct Calibrator {
    session: Session,
    tokens: Vec<u32>,
    amount: Amount,
    /// Dropped after the session, which reads it: then it is removed, where it was not before.
    _copy: Option<AtomicFile>,
}

impl Calibrator {
    /// Loads the model. Of a source that is no GGUF file, or one of the other byte order, a copy is
    /// written beside `out`; `progress` is told of that, and can end it.
    ///
    /// # Errors
    /// [`Error::CannotRun`] if the runtime cannot run the model, on whatever machine: it can be
    /// quantized all the same. Others are those of reading the source, of writing the copy, and of
    /// memory.
    pub fn new(
        source: &dyn Source,
        amount: Amount,
        out: &Path,
        table: &KernelTable,
        threads: Option<usize>,
        progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<Calibrator> {
        let mapped = source.file().filter(|file| file.byte_order() == ByteOrder::Little);
        let (file, copy) = match mapped {
            Some(file) => (file.clone(), None),
            None => {
                check(source)?;
                let copy = write::write_temporary(source, table, out, threads, progress)?;
                let file = GgufFile::open(copy.temporary())?;
                // Where a file can lose its name while it is read, nobody who ends the process can
                // leave it behind.
                (file, Some(copy).filter(|_| !cfg!(unix)))
            }
        };
        let level = Some(table.level().to_string());
        // As for those who write: as many as are of use, if it is 0.
        let threads = threads.filter(|n| *n > 0);
        let options = EngineOptions { threads, level, ..EngineOptions::default() };
        let engine = Engine::from_file(file, &options).map_err(cannot_run)?;
        let tokens = tokens(&engine, amount).map_err(cannot_run)?;
        if tokens.is_empty() {
            return Err(Error::CannotRun("its tokenizer has no tokens for a text".into()));
        }
        let n_ctx = Some(chunk(&engine).min(tokens.len()));
        let options = SessionOptions { n_ctx, n_batch: CHUNK, ..SessionOptions::default() };
        let session = Session::new(&engine, &options)?;
        Ok(Calibrator { session, tokens, amount, _copy: copy })
    }

    /// A handle by which another thread can cancel.
    pub fn cancel_handle(&self) -> CancelHandle {
        self.session.cancel_handle()
    }

    /// Tokens that will be read.
    pub fn n_tokens(&self) -> usize {
        self.tokens.len()
    }

    /// Reads the text. `progress` is told after each chunk how many tokens are read.
    ///
    /// # Errors
    /// [`Error::Cancelled`]; [`Error::CannotRun`] if what the model computes is not finite.
    pub fn run(mut self, progress: &mut dyn FnMut(usize)) -> Result<Imatrix> {
        let sketch = self.amount == Amount::Full;
        self.session.collect_imatrix(ImatrixOptions { output: false, sketch, forget: true })?;
        let chunk = chunk(self.session.engine());
        let mut done = 0;
        for tokens in self.tokens.chunks(chunk) {
            self.session.rewind(0);
            self.session.prefill(tokens).map_err(|error| match error {
                siskin::Error::Cancelled => Error::Cancelled,
                other => other.into(),
            })?;
            done += tokens.len();
            progress(done);
        }
        let chunk = u32::try_from(chunk.min(self.tokens.len())).unwrap_or(u32::MAX);
        let mut imatrix = Imatrix::new("built-in calibration", chunk);
        imatrix.datasets.push(format!("Siskin's calibration text, {done} tokens"));
        let sums = self.session.take_imatrix().unwrap_or_default();
        imatrix.add_collected(sums).map_err(|error| match error {
            Error::Tensor { tensor, reason, .. } => Error::CannotRun(format!(
                "what {tensor} is multiplied with is not finite: {reason}"
            )),
            other => other,
        })?;
        Ok(imatrix)
    }
}

/// Refuses a model that cannot be run as far as its keys tell, before it is copied.
fn check(source: &dyn Source) -> Result<()> {
    let arch = &source.facts().arch;
    if archs::find(arch).is_none() {
        return Err(Error::CannotRun(format!("`{arch}` is no architecture that it runs")));
    }
    let plan = Plan { types: Vec::new(), file_type: 0, notes: Vec::new() };
    let keys = write::declare(source, &plan, &[], 0..0, None)?.start(Vec::new())?.finish()?;
    let keys = GgufFile::from_bytes(keys)?;
    Hparams::new(&keys).map_err(cannot_run)?;
    Tokenizer::from_gguf(keys.metadata(), &TokenizerOptions::default()).map_err(cannot_run)?;
    Ok(())
}

/// What makes a model one that cannot be run, told apart from what goes wrong.
fn cannot_run(error: siskin::Error) -> Error {
    match error {
        siskin::Error::Model { reason, .. } | siskin::Error::Gguf { reason, .. } => {
            Error::CannotRun(reason)
        }
        error @ siskin::Error::Tokenizer(_) => Error::CannotRun(error.to_string()),
        other => other.into(),
    }
}

/// Tokens that the model reads in a row.
fn chunk(engine: &Engine) -> usize {
    CHUNK.min(engine.hparams().n_ctx_train).max(1)
}

/// The text's, as many as are read. Each chunk begins as the model wants it.
fn tokens(engine: &Engine, amount: Amount) -> siskin::Result<Vec<u32>> {
    let tokenizer = engine.tokenizer();
    let encode = EncodeOptions { add_special: true, parse_special: false };
    let mut tokens = tokenizer.encode(TEXT, encode)?;
    tokens.truncate(amount.tokens());
    tokenizer.begin_chunks(&mut tokens, chunk(engine));
    Ok(tokens)
}
