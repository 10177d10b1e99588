//! What a model is called in a table of results.

use std::collections::BTreeMap;

use siskin::gguf::GgufFile;

/// llama.cpp's names of the numbers in `general.file_type`.
const FILE_TYPES: [(u32, &str); 36] = [
    (0, "all F32"),
    (1, "F16"),
    (2, "Q4_0"),
    (3, "Q4_1"),
    (7, "Q8_0"),
    (8, "Q5_0"),
    (9, "Q5_1"),
    (10, "Q2_K - Medium"),
    (11, "Q3_K - Small"),
    (12, "Q3_K - Medium"),
    (13, "Q3_K - Large"),
    (14, "Q4_K - Small"),
    (15, "Q4_K - Medium"),
    (16, "Q5_K - Small"),
    (17, "Q5_K - Medium"),
    (18, "Q6_K"),
    (19, "IQ2_XXS - 2.0625 bpw"),
    (20, "IQ2_XS - 2.3125 bpw"),
    (21, "Q2_K - Small"),
    (22, "IQ3_XS - 3.3 bpw"),
    (23, "IQ3_XXS - 3.0625 bpw"),
    (24, "IQ1_S - 1.5625 bpw"),
    (25, "IQ4_NL - 4.5 bpw"),
    (26, "IQ3_S - 3.4375 bpw"),
    (27, "IQ3_S mix - 3.66 bpw"),
    (28, "IQ2_S - 2.5 bpw"),
    (29, "IQ2_M - 2.7 bpw"),
    (30, "IQ4_XS - 4.25 bpw"),
    (31, "IQ1_M - 1.75 bpw"),
    (32, "BF16"),
    (36, "TQ1_0 - 1.69 bpw ternary"),
    (37, "TQ2_0 - 2.06 bpw ternary"),
    (38, "MXFP4 MoE"),
    (39, "NVFP4"),
    (40, "Q1_0"),
    (41, "Q2_0"),
];

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
    let named = FILE_TYPES.iter().find(|(n, _)| Some(*n) == number).map(|(_, name)| *name);
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
