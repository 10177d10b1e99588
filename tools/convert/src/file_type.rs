//! The named file types: what `--type` takes, and what `general.file_type` stores.

use siskin::GgmlType;

/// A named choice of weight types for a whole file. The names and numbers are llama.cpp's
/// (`llama_ftype`); what each gives to which tensor is in [`mix`](crate::mix).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileType {
    /// Such as `Q4_K_M`.
    pub name: &'static str,
    /// What `general.file_type` stores.
    pub number: u32,
    /// As llama.cpp prints it in tables, such as `Q4_K - Medium`.
    pub label: &'static str,
    /// The type of most tensors.
    pub base: GgmlType,
    /// When to choose it, in a few words; empty for what is there for special models.
    pub about: &'static str,
}

macro_rules! file_types {
    ($( $name:literal = $number:literal, $label:literal, $base:ident, $about:literal; )*) => {
        /// Every file type, from large to small within each family.
        pub const FILE_TYPES: &[FileType] = &[ $( FileType {
            name: $name,
            number: $number,
            label: $label,
            base: GgmlType::$base,
            about: $about,
        }, )* ];
    };
}

file_types! {
    "F32" = 0, "all F32", F32, "exact; twice the size of a checkpoint";
    "BF16" = 32, "BF16", BF16, "exact for checkpoints in bf16";
    "F16" = 1, "F16", F16, "as good as exact";
    "Q8_0" = 7, "Q8_0", Q8_0, "8.5 bits; not to be told from the original";
    "Q6_K" = 18, "Q6_K", Q6_K, "6.6 bits; close to Q8_0";
    "Q5_K_M" = 17, "Q5_K - Medium", Q5_K, "5.7 bits; a little better than Q4_K_M";
    "Q5_K_S" = 16, "Q5_K - Small", Q5_K, "5.5 bits";
    "Q4_K_M" = 15, "Q4_K - Medium", Q4_K, "4.8 bits; the usual choice";
    "Q4_K_S" = 14, "Q4_K - Small", Q4_K, "4.6 bits";
    "IQ4_NL" = 25, "IQ4_NL - 4.5 bpw", IQ4_NL, "4.5 bits; better than Q4_0 at its size";
    "IQ4_XS" = 30, "IQ4_XS - 4.25 bpw", IQ4_XS, "4.3 bits; small, nearly as good as Q4_K_S";
    "Q3_K_L" = 13, "Q3_K - Large", Q3_K, "4.3 bits";
    "Q3_K_M" = 12, "Q3_K - Medium", Q3_K, "3.9 bits; where memory is short";
    "IQ3_M" = 27, "IQ3_S mix - 3.66 bpw", IQ3_S, "3.7 bits; slower than Q3_K";
    "IQ3_S" = 26, "IQ3_S - 3.4375 bpw", IQ3_S, "3.4 bits";
    "Q3_K_S" = 11, "Q3_K - Small", Q3_K, "3.5 bits";
    "IQ3_XS" = 22, "IQ3_XS - 3.3 bpw", IQ3_S, "3.3 bits; calibrated in full";
    "IQ3_XXS" = 23, "IQ3_XXS - 3.0625 bpw", IQ3_XXS, "3.1 bits; calibrated in full";
    "Q2_K" = 10, "Q2_K - Medium", Q2_K, "2.9 bits; for large models only";
    "Q2_K_S" = 21, "Q2_K - Small", Q2_K, "2.8 bits; calibrated in full";
    "IQ2_M" = 29, "IQ2_M - 2.7 bpw", IQ2_S, "2.7 bits; calibrated in full";
    "IQ2_S" = 28, "IQ2_S - 2.5 bpw", IQ2_XS, "2.5 bits; calibrated in full";
    "IQ2_XS" = 20, "IQ2_XS - 2.3125 bpw", IQ2_XS, "2.3 bits; calibrated in full";
    "IQ2_XXS" = 19, "IQ2_XXS - 2.0625 bpw", IQ2_XXS, "2.1 bits; calibrated in full";
    "IQ1_M" = 31, "IQ1_M - 1.75 bpw", IQ1_M, "1.8 bits; calibrated in full";
    "IQ1_S" = 24, "IQ1_S - 1.5625 bpw", IQ1_S, "1.6 bits; calibrated in full";
    "Q5_1" = 9, "Q5_1", Q5_1, "6 bits; old, Q5_K is better";
    "Q5_0" = 8, "Q5_0", Q5_0, "5.5 bits; old, Q5_K is better";
    "Q4_1" = 3, "Q4_1", Q4_1, "5 bits; old, Q4_K is better";
    "Q4_0" = 2, "Q4_0", Q4_0, "4.5 bits; old, the fastest to run";
    "MXFP4_MOE" = 38, "MXFP4 MoE", MXFP4, "experts as 4-bit floats, the rest Q8_0";
    "TQ2_0" = 37, "TQ2_0 - 2.06 bpw ternary", TQ2_0, "for ternary models";
    "TQ1_0" = 36, "TQ1_0 - 1.69 bpw ternary", TQ1_0, "for ternary models";
    "NVFP4" = 39, "NVFP4", NVFP4, "";
    "Q2_0" = 41, "Q2_0", Q2_0, "";
    "Q1_0" = 40, "Q1_0", Q1_0, "";
}

/// Short names for the mixes that are chosen most, as llama.cpp has them.
const ALIASES: [(&str, &str); 4] =
    [("Q3_K", "Q3_K_M"), ("Q4_K", "Q4_K_M"), ("Q5_K", "Q5_K_M"), ("FP16", "F16")];

impl FileType {
    /// The one with this name, whatever its case.
    pub fn from_name(name: &str) -> Option<&'static FileType> {
        let long = ALIASES.iter().find(|(short, _)| short.eq_ignore_ascii_case(name));
        let name = long.map_or(name, |(_, long)| long);
        FILE_TYPES.iter().find(|t| t.name.eq_ignore_ascii_case(name))
    }

    /// The one that `general.file_type` stores as this number.
    pub fn from_number(number: u32) -> Option<&'static FileType> {
        FILE_TYPES.iter().find(|t| t.number == number)
    }

    /// The one whose tensors are mostly of this type, as far as a single number can say.
    pub fn of_base(base: GgmlType) -> Option<&'static FileType> {
        Self::from_name(base.name()).or_else(|| FILE_TYPES.iter().find(|t| t.base == base))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_unique() {
        for (i, a) in FILE_TYPES.iter().enumerate() {
            for b in &FILE_TYPES[i + 1..] {
                assert!(a.number != b.number && a.name != b.name, "{} {}", a.name, b.name);
            }
            assert_eq!(FileType::from_name(&a.name.to_lowercase()), Some(a));
        }
        assert_eq!(FileType::from_name("q4_k").map(|t| t.name), Some("Q4_K_M"));
        assert_eq!(FileType::from_name("q9"), None);
    }
}
