//! `siskin bench`

use std::path::PathBuf;
use std::time::{Instant, SystemTime};

use anyhow::bail;
use clap::Args;
use siskin::gguf::GgufFile;
use siskin::{Engine, Session};

use crate::args::{ModelArgs, SessionArgs};
use crate::bench_record::{Limits, Record, Run};
use crate::{output, process};

/// Measures how fast a model reads a prompt and generates, here.
///
/// Decoding is bound by how fast the weights are read from memory, reading a prompt by how fast
/// 8-bit integers are multiplied: --limits measures both limits of this machine and gives the
/// results as a share of them.
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
    /// Measure the limits of this machine too, and give results as a share of them.
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
        let test_time = SystemTime::now();
        let mut samples_ns = Vec::new();
        for _ in 0..self.args.repetitions {
            samples_ns.push(self.run(n_prompt, n_gen)?);
        }
        let run = Run {
            n_batch: self.args.session.batch,
            n_prompt,
            n_gen,
            n_depth: self.args.depth,
            test_time,
            time_to_first_token_ms: first_ms,
        };
        Record::new(self.engine, &self.session, run, samples_ns)
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
    let mut bench = Bench { args: &args, engine: &engine, session };
    let mut records = Vec::new();
    if args.n_prompt > 0 {
        records.push(bench.test(args.n_prompt, 0, first_ms)?);
    }
    if args.n_gen > 0 {
        records.push(bench.test(0, args.n_gen, first_ms)?);
    }
    if args.limits {
        let (read, int8) = engine.measure_limits(std::time::Duration::from_secs(2));
        let (bytes, ops) = work(&engine);
        // Of a prompt only the last token's logits are computed.
        let output = engine.model().weights.output.rows() * engine.model().weights.output.cols();
        for r in &mut records {
            let share = if r.n_gen > 0 {
                Some(r.median_ts * bytes / read)
            } else {
                let ops = ops - 2.0 * output as f64 * (1.0 - 1.0 / r.n_prompt as f64);
                int8.map(|peak| r.median_ts * ops / peak)
            };
            r.limits = Some(Limits { read_bytes_per_s: read, int8_ops_per_s: int8, share });
        }
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
        if let Some(share) = r.limits.as_ref().and_then(|l| l.share) {
            let of = if r.n_gen == 0 { "the integer peak" } else { "the read bandwidth" };
            text += &format!("           {:.0}% of {of}\n", 100.0 * share);
        }
    }
    if let Some(limits) = records.first().and_then(|r| r.limits.as_ref()) {
        text += &format!("  this machine reads {:.1} GB/s", limits.read_bytes_per_s / 1e9);
        if let Some(ops) = limits.int8_ops_per_s {
            text += &format!(" and does {:.2} Tops/s on bytes", ops / 1e12);
        }
        text += "\n";
    }
    output::print(&text)
}
