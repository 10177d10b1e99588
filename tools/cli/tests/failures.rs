//! What goes wrong: the exit code, and what is said on standard error.

mod common;

use std::process::Stdio;

use common::{command, end, file, siskin, siskin_with, tiny, variant};

#[test]
fn a_bad_file_is_named_with_the_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = std::fs::read(tiny("llama")).expect("a model");
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_string();
    std::fs::create_dir(folder.path().join("folder.gguf")).expect("a folder");
    let cases = [
        (file(folder.path(), "page.gguf", "<!DOCTYPE html><html></html>"), "HTML"),
        (file(folder.path(), "cut.gguf", &model[..model.len() / 2]), "byte"),
        (file(folder.path(), "head.gguf", &model[..100]), "byte"),
        (file(folder.path(), "empty.gguf", ""), "empty"),
        (file(folder.path(), "noise.gguf", [7; 5000]), "GGUF"),
        (path("folder.gguf"), "directory"),
        (path("missing.gguf"), "no such file"),
    ];
    for (path, reason) in &cases {
        for args in [
            ["run", "hello", "-m", path],
            ["tokenize", "hello", "-m", path],
            ["logits", "-phello", "-m", path],
            ["perplexity", "-f=/dev/null", "-m", path],
            ["bench", "-r1", "-m", path],
            ["chat", "--no-history", "-m", path],
            ["inspect", "--json", "--", path],
        ] {
            let ended = siskin(&args);
            assert_eq!(ended.code, 1, "{args:?}: {}", ended.stderr);
            assert_eq!(ended.stdout, "", "{args:?}");
            let text = ended.stderr.to_lowercase();
            assert!(text.starts_with("error: ") && text.contains(&path.to_lowercase()), "{text}");
            assert!(text.contains(&reason.to_lowercase()), "{args:?}: no {reason} in {text}");
        }
    }
}

#[test]
fn wrong_usage_ends_with_2() {
    let cases: &[(&[&str], &str)] = &[
        (&[], "Usage"),
        (&["fly"], "fly"),
        (&["run", "--wings"], "--wings"),
        (&["run", "-n", "many", "x"], "many"),
        (&["run", "-n", "-2", "x"], "-2"),
        (&["run", "--seed", "-5", "x"], "-5"),
        (&["run", "--samplers", "top_k;luck", "x"], "luck"),
        (&["run", "--mem", "4X", "x"], "X"),
        (&["run", "--cache-type", "q9_0", "x"], "q8_0"),
        (&["run", "--logit-bias", "15043", "x"], "15043+1"),
        (&["tokenize", "a", "-f", "b"], "-f"),
        (&["logits", "-p", "a", "-f", "b"], "-f"),
        (&["logits", "-p", "a", "--tokens", "1"], "--tokens"),
        (&["perplexity"], "--file"),
        (&["bench", "--type", "q8_0"], "--shape"),
        (&["bench", "--shape", "llama-1b", "-m", "x"], "--model"),
        (&["completions", "dos"], "bash"),
        (&["pull"], "NAME"),
    ];
    for (args, word) in cases {
        let ended = siskin(args);
        assert_eq!(ended.code, 2, "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(word), "{args:?}: no {word} in {}", ended.stderr);
    }
}

#[test]
fn what_cannot_be_done_ends_with_1() {
    let model = tiny("llama");
    let long = "he".repeat(300);
    let cases: &[(&[&str], &[&str])] = &[
        (&["run"], &["prompt is empty", "--raw"]),
        (&["run", " \n"], &["prompt is empty"]),
        (&["run", "--raw", ""], &["no tokens"]),
        (&["run", "-f", "/nonexistent/a.txt"], &["/nonexistent/a.txt"]),
        (&["run", &long], &["context is full", "256"]),
        (&["run", "-c", "100000", "x"], &["100000", "256"]),
        (&["run", "--mem", "100K", "x"], &["weights", "KV cache", "0.1 MiB", "limit"]),
        (&["run", "--top-p", "2", "x"], &["top_p", "from 0 to 1"]),
        (&["run", "--mirostat", "1", "x"], &["mirostat", "2"]),
        (&["run", "--cpu", "z80", "x"], &["z80", "scalar"]),
        (&["run", "-t", "0", "x"], &["threads"]),
        (&["run", "--pre", "x", "x"], &["--pre NAME", "gpt-2"]),
        (&["logits"], &["--prompt", "--tokens"]),
        (&["logits", "--tokens", "5,96"], &["96"]),
        (&["logits", "-p", "x", "--dump", "/nonexistent/d"], &["/nonexistent/d"]),
        (&["perplexity", "-f", "/dev/null"], &["/dev/null", "0 tokens", "512"]),
        (&["perplexity", "-f", "/dev/null", "-c", "2"], &["--ctx 2"]),
        (&["bench", "-p", "0", "-n", "0"], &["nothing to measure"]),
    ];
    for (args, words) in cases {
        let ended = siskin(&[args, &["-m", &model][..]].concat());
        assert_eq!(ended.code, 1, "{args:?}: {}", ended.stderr);
        for word in *words {
            assert!(ended.stderr.contains(word), "{args:?}: no {word} in {}", ended.stderr);
        }
    }
    let shape = siskin(&["bench", "--shape", "llama-9b"]);
    assert!(shape.code == 1 && shape.stderr.contains("llama-8b"), "{}", shape.stderr);
    let unknown = siskin(&["run", "-m", "no-such-model", "x"]);
    assert!(unknown.code == 1 && unknown.stderr.contains("smollm2-135m"), "{}", unknown.stderr);
    let bytes = siskin_with(&["tokenize", "-m", &model, "-f", &model], "");
    assert!(bytes.code == 1 && bytes.stderr.contains("not UTF-8"), "{}", bytes.stderr);
}

#[test]
fn a_model_without_a_template_says_what_can_be_done() {
    for (name, family) in [("gemma3", "perhaps gemma"), ("qwen2", "perhaps chatml"), ("llama", "")]
    {
        let ended = siskin(&["chat", "-m", &tiny(name)]);
        assert_eq!(ended.code, 1);
        for word in [&format!("{name}.gguf"), "siskin run", "--chat-template", "mistral-v7", family]
        {
            assert!(ended.stderr.contains(word), "no {word} in {}", ended.stderr);
        }
        assert!(ended.stderr.lines().skip(1).all(|line| line.len() <= 100), "{}", ended.stderr);
    }
    let ended = siskin(&["run", "-m", &tiny("llama"), "--chat-template", "none", "x"]);
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("--chat-template none: "), "{}", ended.stderr);
    assert!(ended.stderr.contains("\n  ") && ended.stderr.contains("chatml"), "{}", ended.stderr);
}

#[test]
fn a_template_that_fails_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in [("parse", "{% if %}"), ("fails", "{{ raise_exception('not today') }}")] {
        let path = file(folder.path(), name, text);
        let ended = siskin(&["run", "-m", &tiny("llama"), "--chat-template", &path, "x"]);
        assert_eq!(ended.code, 1, "{name}");
        assert!(ended.stderr.contains("chat template"), "{}", ended.stderr);
    }
}

/// A reader of the first line only.
#[cfg(unix)]
#[test]
fn a_reader_that_leaves_is_no_error() {
    use std::io::{BufRead, BufReader};
    let model = tiny("gemma3-27b");
    let text = "he".repeat(200);
    for args in [
        &["logits", "-m", &model, "-p", &text, "--batch", "4"][..],
        &["run", "-m", &model, "--raw", "--ignore-eos", "--special", "he"],
        &["inspect", &model, "--tensors"],
        &["completions", "bash"],
    ] {
        let mut child = command(args).spawn().expect("the command starts");
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        match args[0] {
            "run" => assert!(!out.fill_buf().expect("read").is_empty()),
            _ => assert!(out.read_line(&mut String::new()).expect("read") > 0),
        }
        drop(out);
        let ended = end(child);
        assert_eq!(ended.code, 0, "{args:?}: {}", ended.stderr);
        assert!(!ended.stderr.contains("error"), "{args:?}: {}", ended.stderr);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a device");
    let child = command(&["tokenize", "-m", &tiny("llama"), "he"]).stdout(full).spawn();
    let ended = end(child.expect("the command starts"));
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("standard output"), "{}", ended.stderr);
}

/// With a prompt on the command line nothing else is waited for.
#[test]
fn an_open_pipe_is_not_waited_for() {
    let model = tiny("llama");
    let args = ["run", "-m", &model, "--raw", "-n", "1", "he"];
    let mut child = command(&args).stdin(Stdio::piped()).spawn().expect("the command starts");
    let open = child.stdin.take();
    let ended = end(child);
    drop(open);
    assert_eq!((ended.code, &*ended.stderr), (0, ""));
}

#[cfg(unix)]
#[test]
fn what_is_not_read_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = tiny("llama");
    let args = ["run", "-m", &model, "--raw", "-n", "1", "he"];
    let (from, mut to) = std::io::pipe().expect("a pipe");
    std::io::Write::write_all(&mut to, b"hello").expect("written");
    let text = file(folder.path(), "text.txt", "hello");
    let text = std::fs::File::open(text).expect("a file");
    let empty = std::fs::File::open(file(folder.path(), "empty.txt", "")).expect("a file");
    for (stdin, said) in [(Stdio::from(from), true), (text.into(), true), (empty.into(), false)] {
        let ended = end(command(&args).stdin(stdin).spawn().expect("the command starts"));
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        assert_eq!(ended.stderr.contains("-f -"), said, "{}", ended.stderr);
    }
}

#[test]
fn a_context_that_memory_shortens_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = variant(folder.path(), &["llama.context_length"], |b| {
        b.put("llama.context_length", &4096u32)
    });
    let path = path.to_str().expect("UTF-8");
    let args = ["run", "-m", path, "--raw", "-n", "1", "--json", "he"];
    let whole = siskin(&args);
    assert_eq!((&common::json(&whole)[0]["ctx"], &*whole.stderr), (&4096.into(), ""));
    let plan = &common::json(&siskin(&["inspect", "--json", "-c", "1024", path]))[0]["memory"];
    let limit = (plan["total"].as_u64().expect("a number") + 1024).to_string();
    let ended = siskin(&[&args[..], &["-v", "--mem", &limit]].concat());
    assert_eq!(common::json(&ended)[0]["ctx"], 1024);
    for word in ["1024 positions, not 4096", "--mem", "context 1024;"] {
        assert!(ended.stderr.contains(word), "no {word} in {}", ended.stderr);
    }
    // A context that was asked for is not shortened.
    let ended = siskin(&[&args[..], &["-c", "4096", "--mem", &limit]].concat());
    assert!(ended.code == 1 && ended.stderr.contains("more than the limit"), "{}", ended.stderr);
}

#[test]
fn a_store_is_checked() {
    let folder = tempfile::tempdir().expect("a folder");
    let list = |args: &[&str]| {
        let all = [&["list"], args].concat();
        end(command(&all).env("SISKIN_HOME", folder.path()).spawn().expect("the command starts"))
    };
    std::fs::copy(tiny("llama"), folder.path().join("mine.gguf")).expect("copied");
    let ended = list(&["--check", "--json"]);
    let all: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let find = |all: &serde_json::Value, name: &str| {
        all.as_array().expect("a list").iter().find(|e| e["name"] == name).cloned().expect(name)
    };
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(find(&all, "mine.gguf")["check"], "unknown");
    assert!(find(&all, "smollm2-135m").get("check").is_none());

    // As long as the model, with other bytes.
    let entry = find(&all, "smollm2-135m");
    let fake = std::fs::File::create(entry["path"].as_str().expect("a path")).expect("a file");
    fake.set_len(entry["bytes"].as_u64().expect("a number")).expect("a size");
    file(folder.path(), "mine.gguf", "GGUF");
    assert_eq!(list(&[]).code, 0);
    let ended = list(&["--check"]);
    assert_eq!(ended.code, 1, "{}", ended.stdout);
    assert!(ended.stdout.contains("damaged  SmolLM2"), "{}", ended.stdout);
    assert!(ended.stderr.contains("damaged: smollm2-135m, mine.gguf"), "{}", ended.stderr);

    // Which is fetched again; here nothing can be reached.
    let pull = command(&["pull", "smollm2-135m"])
        .env("SISKIN_HOME", folder.path())
        .env("PATH", "")
        .env("HF_ENDPOINT", "http://127.0.0.1:9")
        .spawn();
    let ended = end(pull.expect("the command starts"));
    assert_eq!(ended.code, 1);
    for word in ["is damaged and is fetched again", "was not fetched"] {
        assert!(ended.stderr.contains(word), "no {word} in {}", ended.stderr);
    }
}
