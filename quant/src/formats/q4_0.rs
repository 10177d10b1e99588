//! Q4_0: `x = d * (q - 8)`, 4 bits each.

use bytemuck::{Pod, Zeroable};

use super::{
    Block, IntBlock, Unit, Wide, block_values, dequantize_units, f16, f16_bytes, furthest, inverse,
};
use crate::GgmlType;

/// 32 weights in 18 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct BlockQ4_0 {
    /// Scale, f16.
    pub d: [u8; 2],
    /// Codes plus 8: the low nibble of byte `j` is value `j`, the high one value `j + 16`.
    pub qs: [u8; 16],
}

impl BlockQ4_0 {
    /// The scale.
    #[inline(always)]
    pub const fn d(&self) -> f32 {
        f16(self.d)
    }

    /// Gives the value furthest from zero the code -8.
    pub fn quantize(x: &[f32; 32]) -> Self {
        let d = furthest(x) / -8.0;
        let id = inverse(d);
        let code = |x: f32| ((x * id + 8.5) as i8).min(15) as u8;
        let qs = std::array::from_fn(|j| code(x[j]) | code(x[j + 16]) << 4);
        BlockQ4_0 { d: f16_bytes(d), qs }
    }
}

impl Block for BlockQ4_0 {
    const TYPE: GgmlType = GgmlType::Q4_0;
    const WIDE: &'static [Wide] = &[Wide::half(0)];
    const QUANTIZE: Option<fn(&[f32]) -> Self> = Some(|x| Self::quantize(block_values(x)));

    fn dequantize(&self, out: &mut [f32]) {
        dequantize_units(self, out);
    }
}

/// `q` is centred: -8 to 7.
impl IntBlock for BlockQ4_0 {
    const UNIT: usize = 32;
    const SUB: usize = 32;
    const HAS_MIN: bool = false;

    #[inline(always)]
    fn unpack(&self, _index: usize, out: &mut Unit) {
        for j in 0..16 {
            out.q[j] = (self.qs[j] & 0xf) as i8 - 8;
            out.q[j + 16] = (self.qs[j] >> 4) as i8 - 8;
        }
        out.scale[..2].fill(1);
        out.d = self.d();
    }
}
