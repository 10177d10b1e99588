//! What the tests of the command share.
#![allow(dead_code, reason = "no test uses all of it")]

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use siskin::gguf::{Builder, ByteOrder, GgufFile, TensorInfo};
use siskin_quant::formats;

/// A command that finds no model store, so that nothing can be fetched by mistake.
pub fn command(args: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_siskin"));
    command
        .args(args)
        .env("SISKIN_HOME", "/nonexistent/siskin")
        .env_remove("SISKIN_CPU")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// How a command ended.
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command; it may not take longer than two minutes.
pub fn end(mut child: Child) -> Ended {
    let reader = |from: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            from.map(|mut from| from.read_to_end(&mut bytes)).transpose().expect("a readable pipe");
            String::from_utf8(bytes).expect("UTF-8")
        })
    };
    let stdout = reader(child.stdout.take().map(|o| Box::new(o) as Box<dyn Read + Send>));
    let stderr = reader(child.stderr.take().map(|e| Box::new(e) as Box<dyn Read + Send>));
    let deadline = Instant::now() + Duration::from_secs(120);
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().expect("a child");
            panic!("it does not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Ended {
        code: status.code().expect("an exit code"),
        stdout: stdout.join().expect("no panic"),
        stderr: stderr.join().expect("no panic"),
    }
}

/// Runs a command with nothing on standard input.
pub fn siskin(args: &[impl AsRef<OsStr>]) -> Ended {
    end(command(args).spawn().expect("the command starts"))
}

/// Runs a command with a text on standard input.
pub fn siskin_with(args: &[impl AsRef<OsStr>], stdin: &str) -> Ended {
    let mut child = command(args).stdin(Stdio::piped()).spawn().expect("the command starts");
    let mut to = child.stdin.take().expect("a pipe");
    // Who does not read it needs none of it.
    let _ = to.write_all(stdin.as_bytes());
    drop(to);
    end(child)
}

/// The lines of JSON that a successful command prints.
pub fn json(ended: &Ended) -> Vec<serde_json::Value> {
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    ended.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// A tiny model with random weights: `llama`, `gemma3`, ... Its vocabulary is letters.
pub fn tiny(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/archs");
    path.join(format!("{name}.gguf")).to_str().expect("UTF-8").to_string()
}

/// Writes a tiny model with other metadata: `put` adds it, in place of the keys in `without`.
pub fn variant(
    folder: &Path,
    without: &[&str],
    put: impl FnOnce(&mut Builder) -> siskin::Result<()>,
) -> PathBuf {
    let path = folder.join("variant.gguf");
    rewrite(&path, Builder::new(), without, put, |_, _| ()).expect("written");
    path
}

/// Writes a tiny model with a tensor whose first weight is `weight`.
pub fn with_weight(folder: &Path, tensor: &str, weight: f32) -> PathBuf {
    let path = folder.join("weight.gguf");
    let change = |t: &TensorInfo, data: &mut [u8]| {
        if t.name == tensor {
            data[..4].copy_from_slice(&weight.to_le_bytes());
        }
    };
    rewrite(&path, Builder::new(), &[], |_| Ok(()), change).expect("written");
    path
}

/// Writes the tiny model `llama` in the other byte order.
pub fn big_endian(path: &Path) {
    let builder = Builder::with_format(3, ByteOrder::Big).expect("a format");
    let change = |t: &TensorInfo, data: &mut [u8]| {
        formats::swap_bytes(t.ty, data).expect("whole blocks");
    };
    rewrite(path, builder, &[], |_| Ok(()), change).expect("written");
}

/// Writes the tiny model `llama` anew, with some changes.
fn rewrite(
    path: &Path,
    mut builder: Builder,
    without: &[&str],
    put: impl FnOnce(&mut Builder) -> siskin::Result<()>,
    change: impl Fn(&TensorInfo, &mut [u8]),
) -> siskin::Result<()> {
    let from = GgufFile::open(tiny("llama"))?;
    builder.copy(from.metadata(), |key| !without.contains(&key))?;
    put(&mut builder)?;
    for t in from.tensors() {
        builder.tensor(&t.name, t.ty, &t.shape)?;
    }
    let mut writer = builder.create(path)?;
    for t in from.tensors() {
        let mut data = from.tensor_data(t).to_vec();
        change(t, &mut data);
        writer.tensor(&t.name, &data)?;
    }
    writer.commit()
}

/// The path of a file in a folder.
pub fn path(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().expect("UTF-8").to_string()
}

/// Writes a file into a folder and returns its path.
pub fn file(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) -> String {
    let path = folder.join(name);
    File::create(&path).and_then(|mut f| f.write_all(bytes.as_ref())).expect("a file");
    path.to_str().expect("UTF-8").to_string()
}
