//! `siskin perplexity`

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use siskin::sampler::LogProbs;
use siskin::tokenizer::EncodeOptions;

use crate::args::{ModelArgs, SessionArgs, read_text};
use crate::output;

/// Measures how well a model predicts a text: the lower, the better.
///
/// By llama.cpp's rule, so that figures can be compared: the text is cut into chunks of --ctx
/// tokens (here 512 by default), each begins anew (with BOS, if the model wants it, in place of
/// its first token), and the second half of each is scored.
#[derive(Args)]
pub struct PerplexityArgs {
    /// The text.
    #[arg(short, long)]
    file: PathBuf,
    /// Chunks to score [default: all].
    #[arg(long)]
    chunks: Option<usize>,
    /// Print {"ppl":...,"stderr":...,"chunks":...}.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    session: SessionArgs,
}

pub fn main(mut args: PerplexityArgs) -> anyhow::Result<()> {
    let engine = args.model.load()?;
    let tokenizer = engine.tokenizer();
    let n_ctx = args.session.ctx.unwrap_or(512);
    if n_ctx < 4 {
        bail!("--ctx {n_ctx}: chunks of at least 4 tokens can be scored");
    }
    args.session.ctx = Some(n_ctx);
    if args.chunks == Some(0) {
        bail!("--chunks 0: nothing to score");
    }
    let text = read_text(&args.file)?;
    let encode = EncodeOptions { add_special: true, parse_special: false };
    let mut tokens = tokenizer.encode(&text, encode)?;
    let n_chunks = (tokens.len() / n_ctx).min(args.chunks.unwrap_or(usize::MAX));
    if n_chunks == 0 {
        bail!(
            "{} has {} tokens, less than one chunk of {n_ctx}",
            args.file.display(),
            tokens.len()
        );
    }
    let mut session = args.session.session(&engine)?;
    let logprobs = LogProbs::new(engine.hparams().n_vocab)?;
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} chunks, {eta} left {msg}")?;
    let bar = ProgressBar::new(n_chunks as u64).with_style(style);
    let (mut sum, mut squares, mut count) = (0.0f64, 0.0f64, 0u64);
    for chunk in tokens.chunks_exact_mut(n_ctx).take(n_chunks) {
        if let (true, Some(bos)) = (tokenizer.add_bos(), tokenizer.bos()) {
            chunk[0] = bos;
        }
        session.rewind(0);
        let first = n_ctx / 2;
        // Nothing follows the last token that could be scored. In models with a large vocabulary,
        // logits cost as much as the layers.
        session.prefill(&chunk[..first])?;
        session.prefill_all(&chunk[first..n_ctx - 1], |pos, logits| {
            let nll = -logprobs.of(logits, chunk[pos + 1]);
            sum += nll;
            squares += nll * nll;
            count += 1;
            Ok(())
        })?;
        bar.inc(1);
        bar.set_message(format!("ppl {:.4}", (sum / count as f64).exp()));
    }
    bar.finish_and_clear();
    let mean = sum / count as f64;
    let ppl = mean.exp();
    let variance = squares / count as f64 - mean * mean;
    let stderr = ppl * (variance.max(0.0) / (count.max(2) - 1) as f64).sqrt();
    if args.json {
        return output::json(&serde_json::json!({
            "ppl": ppl, "stderr": stderr, "chunks": n_chunks, "ctx": n_ctx, "tokens": count,
        }));
    }
    output::print(&format!("perplexity {ppl:.4} +/- {stderr:.4} ({n_chunks} chunks of {n_ctx})\n"))
}
