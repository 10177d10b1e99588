//! Q4_1: `x = d * q + m`, 4 bits each.

use bytemuck::{Pod, Zeroable};

use super::{
    Block, IntBlock, Unit, Wide, block_values, dequantize_units, f16, f16_bytes, inverse, range,
};
use crate::GgmlType;

/// 32 weights in 20 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct BlockQ4_1 {
    /// Scale, f16.
    pub d: [u8; 2],
    /// Minimum, f16.
    pub m: [u8; 2],
    /// Codes: the low nibble of byte `j` is value `j`, the high one value `j + 16`.
    pub qs: [u8; 16],
}

impl BlockQ4_1 {
    /// The scale.
    #[inline(always)]
    pub const fn d(&self) -> f32 {
        f16(self.d)
    }

    /// The minimum.
    #[inline(always)]
    pub const fn m(&self) -> f32 {
        f16(self.m)
    }

    /// Spreads the codes evenly from the smallest value to the largest.
    pub fn quantize(x: &[f32; 32]) -> Self {
        let (min, max) = range(x);
        let d = (max - min) / 15.0;
        let id = inverse(d);
        let code = |x: f32| (((x - min) * id + 0.5) as i8).min(15) as u8;
        let qs = std::array::from_fn(|j| code(x[j]) | code(x[j + 16]) << 4);
        BlockQ4_1 { d: f16_bytes(d), m: f16_bytes(min), qs }
    }
}

impl Block for BlockQ4_1 {
    const TYPE: GgmlType = GgmlType::Q4_1;
    const WIDE: &'static [Wide] = &[Wide::half(0), Wide::half(2)];
    const QUANTIZE: Option<fn(&[f32]) -> Self> = Some(|x| Self::quantize(block_values(x)));

    fn dequantize(&self, out: &mut [f32]) {
        dequantize_units(self, out);
    }
}

/// `q` is 0 to 15; `min` is 1 and `dmin` is `m`.
impl IntBlock for BlockQ4_1 {
    const UNIT: usize = 32;
    const SUB: usize = 32;
    const HAS_MIN: bool = true;

    #[inline(always)]
    fn unpack(&self, _index: usize, out: &mut Unit) {
        for j in 0..16 {
            out.q[j] = (self.qs[j] & 0xf) as i8;
            out.q[j + 16] = (self.qs[j] >> 4) as i8;
        }
        out.scale[..2].fill(1);
        out.min[..2].fill(1);
        out.d = self.d();
        out.dmin = self.m();
    }
}
