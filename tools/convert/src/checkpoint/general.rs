//! Keys under `general.`: what the model is called, what its card says, how it likes to be sampled.

use std::path::Path;

use serde_json::{Map, Value};

use super::card::Card;
use super::config::Config;
use super::json;
use super::keys::Keys;
use super::model_id::{ModelId, title};
use crate::{Error, Result};

/// Sampling parameters: the key, its names in generation_config.json, whether it is a whole number.
const SAMPLING: &[(&str, &[&str], bool)] = &[
    ("top_k", &["top_k"], true),
    ("top_p", &["top_p"], false),
    ("min_p", &["min_p"], false),
    ("xtc_probability", &["xtc_probability"], false),
    ("xtc_threshold", &["xtc_threshold"], false),
    ("temp", &["temperature"], false),
    ("penalty_last_n", &["penalty_last_n"], true),
    ("penalty_repeat", &["penalty_repeat", "repetition_penalty"], false),
    ("mirostat", &["mirostat"], true),
    ("mirostat_tau", &["mirostat_tau"], false),
    ("mirostat_eta", &["mirostat_eta"], false),
];

/// Adds the keys, in llama.cpp's words and types.
pub(super) fn add(
    dir: &Path,
    config: &Config,
    name: Option<&str>,
    n_params: u64,
    keys: &mut Keys,
) -> Result<()> {
    sampling(dir, keys)?;
    let card = Card::open(dir)?;
    // From the most to the least telling: a name in the configuration, unless it is a path; the
    // folder's. Without its links, so that `.` has a name too.
    let folder = dir.canonicalize().ok().and_then(|d| Some(d.file_name()?.to_str()?.to_string()));
    let origin = config.str_opt(&["_name_or_path"]).filter(|s| s.matches('/').count() <= 1);
    let ids: Vec<ModelId> = [origin, folder.as_deref()]
        .into_iter()
        .flatten()
        .map(|id| ModelId::parse(id, n_params))
        .collect();
    let first = |part: fn(&ModelId) -> &Option<String>| ids.iter().find_map(|id| part(id).clone());
    let called = card.str(&["name", "model_name"]).map(String::from);
    let called = called.or_else(|| first(|id| &id.name).map(|name| title(&name)));
    let name = name.map(String::from).or(called).unwrap_or_else(|| "model".to_string());
    keys.set("general.name", name);
    let card_str = |names: &[&str]| card.str(names).map(String::from);
    let author = card_str(&["author", "model_author", "model_creator"]);
    keys.set_opt("general.author", author);
    let version = card_str(&["version", "model_version"]);
    keys.set_opt("general.version", version.or_else(|| first(|id| &id.version)));
    let organization = card_str(&["organization", "model_organization"]);
    let organization = organization.or_else(|| first(|id| &id.organization).map(|o| title(&o)));
    keys.set_opt("general.organization", organization);
    let finetune = card_str(&["finetune", "model_finetune"]);
    keys.set_opt("general.finetune", finetune.or_else(|| first(|id| &id.finetune)));
    let basename = card_str(&["basename", "model_basename", "model_type"]);
    keys.set_opt("general.basename", basename.or_else(|| first(|id| &id.basename)));
    keys.set_opt("general.description", card_str(&["description", "model_description"]));
    let size = card_str(&["size_label", "model_size_label"]).or_else(|| first(|id| &id.size_label));
    keys.set("general.size_label", size.unwrap_or_else(|| size_label(n_params)));
    let licenses = card.list(&["license"]);
    keys.set_opt("general.license", (!licenses.is_empty()).then(|| licenses.join(",")));
    keys.set_opt("general.license.name", card_str(&["license_name"]));
    keys.set_opt("general.license.link", card_str(&["license_link"]));
    parents("general.base_model", &card.list(&["base_model", "base_models"]), n_params, keys);
    parents("general.dataset", &card.list(&["datasets", "dataset"]), n_params, keys);
    let tags = [card.list(&["tags"]), card.list(&["pipeline_tag"])].concat();
    keys.set_opt("general.tags", (!tags.is_empty()).then_some(tags));
    let languages = [card.list(&["languages"]), card.list(&["language"])].concat();
    keys.set_opt("general.languages", (!languages.is_empty()).then_some(languages));
    Ok(())
}

/// What a model was made from: models, or data.
fn parents(key: &str, ids: &[String], n_params: u64, keys: &mut Keys) {
    if ids.is_empty() {
        return;
    }
    keys.set(format!("{key}.count"), ids.len() as u32);
    for (i, id) in ids.iter().enumerate() {
        if id.contains("://") {
            keys.set(format!("{key}.{i}.repo_url"), id.as_str());
            continue;
        }
        let parts = ModelId::parse(id, n_params);
        keys.set_opt(format!("{key}.{i}.name"), parts.name.as_deref().map(title));
        keys.set_opt(format!("{key}.{i}.version"), parts.version);
        let organization = parts.organization.as_deref();
        keys.set_opt(format!("{key}.{i}.organization"), organization.map(title));
        let url = organization.zip(parts.name.as_deref());
        let url = url.map(|(owner, name)| format!("https://huggingface.co/{owner}/{name}"));
        keys.set_opt(format!("{key}.{i}.repo_url"), url);
    }
}

fn sampling(dir: &Path, keys: &mut Keys) -> Result<()> {
    let path = dir.join("generation_config.json");
    let Some(values) = json::read_if_there::<Map<String, Value>>(&path)? else { return Ok(()) };
    let wrong = |name: &str, value: &Value| Error::file(&path, format!("{name} is {value}"));
    for (key, names, whole) in SAMPLING {
        let found = names.iter().find_map(|name| Some((*name, values.get(*name)?)));
        let Some((name, value)) = found.filter(|(_, value)| !value.is_null()) else { continue };
        let key = format!("general.sampling.{key}");
        if *whole {
            let n = value.as_i64().and_then(|n| i32::try_from(n).ok());
            keys.set(key, n.ok_or_else(|| wrong(name, value))?);
        } else {
            let x = value.as_f64().map(|x| x as f32).filter(|x| x.is_finite());
            keys.set(key, x.ok_or_else(|| wrong(name, value))?);
        }
    }
    Ok(())
}

/// How many parameters, in two digits or more.
fn size_label(n_params: u64) -> String {
    let n = n_params as f64;
    let (scaled, unit) = match n {
        n if n > 1e12 => (n * 1e-12, 'T'),
        n if n > 1e9 => (n * 1e-9, 'B'),
        n if n > 1e6 => (n * 1e-6, 'M'),
        n => (n * 1e-3, 'K'),
    };
    let digits = format!("{scaled:.0}").trim_start_matches('0').len();
    let places = 2usize.saturating_sub(digits);
    format!("{scaled:.places$}{unit}")
}

/// How the sentence embedding is made of the tokens', by the modules of sentence-transformers.
pub(super) fn add_pooling(dir: &Path, arch: &str, keys: &mut Keys) -> Result<()> {
    let modules: Option<Value> = json::read_if_there(&dir.join("modules.json"))?;
    let modules = modules.as_ref().and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let text = |module: &Value, key: &str| Some(module.get(key)?.as_str()?.to_string());
    let is_pooling = |m: &&Value| text(m, "type").is_some_and(|ty| ty.ends_with("Pooling"));
    let Some(folder) = modules.iter().find(is_pooling).and_then(|m| text(m, "path")) else {
        return Ok(());
    };
    let path = dir.join(&folder).join("config.json");
    if Path::new(&folder).components().any(|c| !matches!(c, std::path::Component::Normal(_))) {
        return Err(Error::file(&path, "modules.json names a folder outside the checkpoint"));
    }
    let pooling: Map<String, Value> = json::read(&path)?;
    let on = |key: &str| pooling.get(key) == Some(&Value::Bool(true));
    let mode = pooling.get("pooling_mode").and_then(Value::as_str).unwrap_or_default();
    // llama.cpp's numbers.
    let kind: u32 = if on("pooling_mode_mean_tokens") || mode == "mean" {
        1
    } else if on("pooling_mode_cls_token") || mode == "cls" {
        2
    } else if on("pooling_mode_lasttoken") || mode == "lasttoken" {
        3
    } else {
        return Err(Error::file(&path, "the pooling is neither mean, cls nor lasttoken"));
    };
    keys.set(format!("{arch}.pooling_type"), kind);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::size_label;

    #[test]
    fn sizes_have_two_digits_or_more() {
        for (n, label) in [
            (134_515_008, "135M"),
            (1_235_814_400, "1.2B"),
            (7_241_732_096, "7.2B"),
            (70_553_706_496, "71B"),
            (50_400, "50K"),
            (950, "1.0K"),
        ] {
            assert_eq!(size_label(n), label);
        }
    }
}
