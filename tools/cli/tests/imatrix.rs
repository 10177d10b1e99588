//! `siskin imatrix`: the file that it writes, and what it leaves when it does not.

mod common;

use std::path::Path;

use common::{file, json, path, siskin, tiny};
use siskin::gguf::GgufFile;
use siskin::{EncodeOptions, Engine, EngineOptions, Session, SessionOptions};
use siskin_convert::Imatrix;

fn text(folder: &Path) -> String {
    file(folder, "text.txt", "He thanked the hen in the inn, then ran on and on. ".repeat(4))
}

/// Runs `siskin imatrix` and returns what it printed.
fn imatrix(args: &[&str]) -> String {
    let ended = siskin(&[&["imatrix"], args].concat());
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    ended.stdout
}

/// What a session collects of each chunk by itself.
fn by_hand(model: &str, text: &str, n_ctx: usize, chunks: usize) -> Imatrix {
    let engine = Engine::load(model, &EngineOptions::default()).expect("a model");
    let text = std::fs::read_to_string(text).expect("a text");
    let encode = EncodeOptions { add_special: true, parse_special: false };
    let tokens = engine.tokenizer().encode(&text, encode).expect("tokens");
    let mut imatrix = Imatrix::new("by hand", n_ctx as u32);
    for chunk in tokens.chunks_exact(n_ctx).take(chunks) {
        let mut session = Session::new(&engine, &SessionOptions::default()).expect("a session");
        session.collect_imatrix(siskin::model::ImatrixOptions::default()).expect("memory");
        session.prefill(chunk).expect("logits");
        imatrix.add_collected(session.take_imatrix().expect("sums")).expect("finite sums");
    }
    imatrix
}

#[test]
fn the_chunks_of_a_text_are_added_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let (text, model) = (text(folder.path()), tiny("gemma3"));
    let out = path(folder.path(), "out.gguf");
    let printed = imatrix(&["-m", &model, "-f", &text, "-o", &out, "-c", "32", "--chunks", "3"]);
    assert_eq!(printed, format!("{out}: 49 tensors, 3 chunks of 32 tokens\n"));
    let (got, want) = (Imatrix::open(&out).expect("a file"), by_hand(&model, &text, 32, 3));
    assert_eq!(got.entries().len(), want.entries().len());
    for ((name, got), (same, want)) in got.entries().zip(want.entries()) {
        assert_eq!((name, got.counts()), (same, &[96][..]));
        assert_eq!(got.counts(), want.counts());
        // Rounded after each chunk there, once here.
        for (a, b) in got.sums().iter().zip(want.sums()) {
            assert!((a / b - 1.0).abs() < 1e-6, "{name}: {a}, {b}");
        }
    }
    assert_eq!((got.chunk_count(), got.chunk_size()), (3, 32));
    assert_eq!(got.datasets, ["text.txt"]);
}

#[test]
fn the_same_text_gives_the_same_bytes() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = text(folder.path());
    for model in ["llama", "qwen2-untied"].map(tiny) {
        let run = |name: &str, options: &[&str]| {
            let out = path(folder.path(), name);
            let args = ["-m", &model, "-f", &text, "-o", &out, "-c", "40", "--force"];
            imatrix(&[&args, options].concat());
            std::fs::read(out).expect("a file")
        };
        for output in [&[][..], &["--process-output"]] {
            let want = run("a.gguf", &[output, &["-t", "1", "--cpu", "scalar"]].concat());
            assert!(run("b.gguf", &[output, &["-t", "3"]].concat()) == want);
            assert!(run("c.gguf", &[output, &["-t", "2", "-b", "7"]].concat()) == want);
        }
    }
}

#[test]
fn the_output_matrix_is_measured_on_demand() {
    let folder = tempfile::tempdir().expect("a folder");
    let (text, model) = (text(folder.path()), tiny("qwen2-untied"));
    for (options, want) in [(&[][..], None), (&["--process-output"], Some(vec![32]))] {
        let out = path(folder.path(), "out.gguf");
        let args = ["-m", &model, "-f", &text, "-o", &out, "-c", "32", "--chunks", "1", "--force"];
        imatrix(&[&args, options].concat());
        let imatrix = Imatrix::open(&out).expect("a file");
        let output = imatrix.entries().find(|(name, _)| *name == "output.weight");
        assert_eq!(output.map(|(_, entry)| entry.counts().to_vec()), want);
    }
}

#[test]
fn files_are_merged_with_and_without_a_text() {
    let folder = tempfile::tempdir().expect("a folder");
    let (text, model) = (text(folder.path()), tiny("llama"));
    let [a, b, c] = ["a.gguf", "b.gguf", "c.gguf"].map(|name| path(folder.path(), name));
    imatrix(&["-m", &model, "-f", &text, "-o", &a, "-c", "32", "--chunks", "2"]);
    let args = ["-m", &model, "-f", &text, "--in", &a, "-o", &b, "-c", "32", "--chunks", "2"];
    imatrix(&args);
    imatrix(&["--in", &a, "--in-file", &a, "-o", &c]);
    let [a, b, c] = [a, b, c].map(|path| Imatrix::open(path).expect("a file"));
    assert!(b.entries().eq(c.entries()));
    assert_eq!((b.chunk_count(), c.chunk_count(), c.chunk_size()), (4, 4, 32));
    assert_eq!(c.datasets, ["text.txt", "text.txt"]);
    for ((name, once), (_, twice)) in a.entries().zip(b.entries()) {
        assert_eq!(once.means(), twice.means(), "{name}");
    }
}

#[test]
fn a_file_is_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let (text, model) = (text(folder.path()), tiny("llama"));
    let out = path(folder.path(), "out.gguf");
    let got = json(&siskin(&[
        "imatrix", "-m", &model, "-f", &text, "-o", &out, "-c", "32", "--chunks", "2", "--json",
    ]));
    assert_eq!((&got[0]["tensors"], &got[0]["chunks"]), (&14.into(), &2.into()));
    let shown = imatrix(&["--show", &out]);
    let row = shown.lines().find(|l| l.starts_with("blk.1.ffn_down.weight")).expect("a row");
    assert_eq!(row.split_whitespace().nth(1), Some("40"), "{row}");
    assert_eq!(row.split_whitespace().nth(2), Some("64"), "{row}");
    let got = json(&siskin(&["imatrix", "--show", &out, "--json"])).remove(0);
    let tensors = got["tensors"].as_array().expect("a list");
    assert_eq!(tensors.len(), 14);
    let imatrix = Imatrix::open(&out).expect("a file");
    for (shown, (name, entry)) in tensors.iter().zip(imatrix.entries()) {
        assert_eq!(shown["name"], name);
        assert_eq!(shown["sum"], entry.statistics().sum);
    }
}

#[test]
fn which_columns_are_used_together_is_kept_told_and_left_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let (short, model) = (text(folder.path()), tiny("llama"));
    let long = file(folder.path(), "long.txt", "He thanked the hen in the inn. ".repeat(100));
    let [a, plain, sum] = ["a.gguf", "plain.gguf", "sum.gguf"].map(|n| path(folder.path(), n));
    let run = |args: &[&str]| {
        let ended = siskin(&[&["imatrix"], args, &["-c", "128", "--force"]].concat());
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        ended.stderr
    };
    let told = |stderr: &str| stderr.contains("used together");
    let sketched = |path: &str| {
        let shown = json(&siskin(&["imatrix", "--show", path, "--json"])).remove(0);
        let tensors = shown["tensors"].as_array().expect("a list").clone();
        let n = tensors.iter().filter(|tensor| tensor["sketch"] == true).count();
        let rows = imatrix(&["--show", path]).lines().filter(|l| l.ends_with("sketch")).count();
        assert_eq!(rows, n);
        (n, tensors.len())
    };
    let collect = |text: &str, out: &str, more: &[&str]| {
        run(&[&["-m", &model, "-f", text, "-o", out], more].concat())
    };
    assert!(told(&collect(&short, &a, &["--chunks", "1"])), "too little text");
    assert!(!told(&collect(&long, &a, &[])));
    assert_eq!(sketched(&a), (14, 14));
    assert!(!told(&collect(&long, &plain, &["--no-sketch"])));
    assert_eq!(sketched(&plain), (0, 14));
    assert!(told(&run(&["--in", &a, "--in", &plain, "-o", &sum])));
    assert_eq!(sketched(&sum), (0, 14));
    assert!(!told(&run(&["--in", &a, "--in", &a, "-o", &sum])));
    assert_eq!(sketched(&sum), (14, 14));
    run(&["--in", &a, "-o", &sum, "--no-sketch"]);
    assert_eq!(sketched(&sum), (0, 14));

    // A file of the same size, but another.
    let outs = [&a, &plain].map(|matrix| {
        let out = path(folder.path(), "out.gguf");
        let args = ["quantize", &model, &out, "q4_0", "--imatrix", matrix, "--force"];
        let ended = siskin(&[&args[..], &["--calibrate", "none", "--json"]].concat());
        assert_eq!(json(&ended)[0]["sketches"].is_null(), matrix == &plain);
        let file = GgufFile::open(&out).expect("a file");
        let bytes = |t| file.tensor_data(t).to_vec();
        file.tensors().iter().map(bytes).collect::<Vec<_>>()
    });
    let [with, without] = outs;
    assert!(with.iter().map(Vec::len).eq(without.iter().map(Vec::len)));
    assert!(with != without);
}

#[test]
fn what_is_wrong_is_told_before_the_work() {
    let folder = tempfile::tempdir().expect("a folder");
    let (text, model) = (text(folder.path()), tiny("llama"));
    let there = file(folder.path(), "there.gguf", "not touched");
    let new = path(folder.path(), "new.gguf");
    let cases: [(&[&str], i32, &str); 6] = [
        (&["-f", &text, "-o", &there], 1, "--force replaces it"),
        (&["-o", &new], 1, "nothing to do"),
        (&["-f", &text], 2, "--output"),
        (&["-f", &text, "-o", "/nonexistent/x.gguf"], 1, "/nonexistent"),
        (&["-f", &text, "-o", &new, "--in", &there], 1, "no importance matrix"),
        (&["-f", &text, "-o", &new, "-c", "250"], 1, "less than one chunk of 250"),
    ];
    for (args, code, want) in cases {
        let ended = siskin(&[&["imatrix", "-m", &model][..], args].concat());
        assert_eq!(ended.code, code, "{}", ended.stdout);
        assert!(ended.stderr.contains(want), "{}", ended.stderr);
    }
    assert_eq!(std::fs::read(&there).expect("a file"), b"not touched");
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 2);
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_leaves_nothing() {
    use std::time::Duration;

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    let folder = tempfile::tempdir().expect("a folder");
    let long = "He thanked the hen in the inn, then ran on and on. ".repeat(20_000);
    let text = file(folder.path(), "text.txt", long);
    let out = path(folder.path(), "out.gguf");
    let model = tiny("llama");
    let args = ["imatrix", "-m", &model, "-f", &text, "-o", &out, "-c", "256"];
    let mut child = common::command(&args).spawn().expect("the command starts");
    std::thread::sleep(Duration::from_millis(700));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("a process");
    // Before the handler is there, the signal itself ends the process.
    let status = child.wait().expect("an end");
    assert!(!status.success());
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
}
