//! Q2_0: `x = d * (q - 1)`, 2 bits each.

use bytemuck::{Pod, Zeroable};

use super::{Block, IntBlock, Unit, Wide, dequantize_units, f16};
use crate::GgmlType;

/// 64 weights in 18 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct BlockQ2_0 {
    /// Scale, f16.
    pub d: [u8; 2],
    /// Codes plus 1: byte `n` holds, from its low bits up, values `4 * n` to `4 * n + 3`.
    pub qs: [u8; 16],
}

impl BlockQ2_0 {
    /// The scale.
    #[inline(always)]
    pub const fn d(&self) -> f32 {
        f16(self.d)
    }
}

impl Block for BlockQ2_0 {
    const TYPE: GgmlType = GgmlType::Q2_0;
    const WIDE: &'static [Wide] = &[Wide::half(0)];

    fn dequantize(&self, out: &mut [f32]) {
        dequantize_units(self, out);
    }
}

/// `q` is -1 to 2.
impl IntBlock for BlockQ2_0 {
    const UNIT: usize = 32;
    const SUB: usize = 32;
    const HAS_MIN: bool = false;

    #[inline(always)]
    fn unpack(&self, index: usize, out: &mut Unit) {
        let qs = &self.qs[8 * index..][..8];
        for n in 0..8 {
            for j in 0..4 {
                out.q[4 * n + j] = (qs[n] >> (2 * j) & 3) as i8 - 1;
            }
        }
        out.scale[..2].fill(1);
        out.d = self.d();
    }
}
