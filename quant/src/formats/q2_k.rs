//! Q2_K: `x = d * scale * q - dmin * min`, 2 bits each, 4-bit scale and minimum per 16.

use bytemuck::{Pod, Zeroable};

use super::k_search::{MinSearch, codes_for, largest, nearest_int};
use super::{Block, IntBlock, Unit, Wide, block_values, dequantize_units, f16, f16_bytes};
use crate::GgmlType;

/// The scale with which the largest of the numbers becomes 15, and the numbers.
fn round_to_4_bits(x: &[f32; 16]) -> (f32, [u8; 16]) {
    let max = largest(x);
    if max > 0.0 {
        let iscale = 15.0 / max;
        (max / 15.0, x.map(|x| nearest_int(iscale * x) as u8))
    } else {
        (0.0, [0; 16])
    }
}

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

    /// Searches a scale and a minimum for each 16 values, each weighted by its size, and rounds
    /// them to 4 bits.
    pub fn quantize(x: &[f32; 256]) -> Self {
        const SEARCH: MinSearch = MinSearch { max_code: 3, first: -0.5, steps: 15, absolute: true };
        let (parts, _) = x.as_chunks::<16>();
        let (mut scale, mut min, mut codes) = ([0.0; 16], [0.0; 16], [[0; 16]; 16]);
        for j in 0..16 {
            (scale[j], min[j], codes[j]) = SEARCH.search(&parts[j], &parts[j].map(f32::abs));
        }
        let (d, scale) = round_to_4_bits(&scale);
        let (dmin, min) = round_to_4_bits(&min);
        let mut block =
            BlockQ2K { scales: [0; 16], qs: [0; 64], d: f16_bytes(d), dmin: f16_bytes(dmin) };
        for j in 0..16 {
            block.scales[j] = scale[j] | min[j] << 4;
            let d = block.d() * f32::from(block.scales[j] & 0xf);
            if d != 0.0 {
                let dm = block.dmin() * f32::from(block.scales[j] >> 4);
                codes[j] = codes_for(&parts[j], d, dm, 0..=3).map(|l| l as u8);
            }
        }
        block.qs = pack_2_bits(codes.as_flattened());
        block
    }
}

impl Block for BlockQ2K {
    const TYPE: GgmlType = GgmlType::Q2_K;
    const WIDE: &'static [Wide] = &[Wide::half(80), Wide::half(82)];
    const QUANTIZE: Option<fn(&[f32]) -> Self> = Some(|x| Self::quantize(block_values(x)));

    fn dequantize(&self, out: &mut [f32]) {
        dequantize_units(self, out);
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
