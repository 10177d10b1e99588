//! Q3_K: `x = d * (scale - 32) * (q - 4)`, 3 bits each, 6-bit scale per 16.

use bytemuck::{Pod, Zeroable};

use super::k_scales::{pack_scales_q3, unpack_scales_q3};
use super::q2_k::pack_2_bits;
use super::{Block, IntBlock, Unit, Wide, dequantize_units, f16};
use crate::GgmlType;
use crate::lanes::Lanes;
use crate::quantize::centred::{Centred, Scales};
use crate::quantize::lanes::{Cpu, Values, code_byte, code_bytes, f16_field};
use crate::quantize::recode::{Codes, Recode};
use crate::quantize::{GROUP, Search};

/// See [`Centred::starts`].
const STARTS: &[f32] = &[-4.0, -3.6, -4.4, -3.2, -2.8, -4.8, -5.4, 3.4, 3.0, 2.6, 3.8, 2.2, 4.4];

/// The scales of a superblock.
const SCALES: Scales = Scales {
    least: -32.0,
    most: 31.0,
    starts: &[-32.0, -31.5, -32.5, -31.0, 31.0, 31.4],
    steps: &[-1.0, 1.0, -2.0, 2.0, -4.0, 4.0],
};

/// 256 weights in 110 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct BlockQ3K {
    /// The third bits: bit `j` of byte `l` belongs to value `32 * j + l`.
    pub hmask: [u8; 32],
    /// The lower 2 bits: byte `32 * n + l` holds, from its low bits up, values
    /// `128 * n + 32 * j + l`.
    pub qs: [u8; 64],
    /// Scales plus 32, packed as [`unpack_scales_q3`] reads them.
    pub scales: [u8; 12],
    /// Scale of the scales, f16.
    pub d: [u8; 2],
}

impl BlockQ3K {
    /// The scale of the scales.
    #[inline(always)]
    pub const fn d(&self) -> f32 {
        f16(self.d)
    }
}

impl Block for BlockQ3K {
    const TYPE: GgmlType = GgmlType::Q3_K;
    const WIDE: &'static [Wide] = &[Wide::half(108)];

    fn dequantize(&self, out: &mut [f32]) {
        dequantize_units(self, out);
    }
}

impl Search for BlockQ3K {
    #[inline(always)]
    fn search<L: Lanes>(cpu: Cpu<L>, x: &[f32; GROUP], weights: &[f32; GROUP], out: &mut [Self]) {
        for (i, out) in out.iter_mut().enumerate() {
            let values = Values::<16>::part(x, weights, i);
            let search = Centred { cpu, least: -4.0, most: 3.0, starts: STARTS };
            let found = search.integers(&values, &SCALES);
            let codes = code_bytes(&search.codes(&values, found.d * found.scale), 4.0);
            *out = Zeroable::zeroed();
            out.scales = pack_scales_q3(found.scale.array().map(|s| code_byte(s + 32.0)));
            out.d = f16_field(found.d.array()[0]);
            out.set_codes(codes.as_flattened());
        }
    }
}

/// `q` is centred: -4 to 3. `scale` is -32 to 31.
impl IntBlock for BlockQ3K {
    const UNIT: usize = 256;
    const SUB: usize = 16;
    const HAS_MIN: bool = false;

    #[inline(always)]
    fn unpack(&self, _index: usize, out: &mut Unit) {
        for n in 0..2 {
            for j in 0..4 {
                for l in 0..32 {
                    let low = self.qs[32 * n + l] >> (2 * j) & 3;
                    let high = self.hmask[l] >> (4 * n + j) & 1;
                    out.q[128 * n + 32 * j + l] = (low | high << 2) as i8 - 4;
                }
            }
        }
        let scales = unpack_scales_q3(&self.scales);
        for j in 0..16 {
            out.scale[j] = i16::from(scales[j]) - 32;
        }
        out.d = self.d();
    }
}

impl Recode for BlockQ3K {
    const CODES: Codes = Codes::Range(-4, 3);

    #[inline(always)]
    fn set_codes(&mut self, codes: &[u8]) {
        self.qs = pack_2_bits(codes);
        self.hmask = [0; 32];
        for (i, code) in codes.iter().enumerate() {
            self.hmask[i % 32] |= (code >> 2) << (i / 32);
        }
    }
}
