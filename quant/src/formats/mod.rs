//! One file per weight format: the block as the file stores it, and what its bits mean.

use bytemuck::Pod;

use crate::GgmlType;

/// A block as a GGUF file stores it (little endian).
pub trait Block: Pod {
    /// The type that this is the block of.
    const TYPE: GgmlType;

    /// Elements in a block.
    const LEN: usize = Self::TYPE.block_len();

    /// Writes the [`LEN`](Self::LEN) values of the block, by ggml's formula and rounding.
    fn dequantize(&self, out: &mut [f32]);
}

/// The integer form of the part of a weight block that one step of a dot product covers.
///
/// Value `i` is `d * scale[i / 16] * q[i] + dmin * min[i / 16]`, so that with int8 activations
/// `a` of scale `da` the step adds `d * da * sum(scale * q * a)` and `dmin * da * sum(min * a)`,
/// where both sums are exact in i32.
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

impl Default for Unit {
    fn default() -> Self {
        Unit { q: [0; 256], scale: [1; 16], min: [0; 16], d: 0.0, dmin: 0.0 }
    }
}

/// A format whose weights are integer codes with integer sub-block scales.
pub trait IntBlock: Block {
    /// Values that one step of the dot product covers: 16, 32 or 256. Divides `LEN`.
    const UNIT: usize;

    /// Values that one activation scale covers: 32 or 256. A multiple of `UNIT`.
    const ACT: usize;

    /// True if the format has minimums; without, `min` and `dmin` stay as they are.
    const HAS_MIN: bool;

    /// Unpacks unit `index` (below `LEN / UNIT`) into `out`.
    fn unpack(&self, index: usize, out: &mut Unit);
}
