//! Every architecture gives the logits that `transformers` gives for the same tiny checkpoint.
//! tests/data/archs/make.py made them.

use std::path::{Path, PathBuf};

use serde_json::Value;
use siskin::{Engine, EngineOptions, Error, KvType, Session, SessionOptions};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/archs")
}

struct Case {
    name: String,
    tokens: Vec<u32>,
    logits: Vec<f32>,
}

fn cases() -> Vec<Case> {
    let text = std::fs::read_to_string(folder().join("cases.json")).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    let list = json["cases"].as_array().unwrap();
    list.iter()
        .map(|case| {
            let name = case["name"].as_str().unwrap().to_string();
            let tokens = case["tokens"].as_array().unwrap();
            let bytes = std::fs::read(folder().join(format!("{name}.logits"))).unwrap();
            let floats = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
            Case {
                name,
                tokens: tokens.iter().map(|t| t.as_u64().unwrap() as u32).collect(),
                logits: floats.collect(),
            }
        })
        .collect()
}

fn engine(name: &str, threads: usize, level: Option<&str>) -> Engine {
    let options = EngineOptions {
        threads: Some(threads),
        level: level.map(String::from),
        ..EngineOptions::default()
    };
    Engine::load(folder().join(format!("{name}.gguf")), &options).unwrap()
}

/// The logits of all tokens, computed in batches of `batch`.
fn logits(engine: &Engine, tokens: &[u32], batch: usize, kv: KvType) -> Vec<f32> {
    let options = SessionOptions { n_ctx: None, n_batch: batch, k_type: kv, v_type: kv };
    let mut session = Session::new(engine, &options).unwrap();
    let mut all = Vec::new();
    session
        .prefill_all(tokens, |_, row| {
            all.extend_from_slice(row);
            Ok(())
        })
        .unwrap();
    all
}

#[test]
fn logits_are_those_of_transformers() {
    for case in cases() {
        let engine = engine(&case.name, 2, None);
        let got = logits(&engine, &case.tokens, 512, KvType::F32);
        assert_eq!(got.len(), case.logits.len(), "{}", case.name);
        let largest = case.logits.iter().fold(0.0f32, |a, b| a.max(b.abs()));
        for (i, (g, w)) in got.iter().zip(&case.logits).enumerate() {
            let error = (g - w).abs() / largest;
            assert!(error < 1e-4, "{}: logit {i} is {g}, not {w}", case.name);
        }
    }
}

/// Past two chunks of 64 positions of the attention, and past the windows of all that have one.
const LONG: u32 = 150;

#[test]
fn bits_do_not_depend_on_level_threads_or_batches() {
    for case in cases() {
        let tokens: Vec<u32> = (0..LONG).map(|i| 1 + i * 7 % 50).collect();
        for kv in [KvType::F16, KvType::F32] {
            let want = logits(&engine(&case.name, 1, Some("scalar")), &tokens, 512, kv);
            for level in siskin::kernel_levels() {
                for (threads, batch) in [(1, 1), (2, 7), (3, 64), (8, 512)] {
                    let got = logits(&engine(&case.name, threads, Some(level)), &tokens, batch, kv);
                    assert_eq!(got.len(), want.len(), "{}", case.name);
                    let same = got.iter().zip(&want).all(|(g, w)| g.to_bits() == w.to_bits());
                    assert!(same, "{} {level} {threads} threads, batches of {batch}", case.name);
                }
            }
        }
    }
}

#[test]
fn a_reused_prefix_gives_the_bits_of_a_cold_start() {
    for case in cases() {
        let engine = engine(&case.name, 2, None);
        let mut session = Session::new(&engine, &SessionOptions::default()).unwrap();
        let n = case.tokens.len();
        let cold = session.prefill(&case.tokens).unwrap().to_vec();
        for keep in [0, 1, n / 2, n - 1] {
            // Something else comes after the prefix, and is given up again.
            session.rewind(keep);
            session.prefill(&[1, 2, 3]).unwrap();
            let kept = session.resume(&case.tokens).unwrap();
            assert!(kept < n);
            assert_eq!(session.logits(), cold, "{} kept {kept}", case.name);
        }
    }
}

#[test]
fn a_rewind_past_what_a_window_still_holds_forgets_everything() {
    for name in ["gemma2", "gemma3"] {
        let engine = engine(name, 2, None);
        let options = SessionOptions { n_ctx: Some(256), n_batch: 8, ..SessionOptions::default() };
        let tokens: Vec<u32> = (0..200).map(|i| 1 + i * 7 % 50).collect();
        let cold = |n: usize| {
            let mut session = Session::new(&engine, &options).unwrap();
            session.prefill(&tokens[..n]).unwrap().to_vec()
        };
        let mut session = Session::new(&engine, &options).unwrap();
        session.prefill(&tokens).unwrap();
        // The rings hold 64 positions, a window and a batch rounded up: 136 to 200.
        assert!(session.rewind(150));
        assert_eq!(session.decode(tokens[150]).unwrap(), cold(151), "{name}");
        assert!(!session.rewind(110), "{name}: positions from 103 on were overwritten");
        assert!(session.tokens().is_empty());
        assert_eq!(session.prefill(&tokens[..70]).unwrap(), cold(70), "{name}");
        assert!(session.rewind(40));
        assert_eq!(session.prefill(&tokens[40..70]).unwrap(), cold(70), "{name}");
        // A batch that was given up may have overwritten as much as one that was not.
        session.cancel_handle().cancel();
        assert!(matches!(session.prefill(&tokens[70..78]), Err(Error::Cancelled)));
        assert!(!session.rewind(20), "{name}: position 13 may be overwritten");
        assert_eq!(session.prefill(&tokens[..20]).unwrap(), cold(20), "{name}");
        // Of the beginning nothing is missing, whatever was overwritten.
        session.prefill(&tokens[20..]).unwrap();
        assert!(session.rewind(0) && session.tokens().is_empty(), "{name}");
        assert_eq!(session.prefill(&tokens[..70]).unwrap(), cold(70), "{name}");
    }
}

#[test]
fn a_callback_may_use_another_session() {
    let engine = engine("llama", 2, None);
    let mut outer = Session::new(&engine, &SessionOptions::default()).unwrap();
    let mut inner = Session::new(&engine, &SessionOptions::default()).unwrap();
    let same = outer.prefill_all(&[1, 2, 3], |pos, logits| {
        assert_eq!(inner.decode(pos as u32 + 1)?, logits);
        Ok(())
    });
    same.unwrap();
}

#[test]
fn the_last_row_alone_has_the_bits_of_all_rows() {
    for case in cases() {
        let engine = engine(&case.name, 2, None);
        let all = logits(&engine, &case.tokens, 512, KvType::F16);
        let mut session = Session::new(&engine, &SessionOptions::default()).unwrap();
        let last = session.prefill(&case.tokens).unwrap();
        assert_eq!(last, &all[all.len() - last.len()..], "{}", case.name);
    }
}
