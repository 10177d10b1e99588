//! Integer kernels' operations in NEON.

#![allow(clippy::undocumented_unsafe_blocks, reason = "each block is the promise of Simd's caller")]

use std::arch::aarch64::*;

use super::dot::Dot;
use super::lanes::{Neon, widen};
use crate::simd::{Rows, Simd, WORDS};

// SAFETY: the methods use NEON and what `D` needs, which the type's documentation names.
unsafe impl<D: Dot> Simd for Neon<D> {
    type I = int32x4_t;
    type F = float32x4_t;

    const ROWS: usize = 4;
    const UNSIGNED: bool = false;
    const COLUMNS: usize = 8;

    #[inline(always)]
    unsafe fn splat(x: f32) -> float32x4_t {
        unsafe { vdupq_n_f32(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> float32x4_t {
        unsafe { vld1q_f32(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: float32x4_t) {
        unsafe { vst1q_f32(p, x) }
    }
    #[inline(always)]
    unsafe fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vmulq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        unsafe { vfmaq_f32(c, a, b) }
    }
    #[inline(always)]
    unsafe fn splat_i(x: i32) -> int32x4_t {
        unsafe { vdupq_n_s32(x) }
    }
    #[inline(always)]
    unsafe fn load_i(p: *const i32) -> int32x4_t {
        unsafe { vld1q_s32(p) }
    }
    #[inline(always)]
    unsafe fn store_i(p: *mut i32, x: int32x4_t) {
        unsafe { vst1q_s32(p, x) }
    }
    #[inline(always)]
    unsafe fn add_i(a: int32x4_t, b: int32x4_t) -> int32x4_t {
        unsafe { vaddq_s32(a, b) }
    }
    #[inline(always)]
    unsafe fn sub_i(a: int32x4_t, b: int32x4_t) -> int32x4_t {
        unsafe { vsubq_s32(a, b) }
    }
    #[inline(always)]
    unsafe fn mul_i(a: int32x4_t, b: int32x4_t) -> int32x4_t {
        unsafe { vmulq_s32(a, b) }
    }
    #[inline(always)]
    unsafe fn and_i(a: int32x4_t, b: int32x4_t) -> int32x4_t {
        unsafe { vandq_s32(a, b) }
    }
    #[inline(always)]
    unsafe fn xor_i(a: int32x4_t, b: int32x4_t) -> int32x4_t {
        unsafe { veorq_s32(a, b) }
    }
    #[inline(always)]
    unsafe fn or_i(a: int32x4_t, b: int32x4_t) -> int32x4_t {
        unsafe { vorrq_s32(a, b) }
    }
    #[inline(always)]
    unsafe fn shr_i(a: int32x4_t, n: i32) -> int32x4_t {
        unsafe {
            let a = vreinterpretq_u32_s32(a);
            vreinterpretq_s32_u32(vshlq_u32(a, vdupq_n_s32(-n)))
        }
    }
    #[inline(always)]
    unsafe fn shl_i(a: int32x4_t, n: i32) -> int32x4_t {
        unsafe { vshlq_s32(a, vdupq_n_s32(n)) }
    }
    #[inline(always)]
    unsafe fn top_byte(a: int32x4_t) -> int32x4_t {
        unsafe { vshrq_n_s32::<24>(a) }
    }
    #[inline(always)]
    unsafe fn lookup(table: &[i8; 16], b: int32x4_t) -> int32x4_t {
        unsafe {
            let table = vld1q_s8(table.as_ptr());
            vreinterpretq_s32_s8(vqtbl1q_s8(table, vreinterpretq_u8_s32(b)))
        }
    }
    #[inline(always)]
    unsafe fn to_f32(a: int32x4_t) -> float32x4_t {
        unsafe { vcvtq_f32_s32(a) }
    }
    #[inline(always)]
    unsafe fn low_f16(a: int32x4_t) -> float32x4_t {
        unsafe { widen(vmovn_u32(vreinterpretq_u32_s32(a))) }
    }
    #[inline(always)]
    unsafe fn gather_words(rows: Rows, offset: usize) -> [int32x4_t; 4] {
        unsafe {
            let (s, l) = (vreinterpretq_s32_s64, vreinterpretq_s64_s32);
            let row = |r: usize| vreinterpretq_s32_u8(vld1q_u8(rows.row(r).add(offset)));
            let r = [row(0), row(1), row(2), row(3)];
            let (a, b) = (l(vtrn1q_s32(r[0], r[1])), l(vtrn2q_s32(r[0], r[1])));
            let (c, d) = (l(vtrn1q_s32(r[2], r[3])), l(vtrn2q_s32(r[2], r[3])));
            [s(vtrn1q_s64(a, c)), s(vtrn1q_s64(b, d)), s(vtrn2q_s64(a, c)), s(vtrn2q_s64(b, d))]
        }
    }
    #[inline(always)]
    unsafe fn gather_word(rows: Rows, offset: usize) -> int32x4_t {
        unsafe {
            let word = |r: usize| rows.row(r).add(offset).cast::<i32>().read_unaligned();
            let x = vsetq_lane_s32::<1>(word(1), vdupq_n_s32(word(0)));
            vsetq_lane_s32::<3>(word(3), vsetq_lane_s32::<2>(word(2), x))
        }
    }
    // Codes without sign are below 128: as signed bytes they are the same.
    #[inline(always)]
    unsafe fn dot(acc: int32x4_t, w: int32x4_t, a: i32, _: bool) -> int32x4_t {
        unsafe { D::dot::<0>(acc, vreinterpretq_s8_s32(w), vreinterpretq_s8_s32(vdupq_n_s32(a))) }
    }
    #[inline(always)]
    unsafe fn dots<const N: usize>(w: &[int32x4_t; N], a: *const u8, _: bool, _: i32) -> int32x4_t {
        unsafe {
            // Two chains: one alone would wait for itself.
            let mut acc = [vdupq_n_s32(0); 2];
            for i in (0..N).step_by(4) {
                let a = vld1q_s8(a.add(4 * i).cast());
                acc[0] = D::dot::<0>(acc[0], vreinterpretq_s8_s32(w[i]), a);
                acc[1] = D::dot::<1>(acc[1], vreinterpretq_s8_s32(w[i + 1]), a);
                acc[0] = D::dot::<2>(acc[0], vreinterpretq_s8_s32(w[i + 2]), a);
                acc[1] = D::dot::<3>(acc[1], vreinterpretq_s8_s32(w[i + 3]), a);
            }
            vaddq_s32(acc[0], acc[1])
        }
    }
    #[inline(always)]
    unsafe fn tile<const C: usize, const N: usize>(
        w: *const u8,
        a: *const u8,
        _: bool,
        _: i32,
    ) -> [int32x4_t; C] {
        unsafe { D::tile::<C, N>(w, a) }
    }
    #[inline(always)]
    unsafe fn store_panel(p: *mut u8, w: &[int32x4_t; WORDS]) {
        unsafe {
            for i in (0..WORDS).step_by(2) {
                let (even, odd) = (w[i], w[i + 1]);
                // As they are, or 8 bytes of a row after those of the row before.
                let pair = if D::MATRIX {
                    [vzip1q_s32(even, odd), vzip2q_s32(even, odd)]
                } else {
                    [even, odd]
                };
                vst1q_s32(p.add(16 * i).cast(), pair[0]);
                vst1q_s32(p.add(16 * i + 16).cast(), pair[1]);
            }
        }
    }
}
