//! Sixteen lanes in four NEON registers, and the integer kernels' operations.

#![allow(clippy::undocumented_unsafe_blocks, reason = "each block is the promise of the caller")]

use std::arch::aarch64::*;
use std::arch::asm;
use std::marker::PhantomData;

use super::dot::Dot;
use crate::lanes::Lanes;
use crate::simd::Simd;

/// Four 128-bit registers; NEON, and what `D` needs for dot products.
#[derive(Clone, Copy, Debug)]
pub struct Neon<D>(PhantomData<D>);

type F = [float32x4_t; 4];

#[inline(always)]
fn each<T: Copy, U>(a: [T; 4], f: impl Fn(T) -> U) -> [U; 4] {
    [f(a[0]), f(a[1]), f(a[2]), f(a[3])]
}

#[inline(always)]
fn both<T: Copy, U>(a: [T; 4], b: [T; 4], f: impl Fn(T, T) -> U) -> [U; 4] {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
}

/// 4 half-precision values as single; the intrinsic is not stable.
#[inline(always)]
unsafe fn widen(x: uint16x4_t) -> float32x4_t {
    let out: float32x4_t;
    unsafe {
        asm!("fcvtl {o:v}.4s, {x:v}.4h", o = lateout(vreg) out, x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags));
    }
    out
}

/// 4 single-precision values as half, rounded half to even.
#[inline(always)]
unsafe fn narrow(x: float32x4_t) -> uint16x4_t {
    let out: uint16x4_t;
    unsafe {
        asm!("fcvtn {o:v}.4h, {x:v}.4s", o = lateout(vreg) out, x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags));
    }
    out
}

// SAFETY: the methods use NEON, which the type's documentation names.
unsafe impl<D: Dot> Lanes for Neon<D> {
    type V = F;

    #[inline(always)]
    unsafe fn splat(x: f32) -> F {
        unsafe { [vdupq_n_f32(x); 4] }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> F {
        unsafe { [vld1q_f32(p), vld1q_f32(p.add(4)), vld1q_f32(p.add(8)), vld1q_f32(p.add(12))] }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> F {
        unsafe {
            [
                widen(vld1_u16(p)),
                widen(vld1_u16(p.add(4))),
                widen(vld1_u16(p.add(8))),
                widen(vld1_u16(p.add(12))),
            ]
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> F {
        unsafe {
            let four = |p| vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(p)));
            [four(p), four(p.add(4)), four(p.add(8)), four(p.add(12))]
        }
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> F {
        unsafe {
            let x = vld1q_s8(p);
            let (low, high) = (vmovl_s8(vget_low_s8(x)), vmovl_high_s8(x));
            [
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
                vcvtq_f32_s32(vmovl_high_s16(low)),
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
                vcvtq_f32_s32(vmovl_high_s16(high)),
            ]
        }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: F) {
        unsafe {
            vst1q_f32(p, v[0]);
            vst1q_f32(p.add(4), v[1]);
            vst1q_f32(p.add(8), v[2]);
            vst1q_f32(p.add(12), v[3]);
        }
    }
    #[inline(always)]
    unsafe fn store_f16(p: *mut u16, v: F) {
        unsafe {
            vst1_u16(p, narrow(v[0]));
            vst1_u16(p.add(4), narrow(v[1]));
            vst1_u16(p.add(8), narrow(v[2]));
            vst1_u16(p.add(12), narrow(v[3]));
        }
    }
    #[inline(always)]
    unsafe fn add(a: F, b: F) -> F {
        both(a, b, |a, b| unsafe { vaddq_f32(a, b) })
    }
    #[inline(always)]
    unsafe fn sub(a: F, b: F) -> F {
        both(a, b, |a, b| unsafe { vsubq_f32(a, b) })
    }
    #[inline(always)]
    unsafe fn mul(a: F, b: F) -> F {
        both(a, b, |a, b| unsafe { vmulq_f32(a, b) })
    }
    #[inline(always)]
    unsafe fn div(a: F, b: F) -> F {
        both(a, b, |a, b| unsafe { vdivq_f32(a, b) })
    }
    #[inline(always)]
    unsafe fn fma(a: F, b: F, c: F) -> F {
        unsafe {
            [
                vfmaq_f32(c[0], a[0], b[0]),
                vfmaq_f32(c[1], a[1], b[1]),
                vfmaq_f32(c[2], a[2], b[2]),
                vfmaq_f32(c[3], a[3], b[3]),
            ]
        }
    }
    // `fmax` and `fmin` treat NaN otherwise: compare and select.
    #[inline(always)]
    unsafe fn max(a: F, b: F) -> F {
        both(a, b, |a, b| unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) })
    }
    #[inline(always)]
    unsafe fn min(a: F, b: F) -> F {
        both(a, b, |a, b| unsafe { vbslq_f32(vcltq_f32(a, b), a, b) })
    }
    #[inline(always)]
    unsafe fn abs(a: F) -> F {
        each(a, |a| unsafe { vabsq_f32(a) })
    }
    #[inline(always)]
    unsafe fn select_lt(a: F, b: F, x: F, y: F) -> F {
        let less = both(a, b, |a, b| unsafe { vcltq_f32(a, b) });
        std::array::from_fn(|i| unsafe { vbslq_f32(less[i], x[i], y[i]) })
    }
    #[inline(always)]
    unsafe fn exp2_rounded(t: F) -> F {
        each(t, |t| unsafe {
            let n = vshlq_n_s32::<23>(vreinterpretq_s32_f32(t));
            vreinterpretq_f32_s32(vaddq_s32(n, vdupq_n_s32(0x3f80_0000)))
        })
    }
    #[inline(always)]
    unsafe fn store_i8_rounded(p: *mut i8, t: F) {
        unsafe {
            // Narrowing keeps the low bits, which are the integer.
            let n = each(t, |t| vmovn_s32(vreinterpretq_s32_f32(t)));
            let low = vmovn_s16(vcombine_s16(n[0], n[1]));
            let high = vmovn_s16(vcombine_s16(n[2], n[3]));
            vst1q_s8(p, vcombine_s8(low, high));
        }
    }
    #[inline(always)]
    unsafe fn sum(v: F) -> f32 {
        unsafe {
            let x = vaddq_f32(vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3]));
            let x = vadd_f32(vget_low_f32(x), vget_high_f32(x));
            vget_lane_f32::<0>(x) + vget_lane_f32::<1>(x)
        }
    }
}

/// The sum of the lanes of each, a row each.
#[inline(always)]
unsafe fn pairwise(r: [int32x4_t; 16]) -> [int32x4_t; 4] {
    std::array::from_fn(|i| unsafe {
        let r = &r[4 * i..4 * i + 4];
        vpaddq_s32(vpaddq_s32(r[0], r[1]), vpaddq_s32(r[2], r[3]))
    })
}

// SAFETY: the methods use NEON and what `D` needs, which the type's documentation names.
unsafe impl<D: Dot> Simd for Neon<D> {
    type B = [uint8x16_t; 2];
    type S = [int32x4_t; 2];
    type W = [int8x16_t; 4];
    type I = [int32x4_t; 4];

    const PANEL_UNSIGNED: bool = false;
    const COLUMNS: usize = 4;

    #[inline(always)]
    unsafe fn load_b(p: *const u8) -> Self::B {
        unsafe { [vld1q_u8(p), vld1q_u8(p.add(16))] }
    }
    #[inline(always)]
    unsafe fn store_b(p: *mut u8, b: Self::B) {
        unsafe {
            vst1q_u8(p, b[0]);
            vst1q_u8(p.add(16), b[1]);
        }
    }
    #[inline(always)]
    unsafe fn splat_b(x: u8) -> Self::B {
        unsafe { [vdupq_n_u8(x); 2] }
    }
    #[inline(always)]
    unsafe fn and(a: Self::B, b: Self::B) -> Self::B {
        unsafe { [vandq_u8(a[0], b[0]), vandq_u8(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn or(a: Self::B, b: Self::B) -> Self::B {
        unsafe { [vorrq_u8(a[0], b[0]), vorrq_u8(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn flip_sign(a: Self::B) -> Self::B {
        unsafe {
            let sign = vdupq_n_u8(0x80);
            [veorq_u8(a[0], sign), veorq_u8(a[1], sign)]
        }
    }
    // Bytes are shifted by themselves: nothing crosses over.
    #[inline(always)]
    unsafe fn shr(a: Self::B, n: i32) -> Self::B {
        unsafe {
            let n = vdupq_n_s8(-n as i8);
            [vshlq_u8(a[0], n), vshlq_u8(a[1], n)]
        }
    }
    #[inline(always)]
    unsafe fn shl(a: Self::B, n: i32) -> Self::B {
        unsafe {
            let n = vdupq_n_s8(n as i8);
            [vshlq_u8(a[0], n), vshlq_u8(a[1], n)]
        }
    }
    #[inline(always)]
    unsafe fn nibbles(p: *const u8) -> Self::B {
        unsafe {
            let x = vld1q_u8(p);
            [vandq_u8(x, vdupq_n_u8(15)), vshrq_n_u8::<4>(x)]
        }
    }
    #[inline(always)]
    unsafe fn bits(bits: u32, value: u8) -> Self::B {
        unsafe {
            let mask = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
            let b = bits.to_le_bytes();
            let half = |low: u8, high: u8| {
                let x = vcombine_u8(vdup_n_u8(low), vdup_n_u8(high));
                vandq_u8(vtstq_u8(x, mask), vdupq_n_u8(value))
            };
            [half(b[0], b[1]), half(b[2], b[3])]
        }
    }
    #[inline(always)]
    unsafe fn lookup(table: &[i8; 16], b: Self::B) -> Self::B {
        unsafe {
            let table = vreinterpretq_u8_s8(vld1q_s8(table.as_ptr()));
            [vqtbl1q_u8(table, b[0]), vqtbl1q_u8(table, b[1])]
        }
    }

    #[inline(always)]
    unsafe fn zero() -> Self::S {
        unsafe { [vdupq_n_s32(0); 2] }
    }
    // Codes are below 128: as signed bytes they are the same.
    #[inline(always)]
    unsafe fn dot_u(w: Self::B, a: Self::B) -> Self::S {
        unsafe { Self::dot_s(w, a) }
    }
    #[inline(always)]
    unsafe fn dot_s(w: Self::B, a: Self::B) -> Self::S {
        unsafe {
            let (s, zero) = (vreinterpretq_s8_u8, vdupq_n_s32(0));
            [D::dot(zero, s(w[0]), s(a[0])), D::dot(zero, s(w[1]), s(a[1]))]
        }
    }
    #[inline(always)]
    unsafe fn reduce(r: [Self::S; 16]) -> Self::I {
        unsafe { pairwise(r.map(|r| vaddq_s32(r[0], r[1]))) }
    }
    #[inline(always)]
    unsafe fn reduce_halves(r: [Self::S; 16]) -> [Self::I; 2] {
        unsafe { [pairwise(r.map(|r| r[0])), pairwise(r.map(|r| r[1]))] }
    }
    #[inline(always)]
    unsafe fn gather_f16(p: [*const u8; 16]) -> F {
        unsafe {
            let h = |i: usize| u64::from(p[i].cast::<u16>().read_unaligned());
            let four = |i: usize| {
                let bits = h(i) | h(i + 1) << 16 | h(i + 2) << 32 | h(i + 3) << 48;
                widen(vcreate_u16(bits))
            };
            [four(0), four(4), four(8), four(12)]
        }
    }

    #[inline(always)]
    unsafe fn load_w(p: *const u8) -> Self::W {
        unsafe {
            let p = p.cast();
            [vld1q_s8(p), vld1q_s8(p.add(16)), vld1q_s8(p.add(32)), vld1q_s8(p.add(48))]
        }
    }
    #[inline(always)]
    unsafe fn dot_w<const SIGNED: bool>(acc: Self::I, w: Self::W, a: i32) -> Self::I {
        unsafe {
            let a = vreinterpretq_s8_s32(vdupq_n_s32(a));
            std::array::from_fn(|i| D::dot(acc[i], w[i], a))
        }
    }
    #[inline(always)]
    unsafe fn gather_words(p: [*const u8; 16]) -> [Self::I; 4] {
        unsafe {
            let mut words = [[vdupq_n_s32(0); 4]; 4];
            for i in 0..4 {
                let r: [int64x2_t; 4] =
                    std::array::from_fn(|r| vreinterpretq_s64_u8(vld1q_u8(p[4 * i + r])));
                let s = vreinterpretq_s32_s64;
                let (a, b) = (vtrn1q_s32(s(r[0]), s(r[1])), vtrn2q_s32(s(r[0]), s(r[1])));
                let (c, d) = (vtrn1q_s32(s(r[2]), s(r[3])), vtrn2q_s32(s(r[2]), s(r[3])));
                let l = vreinterpretq_s64_s32;
                words[0][i] = s(vtrn1q_s64(l(a), l(c)));
                words[1][i] = s(vtrn1q_s64(l(b), l(d)));
                words[2][i] = s(vtrn2q_s64(l(a), l(c)));
                words[3][i] = s(vtrn2q_s64(l(b), l(d)));
            }
            words
        }
    }
    #[inline(always)]
    unsafe fn low_f16(a: Self::I) -> F {
        each(a, |a| unsafe { widen(vmovn_u32(vreinterpretq_u32_s32(a))) })
    }
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
            for i in 0..4 {
                vst1q_s32(p.add(4 * i), x[i]);
            }
        }
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
    unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I {
        both(a, b, |a, b| unsafe { vaddq_s32(a, b) })
    }
    #[inline(always)]
    unsafe fn to_f32(a: Self::I) -> F {
        each(a, |a| unsafe { vcvtq_f32_s32(a) })
    }
    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        unsafe {
            asm!("prfm pldl1keep, [{p}]", p = in(reg) p,
                options(readonly, nostack, preserves_flags));
        }
    }
}
