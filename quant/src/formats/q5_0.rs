//! Q5_0: `x = d * (q - 16)`, 5 bits each.

use bytemuck::{Pod, Zeroable};

use super::{Block, IntBlock, Unit, Wide, dequantize_units, f16};
use crate::GgmlType;

/// 32 weights in 22 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct BlockQ5_0 {
    /// Scale, f16.
    pub d: [u8; 2],
    /// The fifth bits: bit `j` of the u32 belongs to value `j`.
    pub qh: [u8; 4],
    /// The lower 4 bits: the low nibble of byte `j` is value `j`, the high one value `j + 16`.
    pub qs: [u8; 16],
}

impl BlockQ5_0 {
    /// The scale.
    #[inline(always)]
    pub const fn d(&self) -> f32 {
        f16(self.d)
    }

    /// The fifth bits.
    #[inline(always)]
    pub const fn qh(&self) -> u32 {
        u32::from_le_bytes(self.qh)
    }
}

impl Block for BlockQ5_0 {
    const TYPE: GgmlType = GgmlType::Q5_0;
    const WIDE: &'static [Wide] = &[Wide::half(0), Wide { offset: 2, width: 4, count: 1 }];

    fn dequantize(&self, out: &mut [f32]) {
        dequantize_units(self, out);
    }
}

/// `q` is centred: -16 to 15.
impl IntBlock for BlockQ5_0 {
    const UNIT: usize = 32;
    const ACT: usize = 32;
    const HAS_MIN: bool = false;

    #[inline(always)]
    fn unpack(&self, _index: usize, out: &mut Unit) {
        let qh = self.qh();
        for j in 0..16 {
            let low = ((qh >> j) & 1) as u8;
            let high = ((qh >> (j + 16)) & 1) as u8;
            out.q[j] = (self.qs[j] & 0xf | low << 4) as i8 - 16;
            out.q[j + 16] = (self.qs[j] >> 4 | high << 4) as i8 - 16;
        }
        out.scale[..2].fill(1);
        out.d = self.d();
    }
}
