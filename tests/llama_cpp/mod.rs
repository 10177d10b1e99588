//! The models folder of llama.cpp's source: sample vocabularies and chat templates.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The folder in the user's cache, fetched by tests/data/tokenizer/fetch.py if it is not there.
/// Where that fails tests are skipped, with a message.
///
/// Panics if `CI` is set and it fails.
pub fn folder() -> Option<&'static Path> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| match find_folder() {
        Ok(folder) => Some(folder),
        Err(reason) => {
            let reason = format!("llama.cpp's models folder could not be had: {reason}");
            let ci = std::env::var("CI").is_ok_and(|ci| !ci.is_empty() && ci != "false");
            assert!(!ci, "{reason}");
            // Not by a print macro, whose text a test that passes keeps back.
            let _ = writeln!(std::io::stderr(), "SKIPPED: {reason}");
            None
        }
    });
    folder.as_deref()
}

fn find_folder() -> Result<PathBuf, String> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .or_else(|| std::env::var_os("LOCALAPPDATA"))
        .map(PathBuf::from)
        .or_else(|| Some(std::env::home_dir()?.join(".cache")))
        .ok_or("no cache folder")?;
    let folder = cache.join("siskin").join("llama.cpp-models");
    if folder.is_dir() {
        return Ok(folder);
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tokenizer/fetch.py");
    let python = if cfg!(windows) { "python" } else { "python3" };
    let output = Command::new(python).arg(script).arg(&folder).output();
    match output.map_err(|error| format!("{python}: {error}"))? {
        output if output.status.success() => Ok(folder),
        output => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}
