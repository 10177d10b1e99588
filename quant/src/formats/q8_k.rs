//! Q8_K: 256 codes with an f32 scale. ggml stores activations in it; no file holds it.

use bytemuck::{Pod, Zeroable};

use super::{Block, Wide};
use crate::GgmlType;

/// 256 activations in 292 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct BlockQ8K {
    /// Scale, f32.
    pub d: [u8; 4],
    /// Codes.
    pub qs: [i8; 256],
    /// Sum of each 16 codes, i16.
    pub bsums: [[u8; 2]; 16],
}

impl Block for BlockQ8K {
    const TYPE: GgmlType = GgmlType::Q8_K;
    const WIDE: &'static [Wide] =
        &[Wide { offset: 0, width: 4, count: 1 }, Wide { offset: 260, width: 2, count: 16 }];

    fn dequantize(&self, out: &mut [f32]) {
        let d = f32::from_le_bytes(self.d);
        for (out, q) in out[..Self::LEN].iter_mut().zip(self.qs) {
            *out = d * f32::from(q);
        }
    }
}
