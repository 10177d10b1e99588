//! `siskin compare`, computed again from what `siskin logits` dumps.

mod common;

use std::path::Path;

use common::{file, json, siskin, tiny, variant};

const N_CTX: usize = 24;
const CHUNKS: usize = 2;
const N_VOCAB: usize = 96;

fn text(folder: &Path) -> String {
    file(folder, "text.txt", "He thanked the hen in the inn, then ran on and on. ".repeat(4))
}

/// The log-probabilities of every position of every chunk that is scored.
fn log_probabilities(model: &str, chunks: &[&[u32]], folder: &Path) -> Vec<Vec<f64>> {
    let dump = folder.join("logits.bin");
    let dump = dump.to_str().expect("UTF-8");
    let mut all = Vec::new();
    for chunk in chunks {
        let ids: Vec<String> = chunk.iter().map(u32::to_string).collect();
        let ended = siskin(&["logits", "-m", model, "--tokens", &ids.join(","), "--dump", dump]);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let bytes = std::fs::read(dump).expect("a dump");
        let (numbers, _) = bytes.as_chunks();
        let logits: Vec<f64> = numbers.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect();
        for row in &logits.chunks_exact(N_VOCAB).collect::<Vec<_>>()[N_CTX / 2..N_CTX - 1] {
            let sum: f64 = row.iter().map(|x| x.exp()).sum();
            all.push(row.iter().map(|x| x - sum.ln()).collect());
        }
    }
    all
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len() as f64;
    values.sum::<f64>() / n
}

#[test]
fn the_figures_are_what_their_definitions_say() {
    let folder = tempfile::tempdir().expect("a folder");
    let [reference, model] = ["llama", "mistral"].map(tiny);
    let text = text(folder.path());
    let tokens = siskin(&["tokenize", "-m", &reference, "--no-special", "--json", "-f", &text]);
    let tokens: Vec<u32> =
        serde_json::from_value(json(&tokens)[0]["ids"].clone()).expect("a list of ids");
    let chunks: Vec<&[u32]> = tokens.chunks_exact(N_CTX).take(CHUNKS).collect();
    let p = log_probabilities(&reference, &chunks, folder.path());
    let q = log_probabilities(&model, &chunks, folder.path());
    let next: Vec<usize> =
        chunks.iter().flat_map(|c| &c[N_CTX / 2 + 1..]).map(|t| *t as usize).collect();

    let (ctx, n) = (N_CTX.to_string(), CHUNKS.to_string());
    let args = ["compare", &reference, &model, &reference, "-f", &text, "-c", &ctx];
    let got = json(&siskin(&[&args[..], &["--chunks", &n, "--json"]].concat())).remove(0);
    assert_eq!(got["tokens"], next.len());
    assert_eq!((&got["chunks"], &got["ctx"]), (&CHUNKS.into(), &N_CTX.into()));
    let near = |value: &serde_json::Value, key: &str, want: f64| {
        let got = value[key].as_f64().expect("a number");
        assert!((got - want).abs() < 1e-9 * want.abs().max(1.0), "{key} is {got}, not {want}");
    };

    let mut kl: Vec<f64> = p
        .iter()
        .zip(&q)
        .map(|(p, q)| p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum())
        .collect();
    let first = &got["models"][0];
    near(first, "kl_mean", mean(kl.iter().copied()));
    kl.sort_by(f64::total_cmp);
    assert!(kl.len() % 2 == 0);
    near(first, "kl_median", (kl[kl.len() / 2 - 1] + kl[kl.len() / 2]) / 2.0);
    near(first, "kl_max", kl[kl.len() - 1]);
    let top = |row: &[f64]| (0..N_VOCAB).max_by(|i, j| row[*i].total_cmp(&row[*j]));
    let same = p.iter().zip(&q).map(|(p, q)| f64::from(u8::from(top(p) == top(q))));
    near(first, "top_1", mean(same));
    let delta = (0..next.len()).map(|i| q[i][next[i]].exp() - p[i][next[i]].exp());
    near(first, "delta_p_mean", mean(delta));
    let ppl = |rows: &[Vec<f64>]| (-mean((0..next.len()).map(|i| rows[i][next[i]]))).exp();
    near(first, "ppl", ppl(&q));
    near(&got["reference"], "ppl", ppl(&p));
    let bytes = std::fs::metadata(&model).expect("a file").len();
    assert_eq!(first["bytes"], bytes);
    near(first, "bits_per_weight", 32.0);

    let itself = &got["models"][1];
    for key in ["kl_mean", "kl_stderr", "kl_99", "kl_max", "delta_p_mean", "delta_p_rms"] {
        near(itself, key, 0.0);
    }
    near(itself, "top_1", 1.0);
    assert_eq!(itself["ppl"], got["reference"]["ppl"]);
}

#[test]
fn perplexity_is_that_of_siskin_perplexity() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = text(folder.path());
    let model = tiny("gemma3");
    let options = ["-f", &text, "-c", "32", "--json"];
    let compared = json(&siskin(&[&["compare", &model, &model][..], &options].concat())).remove(0);
    let alone = json(&siskin(&[&["perplexity", "-m", &model][..], &options].concat())).remove(0);
    for (key, other) in [("ppl", "ppl"), ("ppl_stderr", "stderr")] {
        let [got, want] =
            [&compared["models"][0][key], &alone[other]].map(|x| x.as_f64().expect("a number"));
        assert!((got / want - 1.0).abs() < 1e-6, "{key}: {got}, {want}");
    }
    assert_eq!(compared["tokens"], alone["tokens"]);
}

#[test]
fn threads_and_batches_do_not_change_a_digit() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = text(folder.path());
    let [reference, model] = ["qwen2", "gemma3"].map(tiny);
    let run = |options: &[&str]| {
        let args = ["compare", &reference, &model, "-f", &text, "-c", "48", "--json"];
        let mut got = json(&siskin(&[&args[..], options].concat())).remove(0);
        for model in [&["reference"][..], &["models", "0"]] {
            let pointer = format!("/{}", model.join("/"));
            got.pointer_mut(&pointer).expect("a model")["tokens_per_s"] = 0.into();
        }
        got
    };
    let want = run(&["-t", "1"]);
    assert_eq!(run(&["-t", "3"]), want);
    assert_eq!(run(&["-t", "2", "-b", "5"]), want);
    assert_eq!(run(&["-t", "2", "--cpu", "scalar"]), want);
}

#[test]
fn a_row_is_printed_for_each_model() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = text(folder.path());
    let models = ["llama", "mistral", "llama3-rope"].map(tiny);
    let [a, b, c] = &models;
    let ended = siskin(&["compare", a, b, c, "-f", &text, "-c", "24"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let rows: Vec<&str> = ended.stdout.lines().collect();
    assert!(rows[0].starts_with("model") && rows[0].ends_with("delta p"), "{}", rows[0]);
    let names: Vec<_> = rows[1..].iter().filter_map(|row| row.split_whitespace().next()).collect();
    assert_eq!(names, ["llama.gguf", "mistral.gguf", "llama3-rope.gguf"]);
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = text(folder.path());
    let llama = tiny("llama");
    let key = "tokenizer.ggml.tokens";
    let other = variant(folder.path(), &[key], |b| {
        let tokens: Vec<String> = (0..N_VOCAB).map(|i| format!("t{i}")).collect();
        let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
        b.put(key, &tokens[..])
    });
    let other = other.to_str().expect("UTF-8");
    let cases: [(&[&str], &str); 4] = [
        (&[&llama, other], "only models of one vocabulary compare"),
        (&[&llama, &llama, "--mem", "100K"], "more than the limit"),
        (&[&llama, "/nonexistent/x.gguf"], "/nonexistent/x.gguf"),
        (&[&llama, &llama, "--chunks", "0"], "nothing to do"),
    ];
    for (args, want) in cases {
        let ended = siskin(&[&["compare", "-f", &text, "-c", "24"][..], args].concat());
        assert_eq!(ended.code, 1, "{}", ended.stdout);
        assert!(ended.stderr.contains(want), "{}", ended.stderr);
    }
}

#[test]
fn the_memory_of_all_models_counts() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = text(folder.path());
    let model = tiny("llama");
    let plan = json(&siskin(&["inspect", &model, "--json", "-c", "24"])).remove(0);
    let one = plan["memory"]["total"].as_u64().expect("bytes");
    for (limit, fits) in [(2 * one, true), (2 * one - 1, false)] {
        let limit = limit.to_string();
        let ended = siskin(&["compare", &model, &model, "-f", &text, "-c", "24", "--mem", &limit]);
        assert_eq!(ended.code == 0, fits, "{}", ended.stderr);
        assert_eq!(ended.stderr.contains("the models take"), !fits, "{}", ended.stderr);
    }
}
