//! Files in parts, named `NAME-00001-of-00003.gguf` and so on.
//!
//! The first part has the metadata. Each says in `split.no` which it is, from 0, and in
//! `split.count` how many there are; a file is of several parts if this is more than 1, whatever
//! its name.

use std::path::{Path, PathBuf};

use super::metadata::Metadata;
use crate::Result;

pub(super) const NO: &str = "split.no";
pub(super) const COUNT: &str = "split.count";
pub(super) const TENSORS: &str = "split.tensors.count";

/// The prefix, the number of a part (from 1) and how many there are, if `name` is that of a part.
fn parse(name: &str) -> Option<(&str, u64, u64)> {
    let stem = name.strip_suffix(".gguf")?;
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (prefix, number) = rest.rsplit_once('-')?;
    let digits = |s: &str| s.len() == 5 && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(count) || !digits(number) {
        return None;
    }
    Some((prefix, number.parse().ok()?, count.parse().ok()?))
}

/// The name of part `number` (from 1) of `count`: `model-00001-of-00003.gguf` for `model`.
pub fn split_name(prefix: &str, number: u64, count: u64) -> String {
    format!("{prefix}-{number:05}-of-{count:05}.gguf")
}

/// How many parts the file has that `metadata` is from.
pub(super) fn count(metadata: &Metadata) -> Result<u64> {
    Ok(metadata.u64(COUNT)?.unwrap_or(1).max(1))
}

/// The paths of all `count` parts of the file of which `path`, with `metadata`, is one.
///
/// The name must fit the metadata: of a part that was renamed, the others cannot be found.
pub(super) fn parts(path: &Path, metadata: &Metadata, count: u64) -> Result<Vec<PathBuf>> {
    let no = metadata.u64(NO)?.unwrap_or(0);
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let prefix = match parse(name) {
        Some((prefix, number, n)) if n == count && number.checked_sub(1) == Some(no) => prefix,
        _ => {
            let number = no.saturating_add(1);
            let name = split_name("NAME", number, count);
            let reason = format!("this is part {number} of {count}, which must be named {name}");
            return Err(metadata.error(COUNT, reason));
        }
    };
    let part = |number| path.with_file_name(split_name(prefix, number, count));
    // A hostile file may claim as many parts as it likes; no list is made that has no files.
    if let Some(number) = (1..=count).find(|number| !part(*number).is_file()) {
        let missing = part(number);
        let reason = format!("part {number} of {count} is missing: {}", missing.display());
        return Err(metadata.error(COUNT, reason));
    }
    Ok((1..=count).map(part).collect())
}

/// Checks what part number `part` (from 0) of `count` says of itself.
pub(super) fn check(metadata: &Metadata, part: usize, count: u64) -> Result<()> {
    for (key, want) in [(NO, part as u64), (COUNT, count)] {
        match metadata.u64(key)? {
            Some(found) if found == want => {}
            Some(found) => {
                let reason = format!("{key} is {found}, but by the file's name it is {want}");
                return Err(metadata.error(key, reason));
            }
            None => {
                let reason = format!("this part of a split file has no key {key}");
                return Err(metadata.error(key, reason));
            }
        }
    }
    Ok(())
}

/// Checks the number of tensors that the parts have together.
pub(super) fn check_total(metadata: &Metadata, tensors: usize) -> Result<()> {
    match metadata.u64(TENSORS)? {
        Some(count) if count != tensors as u64 => {
            let reason = format!("{TENSORS} is {count}, but the parts have {tensors} together");
            Err(metadata.error(TENSORS, reason))
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
