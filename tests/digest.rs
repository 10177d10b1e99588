//! The logits of real models, bit for bit as they were recorded: on every level of every CPU.
//!
//! Recorded with `siskin logits -m MODEL -p TEXT --sha256` on x86-64. `.ci/run` runs this under
//! qemu as three Arm CPUs too. tools/cli/tests/real.rs varies threads and batches.

#[path = "gguf/folder.rs"]
mod folder;

use serde_json::Value;
use sha2::{Digest, Sha256};
use siskin::{EncodeOptions, Engine, EngineOptions, Session, SessionOptions};

#[test]
fn real_models_give_the_recorded_bits_on_every_level() {
    let recorded: Value = serde_json::from_str(include_str!("data/digests.json")).expect("JSON");
    let text = recorded["text"].as_str().expect("a text");
    let mut found = false;
    for path in folder::models() {
        // By its length, so that it may be called anything.
        let bytes = path.metadata().map(|m| m.len()).ok();
        let models = recorded["models"].as_array().expect("a list");
        let Some(model) = models.iter().find(|m| m["bytes"].as_u64() == bytes) else { continue };
        found = true;
        for level in levels() {
            let options =
                EngineOptions { level: Some(level.to_string()), ..EngineOptions::default() };
            let engine = Engine::load(&path, &options).unwrap_or_else(|e| panic!("{e}"));
            let options = EncodeOptions { add_special: true, parse_special: true };
            let tokens = engine.tokenizer().encode(text, options).expect("tokens");
            let options = SessionOptions { n_ctx: Some(128), ..SessionOptions::default() };
            let mut session = Session::new(&engine, &options).unwrap_or_else(|e| panic!("{e}"));
            let mut digest = Sha256::new();
            let all = session.prefill_all(&tokens, |_, logits| {
                logits.iter().for_each(|x| digest.update(x.to_le_bytes()));
                Ok(())
            });
            all.unwrap_or_else(|e| panic!("{e}"));
            let got: String = digest.finalize().iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(got, model["sha256"].as_str().expect("hex"), "{} on {level}", model["name"]);
            println!("{} on {level}: as recorded", model["name"]);
        }
    }
    assert!(found || std::env::var_os("CI").is_none(), "no model to test with");
}

/// The levels with vectors of the CPU's own; the best alone where another machine may be emulated,
/// which takes a minute for each.
fn levels() -> Vec<&'static str> {
    let mut levels = siskin::kernel_levels();
    levels.retain(|level| !["scalar", "wide"].contains(level));
    let skipped = if cfg!(target_arch = "x86_64") { 0 } else { levels.len().saturating_sub(1) };
    levels.split_off(skipped)
}
