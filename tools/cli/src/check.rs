//! Whether the files of the store are still what was fetched.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;
use sha2::{Digest, Sha256};
use siskin::gguf::GgufFile;

use crate::download;

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Check {
    /// The SHA-256 is the one that it should be.
    Good,
    /// It is not, or the file is no GGUF file.
    Damaged,
    /// A GGUF file of which no SHA-256 is known.
    Unknown,
}

/// Reads all of a model's files; `sha256` is that of its only file, where it is known.
pub fn check(files: &[PathBuf], sha256: Option<&str>) -> anyhow::Result<Check> {
    if let (Some(want), [file]) = (sha256, files) {
        let good = digest(file)? == want;
        return Ok(if good { Check::Good } else { Check::Damaged });
    }
    // Opening the first part opens them all.
    let opened = files.first().map(GgufFile::open);
    Ok(if matches!(opened, Some(Ok(_))) { Check::Unknown } else { Check::Damaged })
}

/// A file's SHA-256.
fn digest(path: &Path) -> anyhow::Result<String> {
    let name = || path.display().to_string();
    let mut file = File::open(path).with_context(name)?;
    let bar = download::progress(Some(file.metadata().with_context(name)?.len()))?;
    let mut digest = Sha256::new();
    let copied = download::copy(&mut file, &mut std::io::sink(), &mut digest, &bar);
    copied.map_err(std::io::Error::from).with_context(name)?;
    bar.finish_and_clear();
    Ok(download::hex(digest))
}
