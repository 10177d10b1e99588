//! What each subcommand prints, on tiny models: nothing is fetched.

mod common;

use common::{command, end, file, json, siskin, siskin_with, tiny, variant};
use serde_json::{Value, json};

/// Runs `siskin TOKENIZE`, with the model between the first argument and the rest.
fn with_model(name: &str, args: &[&str]) -> Vec<String> {
    let model = tiny(name);
    let (first, rest) = args.split_first().expect("a subcommand");
    let all = [first, "-m", &model].into_iter().chain(rest.iter().copied());
    all.map(String::from).collect()
}

#[test]
fn tokenize_prints_ids() {
    let cases: &[(&[&str], &str, &str)] = &[
        (&["tokenize", "hello"], "", "87 15 15 18\n"),
        (&["tokenize", "<s>hello</s>"], "", "0 87 15 15 18 1\n"),
        (&["tokenize", "--no-special", "<s>"], "", "81 22 82\n"),
        (&["tokenize", "--no-bos", "hello"], "", "87 15 15 18\n"),
        (&["tokenize", "--pre", "llama-bpe", "12"], "", "57 58\n"),
        (&["tokenize", "--", "-n"], "", "76 17\n"),
        (&["tokenize", "-"], "he", "87\n"),
        (&["tokenize"], "he", "87\n"),
        (&["tokenize", "-f", "-"], "he", "87\n"),
        (&["tokenize", ""], "", "\n"),
    ];
    for (args, stdin, want) in cases {
        let ended = siskin_with(&with_model("llama", args), stdin);
        assert_eq!((ended.code, &*ended.stdout), (0, *want), "{args:?}: {}", ended.stderr);
    }
    let ended = siskin(&with_model("llama", &["tokenize", "--json", "the <s>"]));
    let want = json!({ "ids": [86, 8, 2, 0], "pieces": ["th", "e", " ", "<s>"] });
    assert_eq!(json(&ended), [want]);
}

#[test]
fn tokenize_adds_what_the_model_wants() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = variant(folder.path(), &["tokenizer.ggml.add_bos_token"], |b| {
        b.put("tokenizer.ggml.add_bos_token", &true)?;
        b.put("tokenizer.ggml.add_eos_token", &true)
    });
    let text = file(folder.path(), "text.txt", "he");
    let path = path.to_str().expect("UTF-8");
    let with = siskin(&["tokenize", "-m", path, "-f", &text]);
    assert_eq!(with.stdout, "0 87 1\n", "{}", with.stderr);
    assert_eq!(siskin(&["tokenize", "-m", path, "--no-bos", "he"]).stdout, "87\n");
}

#[test]
fn a_vocabulary_alone_is_enough_to_tokenize_and_inspect() {
    let folder = tempfile::tempdir().expect("a folder");
    let from = siskin::gguf::GgufFile::open(tiny("llama")).expect("a model");
    let path = folder.path().join("vocab.gguf");
    let mut builder = siskin::gguf::Builder::new();
    builder.copy(from.metadata(), |key| key.starts_with("tokenizer.")).expect("copied");
    builder.create(&path).and_then(|writer| writer.commit()).expect("written");
    let path = path.to_str().expect("UTF-8");
    assert_eq!(siskin(&["tokenize", "-m", path, "he"]).stdout, "87\n");
    let ended = siskin(&["inspect", path]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stdout.contains("Cannot be run: "), "{}", ended.stdout);
}

#[test]
fn logits_has_a_line_for_each_position() {
    let ended = siskin(&with_model("llama", &["logits", "--tokens", "5,6,7", "--top", "3"]));
    let lines = json(&ended);
    assert_eq!(lines.len(), 3);
    for (pos, line) in lines.iter().enumerate() {
        assert_eq!(line["pos"], pos);
        assert_eq!(line["token"], 5 + pos);
        let top = line["top"].as_array().expect("a list");
        let logprob = |pair: &Value| pair[1].as_f64().expect("a number");
        assert!(top.len() == 3 && top.iter().all(|pair| pair[0].is_u64()), "{line}");
        assert!(logprob(&top[0]) < 0.0 && logprob(&top[0]) >= logprob(&top[1]), "{line}");
    }
    // All of them are a distribution.
    let ended = siskin(&with_model("llama", &["logits", "-p", "he", "--top", "1000"]));
    let top = &json(&ended)[0]["top"];
    let all: f64 =
        top.as_array().expect("a list").iter().flat_map(|p| p[1].as_f64()).map(f64::exp).sum();
    assert!((all - 1.0).abs() < 1e-6, "{all}");
}

#[test]
fn logits_prints_a_digest_of_what_it_dumps() {
    use sha2::{Digest, Sha256};
    let folder = tempfile::tempdir().expect("a folder");
    let dump = folder.path().join("logits.bin");
    let dump = dump.to_str().expect("UTF-8");
    let text = file(folder.path(), "text.txt", "hello there");
    let args = ["logits", "--sha256", "-f", &text, "--dump", dump];
    let ended = siskin(&with_model("qwen3", &args));
    let bytes = std::fs::read(dump).expect("a dump");
    let hex: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(ended.stdout, hex + "\n", "{}", ended.stderr);
    assert_eq!(bytes.len() % (96 * 4), 0);
    let piped =
        siskin_with(&with_model("qwen3", &["logits", "--sha256", "-f", "-"]), "hello there");
    assert_eq!(piped.stdout, ended.stdout);
}

#[test]
fn inspect_shows_metadata_tensors_and_memory() {
    let model = tiny("gemma3");
    let ended = siskin(&["inspect", &model, "--json", "-c", "64"]);
    let all = &json(&ended)[0];
    assert_eq!(all["metadata"]["general.architecture"], "gemma3");
    assert_eq!(all["version"], 3);
    assert_eq!(all["parts"], 1);
    assert_eq!(all["memory"]["ctx"], 64);
    let memory = |key: &str| all["memory"][key].as_u64().expect("a number");
    assert_eq!(memory("total"), memory("weights") + memory("kv_cache") + memory("workspace"));
    let tensors = all["tensors"].as_array().expect("a list");
    assert_eq!(all["types"]["F32"]["tensors"], tensors.len());
    for key in ["name", "type", "shape", "part", "offset", "bytes"] {
        assert!(tensors.iter().all(|t| t.get(key).is_some()), "{key}");
    }

    let text = siskin(&["inspect", &model, "--tensors"]).stdout;
    for part in ["GGUF v3", "general.architecture = \"gemma3\"", "blk.0.attn_q.weight", "KV cache"]
    {
        assert!(text.contains(part), "no {part} in {text}");
    }
}

#[test]
fn inspect_does_not_need_a_known_pre_tokenizer() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = variant(folder.path(), &["tokenizer.ggml.pre"], |b| {
        b.put("tokenizer.ggml.pre", "of-tomorrow")
    });
    let path = path.to_str().expect("UTF-8");
    let ended = siskin(&["inspect", path]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stdout.contains("of-tomorrow") && ended.stdout.contains("KV cache"));
    // Who runs it is told which option helps.
    for args in [["run", "he"], ["tokenize", "he"], ["perplexity", "-f=/dev/null"]] {
        let ended = siskin(&[&args[..], &["-m", path]].concat());
        assert_eq!(ended.code, 1);
        for part in ["variant.gguf", "of-tomorrow", "--pre NAME", "gpt-2"] {
            assert!(ended.stderr.contains(part), "{args:?}: no {part} in {}", ended.stderr);
        }
    }
    assert_eq!(siskin(&["tokenize", "-m", path, "--pre", "gpt-2", "he"]).stdout, "87\n");
}

#[test]
fn run_goes_on_with_a_text() {
    let run = |args: &[&str], stdin: &str| {
        let mut all = vec!["run", "--raw"];
        if !args.contains(&"--n-predict") {
            all.extend(["--temp", "0", "-n", "8"]);
        }
        all.extend(args);
        let ended = siskin_with(&with_model("llama", &all), stdin);
        assert_eq!(ended.code, 0, "{args:?}: {}", ended.stderr);
        ended.stdout
    };
    let want = run(&["hello"], "");
    assert_eq!(want.trim_end().len(), 8, "{want}");
    let folder = tempfile::tempdir().expect("a folder");
    let text = file(folder.path(), "text.txt", "hello");
    for (args, stdin) in [
        (&["-f", &text][..], ""),
        (&["-f", "-"], "hello"),
        (&["-"], "hello"),
        (&[], "hello"),
        // llama.cpp's spellings.
        (&["hello", "--temperature", "0", "--n-predict", "8", "--ctx-size", "64"], ""),
        (&["hello", "--top-nsigma", "1", "--typical-p", "1", "-ctk", "f16", "-ctv", "f16"], ""),
        (&["hello", "--samplers", "top_k;typ_p;temp", "-s", "-1", "--batch-size", "3"], ""),
    ] {
        assert_eq!(run(args, stdin), want, "{args:?}");
    }
    // After -- it is a text.
    assert_ne!(run(&["--", "-ctk"], ""), want);
    let stop = &want[4..5];
    let at = want.find(stop).expect("its own text");
    assert_eq!(run(&["hello", "--stop", stop], "").trim_end(), &want[..at]);
}

#[test]
fn run_says_in_json_how_it_went() {
    let run = |args: &[&str]| {
        let all = [&["run", "--raw", "--json", "--ignore-eos", "hello"], args].concat();
        json(&siskin(&with_model("llama", &all))).remove(0)
    };
    let answer = run(&["-n", "5", "--seed", "1", "-c", "64"]);
    assert_eq!(answer["tokens"], 5);
    assert_eq!(answer["prompt_tokens"], 4);
    assert_eq!(answer["finish"], "length");
    assert_eq!(answer["ctx"], 64);
    for key in ["load_s", "prefill_s", "prefill_tokens_per_s", "decode_tokens_per_s"] {
        assert!(answer[key].as_f64().is_some_and(|x| x > 0.0), "{key}: {answer}");
    }
    assert_eq!(run(&["-n", "5", "--seed", "1"])["text"], answer["text"]);
    assert_ne!(run(&["-n", "5", "--seed", "2"])["text"], answer["text"]);
    // No limit but the context's.
    let full = run(&["-n", "-1", "-c", "32"]);
    assert_eq!(full["finish"], "context");
    assert_eq!(full["tokens"].as_u64(), Some(32 - 4 + 1));
}

#[test]
fn a_template_and_a_system_message_are_part_of_the_prompt() {
    let prompt_tokens = |args: &[&str]| {
        let all = [&["run", "--json", "-n", "1", "hello"], args].concat();
        json(&siskin(&with_model("llama", &all)))[0]["prompt_tokens"].as_u64().expect("a number")
    };
    assert_eq!(prompt_tokens(&[]), 4);
    let chat = prompt_tokens(&["--chat-template", "chatml"]);
    assert!(chat > 20, "{chat}");
    assert!(prompt_tokens(&["--chat-template", "chatml", "--system", "be kind"]) > chat);
    let folder = tempfile::tempdir().expect("a folder");
    let template =
        file(folder.path(), "t.jinja", "{{ messages[0].content }}{{ messages[0].role }}");
    assert_eq!(prompt_tokens(&["--chat-template", &template]), 7);
}

#[test]
fn a_file_follows_the_prompt_after_an_empty_line() {
    let tokens = |args: &[&str], stdin: &str| {
        let all = [&["run", "--raw", "--json", "-n", "1"], args].concat();
        let ended = siskin_with(&with_model("llama", &all), stdin);
        json(&ended)[0]["prompt_tokens"].as_u64().expect("a number")
    };
    // "he", two line ends, "th"; every letter that is no pair is a token.
    assert_eq!(tokens(&["he", "-f", "-"], "th"), 4);
    assert_eq!(tokens(&["he", "-f", "-"], ""), 1);
    assert_eq!(tokens(&["he", "-f", "-"], "\n"), 1);
}

#[test]
fn perplexity_prints_json_or_a_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = file(folder.path(), "text.txt", "the rain in the north ".repeat(20));
    let args = ["perplexity", "-f", &text, "--ctx", "32", "--chunks", "3"];
    let ended = siskin(&with_model("llama", &[&args[..], &["--json"]].concat()));
    let all = &json(&ended)[0];
    assert_eq!((&all["chunks"], &all["ctx"], &all["tokens"]), (&json!(3), &json!(32), &json!(45)));
    assert!(all["ppl"].as_f64() > Some(1.0) && all["stderr"].as_f64() > Some(0.0), "{all}");
    let line = siskin(&with_model("llama", &args)).stdout;
    assert!(line.starts_with("perplexity ") && line.ends_with("(3 chunks of 32)\n"), "{line}");
}

#[test]
fn bench_json_is_an_array_in_the_shape_of_llama_bench() {
    let args = ["bench", "-p", "16", "-n", "4", "-r", "3", "-t", "2", "-b", "8", "--json"];
    let rows = json(&siskin(&with_model("llama", &args))).remove(0);
    let rows = rows.as_array().expect("an array");
    assert_eq!(rows.len(), 2);
    let same = json!({
        "backends": "CPU", "gpu_info": "", "n_gpu_layers": 0, "model_type": "llama 0.1M all F32",
        "model_filename": tiny("llama"), "model_size": 213_760, "model_n_params": 52_544,
        "n_threads": 2, "n_batch": 8, "n_ubatch": 8, "type_k": "f16", "type_v": "f16",
        "n_depth": 0, "use_mmap": true, "flash_attn": 1,
    });
    for row in rows {
        for (key, want) in same.as_object().expect("an object") {
            assert_eq!(&row[key], want, "{key}");
        }
        for key in ["build_commit", "cpu_info", "kernel_level", "siskin_version"] {
            assert!(row[key].as_str().is_some_and(|s| !s.is_empty()), "{key}: {row}");
        }
        for key in ["build_number", "avg_ns", "stddev_ns", "avg_ts", "stddev_ts", "median_ts"] {
            assert!(row[key].is_number(), "{key}: {row}");
        }
        for key in ["samples_ns", "samples_ts"] {
            assert_eq!(row[key].as_array().map(Vec::len), Some(3), "{key}");
        }
        let time = row["test_time"].as_str().expect("a text");
        assert!(time.len() == 20 && time.starts_with("20") && time.ends_with('Z'), "{time}");
        assert!(row["time_to_first_token_ms"].as_f64() > Some(0.0));
    }
    let n = |row: &Value| (row["n_prompt"].as_u64(), row["n_gen"].as_u64());
    assert_eq!(n(&rows[0]), (Some(16), Some(0)));
    assert_eq!(n(&rows[1]), (Some(0), Some(4)));

    let text = siskin(&with_model("llama", &["bench", "-p", "8", "-n", "2", "-r", "1"])).stdout;
    assert!(text.contains("prefill") && text.contains("decode") && text.contains("tokens/s"));
}

#[test]
fn bench_gives_shares_of_what_was_measured_beside_it() {
    let bench = |args: &[&str]| {
        let all =
            [&["bench", "-p", "8", "-n", "2", "-r", "1", "-t", "2", "--limits"], args].concat();
        siskin(&with_model("llama", &all))
    };
    let rows = json(&bench(&["--json"])).remove(0);
    // Which level this machine has decides whether a prompt has a limit.
    let limits = &rows[1]["limits"];
    assert_eq!(limits["bound"], "read_bytes");
    for key in ["per_s", "best_per_s", "share", "share_of_best"] {
        assert!(limits[key].as_f64() > Some(0.0), "{key}: {limits}");
    }
    assert!(limits["per_s"].as_f64() <= limits["best_per_s"].as_f64(), "{limits}");
    let memory = rows[1]["peak_memory_bytes"].as_u64();
    assert!(memory.is_none_or(|bytes| bytes < 256 << 20), "the buffer is none of the model's");

    let rows = json(&bench(&["--json", "--cpu", "scalar"])).remove(0);
    assert!(rows[0].get("limits").is_none() && rows[1]["limits"]["share"].is_number(), "{rows}");
    let text = bench(&["--cpu", "scalar"]).stdout;
    assert!(text.contains("no limit is known of these kernels") && text.contains("GB/s"), "{text}");
}

#[test]
fn a_shape_is_written_with_types_that_fit_its_rows() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.gguf");
    let path = path.to_str().expect("UTF-8");
    let shape = ["bench", "--shape", "smollm2-135m", "--save", path, "-p", "0", "-n", "0"];
    let ended = siskin(&shape);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let all = &json(&siskin(&["inspect", path, "--json"]))[0];
    assert_eq!(all["metadata"]["general.size_label"], "135M");
    // 576 columns: no whole blocks of 256.
    for (ty, n) in [("Q5_0", 166), ("Q4_K", 16), ("Q6_K", 14), ("Q8_0", 15)] {
        assert_eq!(all["types"][ty]["tensors"], n, "{ty}: {}", all["types"]);
    }
}

#[test]
fn completions_know_every_subcommand() {
    let help = siskin(&["--help"]).stdout;
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = siskin(&["completions", shell]).stdout;
        for name in ["run", "chat", "inspect", "tokenize", "perplexity", "bench", "pull", "rm"] {
            assert!(script.contains(name), "{shell}: {name}");
            assert!(help.contains(name), "{name}");
        }
    }
    assert!(help.contains("i8mm"), "{help}");
}

#[test]
fn a_piped_chat_keeps_no_history() {
    let folder = tempfile::tempdir().expect("a folder");
    let args = with_model("llama", &["chat", "--chat-template", "chatml", "-n", "3"]);
    let mut child = command(&args)
        .env("SISKIN_HOME", folder.path())
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("the command starts");
    let mut to = child.stdin.take().expect("a pipe");
    std::io::Write::write_all(&mut to, b"hello\n/quit\n").expect("written");
    drop(to);
    let ended = end(child);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let left = std::fs::read_dir(folder.path()).expect("a folder").count();
    assert_eq!(left, 0, "files in the store");
}
