//! Q2_K: `x = d * scale * q - dmin * min`, 2 bits each, 4-bit scale and minimum per 16.

use bytemuck::{Pod, Zeroable};

use super::{Block, IntBlock, Unit, Wide, dequantize_units, f16};
use crate::GgmlType;
use crate::lanes::Lanes;
use crate::quantize::affine::Affine;
use crate::quantize::lanes::{Cpu, Values, code_byte, code_bytes, f16_field};
use crate::quantize::recode::{Codes, Recode};
use crate::quantize::{GROUP, Search};

/// See [`Affine::starts`].
const STARTS: &[(f32, f32)] = &[
    (0.0, 0.0),
    (0.2, 0.2),
    (0.4, 0.4),
    (0.0, 0.4),
    (0.4, 0.0),
    (0.6, 0.6),
    (0.0, 0.8),
    (0.8, 0.0),
    (-0.3, -0.3),
];

/// The lower 2 bits of 256 codes, in the order of Q2_K and Q3_K.
pub(super) fn pack_2_bits(codes: &[u8]) -> [u8; 64] {
    let mut qs = [0; 64];
    for (i, code) in codes.iter().enumerate() {
        qs[i / 128 * 32 + i % 32] |= (code & 3) << (i / 32 % 4 * 2);
    }
    qs
}

/// 256 weights in 84 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct BlockQ2K {
    /// Per 16 values, the scale in the low nibble and the minimum in the high one.
    pub scales: [u8; 16],
    /// Codes: byte `32 * n + l` holds, from its low bits up, values `128 * n + 32 * j + l`.
    pub qs: [u8; 64],
    /// Scale of the scales, f16.
    pub d: [u8; 2],
    /// Scale of the minimums, f16.
    pub dmin: [u8; 2],
}

impl BlockQ2K {
    /// The scale of the scales.
    #[inline(always)]
    pub const fn d(&self) -> f32 {
        f16(self.d)
    }

    /// The scale of the minimums.
    #[inline(always)]
    pub const fn dmin(&self) -> f32 {
        f16(self.dmin)
    }
}

impl Block for BlockQ2K {
    const TYPE: GgmlType = GgmlType::Q2_K;
    const WIDE: &'static [Wide] = &[Wide::half(80), Wide::half(82)];

    fn dequantize(&self, out: &mut [f32]) {
        dequantize_units(self, out);
    }
}

impl Search for BlockQ2K {
    #[inline(always)]
    fn search<L: Lanes>(cpu: Cpu<L>, x: &[f32; GROUP], weights: &[f32; GROUP], out: &mut [Self]) {
        for (i, out) in out.iter_mut().enumerate() {
            let values = Values::<16>::part(x, weights, i);
            let search = Affine { cpu, top: 3.0, most: 15.0, starts: STARTS };
            let found = search.integers::<16, 16>(&values);
            let codes = code_bytes(&search.codes(&values, &found.grid()), 0.0);
            let integers = found.scale.array().into_iter().zip(found.min.array());
            let mut scales = [0; 16];
            for (field, (scale, min)) in scales.iter_mut().zip(integers) {
                *field = code_byte(scale) | code_byte(min) << 4;
            }
            *out = BlockQ2K {
                scales,
                qs: pack_2_bits(codes.as_flattened()),
                d: f16_field(found.d.array()[0]),
                dmin: f16_field(found.dmin.array()[0]),
            };
        }
    }
}

/// `q` is 0 to 3; `dmin` is negated.
impl IntBlock for BlockQ2K {
    const UNIT: usize = 256;
    const SUB: usize = 16;
    const HAS_MIN: bool = true;

    #[inline(always)]
    fn unpack(&self, _index: usize, out: &mut Unit) {
        for n in 0..2 {
            for j in 0..4 {
                for l in 0..32 {
                    out.q[128 * n + 32 * j + l] = (self.qs[32 * n + l] >> (2 * j) & 3) as i8;
                }
            }
        }
        for j in 0..16 {
            out.scale[j] = i16::from(self.scales[j] & 0xf);
            out.min[j] = i16::from(self.scales[j] >> 4);
        }
        out.d = self.d();
        out.dmin = -self.dmin();
    }
}

impl Recode for BlockQ2K {
    const CODES: Codes = Codes::Range(0, 3);

    #[inline(always)]
    fn set_codes(&mut self, codes: &[u8]) {
        self.qs = pack_2_bits(codes);
    }
}
