//! Any GGUF metadata as a tokenizer, and any text through it.
//!
//! The first byte says where the text begins, in 256ths of the input; what is before is the file.
#![no_main]

use std::hint::black_box;

use libfuzzer_sys::fuzz_target;
use siskin::gguf::GgufFile;
use siskin::tokenizer::{EncodeOptions, Tokenizer, TokenizerOptions};

fuzz_target!(|data: &[u8]| {
    let Some((&at, rest)) = data.split_first() else { return };
    let (file, text) = rest.split_at(rest.len() * usize::from(at) / 256);
    let Ok(file) = GgufFile::from_bytes(file.to_vec()) else { return };
    let tokenizer = match Tokenizer::from_gguf(file.metadata(), &TokenizerOptions::default()) {
        Ok(tokenizer) => tokenizer,
        Err(e) => {
            black_box(e.to_string());
            return;
        }
    };
    let text = String::from_utf8_lossy(text);
    for on in [false, true] {
        let options = EncodeOptions { add_special: on, parse_special: on };
        match tokenizer.encode(&text, options) {
            Ok(tokens) => {
                assert!(tokens.iter().all(|&id| (id as usize) < tokenizer.n_vocab()));
                black_box(tokenizer.decode(&tokens, on));
            }
            Err(e) => {
                black_box(e.to_string());
            }
        }
    }
});
