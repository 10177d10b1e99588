//! What the tokenizers promise.

mod fixture;
mod hostile;
#[path = "../llama_cpp/mod.rs"]
mod llama_cpp;
mod round_trip;
mod rules;
mod vocabs;

use siskin::tokenizer::{EncodeOptions, Tokenizer};

const PLAIN: EncodeOptions = EncodeOptions { add_special: false, parse_special: false };
const SPECIAL: EncodeOptions = EncodeOptions { add_special: true, parse_special: true };

/// The tokens of a text, as the file writes them.
fn texts(tokenizer: &Tokenizer, text: &str, opts: EncodeOptions) -> Vec<String> {
    let tokens = tokenizer.encode(text, opts).expect(text);
    tokens.iter().map(|&id| tokenizer.token_text(id).expect("a token")).collect()
}
