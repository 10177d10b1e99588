//! Q8_0: `x = d * q`, 8 bits each.

use bytemuck::{Pod, Zeroable};

use super::{Block, IntBlock, Unit, Wide, dequantize_units, f16, f16_bytes, inverse};
use crate::GgmlType;
use crate::lanes::Lanes;
use crate::quantize::lanes::{Cpu, F16_MAX, code_byte, round_half_away};
use crate::quantize::{GROUP, Search};

/// 32 weights in 34 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct BlockQ8_0 {
    /// Scale, f16.
    pub d: [u8; 2],
    /// Codes.
    pub qs: [i8; 32],
}

impl BlockQ8_0 {
    /// The scale.
    #[inline(always)]
    pub const fn d(&self) -> f32 {
        f16(self.d)
    }

    /// Gives the value furthest from zero the code 127 or -127, and rounds the others, half away
    /// from zero: ggml's rule and bits, but that a scale beyond the range of f16 is its largest.
    #[inline(always)]
    fn quantize(x: &[f32; 32]) -> Self {
        let mut max = [0.0f32; 8];
        for (i, x) in x.iter().enumerate() {
            max[i % 8] = if max[i % 8] > x.abs() { max[i % 8] } else { x.abs() };
        }
        let d = max.into_iter().fold(0.0, |a, b| if a > b { a } else { b }) / 127.0;
        let id = inverse(d);
        let mut qs = [0; 32];
        for (q, x) in qs.iter_mut().zip(x) {
            *q = code_byte(round_half_away(x * id)) as i8;
        }
        BlockQ8_0 { d: f16_bytes(if d < F16_MAX { d } else { F16_MAX }), qs }
    }
}

impl Block for BlockQ8_0 {
    const TYPE: GgmlType = GgmlType::Q8_0;
    const WIDE: &'static [Wide] = &[Wide::half(0)];

    fn dequantize(&self, out: &mut [f32]) {
        dequantize_units(self, out);
    }
}

/// No search: what these bits could gain is far below what any other step of a model loses.
impl Search for BlockQ8_0 {
    const WEIGHTED: bool = false;

    #[inline(always)]
    fn search<L: Lanes>(_cpu: Cpu<L>, x: &[f32; GROUP], _weights: &[f32; GROUP], out: &mut [Self]) {
        let (blocks, _) = x.as_chunks();
        for (out, x) in out.iter_mut().zip(blocks) {
            *out = Self::quantize(x);
        }
    }
}

/// `q` is -128 to 127: ggml writes no -128, but a file may hold one.
impl IntBlock for BlockQ8_0 {
    const UNIT: usize = 32;
    const SUB: usize = 32;
    const HAS_MIN: bool = false;

    #[inline(always)]
    fn unpack(&self, _index: usize, out: &mut Unit) {
        out.q[..32].copy_from_slice(&self.qs);
        out.scale[..2].fill(1);
        out.d = self.d();
    }
}
