//! Getting ready: opening a file, and from there to a session that can compute. On a file with a
//! vocabulary as large as any, on a tiny model, and on those that `SISKIN_BENCH_MODELS` names.

mod support;

use std::hint::black_box;
use std::path::Path;

use criterion::Criterion;
use siskin::gguf::{Builder, GgufFile};
use siskin::tokenizer::{Tokenizer, TokenizerOptions};
use siskin::{Engine, EngineOptions, Session, SessionOptions};

const N_VOCAB: u32 = 262_144;

/// A SentencePiece vocabulary of that many tokens and no weights.
fn vocabulary(path: &Path) {
    let n = if support::is_test() { 1 << 10 } else { N_VOCAB };
    let special = ["<unk>", "<s>", "</s>"].map(String::from);
    let words = (0..n - 3).map(|i| format!("\u{2581}w{i:x}"));
    let tokens: Vec<String> = special.into_iter().chain(words).collect();
    let texts: Vec<&str> = tokens.iter().map(String::as_str).collect();
    let types: Vec<i32> = (0..n).map(|i| if i < 3 { 3 } else { 1 }).collect();
    let scores: Vec<f32> = (0..n).map(|i| -(i as f32)).collect();
    let mut builder = Builder::new();
    let mut put = || {
        builder.put("general.architecture", "llama")?;
        builder.put("tokenizer.ggml.model", "llama")?;
        builder.put("tokenizer.ggml.tokens", &texts[..])?;
        builder.put("tokenizer.ggml.token_type", &types)?;
        builder.put("tokenizer.ggml.scores", &scores)
    };
    put().expect("metadata");
    builder.create(path).expect("a file").commit().expect("written");
}

fn tokenizer(file: &GgufFile) -> Tokenizer {
    let tokenizer = Tokenizer::from_gguf(file.metadata(), &TokenizerOptions::default());
    tokenizer.unwrap_or_else(|e| panic!("{e}"))
}

fn open(path: &Path) -> GgufFile {
    GgufFile::open(path).unwrap_or_else(|e| panic!("{e}"))
}

fn model(c: &mut Criterion, path: &Path) {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let mut group = c.benchmark_group(format!("load/{name}"));
    group.bench_function("open", |b| b.iter(|| black_box(open(path))));
    let options = EngineOptions { threads: Some(support::threads()), ..EngineOptions::default() };
    // What `siskin run` does before the prompt.
    group.bench_function("open, engine, session", |b| {
        b.iter(|| {
            let engine = Engine::from_file(open(path), &options).unwrap_or_else(|e| panic!("{e}"));
            black_box(Session::new(&engine, &SessionOptions::default()).expect("a session"))
        });
    });
    group.finish();
}

fn main() {
    let mut c = support::criterion();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("vocabulary.gguf");
    vocabulary(&path);
    let mut group = c.benchmark_group(format!("load/{N_VOCAB} tokens"));
    group.bench_function("open", |b| b.iter(|| black_box(open(&path))));
    let file = open(&path);
    group.bench_function("tokenizer", |b| b.iter(|| black_box(tokenizer(&file))));
    group.finish();
    let archs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/archs");
    model(&mut c, &archs.join("llama.gguf"));
    support::models().iter().for_each(|path| model(&mut c, path));
    c.final_summary();
}
