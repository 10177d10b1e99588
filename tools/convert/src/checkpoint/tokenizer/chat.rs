//! Chat templates.

use std::path::Path;

use serde_json::Value;

use super::super::json;
use super::super::keys::Keys;
use super::Files;
use crate::{Error, Result};

/// The most templates of a model; few have more than three.
const MAX_TEMPLATES: usize = 64;

/// Adds the template: that of tokenizer_config.json, else of chat_template.jinja, else of
/// chat_template.json; of several, each under its name.
pub(super) fn add(files: &Files<'_>, keys: &mut Keys) -> Result<()> {
    let source = files.dir.join("chat_template.jinja");
    let alone = files.dir.join("chat_template.json");
    let template = match files.config.get("chat_template").filter(|value| !value.is_null()) {
        Some(template) => template.clone(),
        None if source.is_file() => {
            let mut all = vec![named("default", json::text(&source)?)];
            let folder = files.dir.join("additional_chat_templates");
            if folder.is_dir() {
                let entries = std::fs::read_dir(&folder).map_err(|e| Error::io(&folder, e))?;
                let paths: std::io::Result<Vec<_>> = entries.map(|e| Ok(e?.path())).collect();
                let mut paths = paths.map_err(|e| Error::io(&folder, e))?;
                paths.retain(|path| path.extension().is_some_and(|e| e == "jinja"));
                paths.sort();
                few(&folder, paths.len())?;
                for path in &paths {
                    let name = path.file_stem().and_then(|name| name.to_str());
                    if let Some(name) = name {
                        all.push(named(name, json::text(path)?));
                    }
                }
            }
            Value::Array(all)
        }
        None => match json::read_if_there::<Value>(&alone)? {
            Some(value) => value.get("chat_template").cloned().unwrap_or_default(),
            None => Value::Null,
        },
    };
    let mut names = Vec::new();
    match template {
        Value::String(text) => keys.set("tokenizer.chat_template", text),
        Value::Array(all) => {
            few(files.dir, all.len())?;
            for one in &all {
                let name = one.get("name").and_then(Value::as_str).unwrap_or_default();
                let Some(text) = one.get("template").and_then(Value::as_str) else { continue };
                let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
                let name: String = name.chars().map(plain).collect();
                if name == "default" {
                    keys.set("tokenizer.chat_template", text);
                } else if !name.is_empty() {
                    keys.set(format!("tokenizer.chat_template.{name}"), text);
                    names.push(name);
                }
            }
        }
        _ => {}
    }
    names.dedup();
    keys.set_opt("tokenizer.chat_templates", (!names.is_empty()).then_some(names));
    Ok(())
}

/// Refuses more templates than a model can have a use for.
fn few(path: &Path, n: usize) -> Result<()> {
    if n <= MAX_TEMPLATES {
        return Ok(());
    }
    Err(Error::file(path, format!("{n} chat templates; {MAX_TEMPLATES} are the most")))
}

fn named(name: &str, template: String) -> Value {
    serde_json::json!({ "name": name, "template": template })
}
