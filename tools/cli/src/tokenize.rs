//! `siskin tokenize`

use std::io::IsTerminal;
use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use siskin::gguf::GgufFile;
use siskin::tokenizer::{EncodeOptions, Tokenizer, TokenizerOptions};

use crate::args::load_error;
use crate::{output, prompt, store};

/// Prints the token ids of a text. Works on files that hold a vocabulary only.
#[derive(Args)]
pub struct TokenizeArgs {
    /// A path, a name in the store, or hf:OWNER/REPO/FILE.gguf.
    #[arg(short, long, default_value = crate::catalog::DEFAULT)]
    model: String,
    /// The text; if it is - or missing, standard input.
    text: Option<String>,
    /// Read the text from a file, or from standard input if it is -.
    #[arg(short, long, conflicts_with = "text")]
    file: Option<PathBuf>,
    /// Take the texts of special tokens for plain text.
    #[arg(long)]
    no_special: bool,
    /// Do not add the tokens that begin and end a sequence.
    #[arg(long)]
    no_bos: bool,
    /// The pre-tokenizer to use where the file names none that is known.
    #[arg(long)]
    pre: Option<String>,
    /// Print ids and pieces as JSON: {"ids":[...],"pieces":[...]}.
    #[arg(long)]
    json: bool,
}

pub fn main(args: TokenizeArgs) -> anyhow::Result<()> {
    let text = match (args.text, &args.file) {
        (_, Some(path)) => prompt::read(path)?,
        (Some(text), None) if text != "-" => text,
        (None, None) if std::io::stdin().is_terminal() => {
            bail!("no text: give one as an argument, with -f FILE or on standard input")
        }
        _ => prompt::standard_input()?,
    };
    let file = GgufFile::open(store::resolve(&args.model)?)?;
    let options = TokenizerOptions { pre: args.pre.clone() };
    let tokenizer = Tokenizer::from_gguf(file.metadata(), &options)
        .map_err(|error| load_error(file.path(), error))?;
    let encode = EncodeOptions { add_special: !args.no_bos, parse_special: !args.no_special };
    let ids = tokenizer.encode(&text, encode)?;
    if args.json {
        let pieces: Vec<String> = ids.iter().map(|id| tokenizer.decode(&[*id], true)).collect();
        return output::json(&serde_json::json!({ "ids": ids, "pieces": pieces }));
    }
    let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
    output::print(&(ids.join(" ") + "\n"))
}
