//! Where real models are.

use std::path::PathBuf;

/// Every GGUF file of the folder that `SISKIN_TEST_MODELS` names, or of the command's store.
pub fn models() -> Vec<PathBuf> {
    let var = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let cache = || {
        let home = || Some(std::env::home_dir()?.join(".cache"));
        var("XDG_CACHE_HOME").or_else(|| var("LOCALAPPDATA")).or_else(home)
    };
    let store = || Some(cache()?.join("siskin").join("models"));
    let folder = var("SISKIN_TEST_MODELS").or_else(|| var("SISKIN_HOME")).or_else(store);
    let Some(entries) = folder.and_then(|folder| std::fs::read_dir(folder).ok()) else {
        return Vec::new();
    };
    let paths = entries.filter_map(|e| Some(e.ok()?.path()));
    let mut paths: Vec<PathBuf> =
        paths.filter(|p| p.extension().is_some_and(|e| e == "gguf")).collect();
    paths.sort();
    if paths.is_empty() {
        eprintln!("\nno models: set SISKIN_TEST_MODELS to a folder with some\n");
    }
    paths
}
