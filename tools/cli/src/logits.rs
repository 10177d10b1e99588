//! `siskin logits`

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use sha2::{Digest, Sha256};
use siskin::sampler::LogProbs;
use siskin::tokenizer::EncodeOptions;

use crate::args::{ModelArgs, SessionArgs, read_text};
use crate::output;

/// Prints what the model makes of every position of a text.
///
/// A line of JSON for each position: {"pos":0,"token":1,"top":[[id,logprob],...]}.
#[derive(Args)]
pub struct LogitsArgs {
    /// The text.
    #[arg(short, long)]
    prompt: Option<String>,
    /// Read the text from a file.
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
        (_, Some(path)) => Some(read_text(path)?),
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
    let mut failed = None;
    let mut bytes = Vec::new();
    session.prefill_all(&tokens, |pos, logits| {
        if failed.is_some() {
            return Ok(());
        }
        if args.sha256 || dump.is_some() {
            bytes.clear();
            bytes.extend(logits.iter().flat_map(|x| x.to_le_bytes()));
            digest.update(&bytes);
        }
        let result = (|| -> anyhow::Result<()> {
            if let Some(dump) = &mut dump {
                dump.write_all(&bytes)?;
            }
            if print {
                let top = logprobs.top(logits, args.top);
                let line = serde_json::json!({ "pos": pos, "token": tokens[pos], "top": top });
                output::json(&line)?;
            }
            Ok(())
        })();
        failed = result.err();
        Ok(())
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    if let Some(mut dump) = dump {
        dump.flush()?;
    }
    if args.sha256 {
        let hex: String = digest.finalize().iter().map(|b| format!("{b:02x}")).collect();
        output::print(&format!("{hex}\n"))?;
    }
    Ok(())
}
