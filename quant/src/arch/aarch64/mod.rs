//! 64-bit Arm: NEON, which every one has, and the dot products of newer ones.

mod dot;
mod lanes;
mod simd;

use crate::features::CpuFeatures;
use crate::generic::instantiate_gemm;
use crate::ops::instantiate_ops;
use crate::quantize::instantiate_quantize;
use crate::table::Level;

use dot::{Mla, Sdot, Smmla};
use lanes::Neon;

/// From slow to fast.
pub const LEVELS: &[Level] = &[
    super::wide::LEVEL,
    Level {
        name: "neon",
        needs: CpuFeatures { neon: true, ..CpuFeatures::NONE },
        install: |table| {
            table.set_ops(ops_neon::OPS);
            gemm_neon::install(table);
            quantize_neon::install(table);
        },
    },
    Level {
        name: "dotprod",
        needs: CpuFeatures { neon: true, dotprod: true, ..CpuFeatures::NONE },
        install: gemm_dotprod::install,
    },
    Level {
        name: "i8mm",
        needs: CpuFeatures { neon: true, dotprod: true, i8mm: true, ..CpuFeatures::NONE },
        install: gemm_i8mm::install,
    },
];

instantiate_ops!(ops_neon, super::Neon<super::Mla>, #[target_feature(enable = "neon")]);
instantiate_gemm!(gemm_neon, super::Neon<super::Mla>, #[target_feature(enable = "neon")]);
instantiate_gemm!(
    gemm_dotprod,
    super::Neon<super::Sdot>,
    #[target_feature(enable = "neon,dotprod")]
);
instantiate_gemm!(
    gemm_i8mm,
    super::Neon<super::Smmla>,
    #[target_feature(enable = "neon,dotprod,i8mm")]
);
instantiate_quantize!(quantize_neon, super::Neon<super::Mla>, #[target_feature(enable = "neon")]);
