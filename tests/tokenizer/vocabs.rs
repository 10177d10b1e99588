//! llama.cpp's sample vocabularies: every tokenizer against what llama.cpp makes of the same text.
//!
//! The files are those of the folder that `SISKIN_TEST_VOCABS` names, or of llama.cpp's source
//! (see tests/llama_cpp).

use std::path::{Path, PathBuf};
use std::time::Instant;

use siskin::gguf::GgufFile;
use siskin::tokenizer::{EncodeOptions, Kind, Tokenizer, TokenizerOptions};

use crate::{PLAIN, llama_cpp};

fn load(path: &Path) -> Tokenizer {
    let file = GgufFile::open(path).expect("a vocabulary");
    Tokenizer::from_gguf(file.metadata(), &TokenizerOptions::default())
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The vocabularies, by name, without the prefix that all have.
fn vocabularies() -> Vec<(String, PathBuf)> {
    let folder = match std::env::var_os("SISKIN_TEST_VOCABS") {
        Some(folder) => PathBuf::from(folder),
        None => match llama_cpp::folder() {
            Some(folder) => folder.to_path_buf(),
            None => return Vec::new(),
        },
    };
    let files = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "gguf"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name.trim_start_matches("ggml-vocab-").to_string(), path)
        })
        .collect();
    found.sort();
    assert!(found.len() >= 19, "only {} vocabularies", found.len());
    found
}

#[test]
fn every_case_of_llama_cpp_gives_its_tokens_and_comes_back() {
    let mut tested = Vec::new();
    for (name, path) in vocabularies() {
        let with = |extension: &str| {
            let mut file = path.clone().into_os_string();
            file.push(extension);
            std::fs::read_to_string(file)
        };
        let (Ok(inputs), Ok(outputs)) = (with(".inp"), with(".out")) else { continue };
        let tokenizer = load(&path);
        const SEPARATOR: &str = "\n__ggml_vocab_test__\n";
        let inputs = inputs.strip_suffix(SEPARATOR).unwrap_or(&inputs).split(SEPARATOR);
        let inputs: Vec<&str> = inputs.collect();
        assert_eq!(inputs.len(), outputs.lines().count(), "{name}");
        for (text, tokens) in inputs.into_iter().zip(outputs.lines()) {
            let tokens: Vec<u32> =
                tokens.split_whitespace().map(|id| id.parse().unwrap()).collect();
            assert_eq!(tokenizer.encode(text, PLAIN).unwrap(), tokens, "{name}: {text:?}");
            // BERT's words are normalized beyond return.
            if tokenizer.kind() != Kind::WordPiece {
                assert_eq!(tokenizer.decode(&tokens, true), text, "{name}");
            }
            let mut stream = tokenizer.decoder().from_start();
            let mut streamed: String =
                tokens.iter().map(|&id| stream.push(id).to_string()).collect();
            streamed += stream.finish();
            assert_eq!(streamed, tokenizer.decode(&tokens, false), "{name}");
        }
        tested.push(name);
    }
    let all = [
        "bert-bge",
        "command-r",
        "deepseek-coder",
        "deepseek-llm",
        "falcon",
        "gemma-4",
        "gpt-2",
        "llama-bpe",
        "llama-spm",
        "mpt",
        "phi-3",
        "qwen2",
        "qwen35",
        "refact",
        "starcoder",
    ];
    if !tested.is_empty() {
        assert_eq!(tested, all);
    }
}

#[test]
fn recorded_texts_give_the_tokens_that_llama_cpp_gave() {
    let recorded = include_str!("../data/tokenizer/llama_cpp.json");
    let recorded: serde_json::Value = serde_json::from_str(recorded).unwrap();
    let texts: Vec<&str> =
        recorded["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    for (name, path) in vocabularies() {
        let cases = &recorded["vocabularies"][format!("ggml-vocab-{name}")];
        let tokenizer = load(&path);
        for (set, on) in [("plain", false), ("special", true)] {
            let opts = EncodeOptions { add_special: on, parse_special: on };
            let expected = cases[set].as_array().expect(&name);
            assert_eq!(expected.len(), texts.len());
            for (text, expected) in texts.iter().zip(expected) {
                // BERT's tokenizer takes Hangul apart; llama.cpp keeps the first part alone.
                if tokenizer.kind() == Kind::WordPiece && text.contains('한') {
                    continue;
                }
                let expected: Vec<u32> = expected
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|id| id.as_u64().unwrap() as u32)
                    .collect();
                let tokens = tokenizer.encode(text, opts).unwrap();
                assert_eq!(tokens, expected, "{name}, {set}: {text:?}");
            }
        }
    }
}

#[test]
fn generation_ends_where_llama_cpp_ends_it() {
    let expected: &[(&str, &[&str])] = &[
        ("gemma-4", &["<eos>", "<|tool_response>", "<turn|>"]),
        ("llama-bpe", &["<|end_of_text|>", "<|eot_id|>"]),
        ("phi-3", &["</s>", "<|endoftext|>", "<|end|>"]),
        ("qwen2", &["</s>", "<|endoftext|>", "<|im_end|>"]),
    ];
    let all = vocabularies();
    for (name, texts) in expected {
        if all.is_empty() {
            return;
        }
        let (_, path) = all.iter().find(|(n, _)| n == name).expect(name);
        let tokenizer = load(path);
        let found: Vec<_> =
            tokenizer.eog_tokens().iter().map(|&id| tokenizer.token_text(id).unwrap()).collect();
        assert_eq!(found, *texts, "{name}");
    }
}

#[test]
fn a_million_bytes_of_one_character_take_no_more_than_seconds() {
    for (name, path) in vocabularies() {
        // One of each kind, and the two whose merges run over whole lines.
        if !["llama-bpe", "llama-spm", "bert-bge", "nomic-bert-moe", "gemma-4"]
            .contains(&name.as_str())
        {
            continue;
        }
        let tokenizer = load(&path);
        for unit in [" ", "a", "1", "\n", "😀", "é", "a ", "<", "▁"] {
            let text = unit.repeat(1_000_000 / unit.len());
            let start = Instant::now();
            let tokens = tokenizer.encode(&text, EncodeOptions::default()).unwrap();
            let back = tokenizer.decode(&tokens, false);
            if matches!(tokenizer.kind(), Kind::Bpe | Kind::Spm) && unit != "▁" {
                assert!(back == text, "{name}: {unit:?}");
            }
            // Anything quadratic would be hours.
            assert!(start.elapsed().as_secs() < 20, "{name}: {unit:?} {:?}", start.elapsed());
        }
    }
}
