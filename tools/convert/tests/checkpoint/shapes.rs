//! The same model in the ways in which checkpoints are kept.

use serde_json::json;
use siskin_convert::Source;
use siskin_convert::checkpoint::{Checkpoint, ConvertOptions};

use crate::store::{
    Copy, Tensor, fixture, gguf_file, open, read_safetensors, values, write_safetensors,
};

/// All tensors, by name.
fn all(checkpoint: &Checkpoint) -> Vec<(String, Vec<f32>)> {
    let tensors = checkpoint.tensors().iter().enumerate();
    tensors.map(|(i, t)| (t.name.clone(), values(checkpoint, i, u64::MAX))).collect()
}

#[test]
fn shards_with_and_without_an_index_are_one_checkpoint() {
    let want = all(&open(&fixture("qwen2")).unwrap());
    let copy = Copy::of("qwen2");
    let tensors = read_safetensors(&copy.file("model.safetensors"));
    std::fs::remove_file(copy.file("model.safetensors")).unwrap();
    let (first, second) = tensors.split_at(tensors.len() / 2);
    write_safetensors(&copy.file("model-00001-of-00002.safetensors"), first);
    write_safetensors(&copy.file("model-00002-of-00002.safetensors"), second);
    assert_eq!(all(&open(copy.path()).unwrap()), want);

    let file = |part: &[Tensor], name: &str| {
        part.iter().map(|t| (t.name.clone(), json!(name))).collect::<Vec<_>>()
    };
    let mut map = file(first, "model-00001-of-00002.safetensors");
    map.extend(file(second, "model-00002-of-00002.safetensors"));
    let map: serde_json::Map<_, _> = map.into_iter().collect();
    let index = json!({"metadata": {}, "weight_map": map});
    std::fs::write(copy.file("model.safetensors.index.json"), index.to_string()).unwrap();
    assert_eq!(all(&open(copy.path()).unwrap()), want);

    // What the index says must hold.
    write_safetensors(&copy.file("model-00001-of-00002.safetensors"), &first[1..]);
    let error = copy.error();
    assert!(error.contains(&first[0].name) && error.contains("index.json"), "{error}");
    write_safetensors(&copy.file("model-00001-of-00002.safetensors"), &tensors);
    let error = copy.error();
    assert!(error.contains("is there twice") && error.contains(&second[0].name), "{error}");
    std::fs::remove_file(copy.file("model-00002-of-00002.safetensors")).unwrap();
    assert!(copy.error().contains("model-00002-of-00002.safetensors"));
}

#[test]
fn fused_tensors_are_split_by_their_rows() {
    for name in ["llama-bias", "qwen2"] {
        let want = all(&open(&fixture(name)).unwrap());
        let copy = Copy::of(name);
        copy.edit_tensors(|tensors| {
            fuse(tensors, "self_attn.", &["q_proj", "k_proj", "v_proj"], "qkv_proj");
            fuse(tensors, "mlp.", &["gate_proj", "up_proj"], "gate_up_proj");
        });
        assert_eq!(all(&open(copy.path()).unwrap()), want, "{name}");
    }
}

fn fuse(tensors: &mut Vec<Tensor>, part: &str, from: &[&str], to: &str) {
    for layer in 0..2 {
        for suffix in ["weight", "bias"] {
            let name = |module: &str| format!("model.layers.{layer}.{part}{module}.{suffix}");
            let parts: Vec<Tensor> = from
                .iter()
                .filter_map(|module| tensors.iter().find(|t| t.name == name(module)).cloned())
                .collect();
            if parts.len() != from.len() {
                continue;
            }
            tensors.retain(|t| !from.iter().any(|module| t.name == name(module)));
            let mut fused = parts[0].clone();
            fused.name = name(to);
            fused.shape[0] = parts.iter().map(|t| t.shape[0]).sum();
            fused.data = parts.iter().flat_map(|t| t.data.clone()).collect();
            tensors.push(fused);
        }
    }
}

#[test]
fn the_text_part_of_a_model_with_vision_is_converted() {
    let want = all(&open(&fixture("gemma3")).unwrap());
    for prefix in ["language_model.model.", "model.language_model."] {
        let copy = Copy::of("gemma3");
        copy.edit_tensors(|tensors| {
            for t in tensors.iter_mut() {
                t.name = t.name.replacen("model.", prefix, 1);
            }
            let vision = "vision_tower.vision_model.head.weight";
            tensors.push(Tensor::f32(vision, &[1], &[0.0]));
            tensors.push(Tensor::f32(
                "multi_modal_projector.mm_soft_emb_norm.weight",
                &[1],
                &[0.0],
            ));
        });
        copy.edit_json("config.json", |config| {
            let mut text = config.clone();
            text.remove("architectures");
            config.retain(|key, _| key == "eos_token_id");
            config.insert("architectures".into(), json!(["Gemma3ForConditionalGeneration"]));
            config.insert("text_config".into(), text.into());
            config.insert("vision_config".into(), json!({"hidden_size": 1}));
        });
        let checkpoint = open(copy.path()).unwrap();
        assert_eq!(all(&checkpoint), want, "{prefix}");
        assert_eq!(checkpoint.notes().len(), 1, "{:?}", checkpoint.notes());
        assert!(checkpoint.notes()[0].contains("2 tensors"), "{:?}", checkpoint.notes());
    }
}

#[test]
fn older_configurations_say_the_same() {
    let metadata = |copy: &Copy| {
        let file = gguf_file(&open(copy.path()).unwrap());
        let mut pairs: Vec<String> = file
            .metadata()
            .iter()
            .filter(|(key, _)| key.contains("rope") || key.contains("attention"))
            .map(|(key, value)| format!("{key} {value:?}"))
            .collect();
        pairs.sort();
        pairs
    };
    let copy = Copy::of("gemma3");
    let want = metadata(&copy);
    copy.edit_json("config.json", |config| {
        config.remove("rope_parameters");
        config.insert("rope_theta".into(), json!(1_000_000.0));
        config.insert("rope_local_base_freq".into(), json!(10_000));
        config.insert("rope_scaling".into(), json!(null));
    });
    assert_eq!(metadata(&copy), want);

    let copy = Copy::of("gemma3-27b");
    let want = metadata(&copy);
    copy.edit_json("config.json", |config| {
        config.remove("rope_parameters");
        config.insert("rope_local_base_freq".into(), json!(2_000.0));
        config.insert("rope_scaling".into(), json!({"type": "linear", "factor": 8.0}));
    });
    assert_eq!(metadata(&copy), want);

    let copy = Copy::of("llama3-rope");
    let (want, tensors) = (metadata(&copy), all(&open(copy.path()).unwrap()));
    copy.edit_json("config.json", |config| {
        let mut rope = config.remove("rope_parameters").unwrap();
        config.insert(
            "rope_theta".into(),
            rope.as_object_mut().unwrap().remove("rope_theta").unwrap(),
        );
        config.insert("rope_scaling".into(), rope);
    });
    assert_eq!(metadata(&copy), want);
    assert_eq!(all(&open(copy.path()).unwrap()), tensors);
}

#[test]
fn an_output_that_is_tied_is_left_out() {
    let copy = Copy::of("qwen2");
    copy.edit_tensors(|tensors| {
        let mut output = tensors.iter().find(|t| t.name.contains("embed_tokens")).unwrap().clone();
        output.name = "lm_head.weight".into();
        tensors.push(output);
    });
    let checkpoint = open(copy.path()).unwrap();
    assert!(checkpoint.tensors().iter().all(|t| t.name != "output.weight"));
    assert!(checkpoint.notes()[0].contains("lm_head.weight"));
    copy.edit_json("config.json", |config| {
        config.insert("tie_word_embeddings".into(), json!(false));
    });
    let checkpoint = open(copy.path()).unwrap();
    assert!(checkpoint.tensors().iter().any(|t| t.name == "output.weight"));
}

#[test]
fn eight_bit_weights_are_scaled_by_blocks() {
    let copy = Copy::of("qwen2");
    let name = "model.layers.0.mlp.down_proj.weight";
    let mut shape = Vec::new();
    copy.edit_tensors(|tensors| {
        let t = tensors.iter_mut().find(|t| t.name == name).unwrap();
        shape = t.shape.clone();
        t.dtype = "F8_E4M3".into();
        // 1.0 and -1.5 by turns.
        t.data = (0..shape[0] * shape[1]).map(|i| [0x38, 0xbc][i as usize % 2]).collect();
    });
    let find = |checkpoint: &Checkpoint| {
        checkpoint.tensors().iter().position(|t| t.name == "blk.0.ffn_down.weight").unwrap()
    };
    let checkpoint = open(copy.path()).unwrap();
    assert_eq!(checkpoint.tensors()[find(&checkpoint)].ty, siskin::GgmlType::BF16);
    assert_eq!(values(&checkpoint, find(&checkpoint), 7)[..4], [1.0, -1.5, 1.0, -1.5]);

    let blocks = [shape[0].div_ceil(16), shape[1].div_ceil(24)];
    let scales: Vec<f32> = (0..blocks[0] * blocks[1]).map(|i| i as f32 + 0.5).collect();
    let scale_name = format!("{name}_scale_inv");
    copy.edit_tensors(|tensors| tensors.push(Tensor::f32(&scale_name, &blocks, &scales)));
    assert!(copy.error().contains("weight_block_size"));
    copy.edit_json("config.json", |config| {
        let quantization = json!({"quant_method": "fp8", "weight_block_size": [16, 24]});
        config.insert("quantization_config".into(), quantization);
    });
    let checkpoint = open(copy.path()).unwrap();
    let i = find(&checkpoint);
    assert_eq!(checkpoint.tensors()[i].ty, siskin::GgmlType::F32);
    let got = values(&checkpoint, i, 7);
    for (at, got) in got.iter().enumerate() {
        let (row, col) = (at as u64 / shape[1], at as u64 % shape[1]);
        let scale = scales[(row / 16 * blocks[1] + col / 24) as usize];
        assert_eq!(*got, [1.0, -1.5][at % 2] * scale, "{row} {col}");
    }
    copy.edit_tensors(|tensors| tensors.last_mut().unwrap().shape.reverse());
    assert!(copy.error().contains(&scale_name));
}

#[test]
fn names_and_cards_give_the_general_keys() {
    let copy = Copy::of("llama3-rope");
    let options = ConvertOptions { name: Some("Given Name".into()), ..ConvertOptions::default() };
    let named = Checkpoint::open(copy.path(), &options).unwrap();
    let str = |file: &siskin::gguf::GgufFile, key: &str| {
        file.metadata().str(key).unwrap().map(String::from)
    };
    assert_eq!(str(&gguf_file(&named), "general.name").as_deref(), Some("Given Name"));

    let file = gguf_file(&open(&fixture("llama3-rope")).unwrap());
    for (key, value) in [
        ("general.architecture", "llama"),
        ("general.type", "model"),
        ("general.name", "Llama3 Rope"),
        ("general.size_label", "46K"),
        ("general.license", "mit"),
        ("general.base_model.0.name", "Tiny 1M"),
        ("general.base_model.0.organization", "Siskin"),
        ("general.base_model.0.repo_url", "https://huggingface.co/siskin/tiny-1M"),
    ] {
        assert_eq!(str(&file, key).as_deref(), Some(value), "{key}");
    }
    let float = |key: &str| file.metadata().f32(key).unwrap();
    assert_eq!(float("general.sampling.temp"), Some(0.6));
    assert_eq!(float("general.sampling.top_p"), Some(0.9));
    assert_eq!(float("general.sampling.penalty_repeat"), Some(1.1));
    assert_eq!(file.metadata().u32("general.sampling.top_k").unwrap(), Some(40));
}

#[test]
fn a_sentence_encoder_has_its_pooling() {
    let checkpoint = open(&fixture("bert")).unwrap();
    let file = gguf_file(&checkpoint);
    let number = |key: &str| file.metadata().u32(key).unwrap();
    assert_eq!(file.metadata().str("general.architecture").unwrap(), Some("bert"));
    assert_eq!(number("bert.pooling_type"), Some(1));
    assert_eq!(number("bert.block_count"), Some(2));
    assert_eq!(number("bert.context_length"), Some(32));
    assert_eq!(number("tokenizer.ggml.token_type_count"), Some(2));
    assert_eq!(file.metadata().bool("bert.attention.causal").unwrap(), Some(false));
    assert_eq!(file.tensors().len(), 5 + 2 * 16);
}

#[test]
fn what_a_configuration_turns_off_or_moves_is_written() {
    let with = |name: &str, pairs: &[(&str, serde_json::Value)]| {
        let copy = Copy::of(name);
        copy.edit_json("config.json", |config| {
            config.remove("layer_types");
            for (key, value) in pairs {
                config.insert(key.to_string(), value.clone());
            }
        });
        let checkpoint = open(copy.path()).unwrap();
        (gguf_file(&checkpoint), checkpoint.notes().to_vec())
    };
    let pairs = [("attn_logit_softcapping", json!(null)), ("sliding_window", json!(null))];
    let (file, notes) = with("gemma2", &pairs);
    let meta = file.metadata();
    assert_eq!(meta.f32("gemma2.attn_logit_softcapping").unwrap(), Some(0.0));
    assert!(notes.iter().any(|note| note.contains("attn_logit_softcapping is null")), "{notes:?}");
    let all = meta.u32("gemma2.context_length").unwrap();
    assert_eq!(meta.u32("gemma2.attention.sliding_window").unwrap(), all);
    assert_eq!(meta.f32("gemma2.rope.freq_base").unwrap(), None);

    let rope = json!({"rope_type": "linear", "factor": 4.0, "rope_theta": 5e4});
    let (file, _) = with("gemma2", &[("rope_parameters", rope)]);
    let meta = file.metadata();
    assert_eq!(meta.f32("gemma2.rope.freq_base").unwrap(), Some(5e4));
    assert_eq!(meta.f32("gemma2.rope.scaling.factor").unwrap(), Some(4.0));

    let key = "gemma3.attention.sliding_window_pattern";
    for (every, want) in [(6, None), (3, Some(3))] {
        let (file, _) = with("gemma3", &[("sliding_window_pattern", json!(every))]);
        assert_eq!(file.metadata().u32(key).unwrap(), want);
    }

    let yarn = json!({"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e6,
        "original_max_position_embeddings": 32, "beta_fast": 16, "attention_factor": 1.25});
    let (file, _) = with("qwen2", &[("rope_parameters", yarn)]);
    let meta = file.metadata();
    assert_eq!(meta.str("qwen2.rope.scaling.type").unwrap(), Some("yarn"));
    assert_eq!(meta.f32("qwen2.rope.scaling.factor").unwrap(), Some(4.0));
    assert_eq!(meta.u32("qwen2.rope.scaling.original_context_length").unwrap(), Some(32));
    assert_eq!(meta.f32("qwen2.rope.scaling.yarn_beta_fast").unwrap(), Some(16.0));
    assert_eq!(meta.f32("qwen2.rope.scaling.yarn_attn_factor").unwrap(), Some(1.25));
    assert_eq!(meta.f32("qwen2.rope.scaling.yarn_beta_slow").unwrap(), None);
}
