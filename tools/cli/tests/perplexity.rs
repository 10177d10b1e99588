//! The rule of `siskin perplexity`, computed again from what `siskin logits` dumps.

mod common;

use std::path::Path;

use common::{file, json, siskin, tiny, variant};

const N_CTX: usize = 24;
const CHUNKS: usize = 3;
const N_VOCAB: usize = 96;

/// Perplexity and its standard error by llama.cpp's rule: each chunk begins anew, with `bos` in
/// place of its first token; the tokens of its second half are scored, but for the first of them.
fn by_the_rule(model: &str, tokens: &[u32], bos: Option<u32>, folder: &Path) -> (f64, f64) {
    let dump = folder.join("logits.bin");
    let dump = dump.to_str().expect("UTF-8");
    let mut nlls = Vec::new();
    for chunk in tokens.chunks_exact(N_CTX).take(CHUNKS) {
        let mut chunk = chunk.to_vec();
        if let Some(bos) = bos {
            chunk[0] = bos;
        }
        let ids: Vec<String> = chunk.iter().map(u32::to_string).collect();
        let ended = siskin(&["logits", "-m", model, "--tokens", &ids.join(","), "--dump", dump]);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let bytes = std::fs::read(dump).expect("a dump");
        let (numbers, _) = bytes.as_chunks();
        let logits: Vec<f64> = numbers.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect();
        let rows: Vec<&[f64]> = logits.chunks_exact(N_VOCAB).collect();
        assert_eq!(rows.len(), N_CTX);
        for pos in N_CTX / 2..N_CTX - 1 {
            let max = rows[pos].iter().copied().fold(f64::MIN, f64::max);
            let sum: f64 = rows[pos].iter().map(|x| (x - max).exp()).sum();
            nlls.push(sum.ln() + max - rows[pos][chunk[pos + 1] as usize]);
        }
    }
    let n = nlls.len() as f64;
    let mean = nlls.iter().sum::<f64>() / n;
    let squares = nlls.iter().map(|x| x * x).sum::<f64>() / n;
    let ppl = mean.exp();
    (ppl, ppl * ((squares - mean * mean) / (n - 1.0)).sqrt())
}

fn check(model: &str, bos: Option<u32>) {
    let folder = tempfile::tempdir().expect("a folder");
    // What looks like a control token is plain text here.
    let text = "He thanked the hen in the inn; <s> then he ran on, again and again. ".repeat(4);
    let text = file(folder.path(), "text.txt", text);
    let tokens = siskin(&["tokenize", "-m", model, "--no-special", "--json", "-f", &text]);
    let tokens: Vec<u32> =
        serde_json::from_value(json(&tokens)[0]["ids"].clone()).expect("a list of ids");
    assert!(tokens.len() > CHUNKS * N_CTX);
    let (ppl, stderr) = by_the_rule(model, &tokens, bos, folder.path());
    let (ctx, chunks) = (N_CTX.to_string(), CHUNKS.to_string());
    let args = ["perplexity", "-m", model, "-f", &text, "--json", "-c", &ctx, "--chunks", &chunks];
    let got = json(&siskin(&args)).remove(0);
    let near = |key: &str, want: f64| {
        let got = got[key].as_f64().expect("a number");
        assert!((got / want - 1.0).abs() < 1e-6, "{model}: {key} is {got}, not {want}");
    };
    near("ppl", ppl);
    near("stderr", stderr);
    assert_eq!(got["chunks"], CHUNKS);
    assert_eq!(got["tokens"], CHUNKS * (N_CTX / 2 - 1));
}

#[test]
fn the_second_half_of_each_chunk_is_scored() {
    // A window shorter than the chunk, too.
    for name in ["llama", "qwen2", "gemma3"] {
        check(&tiny(name), None);
    }
}

#[test]
fn each_chunk_begins_with_bos_where_the_model_wants_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = variant(folder.path(), &["tokenizer.ggml.add_bos_token"], |b| {
        b.put("tokenizer.ggml.add_bos_token", &true)
    });
    check(path.to_str().expect("UTF-8"), Some(0));
}
