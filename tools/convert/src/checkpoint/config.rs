//! config.json: the numbers of a model under the names that its family gives them.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::json;
use crate::{Error, Result};

/// What a configuration may leave out, as the classes of `transformers` have it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fallback {
    U(u64),
    F(f64),
    B(bool),
}

/// A model's config.json. What describes its text part goes before the rest.
#[derive(Debug)]
pub(super) struct Config {
    path: PathBuf,
    values: Map<String, Value>,
    fallbacks: &'static [(&'static str, Fallback)],
}

/// An error of one key.
fn wrong<T>(path: &Path, key: &str, reason: impl std::fmt::Display) -> Result<T> {
    Err(Error::file(path, format!("{key} {reason}")))
}

impl Config {
    /// Reads the file of a folder.
    pub(super) fn open(dir: &Path) -> Result<Config> {
        let path = dir.join("config.json");
        Self::parse(&path, &json::text(&path)?)
    }

    /// Reads text that came from `path`.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Config> {
        let mut values: Map<String, Value> = json::parse(path, text)?;
        if let Some(Value::Object(text)) = values.remove("text_config") {
            // The outer name is that of the whole model, which decides how to convert it.
            let outer = values.get("architectures").cloned();
            values.extend(text);
            if let Some(outer) = outer {
                values.insert("architectures".into(), outer);
            }
        }
        Ok(Config { path: path.to_path_buf(), values, fallbacks: &[] })
    }

    /// With what a family may leave out.
    pub(super) fn with_fallbacks(self, fallbacks: &'static [(&'static str, Fallback)]) -> Config {
        Config { fallbacks, ..self }
    }

    /// An error of this file.
    pub(super) fn error(&self, reason: impl Into<String>) -> Error {
        Error::file(&self.path, reason)
    }

    /// The value of the first of some keys that is there and not null.
    pub(super) fn value(&self, keys: &[&str]) -> Option<(&str, &Value)> {
        let pairs = keys.iter().filter_map(|key| self.values.get_key_value(*key));
        pairs.map(|(key, value)| (key.as_str(), value)).find(|(_, value)| !value.is_null())
    }

    /// Whether a key is there and null, which turns off what is on where the key is missing.
    pub(super) fn is_null(&self, key: &str) -> bool {
        self.values.get(key).is_some_and(Value::is_null)
    }

    fn fallback(&self, keys: &[&str]) -> Option<Fallback> {
        self.fallbacks.iter().find(|(key, _)| keys.contains(key)).map(|(_, value)| *value)
    }

    fn missing<T>(&self, keys: &[&str]) -> Result<T> {
        wrong(&self.path, &keys.join(" or "), "is missing")
    }

    /// A whole number that may be missing.
    pub(super) fn u32_opt(&self, keys: &[&str]) -> Result<Option<u32>> {
        let Some((key, value)) = self.value(keys) else {
            return Ok(match self.fallback(keys) {
                Some(Fallback::U(n)) => u32::try_from(n).ok(),
                _ => None,
            });
        };
        match value.as_u64().and_then(|n| u32::try_from(n).ok()) {
            Some(n) => Ok(Some(n)),
            None => wrong(&self.path, key, format!("is {value}, not a number from 0 to 2^32 - 1")),
        }
    }

    /// A whole number.
    pub(super) fn u32(&self, keys: &[&str]) -> Result<u32> {
        self.u32_opt(keys)?.map_or_else(|| self.missing(keys), Ok)
    }

    /// A number that counts something, so it is not 0, and small enough that products of two fit.
    pub(super) fn size(&self, keys: &[&str]) -> Result<usize> {
        match self.u32(keys)? {
            n @ 1..=0x100_0000 => Ok(n as usize),
            n => wrong(&self.path, &keys.join(" or "), format!("is {n}, not from 1 to 2^24")),
        }
    }

    /// A number that may be missing.
    pub(super) fn f32_opt(&self, keys: &[&str]) -> Result<Option<f32>> {
        let Some((key, value)) = self.value(keys) else {
            return Ok(match self.fallback(keys) {
                Some(Fallback::F(x)) => Some(x as f32),
                _ => None,
            });
        };
        number(&self.path, key, value).map(Some)
    }

    /// A number.
    pub(super) fn f32(&self, keys: &[&str]) -> Result<f32> {
        self.f32_opt(keys)?.map_or_else(|| self.missing(keys), Ok)
    }

    /// A truth value that may be missing.
    pub(super) fn bool_opt(&self, key: &str) -> Result<Option<bool>> {
        match (self.value(&[key]), self.fallback(&[key])) {
            (Some((_, Value::Bool(b))), _) => Ok(Some(*b)),
            (Some((_, other)), _) => {
                wrong(&self.path, key, format!("is {other}, not true or false"))
            }
            (None, Some(Fallback::B(b))) => Ok(Some(b)),
            (None, _) => Ok(None),
        }
    }

    /// A string that may be missing.
    pub(super) fn str_opt(&self, keys: &[&str]) -> Option<&str> {
        self.value(keys)?.1.as_str()
    }

    /// An object that may be missing.
    pub(super) fn object(&self, keys: &[&str]) -> Result<Option<&Map<String, Value>>> {
        match self.value(keys) {
            None => Ok(None),
            Some((_, Value::Object(map))) => Ok(Some(map)),
            Some((key, other)) => wrong(&self.path, key, format!("is {other}, not an object")),
        }
    }

    /// The class of `transformers` that the model is of.
    pub(super) fn class(&self) -> Result<&str> {
        let class = self.value(&["architectures"]).and_then(|(_, v)| v.get(0)?.as_str());
        class.map_or_else(|| self.missing(&["architectures"]), Ok)
    }
}

/// A finite number.
fn number(path: &Path, key: &str, value: &Value) -> Result<f32> {
    match value.as_f64().map(|x| x as f32).filter(|x| x.is_finite()) {
        Some(x) => Ok(x),
        None => wrong(path, key, format!("is {value}, not a number that f32 can hold")),
    }
}

/// The rotary embedding of the layers of one kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Rope {
    /// `default`, `linear`, `llama3` and so on.
    pub(super) kind: String,
    pub(super) theta: Option<f32>,
    values: Map<String, Value>,
    path: PathBuf,
}

impl Rope {
    /// A number of these parameters.
    pub(super) fn f32(&self, key: &str) -> Result<Option<f32>> {
        let value = self.values.get(key).filter(|value| !value.is_null());
        value.map(|value| number(&self.path, key, value)).transpose()
    }

    /// An error of the file that they are from.
    pub(super) fn error(&self, reason: String) -> Error {
        Error::file(&self.path, reason)
    }

    /// The number that the kind cannot do without.
    pub(super) fn need(&self, key: &str) -> Result<f32> {
        let missing = || Error::file(&self.path, format!("rope_parameters: {key} is missing"));
        self.f32(key)?.ok_or_else(missing)
    }
}

impl Config {
    /// The rotary embeddings: of layers that see all positions, and of those with a window where
    /// these differ.
    pub(super) fn ropes(&self) -> Result<(Rope, Option<Rope>)> {
        let given = self.object(&["rope_parameters", "rope_scaling"])?.cloned().unwrap_or_default();
        let part = |name: &str| match given.get(name) {
            Some(Value::Object(part)) => Some(part.clone()),
            _ => None,
        };
        let rope = |values: Map<String, Value>, theta: Option<f32>| -> Result<Rope> {
            let kind = ["rope_type", "type"].iter().find_map(|key| values.get(*key)?.as_str());
            let kind = kind.unwrap_or("default").to_string();
            let mut rope = Rope { kind, theta: None, values, path: self.path.clone() };
            rope.theta = rope.f32("rope_theta")?.or(theta);
            Ok(rope)
        };
        let theta = self.f32_opt(&["global_rope_theta", "rope_theta", "rotary_emb_base"])?;
        let local_theta = self.f32_opt(&["rope_local_base_freq", "local_rope_theta"])?;
        let full = rope(part("full_attention").unwrap_or_else(|| given.clone()), theta)?;
        let local = match (part("sliding_attention"), local_theta) {
            (Some(values), theta) => Some(rope(values, theta)?),
            (None, Some(theta)) => Some(rope(Map::new(), Some(theta))?),
            (None, None) => None,
        };
        Ok((full, local))
    }
}
