//! `siskin quantize`: what it writes, says and refuses.

mod common;

use std::fs;
use std::path::Path;

use common::{file, json, path, siskin, tiny};
use siskin::gguf::GgufFile;

/// What must be said by a command that is refused.
fn refused(args: &[&str], parts: &[&str]) {
    let ended = siskin(args);
    assert_ne!(ended.code, 0, "{args:?}: {}", ended.stdout);
    for part in parts {
        assert!(ended.stderr.contains(part), "{args:?} lacks {part}: {}", ended.stderr);
    }
}

#[test]
fn the_file_is_the_same_at_every_level_and_with_any_threads() {
    let folder = tempfile::tempdir().expect("a folder");
    let shape = path(folder.path(), "shape.gguf");
    let made = siskin(&[
        "bench",
        "--shape",
        "smollm2-135m",
        "--type",
        "q4_0",
        "--save",
        &shape,
        "-p",
        "1",
        "-n",
        "0",
        "-r",
        "1",
    ]);
    // The levels of this CPU are named in the error for one that is none.
    let known = siskin(&["quantize", &tiny("llama"), "x.gguf", "q8_0", "--cpu", "none"]);
    let levels = known.stderr.split("it has ").nth(1).expect("a list").trim().to_string();
    assert_eq!(made.code, 0, "{}", made.stderr);
    let mut first: Option<Vec<u8>> = None;
    for (i, level) in levels.split(", ").enumerate() {
        let out = path(folder.path(), &format!("{level}.gguf"));
        let threads = ["1", "2", "8"][i % 3];
        let args = ["quantize", &shape, &out, "q8_0", "--allow-requantize", "--cpu", level];
        let ended = siskin(
            &[&args[..], &["-t", threads, "--calibrate", "none", "--tensor", "attn_q=q5_0"]]
                .concat(),
        );
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let bytes = fs::read(&out).expect("a file");
        fs::remove_file(&out).expect("removed");
        assert!(first.get_or_insert_with(|| bytes.clone()) == &bytes, "{level}, {threads} threads");
    }
}

#[test]
fn a_dry_run_says_what_would_be_written_and_writes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = path(folder.path(), "out.gguf");
    let args = ["quantize", &tiny("gemma3"), &out, "q8_0"];
    let dry = json(&siskin(&[&args[..], &["--dry-run", "--json"]].concat()));
    assert!(!Path::new(&out).exists());
    let wet = json(&siskin(&[&args[..], &["--json"]].concat()));
    for key in ["bytes", "types", "tensors", "bits_per_weight"] {
        assert_eq!(dry[0][key], wet[0][key], "{key}");
    }
    let file = GgufFile::open(&out).expect("a file");
    for tensor in wet[0]["tensors"].as_array().expect("tensors") {
        let name = tensor["name"].as_str().expect("a name");
        let found = file.tensor(name).expect(name);
        assert_eq!(tensor["type"], found.ty.name());
        assert_eq!(tensor["bytes"], found.n_bytes);
    }
    let said = siskin(&[&args[..], &["--dry-run"]].concat());
    assert!(said.stdout.contains("blk.0.attn_q.weight") && said.stdout.contains("Q8_0"));
}

#[test]
fn a_quantized_model_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = path(folder.path(), "out.gguf");
    for file_type in ["q8_0", "bf16", "f16", "q5_1"] {
        let ended = siskin(&["quantize", &tiny("qwen3"), &out, file_type, "--force"]);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let ended = siskin(&["logits", "-m", &out, "-p", "abc", "--sha256"]);
        assert_eq!(ended.code, 0, "{file_type}: {}", ended.stderr);
    }
}

#[test]
fn a_size_is_kept_and_what_was_chosen_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let (model, out) = (tiny("llama"), path(folder.path(), "out.gguf"));
    let whole = fs::metadata(&model).expect("a file").len();
    let mut last = u64::MAX;
    for part in [10, 7, 5] {
        let size = (whole * part / 10).to_string();
        let ended = siskin(&["quantize", &model, &out, "--size", &size, "--force", "--json"]);
        let said = &json(&ended)[0];
        let bytes = fs::metadata(&out).expect("a file").len();
        assert!(bytes <= whole * part / 10, "{bytes} of {size}");
        assert!(bytes < last && said["tensors"][0]["noise"].is_number());
        last = bytes;
    }
    let ended = siskin(&["quantize", &model, &out, "--bpw", "9", "--force"]);
    assert!(ended.stdout.contains("ffn_down") && ended.stdout.contains("of the divergence"));
    refused(&["quantize", &model, &out, "--size", "1K", "--force"], &["smallest types"]);
    refused(&["quantize", &model, &out, "q8_0", "--size", "1M", "--force"], &["q8_0", "size"]);
    refused(&["quantize", &model, &out, "--bpw", "99", "--force"], &["99"]);
    refused(&["quantize", &model, &out], &["TYPE"]);
}

#[test]
fn what_is_wrong_is_said_and_nothing_is_left() {
    let folder = tempfile::tempdir().expect("a folder");
    let (model, out) = (tiny("llama"), path(folder.path(), "out.gguf"));
    let there = file(folder.path(), "there.gguf", "precious");
    refused(&["quantize", &model, &there, "q8_0"], &["there.gguf", "--force"]);
    refused(&["quantize", &model, &out, "q9_0"], &["q9_0", "q4_k_m"]);
    refused(&["quantize", &model, &out, "q8_0", "--tensor", "x"], &["--tensor", "PATTERN=TYPE"]);
    refused(&["quantize", &model, &out, "q8_0", "--output-type", "q7"], &["--output-type", "q7"]);
    refused(&["quantize", &model, "/nonexistent/out.gguf", "q8_0"], &["/nonexistent"]);
    refused(&["quantize", &there, &out, "q8_0"], &["there.gguf"]);
    refused(&["quantize", &model, &out, "q8_0", "--imatrix", &there], &["there.gguf"]);
    assert_eq!(fs::read(&there).expect("a file"), b"precious");
    let names: Vec<_> = fs::read_dir(folder.path()).expect("a folder").collect();
    assert_eq!(names.len(), 1, "{names:?}");
}

#[test]
#[cfg(unix)]
fn no_space_left_is_an_error_that_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = path(folder.path(), "out.gguf");
    // Files may have no more than 8 blocks of 512 bytes, and the signal that says so is ignored,
    // so that writing fails as it does on a full disk.
    let script = "trap '' XFSZ; ulimit -f 8; exec \"$@\"";
    let ended = std::process::Command::new("sh")
        .args(["-c", script, "sh", env!("CARGO_BIN_EXE_siskin")])
        .args(["quantize", &tiny("gemma3"), &out, "q8_0"])
        .output()
        .expect("a shell");
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("out.gguf") && stderr.contains("too large"), "{stderr}");
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
}

/// An importance matrix of a tiny model.
fn imatrix(folder: &Path, model: &str) -> String {
    let text = file(folder, "text.txt", "He thanked the hen in the inn, then ran on. ".repeat(8));
    let out = path(folder, "imatrix.gguf");
    let ended = siskin(&["imatrix", "-m", model, "-f", &text, "-o", &out, "-c", "32"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    out
}

#[test]
fn an_importance_matrix_is_used_and_named_and_not_inherited() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = tiny("llama");
    let matrix = imatrix(folder.path(), &model);
    let (plain, with) = (path(folder.path(), "plain.gguf"), path(folder.path(), "with.gguf"));
    let args = ["--tensor", "weight=q4_0"];
    let run = |out: &str, from: &str, more: &[&str]| {
        let ended = siskin(&[&["quantize", from, out, "q8_0"], &args[..], more].concat());
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        GgufFile::open(out).expect("a file")
    };
    let (a, b) = (run(&plain, &model, &[]), run(&with, &model, &["--imatrix", &matrix]));
    let tensor = |file: &GgufFile| {
        let found = file.tensor("blk.0.attn_q.weight").expect("a tensor");
        (found.ty.name(), file.tensor_data(found).to_vec())
    };
    assert_eq!((tensor(&a).0, tensor(&b).0), ("Q4_0", "Q4_0"));
    assert!(tensor(&a).1 != tensor(&b).1, "the matrix changes nothing");
    let said = |file: &GgufFile| {
        let metadata = file.metadata();
        (
            metadata.str("quantize.imatrix.file").expect("text").map(String::from),
            metadata.str("quantize.imatrix.dataset").expect("text").map(String::from),
        )
    };
    assert_eq!(said(&b), (Some("imatrix.gguf".into()), Some("text.txt".into())));
    let own = Some("built-in calibration".to_string());
    assert_eq!(said(&a).0, own);
    // What was said of one file does not hold for what is made of it.
    let again = path(folder.path(), "again.gguf");
    let none = ["--calibrate", "none", "--allow-requantize"];
    assert_eq!(said(&run(&again, &with, &none)), (None, None));
    let other = ["--allow-requantize", "--imatrix", &matrix, "--force"];
    assert!(said(&run(&again, &with, &other)).0.is_some());
    let refusal = ["imatrix.gguf"];
    let other = path(folder.path(), "other.gguf");
    refused(&["quantize", &tiny("gemma3"), &other, "q8_0", "--imatrix", &matrix], &refusal);
}

#[test]
fn without_a_matrix_the_model_measures_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = tiny("llama");
    let made = |more: &[&str]| {
        let out = path(folder.path(), "out.gguf");
        let args = ["quantize", &model, &out, "q4_0", "--pure", "--force"];
        let ended = siskin(&[&args[..], more].concat());
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let file = GgufFile::open(&out).expect("a file");
        let dataset = file.metadata().str("quantize.imatrix.dataset").expect("text");
        let weights = file.tensor("blk.1.ffn_up.weight").expect("a tensor");
        (dataset.map(String::from), file.tensor_data(weights).to_vec(), ended.stderr)
    };
    let dataset = |n| Some(format!("Siskin's calibration text, {n} tokens"));
    let (plain, quick) = (made(&["--calibrate", "none"]), made(&[]));
    let full = made(&["--calibrate", "full"]);
    assert_eq!(plain.0, None);
    assert_eq!((&quick.0, &full.0), (&dataset(192), &dataset(2048)));
    assert!(plain.1 != quick.1 && quick.1 != full.1, "what is measured changes nothing");
    assert!(made(&["--calibrate", "quick", "-t", "1", "--cpu", "scalar"]) == quick);
    // The mix is that without a matrix, as large as llama.cpp's file.
    let mixed = |more: &[&str]| {
        let args = ["quantize", &model, "none.gguf", "q4_0", "--dry-run", "--json"];
        json(&siskin(&[&args[..], more].concat()))[0]["bytes"].clone()
    };
    assert_eq!(mixed(&[]), mixed(&["--calibrate", "none"]));
    let sizes = ["none", "quick", "full"].map(|how| {
        let out = path(folder.path(), &format!("{how}.gguf"));
        let args = ["quantize", &model, &out, "q4_0", "--calibrate", how, "--json"];
        let said = json(&siskin(&args));
        assert_eq!(said[0]["imatrix"].is_null(), how == "none");
        said[0]["bytes"].clone()
    });
    assert!(sizes.iter().all(|size| *size == mixed(&[])));
    // Nothing is measured for types that make nothing of it.
    let out = path(folder.path(), "q8_0.gguf");
    assert_eq!(siskin(&["quantize", &model, &out, "q8_0"]).code, 0);
    let asked = ["quantize", &model, &out, "q8_0", "--calibrate", "full", "--dry-run"];
    assert!(siskin(&asked).stderr.contains("changes nothing"));
    let file = GgufFile::open(&out).expect("a file");
    assert_eq!(file.metadata().str("quantize.imatrix.file").expect("text"), None);
}

#[test]
fn what_a_matrix_does_not_say_the_model_measures() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = tiny("llama");
    let matrix = imatrix(folder.path(), &model);
    let bare = path(folder.path(), "bare.gguf");
    let stripped = siskin(&["imatrix", "--in", &matrix, "--no-sketch", "-o", &bare]);
    assert_eq!(stripped.code, 0, "{}", stripped.stderr);
    let out = path(folder.path(), "out.gguf");
    let made = |ty: &str, matrix: &str, more: &[&str]| {
        let args = ["quantize", &model, &out, ty, "--pure", "--force", "--imatrix", matrix];
        let ended = siskin(&[&args[..], more, &["--json"]].concat());
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let said = json(&ended)[0].clone();
        let file = GgufFile::open(&out).expect("a file");
        let text = |key: &str| file.metadata().str(key).expect("text").map(String::from);
        let of = |what: &str, key: &str| said[what][key].as_str().map(String::from);
        assert_eq!(text("quantize.imatrix.file"), of("imatrix", "file"));
        let weights = file.tensor("blk.1.ffn_up.weight").expect("a tensor");
        let bytes = file.tensor_data(weights).to_vec();
        (text("quantize.sketch.dataset"), of("sketches", "file"), bytes)
    };
    let measured = Some("Siskin's calibration text, 2048 tokens".to_string());
    let own = Some("built-in calibration".to_string());
    let (alone, both) = (made("q4_0", &bare, &["--calibrate", "none"]), made("q4_0", &bare, &[]));
    assert_eq!((&alone.0, &alone.1), (&None, &None));
    assert_eq!((&both.0, &both.1), (&measured, &own));
    assert!(alone.2 != both.2, "the sketches change nothing");
    assert!(made("q4_0", &bare, &["--calibrate", "full", "-t", "1", "--cpu", "scalar"]) == both);
    // The importances are still those of the file. Sketches of so little text as its are of no use.
    let full = path(folder.path(), "full.gguf");
    let args = ["quantize", &model, &full, "q4_0", "--pure", "--calibrate", "full"];
    assert_eq!(siskin(&args).code, 0);
    let full = GgufFile::open(&full).expect("a file");
    let weights = full.tensor("blk.1.ffn_up.weight").expect("a tensor");
    assert!(full.tensor_data(weights) != both.2, "the importances change nothing");
    assert!(made("q4_0", &matrix, &[]).2 == both.2);
    // What is made of the file tells of its own matrix only.
    let again = path(folder.path(), "again.gguf");
    assert_eq!(made("q4_0", &bare, &[]).0, measured);
    for (more, tells) in [(&["--imatrix", &bare][..], true), (&["--calibrate", "none"], false)] {
        let args = ["quantize", &out, &again, "q4_1", "--pure", "--allow-requantize", "--force"];
        let ended = siskin(&[&args[..], more].concat());
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        assert_eq!(ended.stdout.contains("used together: built-in calibration"), tells);
        let file = GgufFile::open(&again).expect("a file");
        let dataset = file.metadata().str("quantize.sketch.dataset").expect("text");
        assert_eq!(dataset.is_some(), tells);
    }
    // A matrix of enough text has its own, and other types make nothing of them.
    let text = path(folder.path(), "text.txt");
    fs::write(&text, "He thanked the hen in the inn, then ran on. ".repeat(400)).expect("a text");
    let long = path(folder.path(), "long.gguf");
    let args = ["imatrix", "-m", &model, "-f", &text, "-o", &long, "-c", "64"];
    assert_eq!(siskin(&args).code, 0);
    let with = made("q4_0", &long, &["--calibrate", "full"]);
    assert_eq!((with.0, with.1.as_deref()), (None, Some("long.gguf")));
    for matrix in [&bare, &long] {
        let other = made("q8_0", matrix, &["--calibrate", "full"]);
        assert_eq!((other.0, other.1), (None, None));
    }
    // Those of the output count, too, where they were measured.
    let args = ["imatrix", "-m", &model, "-f", &text, "-o", &long, "-c", "64", "--force"];
    assert_eq!(siskin(&[&args[..], &["--process-output"]].concat()).code, 0);
    assert!(made("q8_0", &long, &["--output-type", "q4_0"]).1.is_some());
    // Types for a size are others where more is known; nothing is left of a dry run.
    let sized = |how: &str| {
        let args = ["quantize", &model, "none.gguf", "--bpw", "7.8", "--dry-run", "--json"];
        let ended = siskin(&[&args[..], &["--imatrix", &bare, "--calibrate", how]].concat());
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        json(&ended)[0]["tensors"].clone()
    };
    assert_ne!(sized("full"), sized("none"));
    // Both measure importances.
    let quick = ["--imatrix", &bare, "--calibrate", "quick", "--force"];
    refused(&[&["quantize", &model, &out, "q4_0"], &quick[..]].concat(), &["--calibrate full"]);
    // Of another model nothing is measured.
    let other = ["quantize", &tiny("gemma3"), &out, "q4_0", "--imatrix", &bare, "--force"];
    refused(&other, &["bare.gguf"]);
    // Of a model that does not run they cannot be had, which is said.
    let odd = common::variant(folder.path(), &["general.architecture"], |builder| {
        builder.put("general.architecture", "unheard-of")
    });
    let odd = odd.to_str().expect("UTF-8");
    let args = ["quantize", odd, &out, "q4_0", "--imatrix", &bare, "--force"];
    let ended = siskin(&args);
    let said = ended.code == 0 && ended.stderr.contains("used together was not measured");
    assert!(said, "{}", ended.stderr);
    refused(&[&args[..], &["--calibrate", "full"]].concat(), &["cannot be run"]);
}

#[test]
fn a_model_that_does_not_run_is_quantized_all_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let odd = common::variant(folder.path(), &["general.architecture"], |builder| {
        builder.put("general.architecture", "unheard-of")
    });
    let odd = odd.to_str().expect("UTF-8");
    let out = path(folder.path(), "out.gguf");
    let args = ["quantize", odd, &out, "q4_0", "--force"];
    let ended = siskin(&args);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("unheard-of"), "{}", ended.stderr);
    let first = fs::read(&out).expect("a file");
    let ended = siskin(&[&args[..], &["--calibrate", "none"]].concat());
    assert!(ended.code == 0 && !ended.stderr.contains("unheard-of"), "{}", ended.stderr);
    assert!(fs::read(&out).expect("a file") == first);
    // Who asks for it gets it or an error.
    refused(&[&args[..], &["--calibrate", "quick"]].concat(), &["cannot be run", "unheard-of"]);
    // A key of the wrong type is no concern of who quantizes.
    let odd = common::variant(folder.path(), &["llama.rope.freq_base"], |builder| {
        builder.put("llama.rope.freq_base", "many")
    });
    let ended = siskin(&["quantize", odd.to_str().expect("UTF-8"), &out, "q4_0", "--force"]);
    assert!(ended.code == 0 && ended.stderr.contains("rope.freq_base"), "{}", ended.stderr);
}

#[test]
fn what_is_measured_is_the_same_of_every_form_of_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = tiny("llama");
    let quantized = |from: &str, more: &[&str]| {
        let out = path(folder.path(), "out.gguf");
        let args = ["quantize", from, &out, "q4_0", "--force"];
        let ended = siskin(&[&args[..], more].concat());
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        fs::read(out).expect("a file")
    };
    let want = quantized(&model, &[]);
    // As many threads as there are cores.
    assert!(quantized(&model, &["-t", "0"]) == want);
    let parts = path(folder.path(), "parts.gguf");
    let split = ["quantize", &model, &parts, "f32", "--split-size", "60K", "--json"];
    let parts = json(&siskin(&split));
    assert!(quantized(parts[0]["paths"][0].as_str().expect("a path"), &[]) == want);
    let turned = path(folder.path(), "big.gguf");
    common::big_endian(Path::new(&turned));
    assert!(quantized(&turned, &[]) == want);
    // Only what was asked for is there.
    let parts = parts[0]["paths"].as_array().expect("paths").len();
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), parts + 2);
    // Of a size, too, and without a trace where nothing shall be written.
    let sized = |more: &[&str]| {
        let out = path(folder.path(), "out.gguf");
        let args = ["quantize", &turned, &out, "--bpw", "9", "--force", "--json"];
        json(&siskin(&[&args[..], more].concat()))[0]["tensors"].clone()
    };
    let dry = sized(&["--dry-run"]);
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), parts + 2);
    assert_eq!(dry, sized(&[]));
    assert_ne!(dry, sized(&["--calibrate", "none"]));
}

#[test]
fn a_weight_that_is_no_number_is_named_before_anything_is_measured_or_after() {
    let folder = tempfile::tempdir().expect("a folder");
    let odd = common::with_weight(folder.path(), "blk.1.ffn_up.weight", f32::NAN);
    let odd = odd.to_str().expect("UTF-8");
    let out = path(folder.path(), "out.gguf");
    let parts = ["blk.1.ffn_up.weight", "row 0, column 0", "NaN"];
    refused(&["quantize", odd, &out, "q4_0"], &parts);
    refused(&["quantize", odd, &out, "q4_0", "--calibrate", "none"], &parts);
    assert!(!Path::new(&out).exists());
}

#[test]
fn a_size_counts_the_keys_and_the_types_that_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = tiny("qwen2");
    let matrix = imatrix(folder.path(), &model);
    let out = path(folder.path(), "out.gguf");
    let mut kept = 0;
    for size in [60_000u64, 70_000, 90_000, 120_000] {
        let size_arg = size.to_string();
        let args = ["quantize", &model, &out, "--force", "--size", &size_arg];
        let more = ["--imatrix", &matrix, "--output-type", "q8_0"];
        let ended = siskin(&[&args[..], &more].concat());
        if ended.stderr.contains("smallest types") {
            continue;
        }
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let bytes = fs::metadata(&out).expect("a file").len();
        assert!(bytes <= size, "{bytes} of {size}");
        let file = GgufFile::open(&out).expect("a file");
        // The embeddings are the output matrix.
        let output = file.tensor("token_embd.weight").map(|t| t.ty.name());
        assert_eq!(output, Some("Q8_0"));
        kept += 1;
    }
    assert!(kept > 0, "no size was large enough");
    refused(
        &["quantize", &model, &out, "--size", "90000", "--split-size", "1M"],
        &["--split-size"],
    );
}

#[test]
fn parts_are_kept_where_that_is_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let (parts, out) = (path(folder.path(), "parts.gguf"), path(folder.path(), "out.gguf"));
    let args = ["quantize", &tiny("llama"), &parts, "f16", "--split-size", "30K", "--json"];
    let made = json(&siskin(&args));
    let first = made[0]["paths"][0].as_str().expect("a path").to_string();
    let count = made[0]["paths"].as_array().expect("paths").len();
    assert!(count > 2, "{count}");
    let kept = json(&siskin(&["quantize", &first, &out, "q8_0", "--keep-split", "--json"]));
    let kept_first = kept[0]["paths"][0].as_str().expect("a path");
    let (from, to) = (GgufFile::open(&first), GgufFile::open(kept_first));
    let (from, to) = (from.expect("a file"), to.expect("a file"));
    assert_eq!(to.n_parts(), count);
    for tensor in from.tensors() {
        assert_eq!(to.tensor(&tensor.name).map(|t| t.part), Some(tensor.part), "{}", tensor.name);
    }
}

#[test]
#[cfg(unix)]
fn whoever_ends_it_nothing_is_left() {
    use std::os::unix::process::ExitStatusExt;
    use std::time::{Duration, Instant};

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    let folder = tempfile::tempdir().expect("a folder");
    let shape = path(folder.path(), "shape.gguf");
    let saved = ["bench", "--shape", "smollm2-135m", "--type", "q4_0", "--save", &shape];
    let ended = siskin(&[&saved[..], &["-p", "1", "-n", "0", "-r", "1"]].concat());
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let out = path(folder.path(), "out.gguf");
    let twice = [Signal::SIGINT, Signal::SIGINT];
    for signals in [&twice[..], &[Signal::SIGTERM]] {
        let args = ["quantize", &shape, &out, "iq3_s", "--allow-requantize", "-t", "1"];
        let mut writing = common::command(&args);
        writing.args(["--calibrate", "none"]);
        let mut child = writing.spawn().expect("the command starts");
        // It is at work when there is something that could be left.
        let start = Instant::now();
        while fs::read_dir(folder.path()).expect("a folder").count() < 2 {
            assert!(start.elapsed() < Duration::from_secs(60), "it does not begin");
            std::thread::sleep(Duration::from_millis(5));
        }
        for signal in signals {
            kill(Pid::from_raw(child.id() as i32), *signal).expect("a process");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(child.wait().expect("an end").code(), Some(130));
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
        // And while the model is loaded, or reads: it says nothing of either.
        for wait in [100, 500] {
            let mut reading = common::command(&args);
            reading.args(["--calibrate", "full"]);
            let mut child = reading.spawn().expect("the command starts");
            std::thread::sleep(Duration::from_millis(wait));
            kill(Pid::from_raw(child.id() as i32), signals[0]).expect("a process");
            // Before it has seen to it that signals end its work, they end the process.
            let status = child.wait().expect("an end");
            let at_once = wait < 500 && status.signal() == Some(signals[0] as i32);
            assert!(at_once || status.code() == Some(130), "{status}");
            assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
        }
    }
}
