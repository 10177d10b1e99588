//! What the integer kernels need of an instruction set, beyond [`Lanes`].
//!
//! Two shapes of registers: 32 bytes of one row ([`Simd::B`], whose products with activations give
//! 8 sums of 4, [`Simd::S`]), for decoding; and 16 rows of 4 bytes ([`Simd::W`], whose products
//! give 16 sums, [`Simd::I`]), for panels. Integer sums are exact, so neither shape shows in a
//! result.

#![allow(clippy::missing_safety_doc, reason = "the trait's Safety section covers its methods")]

use crate::lanes::Lanes;

/// Integer operations of an instruction set.
///
/// # Safety
/// As for [`Lanes`]: call the methods only where the CPU is known to have the level's
/// instructions. Pointers must be valid for as many bytes as the type read or written has; they
/// need no alignment unless a method says so.
pub unsafe trait Simd: Lanes {
    /// 32 bytes of a row.
    type B: Copy;
    /// 8 sums of 4 products each: lane `l` is that of bytes `4 l .. 4 l + 4`.
    type S: Copy;
    /// The scales of a [`B`](Self::B)'s two halves.
    type Scale: Copy;
    /// 16 rows of 4 bytes.
    type W: Copy;
    /// 16 integers, a row each.
    type I: Copy;

    /// Panels hold bytes without sign: signed codes are stored with 128 added.
    const PANEL_UNSIGNED: bool;
    /// Columns that a panel is multiplied with at once.
    const COLUMNS: usize;

    /// Reads 32 bytes.
    unsafe fn load_b(p: *const u8) -> Self::B;
    /// Writes 32 bytes.
    unsafe fn store_b(p: *mut u8, b: Self::B);
    /// 32 times `x`.
    unsafe fn splat_b(x: u8) -> Self::B;
    /// Bitwise and.
    unsafe fn and(a: Self::B, b: Self::B) -> Self::B;
    /// Bitwise or.
    unsafe fn or(a: Self::B, b: Self::B) -> Self::B;
    /// 128 added to each byte: signed codes become codes without sign.
    unsafe fn flip_sign(a: Self::B) -> Self::B;
    /// Shifts pairs of bytes to the right by `n` bits; bits that cross over are the caller's to
    /// mask.
    unsafe fn shr(a: Self::B, n: i32) -> Self::B;
    /// Shifts pairs of bytes to the left by `n` bits, likewise.
    unsafe fn shl(a: Self::B, n: i32) -> Self::B;
    /// The low nibbles of 16 bytes, then their high nibbles.
    unsafe fn nibbles(p: *const u8) -> Self::B;
    /// Byte `i` is `value` where bit `i` is set, else 0.
    unsafe fn bits(bits: u32, value: u8) -> Self::B;
    /// `table[b]` for each byte, all below 16.
    unsafe fn lookup(table: &[i8; 16], b: Self::B) -> Self::B;

    /// No sums.
    unsafe fn zero() -> Self::S;
    /// Adds the products of `w`, 0 to 127, and signed `a`.
    unsafe fn dot_u(acc: Self::S, w: Self::B, a: Self::B) -> Self::S;
    /// Adds the products of signed `w` and `a`; `a` is never -128.
    unsafe fn dot_s(acc: Self::S, w: Self::B, a: Self::B) -> Self::S;
    /// The scales of the first and second 16 bytes.
    unsafe fn scale(first: i16, second: i16) -> Self::Scale;
    /// [`dot_u`](Self::dot_u) times the scales.
    unsafe fn dot_u_scaled(acc: Self::S, w: Self::B, a: Self::B, s: Self::Scale) -> Self::S;
    /// [`dot_s`](Self::dot_s) times the scales.
    unsafe fn dot_s_scaled(acc: Self::S, w: Self::B, a: Self::B, s: Self::Scale) -> Self::S;
    /// Adds the products of 16 pairs of 16-bit integers.
    unsafe fn dot_i16(acc: Self::S, x: *const i16, y: *const i16) -> Self::S;
    /// The sum of the lanes of each, a row each.
    unsafe fn reduce(rows: [Self::S; 8]) -> Self::S;
    /// 8 rows, then 8 more.
    unsafe fn join(low: Self::S, high: Self::S) -> Self::I;
    /// The half-precision values at `p + i * stride`.
    unsafe fn gather_f16(p: [*const u8; 16]) -> Self::V;

    /// Reads 16 rows of 4 bytes.
    unsafe fn load_w(p: *const u8) -> Self::W;
    /// Adds the products of each row with the same 4 bytes `a`. `SIGNED` says that `w` is.
    unsafe fn dot_w<const SIGNED: bool>(acc: Self::I, w: Self::W, a: i32) -> Self::I;
    /// Adds the products of each row's two 16-bit integers with those of `y`.
    unsafe fn dot_pairs(acc: Self::I, x: Self::I, y: i32) -> Self::I;
    /// 16 times `x`.
    unsafe fn splat_i(x: i32) -> Self::I;
    /// Reads 16 integers.
    unsafe fn load_i(p: *const i32) -> Self::I;
    /// `acc + x * y`
    unsafe fn mul_add_i(acc: Self::I, x: Self::I, y: Self::I) -> Self::I;
    /// `a + b`
    unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I;
    /// As floats, rounded half to even.
    unsafe fn to_f32(a: Self::I) -> Self::V;
    /// Asks for the cache line at `p`.
    unsafe fn prefetch(p: *const u8);
    /// Turns 16 rows of 64 bytes, `stride` apart, into 16 groups of 16 rows of 4 bytes.
    #[inline(always)]
    unsafe fn transpose(rows: *const u8, stride: usize, out: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe { transpose_words::<16>(rows, stride, out) }
    }
    /// The same of 16 rows of 32 bytes: 8 groups.
    #[inline(always)]
    unsafe fn transpose_half(rows: *const u8, stride: usize, out: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe { transpose_words::<8>(rows, stride, out) }
    }
}

/// [`Simd::transpose`] for any CPU: `G` groups.
///
/// # Safety
/// `rows` is valid for 16 rows of `4 * G` bytes, `out` for `64 * G` bytes.
#[inline(always)]
pub unsafe fn transpose_words<const G: usize>(rows: *const u8, stride: usize, out: *mut u8) {
    for g in 0..G {
        for r in 0..16 {
            // SAFETY: the caller's promise.
            unsafe {
                let word = rows.add(r * stride + 4 * g).cast::<u32>().read_unaligned();
                out.add(64 * g + 4 * r).cast::<u32>().write_unaligned(word);
            }
        }
    }
}
