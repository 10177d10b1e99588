//! Q5_1: `x = d * q + m`, 5 bits each.

use bytemuck::{Pod, Zeroable};

use super::q5_0::pack;
use super::{Block, IntBlock, Unit, Wide, dequantize_units, f16};
use crate::GgmlType;
use crate::lanes::Lanes;
use crate::quantize::affine::{Affine, HALF_STARTS};
use crate::quantize::lanes::{Cpu, Values, code_bytes, f16_field};
use crate::quantize::recode::{Codes, Recode};
use crate::quantize::{GROUP, Search};

/// 32 weights in 24 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct BlockQ5_1 {
    /// Scale, f16.
    pub d: [u8; 2],
    /// Minimum, f16.
    pub m: [u8; 2],
    /// The fifth bits: bit `j` of the u32 belongs to value `j`.
    pub qh: [u8; 4],
    /// The lower 4 bits: the low nibble of byte `j` is value `j`, the high one value `j + 16`.
    pub qs: [u8; 16],
}

impl BlockQ5_1 {
    /// The scale.
    #[inline(always)]
    pub const fn d(&self) -> f32 {
        f16(self.d)
    }

    /// The minimum.
    #[inline(always)]
    pub const fn m(&self) -> f32 {
        f16(self.m)
    }

    /// The fifth bits.
    #[inline(always)]
    pub const fn qh(&self) -> u32 {
        u32::from_le_bytes(self.qh)
    }
}

impl Block for BlockQ5_1 {
    const TYPE: GgmlType = GgmlType::Q5_1;
    const WIDE: &'static [Wide] =
        &[Wide::half(0), Wide::half(2), Wide { offset: 4, width: 4, count: 1 }];

    fn dequantize(&self, out: &mut [f32]) {
        dequantize_units(self, out);
    }
}

impl Search for BlockQ5_1 {
    #[inline(always)]
    fn search<L: Lanes>(cpu: Cpu<L>, x: &[f32; GROUP], weights: &[f32; GROUP], out: &mut [Self]) {
        let values = Values::<32>::new(x, weights);
        let search = Affine { cpu, top: 31.0, most: 0.0, starts: HALF_STARTS };
        let grid = search.halves(&values);
        let codes = code_bytes(&search.codes(&values, &grid), 0.0);
        let scales = grid.scale.array().into_iter().zip(grid.min.array());
        for ((out, codes), (d, m)) in out.iter_mut().zip(codes).zip(scales) {
            let (d, m) = (f16_field(d), f16_field(m));
            let (qh, qs) = pack(codes);
            *out = BlockQ5_1 { d, m, qh, qs };
        }
    }
}

/// `q` is 0 to 31; `min` is 1 and `dmin` is `m`.
impl IntBlock for BlockQ5_1 {
    const UNIT: usize = 32;
    const SUB: usize = 32;
    const HAS_MIN: bool = true;

    #[inline(always)]
    fn unpack(&self, _index: usize, out: &mut Unit) {
        let qh = self.qh();
        for j in 0..16 {
            let low = ((qh >> j) & 1) as u8;
            let high = ((qh >> (j + 16)) & 1) as u8;
            out.q[j] = (self.qs[j] & 0xf | low << 4) as i8;
            out.q[j + 16] = (self.qs[j] >> 4 | high << 4) as i8;
        }
        out.scale[..2].fill(1);
        out.min[..2].fill(1);
        out.d = self.d();
        out.dmin = self.m();
    }
}

impl Recode for BlockQ5_1 {
    const CODES: Codes = Codes::Range(0, 31);

    #[inline(always)]
    fn set_codes(&mut self, codes: &[u8]) {
        if let Some(codes) = codes.first_chunk() {
            (self.qh, self.qs) = pack(*codes);
        }
    }
}
