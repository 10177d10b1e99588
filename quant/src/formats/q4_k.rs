//! Q4_K: `x = d * scale * q - dmin * min`, 4 bits each, 6-bit scale and minimum per 32.

use bytemuck::{Pod, Zeroable};

use super::k_scales::unpack_scale_min;
use super::{Block, IntBlock, Unit, Wide, dequantize_units, f16};
use crate::GgmlType;
use crate::lanes::Lanes;
use crate::quantize::lanes::Cpu;
use crate::quantize::recode::{Codes, Recode};
use crate::quantize::scale_min::ScaleMin;
use crate::quantize::{GROUP, Search};

/// 256 weights in 144 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct BlockQ4K {
    /// Scale of the scales, f16.
    pub d: [u8; 2],
    /// Scale of the minimums, f16.
    pub dmin: [u8; 2],
    /// Scales and minimums, packed as [`unpack_scale_min`] reads them.
    pub scales: [u8; 12],
    /// Codes: the low nibble of byte `32 * n + l` is value `64 * n + l`, the high one
    /// value `64 * n + 32 + l`.
    pub qs: [u8; 128],
}

impl BlockQ4K {
    /// The scale of the scales.
    #[inline(always)]
    pub const fn d(&self) -> f32 {
        f16(self.d)
    }

    /// The scale of the minimums.
    #[inline(always)]
    pub const fn dmin(&self) -> f32 {
        f16(self.dmin)
    }
}

impl Block for BlockQ4K {
    const TYPE: GgmlType = GgmlType::Q4_K;
    const WIDE: &'static [Wide] = &[Wide::half(0), Wide::half(2)];

    fn dequantize(&self, out: &mut [f32]) {
        dequantize_units(self, out);
    }
}

impl Search for BlockQ4K {
    #[inline(always)]
    fn search<L: Lanes>(cpu: Cpu<L>, x: &[f32; GROUP], weights: &[f32; GROUP], out: &mut [Self]) {
        for (out, found) in out.iter_mut().zip(ScaleMin::search(cpu, 15.0, x, weights)) {
            let ScaleMin { d, dmin, scales, codes } = found;
            *out = BlockQ4K { d, dmin, scales, qs: [0; 128] };
            out.set_codes(codes.as_flattened());
        }
    }
}

/// `q` is 0 to 15; `dmin` is negated.
impl IntBlock for BlockQ4K {
    const UNIT: usize = 256;
    const SUB: usize = 32;
    const HAS_MIN: bool = true;

    #[inline(always)]
    fn unpack(&self, _index: usize, out: &mut Unit) {
        for n in 0..4 {
            for l in 0..32 {
                out.q[64 * n + l] = (self.qs[32 * n + l] & 0xf) as i8;
                out.q[64 * n + 32 + l] = (self.qs[32 * n + l] >> 4) as i8;
            }
        }
        let (scale, min) = unpack_scale_min(&self.scales);
        for j in 0..8 {
            out.scale[2 * j] = i16::from(scale[j]);
            out.scale[2 * j + 1] = i16::from(scale[j]);
            out.min[2 * j] = i16::from(min[j]);
            out.min[2 * j + 1] = i16::from(min[j]);
        }
        out.d = self.d();
        out.dmin = -self.dmin();
    }
}

impl Recode for BlockQ4K {
    const CODES: Codes = Codes::Range(0, 15);

    #[inline(always)]
    fn set_codes(&mut self, codes: &[u8]) {
        for (qs, codes) in self.qs.chunks_exact_mut(32).zip(codes.chunks_exact(64)) {
            for l in 0..32 {
                qs[l] = codes[l] | codes[l + 32] << 4;
            }
        }
    }
}
