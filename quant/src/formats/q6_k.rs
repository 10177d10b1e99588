//! Q6_K: `x = d * scale * (q - 32)`, 6 bits each, 8-bit scale per 16.

use bytemuck::{Pod, Zeroable};

use super::k_search::{ALL_ZERO, codes_for, nearest_int, search_centred};
use super::{
    Block, IntBlock, Unit, Wide, block_values, dequantize_units, f16, f16_bytes, furthest,
};
use crate::GgmlType;

/// 256 weights in 210 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct BlockQ6K {
    /// The lower 4 bits: the low nibble of byte `64 * n + l` is value `128 * n + l`, the high one
    /// value `128 * n + 64 + l`.
    pub ql: [u8; 128],
    /// The upper 2 bits: byte `32 * n + l` holds, from its low bits up, those of values
    /// `128 * n + 32 * j + l`.
    pub qh: [u8; 64],
    /// Scale of each 16 values.
    pub scales: [i8; 16],
    /// Scale of the scales, f16.
    pub d: [u8; 2],
}

impl BlockQ6K {
    /// The scale of the scales.
    #[inline(always)]
    pub const fn d(&self) -> f32 {
        f16(self.d)
    }

    /// Searches a scale for each 16 values, each weighted by its square; the one furthest from
    /// zero becomes -128.
    pub fn quantize(x: &[f32; 256]) -> Self {
        let (parts, _) = x.as_chunks::<16>();
        let (mut found, mut codes) = ([0.0; 16], [[0; 16]; 16]);
        for j in 0..16 {
            (found[j], codes[j]) = search_centred(&parts[j]);
        }
        let far = furthest(&found);
        let mut block = BlockQ6K::zeroed();
        if far.abs() < ALL_ZERO {
            return block;
        }
        let iscale = -128.0 / far;
        block.d = f16_bytes(1.0 / iscale);
        for j in 0..16 {
            block.scales[j] = nearest_int(iscale * found[j]).min(127) as i8;
            let d = block.d() * f32::from(block.scales[j]);
            if d != 0.0 {
                codes[j] = codes_for(&parts[j], d, 0.0, -32..=31).map(|l| (l + 32) as u8);
            }
        }
        for (i, code) in codes.as_flattened().iter().enumerate() {
            let (n, j, l) = (i / 128, i / 32 % 4, i % 32);
            block.ql[64 * n + 32 * (j % 2) + l] |= (code & 0xf) << (4 * (j / 2));
            block.qh[32 * n + l] |= (code >> 4) << (2 * j);
        }
        block
    }
}

impl Block for BlockQ6K {
    const TYPE: GgmlType = GgmlType::Q6_K;
    const WIDE: &'static [Wide] = &[Wide::half(208)];
    const QUANTIZE: Option<fn(&[f32]) -> Self> = Some(|x| Self::quantize(block_values(x)));

    fn dequantize(&self, out: &mut [f32]) {
        dequantize_units(self, out);
    }
}

/// `q` is centred: -32 to 31. `scale` is -128 to 127.
impl IntBlock for BlockQ6K {
    const UNIT: usize = 256;
    const SUB: usize = 16;
    const HAS_MIN: bool = false;

    #[inline(always)]
    fn unpack(&self, _index: usize, out: &mut Unit) {
        for n in 0..2 {
            for j in 0..2 {
                for l in 0..32 {
                    let ql = self.ql[64 * n + 32 * j + l];
                    let qh = self.qh[32 * n + l] >> (2 * j);
                    out.q[128 * n + 32 * j + l] = (ql & 0xf | (qh & 3) << 4) as i8 - 32;
                    out.q[128 * n + 32 * j + 64 + l] = (ql >> 4 | (qh >> 4 & 3) << 4) as i8 - 32;
                }
            }
        }
        for j in 0..16 {
            out.scale[j] = i16::from(self.scales[j]);
        }
        out.d = self.d();
    }
}
