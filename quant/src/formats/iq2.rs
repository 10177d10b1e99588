//! IQ2_XXS, IQ2_XS and IQ2_S: `x = d * (2 * scale + 1) / 8 * grid`, the values of a group of 8
//! from a grid of 8, 25 and 43, with signs.

use bytemuck::{Pod, Zeroable};

use super::{Block, IntBlock, Unit, Wide, dequantize_units, f16, grids, signs};
use crate::GgmlType;

/// 256 weights in 66 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct BlockIQ2XXS {
    /// Scale, f16.
    pub d: [u8; 2],
    /// Per 32 values 8 bytes: 4 grid indices, and a u32 of 4 times 7 signs and a 4-bit scale.
    pub qs: [[u8; 8]; 8],
}

impl BlockIQ2XXS {
    /// The scale.
    #[inline(always)]
    pub const fn d(&self) -> f32 {
        f16(self.d)
    }
}

impl Block for BlockIQ2XXS {
    const TYPE: GgmlType = GgmlType::IQ2_XXS;
    const WIDE: &'static [Wide] = &[Wide::half(0), Wide { offset: 2, width: 4, count: 16 }];

    fn dequantize(&self, out: &mut [f32]) {
        dequantize_units(self, out);
    }
}

/// `q` is the signed grid value: 8, 25 or 43; `scale` is odd, 1 to 31; `d` is an eighth.
impl IntBlock for BlockIQ2XXS {
    const UNIT: usize = 256;
    const SUB: usize = 32;
    const HAS_MIN: bool = false;

    #[inline(always)]
    fn unpack(&self, _index: usize, out: &mut Unit) {
        let (groups, _) = out.q.as_chunks_mut::<8>();
        for n in 0..8 {
            let [indices @ .., s0, s1, s2, s3] = self.qs[n];
            let bits = u32::from_le_bytes([s0, s1, s2, s3]);
            for l in 0..4 {
                let grid = &grids::IQ2_XXS[usize::from(indices[l])];
                signs::apply_even(grid, bits >> (7 * l), &mut groups[4 * n + l]);
            }
            let scale = 2 * (bits >> 28) as i16 + 1;
            out.scale[2 * n] = scale;
            out.scale[2 * n + 1] = scale;
        }
        out.d = self.d() * 0.125;
    }
}

/// Sets the scales from bytes that hold two scales of 4 bits.
#[inline(always)]
fn unpack_scales(scales: &[u8; 8], out: &mut Unit) {
    for j in 0..8 {
        out.scale[2 * j] = 2 * i16::from(scales[j] & 0xf) + 1;
        out.scale[2 * j + 1] = 2 * i16::from(scales[j] >> 4) + 1;
    }
}

/// 256 weights in 74 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct BlockIQ2XS {
    /// Scale, f16.
    pub d: [u8; 2],
    /// Per group of 8 a u16: a grid index of 9 bits and 7 signs.
    pub qs: [[u8; 2]; 32],
    /// Two scales of 4 bits in a byte, each of 16 values.
    pub scales: [u8; 8],
}

impl BlockIQ2XS {
    /// The scale.
    #[inline(always)]
    pub const fn d(&self) -> f32 {
        f16(self.d)
    }
}

impl Block for BlockIQ2XS {
    const TYPE: GgmlType = GgmlType::IQ2_XS;
    const WIDE: &'static [Wide] = &[Wide { offset: 0, width: 2, count: 33 }];

    fn dequantize(&self, out: &mut [f32]) {
        dequantize_units(self, out);
    }
}

/// `q` is the signed grid value: 8, 25 or 43; `scale` is odd, 1 to 31; `d` is an eighth.
impl IntBlock for BlockIQ2XS {
    const UNIT: usize = 256;
    const SUB: usize = 16;
    const HAS_MIN: bool = false;

    #[inline(always)]
    fn unpack(&self, _index: usize, out: &mut Unit) {
        let (groups, _) = out.q.as_chunks_mut::<8>();
        for n in 0..32 {
            let code = u16::from_le_bytes(self.qs[n]);
            let grid = &grids::IQ2_XS[usize::from(code & 511)];
            signs::apply_even(grid, u32::from(code >> 9), &mut groups[n]);
        }
        unpack_scales(&self.scales, out);
        out.d = self.d() * 0.125;
    }
}

/// 256 weights in 82 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct BlockIQ2S {
    /// Scale, f16.
    pub d: [u8; 2],
    /// The lower 8 bits of the grid index of each group of 8, then the signs of each.
    pub qs: [u8; 64],
    /// The upper 2 bits of the grid indices, 4 in a byte from its low bits up.
    pub qh: [u8; 8],
    /// Two scales of 4 bits in a byte, each of 16 values.
    pub scales: [u8; 8],
}

impl BlockIQ2S {
    /// The scale.
    #[inline(always)]
    pub const fn d(&self) -> f32 {
        f16(self.d)
    }
}

impl Block for BlockIQ2S {
    const TYPE: GgmlType = GgmlType::IQ2_S;
    const WIDE: &'static [Wide] = &[Wide::half(0)];

    fn dequantize(&self, out: &mut [f32]) {
        dequantize_units(self, out);
    }
}

/// `q` is the signed grid value: 8, 25 or 43; `scale` is odd, 1 to 31; `d` is an eighth.
impl IntBlock for BlockIQ2S {
    const UNIT: usize = 256;
    const SUB: usize = 16;
    const HAS_MIN: bool = false;

    #[inline(always)]
    fn unpack(&self, _index: usize, out: &mut Unit) {
        let (groups, _) = out.q.as_chunks_mut::<8>();
        for n in 0..8 {
            let high = usize::from(self.qh[n]) << 8;
            for l in 0..4 {
                let index = usize::from(self.qs[4 * n + l]) | high >> (2 * l) & 0x300;
                signs::apply(&grids::IQ2_S[index], self.qs[32 + 4 * n + l], &mut groups[4 * n + l]);
            }
        }
        unpack_scales(&self.scales, out);
        out.d = self.d() * 0.125;
    }
}
