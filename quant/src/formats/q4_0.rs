//! Q4_0: `x = d * (q - 8)`, 4 bits each.

use bytemuck::{Pod, Zeroable};

use super::{Block, IntBlock, Unit, Wide, dequantize_units, f16, pack_nibbles};
use crate::GgmlType;
use crate::lanes::Lanes;
use crate::quantize::centred::Centred;
use crate::quantize::lanes::{Cpu, Values, code_bytes, f16_field};
use crate::quantize::recode::{Codes, Recode};
use crate::quantize::{GROUP, Search};

/// See [`Centred::starts`].
const STARTS: &[f32] = &[-8.00, -7.50, -8.50, -7.00, -9.00, -6.50, 7.40, 6.90, 6.40, 7.90];

/// 32 weights in 18 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct BlockQ4_0 {
    /// Scale, f16.
    pub d: [u8; 2],
    /// Codes plus 8: the low nibble of byte `j` is value `j`, the high one value `j + 16`.
    pub qs: [u8; 16],
}

impl BlockQ4_0 {
    /// The scale.
    #[inline(always)]
    pub const fn d(&self) -> f32 {
        f16(self.d)
    }
}

impl Block for BlockQ4_0 {
    const TYPE: GgmlType = GgmlType::Q4_0;
    const WIDE: &'static [Wide] = &[Wide::half(0)];

    fn dequantize(&self, out: &mut [f32]) {
        dequantize_units(self, out);
    }
}

impl Search for BlockQ4_0 {
    #[inline(always)]
    fn search<L: Lanes>(cpu: Cpu<L>, x: &[f32; GROUP], weights: &[f32; GROUP], out: &mut [Self]) {
        let values = Values::<32>::new(x, weights);
        let search = Centred { cpu, least: -8.0, most: 7.0, starts: STARTS };
        let scale = search.halves(&values);
        let codes = code_bytes(&search.codes(&values, scale), 8.0);
        for ((out, codes), d) in out.iter_mut().zip(codes).zip(scale.array()) {
            let d = f16_field(d);
            *out = BlockQ4_0 { d, qs: pack_nibbles(&codes) };
        }
    }
}

/// `q` is centred: -8 to 7.
impl IntBlock for BlockQ4_0 {
    const UNIT: usize = 32;
    const SUB: usize = 32;
    const HAS_MIN: bool = false;

    #[inline(always)]
    fn unpack(&self, _index: usize, out: &mut Unit) {
        for j in 0..16 {
            out.q[j] = (self.qs[j] & 0xf) as i8 - 8;
            out.q[j + 16] = (self.qs[j] >> 4) as i8 - 8;
        }
        out.scale[..2].fill(1);
        out.d = self.d();
    }
}

impl Recode for BlockQ4_0 {
    const CODES: Codes = Codes::Range(-8, 7);

    #[inline(always)]
    fn set_codes(&mut self, codes: &[u8]) {
        if let Some(codes) = codes.first_chunk() {
            self.qs = pack_nibbles(codes);
        }
    }
}
