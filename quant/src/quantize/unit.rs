//! Blocks brought near 1, where no square overflows or vanishes, and weighted.

use super::lanes::{F16_MAX, f16_field};
use crate::float::f16_to_f32;
use crate::lanes::tree_sum;

/// A power of two by which values are brought near 1.
#[derive(Clone, Copy)]
pub struct Unit {
    /// What values are multiplied with.
    pub up: f32,
    /// What scales are multiplied with to undo that.
    pub down: f32,
}

impl Unit {
    /// For values of at most `max`, which is below 2^29; `None` if they are so small that the
    /// product of the smallest f16 and any code is larger.
    #[inline(always)]
    pub fn of(max: f32) -> Option<Self> {
        let exponent = max.to_bits() >> 23;
        (127 - 40..=127 + 29).contains(&exponent).then(|| Unit {
            up: f32::from_bits((254 - exponent) << 23),
            down: f32::from_bits(exponent << 23),
        })
    }

    /// The scale nearest to `d` that an f16 holds, and the f16.
    #[inline(always)]
    pub fn f16(self, d: f32) -> (f32, [u8; 2]) {
        let bytes = f16_field((d * self.down).clamp(-F16_MAX, F16_MAX));
        (f16_to_f32(u16::from_le_bytes(bytes)) * self.up, bytes)
    }
}

/// How much an error counts.
#[derive(Clone, Copy)]
pub struct Weighting {
    /// With importance, that is multiplied with the root of this many mean squares and the value's
    /// square.
    pub with: f32,
    /// Without, the square is added to this many mean squares.
    pub without: f32,
}

/// A block's values and weights.
pub struct Prepared<const N: usize> {
    /// The values, brought near 1.
    pub x: [f32; N],
    /// What their squared errors are multiplied with.
    pub w: [f32; N],
    /// How they were brought there.
    pub unit: Unit,
}

impl<const N: usize> Prepared<N> {
    /// `None` if all values are zero, as far as an f16 scale goes.
    #[inline(always)]
    pub fn new(x: &[f32; N], importance: Option<&[f32; N]>, rule: Weighting) -> Option<Self> {
        let unit = Unit::of(max_abs(x))?;
        let mut block = Prepared { x: *x, w: [0.0; N], unit };
        for x in &mut block.x {
            *x *= unit.up;
        }
        weights(&block.x, importance.map(|i| &i[..]), rule, &mut block.w);
        Some(block)
    }
}

/// The mean of the squares.
#[inline(always)]
fn mean_square(x: &[f32]) -> f32 {
    let mut sums = [0.0; 16];
    for part in x.chunks_exact(16) {
        for (sum, x) in sums.iter_mut().zip(part) {
            *sum += x * x;
        }
    }
    tree_sum(sums) / x.len() as f32
}

/// The weights of a block's values, from 0 to what their squares can be summed with.
#[inline(always)]
pub fn weights(x: &[f32], importance: Option<&[f32]>, rule: Weighting, out: &mut [f32]) {
    let mean = mean_square(x);
    let values = out.iter_mut().zip(x);
    match importance {
        Some(importance) => {
            for ((w, x), importance) in values.zip(importance) {
                *w = importance * (rule.with * mean + x * x).sqrt();
            }
        }
        None => {
            for (w, x) in values {
                *w = rule.without * mean + x * x;
            }
        }
    }
}

/// The largest absolute value.
#[inline(always)]
pub fn max_abs(x: &[f32]) -> f32 {
    let mut max = [0.0f32; 16];
    for part in x.chunks(16) {
        for (max, x) in max.iter_mut().zip(part) {
            *max = if *max < x.abs() { x.abs() } else { *max };
        }
    }
    max.into_iter().fold(0.0, |max, x| if max < x { x } else { max })
}
