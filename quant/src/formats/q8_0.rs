//! Q8_0: `x = d * q`, 8 bits each.

use bytemuck::{Pod, Zeroable};

use super::{Block, IntBlock, Unit, Wide, block_values, dequantize_units, f16, f16_bytes, inverse};
use crate::GgmlType;

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

    /// Gives the value furthest from zero the code 127 or -127.
    pub fn quantize(x: &[f32; 32]) -> Self {
        let amax = x.iter().fold(0.0f32, |amax, x| if amax > x.abs() { amax } else { x.abs() });
        let d = amax / 127.0;
        let id = inverse(d);
        BlockQ8_0 { d: f16_bytes(d), qs: x.map(|x| (x * id).round() as i8) }
    }
}

impl Block for BlockQ8_0 {
    const TYPE: GgmlType = GgmlType::Q8_0;
    const WIDE: &'static [Wide] = &[Wide::half(0)];
    const QUANTIZE: Option<fn(&[f32]) -> Self> = Some(|x| Self::quantize(block_values(x)));

    fn dequantize(&self, out: &mut [f32]) {
        dequantize_units(self, out);
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
