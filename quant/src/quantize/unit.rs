//! Blocks brought near 1, where no square overflows or vanishes.

use super::lanes::{F16_MAX, f16_field};
use crate::float::f16_to_f32;

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

/// A block's values, brought near 1; `None` if they are all zero, as far as an f16 scale goes.
#[inline(always)]
pub fn near_one<const N: usize>(x: &[f32; N]) -> Option<([f32; N], Unit)> {
    let unit = Unit::of(max_abs(x))?;
    let mut near = *x;
    for x in &mut near {
        *x *= unit.up;
    }
    Some((near, unit))
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
