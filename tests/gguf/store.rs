//! Real models, where there are any: in the folder that `SISKIN_TEST_MODELS` names, or in the store
//! of the command.

use std::path::PathBuf;
use std::time::Instant;

use siskin::gguf::GgufFile;

/// Every GGUF file of the folder.
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

#[test]
fn real_models_open_and_every_token_and_tensor_is_there() {
    for path in models() {
        let start = Instant::now();
        let file = GgufFile::open(&path).unwrap_or_else(|e| panic!("{e}"));
        let took = start.elapsed();
        let metadata = file.metadata();
        assert!(metadata.str("general.architecture").expect("a string").is_some());
        let tokens = metadata.array("tokenizer.ggml.tokens").expect("an array").expect("tokens");
        assert!(tokens.iter_bytes().enumerate().all(|(i, t)| tokens.get_bytes(i) == Some(t)));
        for tensor in file.tensors() {
            assert_eq!(file.tensor(&tensor.name), Some(tensor));
            assert_eq!(file.tensor_data(tensor).len() as u64, tensor.n_bytes);
        }
        // Without optimization, on a machine with other work, it takes what it takes.
        let limit = if cfg!(debug_assertions) { 1000 } else { 30 };
        assert!(took.as_millis() < limit, "{}: {took:?}", path.display());
        println!("{}: {} tokens, opened in {took:?}", path.display(), tokens.len());
    }
}
