//! How much memory the command takes, and what it says when there is none. On a tiny model that
//! claims a context of a million positions, whose cache is 256 MiB.

#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use siskin::gguf::{Builder, GgufFile};

const N_CTX: u32 = 1 << 20;

/// Writes the model; the folder goes when it is dropped.
fn model() -> (tempfile::TempDir, PathBuf) {
    const KEY: &str = "llama.context_length";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/archs/llama.gguf");
    let file = GgufFile::open(path).expect("a model");
    let mut builder = Builder::new();
    builder.copy(file.metadata(), |key| key != KEY).expect("metadata");
    builder.put(KEY, &N_CTX).expect("a key");
    for t in file.tensors() {
        builder.tensor(&t.name, t.ty, &t.shape).expect("a tensor");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let target = folder.path().join("long.gguf");
    let mut writer = builder.create(&target).expect("a file");
    for t in file.tensors() {
        writer.tensor(&t.name, file.tensor_data(t)).expect("data");
    }
    writer.commit().expect("written");
    (folder, target)
}

/// `siskin run` for one token, in a shell that has done `before`.
fn run(model: &Path, n_ctx: u32, before: &str, option: Option<&str>) -> Output {
    Command::new("sh")
        .arg("-c")
        .arg(format!("{before} exec \"$@\""))
        .args(["sh", env!("CARGO_BIN_EXE_siskin"), "run", "--raw", "--json", "-t", "2"])
        .args(option)
        .args(["-n", "1", "--ignore-eos", "-c", &n_ctx.to_string(), "-m"])
        .args([model.as_os_str(), "the".as_ref()])
        .stdin(Stdio::null())
        .output()
        .expect("a shell")
}

fn peak(model: &Path, n_ctx: u32) -> u64 {
    let output = run(model, n_ctx, "", None);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
    answer["peak_memory_bytes"].as_u64().expect("Linux tells")
}

#[test]
fn a_long_context_takes_memory_only_as_it_is_used() {
    let thp = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    if thp.is_ok_and(|mode| mode.contains("[always]")) {
        eprintln!("SKIPPED: this system makes every page a huge one");
        return;
    }
    let (_folder, model) = model();
    let (long, short) = (peak(&model, N_CTX), peak(&model, 512));
    assert!(long < short + (8 << 20), "{long} bytes, and {short} with a short context");
}

#[test]
fn memory_that_is_refused_is_an_error() {
    let (_folder, model) = model();
    let mut refused = 0;
    // From hardly enough for the program itself to enough for all.
    for mib in (40..480).step_by(20) {
        let output = run(&model, N_CTX, &format!("ulimit -v {};", mib << 10), None);
        let text = String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            Some(0) => {}
            Some(1) => {
                assert!(text.contains("error:") && !text.contains("panicked"), "{mib} MiB: {text}");
                refused += usize::from(text.contains("allocated") && text.contains("KV cache"));
            }
            // So little that it does not even start.
            Some(127) if mib < 100 => {}
            other => panic!("{mib} MiB: {other:?}: {text}"),
        }
    }
    assert!(refused > 0, "no limit was too low for the cache");
}

#[test]
fn files_can_be_read_ahead_and_locked() {
    let (_folder, model) = model();
    let output = run(&model, 64, "", Some("--prefault"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = run(&model, 64, "ulimit -l 0;", Some("--mlock"));
    // Who is root may lock what there is.
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1));
        assert!(text.contains("long.gguf") && text.contains("(ulimit -l) is 0 bytes"), "{text}");
    }
}
