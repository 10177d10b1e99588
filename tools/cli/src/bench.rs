//! `siskin bench`

use std::time::Instant;

use anyhow::bail;
use clap::Args;
use serde::Serialize;
use siskin::{Engine, Session};

use crate::args::{ModelArgs, SessionArgs};
use crate::{output, process};

/// Measures how fast a model reads a prompt and generates, here.
///
/// Decoding is bound by how fast the weights are read from memory, reading a prompt by how fast
/// 8-bit integers are multiplied: --limits measures both limits of this machine and gives the
/// results as a share of them.
#[derive(Args)]
pub struct BenchArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    session: SessionArgs,
    /// Tokens of the prompt; 0 leaves the test out.
    #[arg(short = 'p', long, default_value_t = 512)]
    n_prompt: usize,
    /// Tokens to generate; 0 leaves the test out.
    #[arg(short = 'n', long, default_value_t = 128)]
    n_gen: usize,
    /// Tokens in the context before a test begins.
    #[arg(short = 'd', long, default_value_t = 0)]
    depth: usize,
    /// Runs of each test.
    #[arg(short, long, default_value_t = 5)]
    repetitions: usize,
    /// Print a JSON array in the shape of llama-bench's.
    #[arg(long)]
    json: bool,
}

/// One test's result; the first fields are named as in llama-bench.
#[derive(Serialize)]
struct Record {
    model_filename: String,
    model_type: String,
    model_size: u64,
    model_n_params: u64,
    n_batch: usize,
    n_threads: usize,
    type_k: String,
    type_v: String,
    n_prompt: usize,
    n_gen: usize,
    n_depth: usize,
    avg_ns: u64,
    stddev_ns: u64,
    avg_ts: f64,
    stddev_ts: f64,
    samples_ns: Vec<u64>,
    samples_ts: Vec<f64>,
    median_ts: f64,
    time_to_first_token_ms: f64,
    peak_memory_bytes: Option<u64>,
    kernel_level: String,
    siskin_version: &'static str,
}

fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}

fn stddev(x: &[f64]) -> f64 {
    let m = mean(x);
    let squares: f64 = x.iter().map(|x| (x - m) * (x - m)).sum();
    (squares / (x.len().max(2) - 1) as f64).sqrt()
}

fn median(x: &[f64]) -> f64 {
    let mut sorted = x.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0
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
}

impl Bench<'_> {
    /// One run: nanoseconds.
    fn run(&mut self, n_prompt: usize, n_gen: usize) -> anyhow::Result<u64> {
        let n_vocab = self.engine.hparams().n_vocab;
        let depth = self.args.depth;
        if !self.session.rewind(depth) || self.session.tokens().len() < depth {
            self.session.rewind(0);
            self.session.prefill(&tokens(depth, n_vocab))?;
        }
        let prompt = tokens(n_prompt.max(n_gen), n_vocab);
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
        self.run(n_prompt, n_gen.min(8))?;
        let mut samples_ns = Vec::new();
        for _ in 0..self.args.repetitions {
            samples_ns.push(self.run(n_prompt, n_gen)?);
        }
        let n = (n_prompt + n_gen) as f64;
        let samples_ts: Vec<f64> = samples_ns.iter().map(|ns| n * 1e9 / *ns as f64).collect();
        let ns: Vec<f64> = samples_ns.iter().map(|ns| *ns as f64).collect();
        let file = self.engine.file();
        let metadata = file.metadata();
        let shape = self.session.shape();
        Ok(Record {
            model_filename: file.path().display().to_string(),
            model_type: metadata.str("general.name")?.unwrap_or_default().to_string(),
            model_size: file.file_bytes(),
            model_n_params: file.tensors().iter().map(|t| t.shape.iter().product::<u64>()).sum(),
            n_batch: shape.n_batch,
            n_threads: self.engine.threads(),
            type_k: format!("{:?}", shape.k_type).to_lowercase(),
            type_v: format!("{:?}", shape.v_type).to_lowercase(),
            n_prompt,
            n_gen,
            n_depth: self.args.depth,
            avg_ns: mean(&ns) as u64,
            stddev_ns: stddev(&ns) as u64,
            avg_ts: mean(&samples_ts),
            stddev_ts: stddev(&samples_ts),
            median_ts: median(&samples_ts),
            samples_ns,
            samples_ts,
            time_to_first_token_ms: first_ms,
            peak_memory_bytes: process::peak_memory(),
            kernel_level: self.engine.level().to_string(),
            siskin_version: env!("CARGO_PKG_VERSION"),
        })
    }
}

pub fn main(mut args: BenchArgs) -> anyhow::Result<()> {
    if args.repetitions == 0 || args.n_prompt + args.n_gen == 0 {
        bail!("nothing to measure: -r, and one of -p and -n, must be above 0");
    }
    let needed = args.depth + args.n_prompt.max(args.n_gen).max(8);
    args.session.ctx = Some(args.session.ctx.unwrap_or(0).max(needed));
    let start = Instant::now();
    let engine = args.model.load()?;
    let mut session = args.session.session(&engine)?;
    let first = tokens(args.n_prompt.max(1), engine.hparams().n_vocab);
    session.prefill(&first)?;
    let first_ms = start.elapsed().as_secs_f64() * 1e3;
    let mut bench = Bench { args: &args, engine: &engine, session };
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
    let memory = process::peak_memory().map_or("?".into(), output::bytes);
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
    }
    output::print(&text)
}
