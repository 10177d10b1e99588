//! IQ3_XXS and IQ3_S: `x = d * (2 * scale + 1) * grid`, the values of a group of 4 from a grid,
//! with signs. IQ3_XXS takes a quarter of that.

use bytemuck::{Pod, Zeroable};

use super::iq2::top_halves;
use super::{Block, IntBlock, Unit, Wide, dequantize_units, f16, grids, signs};
use crate::GgmlType;
use crate::lanes::Lanes;
use crate::quantize::grid::{Found, GridType, Moved, search_4};
use crate::quantize::lanes::Cpu;
use crate::quantize::points::Split;
use crate::quantize::scale_plan::Effort;
use crate::quantize::{GROUP, Search};

const IQ3_XXS: GridType<4, 8> = {
    static POINTS: Split<256> = Split::new(&grids::IQ3_XXS, &[4, 12, 20, 28, 36, 44, 52, 62]);
    GridType {
        grid: &grids::IQ3_XXS,
        points: POINTS.points(),
        levels: [4.0, 12.0, 20.0, 28.0, 36.0, 44.0, 52.0, 62.0],
        delta: 0.0,
        moved: Moved::No,
        even: true,
        subs: 8,
        effort: Effort { coarse: 12, first: 1.12, step: 0.93, computed: 3, refits: 2 },
        max_scale: 31,
        factor: 4.0,
    }
};

const IQ3_S: GridType<4, 8> = {
    static POINTS: Split<512> = Split::new(&grids::IQ3_S, &[1, 3, 5, 7, 9, 11, 13, 15]);
    GridType {
        grid: &grids::IQ3_S,
        points: POINTS.points(),
        levels: [1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0, 15.0],
        even: false,
        factor: 1.0,
        ..IQ3_XXS
    }
};

/// Two groups of 4 as one of 8, which is what the signs come in.
#[inline(always)]
fn pair(first: [i8; 4], second: [i8; 4]) -> [i8; 8] {
    let [a, b, c, d] = first;
    let [e, f, g, h] = second;
    [a, b, c, d, e, f, g, h]
}

/// 256 weights in 98 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct BlockIQ3XXS {
    /// Scale, f16.
    pub d: [u8; 2],
    /// The grid index of each group of 4, then per 32 values a u32 of 4 times 7 signs and a 4-bit
    /// scale.
    pub qs: [u8; 96],
}

impl BlockIQ3XXS {
    /// The scale.
    #[inline(always)]
    pub const fn d(&self) -> f32 {
        f16(self.d)
    }

    /// The signs and scales of each 32 values.
    #[inline(always)]
    pub(crate) fn bits(&self) -> [u32; 8] {
        let (words, _) = self.qs.as_chunks::<4>();
        let mut bits = [0; 8];
        for (bits, word) in bits.iter_mut().zip(&words[16..]) {
            *bits = u32::from_le_bytes(*word);
        }
        bits
    }

    /// The 4-bit scale of each 32 values, from the low bits up.
    #[inline(always)]
    pub(crate) fn scales(&self) -> u32 {
        top_halves(self.bits())
    }
}

impl Block for BlockIQ3XXS {
    const TYPE: GgmlType = GgmlType::IQ3_XXS;
    const WIDE: &'static [Wide] = &[Wide::half(0), Wide { offset: 66, width: 4, count: 8 }];

    fn dequantize(&self, out: &mut [f32]) {
        dequantize_units(self, out);
    }
}

impl BlockIQ3XXS {
    /// The block that a search found.
    fn pack(found: &Found<64>) -> Self {
        let mut qs = [0; 96];
        for n in 0..64 {
            qs[n] = found.index[n] as u8;
        }
        for n in 0..8 {
            let mut bits = u32::from(found.scales[n]) << 28;
            for l in 0..4 {
                bits |= u32::from(found.signs[4 * n + l] & 127) << (7 * l);
            }
            qs[64 + 4 * n..][..4].copy_from_slice(&bits.to_le_bytes());
        }
        Self { d: found.d, qs }
    }
}

impl Search for BlockIQ3XXS {
    #[inline(always)]
    fn search<L: Lanes>(cpu: Cpu<L>, x: &[f32; GROUP], weights: &[f32; GROUP], out: &mut [Self]) {
        search_4(cpu, &IQ3_XXS, x, weights, out, Self::pack);
    }
}

/// `q` is the signed grid value: 4 to 62; `scale` is odd, 1 to 31; `d` is a quarter.
impl IntBlock for BlockIQ3XXS {
    const UNIT: usize = 256;
    const SUB: usize = 32;
    const HAS_MIN: bool = false;

    #[inline(always)]
    fn unpack(&self, _index: usize, out: &mut Unit) {
        let (groups, _) = out.q.as_chunks_mut::<8>();
        let (indices, _) = self.qs.as_chunks::<2>();
        let bits = self.bits();
        for n in 0..8 {
            for l in 0..4 {
                let [first, second] = indices[4 * n + l];
                let grid =
                    pair(grids::IQ3_XXS[usize::from(first)], grids::IQ3_XXS[usize::from(second)]);
                signs::apply_even(&grid, bits[n] >> (7 * l), &mut groups[4 * n + l]);
            }
        }
        out.set_scales_32(self.scales());
        out.d = self.d() * 0.25;
    }
}

/// 256 weights in 110 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct BlockIQ3S {
    /// Scale, f16.
    pub d: [u8; 2],
    /// The lower 8 bits of the grid index of each group of 4.
    pub qs: [u8; 64],
    /// The ninth bits of the grid indices.
    pub qh: [u8; 8],
    /// The signs of each 8 values.
    pub signs: [u8; 32],
    /// Two scales of 4 bits in a byte, each of 32 values.
    pub scales: [u8; 4],
}

impl BlockIQ3S {
    /// The scale.
    #[inline(always)]
    pub const fn d(&self) -> f32 {
        f16(self.d)
    }

    /// The 4-bit scale of each 32 values, from the low bits up.
    #[inline(always)]
    pub(crate) fn scales(&self) -> u32 {
        u32::from_le_bytes(self.scales)
    }
}

impl Block for BlockIQ3S {
    const TYPE: GgmlType = GgmlType::IQ3_S;
    const WIDE: &'static [Wide] = &[Wide::half(0)];

    fn dequantize(&self, out: &mut [f32]) {
        dequantize_units(self, out);
    }
}

impl BlockIQ3S {
    /// The block that a search found.
    fn pack(found: &Found<64>) -> Self {
        let mut qh = [0; 8];
        for n in 0..64 {
            qh[n / 8] |= ((found.index[n] >> 8) as u8) << (n % 8);
        }
        Self {
            d: found.d,
            qs: found.index.map(|index| index as u8),
            qh,
            signs: found.signs,
            scales: std::array::from_fn(|j| found.scales[2 * j] | found.scales[2 * j + 1] << 4),
        }
    }
}

impl Search for BlockIQ3S {
    #[inline(always)]
    fn search<L: Lanes>(cpu: Cpu<L>, x: &[f32; GROUP], weights: &[f32; GROUP], out: &mut [Self]) {
        search_4(cpu, &IQ3_S, x, weights, out, Self::pack);
    }
}

/// `q` is the signed grid value: odd, 1 to 15; `scale` is odd, 1 to 31.
impl IntBlock for BlockIQ3S {
    const UNIT: usize = 256;
    const SUB: usize = 32;
    const HAS_MIN: bool = false;

    #[inline(always)]
    fn unpack(&self, _index: usize, out: &mut Unit) {
        let (groups, _) = out.q.as_chunks_mut::<8>();
        for n in 0..8 {
            let high = usize::from(self.qh[n]) << 8;
            for l in 0..4 {
                let group = 4 * n + l;
                let first = usize::from(self.qs[2 * group]) | high >> (2 * l) & 0x100;
                let second = usize::from(self.qs[2 * group + 1]) | high >> (2 * l + 1) & 0x100;
                let grid = pair(grids::IQ3_S[first], grids::IQ3_S[second]);
                signs::apply(&grid, self.signs[group], &mut groups[group]);
            }
        }
        out.set_scales_32(self.scales());
        out.d = self.d();
    }
}
