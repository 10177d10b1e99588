//! The engine, which never changes after loading, and sessions, which hold all that does.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use siskin_quant::attention::KvType;
use siskin_quant::par::Pool;
use siskin_quant::table::KernelTable;

use crate::gguf::GgufFile;
use crate::model::{Hparams, KvCache, MemoryPlan, Model, Pass, SessionShape, Workspace};
use crate::tokenizer::{Tokenizer, TokenizerOptions};
use crate::{Error, Result, cores, memory};

/// Rows whose logits are computed together when those of every position are asked for.
const LOGIT_ROWS: usize = 16;
/// Positions of a session if nobody says, or as many as the model was trained for.
const DEFAULT_CTX: usize = 8192;
/// The least context that is worth a start when memory is short.
const LEAST_CTX: usize = 512;

/// The names of the kernel levels that this CPU has, from slow to fast; see
/// [`EngineOptions::level`].
pub fn kernel_levels() -> Vec<&'static str> {
    KernelTable::level_names()
}

/// How to load a model.
#[derive(Clone, Debug, Default)]
pub struct EngineOptions {
    /// Threads; default: one for each physical core, on Arm for each big core.
    pub threads: Option<usize>,
    /// Most bytes of memory that the model and a session may take together.
    pub mem_limit: Option<u64>,
    /// Reads the whole file into memory at once, instead of page by page when it is first used.
    pub prefault: bool,
    /// Keeps the file's pages in memory.
    pub lock: bool,
    /// The kernels' level (`scalar`, `avx2`, ...); default: the environment variable `SISKIN_CPU`,
    /// or else the fastest that the CPU has.
    pub level: Option<String>,
    /// How to read the tokenizer.
    pub tokenizer: TokenizerOptions,
}

/// A model that is ready to run: weights, tokenizer, kernels and threads. Cheap to clone; clones
/// share everything.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    file: GgufFile,
    model: Model,
    tokenizer: Tokenizer,
    table: KernelTable,
    pool: Pool,
    mem_limit: Option<u64>,
}

impl Engine {
    /// Maps the GGUF file at `path` and makes it ready. Weights are read when they are first used.
    ///
    /// # Errors
    /// If the file cannot be read, is no GGUF file, or no model that can be run; each names the
    /// file, the place and the reason.
    pub fn load(path: impl AsRef<Path>, options: &EngineOptions) -> Result<Engine> {
        Self::from_file(GgufFile::open(path)?, options)
    }

    /// Makes an opened file ready.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_file(file: GgufFile, options: &EngineOptions) -> Result<Engine> {
        let model = Model::new(&file)?;
        let tokenizer = Tokenizer::from_gguf(file.metadata(), &options.tokenizer)?;
        let table = match &options.level {
            Some(name) => KernelTable::for_level(name),
            None => KernelTable::detect(),
        };
        let table = table.map_err(Error::Invalid)?;
        let threads = options.threads.unwrap_or_else(cores::default_threads);
        if threads == 0 || threads > 1024 {
            return Err(Error::Invalid(format!("{threads} threads: from 1 to 1024 can be used")));
        }
        let pool = Pool::new(threads)
            .map_err(|e| Error::Invalid(format!("threads cannot be started: {e}")))?;
        if options.lock {
            file.lock()?;
        } else if options.prefault {
            file.prefault();
        }
        let mem_limit = options.mem_limit;
        Ok(Engine(Arc::new(Inner { file, model, tokenizer, table, pool, mem_limit })))
    }

    /// The file.
    pub fn file(&self) -> &GgufFile {
        &self.0.file
    }

    /// The model's numbers.
    pub fn hparams(&self) -> &Hparams {
        &self.0.model.hparams
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.0.model
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.0.tokenizer
    }

    /// Threads that compute.
    pub fn threads(&self) -> usize {
        self.0.pool.n_threads()
    }

    /// The name of the kernels' level.
    pub fn level(&self) -> &'static str {
        self.0.table.level()
    }

    /// Measures how many bytes a second this machine reads from memory, and how many operations a
    /// second it does on bytes (`None` for levels without instructions for that), with the
    /// engine's threads and kernels.
    pub fn measure_limits(&self, time: std::time::Duration) -> (f64, Option<f64>) {
        let Inner { pool, table, .. } = &*self.0;
        let read = siskin_quant::limits::read_bandwidth(pool, time);
        (read, siskin_quant::limits::int8_peak(pool, table, time))
    }

    /// What a session with these options would take, and the shape that it would have.
    ///
    /// Without a context length of its own, the context is made as short as the memory requires,
    /// down to 512 positions.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a length of 0, or one that the model was not trained for;
    /// [`Error::Memory`], with the numbers, if the session does not fit.
    pub fn plan(&self, options: &SessionOptions) -> Result<(SessionShape, MemoryPlan)> {
        let h = self.hparams();
        let wanted = options.shape(h)?;
        let shape = |n_ctx: usize| SessionShape {
            n_ctx,
            n_batch: wanted.n_batch.min(n_ctx).max(1),
            ..wanted
        };
        let plan = |n_ctx: usize| {
            let bytes = self.0.file.file_bytes();
            MemoryPlan::new(h, &self.0.model.weights, bytes, &shape(n_ctx))
        };
        let mut n_ctx = wanted.n_ctx;
        let mut fits = self.fits(&plan(n_ctx));
        while fits.is_err() && options.n_ctx.is_none() && n_ctx > LEAST_CTX {
            n_ctx = (n_ctx / 2).max(LEAST_CTX);
            fits = self.fits(&plan(n_ctx));
        }
        fits?;
        Ok((shape(n_ctx), plan(n_ctx)))
    }

    fn fits(&self, plan: &MemoryPlan) -> Result<()> {
        let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / 1_048_576.0);
        let parts = format!(
            "{} weights + {} KV cache + {} workspace = {}",
            mib(plan.weights),
            mib(plan.kv_cache),
            mib(plan.workspace),
            mib(plan.total()),
        );
        if let Some(limit) = self.0.mem_limit
            && plan.total() > limit
        {
            return Err(Error::Memory(format!(
                "{parts}, more than the limit of {}; shorten the context, quantize the cache or \
                 take a smaller model",
                mib(limit)
            )));
        }
        // Pages of the file can be dropped and read again; the rest must be there.
        let needed = plan.kv_cache.saturating_add(plan.workspace);
        match memory::available() {
            Some(available) if self.0.mem_limit.is_none() && needed > available => {
                Err(Error::Memory(format!(
                    "{parts}, but only {} of memory are free; shorten the context or quantize the \
                     cache",
                    mib(available)
                )))
            }
            _ => Ok(()),
        }
    }
}

/// How to make a session.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Positions; default: 8192, or as many as the model was trained for, or as memory allows.
    pub n_ctx: Option<usize>,
    /// Tokens of a prompt that are computed together.
    pub n_batch: usize,
    /// How keys are stored.
    pub k_type: KvType,
    /// How values are stored.
    pub v_type: KvType,
}

impl Default for SessionOptions {
    fn default() -> Self {
        SessionOptions { n_ctx: None, n_batch: 512, k_type: KvType::F16, v_type: KvType::F16 }
    }
}

impl SessionOptions {
    /// The shape that these options ask for with a model of `h`, whatever memory there is.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a context of 0 positions, or one that the model was not trained for,
    /// and for batches of 0 tokens.
    pub fn shape(&self, h: &Hparams) -> Result<SessionShape> {
        let trained = h.n_ctx_train;
        if self.n_batch == 0 {
            return Err(Error::Invalid("a batch of 0 tokens".into()));
        }
        match self.n_ctx {
            Some(0) => return Err(Error::Invalid("a context of 0 positions".into())),
            Some(n) if n > trained => {
                return Err(Error::Invalid(format!(
                    "a context of {n} positions: the model was trained for {trained}"
                )));
            }
            _ => {}
        }
        let n_ctx = self.n_ctx.unwrap_or(trained.min(DEFAULT_CTX));
        Ok(SessionShape {
            n_ctx,
            n_batch: self.n_batch.min(n_ctx).max(1),
            k_type: self.k_type,
            v_type: self.v_type,
        })
    }
}

/// Cancels what a session computes, from any thread.
#[derive(Clone, Debug)]
pub struct CancelHandle(Arc<AtomicBool>);

impl CancelHandle {
    /// The session's call in progress, or its next one, returns [`Error::Cancelled`].
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A sequence of tokens and what the model made of them. Sessions of one engine take turns on its
/// threads.
pub struct Session {
    engine: Engine,
    shape: SessionShape,
    plan: MemoryPlan,
    ws: Workspace,
    cache: KvCache,
    tokens: Vec<u32>,
    /// Logits of several rows, allocated when first asked for.
    rows: Vec<f32>,
    cancel: Arc<AtomicBool>,
}

impl Session {
    /// Allocates all that decoding needs.
    ///
    /// # Errors
    /// As [`Engine::plan`].
    pub fn new(engine: &Engine, options: &SessionOptions) -> Result<Session> {
        let (shape, plan) = engine.plan(options)?;
        let model = &engine.0.model;
        Ok(Session {
            shape,
            plan,
            ws: Workspace::new(&model.hparams, &model.weights, &shape),
            cache: KvCache::new(&model.hparams, &shape)?,
            tokens: Vec::with_capacity(shape.n_ctx),
            rows: Vec::new(),
            cancel: Arc::new(AtomicBool::new(false)),
            engine: engine.clone(),
        })
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The shape.
    pub fn shape(&self) -> &SessionShape {
        &self.shape
    }

    /// The memory that it was planned to take.
    pub fn plan(&self) -> &MemoryPlan {
        &self.plan
    }

    /// The tokens computed so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// A handle by which another thread can cancel.
    pub fn cancel_handle(&self) -> CancelHandle {
        CancelHandle(self.cancel.clone())
    }

    /// The logits of the last token computed, one for each token of the vocabulary.
    pub fn logits(&self) -> &[f32] {
        &self.ws.logits
    }

    /// Computes `tokens` after those before and returns the logits of the last.
    ///
    /// # Errors
    /// [`Error::Invalid`] for no tokens or one outside the vocabulary, [`Error::Context`] if they
    /// do not fit, [`Error::Cancelled`]; the tokens of whole batches computed before then stay.
    pub fn prefill(&mut self, tokens: &[u32]) -> Result<&[f32]> {
        self.check(tokens)?;
        let batches = tokens.chunks(self.shape.n_batch);
        let last = batches.len() - 1;
        for (i, batch) in batches.enumerate() {
            let engine = self.engine.clone();
            let pos = self.tokens.len();
            engine
                .0
                .pool
                .scope(|team| -> Result<()> {
                    let mut pass = Pass {
                        model: &engine.0.model,
                        table: &engine.0.table,
                        team,
                        ws: &mut self.ws,
                        cache: &mut self.cache,
                        cancel: &self.cancel,
                    };
                    pass.layers(batch, pos, true)?;
                    if i == last {
                        let mut logits = std::mem::take(&mut pass.ws.logits);
                        let result = pass.logits(0, 1, &mut logits);
                        pass.ws.logits = logits;
                        result?;
                    }
                    Ok(())
                })
                .inspect_err(|_| self.cancel.store(false, Ordering::Relaxed))?;
            self.tokens.extend_from_slice(batch);
        }
        Ok(&self.ws.logits)
    }

    /// Computes one token after those before and returns its logits.
    ///
    /// # Errors
    /// As [`prefill`](Self::prefill).
    pub fn decode(&mut self, token: u32) -> Result<&[f32]> {
        self.prefill(&[token])
    }

    /// Computes `tokens` after those before and calls `f(position, logits)` for each.
    ///
    /// # Errors
    /// As [`prefill`](Self::prefill), and what `f` returns.
    pub fn prefill_all(
        &mut self,
        tokens: &[u32],
        mut f: impl FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        self.check(tokens)?;
        let n_vocab = self.engine.hparams().n_vocab;
        self.rows.resize(LOGIT_ROWS * n_vocab, 0.0);
        for batch in tokens.chunks(self.shape.n_batch) {
            let engine = self.engine.clone();
            let pos = self.tokens.len();
            let rows = &mut self.rows;
            engine
                .0
                .pool
                .scope(|team| -> Result<()> {
                    let mut pass = Pass {
                        model: &engine.0.model,
                        table: &engine.0.table,
                        team,
                        ws: &mut self.ws,
                        cache: &mut self.cache,
                        cancel: &self.cancel,
                    };
                    let n = pass.layers(batch, pos, false)?;
                    for first in (0..n).step_by(LOGIT_ROWS) {
                        let count = LOGIT_ROWS.min(n - first);
                        pass.logits(first, count, &mut rows[..count * n_vocab])?;
                        for (i, row) in rows[..count * n_vocab].chunks_exact(n_vocab).enumerate() {
                            f(pos + first + i, row)?;
                        }
                        if first + count == n {
                            let last = &rows[(count - 1) * n_vocab..count * n_vocab];
                            pass.ws.logits.copy_from_slice(last);
                        }
                    }
                    Ok(())
                })
                .inspect_err(|_| self.cancel.store(false, Ordering::Relaxed))?;
            self.tokens.extend_from_slice(batch);
        }
        Ok(())
    }

    /// Forgets the tokens from position `n` on. Returns false, with everything forgotten, where a
    /// sliding window no longer holds what comes before.
    pub fn rewind(&mut self, n: usize) -> bool {
        if n >= self.tokens.len() {
            return true;
        }
        let possible = self.cache.can_rewind(self.engine.hparams(), self.tokens.len(), n);
        self.tokens.truncate(if possible { n } else { 0 });
        possible
    }

    fn check(&self, tokens: &[u32]) -> Result<()> {
        if tokens.is_empty() {
            return Err(Error::Invalid("no tokens to compute".into()));
        }
        let n_vocab = self.engine.hparams().n_vocab;
        if let Some(token) = tokens.iter().find(|t| **t as usize >= n_vocab) {
            return Err(Error::Invalid(format!("token {token} is not below {n_vocab}")));
        }
        let wanted = self.tokens.len().saturating_add(tokens.len());
        if wanted > self.shape.n_ctx {
            return Err(Error::Context { wanted, n_ctx: self.shape.n_ctx });
        }
        Ok(())
    }
}
