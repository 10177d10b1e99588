//! Adapters: merged by rows, whatever becomes of the rows.

use std::path::Path;

use serde_json::{Value, json};
use siskin_convert::Source;
use siskin_convert::checkpoint::{Checkpoint, ConvertOptions};

use crate::store::{Copy, Tensor, fixture, open, values, write_safetensors};

const RANK: usize = 3;

fn numbers(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 37 + seed * 11) % 29) as f32 / 16.0 - 0.8).collect()
}

fn adapter(dir: &Path, module: &str, [rows, cols]: [usize; 2], config: &Value) {
    let name = |part: &str| format!("base_model.model.{module}.{part}.weight");
    let (r, m, n) = (RANK as u64, rows as u64, cols as u64);
    let a = Tensor::f32(&name("lora_A"), &[r, n], &numbers(RANK * cols, 1));
    let b = Tensor::f32(&name("lora_B"), &[m, r], &numbers(rows * RANK, 2));
    write_safetensors(&dir.join("adapter_model.safetensors"), &[a, b]);
    std::fs::write(dir.join("adapter_config.json"), config.to_string()).unwrap();
}

fn merged(model: &Path, dir: &Path, scale: f32) -> siskin_convert::Result<Checkpoint> {
    let lora = vec![(dir.to_path_buf(), scale)];
    Checkpoint::open(model, &ConvertOptions { lora, ..ConvertOptions::default() })
}

fn config() -> Value {
    json!({"peft_type": "LORA", "r": RANK, "lora_alpha": 6, "bias": "none"})
}

#[test]
fn an_adapter_is_added_before_rows_change_places() {
    // 64 queries of 64 values, whose rows are interleaved.
    let dir = tempfile::tempdir().unwrap();
    let module = "model.layers.1.self_attn.q_proj";
    adapter(dir.path(), module, [64, 64], &config());
    let (a, b) = (numbers(RANK * 64, 1), numbers(64 * RANK, 2));
    let factor = 0.5 * 6.0 / RANK as f32;

    // The same by hand, in the checkpoint.
    let copy = Copy::of("llama");
    copy.edit_tensors(|tensors| {
        let t = tensors.iter_mut().find(|t| t.name == format!("{module}.weight")).unwrap();
        assert_eq!((t.dtype.as_str(), t.shape.as_slice()), ("BF16", &[64u64, 64][..]));
        let old: Vec<f32> = t
            .data
            .chunks_exact(2)
            .map(|b| f32::from_bits(u32::from(u16::from_le_bytes(b.try_into().unwrap())) << 16))
            .collect();
        let new = old.iter().enumerate().map(|(i, w)| {
            let (row, col) = (i / 64, i % 64);
            let sum = (0..RANK).fold(0.0, |sum, k| sum + b[row * RANK + k] * a[k * 64 + col]);
            w + factor * sum
        });
        *t = Tensor::f32(&t.name, &[64, 64], &new.collect::<Vec<_>>());
    });
    let want = open(copy.path()).unwrap();
    let got = merged(&fixture("llama"), dir.path(), 0.5).unwrap();
    for (i, desc) in want.tensors().iter().enumerate() {
        assert_eq!(desc, &got.tensors()[i]);
        for step in [5, u64::MAX] {
            assert_eq!(values(&got, i, step), values(&want, i, step), "{}", desc.name);
            // What is kept of the adapter goes, and comes again.
            got.done(i);
        }
    }
    let twice = vec![(dir.path().to_path_buf(), 0.25); 2];
    let options = ConvertOptions { lora: twice, ..ConvertOptions::default() };
    let twice = Checkpoint::open(&fixture("llama"), &options).unwrap();
    for i in 0..want.tensors().len() {
        let off =
            values(&twice, i, 9).iter().zip(values(&want, i, 9)).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(off, "{}", want.tensors()[i].name);
    }
}

#[test]
fn rank_stabilised_adapters_are_scaled_by_the_root() {
    let dir = tempfile::tempdir().unwrap();
    let module = "model.layers.0.mlp.up_proj";
    let mut config = config();
    adapter(dir.path(), module, [40, 64], &config);
    let plain = open(&fixture("llama")).unwrap();
    let up = plain.tensors().iter().position(|t| t.name == "blk.0.ffn_up.weight").unwrap();
    let delta = |checkpoint: &Checkpoint| {
        let (new, old) = (values(checkpoint, up, 8), values(&plain, up, 8));
        new.iter().zip(&old).map(|(a, b)| a - b).collect::<Vec<f32>>()
    };
    let by_rank = delta(&merged(&fixture("llama"), dir.path(), 1.0).unwrap());
    config["use_rslora"] = json!(true);
    adapter(dir.path(), module, [40, 64], &config);
    let by_root = delta(&merged(&fixture("llama"), dir.path(), 1.0).unwrap());
    for (a, b) in by_rank.iter().zip(&by_root) {
        assert!((a * (RANK as f32).sqrt() - b).abs() < 1e-4, "{a} {b}");
    }
}

#[test]
fn what_cannot_be_merged_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let error = |module: &str, shape, config: &Value| {
        adapter(dir.path(), module, shape, config);
        merged(&fixture("llama"), dir.path(), 1.0).expect_err("an error").to_string()
    };
    let known = "model.layers.0.mlp.up_proj";
    for (key, value) in [
        ("use_dora", json!(true)),
        ("peft_type", json!("IA3")),
        ("lora_alpha", json!(null)),
        ("alpha_pattern", json!({"up_proj": 3})),
        ("modules_to_save", json!(["lm_head"])),
    ] {
        let mut config = config();
        config[key] = value;
        let error = error(known, [40, 64], &config);
        assert!(error.contains("adapter_config.json") && error.contains(key), "{error}");
    }
    let unknown = error("model.layers.9.mlp.up_proj", [40, 64], &config());
    assert!(unknown.contains("model.layers.9.mlp.up_proj is not in the checkpoint"), "{unknown}");
    let misshapen = error(known, [40, 32], &config());
    assert!(misshapen.contains(known) && misshapen.contains("shapes"), "{misshapen}");
    let embeddings =
        Tensor::f32("base_model.model.model.embed_tokens.lora_embedding_A", &[1], &[0.0]);
    write_safetensors(&dir.path().join("adapter_model.safetensors"), &[embeddings]);
    let error = merged(&fixture("llama"), dir.path(), 1.0).err().unwrap().to_string();
    assert!(error.contains("lora_embedding_A"), "{error}");
    assert!(merged(&fixture("llama"), dir.path(), f32::NAN).is_err());
}
