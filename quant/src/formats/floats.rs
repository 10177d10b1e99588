//! F32, F16 and BF16: blocks of one number.

use bytemuck::{Pod, Zeroable};

use super::{Block, Wide};
use crate::GgmlType;
use crate::float::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};

/// An IEEE single.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct BlockF32 {
    /// The bits.
    pub x: [u8; 4],
}

impl Block for BlockF32 {
    const TYPE: GgmlType = GgmlType::F32;
    const WIDE: &'static [Wide] = &[Wide { offset: 0, width: 4, count: 1 }];
    const QUANTIZE: Option<fn(&[f32]) -> Self> = Some(|x| BlockF32 { x: x[0].to_le_bytes() });

    #[inline(always)]
    fn dequantize(&self, out: &mut [f32]) {
        out[0] = f32::from_le_bytes(self.x);
    }
}

/// An IEEE half.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct BlockF16 {
    /// The bits.
    pub x: [u8; 2],
}

impl Block for BlockF16 {
    const TYPE: GgmlType = GgmlType::F16;
    const WIDE: &'static [Wide] = &[Wide::half(0)];
    const QUANTIZE: Option<fn(&[f32]) -> Self> =
        Some(|x| BlockF16 { x: f32_to_f16(x[0]).to_le_bytes() });

    #[inline(always)]
    fn dequantize(&self, out: &mut [f32]) {
        out[0] = f16_to_f32(u16::from_le_bytes(self.x));
    }
}

/// A bfloat16: the upper half of a single.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct BlockBF16 {
    /// The bits.
    pub x: [u8; 2],
}

impl Block for BlockBF16 {
    const TYPE: GgmlType = GgmlType::BF16;
    const WIDE: &'static [Wide] = &[Wide::half(0)];
    const QUANTIZE: Option<fn(&[f32]) -> Self> =
        Some(|x| BlockBF16 { x: f32_to_bf16(x[0]).to_le_bytes() });

    #[inline(always)]
    fn dequantize(&self, out: &mut [f32]) {
        out[0] = bf16_to_f32(u16::from_le_bytes(self.x));
    }
}
