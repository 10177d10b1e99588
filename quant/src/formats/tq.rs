//! TQ1_0 and TQ2_0: `x = d * (q - 1)`, q of 0 to 2.

use bytemuck::{Pod, Zeroable};

use super::{Block, IntBlock, Unit, Wide, dequantize_units, f16};
use crate::GgmlType;
use crate::lanes::Lanes;
use crate::quantize::lanes::Cpu;
use crate::quantize::{GROUP, Search, ternary};

/// 256 weights in 54 bytes: 5 ternary digits in a byte.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct BlockTQ1_0 {
    /// Digit `n` of byte `l` is value `32 * n + l` for the first 32 bytes, and `160 + 16 * n + l`
    /// for the next 16.
    pub qs: [u8; 48],
    /// Digit `n` of byte `l` is value `240 + 4 * n + l`; the fifth digits are not used.
    pub qh: [u8; 4],
    /// Scale, f16.
    pub d: [u8; 2],
}

impl BlockTQ1_0 {
    /// The 256 codes.
    #[inline(always)]
    pub(crate) fn digits(&self, out: &mut [i8; 256]) {
        for n in 0..5 {
            for l in 0..32 {
                out[32 * n + l] = digit(self.qs[l], n);
            }
            for l in 0..16 {
                out[160 + 16 * n + l] = digit(self.qs[32 + l], n);
            }
        }
        for n in 0..4 {
            for l in 0..4 {
                out[240 + 4 * n + l] = digit(self.qh[l], n);
            }
        }
    }
}

/// Digit `n` of a byte, minus 1. A byte is a fraction in 256ths: three times it has the first
/// digit before the point, and what is left of it begins with the next.
#[inline(always)]
fn digit(byte: u8, n: usize) -> i8 {
    const POW3: [u8; 5] = [1, 3, 9, 27, 81];
    let rest = byte.wrapping_mul(POW3[n]);
    ((u16::from(rest) * 3) >> 8) as i8 - 1
}

impl BlockTQ1_0 {
    /// The scale.
    #[inline(always)]
    pub const fn d(&self) -> f32 {
        f16(self.d)
    }
}

impl Block for BlockTQ1_0 {
    const TYPE: GgmlType = GgmlType::TQ1_0;
    const WIDE: &'static [Wide] = &[Wide::half(52)];

    fn dequantize(&self, out: &mut [f32]) {
        dequantize_units(self, out);
    }
}

impl BlockTQ1_0 {
    /// Digits become the fraction that [`digit`] takes apart, rounded up.
    fn pack(d: [u8; 2], digits: &[u8; 256]) -> Self {
        let byte = |first: usize, step: usize, count: usize| {
            let number = (0..5).fold(0, |number, n| {
                3 * number + if n < count { u32::from(digits[first + step * n]) } else { 0 }
            });
            (number * 256).div_ceil(243) as u8
        };
        BlockTQ1_0 {
            qs: std::array::from_fn(|l| {
                if l < 32 { byte(l, 32, 5) } else { byte(160 + l - 32, 16, 5) }
            }),
            qh: std::array::from_fn(|l| byte(240 + l, 4, 4)),
            d,
        }
    }
}

impl Search for BlockTQ1_0 {
    #[inline(always)]
    fn search<L: Lanes>(cpu: Cpu<L>, x: &[f32; GROUP], weights: &[f32; GROUP], out: &mut [Self]) {
        let (x, weights) = (x.as_chunks().0, weights.as_chunks().0);
        for (n, (out, x)) in out.iter_mut().zip(x).enumerate() {
            let (d, codes) = ternary::search(cpu, x, &weights[n]);
            *out = Self::pack(d, &codes);
        }
    }
}

/// `q` is -1 to 1.
impl IntBlock for BlockTQ1_0 {
    const UNIT: usize = 256;
    const SUB: usize = 32;
    const HAS_MIN: bool = false;

    #[inline(always)]
    fn unpack(&self, _index: usize, out: &mut Unit) {
        self.digits(&mut out.q);
        out.scale.fill(1);
        out.d = self.d();
    }
}

/// 256 weights in 66 bytes: 2 bits each.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct BlockTQ2_0 {
    /// Codes plus 1: byte `32 * n + l` holds, from its low bits up, values `128 * n + 32 * j + l`.
    pub qs: [u8; 64],
    /// Scale, f16.
    pub d: [u8; 2],
}

impl BlockTQ2_0 {
    /// The scale.
    #[inline(always)]
    pub const fn d(&self) -> f32 {
        f16(self.d)
    }
}

impl Block for BlockTQ2_0 {
    const TYPE: GgmlType = GgmlType::TQ2_0;
    const WIDE: &'static [Wide] = &[Wide::half(64)];

    fn dequantize(&self, out: &mut [f32]) {
        dequantize_units(self, out);
    }
}

impl BlockTQ2_0 {
    fn pack(d: [u8; 2], codes: &[u8; 256]) -> Self {
        let mut qs = [0; 64];
        for (i, code) in codes.iter().enumerate() {
            qs[i / 128 * 32 + i % 32] |= code << (i % 128 / 32 * 2);
        }
        BlockTQ2_0 { qs, d }
    }
}

impl Search for BlockTQ2_0 {
    #[inline(always)]
    fn search<L: Lanes>(cpu: Cpu<L>, x: &[f32; GROUP], weights: &[f32; GROUP], out: &mut [Self]) {
        let (x, weights) = (x.as_chunks().0, weights.as_chunks().0);
        for (n, (out, x)) in out.iter_mut().zip(x).enumerate() {
            let (d, codes) = ternary::search(cpu, x, &weights[n]);
            *out = Self::pack(d, &codes);
        }
    }
}

/// `q` is -1 to 2: ggml writes no 2, but a file may hold one.
impl IntBlock for BlockTQ2_0 {
    const UNIT: usize = 256;
    const SUB: usize = 32;
    const HAS_MIN: bool = false;

    #[inline(always)]
    fn unpack(&self, _index: usize, out: &mut Unit) {
        for n in 0..2 {
            for j in 0..4 {
                for l in 0..32 {
                    out.q[128 * n + 32 * j + l] = (self.qs[32 * n + l] >> (2 * j) & 3) as i8 - 1;
                }
            }
        }
        out.scale.fill(1);
        out.d = self.d();
    }
}
