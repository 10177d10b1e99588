//! Valid files with bytes changed: a result or an error, never a panic.

use crate::store::{Copy, gguf, open};

/// A generator of numbers that is the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }
}

/// Changes a few bytes, by the kinds of change that break parsers.
fn mutate(bytes: &mut Vec<u8>, random: &mut Random, limit: usize) {
    const PIECES: [&str; 12] = [
        "0",
        "-1",
        "1e999",
        "null",
        "[]",
        "{}",
        "\"",
        "18446744073709551615",
        "true",
        ",",
        "}",
        "\\u",
    ];
    for _ in 0..1 + random.below(3) {
        let at = random.below(bytes.len().min(limit));
        match random.below(4) {
            0 => bytes[at] = random.below(256) as u8,
            1 => {
                bytes.remove(at);
            }
            2 => {
                let piece = PIECES[random.below(PIECES.len())];
                bytes.splice(at..at, piece.bytes());
            }
            _ => {
                // A number for another.
                let end = bytes[at..].iter().position(|b| !b.is_ascii_digit()).unwrap_or(0);
                let piece = PIECES[random.below(PIECES.len())];
                bytes.splice(at..at + end, piece.bytes());
            }
        }
        if bytes.is_empty() {
            return;
        }
    }
}

#[test]
fn changed_files_give_a_result_or_an_error() {
    let mut random = Random(0x5151);
    for (model, file, limit) in [
        ("llama3-rope", "config.json", usize::MAX),
        ("gemma3", "config.json", usize::MAX),
        ("llama3-rope", "tokenizer.json", usize::MAX),
        ("mistral", "tokenizer.json", usize::MAX),
        ("bert", "tokenizer.json", usize::MAX),
        ("qwen2", "tokenizer_config.json", usize::MAX),
        ("gemma2", "tokenizer.model", usize::MAX),
        ("llama3-rope", "generation_config.json", usize::MAX),
        ("llama3-rope", "README.md", usize::MAX),
        // The header.
        ("llama", "model.safetensors", 2500),
    ] {
        let copy = Copy::of(model);
        let whole = std::fs::read(copy.file(file)).unwrap();
        let (mut good, mut bad) = (0, 0);
        for _ in 0..150 {
            let mut bytes = whole.clone();
            mutate(&mut bytes, &mut random, limit);
            std::fs::write(copy.file(file), bytes).unwrap();
            match open(copy.path()) {
                Ok(checkpoint) => {
                    good += 1;
                    gguf(&checkpoint);
                }
                Err(error) => {
                    bad += 1;
                    assert!(!error.to_string().is_empty());
                }
            }
        }
        assert!(good + bad == 150, "{model} {file}");
        assert!(bad > 0 || file == "README.md", "{model} {file}: no change was noticed");
    }
}
