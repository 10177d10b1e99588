//! What a model is called in a table of results.

use std::collections::BTreeMap;

use siskin::gguf::GgufFile;
use siskin_convert::FileType;

/// Architecture, size and weight type, as in `llama 135M Q4_1`.
pub fn model_type(file: &GgufFile) -> siskin::Result<String> {
    let metadata = file.metadata();
    let arch = metadata.str("general.architecture")?.unwrap_or("?");
    let parameters: u64 = file.tensors().iter().map(|t| t.shape.iter().product::<u64>()).sum();
    let size = match metadata.str("general.size_label")? {
        Some(label) if !label.is_empty() => label.to_string(),
        _ => size(parameters),
    };
    let number = metadata.u32("general.file_type")?;
    let named = number.and_then(FileType::from_number).map(|t| t.label);
    Ok(format!("{arch} {size} {}", named.unwrap_or_else(|| most_used(file))))
}

fn size(parameters: u64) -> String {
    let millions = parameters as f64 / 1e6;
    match millions {
        1000.0.. => format!("{:.1}B", millions / 1e3),
        10.0.. => format!("{millions:.0}M"),
        _ => format!("{millions:.1}M"),
    }
}

/// The type of most bytes of a file.
fn most_used(file: &GgufFile) -> &'static str {
    let mut bytes: BTreeMap<&str, u64> = BTreeMap::new();
    for tensor in file.tensors() {
        *bytes.entry(tensor.ty.name()).or_default() += tensor.n_bytes;
    }
    bytes.into_iter().max_by_key(|(_, bytes)| *bytes).map_or("?", |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        assert_eq!(size(134_515_008), "135M");
        assert_eq!(size(8_030_261_248), "8.0B");
        assert_eq!(size(1_234_567), "1.2M");
    }
}
