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
    /// Adds to each lane the products of its signed bytes in `w` with bytes `4 L .. 4 L + 4` of `a`,
    /// which are never -128.
    unsafe fn dot<const L: i32>(acc: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t;

    /// Panels hold 8 codes of a row side by side, for products of matrices.
    const MATRIX: bool = false;

    /// [`Simd::tile`](crate::simd::Simd::tile).
    #[inline(always)]
    unsafe fn tile<const C: usize, const N: usize>(w: *const u8, a: *const u8) -> [int32x4_t; C] {
        unsafe {
            let mut acc = [vdupq_n_s32(0); C];
            for i in (0..N).step_by(4) {
                let w = |j: usize| vld1q_s8(w.add(16 * (i + j)).cast());
                let w = [w(0), w(1), w(2), w(3)];
                for c in 0..C {
                    let a = vld1q_s8(a.add(32 * c + 4 * i).cast());
                    acc[c] = Self::dot::<0>(acc[c], w[0], a);
                    acc[c] = Self::dot::<1>(acc[c], w[1], a);
                    acc[c] = Self::dot::<2>(acc[c], w[2], a);
                    acc[c] = Self::dot::<3>(acc[c], w[3], a);
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
    unsafe fn dot<const L: i32>(acc: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
        unsafe {
            let a = vreinterpretq_s8_s32(vdupq_laneq_s32::<L>(vreinterpretq_s32_s8(a)));
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
    unsafe fn dot<const L: i32>(mut acc: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
        // The intrinsic is not stable.
        unsafe {
            asm!(
                ".arch_extension dotprod",
                "sdot {acc:v}.4s, {w:v}.16b, {a:v}.4b[{lane}]",
                acc = inout(vreg) acc,
                w = in(vreg) w,
                a = in(vreg) a,
                lane = const L,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        acc
    }
}

/// Adds the products of 2 rows of 8 bytes with 2 columns of 8 bytes: row 0 with both, row 1 with
/// both.
#[inline(always)]
unsafe fn smmla(mut acc: int32x4_t, w: int8x16_t, a: int32x4_t) -> int32x4_t {
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
    unsafe fn dot<const L: i32>(acc: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
        unsafe { Sdot::dot::<L>(acc, w, a) }
    }

    const MATRIX: bool = true;

    #[inline(always)]
    unsafe fn tile<const C: usize, const N: usize>(w: *const u8, a: *const u8) -> [int32x4_t; C] {
        unsafe {
            // Rows 0 and 1, and rows 2 and 3, of two columns each.
            let mut acc = [[vdupq_n_s32(0); 2]; C];
            for i in (0..N).step_by(4) {
                let w = |j: usize| vld1q_s8(w.add(16 * (i + j)).cast());
                let w = [w(0), w(1), w(2), w(3)];
                for c in (0..C).step_by(2) {
                    let x = vld1q_s64(a.add(32 * c + 4 * i).cast());
                    let y = vld1q_s64(a.add(32 * (c + 1) + 4 * i).cast());
                    // 8 activations of a column, and of the next.
                    let first = vreinterpretq_s32_s64(vzip1q_s64(x, y));
                    let last = vreinterpretq_s32_s64(vzip2q_s64(x, y));
                    for rows in 0..2 {
                        acc[c][rows] = smmla(acc[c][rows], w[rows], first);
                        acc[c][rows] = smmla(acc[c][rows], w[2 + rows], last);
                    }
                }
            }
            let mut out = [vdupq_n_s32(0); C];
            for c in (0..C).step_by(2) {
                out[c] = vuzp1q_s32(acc[c][0], acc[c][1]);
                out[c + 1] = vuzp2q_s32(acc[c][0], acc[c][1]);
            }
            out
        }
    }
}
