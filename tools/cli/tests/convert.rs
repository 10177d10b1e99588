//! `siskin convert`: what it writes, and what it leaves when it does not.

mod common;

use std::path::Path;

use common::{command, end, json, path, siskin};
use siskin::GgmlType;
use siskin::gguf::GgufFile;

fn checkpoint(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/checkpoints");
    path.join(name).to_str().expect("UTF-8").to_string()
}

#[test]
fn a_checkpoint_becomes_a_file_of_its_own_type() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = path(folder.path(), "out.gguf");
    let report = json(&siskin(&["convert", &checkpoint("llama"), &out, "--json"]));
    assert_eq!(report[0]["paths"][0].as_str(), Some(out.as_str()));
    let file = GgufFile::open(&out).expect("a file");
    let ty = |name: &str| file.tensor(name).expect("a tensor").ty;
    assert_eq!(ty("blk.0.attn_q.weight"), GgmlType::BF16);
    assert_eq!(ty("blk.0.attn_norm.weight"), GgmlType::F32);
    assert_eq!(file.metadata().u32("general.file_type").expect("a number"), Some(32));
}

#[test]
fn a_name_and_a_type_are_taken_and_a_file_is_not_replaced_unless_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = path(folder.path(), "out.gguf");
    let model = checkpoint("qwen2");
    let args = ["convert", &model, &out, "--type", "q8_0", "--name", "A Name"];
    let ended = siskin(&args);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let first = std::fs::read(&out).expect("a file");
    let file = GgufFile::open(&out).expect("a file");
    assert_eq!(file.metadata().str("general.name").expect("a string"), Some("A Name"));
    assert_eq!(file.tensor("blk.0.attn_q.weight").expect("a tensor").ty, GgmlType::Q8_0);
    let ended = siskin(&args);
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("out.gguf"), "{}", ended.stderr);
    let ended = siskin(&[&args[..], &["--force", "--threads", "1"]].concat());
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(std::fs::read(&out).expect("a file"), first);
}

#[test]
fn a_new_pre_tokenizer_is_told_and_broken_checkpoints_leave_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = path(folder.path(), "out.gguf");
    let ended = siskin(&["convert", &checkpoint("llama-bias"), &out, "--type", "f32"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("tokenizer.huggingface.json"), "{}", ended.stderr);

    let out = path(folder.path(), "none.gguf");
    let empty = folder.path().to_str().expect("UTF-8");
    let ended = siskin(&["convert", empty, &out]);
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("config.json"), "{}", ended.stderr);
    let lora = ["convert", &checkpoint("llama"), &out, "--lora", &format!("{empty}=x")];
    let ended = siskin(&lora);
    assert!(ended.code == 1 && ended.stderr.contains("--lora"), "{}", ended.stderr);
    assert!(!Path::new(&out).exists());
}

#[test]
fn a_gguf_file_will_do_for_a_checkpoint() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = path(folder.path(), "out.gguf");
    let ended = siskin(&["convert", &common::tiny("llama"), &out, "--type", "f16"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let file = GgufFile::open(&out).expect("a file");
    assert_eq!(file.tensor("blk.0.attn_q.weight").expect("a tensor").ty, GgmlType::F16);
}

/// A tensor of a safetensors file: name, type, shape, bytes.
type Tensor = (String, String, Vec<u64>, Vec<u8>);

fn write_safetensors(path: &Path, tensors: &[Tensor]) {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for (name, dtype, shape, bytes) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        let entry = serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": offsets});
        header.insert(name.clone(), entry);
        data.extend_from_slice(bytes);
    }
    let header = serde_json::Value::Object(header).to_string();
    let len = (header.len() as u64).to_le_bytes();
    std::fs::write(path, [&len, header.as_bytes(), &data].concat()).expect("a file");
}

fn floats(file: &GgufFile, name: &str) -> Vec<f32> {
    let bytes = file.tensor_data(file.tensor(name).expect("a tensor")).to_vec();
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

#[test]
fn an_adapter_is_merged_with_its_factor() {
    let folder = tempfile::tempdir().expect("a folder");
    let ones = |part: &str, shape: [u64; 2]| {
        let name = format!("base_model.model.model.layers.0.mlp.up_proj.{part}.weight");
        let bytes = 1f32.to_le_bytes().repeat((shape[0] * shape[1]) as usize);
        (name, "F32".to_string(), shape.to_vec(), bytes)
    };
    let tensors = [ones("lora_A", [1, 64]), ones("lora_B", [40, 1])];
    write_safetensors(&folder.path().join("adapter_model.safetensors"), &tensors);
    let config = r#"{"peft_type": "LORA", "r": 1, "lora_alpha": 1}"#;
    std::fs::write(folder.path().join("adapter_config.json"), config).expect("a file");
    let adapter = format!("{}=0.5", folder.path().display());
    let (plain, merged) = (path(folder.path(), "plain.gguf"), path(folder.path(), "merged.gguf"));
    let model = checkpoint("llama");
    let args = ["convert", &model, &plain, "--type", "f32"];
    assert_eq!(siskin(&args).code, 0);
    let ended = siskin(&["convert", &model, &merged, "--type", "f32", "--lora", &adapter]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let open = |path: &str| GgufFile::open(path).expect("a file");
    let (plain, merged) = (open(&plain), open(&merged));
    for (name, added) in [("blk.0.ffn_up.weight", 0.5), ("blk.0.ffn_gate.weight", 0.0)] {
        let want: Vec<f32> = floats(&plain, name).iter().map(|x| x + added).collect();
        assert_eq!(floats(&merged, name), want, "{name}");
    }
}

#[test]
fn without_a_name_the_file_is_named_after_the_model() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = |args: &[&str]| {
        let mut command = command(args);
        command.current_dir(folder.path()).env("SISKIN_HOME", folder.path().join("store"));
        end(command.spawn().expect("the command starts"))
    };
    let ended = run(&["convert", &checkpoint("llama")]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(folder.path().join("llama-bf16.gguf").is_file());
    // A model of the store is no path.
    std::fs::create_dir(folder.path().join("store")).expect("a folder");
    std::fs::copy(common::tiny("llama"), folder.path().join("store/kept.gguf")).expect("a file");
    let ended = run(&["convert", "kept.gguf", "--type", "q8_0"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(folder.path().join("kept-q8_0.gguf").is_file());
    // Nobody wants quantized weights in f32 without asking for it.
    let ended = run(&["convert", "kept-q8_0.gguf"]);
    assert_eq!(ended.code, 1);
    assert!(
        ended.stderr.contains("--type") && ended.stderr.contains("kept-q8_0"),
        "{}",
        ended.stderr
    );
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 3);
}

#[test]
fn eight_bit_weights_become_bf16() {
    let folder = tempfile::tempdir().expect("a folder");
    let from = checkpoint("qwen2");
    for entry in std::fs::read_dir(&from).expect("a folder") {
        let entry = entry.expect("a file");
        if entry.path().is_file() {
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).expect("a file");
        }
    }
    let weights = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&weights).expect("a file");
    let n = u64::from_le_bytes(*bytes.first_chunk().expect("8 bytes")) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + n]).expect("JSON");
    let header = header.as_object().expect("an object").iter();
    let tensors = header.filter(|(name, _)| *name != "__metadata__").map(|(name, entry)| {
        let at = |i: usize| entry["data_offsets"][i].as_u64().expect("a number") as usize + 8 + n;
        let shape = entry["shape"].as_array().expect("a shape").iter();
        let shape: Vec<u64> = shape.map(|n| n.as_u64().expect("a number")).collect();
        let mut data = bytes[at(0)..at(1)].to_vec();
        let mut dtype = entry["dtype"].as_str().expect("a type");
        if name.ends_with("down_proj.weight") {
            (dtype, data) = ("F8_E4M3", vec![0x38; shape.iter().product::<u64>() as usize]);
        }
        (name.clone(), dtype.to_string(), shape, data)
    });
    write_safetensors(&weights, &tensors.collect::<Vec<_>>());
    let out = path(folder.path(), "out.gguf");
    let ended = siskin(&["convert", folder.path().to_str().expect("UTF-8"), &out]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("bf16"), "{}", ended.stderr);
    let file = GgufFile::open(&out).expect("a file");
    assert_eq!(file.tensor("blk.0.ffn_down.weight").expect("a tensor").ty, GgmlType::BF16);
}

#[test]
fn one_step_and_two_make_the_same_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let [one, between, two] = ["one", "between", "two"].map(|name| path(folder.path(), name));
    for (model, more) in [("llama", &[][..]), ("gemma3", &["--calibrate", "full"])] {
        let model = checkpoint(model);
        let ok = |args: &[&str]| {
            let ended = siskin(&[args, &["--force"]].concat());
            assert_eq!(ended.code, 0, "{}", ended.stderr);
            std::fs::read(args[2]).expect("a file")
        };
        let first = ok(&[&["convert", &model, &one, "--type", "q4_0"], more].concat());
        ok(&["convert", &model, &between]);
        assert!(first == ok(&[&["quantize", &between, &two, "q4_0"], more].concat()));
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 3);
}
