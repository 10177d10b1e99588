//! Q6_K: `x = d * scale * (q - 32)`, 6 bits each, 8-bit scale per 16.

use bytemuck::{Pod, Zeroable};

use super::{Block, IntBlock, Unit, Wide, dequantize_units, f16};
use crate::GgmlType;
use crate::lanes::Lanes;
use crate::quantize::centred::{Centred, Scales};
use crate::quantize::lanes::{Cpu, Values, code_byte, code_bytes, f16_field};
use crate::quantize::recode::{Codes, Recode};
use crate::quantize::{GROUP, Search};

/// See [`Centred::starts`].
const STARTS: &[f32] = &[-32.0, -31.6, -32.4, -31.2, 31.4, 31.0, 30.6];

/// The scales of a superblock.
const SCALES: Scales =
    Scales { least: -128.0, most: 127.0, starts: &[-128.0, -127.5, 127.0], steps: &[-1.0, 1.0] };

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
}

impl Block for BlockQ6K {
    const TYPE: GgmlType = GgmlType::Q6_K;
    const WIDE: &'static [Wide] = &[Wide::half(208)];

    fn dequantize(&self, out: &mut [f32]) {
        dequantize_units(self, out);
    }
}

impl Search for BlockQ6K {
    #[inline(always)]
    fn search<L: Lanes>(cpu: Cpu<L>, x: &[f32; GROUP], weights: &[f32; GROUP], out: &mut [Self]) {
        for (i, out) in out.iter_mut().enumerate() {
            let values = Values::<16>::part(x, weights, i);
            let search = Centred { cpu, least: -32.0, most: 31.0, starts: STARTS };
            let found = search.integers(&values, &SCALES);
            let codes = code_bytes(&search.codes(&values, found.d * found.scale), 32.0);
            out.d = f16_field(found.d.array()[0]);
            out.scales = found.scale.array().map(|s| code_byte(s) as i8);
            out.set_codes(codes.as_flattened());
        }
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

impl Recode for BlockQ6K {
    const CODES: Codes = Codes::Range(-32, 31);

    #[inline(always)]
    fn set_codes(&mut self, codes: &[u8]) {
        (self.ql, self.qh) = ([0; 128], [0; 64]);
        for (i, code) in codes.iter().enumerate() {
            let (n, j, l) = (i / 128, i / 32 % 4, i % 32);
            self.ql[64 * n + 32 * (j % 2) + l] |= (code & 0xf) << (4 * (j / 2));
            self.qh[32 * n + l] |= (code >> 4) << (2 * j);
        }
    }
}
