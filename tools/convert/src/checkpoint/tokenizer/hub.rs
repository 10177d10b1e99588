//! tokenizer.json, as far as it matters here. Large parts are read into what is kept of them.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::vocab::Tokens;
use crate::{Error, Result};

/// The file.
#[derive(Default, Deserialize)]
pub(super) struct TokenizerJson {
    pub(super) model: ModelJson,
    #[serde(default)]
    pub(super) added_tokens: Vec<AddedToken>,
    #[serde(default)]
    pub(super) normalizer: Value,
    #[serde(default)]
    pub(super) pre_tokenizer: Value,
    #[serde(default)]
    pub(super) post_processor: Value,
}

/// Its model.
#[derive(Default, Deserialize)]
pub(super) struct ModelJson {
    #[serde(rename = "type")]
    kind: Option<String>,
    pub(super) vocab: Option<VocabJson>,
    merges: Option<Vec<Merge>>,
    pub(super) ignore_merges: Option<bool>,
    pub(super) unk_token: Option<String>,
    pub(super) unk_id: Option<u32>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
}

/// A token that was added to the vocabulary.
#[derive(Deserialize)]
pub(super) struct AddedToken {
    pub(super) id: u32,
    pub(super) content: String,
    #[serde(default)]
    pub(super) special: bool,
}

/// A vocabulary: ids by text, or texts with scores in the order of their ids.
pub(super) enum VocabJson {
    Ids(Vec<(String, u32)>),
    Scores(Vec<(String, f32)>),
}

impl<'de> Deserialize<'de> for VocabJson {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<VocabJson, D::Error> {
        struct Both;
        impl<'de> Visitor<'de> for Both {
            type Value = VocabJson;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("ids by token, or tokens with scores")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<VocabJson, A::Error> {
                let mut ids = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    ids.push(pair);
                }
                Ok(VocabJson::Ids(ids))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<VocabJson, A::Error> {
                let mut scores: Vec<(String, f32)> = Vec::new();
                while let Some(pair) = seq.next_element()? {
                    scores.push(pair);
                }
                match scores.iter().find(|(_, score)| !score.is_finite()) {
                    Some((text, score)) => Err(A::Error::custom(format!("{text:?} has {score}"))),
                    None => Ok(VocabJson::Scores(scores)),
                }
            }
        }
        from.deserialize_any(Both)
    }
}

/// Two texts: `"a b"`, or `["a", "b"]` in newer files.
struct Merge(String, String);

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Merge, D::Error> {
        struct Both;
        impl<'de> Visitor<'de> for Both {
            type Value = Merge;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("two texts")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Merge, E> {
                match text.split_once(' ') {
                    Some((a, b)) => Ok(Merge(a.to_string(), b.to_string())),
                    None => Err(E::custom(format!("merge {text:?} is not two texts"))),
                }
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Merge, A::Error> {
                match (seq.next_element()?, seq.next_element()?, seq.next_element::<String>()?) {
                    (Some(a), Some(b), None) => Ok(Merge(a, b)),
                    _ => Err(A::Error::custom("a merge is not two texts")),
                }
            }
        }
        from.deserialize_any(Both)
    }
}

impl TokenizerJson {
    /// The kind of its model. Old files do not say.
    pub(super) fn kind(&self) -> &str {
        let old = if self.model.merges.is_some() { "BPE" } else { "none" };
        self.model.kind.as_deref().unwrap_or(old)
    }

    /// Whether text is cut into bytes.
    pub(super) fn byte_level(&self) -> bool {
        steps(&self.pre_tokenizer, "pretokenizers").any(|(kind, _)| kind == "ByteLevel")
    }

    /// Whether spaces become U+2581, as SentencePiece has it.
    pub(super) fn escapes_spaces(&self) -> bool {
        let escapes = |(kind, step): (&str, &Value)| match kind {
            "Replace" => step.get("content").and_then(Value::as_str) == Some("\u{2581}"),
            "Metaspace" => true,
            _ => false,
        };
        steps(&self.normalizer, "normalizers").any(escapes)
            || steps(&self.pre_tokenizer, "pretokenizers").any(escapes)
    }

    /// Whether a space is put before a text.
    pub(super) fn adds_space(&self) -> bool {
        let prepend = |(kind, _): (&str, _)| kind == "Prepend";
        let metaspace = |(kind, step): (&str, &Value)| {
            let scheme = step.get("prepend_scheme").and_then(Value::as_str);
            let old = step.get("add_prefix_space") != Some(&Value::Bool(false));
            kind == "Metaspace" && scheme.map_or(old, |scheme| scheme != "never")
        };
        steps(&self.normalizer, "normalizers").any(prepend)
            || steps(&self.pre_tokenizer, "pretokenizers").any(metaspace)
    }

    /// Whether letters are lowered and accents taken away, as far as the normalizer says.
    pub(super) fn normalization(&self) -> (Option<bool>, Option<bool>) {
        let (mut lowercase, mut strip_accents) = (None, None);
        for (kind, step) in steps(&self.normalizer, "normalizers") {
            let flag = |key: &str| step.get(key).and_then(Value::as_bool);
            match kind {
                "Lowercase" => lowercase = Some(true),
                "StripAccents" => strip_accents = Some(true),
                "BertNormalizer" => {
                    lowercase = flag("lowercase").or(lowercase);
                    strip_accents = flag("strip_accents").or(strip_accents);
                }
                _ => {}
            }
        }
        (lowercase, strip_accents)
    }

    /// Refuses changes to text that files with merges of bytes cannot say. Returns whether text
    /// would be composed (NFC), which is left out as most text is.
    pub(super) fn leaves_text(&self, path: &Path) -> Result<bool> {
        let mut composed = false;
        for (kind, _) in steps(&self.normalizer, "normalizers") {
            match kind {
                "" if self.normalizer.is_null() => {}
                "NFC" => composed = true,
                kind => {
                    let reason = format!("the normalizer {kind:?} is not supported for this kind");
                    return Err(Error::file(path, reason));
                }
            }
        }
        Ok(composed)
    }

    /// SentencePiece's table of normalization.
    pub(super) fn charsmap(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        let map = steps(&self.normalizer, "normalizers")
            .find_map(|(_, step)| step.get("precompiled_charsmap")?.as_str());
        let Some(map) = map.filter(|map| !map.is_empty()) else { return Ok(None) };
        let bytes = base64(map);
        bytes.map(Some).ok_or_else(|| Error::file(path, "precompiled_charsmap is not base 64"))
    }

    /// Refuses what merges of plain texts cannot say.
    pub(super) fn no_affixes(&self, path: &Path) -> Result<()> {
        let empty = |affix: &Option<String>| affix.as_deref().is_none_or(str::is_empty);
        if empty(&self.model.continuing_subword_prefix) && empty(&self.model.end_of_word_suffix) {
            return Ok(());
        }
        let reason = "continuing_subword_prefix and end_of_word_suffix are not supported";
        Err(Error::file(path, reason))
    }

    /// Sets the tokens that were added.
    pub(super) fn add_tokens(&self, tokens: &mut Tokens, score: f32) {
        for added in &self.added_tokens {
            tokens.add(added.id, &added.content, added.special, score);
        }
    }

    fn pairs(&self, path: &Path) -> Result<&[Merge]> {
        let merges = self.model.merges.as_deref();
        merges.ok_or_else(|| Error::file(path, "model.merges is missing"))
    }

    /// The merges as GGUF files have them. A space within a text is that of the alphabet of bytes.
    pub(super) fn merges(&self, path: &Path) -> Result<Vec<String>> {
        let text = |text: &str| text.replace(' ', "Ġ");
        Ok(self.pairs(path)?.iter().map(|m| format!("{} {}", text(&m.0), text(&m.1))).collect())
    }

    /// The rank of the first merge that makes each text.
    pub(super) fn ranks(&self, path: &Path) -> Result<HashMap<Vec<u8>, usize>> {
        let pairs = self.pairs(path)?;
        let mut ranks = HashMap::with_capacity(pairs.len());
        for (rank, merge) in pairs.iter().enumerate() {
            ranks.entry([merge.0.as_bytes(), merge.1.as_bytes()].concat()).or_insert(rank);
        }
        Ok(ranks)
    }
}

/// The steps of a part, with their kinds: those of a sequence, or the one that it is.
pub(super) fn steps<'a>(part: &'a Value, list: &str) -> impl Iterator<Item = (&'a str, &'a Value)> {
    let several = part.get(list).and_then(Value::as_array);
    let steps = several.map_or(std::slice::from_ref(part), Vec::as_slice);
    steps.iter().map(|step| (step.get("type").and_then(Value::as_str).unwrap_or(""), step))
}

/// Bytes of text in base 64.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| {
        Some(match b {
            b'A'..=b'Z' => b - b'A',
            b'a'..=b'z' => b - b'a' + 26,
            b'0'..=b'9' => b - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        })
    };
    let text = text.trim_end_matches('=').as_bytes();
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 3);
    for chunk in text.chunks(4) {
        let mut bits = 0u32;
        for b in chunk {
            bits = bits << 6 | u32::from(digit(*b)?);
        }
        bits <<= 6 * (4 - chunk.len());
        let [_, bytes @ ..] = bits.to_be_bytes();
        out.extend(bytes.get(..(chunk.len() * 6 / 8))?);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base_64_of_any_length() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("TQ==", b"M"),
            ("TWE=", b"Ma"),
            ("TWFu", b"Man"),
            ("/+8A", b"\xff\xef\0"),
        ] {
            assert_eq!(base64(text).as_deref(), Some(bytes));
        }
        assert_eq!(base64("T?=="), None);
    }
}
