//! MXFP4: `x = 2^(e - 127) * fp4`, floats of 4 bits with a power of two per 32.

use bytemuck::{Pod, Zeroable};

use super::{Block, IntBlock, Unit, Wide, dequantize_units};
use crate::GgmlType;
use crate::lanes::Lanes;
use crate::quantize::lanes::Cpu;
use crate::quantize::{GROUP, Search, fp4};

/// Twice the values that a float of 4 bits (sign, 2 of exponent, 1 of mantissa) has.
pub const VALUES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// [`VALUES`] by arithmetic, which loops over many become vector instructions with: the steps
/// between magnitudes are 1, from the fourth on 2, from the sixth on 4.
#[inline(always)]
pub(super) fn value(code: u8) -> i8 {
    let magnitude = code & 7;
    let value = magnitude + magnitude.saturating_sub(4) + 2 * magnitude.saturating_sub(6);
    let sign = -((code >> 3 & 1) as i8);
    (value as i8 ^ sign) - sign
}

/// 32 weights in 17 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct BlockMXFP4 {
    /// Exponent of the scale plus 127. As in ggml 255 is no NaN but `2^128`.
    pub e: u8,
    /// Codes: the low nibble of byte `j` is value `j`, the high one value `j + 16`.
    pub qs: [u8; 16],
}

impl BlockMXFP4 {
    /// Half the scale, since [`VALUES`] are doubled: `2^(e - 128)`, which is always finite.
    #[inline(always)]
    pub const fn d(&self) -> f32 {
        // The two smallest are below the normal floats.
        f32::from_bits(if self.e < 2 { 0x0020_0000 << self.e } else { (self.e as u32 - 1) << 23 })
    }
}

impl Block for BlockMXFP4 {
    const TYPE: GgmlType = GgmlType::MXFP4;
    const WIDE: &'static [Wide] = &[];

    fn dequantize(&self, out: &mut [f32]) {
        dequantize_units(self, out);
    }
}

impl Search for BlockMXFP4 {
    #[inline(always)]
    fn search<L: Lanes>(cpu: Cpu<L>, x: &[f32; GROUP], weights: &[f32; GROUP], out: &mut [Self]) {
        let (exponents, codes) = fp4::search(cpu, x, weights);
        for (out, (e, qs)) in out.iter_mut().zip(exponents.into_iter().zip(codes)) {
            *out = BlockMXFP4 { e, qs };
        }
    }
}

/// `q` is twice the float: -12 to 12; `d` is half the scale.
impl IntBlock for BlockMXFP4 {
    const UNIT: usize = 32;
    const SUB: usize = 32;
    const HAS_MIN: bool = false;

    #[inline(always)]
    fn unpack(&self, _index: usize, out: &mut Unit) {
        for j in 0..16 {
            out.q[j] = value(self.qs[j] & 0xf);
            out.q[j + 16] = value(self.qs[j] >> 4);
        }
        out.scale[..2].fill(1);
        out.d = self.d();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_gives_the_values_of_the_table() {
        assert_eq!(std::array::from_fn(|code| value(code as u8)), VALUES);
    }
}
