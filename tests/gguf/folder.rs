//! Real models: which of them tests know, where they are, and which a test may not do without.

use std::io::Write;
use std::path::PathBuf;

/// The models that `siskin list` names, and the lengths of their files, by which they are known
/// whatever they are called.
pub const KNOWN: [(&str, u64); 3] = [
    ("smollm2-135m", 98_362_432),
    ("gemma3-270m", 253_113_024),
    ("qwen2.5-coder-0.5b", 491_400_064),
];

/// A real model at hand.
pub struct RealModel {
    /// Its name, if it is one of [`KNOWN`].
    pub name: Option<&'static str>,
    /// Its file.
    pub path: PathBuf,
}

/// Says something that shows in the output of tests that pass, too: what the print macros write is
/// kept back then.
pub fn say(text: &str) {
    // With nobody to read it there is nothing to do.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Whether a test must fail where this model is missing: if `SISKIN_TEST_REQUIRED` names it, or if
/// only `CI` is set.
pub fn required(name: &str) -> bool {
    match std::env::var("SISKIN_TEST_REQUIRED") {
        Ok(names) => names.split_whitespace().any(|n| n == name),
        Err(_) => std::env::var("CI").is_ok_and(|ci| !ci.is_empty() && ci != "false"),
    }
}

/// Every GGUF file of the folder that `SISKIN_TEST_MODELS` names, or of the command's store. Says
/// which of the [`KNOWN`] ones are missing.
///
/// Panics if one of those is [`required`].
pub fn models() -> Vec<RealModel> {
    let var = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let cache = || {
        let folder = if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" };
        let home = || Some(std::env::home_dir()?.join(folder));
        var("XDG_CACHE_HOME").or_else(|| var("LOCALAPPDATA")).or_else(home)
    };
    let store = || Some(cache()?.join("siskin").join("models"));
    let folder = var("SISKIN_TEST_MODELS").or_else(|| var("SISKIN_HOME")).or_else(store);
    let entries = folder.and_then(|folder| std::fs::read_dir(folder).ok());
    let paths = entries.into_iter().flatten().filter_map(|e| Some(e.ok()?.path()));
    let mut paths: Vec<PathBuf> =
        paths.filter(|p| p.extension().is_some_and(|e| e == "gguf")).collect();
    paths.sort();
    let models: Vec<RealModel> = paths
        .into_iter()
        .map(|path| {
            let bytes = path.metadata().map_or(0, |m| m.len());
            let name = KNOWN.iter().find(|(_, n)| *n == bytes).map(|(name, _)| *name);
            RealModel { name, path }
        })
        .collect();
    for (name, _) in KNOWN {
        if !models.iter().any(|m| m.name == Some(name)) {
            assert!(!required(name), "{name} is not at hand: `siskin pull {name}`");
            say(&format!("SKIPPED: {name} is not at hand: `siskin pull {name}`"));
        }
    }
    models
}
