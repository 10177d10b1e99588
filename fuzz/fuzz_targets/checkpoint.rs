//! Any bytes as a part of a checkpoint: a safetensors file, a configuration, a tokenizer.json or a
//! tokenizer.model, by the first byte.
#![no_main]

use std::hint::black_box;

use libfuzzer_sys::fuzz_target;
use siskin_convert::checkpoint;

fuzz_target!(|data: &[u8]| {
    let Some((kind, data)) = data.split_first() else { return };
    let text = || std::str::from_utf8(data).unwrap_or_default();
    let result = match kind % 4 {
        0 => checkpoint::check_header(data).map(drop),
        1 => checkpoint::check_config(text()),
        2 => checkpoint::check_tokenizer(text(), 1000),
        _ => checkpoint::check_sentencepiece(data).map(drop),
    };
    if let Err(error) = result {
        black_box(error.to_string());
    }
});
