//! Tokenizers: the ids are those of the libraries that the hub's files are written for.

use serde_json::{Value, json};
use siskin::{EncodeOptions, Tokenizer, TokenizerOptions};
use siskin_convert::Source;

use crate::store::{Copy, cases, fixture, gguf_file, open};

fn tokenizer(source: &dyn Source) -> Tokenizer {
    let file = gguf_file(source);
    Tokenizer::from_gguf(file.metadata(), &TokenizerOptions::default()).unwrap()
}

fn key(source: &dyn Source, key: &str) -> Option<String> {
    gguf_file(source).metadata().str(key).unwrap().map(String::from)
}

#[test]
fn texts_become_the_ids_of_the_hubs_libraries() {
    let cases = cases();
    let texts = cases["texts"].as_array().unwrap();
    for case in cases["checkpoints"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let tokenizer = tokenizer(&open(&fixture(name)).unwrap());
        for (text, ids) in texts.iter().zip(case["ids"].as_array().unwrap()) {
            let want: Vec<u32> =
                ids.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
            let text = text.as_str().unwrap();
            let got = tokenizer.encode(text, EncodeOptions::default()).unwrap();
            let tokens = |ids: &[u32]| {
                ids.iter().map(|id| tokenizer.token_text(*id).unwrap()).collect::<Vec<_>>()
            };
            assert_eq!(tokens(&got), tokens(&want), "{name}: {text:?}");
            assert_eq!(got, want, "{name}: {text:?}");
        }
    }
}

#[test]
fn pre_tokenizers_are_named_by_their_patterns() {
    for (name, pre) in [
        ("llama", "smollm"),
        ("llama3-rope", "llama-bpe"),
        ("llama-bias", "huggingface"),
        ("qwen2", "qwen2"),
        ("qwen2-untied", "gpt-2"),
        ("mistral", "default"),
    ] {
        let checkpoint = open(&fixture(name)).unwrap();
        assert_eq!(key(&checkpoint, "tokenizer.ggml.pre").as_deref(), Some(pre), "{name}");
        let new = checkpoint.notes().iter().any(|note| note.contains("pre-tokenizer"));
        assert_eq!(new, pre == "huggingface", "{name}: {:?}", checkpoint.notes());
    }
}

#[test]
fn the_whole_tokenizer_json_is_kept() {
    let kept = key(&open(&fixture("llama-bias")).unwrap(), "tokenizer.huggingface.json");
    let text = std::fs::read_to_string(fixture("llama-bias").join("tokenizer.json")).unwrap();
    assert_eq!(kept, Some(text));
}

#[test]
fn chat_templates_come_from_each_of_their_places() {
    let template = |copy: &Copy, name: &str| key(&open(copy.path()).unwrap(), name);
    let copy = Copy::of("qwen2");
    let default = template(&copy, "tokenizer.chat_template").unwrap();
    assert_eq!(
        template(&copy, "tokenizer.chat_template.tool_use"),
        Some(format!("tools: {default}"))
    );
    let copy = Copy::of("llama");
    assert_eq!(template(&copy, "tokenizer.chat_template"), None);
    let alone = json!({"chat_template": "from json"}).to_string();
    std::fs::write(copy.file("chat_template.json"), alone).unwrap();
    assert_eq!(template(&copy, "tokenizer.chat_template").as_deref(), Some("from json"));
    std::fs::write(copy.file("chat_template.jinja"), "from jinja").unwrap();
    assert_eq!(template(&copy, "tokenizer.chat_template").as_deref(), Some("from jinja"));
    std::fs::create_dir(copy.file("additional_chat_templates")).unwrap();
    std::fs::write(copy.file("additional_chat_templates/rag-1.jinja"), "rag").unwrap();
    assert_eq!(template(&copy, "tokenizer.chat_template.rag_1").as_deref(), Some("rag"));
    copy.edit_json("tokenizer_config.json", |config| {
        config.insert("chat_template".into(), json!("from config"));
    });
    assert_eq!(template(&copy, "tokenizer.chat_template").as_deref(), Some("from config"));
    copy.edit_json("tokenizer_config.json", |config| {
        let one = json!({"name": "a", "template": "b"});
        config.insert("chat_template".into(), json!(vec![one; 65]));
    });
    assert!(copy.error().contains("65 chat templates; 64 are the most"));
}

#[test]
fn added_tokens_have_types_and_padding_fills_the_embeddings() {
    let copy = Copy::of("qwen2");
    copy.edit_json("tokenizer.json", |json| {
        let vocab = json["model"]["vocab"].as_object_mut().unwrap();
        for unwanted in ["Ġi", "re", "on"] {
            vocab.remove(unwanted);
        }
        let merges = json["model"]["merges"].as_array_mut().unwrap();
        merges.truncate(7);
        let added = json["added_tokens"].as_array_mut().unwrap();
        let token = |id: u32, content: &str, special: bool| {
            json!({"id": id, "content": content, "special": special, "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": false})
        };
        added.push(token(93, "<|im_end|>", false));
        added.push(token(94, "<\u{2581}tag>", false));
        added.push(token(200, "<far>", true));
    });
    let checkpoint = open(copy.path()).unwrap();
    assert!(checkpoint.notes()[0].starts_with("1 added tokens"), "{:?}", checkpoint.notes());
    let file = gguf_file(&checkpoint);
    let texts = file.metadata().array("tokenizer.ggml.tokens").unwrap().unwrap();
    let texts: Vec<_> = texts.iter_bytes().map(String::from_utf8_lossy).collect();
    let types = file.metadata().array("tokenizer.ggml.token_type").unwrap().unwrap();
    let types: Vec<i32> = types.iter_i32().collect();
    assert_eq!(texts[93..], ["<|im_end|>", "< tag>", "[PAD95]"]);
    assert_eq!(types[93..], [3, 4, 5]);
    assert_eq!(types[..3], [3, 3, 1]);
}

#[test]
fn tokenizers_of_unknown_kinds_are_refused() {
    let refused = |change: &dyn Fn(&mut Value)| {
        let copy = Copy::of("qwen2");
        copy.edit_json("tokenizer.json", |json| {
            let mut value = Value::Object(std::mem::take(json));
            change(&mut value);
            *json = value.as_object().unwrap().clone();
        });
        copy.error()
    };
    for (change, message) in [
        (
            &(|j: &mut Value| j["model"]["type"] = json!("WordLevel")) as &dyn Fn(&mut Value),
            "WordLevel",
        ),
        (&|j| j["model"]["continuing_subword_prefix"] = json!("##"), "continuing_subword_prefix"),
        (&|j| j["model"]["merges"] = json!(["a"]), "not two texts"),
        (&|j| j["model"]["merges"] = json!(null), "merges"),
        (&|j| j["model"]["vocab"]["far"] = json!(4000), "\"far\" has id 4000"),
        (&|j| j["model"]["vocab"]["same"] = json!(7), "both have id 7"),
        (&|j| j["pre_tokenizer"]["pretokenizers"][0]["type"] = json!("Unknown"), "Unknown"),
        (&|j| j["normalizer"] = json!({"type": "Lowercase"}), "Lowercase"),
        (
            &|j| {
                let steps = json!([{"type": "NFC"}, {"type": "Replace", "content": "x"}]);
                j["normalizer"] = json!({"type": "Sequence", "normalizers": steps});
            },
            "Replace",
        ),
        (&|j| j["pre_tokenizer"]["pretokenizers"][0]["pattern"] = json!({"Regex": "(a"}), "(a"),
    ] {
        let error = refused(change);
        assert!(error.contains("tokenizer.json") && error.contains(message), "{error}");
    }
    let copy = Copy::of("mistral");
    copy.edit_json("tokenizer.json", |json| {
        json.insert("normalizer".into(), json!({"type": "NFC"}));
    });
    let error = copy.error();
    assert!(error.contains("\"BPE\" with the pre-tokenizer \"none\""), "{error}");
    let copy = Copy::of("qwen2");
    std::fs::remove_file(copy.file("tokenizer.json")).unwrap();
    assert!(copy.error().contains("no tokenizer"));
    let copy = Copy::of("gemma2");
    std::fs::write(copy.file("tokenizer.model"), [0x0a, 0x7f, 1]).unwrap();
    let error = copy.error();
    assert!(error.contains("tokenizer.model") && error.contains("byte 0"), "{error}");
}

#[test]
fn tokens_added_to_an_encoder_are_found_in_text() {
    let copy = Copy::of("bert");
    copy.edit_json("tokenizer.json", |json| {
        let vocab = json["model"]["vocab"].as_object_mut().unwrap();
        // Ids that the model's own vocabulary does not have, as where tokens were added later.
        vocab.retain(|_, id| id.as_u64().unwrap() < 68);
        let added = json["added_tokens"].as_array_mut().unwrap();
        added.push(json!({"id": 68, "content": "<tag>", "special": false}));
        added.push(json!({"id": 69, "content": "[X]", "special": true}));
    });
    let tokenizer = tokenizer(&open(copy.path()).unwrap());
    assert!(tokenizer.is_control(69));
    let options = EncodeOptions { parse_special: true, ..EncodeOptions::default() };
    let ids = tokenizer.encode("<tag>[X]", options).unwrap();
    assert!(ids.windows(2).any(|pair| pair == [68, 69]), "{ids:?}");
}

#[test]
fn text_that_would_be_composed_is_told() {
    let copy = Copy::of("qwen2");
    let notes = |normalizer: Value| {
        copy.edit_json("tokenizer.json", |json| {
            json.insert("normalizer".into(), normalizer);
        });
        open(copy.path()).unwrap().notes().iter().filter(|note| note.contains("NFC")).count()
    };
    assert_eq!(notes(json!({"type": "NFC"})), 1);
    assert_eq!(notes(json!({"type": "Sequence", "normalizers": []})), 0);
    assert_eq!(notes(json!(null)), 0);
}

#[test]
fn a_vocabulary_of_words_alone_will_do_for_bert() {
    let copy = Copy::of("bert");
    let want = tokenizer(&open(copy.path()).unwrap());
    let json = crate::store::json(&copy.file("tokenizer.json"));
    let mut words: Vec<_> = json["model"]["vocab"].as_object().unwrap().iter().collect();
    words.sort_by_key(|(_, id)| id.as_u64());
    let words: Vec<&str> = words.iter().map(|(word, _)| word.as_str()).collect();
    std::fs::write(copy.file("vocab.txt"), words.join("\n") + "\n").unwrap();
    std::fs::remove_file(copy.file("tokenizer.json")).unwrap();
    copy.edit_json("config.json", |config| {
        for (key, id) in [("cls_token_id", 2), ("sep_token_id", 3), ("unk_token_id", 1)] {
            config.insert(key.into(), json!(id));
        }
    });
    let got = tokenizer(&open(copy.path()).unwrap());
    for id in 0..want.n_vocab() as u32 {
        assert_eq!(got.token_text(id), want.token_text(id));
        assert_eq!(got.is_control(id), want.is_control(id), "{id}");
    }
}
