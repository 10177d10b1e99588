//! NVFP4: `x = scale * fp4`, floats of 4 bits with an unsigned float of 8 bits per 16.

use bytemuck::{Pod, Zeroable};

use super::mxfp4::value;
use super::{Block, IntBlock, Unit, Wide, dequantize_units};
use crate::GgmlType;

/// 64 weights in 36 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct BlockNVFP4 {
    /// Scale of each 16 values: 4 bits of exponent, biased by 7, and 3 of mantissa.
    pub d: [u8; 4],
    /// Codes: the low nibble of byte `8 * n + l` is value `16 * n + l`, the high one
    /// value `16 * n + 8 + l`.
    pub qs: [u8; 32],
}

impl BlockNVFP4 {
    /// Half the scale of group `index` (below 4), since the codes are doubled.
    #[inline(always)]
    pub const fn d(&self, index: usize) -> f32 {
        HALF_SCALES[self.d[index] as usize]
    }
}

/// Half of what a scale byte stands for.
static HALF_SCALES: [f32; 256] = {
    let mut values = [0.0; 256];
    let mut byte = 0;
    while byte < 256 {
        values[byte] = half_scale(byte as u8);
        byte += 1;
    }
    values
};

/// As ggml reads it: the sign bit is ignored, 0x7f (but not 0xff) is zero.
const fn half_scale(byte: u8) -> f32 {
    let exponent = (byte >> 3 & 0xf) as u32;
    let mantissa = (byte & 7) as u32;
    if byte == 0x7f {
        0.0
    } else if exponent == 0 {
        // 2^-10 is the smallest scale, 2^-9, halved.
        mantissa as f32 * f32::from_bits((127 - 10) << 23)
    } else {
        f32::from_bits((exponent + 127 - 8) << 23 | mantissa << 20)
    }
}

impl Block for BlockNVFP4 {
    const TYPE: GgmlType = GgmlType::NVFP4;
    const WIDE: &'static [Wide] = &[];

    fn dequantize(&self, out: &mut [f32]) {
        dequantize_units(self, out);
    }
}

/// `q` is twice the float: -12 to 12; `d` is half the scale.
impl IntBlock for BlockNVFP4 {
    const UNIT: usize = 16;
    const SUB: usize = 16;
    const HAS_MIN: bool = false;

    #[inline(always)]
    fn unpack(&self, index: usize, out: &mut Unit) {
        let qs = &self.qs[8 * index..][..8];
        for j in 0..8 {
            out.q[j] = value(qs[j] & 0xf);
            out.q[j + 8] = value(qs[j] >> 4);
        }
        out.scale[0] = 1;
        out.d = self.d(index);
    }
}
