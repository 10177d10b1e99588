//! Real models, where there are any.

use std::time::Instant;

use siskin::gguf::GgufFile;

use crate::folder::{RealModel, models, say};

#[test]
fn real_models_open_and_every_token_and_tensor_is_there() {
    for RealModel { path, .. } in models() {
        let start = Instant::now();
        let file = GgufFile::open(&path).unwrap_or_else(|e| panic!("{e}"));
        let took = start.elapsed();
        let metadata = file.metadata();
        assert!(metadata.str("general.architecture").expect("a string").is_some());
        let tokens = metadata.array("tokenizer.ggml.tokens").expect("an array").expect("tokens");
        assert!(tokens.iter_bytes().enumerate().all(|(i, t)| tokens.get_bytes(i) == Some(t)));
        for tensor in file.tensors() {
            assert_eq!(file.tensor(&tensor.name), Some(tensor));
            assert_eq!(file.tensor_data(tensor).len() as u64, tensor.n_bytes);
        }
        // Without optimization, on a machine with other work, it takes what it takes.
        let limit = if cfg!(debug_assertions) { 1000 } else { 30 };
        assert!(took.as_millis() < limit, "{}: {took:?}", path.display());
        say(&format!("{}: {} tokens, opened in {took:?}", path.display(), tokens.len()));
    }
}
