//! IQ4_NL and IQ4_XS: `x = d * scale * VALUES[q]`, 4 bits each that choose from a table of 16
//! values spaced as weights are distributed.

use bytemuck::{Pod, Zeroable};

use super::{Block, IntBlock, Unit, Wide, dequantize_units, f16};
use crate::GgmlType;

/// The values that the codes stand for.
pub const VALUES: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// 32 weights in 18 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct BlockIQ4NL {
    /// Scale, f16.
    pub d: [u8; 2],
    /// Codes: the low nibble of byte `j` is value `j`, the high one value `j + 16`.
    pub qs: [u8; 16],
}

impl BlockIQ4NL {
    /// The scale.
    #[inline(always)]
    pub const fn d(&self) -> f32 {
        f16(self.d)
    }
}

impl Block for BlockIQ4NL {
    const TYPE: GgmlType = GgmlType::IQ4_NL;
    const WIDE: &'static [Wide] = &[Wide::half(0)];

    fn dequantize(&self, out: &mut [f32]) {
        dequantize_units(self, out);
    }
}

/// `q` is the value from the table: -127 to 113.
impl IntBlock for BlockIQ4NL {
    const UNIT: usize = 32;
    const ACT: usize = 32;
    const HAS_MIN: bool = false;

    #[inline(always)]
    fn unpack(&self, _index: usize, out: &mut Unit) {
        for j in 0..16 {
            out.q[j] = VALUES[usize::from(self.qs[j] & 0xf)];
            out.q[j + 16] = VALUES[usize::from(self.qs[j] >> 4)];
        }
        out.scale[..2].fill(1);
        out.d = self.d();
    }
}

/// 256 weights in 136 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct BlockIQ4XS {
    /// Scale of the scales, f16.
    pub d: [u8; 2],
    /// The upper 2 bits of the scales plus 32: bits `2 * j` of the u16 belong to scale `j`.
    pub scales_h: [u8; 2],
    /// The lower 4 bits of the scales: the low nibble of byte `j` is scale `2 * j`.
    pub scales_l: [u8; 4],
    /// Codes: the low nibble of byte `16 * n + l` is value `32 * n + l`, the high one value
    /// `32 * n + 16 + l`.
    pub qs: [u8; 128],
}

impl BlockIQ4XS {
    /// The scale of the scales.
    #[inline(always)]
    pub const fn d(&self) -> f32 {
        f16(self.d)
    }

    /// The 8 scales, -32 to 31, each of 32 values.
    #[inline(always)]
    pub const fn scales(&self) -> [i8; 8] {
        let high = u16::from_le_bytes(self.scales_h);
        let mut scales = [0; 8];
        let mut j = 0;
        while j < 8 {
            let low = self.scales_l[j / 2] >> (4 * (j % 2)) & 0xf;
            scales[j] = (low | ((high >> (2 * j) & 3) as u8) << 4) as i8 - 32;
            j += 1;
        }
        scales
    }
}

impl Block for BlockIQ4XS {
    const TYPE: GgmlType = GgmlType::IQ4_XS;
    const WIDE: &'static [Wide] = &[Wide::half(0), Wide::half(2)];

    fn dequantize(&self, out: &mut [f32]) {
        dequantize_units(self, out);
    }
}

/// `q` is the value from the table: -127 to 113. `scale` is -32 to 31.
impl IntBlock for BlockIQ4XS {
    const UNIT: usize = 256;
    const ACT: usize = 256;
    const HAS_MIN: bool = false;

    #[inline(always)]
    fn unpack(&self, _index: usize, out: &mut Unit) {
        for n in 0..8 {
            for l in 0..16 {
                out.q[32 * n + l] = VALUES[usize::from(self.qs[16 * n + l] & 0xf)];
                out.q[32 * n + 16 + l] = VALUES[usize::from(self.qs[16 * n + l] >> 4)];
            }
        }
        let scales = self.scales();
        for j in 0..16 {
            out.scale[j] = i16::from(scales[j / 2]);
        }
        out.d = self.d();
    }
}
