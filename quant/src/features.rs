//! What the CPU can do, detected once, and the levels that follow from it.

use std::sync::OnceLock;

/// The environment variable that forces a lower level: `SISKIN_CPU=avx2`.
pub const LEVEL_VARIABLE: &str = "SISKIN_CPU";

/// Instruction set extensions that a kernel may need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuFeatures {
    /// AVX2, FMA and F16C.
    pub avx2: bool,
    /// AVX-VNNI (`vpdpbusd` on 256 bits, VEX encoded).
    pub avxvnni: bool,
    /// AVX-512 F, BW, DQ, VL and VNNI.
    pub avx512: bool,
    /// NEON with fused multiply-add: every 64-bit Arm.
    pub neon: bool,
    /// `sdot`.
    pub dotprod: bool,
    /// `smmla`.
    pub i8mm: bool,
}

impl CpuFeatures {
    /// Nothing beyond the architecture's baseline.
    pub const NONE: CpuFeatures = CpuFeatures {
        avx2: false,
        avxvnni: false,
        avx512: false,
        neon: false,
        dotprod: false,
        i8mm: false,
    };

    /// What this machine has.
    pub fn detect() -> CpuFeatures {
        static FEATURES: OnceLock<CpuFeatures> = OnceLock::new();
        *FEATURES.get_or_init(detect)
    }

    /// True if everything that `needs` names is there.
    pub fn has(self, needs: CpuFeatures) -> bool {
        let pairs = [
            (self.avx2, needs.avx2),
            (self.avxvnni, needs.avxvnni),
            (self.avx512, needs.avx512),
            (self.neon, needs.neon),
            (self.dotprod, needs.dotprod),
            (self.i8mm, needs.i8mm),
        ];
        pairs.iter().all(|(has, need)| *has || !*need)
    }
}

#[cfg(target_arch = "x86_64")]
fn detect() -> CpuFeatures {
    // Under Miri the vendor intrinsics are not there.
    if cfg!(miri) {
        return CpuFeatures::default();
    }
    let avx2 = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c");
    CpuFeatures {
        avx2,
        avxvnni: avx2 && is_x86_feature_detected!("avxvnni"),
        avx512: avx2
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni"),
        ..CpuFeatures::default()
    }
}

#[cfg(target_arch = "aarch64")]
fn detect() -> CpuFeatures {
    use std::arch::is_aarch64_feature_detected;
    let neon = is_aarch64_feature_detected!("neon");
    CpuFeatures {
        neon,
        dotprod: neon && is_aarch64_feature_detected!("dotprod"),
        i8mm: neon && is_aarch64_feature_detected!("i8mm"),
        ..CpuFeatures::default()
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn detect() -> CpuFeatures {
    CpuFeatures::default()
}
