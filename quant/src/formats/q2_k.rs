//! Q2_K: `x = d * scale * q - dmin * min`, 2 bits each, 4-bit scale and minimum per 16.

use bytemuck::{Pod, Zeroable};

use super::{Block, IntBlock, Unit, Wide, dequantize_units, f16};
use crate::GgmlType;

/// 256 weights in 84 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct BlockQ2K {
    /// Per 16 values, the scale in the low nibble and the minimum in the high one.
    pub scales: [u8; 16],
    /// Codes: byte `32 * n + l` holds, from its low bits up, values `128 * n + 32 * j + l`.
    pub qs: [u8; 64],
    /// Scale of the scales, f16.
    pub d: [u8; 2],
    /// Scale of the minimums, f16.
    pub dmin: [u8; 2],
}

impl BlockQ2K {
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

impl Block for BlockQ2K {
    const TYPE: GgmlType = GgmlType::Q2_K;
    const WIDE: &'static [Wide] = &[Wide::half(80), Wide::half(82)];

    fn dequantize(&self, out: &mut [f32]) {
        dequantize_units(self, out);
    }
}

/// `q` is 0 to 3; `dmin` is negated.
impl IntBlock for BlockQ2K {
    const UNIT: usize = 256;
    const ACT: usize = 256;
    const HAS_MIN: bool = true;

    #[inline(always)]
    fn unpack(&self, _index: usize, out: &mut Unit) {
        for n in 0..2 {
            for j in 0..4 {
                for l in 0..32 {
                    out.q[128 * n + 32 * j + l] = (self.qs[32 * n + l] >> (2 * j) & 3) as i8;
                }
            }
        }
        for j in 0..16 {
            out.scale[j] = i16::from(self.scales[j] & 0xf);
            out.min[j] = i16::from(self.scales[j] >> 4);
        }
        out.d = self.d();
        out.dmin = -self.dmin();
    }
}
