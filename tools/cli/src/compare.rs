//! `siskin compare`

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use serde_json::{Value as Json, json};
use siskin::{Engine, LogitRows, Session};
use siskin_convert::compare::{Comparison, Mean, Scorer};

use crate::args::{EngineArgs, SessionArgs};
use crate::chunks::Chunks;
use crate::output;

/// Measures what quantizing a model cost: how far its predictions are from a reference's.
///
/// The reference is the model in full precision, or in the largest file that runs here. All are run
/// on the same text; as in `siskin perplexity`, it is cut into chunks of --ctx tokens (here 512 by
/// default), and the second half of each is scored. 20 chunks tell formats apart.
#[derive(Args)]
#[command(after_help = "The columns:\n  \
    size     the file's\n  \
    bpw      bits for each weight\n  \
    t/s      tokens read a second, the logits of the second halves included\n  \
    ppl      perplexity: how well the text was predicted; the lower, the better\n  \
    mean KL  the Kullback-Leibler divergence from the reference's distributions of the next token,\n           \
             in nats: the best single figure of what quantizing cost; 0 is no difference\n  \
    median, 99%, max  of the same: where it is large, an answer may go another way\n  \
    top-1    positions at which both think the same token the most likely\n  \
    delta p  how much more probable the text's tokens were on average, in percentage points\n\n\
    Example:\n  \
    siskin compare model-f16.gguf model-q8_0.gguf model-q4_k_m.gguf -f text.txt --chunks 20")]
pub struct CompareArgs {
    /// The reference: a path, a name in the store, or hf:OWNER/REPO/FILE.gguf.
    reference: String,
    /// The models to compare with it. All are loaded at once.
    #[arg(required = true)]
    models: Vec<String>,
    /// The text.
    #[arg(short, long)]
    file: PathBuf,
    /// Chunks to score [default: all].
    #[arg(long)]
    chunks: Option<usize>,
    /// Print JSON, with all digits.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    session: SessionArgs,
}

/// A model that is being run.
struct Run {
    session: Session,
    tokens: u64,
    time: Duration,
}

impl Run {
    fn new(engine: &Engine, args: &SessionArgs) -> anyhow::Result<Run> {
        Ok(Run { session: args.session(engine)?, tokens: 0, time: Duration::ZERO })
    }

    /// Reads what comes before the tokens that are scored.
    fn begin(&mut self, chunk: &[u32], first: usize) -> siskin::Result<()> {
        let start = Instant::now();
        self.session.rewind(0);
        self.session.prefill(&chunk[..first])?;
        self.time += start.elapsed();
        // Nothing follows the last token that could be scored.
        self.tokens += chunk.len() as u64 - 1;
        Ok(())
    }

    fn rows<'s>(&'s mut self, tokens: &'s [u32]) -> siskin::Result<Rows<'s>> {
        Ok(Rows { rows: self.session.prefill_rows(tokens)?, time: &mut self.time })
    }

    fn speed(&self) -> f64 {
        self.tokens as f64 / self.time.as_secs_f64()
    }

    /// The file's name, its bytes, and the bits that a weight takes.
    fn size(&self) -> (String, u64, f64) {
        let file = self.session.engine().file();
        let tensors = file.tensors().iter();
        let (bytes, weights) = tensors.fold((0.0, 0.0), |(bytes, weights), t| {
            (bytes + t.n_bytes as f64, weights + t.shape.iter().product::<u64>() as f64)
        });
        (file.path().display().to_string(), file.file_bytes(), 8.0 * bytes / weights)
    }

    fn json(&self, nll: &Mean) -> Json {
        let ((name, bytes, bpw), (ppl, stderr)) = (self.size(), nll.perplexity());
        json!({
            "file": name, "bytes": bytes, "bits_per_weight": bpw, "tokens_per_s": self.speed(),
            "ppl": ppl, "ppl_stderr": stderr,
        })
    }
}

/// The logits of a chunk's second half.
struct Rows<'s> {
    rows: LogitRows<'s>,
    time: &'s mut Duration,
}

impl Rows<'_> {
    fn next(&mut self) -> siskin::Result<Option<(usize, &[f32])>> {
        let start = Instant::now();
        let rows = self.rows.next_rows();
        *self.time += start.elapsed();
        rows
    }
}

/// Refuses models that number other tokens.
fn check_vocabulary(reference: &Engine, model: &Engine) -> anyhow::Result<()> {
    let names = [reference, model].map(|engine| engine.file().path().display());
    let [a, b] = [reference, model].map(|engine| engine.hparams().n_vocab);
    if a != b {
        let [first, second] = names;
        bail!("{second} has {b} tokens, {first} has {a}: only models of one vocabulary compare");
    }
    let text = |engine: &Engine, id: usize| engine.tokenizer().token_text(id as u32);
    let other = (0..a).find(|id| text(reference, *id) != text(model, *id));
    if let Some(id) = other {
        let [first, second] = names;
        let [a, b] = [reference, model].map(|engine| text(engine, id).unwrap_or_default());
        bail!(
            "token {id} is {b:?} in {second}, {a:?} in {first}: only models of one vocabulary \
             compare"
        );
    }
    Ok(())
}

/// Refuses what does not fit beside each other.
fn check_memory(runs: &[&Run], limit: Option<u64>) -> anyhow::Result<()> {
    let total: u64 = runs.iter().map(|run| run.session.plan().total()).sum();
    match limit {
        Some(limit) if total > limit => bail!(
            "the models take {} together, more than the limit of {}; compare fewer at a time, or \
             shorten --ctx",
            output::bytes(total),
            output::bytes(limit)
        ),
        _ => Ok(()),
    }
}

pub fn main(mut args: CompareArgs) -> anyhow::Result<()> {
    let engine = args.engine.load(&args.reference)?;
    let chunks = Chunks::new(&args.file, engine.tokenizer(), &mut args.session, args.chunks)?;
    let mut reference = Run::new(&engine, &args.session)?;
    let mut models = Vec::new();
    for name in &args.models {
        let model = args.engine.load(name)?;
        check_vocabulary(&engine, &model)?;
        models.push((Run::new(&model, &args.session)?, Comparison::default()));
    }
    let runs: Vec<&Run> = std::iter::once(&reference).chain(models.iter().map(|m| &m.0)).collect();
    check_memory(&runs, args.engine.mem)?;
    let scorer = Scorer::new(engine.threads())?;
    let bar = chunks.progress()?;
    for chunk in chunks.iter() {
        compare(&mut reference, &mut models, &scorer, chunk, chunks.scored_from())?;
        bar.inc(1);
        let divergences: Vec<_> =
            models.iter().map(|(_, c)| format!("{:.5}", c.kl.mean())).collect();
        bar.set_message(format!("KL {}", divergences.join(" ")));
    }
    bar.finish_and_clear();
    // It is the same for all of them.
    let nll = models.first().map(|(_, comparison)| comparison.reference_nll).unwrap_or_default();
    if args.json {
        let models: Vec<Json> = models.iter().map(|(run, c)| to_json(run, c)).collect();
        return output::json(&json!({
            "reference": reference.json(&nll), "models": models,
            "chunks": chunks.iter().len(), "ctx": chunks.n_ctx(), "tokens": nll.n(),
        }));
    }
    output::print(&table(&reference, &nll, &models))
}

/// Runs all on one chunk and scores the models.
fn compare(
    reference: &mut Run,
    models: &mut [(Run, Comparison)],
    scorer: &Scorer,
    chunk: &[u32],
    first: usize,
) -> anyhow::Result<()> {
    let n_vocab = reference.session.engine().hparams().n_vocab;
    let scored = &chunk[first..chunk.len() - 1];
    reference.begin(chunk, first)?;
    let mut reference = reference.rows(scored)?;
    let mut others = Vec::new();
    for (run, comparison) in models {
        run.begin(chunk, first)?;
        let file = run.session.engine().file().clone();
        others.push((run.rows(scored)?, comparison, file));
    }
    // A few rows of all at a time: those of a chunk would be hundreds of megabytes.
    while let Some((pos, rows)) = reference.next()? {
        for (model, comparison, file) in &mut others {
            let (_, other) = model.next()?.unwrap_or_default();
            let next = &chunk[pos + 1..][..rows.len() / n_vocab];
            let scores = scorer.rows(rows, other, n_vocab, next);
            if scores.len() != next.len() || scores.contains(&None) {
                bail!(
                    "{}: some logits of it, or of the reference, are not finite, near token {pos} \
                     of a chunk",
                    file.path().display()
                );
            }
            scores.iter().flatten().for_each(|score| comparison.add(score));
        }
    }
    Ok(())
}

/// Quantiles of the divergences that are shown.
const QUANTILES: [f64; 3] = [0.5, 0.99, 1.0];

fn to_json(run: &Run, comparison: &Comparison) -> Json {
    let mut json = run.json(&comparison.nll);
    let Comparison { kl, same_top, delta_p, .. } = comparison;
    let [median, most, max] = comparison.kl_quantiles(QUANTILES);
    let more = json!({
        "kl_mean": kl.mean(), "kl_stderr": kl.stderr(), "kl_median": median, "kl_99": most,
        "kl_max": max, "top_1": same_top.mean(), "top_1_stderr": same_top.stderr(),
        "delta_p_mean": delta_p.mean(), "delta_p_stderr": delta_p.stderr(),
        "delta_p_rms": delta_p.rms(),
    });
    if let (Json::Object(json), Json::Object(more)) = (&mut json, more) {
        json.extend(more);
    }
    json
}

/// A row for each model, the reference first.
fn table(reference: &Run, nll: &Mean, models: &[(Run, Comparison)]) -> String {
    let heads = [
        "model", "size", "bpw", "t/s", "ppl", "mean KL", "median", "99%", "max", "top-1", "delta p",
    ];
    let row = |run: &Run, nll: &Mean| -> Vec<String> {
        let (path, bytes, bpw) = run.size();
        let name = Path::new(&path).file_name().map_or(path.clone(), |n| n.display().to_string());
        let (ppl, stderr) = nll.perplexity();
        let ppl = format!("{ppl:.3} +/- {stderr:.3}");
        vec![name, output::bytes(bytes), format!("{bpw:.2}"), format!("{:.1}", run.speed()), ppl]
    };
    let mut rows = vec![heads.map(str::to_string).to_vec(), row(reference, nll)];
    for (run, comparison) in models {
        let Comparison { kl, same_top, delta_p, .. } = comparison;
        let [median, most, max] = comparison.kl_quantiles(QUANTILES);
        let mut cells = row(run, &comparison.nll);
        cells.extend([
            format!("{:.5} +/- {:.5}", kl.mean(), kl.stderr()),
            format!("{median:.5}"),
            format!("{most:.4}"),
            format!("{max:.3}"),
            format!("{:.2}%", 100.0 * same_top.mean()),
            format!("{:+.3}", 100.0 * delta_p.mean()),
        ]);
        rows.push(cells);
    }
    let width =
        |column: usize| rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max();
    let widths: Vec<usize> = (0..heads.len()).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if column == 0 { format!("{cell:width$}") } else { format!("  {cell:>width$}") }
        });
        text += &cells.collect::<String>();
        text.push('\n');
    }
    text
}
