//! Dot products of bytes: by widening multiplications, or by `sdot`.

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
}

/// `smull`, `smlal` and pairwise additions: any NEON.
#[derive(Clone, Copy, Debug)]
pub struct Mla;

/// `sdot`: Armv8.2 with the dot product extension.
#[derive(Clone, Copy, Debug)]
pub struct Sdot;

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
