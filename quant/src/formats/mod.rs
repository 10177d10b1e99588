//! One file per weight format: the block as the file stores it, and what its bits mean.
//!
//! The fields are ggml's and carry its names. They are byte arrays, so that a block has no
//! alignment and any slice of a mapped file can be cast to blocks.
//!
//! A format says what its bits mean once, in [`IntBlock::unpack`]; [`Block::dequantize`] computes
//! from that. The products of a code and its scales are exact in f32 for every format, so the
//! order of ggml's multiplications, which differs from format to format, does not show.

// Loops over indices say which bits go where, and become vector instructions.
#![allow(clippy::needless_range_loop)]

use bytemuck::Pod;

use crate::GgmlType;

pub mod floats;
pub(crate) mod grids;
pub mod iq1;
pub mod iq2;
pub mod iq3;
pub mod iq4;
pub mod k_scales;
pub mod mxfp4;
pub mod nvfp4;
pub mod q1_0;
pub mod q2_0;
pub mod q2_k;
pub mod q3_k;
pub mod q4_0;
pub mod q4_1;
pub mod q4_k;
pub mod q5_0;
pub mod q5_1;
pub mod q5_k;
pub mod q6_k;
pub mod q8_0;
pub mod q8_1;
pub mod q8_k;
pub mod rows;
pub(crate) mod signs;
pub mod tq;

pub use floats::{BlockBF16, BlockF16, BlockF32};
pub use iq1::{BlockIQ1M, BlockIQ1S};
pub use iq2::{BlockIQ2S, BlockIQ2XS, BlockIQ2XXS};
pub use iq3::{BlockIQ3S, BlockIQ3XXS};
pub use iq4::{BlockIQ4NL, BlockIQ4XS};
pub use mxfp4::BlockMXFP4;
pub use nvfp4::BlockNVFP4;
pub use q1_0::BlockQ1_0;
pub use q2_0::BlockQ2_0;
pub use q2_k::BlockQ2K;
pub use q3_k::BlockQ3K;
pub use q4_0::BlockQ4_0;
pub use q4_1::BlockQ4_1;
pub use q4_k::BlockQ4K;
pub use q5_0::BlockQ5_0;
pub use q5_1::BlockQ5_1;
pub use q5_k::BlockQ5K;
pub use q6_k::BlockQ6K;
pub use q8_0::BlockQ8_0;
pub use q8_1::BlockQ8_1;
pub use q8_k::BlockQ8K;
pub use rows::{RowError, dequantize_row, swap_bytes};
pub(crate) use rows::{can_quantize, quantize_row};
pub use tq::{BlockTQ1_0, BlockTQ2_0};

/// A block as a GGUF file stores it (little endian).
pub trait Block: Pod {
    /// The type that this is the block of.
    const TYPE: GgmlType;

    /// Elements in a block.
    const LEN: usize = Self::TYPE.block_len();

    /// The fields of several bytes each, which a big-endian file stores the other way round.
    const WIDE: &'static [Wide];

    /// Makes a block of the first [`LEN`](Self::LEN) values, by ggml's reference rules and with the
    /// same bits, where there is a quantizer of the format. It panics if there are fewer values.
    const QUANTIZE: Option<fn(&[f32]) -> Self> = None;

    /// Writes the [`LEN`](Self::LEN) values of the block, by ggml's formula and rounding: the bits
    /// are ggml's, but for the sign and payload of a NaN.
    ///
    /// # Panics
    ///
    /// If `out` is shorter.
    fn dequantize(&self, out: &mut [f32]);
}

/// Numbers of several bytes each that follow one another in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wide {
    /// Where the first begins.
    pub offset: usize,
    /// Bytes in each.
    pub width: usize,
    /// How many there are.
    pub count: usize,
}

impl Wide {
    /// One 16-bit number, such as a scale, at `offset`.
    pub const fn half(offset: usize) -> Wide {
        Wide { offset, width: 2, count: 1 }
    }
}

/// The integer form of the part of a weight block that one step of a dot product covers.
///
/// Value `i` is `d * scale[i / 16] * q[i] + dmin * min[i / 16]`. What a dot product does with it is
/// said in [`crate::matmul`].
#[derive(Clone, Copy, Debug)]
pub struct Unit {
    /// The codes; the first [`IntBlock::UNIT`] are set.
    pub q: [i8; 256],
    /// Integer scale of each 16 values.
    pub scale: [i16; 16],
    /// Integer minimum of each 16 values; zero where the format has none.
    pub min: [i16; 16],
    /// Scale of the unit.
    pub d: f32,
    /// Scale of the minimums (negative where the format subtracts them).
    pub dmin: f32,
}

impl Unit {
    /// Sets the scales of each 16 values of 256, twice each 4 bits from the low ones up, and 1.
    #[inline(always)]
    fn set_scales_16(&mut self, bits: u64) {
        for (j, scale) in self.scale.iter_mut().enumerate() {
            *scale = 2 * (bits >> (4 * j) & 15) as i16 + 1;
        }
    }

    /// The same of each 32.
    #[inline(always)]
    fn set_scales_32(&mut self, bits: u32) {
        for (j, scales) in self.scale.as_chunks_mut().0.iter_mut().enumerate() {
            *scales = [2 * (bits >> (4 * j) & 15) as i16 + 1; 2];
        }
    }
}

impl Default for Unit {
    fn default() -> Self {
        Unit { q: [0; 256], scale: [1; 16], min: [0; 16], d: 0.0, dmin: 0.0 }
    }
}

/// A format whose weights are integer codes with integer sub-block scales.
pub trait IntBlock: Block {
    /// Values that one step of the dot product covers: 16, 32 or 256. Divides `LEN`.
    const UNIT: usize;

    /// Values that share an integer scale and minimum: 16 or 32 (32 in units of 32, which have
    /// no more than `d` and `dmin`).
    const SUB: usize;

    /// True if the format has minimums; without, `min` and `dmin` stay as they are.
    const HAS_MIN: bool;

    /// Unpacks unit `index` (below `LEN / UNIT`) into `out`: the first `UNIT` codes, the scales
    /// and minimums that belong to them, `d` and `dmin`.
    fn unpack(&self, index: usize, out: &mut Unit);
}

/// Dequantizes a block from its integer form.
fn dequantize_units<B: IntBlock>(block: &B, out: &mut [f32]) {
    let mut unit = Unit::default();
    for (index, out) in out[..B::LEN].chunks_exact_mut(B::UNIT).enumerate() {
        block.unpack(index, &mut unit);
        for (i, out) in out.iter_mut().enumerate() {
            let product = unit.d * f32::from(unit.scale[i / 16]) * f32::from(unit.q[i]);
            // A format without minimums must not add zero: that would lose the sign of -0.
            *out = if B::HAS_MIN {
                product + unit.dmin * f32::from(unit.min[i / 16])
            } else {
                product
            };
        }
    }
}

/// Codes of 4 bits: those of the first half of the values in the low nibbles, the others' in the
/// high ones.
#[inline(always)]
fn pack_nibbles(codes: &[u8; 32]) -> [u8; 16] {
    std::array::from_fn(|j| codes[j] & 0xf | codes[j + 16] << 4)
}

/// `1 / d`, or zero for zero.
#[inline(always)]
fn inverse(d: f32) -> f32 {
    if d != 0.0 { 1.0 / d } else { 0.0 }
}

/// The value of an f16 field.
#[inline(always)]
const fn f16(bytes: [u8; 2]) -> f32 {
    crate::float::f16_to_f32(u16::from_le_bytes(bytes))
}

/// The nearest f16 as a field.
#[inline(always)]
const fn f16_bytes(value: f32) -> [u8; 2] {
    crate::float::f32_to_f16(value).to_le_bytes()
}
