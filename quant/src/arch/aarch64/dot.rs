//! Dot products of bytes: by widening multiplications, by `sdot`, or by `smmla`.

#![allow(clippy::undocumented_unsafe_blocks, reason = "each block is the promise of the caller")]

use std::arch::aarch64::*;
use std::arch::asm;
use std::fmt::Debug;

/// How four products of bytes are added to a lane.
///
/// # Safety
/// Call the method only where the CPU has the instructions that the type names.
pub unsafe trait Dot: Copy + Debug + Send + Sync + 'static {
    /// Adds to lane `l` the products of signed bytes `4 l .. 4 l + 4`; `a` is never -128.
    unsafe fn dot(acc: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t;

    /// Panels hold 8 codes of a row side by side, for products of matrices.
    const MATRIX: bool = false;

    /// [`Simd::tile`](crate::simd::Simd::tile).
    #[inline(always)]
    unsafe fn tile<const C: usize, const N: usize>(
        w: *const u8,
        a: *const u8,
        step: usize,
    ) -> [[int32x4_t; 4]; C] {
        unsafe {
            let mut acc = [[vdupq_n_s32(0); 4]; C];
            for i in 0..N {
                let w: [int8x16_t; 4] =
                    std::array::from_fn(|r| vld1q_s8(w.add(64 * i + 16 * r).cast()));
                for (c, acc) in acc.iter_mut().enumerate() {
                    let a = a.add(step * i + 4 * c).cast::<i32>();
                    let a = vreinterpretq_s8_s32(vld1q_dup_s32(a));
                    for r in 0..4 {
                        acc[r] = Self::dot(acc[r], w[r], a);
                    }
                }
            }
            acc
        }
    }
}

/// `smull`, `smlal` and pairwise additions: any NEON.
#[derive(Clone, Copy, Debug)]
pub struct Mla;

/// `sdot`: Armv8.2 with the dot product extension.
#[derive(Clone, Copy, Debug)]
pub struct Sdot;

/// `smmla`: with the 8-bit matrix product extension; `sdot` for a single column.
#[derive(Clone, Copy, Debug)]
pub struct Smmla;

// SAFETY: NEON only.
unsafe impl Dot for Mla {
    #[inline(always)]
    unsafe fn dot(acc: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
        unsafe {
            // -128 times 127, at the most, fits 16 bits; pairs are added in 32.
            let low = vpaddlq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(a)));
            let high = vpaddlq_s16(vmull_high_s8(w, a));
            vaddq_s32(acc, vpaddq_s32(low, high))
        }
    }
}

// SAFETY: NEON and `sdot`, as the type says.
unsafe impl Dot for Sdot {
    #[inline(always)]
    unsafe fn dot(mut acc: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
        // The intrinsic is not stable.
        unsafe {
            asm!(
                ".arch_extension dotprod",
                "sdot {acc:v}.4s, {w:v}.16b, {a:v}.16b",
                acc = inout(vreg) acc,
                w = in(vreg) w,
                a = in(vreg) a,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        acc
    }
}

/// Adds the products of 2 rows of 8 bytes with 2 columns of 8 bytes: row 0 with both, row 1 with
/// both.
#[inline(always)]
unsafe fn smmla(mut acc: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
    // The intrinsic is not stable.
    unsafe {
        asm!(
            ".arch_extension i8mm",
            "smmla {acc:v}.4s, {w:v}.16b, {a:v}.16b",
            acc = inout(vreg) acc,
            w = in(vreg) w,
            a = in(vreg) a,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    acc
}

// SAFETY: NEON, `sdot` and `smmla`, as the type says.
unsafe impl Dot for Smmla {
    #[inline(always)]
    unsafe fn dot(acc: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
        unsafe { Sdot::dot(acc, w, a) }
    }

    const MATRIX: bool = true;

    #[inline(always)]
    unsafe fn tile<const C: usize, const N: usize>(
        w: *const u8,
        a: *const u8,
        step: usize,
    ) -> [[int32x4_t; 4]; C] {
        unsafe {
            // Two rows and two columns in each.
            let mut acc = [[vdupq_n_s32(0); 8]; C];
            for i in 0..N / 2 {
                // 8 activations of each of two columns.
                for c in 0..C / 2 {
                    let word = |i: usize| vld1_s32(a.add(step * i + 8 * c).cast());
                    let (low, high) = (word(2 * i), word(2 * i + 1));
                    let pair = vcombine_s32(vzip1_s32(low, high), vzip2_s32(low, high));
                    for (r, acc) in acc[c].iter_mut().enumerate() {
                        let w = vld1q_s8(w.add(128 * i + 16 * r).cast());
                        *acc = smmla(*acc, w, vreinterpretq_s8_s32(pair));
                    }
                }
            }
            std::array::from_fn(|c| {
                let acc = acc[c / 2];
                std::array::from_fn(|r| {
                    if c % 2 == 0 {
                        vuzp1q_s32(acc[2 * r], acc[2 * r + 1])
                    } else {
                        vuzp2q_s32(acc[2 * r], acc[2 * r + 1])
                    }
                })
            })
        }
    }
}
