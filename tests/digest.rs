//! The logits of real models, bit for bit as they were recorded: on every level of every CPU.
//!
//! `.ci/run` runs this under qemu as three Arm CPUs too. tools/cli/tests/real.rs varies threads,
//! batches and levels over the long text.
//!
//! A change of the arithmetic changes the bits. With all models at hand, on x86-64,
//! `SISKIN_RECORD=1 cargo test -p siskin --test digest` records them anew.

#[path = "gguf/folder.rs"]
mod folder;

use std::path::Path;

use folder::RealModel;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use siskin::{EncodeOptions, Engine, EngineOptions, Session, SessionOptions};

/// A dozen tokens: a second for a model under qemu is a millisecond without.
const SHORT: &str = "In 1887 the keeper of the lighthouse counted 312 ships.";

/// Several hundred tokens: past a sliding window of 512, and many chunks of the attention.
fn long() -> String {
    let prompts: Value = serde_json::from_str(include_str!("data/kl/prompts.json")).expect("JSON");
    let texts = prompts.as_array().expect("a list").iter();
    let texts: Vec<&str> = texts.map(|p| p["text"].as_str().expect("a text")).collect();
    texts.join("\n\n")
}

/// How the logits are computed.
struct Run {
    level: &'static str,
    threads: usize,
    batch: usize,
}

/// The digest of the logits of all positions, as `siskin logits --sha256` prints it.
fn digest(model: &RealModel, text: &str, run: &Run) -> String {
    let options = EngineOptions {
        level: Some(run.level.to_string()),
        threads: Some(run.threads),
        ..EngineOptions::default()
    };
    let engine = Engine::load(&model.path, &options).unwrap_or_else(|e| panic!("{e}"));
    let options = EncodeOptions { add_special: true, parse_special: true };
    let tokens = engine.tokenizer().encode(text, options).expect("tokens");
    let options =
        SessionOptions { n_ctx: Some(1024), n_batch: run.batch, ..SessionOptions::default() };
    let mut session = Session::new(&engine, &options).unwrap_or_else(|e| panic!("{e}"));
    let mut digest = Sha256::new();
    let mut bytes: Vec<[u8; 4]> = Vec::new();
    let all = session.prefill_all(&tokens, |_, logits| {
        bytes.clear();
        bytes.extend(logits.iter().map(|x| x.to_le_bytes()));
        digest.update(bytes.as_flattened());
        Ok(())
    });
    all.unwrap_or_else(|e| panic!("{e}"));
    digest.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// The runs whose digest of the short text is compared with the recorded one.
fn runs() -> Vec<Run> {
    let levels = siskin::kernel_levels();
    if cfg!(target_arch = "x86_64") {
        let plain = |level| Run { level, threads: 2, batch: 512 };
        levels.into_iter().map(plain).collect()
    } else {
        // The best level alone where another machine may be emulated; .ci/run goes through CPUs.
        // Batches of 7 leave a remainder.
        levels.last().map(|level| Run { level, threads: 3, batch: 7 }).into_iter().collect()
    }
}

#[test]
fn real_models_give_the_recorded_bits_on_every_level() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/digests.json");
    let text = std::fs::read_to_string(&file).expect("the recording");
    let recorded: Value = serde_json::from_str(&text).expect("JSON");
    let record = std::env::var_os("SISKIN_RECORD").is_some();
    let long = long();
    let best = siskin::kernel_levels().pop().expect("a level");
    let mut compared = 0;
    let mut new = serde_json::Map::new();
    for model in folder::models() {
        let Some(name) = model.name else { continue };
        if record {
            let digest = |text| digest(&model, text, &Run { level: best, threads: 2, batch: 512 });
            new.insert(name.to_string(), json!({ "short": digest(SHORT), "long": digest(&long) }));
            continue;
        }
        for run in runs() {
            let got = digest(&model, SHORT, &run);
            let Run { level, threads, batch } = run;
            let how = format!("{level}, {threads} threads, batches of {batch}");
            assert_eq!(recorded["models"][name]["short"], got, "{name} on {how}");
        }
        compared += 1;
    }
    if record {
        assert_eq!(new.len(), folder::KNOWN.len(), "to record, all models must be at hand");
        let all = json!({ "short": SHORT, "long": long, "models": new });
        let text = serde_json::to_string_pretty(&all).expect("JSON") + "\n";
        std::fs::write(&file, text).expect("recorded");
        folder::say(&format!("{} is recorded anew", file.display()));
        return;
    }
    assert_eq!((&recorded["short"], &recorded["long"]), (&json!(SHORT), &json!(long)));
    folder::say(&format!("digests of {compared} real models are as recorded"));
}
