//! Q5_0: `x = d * (q - 16)`, 5 bits each.

use bytemuck::{Pod, Zeroable};

use super::{Block, IntBlock, Unit, Wide, dequantize_units, f16};
use crate::GgmlType;
use crate::lanes::Lanes;
use crate::quantize::centred::Centred;
use crate::quantize::lanes::{Cpu, Values, code_bytes, f16_field};
use crate::quantize::recode::{Codes, Recode};
use crate::quantize::{GROUP, Search};

/// See [`Centred::starts`].
const STARTS: &[f32] = &[-16.00, -15.50, -16.50, 15.50, 15.00, 16.00, -15.00, 14.50];

/// Splits 32 codes of 5 bits into the fifth bits and the lower 4.
#[inline(always)]
pub(super) fn pack(codes: [u8; 32]) -> ([u8; 4], [u8; 16]) {
    let mut qh = 0;
    for (j, code) in codes.iter().enumerate() {
        qh |= u32::from(code >> 4 & 1) << j;
    }
    (qh.to_le_bytes(), std::array::from_fn(|j| codes[j] & 0xf | (codes[j + 16] & 0xf) << 4))
}

/// 32 weights in 22 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct BlockQ5_0 {
    /// Scale, f16.
    pub d: [u8; 2],
    /// The fifth bits: bit `j` of the u32 belongs to value `j`.
    pub qh: [u8; 4],
    /// The lower 4 bits: the low nibble of byte `j` is value `j`, the high one value `j + 16`.
    pub qs: [u8; 16],
}

impl BlockQ5_0 {
    /// The scale.
    #[inline(always)]
    pub const fn d(&self) -> f32 {
        f16(self.d)
    }

    /// The fifth bits.
    #[inline(always)]
    pub const fn qh(&self) -> u32 {
        u32::from_le_bytes(self.qh)
    }
}

impl Block for BlockQ5_0 {
    const TYPE: GgmlType = GgmlType::Q5_0;
    const WIDE: &'static [Wide] = &[Wide::half(0), Wide { offset: 2, width: 4, count: 1 }];

    fn dequantize(&self, out: &mut [f32]) {
        dequantize_units(self, out);
    }
}

impl Search for BlockQ5_0 {
    #[inline(always)]
    fn search<L: Lanes>(cpu: Cpu<L>, x: &[f32; GROUP], weights: &[f32; GROUP], out: &mut [Self]) {
        let values = Values::<32>::new(x, weights);
        let search = Centred { cpu, least: -16.0, most: 15.0, starts: STARTS };
        let scale = search.halves(&values);
        let codes = code_bytes(&search.codes(&values, scale), 16.0);
        for ((out, codes), d) in out.iter_mut().zip(codes).zip(scale.array()) {
            let d = f16_field(d);
            let (qh, qs) = pack(codes);
            *out = BlockQ5_0 { d, qh, qs };
        }
    }
}

/// `q` is centred: -16 to 15.
impl IntBlock for BlockQ5_0 {
    const UNIT: usize = 32;
    const SUB: usize = 32;
    const HAS_MIN: bool = false;

    #[inline(always)]
    fn unpack(&self, _index: usize, out: &mut Unit) {
        let qh = self.qh();
        for j in 0..16 {
            let low = ((qh >> j) & 1) as u8;
            let high = ((qh >> (j + 16)) & 1) as u8;
            out.q[j] = (self.qs[j] & 0xf | low << 4) as i8 - 16;
            out.q[j + 16] = (self.qs[j] >> 4 | high << 4) as i8 - 16;
        }
        out.scale[..2].fill(1);
        out.d = self.d();
    }
}

impl Recode for BlockQ5_0 {
    const CODES: Codes = Codes::Range(-16, 15);

    #[inline(always)]
    fn set_codes(&mut self, codes: &[u8]) {
        if let Some(codes) = codes.first_chunk() {
            (self.qh, self.qs) = pack(*codes);
        }
    }
}
