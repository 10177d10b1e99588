//! Any bytes as a GGUF file: the header, everything that can be asked of it, and the model. Once as
//! they are, and once with zeros behind, so that a header alone makes a model.
#![no_main]

use std::hint::black_box;

use libfuzzer_sys::fuzz_target;
use siskin::gguf::{GgufFile, Value};
use siskin::model::Model;

/// As many as the data of the largest seed has.
const ZEROS: usize = 256 << 10;

fuzz_target!(|data: &[u8]| {
    check(data.to_vec());
    let mut padded = data.to_vec();
    padded.resize(data.len() + ZEROS, 0);
    check(padded);
});

fn check(bytes: Vec<u8>) {
    let file = match GgufFile::from_bytes(bytes) {
        Ok(file) => file,
        Err(e) => {
            black_box(e.to_string());
            return;
        }
    };
    for (key, value) in file.metadata().iter() {
        assert!(file.metadata().get(key).is_some(), "{key} is listed but not found");
        let _ = file.metadata().u32(key);
        let _ = file.metadata().str(key);
        if let Value::Array(array) = value {
            black_box(array.iter_bytes().map(<[u8]>::len).sum::<usize>());
            black_box(array.iter_u32().fold(0, u32::wrapping_add));
            black_box(array.iter_f32().sum::<f32>());
            assert!(array.get(array.len()).is_none());
        }
    }
    for tensor in file.tensors() {
        assert_eq!(file.tensor_data(tensor).len() as u64, tensor.n_bytes);
        assert_eq!(file.tensor(&tensor.name), Some(tensor));
    }
    if let Err(e) = Model::new(&file) {
        black_box(e.to_string());
    }
}
