//! Broken checkpoints: an error that names the file, the tensor or key, and the reason.

use serde_json::{Value, json};

use crate::store::{Copy, Tensor, read_safetensors, write_raw};

fn says(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
}

#[test]
fn broken_files_are_named_with_the_tensor() {
    let copy = Copy::of("qwen2");
    let path = copy.file("model.safetensors");
    let whole = std::fs::read(&path).unwrap();
    let n = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;

    std::fs::write(&path, &whole[..whole.len() - 10]).unwrap();
    says(&copy.error(), &["model.safetensors: tensor model.", "the file is cut off"]);
    std::fs::write(&path, [whole.as_slice(), &[0; 3]].concat()).unwrap();
    says(&copy.error(), &["model.safetensors", "3 bytes follow the last tensor"]);
    std::fs::write(&path, &whole[..n / 2]).unwrap();
    says(&copy.error(), &["model.safetensors", "it is cut off"]);
    std::fs::write(&path, &whole[..5]).unwrap();
    says(&copy.error(), &["model.safetensors", "5 bytes"]);
    for length in [u64::MAX, 1 << 40, whole.len() as u64] {
        let mut bytes = whole.clone();
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        std::fs::write(&path, bytes).unwrap();
        says(&copy.error(), &["model.safetensors", "header"]);
    }

    let entry = |shape: Value, from: u64, to: u64| json!({"dtype": "F32", "shape": shape, "data_offsets": [from, to]});
    for (a, b, message) in [
        (entry(json!([2]), 0, 8), entry(json!([2]), 4, 12), "tensor b: overlaps with a"),
        (entry(json!([2]), 0, 8), entry(json!([1]), 8, 16), "tensor b: 8 bytes for F32"),
        (entry(json!([2]), 0, 8), entry(json!([1]), 12, 16), "a hole"),
        (entry(json!([2]), 8, 0), entry(json!([2]), 8, 16), "tensor a: begins at 8"),
        (entry(json!([1u64 << 40, 1u64 << 40]), 0, 8), entry(json!([2]), 8, 16), "2^64"),
        (entry(json!([1u64 << 62]), 0, 8), entry(json!([2]), 8, 16), "tensor a: 8 bytes for F32"),
        (entry(json!([2]), 0, 8), entry(json!([2]), 8, u64::MAX), "tensor b: ends at byte"),
        (entry(json!([1, 1, 1, 1, 1, 1, 1, 1, 2]), 0, 8), entry(json!([2]), 8, 16), "9 dimensions"),
    ] {
        write_raw(&path, &json!({"a": a, "b": b}).to_string(), &[0; 16]);
        says(&copy.error(), &["model.safetensors", message]);
    }
    write_raw(
        &path,
        r#"{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
            "a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}"#,
        &[0; 8],
    );
    says(&copy.error(), &["model.safetensors: tensor a", "twice"]);
    for header in ["", "[]", "{\"a\": 1}", "{\"a\": {\"dtype\": \"F32\"}}", "\u{1}"] {
        write_raw(&path, header, &[]);
        says(&copy.error(), &["model.safetensors", "header"]);
    }
    std::fs::remove_file(&path).unwrap();
    says(&copy.error(), &["no model.safetensors"]);
}

#[test]
fn all_problems_of_tensors_are_told_at_once() {
    let copy = Copy::of("qwen2");
    copy.edit_tensors(|tensors| {
        tensors.retain(|t| t.name != "model.norm.weight");
        tensors.retain(|t| t.name != "model.layers.1.self_attn.k_proj.weight");
        let up = tensors.iter_mut().find(|t| t.name == "model.layers.0.mlp.up_proj.weight");
        up.unwrap().shape.reverse();
        tensors.push(Tensor::f32("model.layers.0.mlp.extra.weight", &[1], &[0.0]));
        let mut whole = Tensor::f32("model.layers.0.input_layernorm.weight", &[64], &[0.0; 64]);
        whole.dtype = "I32".into();
        tensors.retain(|t| t.name != whole.name);
        tensors.push(whole);
    });
    says(
        &copy.error(),
        &[
            "model.norm.weight is missing",
            "model.layers.1.self_attn.k_proj.weight is missing",
            "model.layers.0.mlp.up_proj.weight has shape [64, 40], not [40, 64]",
            "model.layers.0.mlp.extra.weight is not known for `qwen2`",
            "model.layers.0.input_layernorm.weight is of type I32",
        ],
    );
    let copy = Copy::of("qwen2-untied");
    copy.edit_tensors(|tensors| tensors.retain(|t| t.name != "lm_head.weight"));
    says(&copy.error(), &["lm_head.weight is missing"]);
    // A claim of many layers is not answered with as many lines.
    let copy = Copy::of("qwen2");
    copy.edit_json("config.json", |config| {
        config.insert("num_hidden_layers".into(), json!(4096));
    });
    let error = copy.error();
    says(&error, &["model.layers.2.input_layernorm.weight is missing", "more"]);
    assert!(error.len() < 4000, "{} bytes", error.len());
}

#[test]
fn configurations_are_checked_key_by_key() {
    let with = |name: &str, key: &str, value: Value| {
        let copy = Copy::of(name);
        copy.edit_json("config.json", |config| {
            if value == json!("REMOVED") {
                config.remove(key);
            } else {
                config.insert(key.into(), value);
            }
        });
        copy.error()
    };
    for key in [
        "architectures",
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "max_position_embeddings",
        "rms_norm_eps",
    ] {
        says(&with("qwen2", key, json!("REMOVED")), &["config.json", key, "missing"]);
    }
    for (key, value, message) in [
        ("architectures", json!(["MambaForCausalLM"]), "\"MambaForCausalLM\" is not known"),
        ("architectures", json!([]), "architectures"),
        ("hidden_size", json!("64"), "hidden_size is \"64\""),
        ("hidden_size", json!(0), "hidden_size"),
        ("hidden_size", json!(u64::MAX), "hidden_size"),
        ("vocab_size", json!(4_000_000_000u64), "vocab_size"),
        ("vocab_size", json!((1 << 21) + 1), "vocab_size is 2097153; 2097152 are the most"),
        ("vocab_size", json!(95), "has shape [96, 64], not [95, 64]"),
        ("num_hidden_layers", json!(1 << 20), "num_hidden_layers"),
        ("num_attention_heads", json!(63), "num_attention_heads is 63"),
        ("num_key_value_heads", json!(3), "num_key_value_heads 3"),
        ("rms_norm_eps", json!("small"), "rms_norm_eps"),
        ("hidden_act", json!("relu"), "hidden_act is \"relu\""),
        ("partial_rotary_factor", json!(0.5), "partial_rotary_factor"),
        ("rope_percent", json!(0.25), "rope_percent"),
        ("rope_parameters", json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor is 0.5"),
        ("rope_parameters", json!({"rope_type": "longrope"}), "longrope"),
        ("rope_parameters", json!({"rope_type": "linear"}), "factor is missing"),
        ("rope_parameters", json!([1]), "rope_parameters"),
        ("tie_word_embeddings", json!("yes"), "tie_word_embeddings"),
        ("quantization_config", json!({"quant_method": "gptq"}), "gptq"),
    ] {
        says(&with("qwen2", key, value), &[message]);
    }
    let cap = with("gemma3", "attn_logit_softcapping", json!(50.0));
    says(&cap, &["attn_logit_softcapping is 50", "gemma3"]);
    let rope = with("gemma2", "rope_parameters", json!({"rope_type": "llama3"}));
    says(&rope, &["\"llama3\" is not supported for `gemma2`"]);
    let local = json!({"sliding_attention": {"rope_type": "linear", "factor": 8.0}});
    says(&with("gemma3", "rope_parameters", local), &["\"linear\" of sliding_attention"]);
    let rope = json!({"rope_type": "llama3", "rope_theta": 1e4, "factor": 0.0});
    says(&with("llama3-rope", "rope_parameters", rope), &["config.json", "rope_parameters"]);
    let copy = Copy::of("qwen2");
    std::fs::write(copy.file("config.json"), "{").unwrap();
    says(&copy.error(), &["config.json", "line 1"]);
    std::fs::remove_file(copy.file("config.json")).unwrap();
    says(&copy.error(), &["config.json"]);
    says(&crate::store::open(&copy.file("nowhere")).err().unwrap().to_string(), &["nowhere"]);
}

#[test]
fn an_index_names_only_files_of_the_folder() {
    let copy = Copy::of("qwen2");
    let outside = json!({"weight_map": {"a": "../secret.safetensors"}}).to_string();
    std::fs::write(copy.file("model.safetensors.index.json"), outside).unwrap();
    says(&copy.error(), &["index.json", "not a file of this folder"]);
}

#[test]
fn two_names_for_the_same_tensor_are_refused() {
    let copy = Copy::of("qwen2");
    let tensors = read_safetensors(&copy.file("model.safetensors"));
    copy.edit_tensors(|all| {
        let mut again = tensors[0].clone();
        again.name = again.name.replace("model.", "language_model.model.");
        all.push(again);
    });
    says(&copy.error(), &[&tensors[0].name, "are the same"]);
}
