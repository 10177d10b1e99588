//! Any bytes as a part of a checkpoint, by the first byte: a safetensors file, a configuration, a
//! tokenizer.json (and behind a byte 0 a tokenizer_config.json), a tokenizer.model, the configuration
//! of an adapter, or the index of several files.
#![no_main]

use std::hint::black_box;

use libfuzzer_sys::fuzz_target;
use siskin_convert::checkpoint;

fuzz_target!(|data: &[u8]| {
    let Some((kind, data)) = data.split_first() else { return };
    let text = std::str::from_utf8(data).unwrap_or_default();
    let result = match kind % 6 {
        0 => checkpoint::check_header(data).map(drop),
        1 => checkpoint::check_config(text),
        2 => {
            let (tokenizer, settings) = text.split_once('\0').unwrap_or((text, "{}"));
            checkpoint::check_tokenizer(tokenizer, settings, 1000)
        }
        3 => checkpoint::check_sentencepiece(data).map(drop),
        4 => checkpoint::check_adapter(text),
        _ => checkpoint::check_index(text).map(drop),
    };
    if let Err(error) = result {
        black_box(error.to_string());
    }
});
