//! Files in parts, named `NAME-00001-of-00003.gguf` and so on.

use std::path::{Path, PathBuf};

use super::value::Metadata;
use crate::{Error, Result};

/// The prefix, the number of a part (from 1) and how many there are, if `name` is that of a part.
fn parse(name: &str) -> Option<(&str, usize, usize)> {
    let stem = name.strip_suffix(".gguf")?;
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (prefix, number) = rest.rsplit_once('-')?;
    let digits = |s: &str| s.len() == 5 && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(count) || !digits(number) {
        return None;
    }
    Some((prefix, number.parse().ok()?, count.parse().ok()?))
}

/// The paths of all parts of the file that `path` is, or is a part of.
pub(super) fn parts(path: &Path) -> Result<Vec<PathBuf>> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let Some((prefix, number, count)) = parse(name) else { return Ok(vec![path.to_path_buf()]) };
    if number == 0 || number > count {
        return Ok(vec![path.to_path_buf()]);
    }
    let part = |i: usize| path.with_file_name(format!("{prefix}-{i:05}-of-{count:05}.gguf"));
    let missing: Vec<String> = (1..=count)
        .map(part)
        .filter(|p| !p.exists())
        .map(|p| p.display().to_string())
        .take(5)
        .collect();
    // A part that is alone may be a whole file under an odd name; its metadata tells.
    if !missing.is_empty() && path.exists() {
        let reason =
            format!("a part of a split file whose other parts are missing: {}", missing.join(", "));
        return Err(Error::Model { path: path.to_path_buf(), reason });
    }
    Ok((1..=count).map(part).collect())
}

fn error(path: &Path, reason: String) -> Error {
    Error::Gguf { path: path.to_path_buf(), offset: 0, reason }
}

/// Checks a part's metadata against its name.
pub(super) fn check(metadata: &Metadata, path: &Path, part: usize, n_parts: usize) -> Result<()> {
    let count = metadata.u64("split.count")?.unwrap_or(1).max(1);
    if count != n_parts as u64 {
        let reason = format!(
            "split.count is {count}, but the name stands for {n_parts} part(s); parts must be \
             named NAME-00001-of-{count:05}.gguf and so on"
        );
        return Err(error(path, reason));
    }
    match metadata.u64("split.no")? {
        Some(no) if no != part as u64 => {
            Err(error(path, format!("split.no is {no}, but the name is that of part {part}")))
        }
        _ => Ok(()),
    }
}

/// Checks the number of tensors that the parts have together.
pub(super) fn check_total(metadata: &Metadata, path: &Path, tensors: usize) -> Result<()> {
    match metadata.u64("split.tensors.count")? {
        Some(count) if count != tensors as u64 => {
            let reason = format!("split.tensors.count is {count}, but the parts have {tensors}");
            Err(error(path, reason))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn names_of_parts_are_recognised() {
        let cases = [
            ("a-b-00002-of-00003.gguf", Some(("a-b", 2, 3))),
            ("a-2-of-3.gguf", None),
            ("a-00002-of-00003.bin", None),
            ("00002-of-00003.gguf", None),
            ("model.gguf", None),
        ];
        for (name, want) in cases {
            assert_eq!(parse(name), want, "{name}");
        }
    }
}
