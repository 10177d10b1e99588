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
    /// Sums of their products: those of the first 16 bytes and those of the last 16 are in lanes
    /// of their own.
    type S: Copy;
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
    /// The products of `w`, 0 to 127, and signed `a`.
    unsafe fn dot_u(w: Self::B, a: Self::B) -> Self::S;
    /// The products of signed `w` and `a`; `a` is never -128.
    unsafe fn dot_s(w: Self::B, a: Self::B) -> Self::S;
    /// The sum of the lanes of each, a row each.
    unsafe fn reduce(rows: [Self::S; 16]) -> Self::I;
    /// The sums of the first 16 bytes, and those of the last 16.
    unsafe fn reduce_halves(rows: [Self::S; 16]) -> [Self::I; 2];
    /// The half-precision values at 16 places.
    unsafe fn gather_f16(p: [*const u8; 16]) -> Self::V;
    /// The four words of 32 bits at 16 places: word `i` of all is `[i]`.
    unsafe fn gather_words(p: [*const u8; 16]) -> [Self::I; 4];
    /// The half-precision values in the low 16 bits.
    unsafe fn low_f16(a: Self::I) -> Self::V;

    /// Reads 16 rows of 4 bytes.
    unsafe fn load_w(p: *const u8) -> Self::W;
    /// Adds the products of each row with the same 4 bytes `a`. `SIGNED` says that `w` is.
    unsafe fn dot_w<const SIGNED: bool>(acc: Self::I, w: Self::W, a: i32) -> Self::I;
    /// [`dot_w`](Self::dot_w) with `WORDS` groups of rows, which lie as
    /// [`transpose`](Self::transpose) writes them, and as many groups of 4 bytes of `C` columns.
    /// Codes without sign are `top` at the most.
    #[inline(always)]
    unsafe fn tile<const SIGNED: bool, const C: usize, const WORDS: usize>(
        mut acc: [Self::I; C],
        w: *const u8,
        a: [*const u8; C],
        _top: i32,
    ) -> [Self::I; C] {
        for g in 0..WORDS {
            // SAFETY: the caller's promise.
            unsafe {
                let w = Self::load_w(w.add(64 * g));
                for c in 0..C {
                    let a = a[c].add(4 * g).cast::<i32>().read_unaligned();
                    acc[c] = Self::dot_w::<SIGNED>(acc[c], w, a);
                }
            }
        }
        acc
    }
    /// 16 times `x`.
    unsafe fn splat_i(x: i32) -> Self::I;
    /// Reads 16 integers.
    unsafe fn load_i(p: *const i32) -> Self::I;
    /// Writes 16 integers.
    unsafe fn store_i(p: *mut i32, x: Self::I);
    /// `a * b`
    unsafe fn mul_i(a: Self::I, b: Self::I) -> Self::I;
    /// Bitwise and.
    unsafe fn and_i(a: Self::I, b: Self::I) -> Self::I;
    /// Bitwise or.
    unsafe fn or_i(a: Self::I, b: Self::I) -> Self::I;
    /// Shifts to the right by `n` bits, filling with zeros.
    unsafe fn shr_i(a: Self::I, n: i32) -> Self::I;
    /// Shifts to the left by `n` bits.
    unsafe fn shl_i(a: Self::I, n: i32) -> Self::I;
    /// Bits 24 to 31, as a signed byte.
    unsafe fn top_byte(a: Self::I) -> Self::I;
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
