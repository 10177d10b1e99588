//! `siskin convert`: what it writes, and what it leaves when it does not.

mod common;

use std::path::Path;

use common::{json, siskin};
use siskin::GgmlType;
use siskin::gguf::GgufFile;

fn checkpoint(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/checkpoints");
    path.join(name).to_str().expect("UTF-8").to_string()
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().expect("UTF-8").to_string()
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
