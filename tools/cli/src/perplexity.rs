//! `siskin perplexity`

use std::path::PathBuf;

use clap::Args;
use siskin::sampler::LogProbs;
use siskin_convert::compare::Mean;

use crate::args::{ModelArgs, SessionArgs};
use crate::chunks::Chunks;
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
    let chunks = Chunks::new(&args.file, engine.tokenizer(), &mut args.session, args.chunks)?;
    let mut session = args.session.session(&engine)?;
    let logprobs = LogProbs::new(engine.hparams().n_vocab)?;
    let bar = chunks.progress()?;
    let mut nll = Mean::default();
    for chunk in chunks.iter() {
        session.rewind(0);
        let first = chunks.scored_from();
        // Nothing follows the last token that could be scored. In models with a large vocabulary,
        // logits cost as much as the layers.
        session.prefill(&chunk[..first])?;
        session.prefill_all(&chunk[first..chunk.len() - 1], |pos, logits| {
            nll.add(-logprobs.of(logits, chunk[pos + 1]));
            Ok(())
        })?;
        bar.inc(1);
        bar.set_message(format!("ppl {:.4}", nll.perplexity().0));
    }
    bar.finish_and_clear();
    let (ppl, stderr) = nll.perplexity();
    let (n_chunks, n_ctx) = (chunks.iter().len(), chunks.n_ctx());
    if args.json {
        return output::json(&serde_json::json!({
            "ppl": ppl, "stderr": stderr, "chunks": n_chunks, "ctx": n_ctx, "tokens": nll.n(),
        }));
    }
    output::print(&format!("perplexity {ppl:.4} +/- {stderr:.4} ({n_chunks} chunks of {n_ctx})\n"))
}
