//! What the searches of ggml's reference have in common.

/// Values smaller than this in a group are taken for zeros.
pub(super) const ALL_ZERO: f32 = 1e-15;

/// Rounds to the nearest integer, ties to even, what is within 22 bits; anything else, a NaN too,
/// gives some integer of 23 bits.
#[inline(always)]
pub(super) fn nearest_int(x: f32) -> i32 {
    let bits = (x + 12_582_912.0).to_bits();
    (bits & 0x007f_ffff) as i32 - 0x0040_0000
}
