//! Sessions: the state of one sequence, its cache and its buffers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use siskin_quant::attention::KvType;

use crate::engine::mib;
use crate::model::{
    Collector, Hparams, ImatrixOptions, InputSums, KvCache, LOGIT_ROWS, MemoryPlan, Pass,
    SessionShape, Workspace,
};
use crate::{Engine, Error, Result, memory};

/// Positions of a session if nobody says, or as many as the model was trained for.
const DEFAULT_CTX: usize = 8192;

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
///
/// ```no_run
/// use siskin::{Error, Session};
///
/// /// Gives a prompt two seconds.
/// fn hurry(session: &mut Session, prompt: &[u32]) -> siskin::Result<bool> {
///     let handle = session.cancel_handle();
///     let timer = std::thread::spawn(move || {
///         std::thread::sleep(std::time::Duration::from_secs(2));
///         handle.cancel();
///     });
///     let done = match session.prefill(prompt) {
///         Err(Error::Cancelled) => false,
///         result => result.map(|_| true)?,
///     };
///     // Else it would stop the next call, if there was time left.
///     let _ = timer.join();
///     session.cancel_handle().clear();
///     Ok(done)
/// }
/// ```
#[derive(Clone, Debug)]
pub struct CancelHandle(Arc<AtomicBool>);

impl CancelHandle {
    /// The session's call in progress, or its next one, returns [`Error::Cancelled`].
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Takes back a cancel that came when there was nothing left to stop.
    pub fn clear(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// A sequence of tokens and what the model made of them. Sessions of one engine take turns on its
/// threads.
///
/// [`generate`](Self::generate) and [`stream`](Self::stream) give answers; what is below them is
/// here too: how likely a text is, from the logits at each of its positions.
///
/// ```no_run
/// use siskin::sampler::LogProbs;
/// use siskin::{EncodeOptions, Engine, EngineOptions, Session, SessionOptions};
///
/// # fn main() -> siskin::Result<()> {
/// let engine = Engine::load("model.gguf", &EngineOptions::default())?;
/// let mut session = Session::new(&engine, &SessionOptions::default())?;
/// let tokens = engine.tokenizer().encode("The sky is blue.", EncodeOptions::default())?;
///
/// let log_probs = LogProbs::new(engine.hparams().n_vocab)?;
/// let mut sum = 0.0;
/// session.prefill_all(&tokens, |pos, logits| {
///     if let Some(next) = tokens.get(pos + 1) {
///         sum += log_probs.of(logits, *next);
///     }
///     Ok(())
/// })?;
/// println!("log-probability {sum:.2}");
/// # Ok(())
/// # }
/// ```
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
    imatrix: Option<Collector>,
}

impl Session {
    /// Allocates all that decoding needs. The pages of the cache take memory as positions are used.
    ///
    /// # Errors
    /// As [`Engine::plan`], and [`Error::Memory`] for what the system refuses all the same.
    pub fn new(engine: &Engine, options: &SessionOptions) -> Result<Session> {
        let (shape, plan) = engine.plan(options)?;
        let model = &engine.inner().model;
        // The plan knows what the machine has, not how much of it this process may take.
        let whole = |error| match error {
            Error::Memory(reason) => Error::Memory(format!(
                "{reason}, of {} KV cache + {} workspace; shorten the context or quantize the cache",
                mib(plan.kv_cache),
                mib(plan.workspace),
            )),
            other => other,
        };
        Ok(Session {
            shape,
            plan,
            ws: Workspace::new(&model.hparams, &model.weights, &shape).map_err(whole)?,
            cache: KvCache::new(&model.hparams, &shape).map_err(whole)?,
            tokens: memory::reserved(shape.n_ctx).map_err(whole)?,
            rows: Vec::new(),
            cancel: Arc::new(AtomicBool::new(false)),
            imatrix: None,
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
            let pos = self.tokens.len();
            self.pass(|pass| {
                pass.layers(batch, pos, true)?;
                if i == last {
                    let mut logits = std::mem::take(&mut pass.ws.logits);
                    let result = pass.logits(0, 1, &mut logits);
                    pass.ws.logits = logits;
                    result?;
                }
                Ok(())
            })?;
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

    /// Computes `tokens` after those before and calls `f(position, logits)` for each. `f` may use
    /// other sessions of the engine.
    ///
    /// # Errors
    /// As [`prefill`](Self::prefill), and what `f` returns.
    pub fn prefill_all(
        &mut self,
        tokens: &[u32],
        mut f: impl FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        let mut rows = self.prefill_rows(tokens)?;
        let n_vocab = rows.session.engine.hparams().n_vocab;
        while let Some((pos, logits)) = rows.next_rows()? {
            for (i, row) in logits.chunks_exact(n_vocab).enumerate() {
                f(pos + i, row)?;
            }
        }
        Ok(())
    }

    /// Computes `tokens` after those before, and gives the logits of each when they are asked for:
    /// so the rows of several sessions can be looked at side by side.
    ///
    /// # Errors
    /// As [`prefill`](Self::prefill), here or from [`LogitRows::next_rows`].
    pub fn prefill_rows<'s>(&'s mut self, tokens: &'s [u32]) -> Result<LogitRows<'s>> {
        self.check(tokens)?;
        if self.rows.is_empty() {
            let at_once = LOGIT_ROWS.min(self.shape.n_batch);
            self.rows = memory::zeros(at_once * self.engine.hparams().n_vocab)?;
        }
        Ok(LogitRows { session: self, tokens, batch: 0, given: 0 })
    }

    /// From now on, the squares of what weights are multiplied with are summed, for an importance
    /// matrix; sums so far are forgotten. Takes 8 bytes for each column of each input, 2 MiB for a
    /// model of a billion weights, beside what was planned; with sketches 264, 60 MiB.
    ///
    /// A call that ends with an error may leave a part of its tokens in the sums.
    ///
    /// ```no_run
    /// # fn main() -> siskin::Result<()> {
    /// # let engine = siskin::Engine::load("model.gguf", &siskin::EngineOptions::default())?;
    /// # let mut session = siskin::Session::new(&engine, &siskin::SessionOptions::default())?;
    /// session.collect_imatrix(siskin::model::ImatrixOptions::default())?;
    /// session.prefill(&[1, 2, 3])?;
    /// for input in session.take_imatrix().unwrap_or_default() {
    ///     println!("{}: {} columns, {} tokens", input.tensors[0], input.sums.len(), input.tokens);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Memory`]
    pub fn collect_imatrix(&mut self, options: ImatrixOptions) -> Result<()> {
        let batch = self.shape.n_batch;
        self.imatrix = Some(Collector::new(&self.engine.model().weights, options, batch)?);
        Ok(())
    }

    /// Ends what [`collect_imatrix`](Self::collect_imatrix) began: the sums, layer by layer, the
    /// output matrix last; `None` if it was not called.
    pub fn take_imatrix(&mut self) -> Option<Vec<InputSums>> {
        self.imatrix.take().map(Collector::finish)
    }

    /// Runs `f` with the engine's threads, which it holds until it returns. A cancel that stopped
    /// it is spent.
    fn pass<R>(&mut self, f: impl FnOnce(&mut Pass<'_, '_>) -> Result<R>) -> Result<R> {
        let inner = self.engine.inner();
        let (model, table) = (&inner.model, &inner.table);
        let (ws, cache, cancel) = (&mut self.ws, &mut self.cache, &*self.cancel);
        let imatrix = self.imatrix.as_mut();
        let result = inner
            .pool
            .scope(|team| f(&mut Pass { model, table, team, ws, cache, cancel, imatrix }));
        if let Err(Error::Cancelled) = result {
            self.cancel.store(false, Ordering::Relaxed);
        }
        result
    }

    /// Forgets the tokens from position `n` on. Returns false, with everything forgotten, where a
    /// sliding window no longer holds what comes before.
    pub fn rewind(&mut self, n: usize) -> bool {
        if n >= self.tokens.len() {
            return true;
        }
        let possible = self.cache.can_rewind(self.engine.hparams(), n);
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

/// The logits of a session's tokens, some rows at a time: see [`Session::prefill_rows`].
///
/// The session has the tokens of a batch, [`SessionOptions::n_batch`] of them, when rows are asked
/// for after the last of the batch. What is dropped before is not computed.
pub struct LogitRows<'s> {
    session: &'s mut Session,
    /// From the current batch on.
    tokens: &'s [u32],
    /// Tokens of the current batch, which are through the layers.
    batch: usize,
    /// Those of them whose logits were given.
    given: usize,
}

impl LogitRows<'_> {
    /// The position of the next rows' first, and the rows: up to 16, of a logit for each token of
    /// the vocabulary. `None` when all were given.
    ///
    /// # Errors
    /// [`Error::Cancelled`]
    pub fn next_rows(&mut self) -> Result<Option<(usize, &[f32])>> {
        let session = &mut *self.session;
        if self.given == self.batch {
            let (done, rest) = self.tokens.split_at(self.batch);
            session.tokens.extend_from_slice(done);
            (self.tokens, self.batch, self.given) = (rest, 0, 0);
            let Some(batch) = rest.chunks(session.shape.n_batch).next() else { return Ok(None) };
            let pos = session.tokens.len();
            self.batch = session.pass(|pass| pass.layers(batch, pos, false))?;
        }
        let n_vocab = session.engine.hparams().n_vocab;
        let (first, left) = (self.given, self.batch - self.given);
        let count = left.min(session.rows.len() / n_vocab);
        let mut rows = std::mem::take(&mut session.rows);
        let logits = &mut rows[..count * n_vocab];
        let result = session.pass(|pass| pass.logits(first, count, logits));
        if count == left {
            session.ws.logits.copy_from_slice(&logits[(count - 1) * n_vocab..]);
        }
        session.rows = rows;
        result?;
        self.given += count;
        Ok(Some((session.tokens.len() + first, &session.rows[..count * n_vocab])))
    }
}
