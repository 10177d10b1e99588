//! IQ2_XXS, IQ2_XS and IQ2_S: `x = d * (2 * scale + 1) / 8 * grid`, the values of a group of 8
//! from a grid of 8, 25 and 43, with signs.

use bytemuck::{Pod, Zeroable};

use super::{Block, IntBlock, Unit, Wide, dequantize_units, f16, grids, signs};
use crate::GgmlType;
use crate::lanes::Lanes;
use crate::quantize::grid::{Found, GridType, Moved, search_8};
use crate::quantize::lanes::Cpu;
use crate::quantize::points::Split;
use crate::quantize::scale_plan::Effort;
use crate::quantize::{GROUP, Search};

/// The values in the grids.
const LEVELS: [i8; 3] = [8, 25, 43];

/// What the three types have in common for the search of a superblock.
const GRID: GridType<8, 3> = {
    static POINTS: Split<256> = Split::new(&grids::IQ2_XXS, &LEVELS);
    GridType {
        grid: &grids::IQ2_XXS,
        points: POINTS.points(),
        levels: [8.0, 25.0, 43.0],
        delta: 0.0,
        moved: Moved::No,
        even: true,
        subs: 8,
        effort: Effort { coarse: 12, first: 1.12, step: 0.93, computed: 3, refits: 2 },
        max_scale: 31,
        factor: 8.0,
    }
};

const IQ2_XS: GridType<8, 3> = {
    static POINTS: Split<512> = Split::new(&grids::IQ2_XS, &LEVELS);
    GridType { grid: &grids::IQ2_XS, points: POINTS.points(), subs: 16, ..GRID }
};

const IQ2_S: GridType<8, 3> = {
    static POINTS: Split<1024> = Split::new(&grids::IQ2_S, &LEVELS);
    GridType { grid: &grids::IQ2_S, points: POINTS.points(), even: false, subs: 16, ..GRID }
};

/// Scales of 4 bits, two in a byte.
#[inline(always)]
fn pack_scales(scales: [u8; 16]) -> [u8; 8] {
    std::array::from_fn(|j| scales[2 * j] | scales[2 * j + 1] << 4)
}

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

    /// The signs and scales of each 32 values.
    #[inline(always)]
    pub(crate) fn bits(&self) -> [u32; 8] {
        let mut bits = [0; 8];
        for (bits, [.., a, b, c, d]) in bits.iter_mut().zip(self.qs) {
            *bits = u32::from_le_bytes([a, b, c, d]);
        }
        bits
    }

    /// The 4-bit scale of each 32 values, from the low bits up.
    #[inline(always)]
    pub(crate) fn scales(&self) -> u32 {
        top_halves(self.bits())
    }
}

/// The upper 4 bits of each word.
#[inline(always)]
pub(super) fn top_halves(words: [u32; 8]) -> u32 {
    let mut all = 0;
    for (n, word) in words.iter().enumerate() {
        all |= word >> 28 << (4 * n);
    }
    all
}

impl Block for BlockIQ2XXS {
    const TYPE: GgmlType = GgmlType::IQ2_XXS;
    const WIDE: &'static [Wide] = &[Wide::half(0), Wide { offset: 2, width: 4, count: 16 }];

    fn dequantize(&self, out: &mut [f32]) {
        dequantize_units(self, out);
    }
}

impl BlockIQ2XXS {
    /// The block that a search found.
    fn pack(found: &Found<32>) -> Self {
        Self {
            d: found.d,
            qs: std::array::from_fn(|n| {
                let mut bits = u32::from(found.scales[n]) << 28;
                for l in 0..4 {
                    bits |= u32::from(found.signs[4 * n + l] & 127) << (7 * l);
                }
                let [s0, s1, s2, s3] = bits.to_le_bytes();
                let [a, b, c, d]: [u8; 4] = std::array::from_fn(|l| found.index[4 * n + l] as u8);
                [a, b, c, d, s0, s1, s2, s3]
            }),
        }
    }
}

impl Search for BlockIQ2XXS {
    #[inline(always)]
    fn search<L: Lanes>(cpu: Cpu<L>, x: &[f32; GROUP], weights: &[f32; GROUP], out: &mut [Self]) {
        search_8(cpu, &GRID, x, weights, out, Self::pack);
    }
}

/// `q` is the signed grid value: 8, 25 or 43; `scale` is odd, 1 to 31; `d` is an eighth.
impl IntBlock for BlockIQ2XXS {
    const UNIT: usize = 256;
    const SUB: usize = 32;
    const HAS_MIN: bool = false;

    #[inline(always)]
    fn unpack(&self, _index: usize, out: &mut Unit) {
        let (groups, bits) = (out.q.as_chunks_mut::<8>().0, self.bits());
        for n in 0..8 {
            for l in 0..4 {
                let grid = &grids::IQ2_XXS[usize::from(self.qs[n][l])];
                signs::apply_even(grid, bits[n] >> (7 * l), &mut groups[4 * n + l]);
            }
        }
        out.set_scales_32(self.scales());
        out.d = self.d() * 0.125;
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

    /// The 4-bit scale of each 16 values, from the low bits up.
    #[inline(always)]
    pub(crate) fn scales(&self) -> u64 {
        u64::from_le_bytes(self.scales)
    }
}

impl Block for BlockIQ2XS {
    const TYPE: GgmlType = GgmlType::IQ2_XS;
    const WIDE: &'static [Wide] = &[Wide { offset: 0, width: 2, count: 33 }];

    fn dequantize(&self, out: &mut [f32]) {
        dequantize_units(self, out);
    }
}

impl BlockIQ2XS {
    /// The block that a search found.
    fn pack(found: &Found<32>) -> Self {
        Self {
            d: found.d,
            qs: std::array::from_fn(|n| {
                (found.index[n] | u16::from(found.signs[n] & 127) << 9).to_le_bytes()
            }),
            scales: pack_scales(found.scales),
        }
    }
}

impl Search for BlockIQ2XS {
    #[inline(always)]
    fn search<L: Lanes>(cpu: Cpu<L>, x: &[f32; GROUP], weights: &[f32; GROUP], out: &mut [Self]) {
        search_8(cpu, &IQ2_XS, x, weights, out, Self::pack);
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
        out.set_scales_16(self.scales());
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

    /// The 4-bit scale of each 16 values, from the low bits up.
    #[inline(always)]
    pub(crate) fn scales(&self) -> u64 {
        u64::from_le_bytes(self.scales)
    }
}

impl Block for BlockIQ2S {
    const TYPE: GgmlType = GgmlType::IQ2_S;
    const WIDE: &'static [Wide] = &[Wide::half(0)];

    fn dequantize(&self, out: &mut [f32]) {
        dequantize_units(self, out);
    }
}

impl BlockIQ2S {
    /// The block that a search found.
    fn pack(found: &Found<32>) -> Self {
        let mut qh = [0; 8];
        for n in 0..32 {
            qh[n / 4] |= ((found.index[n] >> 8) as u8) << (2 * (n % 4));
        }
        Self {
            d: found.d,
            qs: std::array::from_fn(|n| {
                if n < 32 { found.index[n] as u8 } else { found.signs[n - 32] }
            }),
            qh,
            scales: pack_scales(found.scales),
        }
    }
}

impl Search for BlockIQ2S {
    #[inline(always)]
    fn search<L: Lanes>(cpu: Cpu<L>, x: &[f32; GROUP], weights: &[f32; GROUP], out: &mut [Self]) {
        search_8(cpu, &IQ2_S, x, weights, out, Self::pack);
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
        out.set_scales_16(self.scales());
        out.d = self.d() * 0.125;
    }
}
