//! The engine, which never changes after loading.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use siskin_quant::limits::{self, Rate, ReadBuffer};
use siskin_quant::par::Pool;
use siskin_quant::table::KernelTable;

use crate::gguf::{ByteOrder, GgufFile};
use crate::model::{Hparams, MemoryPlan, Model, SessionShape};
use crate::session::SessionOptions;
use crate::tokenizer::{Tokenizer, TokenizerOptions};
use crate::{Error, Result, cores, memory};

/// The least context that is worth a start when memory is short.
const LEAST_CTX: usize = 512;

/// Bytes of memory to read that show how fast that is: more than the caches of a desktop hold; and where
/// there is little memory, more than those of a small board.
const READ_BUFFER: u64 = 512 << 20;
const LEAST_READ_BUFFER: u64 = 32 << 20;

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
    /// Reads the whole file into memory while loading, instead of page by page when it is first
    /// used.
    pub prefault: bool,
    /// Keeps the file's pages in memory, after reading them all. Systems limit how much may be kept
    /// so (`ulimit -l`): loading fails where the file is more.
    pub lock: bool,
    /// The kernels' level (`scalar`, `avx2`, ...); default: the environment variable `SISKIN_CPU`,
    /// or else the fastest that the CPU has.
    pub level: Option<String>,
    /// How to read the tokenizer.
    pub tokenizer: TokenizerOptions,
}

/// A model that is ready to run: weights, tokenizer, kernels and threads. Cheap to clone; clones
/// share everything.
///
/// ```no_run
/// use siskin::{Engine, EngineOptions, SessionOptions};
///
/// # fn main() -> siskin::Result<()> {
/// let options = EngineOptions { mem_limit: Some(4 << 30), ..EngineOptions::default() };
/// let engine = Engine::load("model.gguf", &options)?;
/// let (shape, plan) = engine.plan(&SessionOptions::default())?;
/// println!("{} positions, {} bytes", shape.n_ctx, plan.total());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

pub(crate) struct Inner {
    file: GgufFile,
    pub model: Model,
    tokenizer: Tokenizer,
    pub table: KernelTable,
    pub pool: Pool,
    mem_limit: Option<u64>,
}

impl Engine {
    /// Maps the GGUF file at `path` and makes it ready. Weights are read when they are first used.
    ///
    /// # Errors
    /// If the file cannot be read, is no GGUF file, or no model that can be run; each names the
    /// file, the place and the reason. [`Error::Io`] with the limit if its pages cannot be locked.
    pub fn load(path: impl AsRef<Path>, options: &EngineOptions) -> Result<Engine> {
        Self::from_file(GgufFile::open(path)?, options)
    }

    /// Makes an opened file ready.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_file(file: GgufFile, options: &EngineOptions) -> Result<Engine> {
        let mem_limit = options.mem_limit;
        if file.byte_order() == ByteOrder::Big {
            // All of it is about to be copied, to turn it round.
            let bytes = file.file_bytes();
            let parts = format!("{} of a big-endian file, and a copy", mib(bytes));
            fits(mem_limit, bytes.saturating_mul(2), bytes, &parts)?;
        }
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
        let engine = Engine(Arc::new(Inner { file, model, tokenizer, table, pool, mem_limit }));
        if options.lock || options.prefault {
            // What is too large for the smallest session is not worth the reading.
            let least = SessionOptions { n_batch: 1, ..SessionOptions::default() };
            let n_ctx = engine.hparams().n_ctx_train.min(LEAST_CTX);
            engine.plan(&SessionOptions { n_ctx: Some(n_ctx), ..least })?;
        }
        if options.lock {
            engine.file().lock()?;
        } else if options.prefault {
            engine.file().prefault();
        }
        Ok(engine)
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0
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

    /// Memory for [`Engine::read_bandwidth`]: 512 MiB, which is more than caches hold, or a quarter of
    /// what the system has left, lest the weights have to go, but 32 MiB at the least.
    ///
    /// # Errors
    /// [`Error::Memory`]
    pub fn read_buffer(&self) -> Result<ReadBuffer> {
        let quarter = memory::available().map_or(u64::MAX, |n| n / 4);
        let bytes = quarter.clamp(LEAST_READ_BUFFER, READ_BUFFER);
        Ok(ReadBuffer::new(bytes as usize)?)
    }

    /// Measures how many bytes a second of a buffer the engine's threads read from memory, for as
    /// long as `time`: what bounds decoding.
    pub fn read_bandwidth(&self, buffer: &mut ReadBuffer, time: Duration) -> Rate {
        buffer.bandwidth(&self.0.pool, time)
    }

    /// Measures how many operations a second the engine's threads do on bytes, for as long as
    /// `time`: what bounds reading a prompt. `None` for levels without instructions for that.
    pub fn int8_peak(&self, time: Duration) -> Option<Rate> {
        limits::int8_peak(&self.0.pool, &self.0.table, time)
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
        let parts = format!(
            "{} weights + {} KV cache + {} workspace = {}",
            mib(plan.weights),
            mib(plan.kv_cache),
            mib(plan.workspace),
            mib(plan.total()),
        );
        // Pages of the file can be dropped and read again; the rest must be there.
        let new = plan.kv_cache.saturating_add(plan.workspace);
        fits(self.0.mem_limit, plan.total(), new, &parts)
    }
}

pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / 1_048_576.0)
}

/// Refuses what takes more than `limit`, or more new memory than the machine has to give.
fn fits(limit: Option<u64>, total: u64, new: u64, parts: &str) -> Result<()> {
    if let Some(limit) = limit
        && total > limit
    {
        return Err(Error::Memory(format!(
            "{parts}, more than the limit of {}; shorten the context, quantize the cache or take \
             a smaller model",
            mib(limit)
        )));
    }
    match memory::available() {
        Some(available) if new > available => Err(Error::Memory(format!(
            "{parts}, but only {} of memory are free; shorten the context or quantize the cache",
            mib(available)
        ))),
        _ => Ok(()),
    }
}
