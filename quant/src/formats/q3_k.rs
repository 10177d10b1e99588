//! Q3_K: `x = d * (scale - 32) * (q - 4)`, 3 bits each, 6-bit scale per 16.

use bytemuck::{Pod, Zeroable};

use super::k_scales::{pack_scales_q3, unpack_scales_q3};
use super::k_search::{codes_for, nearest_int, search_q3};
use super::q2_k::pack_2_bits;
use super::{
    Block, IntBlock, Unit, Wide, block_values, dequantize_units, f16, f16_bytes, furthest,
};
use crate::GgmlType;

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

    /// Searches a scale for each 16 values, each weighted by its square; the one furthest from
    /// zero becomes -32.
    pub fn quantize(x: &[f32; 256]) -> Self {
        let (parts, _) = x.as_chunks::<16>();
        let (mut found, mut codes) = ([0.0; 16], [[0; 16]; 16]);
        for j in 0..16 {
            (found[j], codes[j]) = search_q3(&parts[j]);
        }
        let far = furthest(&found);
        let (mut d, mut scale) = (f16_bytes(0.0), [0; 16]);
        if far != 0.0 {
            let iscale = -32.0 / far;
            d = f16_bytes(1.0 / iscale);
            scale = found.map(|x| (nearest_int(iscale * x) as i8).clamp(-32, 31) + 32);
        }
        for j in 0..16 {
            // Without any scale the field is zero, which reads as -32.
            let d = f16(d) * f32::from(scale[j] - 32);
            if d != 0.0 {
                codes[j] = codes_for(&parts[j], d, 0.0, -4..=3).map(|l| (l + 4) as u8);
            }
        }
        let codes = codes.as_flattened();
        let mut hmask = [0; 32];
        for (i, code) in codes.iter().enumerate() {
            hmask[i % 32] |= (code >> 2) << (i / 32);
        }
        let scales = pack_scales_q3(scale.map(|s| s as u8));
        BlockQ3K { hmask, qs: pack_2_bits(codes), scales, d }
    }
}

impl Block for BlockQ3K {
    const TYPE: GgmlType = GgmlType::Q3_K;
    const WIDE: &'static [Wide] = &[Wide::half(108)];
    const QUANTIZE: Option<fn(&[f32]) -> Self> = Some(|x| Self::quantize(block_values(x)));

    fn dequantize(&self, out: &mut [f32]) {
        dequantize_units(self, out);
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
