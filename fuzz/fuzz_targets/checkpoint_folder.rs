//! Texts as the files of a checkpoint's folder, with zeros for weights: it opens, and every tensor
//! can be read, or the error says why not.
//!
//! The texts are in the order of `FILES`, with a byte 0 between two; those of safetensors files are
//! their headers. An empty text is a file that is not there.
#![no_main]

use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use siskin::gguf::Builder;
use siskin_convert::{Checkpoint, ConvertOptions, Source};

const FILES: [&str; 10] = [
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "adapter_config.json",
    "adapter_model.safetensors",
    "generation_config.json",
    "chat_template.jinja",
    "vocab.txt",
    "README.md",
];
/// The most bytes of weights, which take no room on the disk.
const MAX_WEIGHTS: u64 = 1 << 30;
/// The most values that are read of a tensor.
const MAX_VALUES: usize = 1 << 20;

fn write(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    if path.extension().is_none_or(|e| e != "safetensors") {
        return file.write_all(text);
    }
    // As long as the header says, so that what comes after it is reached.
    let end = |entry: &serde_json::Value| entry.get("data_offsets")?.get(1)?.as_u64();
    let header: serde_json::Value = serde_json::from_slice(text).unwrap_or_default();
    let entries = header.as_object().into_iter().flat_map(|entries| entries.values());
    let data = entries.filter_map(end).max().unwrap_or(0).min(MAX_WEIGHTS);
    file.write_all(&(text.len() as u64).to_le_bytes())?;
    file.write_all(text)?;
    file.set_len(8 + text.len() as u64 + data)
}

fn read(checkpoint: &Checkpoint) {
    checkpoint.metadata(&mut Builder::new()).expect("keys that a file can have");
    for (i, tensor) in checkpoint.tensors().iter().enumerate() {
        let (rows, cols) = (tensor.rows(), tensor.cols());
        if cols > MAX_VALUES {
            continue;
        }
        let mut values = vec![0.0; cols];
        for row in [0, rows / 2, rows.saturating_sub(1)].into_iter().filter(|row| *row < rows) {
            checkpoint.read(i, row..row + 1, &mut values).expect("a row");
        }
        checkpoint.done(i);
    }
    black_box(checkpoint.notes());
}

fuzz_target!(|data: &[u8]| {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let name = format!("siskin-fuzz-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a folder");
        path
    });
    let mut texts = data.split(|byte| *byte == 0);
    let mut adapted = false;
    for name in FILES {
        let path = folder.join(name);
        match texts.next().filter(|text| !text.is_empty()) {
            Some(text) => {
                adapted |= name == "adapter_config.json";
                write(&path, text).expect("a file");
            }
            None => drop(std::fs::remove_file(&path)),
        }
    }
    let lora = if adapted { vec![(folder.clone(), 0.5)] } else { Vec::new() };
    match Checkpoint::open(folder, &ConvertOptions { name: None, lora }) {
        Ok(checkpoint) => read(&checkpoint),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
