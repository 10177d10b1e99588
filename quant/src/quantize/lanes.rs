//! Arithmetic of the searches: elementwise, so that a loop over lanes becomes vector instructions,
//! and the same on every machine.

/// Adding this to a value in ±2^22 rounds it to an integer, half to even, which then stands in the
/// low bits: 1.5 * 2^23.
const ROUND: f32 = 12_582_912.0;

/// The largest f16.
pub const F16_MAX: f32 = 65504.0;

/// The nearest integer, half to even, of a value in ±2^22; of any other some value near it.
#[inline(always)]
pub fn round(x: f32) -> f32 {
    (x + ROUND) - ROUND
}

/// The nearest integer, half away from zero, of a value in ±2^21.
#[inline(always)]
pub fn round_half_away(x: f32) -> f32 {
    let even = round(x);
    let rest = x - even;
    let up = if rest == 0.5 && x > 0.0 { even + 1.0 } else { even };
    if rest == -0.5 && x < 0.0 { up - 1.0 } else { up }
}

/// The low byte of an integer in -128 to 255.
#[inline(always)]
pub fn code_byte(q: f32) -> u8 {
    (q + ROUND).to_bits() as u8
}
