//! Integer kernels' operations in NEON.

#![allow(clippy::undocumented_unsafe_blocks, reason = "each block is the promise of Simd's caller")]

use std::arch::aarch64::*;
use std::arch::asm;

use super::dot::Dot;
use super::lanes::{F, Neon, both, each, widen};
use crate::simd::{Simd, WORDS};

// SAFETY: the methods use NEON and what `D` needs, which the type's documentation names.
unsafe impl<D: Dot> Simd for Neon<D> {
    type I = [int32x4_t; 4];

    const UNSIGNED: bool = false;
    const COLUMNS: usize = 4;

    #[inline(always)]
    unsafe fn splat_i(x: i32) -> Self::I {
        unsafe { [vdupq_n_s32(x); 4] }
    }
    #[inline(always)]
    unsafe fn load_i(p: *const i32) -> Self::I {
        unsafe { [vld1q_s32(p), vld1q_s32(p.add(4)), vld1q_s32(p.add(8)), vld1q_s32(p.add(12))] }
    }
    #[inline(always)]
    unsafe fn store_i(p: *mut i32, x: Self::I) {
        unsafe {
            for (i, x) in x.into_iter().enumerate() {
                vst1q_s32(p.add(4 * i), x);
            }
        }
    }
    #[inline(always)]
    unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I {
        both(a, b, |a, b| unsafe { vaddq_s32(a, b) })
    }
    #[inline(always)]
    unsafe fn sub_i(a: Self::I, b: Self::I) -> Self::I {
        both(a, b, |a, b| unsafe { vsubq_s32(a, b) })
    }
    #[inline(always)]
    unsafe fn mul_i(a: Self::I, b: Self::I) -> Self::I {
        both(a, b, |a, b| unsafe { vmulq_s32(a, b) })
    }
    #[inline(always)]
    unsafe fn and_i(a: Self::I, b: Self::I) -> Self::I {
        both(a, b, |a, b| unsafe { vandq_s32(a, b) })
    }
    #[inline(always)]
    unsafe fn xor_i(a: Self::I, b: Self::I) -> Self::I {
        both(a, b, |a, b| unsafe { veorq_s32(a, b) })
    }
    #[inline(always)]
    unsafe fn or_i(a: Self::I, b: Self::I) -> Self::I {
        both(a, b, |a, b| unsafe { vorrq_s32(a, b) })
    }
    #[inline(always)]
    unsafe fn shr_i(a: Self::I, n: i32) -> Self::I {
        unsafe {
            let n = vdupq_n_s32(-n);
            each(a, |a| vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a), n)))
        }
    }
    #[inline(always)]
    unsafe fn shl_i(a: Self::I, n: i32) -> Self::I {
        unsafe {
            let n = vdupq_n_s32(n);
            each(a, |a| vshlq_s32(a, n))
        }
    }
    #[inline(always)]
    unsafe fn top_byte(a: Self::I) -> Self::I {
        each(a, |a| unsafe { vshrq_n_s32::<24>(a) })
    }
    #[inline(always)]
    unsafe fn lookup(table: &[i8; 16], b: Self::I) -> Self::I {
        unsafe {
            let table = vld1q_s8(table.as_ptr());
            each(b, |b| vreinterpretq_s32_s8(vqtbl1q_s8(table, vreinterpretq_u8_s32(b))))
        }
    }
    #[inline(always)]
    unsafe fn to_f32(a: Self::I) -> F {
        each(a, |a| unsafe { vcvtq_f32_s32(a) })
    }
    #[inline(always)]
    unsafe fn low_f16(a: Self::I) -> F {
        each(a, |a| unsafe { widen(vmovn_u32(vreinterpretq_u32_s32(a))) })
    }
    #[inline(always)]
    unsafe fn gather_words(p: &[*const u8; 16], offset: usize) -> [Self::I; 4] {
        unsafe {
            let mut words = [[vdupq_n_s32(0); 4]; 4];
            let (s, l) = (vreinterpretq_s32_s64, vreinterpretq_s64_s32);
            for i in 0..4 {
                let r: [int32x4_t; 4] = std::array::from_fn(|r| {
                    vreinterpretq_s32_u8(vld1q_u8(p[4 * i + r].add(offset)))
                });
                let (a, b) = (l(vtrn1q_s32(r[0], r[1])), l(vtrn2q_s32(r[0], r[1])));
                let (c, d) = (l(vtrn1q_s32(r[2], r[3])), l(vtrn2q_s32(r[2], r[3])));
                words[0][i] = s(vtrn1q_s64(a, c));
                words[1][i] = s(vtrn1q_s64(b, d));
                words[2][i] = s(vtrn2q_s64(a, c));
                words[3][i] = s(vtrn2q_s64(b, d));
            }
            words
        }
    }
    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        unsafe {
            asm!("prfm pldl2keep, [{p}]", p = in(reg) p,
                options(readonly, nostack, preserves_flags));
        }
    }
    // Codes without sign are below 128: as signed bytes they are the same.
    #[inline(always)]
    unsafe fn dot(acc: Self::I, w: Self::I, a: i32, _: bool) -> Self::I {
        unsafe {
            let a = vreinterpretq_s8_s32(vdupq_n_s32(a));
            both(acc, w, |acc, w| D::dot(acc, vreinterpretq_s8_s32(w), a))
        }
    }
    #[inline(always)]
    unsafe fn tile<const C: usize, const N: usize>(
        w: *const u8,
        a: *const u8,
        step: usize,
        _: bool,
        _: i32,
    ) -> [Self::I; C] {
        unsafe { D::tile::<C, N>(w, a, step) }
    }
    #[inline(always)]
    unsafe fn store_panel(p: *mut u8, w: &[Self::I; WORDS]) {
        unsafe {
            for i in 0..WORDS / 2 {
                let (even, odd) = (w[2 * i], w[2 * i + 1]);
                for r in 0..4 {
                    // As it is, or 8 bytes of a row after those of the row before.
                    let pair = if D::MATRIX {
                        [vzip1q_s32(even[r], odd[r]), vzip2q_s32(even[r], odd[r])]
                    } else {
                        [even[r], odd[r]]
                    };
                    let at = if D::MATRIX { [32 * r, 32 * r + 16] } else { [16 * r, 64 + 16 * r] };
                    vst1q_s32(p.add(128 * i + at[0]).cast(), pair[0]);
                    vst1q_s32(p.add(128 * i + at[1]).cast(), pair[1]);
                }
            }
        }
    }
}
