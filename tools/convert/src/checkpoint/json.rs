//! Reading JSON files of a bounded size.

use std::io::Read;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::{Error, Result};

/// The largest file of text that is read. The largest known tokenizer.json has about 40 MB.
const MAX_BYTES: u64 = 256 << 20;

/// The text of a file.
pub(super) fn text(path: &Path) -> Result<String> {
    let bytes = bytes(path)?;
    String::from_utf8(bytes).map_err(|e| {
        Error::file(path, format!("byte {} is not UTF-8", e.utf8_error().valid_up_to()))
    })
}

/// The bytes of a file.
pub(super) fn bytes(path: &Path) -> Result<Vec<u8>> {
    let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| Error::io(path, e))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::file(path, format!("more than {MAX_BYTES} bytes")));
    }
    Ok(bytes)
}

/// Reads a file.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    parse(path, &text(path)?)
}

/// Reads a file that may not be there.
pub(super) fn read_if_there<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    if path.is_file() { read(path).map(Some) } else { Ok(None) }
}

/// Reads text that came from `path`.
pub(super) fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|e| Error::file(path, e.to_string()))
}
