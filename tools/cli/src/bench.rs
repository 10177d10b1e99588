//! `siskin bench`

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use anyhow::bail;
use clap::Args;
use siskin::gguf::GgufFile;
use siskin::{Engine, Rate, ReadBuffer, Session};

use crate::args::{ModelArgs, SessionArgs};
use crate::bench_record::{Bound, Limits, Record, Run};
use crate::{output, process};

/// Measures how fast a model reads a prompt and generates, here.
///
/// Decoding is bound by how fast the weights are read from memory, reading a prompt by how fast
/// 8-bit integers are multiplied: --limits measures just before and after each run how fast this
/// machine does what bounds it, and gives the results as a share of that.
#[derive(Args)]
pub struct BenchArgs {
    /// Tokens of the prompt; 0 leaves the test out.
    #[arg(short = 'p', long, default_value_t = 512)]
    n_prompt: usize,
    /// Tokens to generate; 0 leaves the test out.
    #[arg(short = 'n', long, default_value_t = 128)]
    n_gen: usize,
    /// Tokens in the context before a test begins.
    #[arg(short = 'd', long, visible_alias = "n-depth", default_value_t = 0)]
    depth: usize,
    /// Runs of each test.
    #[arg(short, long, default_value_t = 5)]
    repetitions: usize,
    /// Measure what bounds the runs too, beside each, and give results as a share of it.
    #[arg(long)]
    limits: bool,
    /// Measure a model of this shape with random weights instead of a file: smollm2-135m, llama-1b,
    /// llama-3b or llama-8b. Takes as much memory as the model.
    #[arg(long, conflicts_with = "model")]
    shape: Option<String>,
    /// The weight type of --shape: a type such as q8_0, or a mix: q3_k_m, q4_k_m, q5_k_m. Where
    /// rows are no whole blocks of it, a type with smaller blocks takes its place, as in llama.cpp.
    #[arg(long = "type", default_value = "q4_k_m", requires = "shape")]
    ty: String,
    /// Write the model of --shape to this file and measure that; with -p 0 -n 0, only write it.
    #[arg(long, requires = "shape")]
    save: Option<PathBuf>,
    /// Print a JSON array in the shape of llama-bench's.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    session: SessionArgs,
}

/// How long a limit is measured between two runs.
const BESIDE: Duration = Duration::from_millis(200);

/// Bytes of weights that a token reads, and operations that it takes: every matrix once. Of the
/// embeddings a token reads one row, unless they are the output matrix too.
fn work(engine: &Engine) -> (f64, f64) {
    let file = engine.file();
    let own_output = file.tensor("output.weight").is_some();
    let used = file
        .tensors()
        .iter()
        .filter(|t| t.shape.len() > 1 && !(own_output && t.name == "token_embd.weight"));
    used.fold((0.0, 0.0), |(bytes, ops), t| {
        (bytes + t.n_bytes as f64, ops + 2.0 * t.shape.iter().product::<u64>() as f64)
    })
}

/// Tokens without meaning: what they are does not matter to the time.
fn tokens(n: usize, n_vocab: usize) -> Vec<u32> {
    let mut state = 0x2545_f491_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((u64::from(state) * n_vocab as u64) >> 32) as u32
    };
    (0..n).map(|_| next()).collect()
}

struct Bench<'a> {
    args: &'a BenchArgs,
    engine: &'a Engine,
    session: Session,
    /// The memory that --limits reads, once it does, and the most that the process had before.
    buffer: Option<(ReadBuffer, Option<u64>)>,
}

impl Bench<'_> {
    /// Fills the context up to the depth.
    fn prepare(&mut self) -> anyhow::Result<()> {
        let depth = self.args.depth;
        if !self.session.rewind(depth) || self.session.tokens().len() < depth {
            self.session.rewind(0);
            self.session.prefill(&tokens(depth, self.engine.hparams().n_vocab))?;
        }
        Ok(())
    }

    /// One run, after [`prepare`](Self::prepare): nanoseconds.
    fn run(&mut self, n_prompt: usize, n_gen: usize) -> anyhow::Result<u64> {
        let prompt = tokens(n_prompt.max(n_gen), self.engine.hparams().n_vocab);
        let start = Instant::now();
        if n_prompt > 0 {
            self.session.prefill(&prompt[..n_prompt])?;
        }
        for token in &prompt[..n_gen] {
            self.session.decode(*token)?;
        }
        Ok(start.elapsed().as_nanos() as u64)
    }

    fn test(&mut self, n_prompt: usize, n_gen: usize, first_ms: f64) -> anyhow::Result<Record> {
        self.prepare()?;
        self.run(n_prompt, n_gen.min(8))?;
        let bound = if n_gen > 0 { Bound::ReadBytes } else { Bound::Int8Ops };
        let test_time = SystemTime::now();
        let mut samples_ns = Vec::new();
        let mut limits = Vec::new();
        for _ in 0..self.args.repetitions {
            self.prepare()?;
            let before = self.limit(bound)?;
            samples_ns.push(self.run(n_prompt, n_gen)?);
            limits.extend(before.zip(self.limit(bound)?).map(|(a, b)| [a, b]));
        }
        let run = Run {
            n_batch: self.args.session.batch,
            n_prompt,
            n_gen,
            n_depth: self.args.depth,
            test_time,
            time_to_first_token_ms: first_ms,
            peak_memory_bytes: self.peak_memory(),
        };
        let mut record = Record::new(self.engine, &self.session, run, samples_ns)?;
        let (bytes, ops) = work(self.engine);
        let work = match bound {
            Bound::ReadBytes => bytes,
            Bound::Int8Ops => {
                // Of a prompt only the last token's logits are computed.
                let output = &self.engine.model().weights.output;
                let output = 2.0 * (output.rows() * output.cols()) as f64;
                ops - output * (1.0 - 1.0 / n_prompt as f64)
            }
        };
        record.limits =
            (!limits.is_empty()).then(|| Limits::new(bound, &record.samples_ts, work, &limits));
        Ok(record)
    }

    /// What the machine can do at this moment, if that is asked and the level can measure it.
    fn limit(&mut self, bound: Bound) -> anyhow::Result<Option<Rate>> {
        if !self.args.limits {
            return Ok(None);
        }
        Ok(match bound {
            Bound::Int8Ops => self.engine.int8_peak(BESIDE),
            Bound::ReadBytes => {
                let (buffer, _) = match &mut self.buffer {
                    Some(buffer) => buffer,
                    none => {
                        let before = process::peak_memory();
                        none.insert((self.engine.read_buffer()?, before))
                    }
                };
                Some(self.engine.read_bandwidth(buffer, BESIDE))
            }
        })
    }

    /// The most memory that the model took.
    fn peak_memory(&self) -> Option<u64> {
        let now = process::peak_memory()?;
        Some(match &self.buffer {
            Some((buffer, before)) => now.saturating_sub(buffer.bytes() as u64).max((*before)?),
            None => now,
        })
    }
}

pub fn main(mut args: BenchArgs) -> anyhow::Result<()> {
    if let (Some(shape), Some(path)) = (&args.shape, &args.save) {
        crate::shape::save(shape, &args.ty, path)?;
        if args.n_prompt + args.n_gen == 0 {
            return Ok(());
        }
    }
    if args.repetitions == 0 || args.n_prompt + args.n_gen == 0 {
        bail!("nothing to measure: -r, and one of -p and -n, must be above 0");
    }
    let needed = args.depth + args.n_prompt.max(args.n_gen).max(8);
    args.session.ctx = Some(args.session.ctx.unwrap_or(0).max(needed));
    let start = Instant::now();
    let engine = match (&args.shape, &args.save) {
        (_, Some(path)) => args.model.engine.load_file(GgufFile::open(path)?)?,
        (Some(shape), None) => args.model.engine.load_file(crate::shape::make(shape, &args.ty)?)?,
        (None, None) => args.model.load()?,
    };
    let mut session = args.session.session(&engine)?;
    let first = tokens(args.n_prompt.max(1), engine.hparams().n_vocab);
    session.prefill(&first)?;
    let first_ms = start.elapsed().as_secs_f64() * 1e3;
    let mut bench = Bench { args: &args, engine: &engine, session, buffer: None };
    let mut records = Vec::new();
    if args.n_prompt > 0 {
        records.push(bench.test(args.n_prompt, 0, first_ms)?);
    }
    if args.n_gen > 0 {
        records.push(bench.test(0, args.n_gen, first_ms)?);
    }
    if args.json {
        return output::json(&records);
    }
    let memory = bench.peak_memory().map_or("?".into(), output::bytes);
    let mut text = format!(
        "{}: {} threads, {} kernels, first token after {first_ms:.0} ms, peak memory {memory}\n",
        engine.file().path().display(),
        engine.threads(),
        engine.level(),
    );
    for r in &records {
        let name = if r.n_gen == 0 { "prefill" } else { "decode" };
        text += &format!(
            "  {name:8} {:4} tokens: {:9.2} +/- {:.2} tokens/s (median {:.2})\n",
            r.n_prompt + r.n_gen,
            r.avg_ts,
            r.stddev_ts,
            r.median_ts,
        );
        match &r.limits {
            Some(limits) => text += &format!("           {limits}\n"),
            None if args.limits => text += "           no limit is known of these kernels\n",
            None => {}
        }
    }
    output::print(&text)
}
