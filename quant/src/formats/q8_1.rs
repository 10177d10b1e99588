//! Q8_1: Q8_0 with a sum. ggml stores activations in it; no file holds it.

use bytemuck::{Pod, Zeroable};

use super::{Block, Wide, f16};
use crate::GgmlType;

/// 32 activations in 36 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct BlockQ8_1 {
    /// Scale, f16.
    pub d: [u8; 2],
    /// `d` times the sum of the codes, f16.
    pub s: [u8; 2],
    /// Codes.
    pub qs: [i8; 32],
}

impl Block for BlockQ8_1 {
    const TYPE: GgmlType = GgmlType::Q8_1;
    const WIDE: &'static [Wide] = &[Wide::half(0), Wide::half(2)];

    fn dequantize(&self, out: &mut [f32]) {
        let d = f16(self.d);
        for (out, q) in out[..Self::LEN].iter_mut().zip(self.qs) {
            *out = d * f32::from(q);
        }
    }
}
