//! How far real models are from float32, as `transformers` computes it from the same weights: no
//! farther than llama.cpp.
//!
//! `tools/peers/kl.py` recorded tests/data/kl: the 32 likeliest tokens and their log-probabilities at
//! every third position of some prompts, and the divergence of llama.cpp there, when those tokens and
//! the rest of the vocabulary as one outcome are the choice. (Over all positions and the whole
//! vocabulary kl.py gives the figures that the README quotes.)

#[path = "gguf/folder.rs"]
mod folder;

use std::path::Path;

use folder::RealModel;
use serde_json::Value;
use siskin::{Engine, EngineOptions, Session, SessionOptions};

/// Tokens kept of a position.
const TOP: usize = 32;

/// A recorded position: the likeliest tokens with their log-probabilities.
type Position = [(u32, f32); TOP];

fn positions(name: &str) -> Vec<Position> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/kl/{name}.top"));
    let bytes = std::fs::read(path).expect("the recording");
    let word = |bytes: &[u8], i: usize| {
        let bytes: [u8; 4] = bytes[4 * i..4 * i + 4].try_into().expect("4 bytes");
        (u32::from_le_bytes(bytes), f32::from_le_bytes(bytes))
    };
    let position = |bytes| std::array::from_fn(|i| (word(bytes, i).0, word(bytes, TOP + i).1));
    bytes.chunks_exact(8 * TOP).map(position).collect()
}

/// KL(recorded || computed) over the recorded tokens and all others as one.
fn divergence(recorded: &Position, logits: &[f32]) -> f64 {
    let max = logits.iter().fold(f32::MIN, |a, b| a.max(*b));
    let sum: f64 = logits.iter().map(|x| f64::from(x - max).exp()).sum();
    let log_sum = f64::from(max) + sum.ln();
    let (mut kl, mut rest, mut rest_computed) = (0.0, 1.0, 1.0);
    for (token, want) in recorded {
        let (want, got) = (f64::from(*want), f64::from(logits[*token as usize]) - log_sum);
        kl += want.exp() * (want - got);
        rest -= want.exp();
        rest_computed -= got.exp();
    }
    // What is left of 1 is all rounding where the tokens are nearly certain.
    let (rest, rest_computed) = (rest.max(1e-12), rest_computed.max(1e-12));
    kl + rest * (rest / rest_computed).ln()
}

#[test]
fn real_models_are_no_farther_from_float32_than_llama_cpp() {
    let all: Value = serde_json::from_str(include_str!("data/kl/kl.json")).expect("JSON");
    // By the names of the recording.
    let names =
        [("smollm2-135m", "smollm2"), ("gemma3-270m", "gemma3"), ("qwen2.5-coder-0.5b", "qwen")];
    let mut compared = 0;
    for RealModel { name, path } in folder::models() {
        let Some((_, name)) = names.iter().find(|(known, _)| Some(*known) == name) else {
            continue;
        };
        let models = all["models"].as_array().expect("a list");
        let model = models.iter().find(|m| m["model"] == *name).expect("a recorded model");
        let positions = positions(name);

        let engine =
            Engine::load(&path, &EngineOptions::default()).unwrap_or_else(|e| panic!("{e}"));
        let options = SessionOptions { n_ctx: Some(512), ..SessionOptions::default() };
        let (mut at, mut kl) = (0, Vec::new());
        for tokens in model["tokens"].as_object().expect("prompts").values() {
            let tokens: Vec<u32> = serde_json::from_value(tokens.clone()).expect("ids");
            let mut session = Session::new(&engine, &options).unwrap_or_else(|e| panic!("{e}"));
            let all = session.prefill_all(&tokens, |i, logits| {
                if (at + i).is_multiple_of(3) {
                    kl.push(divergence(&positions[(at + i) / 3], logits));
                }
                Ok(())
            });
            all.unwrap_or_else(|e| panic!("{e}"));
            at += tokens.len();
        }
        assert_eq!(kl.len(), positions.len());
        let mean = kl.iter().sum::<f64>() / kl.len() as f64;
        let peer = &model["llama.cpp"]["sampled_kl"];
        folder::say(&format!("{name}: mean KL from float32 {mean:.6}, llama.cpp {peer}"));
        assert!(mean <= peer.as_f64().expect("a number"), "{name}: {mean}, llama.cpp {peer}");
        compared += 1;
    }
    folder::say(&format!("divergences of {compared} real models are no larger than llama.cpp's"));
}
