//! Q4_1: `x = d * q + m`, 4 bits each.

use bytemuck::{Pod, Zeroable};

use super::{Block, IntBlock, Unit, Wide, dequantize_units, f16, pack_nibbles};
use crate::GgmlType;
use crate::lanes::Lanes;
use crate::quantize::affine::{Affine, HALF_STARTS};
use crate::quantize::lanes::{Cpu, Values, code_bytes, f16_field};
use crate::quantize::recode::{Codes, Recode};
use crate::quantize::{GROUP, Search};

/// 32 weights in 20 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct BlockQ4_1 {
    /// Scale, f16.
    pub d: [u8; 2],
    /// Minimum, f16.
    pub m: [u8; 2],
    /// Codes: the low nibble of byte `j` is value `j`, the high one value `j + 16`.
    pub qs: [u8; 16],
}

impl BlockQ4_1 {
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
}

impl Block for BlockQ4_1 {
    const TYPE: GgmlType = GgmlType::Q4_1;
    const WIDE: &'static [Wide] = &[Wide::half(0), Wide::half(2)];

    fn dequantize(&self, out: &mut [f32]) {
        dequantize_units(self, out);
    }
}

impl Search for BlockQ4_1 {
    #[inline(always)]
    fn search<L: Lanes>(cpu: Cpu<L>, x: &[f32; GROUP], weights: &[f32; GROUP], out: &mut [Self]) {
        let values = Values::<32>::new(x, weights);
        let search = Affine { cpu, top: 15.0, most: 0.0, starts: HALF_STARTS };
        let grid = search.halves(&values);
        let codes = code_bytes(&search.codes(&values, &grid), 0.0);
        let scales = grid.scale.array().into_iter().zip(grid.min.array());
        for ((out, codes), (d, m)) in out.iter_mut().zip(codes).zip(scales) {
            let (d, m) = (f16_field(d), f16_field(m));
            *out = BlockQ4_1 { d, m, qs: pack_nibbles(&codes) };
        }
    }
}

/// `q` is 0 to 15; `min` is 1 and `dmin` is `m`.
impl IntBlock for BlockQ4_1 {
    const UNIT: usize = 32;
    const SUB: usize = 32;
    const HAS_MIN: bool = true;

    #[inline(always)]
    fn unpack(&self, _index: usize, out: &mut Unit) {
        for j in 0..16 {
            out.q[j] = (self.qs[j] & 0xf) as i8;
            out.q[j + 16] = (self.qs[j] >> 4) as i8;
        }
        out.scale[..2].fill(1);
        out.min[..2].fill(1);
        out.d = self.d();
        out.dmin = self.m();
    }
}

impl Recode for BlockQ4_1 {
    const CODES: Codes = Codes::Range(0, 15);

    #[inline(always)]
    fn set_codes(&mut self, codes: &[u8]) {
        if let Some(codes) = codes.first_chunk() {
            self.qs = pack_nibbles(codes);
        }
    }
}
