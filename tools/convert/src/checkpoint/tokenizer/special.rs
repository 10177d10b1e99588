//! Tokens with a part to play, and which of them are put around a text: by the post-processor of
//! tokenizer.json, tokenizer_config.json and config.json, in llama.cpp's order.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::config::Config;
use super::super::keys::Keys;
use super::Files;
use super::hub::{TokenizerJson, steps};

/// Parts, and their keys' beginnings.
const PARTS: [(&str, &str); 9] = [
    ("bos", "bos"),
    ("eos", "eos"),
    ("unk", "unknown"),
    // Misspelt from the beginning.
    ("sep", "seperator"),
    ("pad", "padding"),
    ("mask", "mask"),
    ("eot", "eot"),
    ("eom", "eom"),
    ("cls", ""),
];

/// What is known of the parts.
#[derive(Default)]
struct Special {
    /// The texts of the tokens.
    texts: BTreeMap<&'static str, String>,
    /// Whether they are added to a text.
    added: BTreeMap<&'static str, bool>,
}

/// Adds the keys. `unknown` is the token that the model itself takes for what it lacks.
pub(super) fn add(
    files: &Files<'_>,
    config: &Config,
    n_vocab: usize,
    unknown: Option<u32>,
    keys: &mut Keys,
) {
    let mut special = Special::default();
    for (part, _) in PARTS {
        let entry = files.config.get(&format!("{part}_token"));
        let text = entry.and_then(|e| e.as_str().or_else(|| e.get("content")?.as_str()));
        if let Some(text) = text {
            special.texts.insert(part, text.to_string());
        }
    }
    if let Some((_, json)) = &files.json {
        special.post_process(json);
    }
    for part in ["bos", "eos", "sep"] {
        if let Some(Value::Bool(add)) = files.config.get(&format!("add_{part}_token")) {
            special.added.entry(part).or_insert(*add);
        }
    }
    let byte_level = files.json.as_ref().is_some_and(|(_, json)| json.byte_level());
    if byte_level && !files.dir.join("tokenizer.model").is_file() {
        // Readers take some of these for adding it where the file does not say.
        special.added.entry("bos").or_insert(false);
    }
    for (part, key) in PARTS.iter().filter(|(_, key)| !key.is_empty()) {
        let id = special.id(part, files).or_else(|| {
            let (_, value) = config.value(&[format!("{part}_token_id").as_str()])?;
            u32::try_from(value.as_u64()?).ok()
        });
        let id = id.or(unknown.filter(|_| *part == "unk")).filter(|id| (*id as usize) < n_vocab);
        keys.set_opt(format!("tokenizer.ggml.{key}_token_id"), id);
    }
    for (part, add) in &special.added {
        keys.set(format!("tokenizer.ggml.add_{part}_token"), *add);
    }
}

impl Special {
    /// The id of a part's token, by its text.
    fn id(&self, part: &str, files: &Files<'_>) -> Option<u32> {
        let text = self.texts.get(part)?;
        let (_, json) = files.json.as_ref()?;
        json.added_tokens.iter().find(|added| added.content == *text).map(|added| added.id)
    }

    fn is(&self, part: &str, text: &str) -> bool {
        self.texts.get(part).is_some_and(|t| t == text)
    }

    fn post_process(&mut self, json: &TokenizerJson) {
        // BERT begins and ends with what others call by other names.
        for (part, other) in [("bos", "cls"), ("eos", "sep")] {
            if let (None, Some(text)) = (self.texts.get(part), self.texts.get(other).cloned()) {
                self.texts.insert(part, text);
            }
        }
        for (kind, step) in steps(&json.post_processor, "processors") {
            match kind {
                "ByteLevel" => {
                    self.added.entry("bos").or_insert(false);
                    self.added.entry("eos").or_insert(false);
                }
                "RobertaProcessing" => {
                    self.added.extend([("bos", true), ("eos", true), ("sep", true)]);
                    for part in ["cls", "sep"] {
                        let text = step.get(part).and_then(|pair| pair.get(0)?.as_str());
                        if let (None, Some(text)) = (self.texts.get(part), text) {
                            self.texts.insert(part, text.to_string());
                        }
                    }
                }
                "TemplateProcessing" => self.template(step),
                _ => {}
            }
        }
    }

    /// A template for one text, and one for two.
    fn template(&mut self, step: &Value) {
        let items = |key: &str| step.get(key).and_then(Value::as_array).map_or(&[][..], |v| v);
        let token = |item: Option<&Value>| {
            item.and_then(|item| Some(item.get("SpecialToken")?.get("id")?.as_str()?.to_string()))
        };
        let single = items("single");
        let (mut first, mut last) = (None, None);
        if single.len() > 1 {
            first = token(single.first());
            last = token(single.last());
        }
        if let Some(first) = &first {
            if !self.is("bos", first) && !self.is("cls", first) {
                for part in ["bos", "cls"] {
                    self.texts.entry(part).or_insert_with(|| first.clone());
                }
            }
            let known = self.is("bos", first) || self.is("cls", first);
            self.added.insert("bos", known);
        }
        if let Some(last) = &last {
            if !self.is("eos", last) {
                // What the configuration takes for the end ends a turn then.
                let turn = if self.texts.contains_key("eot") { "eom" } else { "eot" };
                if let Some(eos) = self.texts.insert("eos", last.clone()) {
                    self.texts.entry(turn).or_insert(eos);
                }
            }
            self.added.insert("eos", true);
        }
        // What stands between two texts.
        let mut pair = items("pair");
        if first.is_some() && token(pair.first()) == first {
            pair = pair.get(1..).unwrap_or_default();
        }
        if last.is_some() && token(pair.last()) == last {
            pair = pair.get(..pair.len() - 1).unwrap_or_default();
        }
        let between = pair.get(1..pair.len().saturating_sub(1)).unwrap_or_default();
        if between.is_empty() {
            return;
        }
        let separates = |item: Option<&Value>| {
            token(item).is_some_and(|text| self.is("sep", &text) || self.is("eos", &text))
        };
        let second = between.len() == 2 && separates(between.get(1));
        let add = separates(between.first()) && last.is_none() || second;
        self.added.insert("sep", add);
        if let (true, Some(eos)) = (add, self.texts.get("eos").cloned()) {
            self.texts.entry("sep").or_insert(eos);
        }
    }
}
