//! `siskin logits`

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use sha2::{Digest, Sha256};
use siskin::sampler::LogProbs;
use siskin::tokenizer::EncodeOptions;
use siskin::{Error, Session};

use crate::args::{ModelArgs, SessionArgs};
use crate::{output, prompt};

/// Prints what the model makes of every position of a text.
///
/// A line of JSON for each position: {"pos":0,"token":1,"top":[[id,logprob],...]}.
#[derive(Args)]
pub struct LogitsArgs {
    /// The text.
    #[arg(short, long)]
    prompt: Option<String>,
    /// Read the text from a file, or from standard input if it is -.
    #[arg(short, long, conflicts_with_all = ["prompt", "tokens"])]
    file: Option<PathBuf>,
    /// Token ids instead of a text.
    #[arg(long, value_delimiter = ',', conflicts_with = "prompt")]
    tokens: Vec<u32>,
    /// The most likely tokens to print.
    #[arg(long, default_value_t = 10)]
    top: usize,
    /// Print one digest of all logits (f32, little endian) instead.
    #[arg(long)]
    sha256: bool,
    /// Write all logits to a file: f32, little endian, a row of the vocabulary's length for each
    /// position.
    #[arg(long)]
    dump: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    session: SessionArgs,
}

pub fn main(args: LogitsArgs) -> anyhow::Result<()> {
    let engine = args.model.load()?;
    let text = match (&args.prompt, &args.file) {
        (Some(text), _) => Some(text.clone()),
        (_, Some(path)) => Some(prompt::read(path)?),
        _ => None,
    };
    let tokens = match text {
        Some(text) => {
            let options = EncodeOptions { add_special: true, parse_special: true };
            engine.tokenizer().encode(&text, options)?
        }
        None if args.tokens.is_empty() => bail!("nothing to do: give --prompt, --file or --tokens"),
        None => args.tokens.clone(),
    };
    let mut session = args.session.session(&engine)?;
    let mut digest = Sha256::new();
    let mut dump = match &args.dump {
        Some(path) => {
            Some(BufWriter::new(File::create(path).with_context(|| path.display().to_string())?))
        }
        None => None,
    };
    let mut logprobs = LogProbs::new(engine.hparams().n_vocab)?;
    let print = !args.sha256 && args.dump.is_none();
    let mut bytes = Vec::new();
    each_row(&mut session, &tokens, |pos, logits| {
        if args.sha256 || dump.is_some() {
            bytes.clear();
            bytes.extend(logits.iter().flat_map(|x| x.to_le_bytes()));
            digest.update(&bytes);
        }
        if let Some((path, dump)) = args.dump.as_ref().zip(dump.as_mut()) {
            dump.write_all(&bytes).with_context(|| path.display().to_string())?;
        }
        if print {
            let top = logprobs.top(logits, args.top);
            let line = serde_json::json!({ "pos": pos, "token": tokens[pos], "top": top });
            output::json(&line)?;
        }
        Ok(())
    })?;
    if let Some((path, mut dump)) = args.dump.as_ref().zip(dump) {
        dump.flush().with_context(|| path.display().to_string())?;
    }
    if args.sha256 {
        let hex: String = digest.finalize().iter().map(|b| format!("{b:02x}")).collect();
        output::print(&format!("{hex}\n"))?;
    }
    Ok(())
}

/// Calls `f` with each position's logits. What nobody reads is not worth computing: the first error
/// is the end.
fn each_row(
    session: &mut Session,
    tokens: &[u32],
    mut f: impl FnMut(usize, &[f32]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut failed = None;
    let result = session.prefill_all(tokens, |pos, logits| {
        f(pos, logits).map_err(|error| {
            failed = Some(error);
            Error::Cancelled
        })
    });
    match failed {
        Some(error) => Err(error),
        None => Ok(result?),
    }
}

#[cfg(test)]
mod tests {
    use siskin::{Engine, EngineOptions, SessionOptions};

    use super::*;

    #[test]
    fn the_first_error_ends_the_computation() -> anyhow::Result<()> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/archs/llama.gguf");
        let engine = Engine::load(path, &EngineOptions::default())?;
        let options = SessionOptions { n_batch: 2, ..SessionOptions::default() };
        let mut session = Session::new(&engine, &options)?;
        let mut calls = 0;
        let result = each_row(&mut session, &[5; 20], |pos, _| {
            calls += 1;
            if pos < 2 { Ok(()) } else { Err(anyhow::anyhow!("gone")) }
        });
        assert_eq!(result.err().map(|e| e.to_string()), Some("gone".to_string()));
        assert_eq!(calls, 3);
        // The batches before the one that failed.
        assert_eq!(session.tokens().len(), 2);
        Ok(())
    }
}
