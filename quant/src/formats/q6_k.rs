//! Q6_K: `x = d * scale * (q - 32)`, 6 bits each, 8-bit scale per 16.

use bytemuck::{Pod, Zeroable};

use super::{Block, IntBlock, Unit, Wide, dequantize_units, f16};
use crate::GgmlType;

/// 256 weights in 210 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct BlockQ6K {
    /// The lower 4 bits: the low nibble of byte `64 * n + l` is value `128 * n + l`, the high one
    /// value `128 * n + 64 + l`.
    pub ql: [u8; 128],
    /// The upper 2 bits: byte `32 * n + l` holds, from its low bits up, those of values
    /// `128 * n + 32 * j + l`.
    pub qh: [u8; 64],
    /// Scale of each 16 values.
    pub scales: [i8; 16],
    /// Scale of the scales, f16.
    pub d: [u8; 2],
}

impl BlockQ6K {
    /// The scale of the scales.
    #[inline(always)]
    pub const fn d(&self) -> f32 {
        f16(self.d)
    }
}

impl Block for BlockQ6K {
    const TYPE: GgmlType = GgmlType::Q6_K;
    const WIDE: &'static [Wide] = &[Wide::half(208)];

    fn dequantize(&self, out: &mut [f32]) {
        dequantize_units(self, out);
    }
}

/// `q` is centred: -32 to 31. `scale` is -128 to 127.
impl IntBlock for BlockQ6K {
    const UNIT: usize = 256;
    const ACT: usize = 256;
    const HAS_MIN: bool = false;

    #[inline(always)]
    fn unpack(&self, _index: usize, out: &mut Unit) {
        for n in 0..2 {
            for j in 0..2 {
                for l in 0..32 {
                    let ql = self.ql[64 * n + 32 * j + l];
                    let qh = self.qh[32 * n + l] >> (2 * j);
                    out.q[128 * n + 32 * j + l] = (ql & 0xf | (qh & 3) << 4) as i8 - 32;
                    out.q[128 * n + 32 * j + 64 + l] = (ql >> 4 | (qh >> 4 & 3) << 4) as i8 - 32;
                }
            }
        }
        for j in 0..16 {
            out.scale[j] = i16::from(self.scales[j]);
        }
        out.d = self.d();
    }
}
