//! What the integer kernels need of an instruction set, beyond [`Lanes`].
//!
//! There is one shape of register: 16 rows of 4 bytes, a lane of 32 bits for each row
//! ([`Simd::I`]). Weights are brought into it as they lie in the file, packed
//! ([`Simd::gather_words`]), and are unpacked there by shifts and masks; a dot product with 4
//! activations, which are the same for all rows, then gives 16 sums that need no reduction. That
//! is fewer instructions than one register for 32 codes of a row and a joint reduction of 16 rows,
//! which this replaced (1.5 times as fast for one column with AVX-512), and serves panels too.

#![allow(clippy::missing_safety_doc, reason = "the trait's Safety section covers its methods")]

use crate::lanes::Lanes;

/// Words of 4 codes in 32 of them.
pub const WORDS: usize = 8;

/// Integer operations of an instruction set.
///
/// # Safety
/// As for [`Lanes`]: call the methods only where the CPU is known to have the level's
/// instructions. Pointers must be valid for as many bytes as the type read or written has; they
/// need no alignment unless a method says so.
pub unsafe trait Simd: Lanes {
    /// 16 integers, or 16 times 4 bytes; a lane for each row.
    type I: Copy;

    /// [`dot`](Self::dot) takes codes without sign only: 128 is added to signed ones.
    const UNSIGNED: bool;
    /// Columns that a panel is multiplied with at once.
    const COLUMNS: usize;

    /// 16 times `x`.
    unsafe fn splat_i(x: i32) -> Self::I;
    /// Reads 16 integers.
    unsafe fn load_i(p: *const i32) -> Self::I;
    /// Writes 16 integers.
    unsafe fn store_i(p: *mut i32, x: Self::I);
    /// `a + b`
    unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I;
    /// `a - b`
    unsafe fn sub_i(a: Self::I, b: Self::I) -> Self::I;
    /// `a * b`
    unsafe fn mul_i(a: Self::I, b: Self::I) -> Self::I;
    /// Bitwise and.
    unsafe fn and_i(a: Self::I, b: Self::I) -> Self::I;
    /// Bitwise exclusive or.
    unsafe fn xor_i(a: Self::I, b: Self::I) -> Self::I;
    /// Bitwise or.
    unsafe fn or_i(a: Self::I, b: Self::I) -> Self::I;
    /// Shifts to the right by `n` bits, filling with zeros.
    unsafe fn shr_i(a: Self::I, n: i32) -> Self::I;
    /// Shifts to the left by `n` bits.
    unsafe fn shl_i(a: Self::I, n: i32) -> Self::I;
    /// Bits 24 to 31, as a signed byte.
    unsafe fn top_byte(a: Self::I) -> Self::I;
    /// `table[b]` for each byte, all below 16.
    unsafe fn lookup(table: &[i8; 16], b: Self::I) -> Self::I;
    /// As floats, rounded half to even.
    unsafe fn to_f32(a: Self::I) -> Self::V;
    /// The half-precision values in the low 16 bits.
    unsafe fn low_f16(a: Self::I) -> Self::V;
    /// The four words of 32 bits at 16 places, plus `offset` bytes: word `i` of all is `[i]`.
    unsafe fn gather_words(p: &[*const u8; 16], offset: usize) -> [Self::I; 4];
    /// Asks for the cache line at `p`, into the second-level cache: the first level can wait for too
    /// few lines at a time to reach the speed of memory.
    unsafe fn prefetch(p: *const u8);

    /// Adds the products of each row's 4 codes with the same 4 activations `a`, which are signed
    /// and never -128. `signed` says whether the codes are.
    unsafe fn dot(acc: Self::I, w: Self::I, a: i32, signed: bool) -> Self::I;

    /// The products of the words `w` of codes with as many words of activations, `step` bytes
    /// apart. Codes without sign are `top` at the most.
    #[inline(always)]
    unsafe fn dots<const N: usize>(
        w: &[Self::I; N],
        a: *const u8,
        step: usize,
        signed: bool,
        _top: i32,
    ) -> Self::I {
        // SAFETY: the caller's promise.
        unsafe {
            // Two chains: one alone would wait for itself.
            let mut acc = [Self::splat_i(0); 2];
            for i in 0..N {
                let a = a.add(step * i).cast::<i32>().read_unaligned();
                acc[i % 2] = Self::dot(acc[i % 2], w[i], a, signed);
            }
            Self::add_i(acc[0], acc[1])
        }
    }

    /// The same for `C` columns, whose words lie side by side, and `N` words of codes that
    /// [`store_panel`](Self::store_panel) wrote.
    #[inline(always)]
    unsafe fn tile<const C: usize, const N: usize>(
        w: *const u8,
        a: *const u8,
        step: usize,
        signed: bool,
        _top: i32,
    ) -> [Self::I; C] {
        // SAFETY: the caller's promise.
        unsafe {
            let mut acc = [Self::splat_i(0); C];
            for i in 0..N {
                let w = Self::load_i(w.add(64 * i).cast());
                for (c, acc) in acc.iter_mut().enumerate() {
                    let a = a.add(step * i + 4 * c).cast::<i32>().read_unaligned();
                    *acc = Self::dot(*acc, w, a, signed);
                }
            }
            acc
        }
    }

    /// Writes 32 codes of 16 rows, 512 bytes, for [`tile`](Self::tile).
    #[inline(always)]
    unsafe fn store_panel(p: *mut u8, w: &[Self::I; WORDS]) {
        for (i, w) in w.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { Self::store_i(p.add(64 * i).cast(), *w) };
        }
    }
}
