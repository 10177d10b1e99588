//! x86-64.

mod lanes;

use crate::features::CpuFeatures;
use crate::ops::instantiate_ops;
use crate::table::Level;

pub use lanes::{Avx2, Avx512};

/// From slow to fast.
pub const LEVELS: &[Level] = &[
    Level {
        name: "avx2",
        needs: CpuFeatures { avx2: true, ..CpuFeatures::NONE },
        install: |table| table.set_ops(ops_avx2::OPS),
    },
    Level {
        name: "avx512",
        needs: CpuFeatures { avx2: true, avx512: true, ..CpuFeatures::NONE },
        install: |table| table.set_ops(ops_avx512::OPS),
    },
];

instantiate_ops!(ops_avx2, super::Avx2, #[target_feature(enable = "avx2,fma,f16c")]);
instantiate_ops!(
    ops_avx512,
    super::Avx512,
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
);
