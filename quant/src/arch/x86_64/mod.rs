//! x86-64.

mod avx2;
mod avx512;
mod lanes;

use crate::features::CpuFeatures;
use crate::generic::gemv::LONG_TILE;
use crate::generic::instantiate_gemm;
use crate::ops::instantiate_ops;
use crate::quantize::instantiate_quantize;
use crate::table::Level;

use lanes::{Avx2, Avx512, EVEX, MADD, VEX};

/// See [`super::near_bytes`]. Multiplying from memory, the first level was 1.02 to 1.08 times as fast on a
/// Zen 5, whatever the rows; on an Emerald Rapids 1.02 to 1.07 times for 18 KiB of rows, and 0.92 to 0.96
/// times for 34 KiB: two of those do not fit it. (Past the caches, with `prefetchnta`, was as fast on the
/// Zen 5 and half as fast on the other.)
pub fn near_bytes() -> usize {
    // Miri has no such instruction.
    if cfg!(miri) {
        return 0;
    }
    #[allow(unused_unsafe, reason = "safe from some version on")]
    // SAFETY: every x86-64 has the instruction.
    let id = unsafe { std::arch::x86_64::__cpuid(0) };
    let vendor = [id.ebx, id.edx, id.ecx].map(u32::to_le_bytes);
    if vendor.as_flattened() == b"AuthenticAMD" { usize::MAX } else { LONG_TILE }
}

/// From slow to fast.
pub const LEVELS: &[Level] = &[
    super::wide::LEVEL,
    Level {
        name: "avx2",
        needs: CpuFeatures { avx2: true, ..CpuFeatures::NONE },
        install: |table| {
            table.set_ops(ops_avx2::OPS);
            gemm_avx2::install(table);
            quantize_avx2::install(table);
        },
    },
    Level {
        name: "avxvnni",
        needs: CpuFeatures { avx2: true, avxvnni: true, ..CpuFeatures::NONE },
        install: gemm_avxvnni::install,
    },
    // The kernels of AVX-VNNI for CPUs that have its instruction in AVX-512's encoding: to be chosen
    // where wide registers slow the clock down, and to test them where AVX-VNNI is not to be had.
    Level {
        name: "avx512vl",
        needs: CpuFeatures { avx2: true, avx512: true, ..CpuFeatures::NONE },
        install: gemm_avx512vl::install,
    },
    Level {
        name: "avx512",
        needs: CpuFeatures { avx2: true, avx512: true, ..CpuFeatures::NONE },
        install: |table| {
            table.set_ops(ops_avx512::OPS);
            gemm_avx512::install(table);
            quantize_avx512::install(table);
        },
    },
];

instantiate_ops!(ops_avx2, super::Avx2<{ super::MADD }>, #[target_feature(enable = "avx2,fma,f16c")]);
instantiate_ops!(
    ops_avx512,
    super::Avx512,
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
);
instantiate_gemm!(gemm_avx2, super::Avx2<{ super::MADD }>, #[target_feature(enable = "avx2,fma,f16c")]);
instantiate_gemm!(
    gemm_avxvnni,
    super::Avx2<{ super::VEX }>,
    #[target_feature(enable = "avxvnni,avx2,fma,f16c")]
);
instantiate_gemm!(
    gemm_avx512vl,
    super::Avx2<{ super::EVEX }>,
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
);
instantiate_gemm!(
    gemm_avx512,
    super::Avx512,
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
);
instantiate_quantize!(
    quantize_avx2,
    super::Avx2<{ super::MADD }>,
    #[target_feature(enable = "avx2,fma,f16c")]
);
instantiate_quantize!(
    quantize_avx512,
    super::Avx512,
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
);
