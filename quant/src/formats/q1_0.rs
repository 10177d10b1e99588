//! Q1_0: `x = d` or `-d`, a sign each.

use bytemuck::{Pod, Zeroable};

use super::{Block, IntBlock, Unit, Wide, dequantize_units, f16};
use crate::GgmlType;

/// 128 weights in 18 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct BlockQ1_0 {
    /// Scale, f16.
    pub d: [u8; 2],
    /// Bit `j` of byte `n` belongs to value `8 * n + j`; a set bit is `d`, a clear one `-d`.
    pub qs: [u8; 16],
}

impl BlockQ1_0 {
    /// The scale.
    #[inline(always)]
    pub const fn d(&self) -> f32 {
        f16(self.d)
    }
}

impl Block for BlockQ1_0 {
    const TYPE: GgmlType = GgmlType::Q1_0;
    const WIDE: &'static [Wide] = &[Wide::half(0)];

    fn dequantize(&self, out: &mut [f32]) {
        dequantize_units(self, out);
    }
}

/// `q` is -1 or 1.
impl IntBlock for BlockQ1_0 {
    const UNIT: usize = 32;
    const SUB: usize = 32;
    const HAS_MIN: bool = false;

    #[inline(always)]
    fn unpack(&self, index: usize, out: &mut Unit) {
        let qs = &self.qs[4 * index..][..4];
        for n in 0..4 {
            for j in 0..8 {
                out.q[8 * n + j] = (qs[n] >> j & 1) as i8 * 2 - 1;
            }
        }
        out.scale[..2].fill(1);
        out.d = self.d();
    }
}
