//! IQ1_S and IQ1_M: `x = d * (2 * scale + 1) * (grid + delta)`, the values of a group of 8 from a
//! grid of -1, 0 and 1, moved by an eighth up or down.

use bytemuck::{Pod, Zeroable};

use super::{Block, IntBlock, Unit, Wide, dequantize_units, f16, grids};
use crate::GgmlType;
use crate::lanes::Lanes;
use crate::quantize::grid::{Found, GridType, Moved, search_8};
use crate::quantize::lanes::Cpu;
use crate::quantize::points::Split;
use crate::quantize::scale_plan::Effort;
use crate::quantize::{GROUP, Search};

const IQ1_S: GridType<8, 3> = {
    static POINTS: Split<2048> = Split::new(&grids::IQ1, &[-8, 0, 8]);
    GridType {
        grid: &grids::IQ1,
        points: POINTS.points(),
        levels: [-8.0, 0.0, 8.0],
        delta: 1.0,
        moved: Moved::SubBlock,
        even: false,
        subs: 8,
        effort: Effort { coarse: 7, first: 1.0, step: 0.87, computed: 1, refits: 1 },
        max_scale: 15,
        factor: 8.0,
    }
};

const IQ1_M: GridType<8, 3> = GridType { moved: Moved::Group, subs: 16, ..IQ1_S };

/// Writes the codes of group `group`: 8 times the grid's values, moved by 1.
#[inline(always)]
fn unpack_group(index: usize, minus: bool, group: usize, out: &mut Unit) {
    let grid = &grids::IQ1[index];
    let delta = 1 - 2 * i8::from(minus);
    for j in 0..8 {
        out.q[8 * group + j] = grid[j] + delta;
    }
}

/// 256 weights in 50 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct BlockIQ1S {
    /// Scale, f16.
    pub d: [u8; 2],
    /// The lower 8 bits of the grid index of each group of 8.
    pub qs: [u8; 32],
    /// Per 32 values a u16: the upper 3 bits of 4 grid indices, a 3-bit scale, and in bit 15
    /// whether the values are moved down.
    pub qh: [[u8; 2]; 8],
}

impl BlockIQ1S {
    /// The scale.
    #[inline(always)]
    pub const fn d(&self) -> f32 {
        f16(self.d)
    }

    /// The 3-bit scale of each 32 values, 4 bits for each from the low ones up.
    #[inline(always)]
    pub(crate) fn scales(&self) -> u32 {
        let mut all = 0;
        for (n, qh) in self.qh.iter().enumerate() {
            all |= u32::from(u16::from_le_bytes(*qh) >> 12 & 7) << (4 * n);
        }
        all
    }
}

impl Block for BlockIQ1S {
    const TYPE: GgmlType = GgmlType::IQ1_S;
    const WIDE: &'static [Wide] = &[Wide::half(0), Wide { offset: 34, width: 2, count: 8 }];

    fn dequantize(&self, out: &mut [f32]) {
        dequantize_units(self, out);
    }
}

impl BlockIQ1S {
    /// The block that a search found.
    fn pack(found: &Found<32>) -> Self {
        Self {
            d: found.d,
            qs: found.index.map(|index| index as u8),
            qh: std::array::from_fn(|n| {
                let mut qh =
                    u16::from(found.scales[n]) << 12 | u16::from(found.second[4 * n]) << 15;
                for l in 0..4 {
                    qh |= (found.index[4 * n + l] >> 8) << (3 * l);
                }
                qh.to_le_bytes()
            }),
        }
    }
}

impl Search for BlockIQ1S {
    #[inline(always)]
    fn search<L: Lanes>(cpu: Cpu<L>, x: &[f32; GROUP], weights: &[f32; GROUP], out: &mut [Self]) {
        search_8(cpu, &IQ1_S, x, weights, out, Self::pack);
    }
}

/// `q` is 8 times the value: -9, -7, -1, 1, 7 or 9; `scale` is odd, 1 to 15; `d` is an eighth.
impl IntBlock for BlockIQ1S {
    const UNIT: usize = 256;
    const SUB: usize = 32;
    const HAS_MIN: bool = false;

    #[inline(always)]
    fn unpack(&self, _index: usize, out: &mut Unit) {
        for n in 0..8 {
            let qh = u16::from_le_bytes(self.qh[n]);
            for l in 0..4 {
                let high = usize::from(qh >> (3 * l) & 7) << 8;
                let index = usize::from(self.qs[4 * n + l]) | high;
                unpack_group(index, qh & 0x8000 != 0, 4 * n + l, out);
            }
        }
        out.set_scales_32(self.scales());
        out.d = self.d() * 0.125;
    }
}

/// 256 weights in 56 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct BlockIQ1M {
    /// The lower 8 bits of the grid index of each group of 8.
    pub qs: [u8; 32],
    /// Per group a nibble: the upper 3 bits of its grid index, and in bit 3 whether its values are
    /// moved down.
    pub qh: [u8; 16],
    /// Four u16: from their low bits up 4 scales of 3 bits, each of 16 values, and 4 bits of the
    /// f16 scale.
    pub scales: [[u8; 2]; 4],
}

impl BlockIQ1M {
    /// The scale, put together from the upper 4 bits of each of `scales`.
    #[inline(always)]
    pub const fn d(&self) -> f32 {
        f16(self.d_bytes())
    }

    /// Its bytes.
    #[inline(always)]
    pub(crate) const fn d_bytes(&self) -> [u8; 2] {
        let [a, b, c, d] = self.scales;
        [a[1] >> 4 | b[1] & 0xf0, c[1] >> 4 | d[1] & 0xf0]
    }

    /// The 3-bit scale of each 16 values, 4 bits for each from the low ones up.
    #[inline(always)]
    pub(crate) fn scales(&self) -> u64 {
        let [[a, b], [c, d], [e, f], [g, h]] = self.scales;
        let x = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let field = |l: u64| (x & 0x0007_0007_0007_0007 << (3 * l)) << l;
        field(0) | field(1) | field(2) | field(3)
    }
}

impl Block for BlockIQ1M {
    const TYPE: GgmlType = GgmlType::IQ1_M;
    const WIDE: &'static [Wide] = &[Wide { offset: 48, width: 2, count: 4 }];

    fn dequantize(&self, out: &mut [f32]) {
        dequantize_units(self, out);
    }
}

impl BlockIQ1M {
    /// The block that a search found.
    fn pack(found: &Found<32>) -> Self {
        let mut qh = [0; 16];
        for n in 0..32 {
            let high = (found.index[n] >> 8) as u8 | u8::from(found.second[n]) << 3;
            qh[n / 2] |= high << (4 * (n % 2));
        }
        let d = u16::from_le_bytes(found.d);
        Self {
            qs: found.index.map(|index| index as u8),
            qh,
            scales: std::array::from_fn(|j| {
                let mut scales = (d >> (4 * j) & 0xf) << 12;
                for l in 0..4 {
                    scales |= u16::from(found.scales[4 * j + l]) << (3 * l);
                }
                scales.to_le_bytes()
            }),
        }
    }
}

impl Search for BlockIQ1M {
    #[inline(always)]
    fn search<L: Lanes>(cpu: Cpu<L>, x: &[f32; GROUP], weights: &[f32; GROUP], out: &mut [Self]) {
        search_8(cpu, &IQ1_M, x, weights, out, Self::pack);
    }
}

/// `q` is 8 times the value: -9, -7, -1, 1, 7 or 9; `scale` is odd, 1 to 15; `d` is an eighth.
impl IntBlock for BlockIQ1M {
    const UNIT: usize = 256;
    const SUB: usize = 16;
    const HAS_MIN: bool = false;

    #[inline(always)]
    fn unpack(&self, _index: usize, out: &mut Unit) {
        for n in 0..16 {
            for l in 0..2 {
                let high = usize::from(self.qh[n]) >> (4 * l);
                let index = usize::from(self.qs[2 * n + l]) | (high & 7) << 8;
                unpack_group(index, high & 8 != 0, 2 * n + l, out);
            }
        }
        out.set_scales_16(self.scales());
        out.d = self.d() * 0.125;
    }
}
