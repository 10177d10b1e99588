//! The weights: bit for bit those of the files made by hand, and by logits those of `transformers`.

use siskin::gguf::GgufFile;
use siskin::{Engine, EngineOptions, GgmlType, KvType, Session, SessionOptions};
use siskin_convert::Source;

use crate::store::{cases, data, fixture, floats, gguf, json, open, values};

fn names(dtype: &str) -> Vec<String> {
    let cases = cases();
    let all = cases["checkpoints"].as_array().unwrap().iter();
    let chosen = all.filter(|case| case["dtype"] == dtype && case["name"] != "bert");
    chosen.map(|case| case["name"].as_str().unwrap().to_string()).collect()
}

#[test]
fn f32_checkpoints_give_the_tensors_made_by_hand_bit_for_bit() {
    for name in names("f32") {
        let checkpoint = open(&fixture(&name)).unwrap();
        let by_hand = GgufFile::open(data().join(format!("archs/{name}.gguf"))).unwrap();
        assert_eq!(checkpoint.tensors().len(), by_hand.tensors().len(), "{name}");
        for (i, desc) in checkpoint.tensors().iter().enumerate() {
            let want = by_hand.tensor(&desc.name).expect(&desc.name);
            assert_eq!(desc.shape, want.shape, "{name} {}", desc.name);
            let want = by_hand.tensor_data(want);
            for step in [1, 3, 7, u64::MAX] {
                let got: Vec<u8> =
                    values(&checkpoint, i, step).iter().flat_map(|x| x.to_le_bytes()).collect();
                assert!(got == want, "{name} {} in steps of {step}", desc.name);
            }
        }
    }
}

/// The most that a logit is off, as a part of the largest.
fn off(name: &str, file: &[u8]) -> f32 {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, file).unwrap();
    let engine = Engine::load(&path, &EngineOptions::default()).unwrap();
    let kv = KvType::F32;
    let options = SessionOptions { k_type: kv, v_type: kv, ..SessionOptions::default() };
    let mut session = Session::new(&engine, &options).unwrap();
    let cases = json(&data().join("archs/cases.json"));
    let case = cases["cases"].as_array().unwrap().iter().find(|case| case["name"] == name).unwrap();
    let tokens = case["tokens"].as_array().unwrap();
    let tokens: Vec<u32> = tokens.iter().map(|t| t.as_u64().unwrap() as u32).collect();
    let own = data().join(format!("checkpoints/{name}.logits"));
    let of_f32 = data().join(format!("archs/{name}.logits"));
    let want = floats(if own.is_file() { &own } else { &of_f32 });
    let mut got = Vec::new();
    let keep = |_, row: &[f32]| {
        got.extend_from_slice(row);
        Ok(())
    };
    session.prefill_all(&tokens, keep).unwrap();
    assert_eq!(got.len(), want.len(), "{name}");
    let largest = want.iter().fold(0.0f32, |a, b| a.max(b.abs()));
    got.iter().zip(&want).map(|(g, w)| (g - w).abs() / largest).fold(0.0, f32::max)
}

#[test]
fn logits_are_those_of_transformers() {
    for name in [names("f32"), names("bf16")].concat() {
        let checkpoint = open(&fixture(&name)).unwrap();
        let off = off(&name, &gguf(&checkpoint));
        assert!(off < 1e-4, "{name} is off by {off}");
    }
}

#[test]
fn types_are_those_of_the_checkpoint_unless_values_are_computed() {
    let ty = |name: &str, tensor: &str| {
        let checkpoint = open(&fixture(name)).unwrap();
        checkpoint.tensors().iter().find(|t| t.name == tensor).expect(tensor).ty
    };
    assert_eq!(ty("llama", "blk.0.attn_q.weight"), GgmlType::BF16);
    assert_eq!(ty("llama3-rope", "blk.0.attn_q.weight"), GgmlType::F32);
    assert_eq!(ty("llama3-rope", "rope_freqs.weight"), GgmlType::F32);
    assert_eq!(ty("gemma2", "blk.0.attn_q.weight"), GgmlType::BF16);
    // Nothing runs with vectors of another type.
    assert_eq!(ty("llama", "blk.0.attn_norm.weight"), GgmlType::F32);
    assert_eq!(ty("llama-bias", "blk.0.attn_q.bias"), GgmlType::F32);
    assert_eq!(ty("gemma2", "blk.0.attn_norm.weight"), GgmlType::F32);
}

#[test]
fn several_threads_read_at_once() {
    let checkpoint = open(&fixture("qwen2")).unwrap();
    let want: Vec<_> = (0..checkpoint.tensors().len()).map(|i| values(&checkpoint, i, 9)).collect();
    std::thread::scope(|scope| {
        for first in 0..4 {
            let (checkpoint, want) = (&checkpoint, &want);
            scope.spawn(move || {
                for i in (first..want.len()).chain(0..first) {
                    assert_eq!(values(checkpoint, i, 5), want[i]);
                }
            });
        }
    });
}

#[test]
fn rows_that_are_not_there_are_refused() {
    let checkpoint = open(&fixture("llama")).unwrap();
    let rows = checkpoint.tensors()[0].rows();
    assert!(checkpoint.read(0, rows..rows + 1, &mut [0.0; 64]).is_err());
    assert!(checkpoint.read(0, 0..1, &mut [0.0; 63]).is_err());
    assert!(checkpoint.read(0, 0..u64::MAX, &mut []).is_err());
    assert!(checkpoint.read(9999, 0..1, &mut [0.0]).is_err());
}
