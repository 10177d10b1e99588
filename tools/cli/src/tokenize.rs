//! `siskin tokenize`

use clap::Args;
use siskin::gguf::GgufFile;
use siskin::tokenizer::{EncodeOptions, Tokenizer, TokenizerOptions};

use crate::args::PromptArgs;
use crate::{output, store};

/// Prints the token ids of a text. Works on files that hold a vocabulary only.
#[derive(Args)]
pub struct TokenizeArgs {
    /// A path, a name in the store, or hf:OWNER/REPO/FILE.gguf.
    #[arg(short, long, default_value = crate::catalog::DEFAULT)]
    model: String,
    #[command(flatten)]
    text: PromptArgs,
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
    let text = args.text.text()?;
    let file = GgufFile::open(store::resolve(&args.model)?)?;
    let options = TokenizerOptions { pre: args.pre.clone() };
    let tokenizer = Tokenizer::from_gguf(file.metadata(), &options)?;
    let encode = EncodeOptions { add_special: !args.no_bos, parse_special: !args.no_special };
    let ids = tokenizer.encode(&text, encode)?;
    if args.json {
        let pieces: Vec<String> = ids.iter().map(|id| tokenizer.decode(&[*id], true)).collect();
        return output::json(&serde_json::json!({ "ids": ids, "pieces": pieces }));
    }
    let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
    output::print(&(ids.join(" ") + "\n"))
}
