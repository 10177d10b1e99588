//! IQ4_NL and IQ4_XS: `x = d * scale * VALUES[q]`, 4 bits each that choose from a table of 16
//! values spaced as weights are distributed.

use bytemuck::{Pod, Zeroable};

use super::{Block, IntBlock, Unit, Wide, dequantize_units, f16, f16_bytes, pack_nibbles};
use crate::GgmlType;
use crate::lanes::Lanes;
use crate::quantize::lanes::Cpu;
use crate::quantize::recode::{Codes, Recode};
use crate::quantize::{GROUP, Search, curve};

/// The values that the codes stand for.
pub const VALUES: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// [`VALUES`] chosen by one bit of the code after the other: many at a time become vector
/// instructions, which a table of them would not.
#[inline(always)]
fn value(code: u8) -> i8 {
    let bit = |n: u32| -((code >> n & 1) as i8);
    let pick = |zero: i8, one: i8, mask: i8| zero ^ (zero ^ one) & mask;
    let (b0, b1, b2, b3) = (bit(0), bit(1), bit(2), bit(3));
    let four = |n: usize| {
        pick(pick(VALUES[n], VALUES[n + 1], b0), pick(VALUES[n + 2], VALUES[n + 3], b0), b1)
    };
    pick(pick(four(0), four(4), b2), pick(four(8), four(12), b2), b3)
}

/// 32 weights in 18 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct BlockIQ4NL {
    /// Scale, f16.
    pub d: [u8; 2],
    /// Codes: the low nibble of byte `j` is value `j`, the high one value `j + 16`.
    pub qs: [u8; 16],
}

impl BlockIQ4NL {
    /// The scale.
    #[inline(always)]
    pub const fn d(&self) -> f32 {
        f16(self.d)
    }
}

impl Block for BlockIQ4NL {
    const TYPE: GgmlType = GgmlType::IQ4_NL;
    const WIDE: &'static [Wide] = &[Wide::half(0)];

    fn dequantize(&self, out: &mut [f32]) {
        dequantize_units(self, out);
    }
}

impl Search for BlockIQ4NL {
    #[inline(always)]
    fn search<L: Lanes>(cpu: Cpu<L>, x: &[f32; GROUP], weights: &[f32; GROUP], out: &mut [Self]) {
        let (d, codes) = curve::search(cpu, x, weights);
        for (out, (d, qs)) in out.iter_mut().zip(d.into_iter().zip(codes)) {
            *out = BlockIQ4NL { d: f16_bytes(d), qs };
        }
    }
}

/// `q` is the value from the table: -127 to 113.
impl IntBlock for BlockIQ4NL {
    const UNIT: usize = 32;
    const SUB: usize = 32;
    const HAS_MIN: bool = false;

    #[inline(always)]
    fn unpack(&self, _index: usize, out: &mut Unit) {
        for j in 0..16 {
            out.q[j] = (self.qs[j] & 0xf) as i8;
            out.q[j + 16] = (self.qs[j] >> 4) as i8;
        }
        for q in &mut out.q[..32] {
            *q = value(*q as u8);
        }
        out.scale[..2].fill(1);
        out.d = self.d();
    }
}

/// 256 weights in 136 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct BlockIQ4XS {
    /// Scale of the scales, f16.
    pub d: [u8; 2],
    /// The upper 2 bits of the scales plus 32: bits `2 * j` of the u16 belong to scale `j`.
    pub scales_h: [u8; 2],
    /// The lower 4 bits of the scales: the low nibble of byte `j` is scale `2 * j`.
    pub scales_l: [u8; 4],
    /// Codes: the low nibble of byte `16 * n + l` is value `32 * n + l`, the high one value
    /// `32 * n + 16 + l`.
    pub qs: [u8; 128],
}

impl BlockIQ4XS {
    /// The scale of the scales.
    #[inline(always)]
    pub const fn d(&self) -> f32 {
        f16(self.d)
    }

    /// The 8 scales, -32 to 31, each of 32 values.
    #[inline(always)]
    pub const fn scales(&self) -> [i8; 8] {
        let high = u16::from_le_bytes(self.scales_h);
        let mut scales = [0; 8];
        let mut j = 0;
        while j < 8 {
            let low = self.scales_l[j / 2] >> (4 * (j % 2)) & 0xf;
            scales[j] = (low | ((high >> (2 * j) & 3) as u8) << 4) as i8 - 32;
            j += 1;
        }
        scales
    }
}

impl Block for BlockIQ4XS {
    const TYPE: GgmlType = GgmlType::IQ4_XS;
    const WIDE: &'static [Wide] = &[Wide::half(0), Wide::half(2)];

    fn dequantize(&self, out: &mut [f32]) {
        dequantize_units(self, out);
    }
}

impl Search for BlockIQ4XS {
    #[inline(always)]
    fn search<L: Lanes>(cpu: Cpu<L>, x: &[f32; GROUP], weights: &[f32; GROUP], out: &mut [Self]) {
        let found = curve::search_super(cpu, x, weights);
        for (n, out) in out.iter_mut().enumerate() {
            *out = BlockIQ4XS { d: f16_bytes(found.d[8 * n]), ..Zeroable::zeroed() };
            let mut scales_h = 0;
            for j in 0..8 {
                let scale = (found.integers[8 * n + j] + 32.0) as u8;
                out.qs[16 * j..][..16].copy_from_slice(&found.codes[8 * n + j]);
                out.scales_l[j / 2] |= (scale & 0xf) << (4 * (j % 2));
                scales_h |= u16::from(scale >> 4) << (2 * j);
            }
            out.scales_h = scales_h.to_le_bytes();
        }
    }
}

/// `q` is the value from the table: -127 to 113. `scale` is -32 to 31.
impl IntBlock for BlockIQ4XS {
    const UNIT: usize = 256;
    const SUB: usize = 32;
    const HAS_MIN: bool = false;

    #[inline(always)]
    fn unpack(&self, _index: usize, out: &mut Unit) {
        for n in 0..8 {
            for l in 0..16 {
                out.q[32 * n + l] = (self.qs[16 * n + l] & 0xf) as i8;
                out.q[32 * n + 16 + l] = (self.qs[16 * n + l] >> 4) as i8;
            }
        }
        for q in &mut out.q {
            *q = value(*q as u8);
        }
        let scales = self.scales();
        for j in 0..16 {
            out.scale[j] = i16::from(scales[j / 2]);
        }
        out.d = self.d();
    }
}

impl Recode for BlockIQ4NL {
    const CODES: Codes = Codes::Iq4;

    #[inline(always)]
    fn set_codes(&mut self, codes: &[u8]) {
        if let Some(codes) = codes.first_chunk() {
            self.qs = pack_nibbles(codes);
        }
    }
}

impl Recode for BlockIQ4XS {
    const CODES: Codes = Codes::Iq4;

    #[inline(always)]
    fn set_codes(&mut self, codes: &[u8]) {
        for (qs, codes) in self.qs.as_chunks_mut().0.iter_mut().zip(codes.as_chunks().0) {
            *qs = pack_nibbles(codes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choosing_by_bits_gives_the_values_of_the_table() {
        assert_eq!(std::array::from_fn(|code| value(code as u8)), VALUES);
    }
}
