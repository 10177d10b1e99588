//! Sixteen lanes in four NEON registers.

#![allow(clippy::undocumented_unsafe_blocks, reason = "each block is the promise of the caller")]

use std::arch::aarch64::*;
use std::arch::asm;
use std::marker::PhantomData;

use super::dot::Dot;
use crate::lanes::{Lanes, Prefetch};

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
pub(super) unsafe fn widen(x: uint16x4_t) -> float32x4_t {
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

impl<D: Dot> Prefetch for Neon<D> {
    #[inline(always)]
    fn prefetch(p: *const u8) {
        // SAFETY: a prefetch faults on no address.
        unsafe {
            asm!("prfm pldl2keep, [{p}]", p = in(reg) p,
                options(nomem, nostack, preserves_flags));
        }
    }
}

/// `$op` of the lanes of each of 16 vectors, in a lane each: lane `i` with `i + 8`, then `i + 4`, `i + 2` and
/// `i + 1`. `$pairs` is of neighbours. (Loops, since closures are not always inlined.)
macro_rules! each_of {
    ($v:ident, $op:ident, $pairs:ident) => {{
        let mut out = [vdupq_n_f32(0.0); 4];
        for (k, out) in out.iter_mut().enumerate() {
            let mut quarters = [vdupq_n_f64(0.0); 4];
            for (m, out) in quarters.iter_mut().enumerate() {
                let [a, b, c, d] = $v[4 * k + m];
                *out = vreinterpretq_f64_f32($op($op(a, c), $op(b, d)));
            }
            let mut halves = [vdupq_n_f32(0.0); 2];
            for (i, out) in halves.iter_mut().enumerate() {
                let (a, b) = (quarters[2 * i], quarters[2 * i + 1]);
                let (low, high) = (vzip1q_f64(a, b), vzip2q_f64(a, b));
                *out = $op(vreinterpretq_f32_f64(low), vreinterpretq_f32_f64(high));
            }
            *out = $pairs(halves[0], halves[1]);
        }
        out
    }};
}

// SAFETY: the methods use NEON, which the type's documentation names.
unsafe impl<D: Dot> Lanes for Neon<D> {
    type V = F;

    const SUMS: usize = 4;

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
    unsafe fn store_i8_rounded(p: *mut i8, t: [F; 4]) {
        unsafe {
            for (i, t) in t.into_iter().enumerate() {
                // Narrowing keeps the low bits, which are the integer.
                let n = each(t, |t| vmovn_s32(vreinterpretq_s32_f32(t)));
                let low = vmovn_s16(vcombine_s16(n[0], n[1]));
                let high = vmovn_s16(vcombine_s16(n[2], n[3]));
                vst1q_s8(p.add(16 * i), vcombine_s8(low, high));
            }
        }
    }
    #[inline(always)]
    unsafe fn largest(v: F) -> f32 {
        unsafe { vmaxvq_f32(vmaxq_f32(vmaxq_f32(v[0], v[1]), vmaxq_f32(v[2], v[3]))) }
    }
    #[inline(always)]
    unsafe fn sum(v: F) -> f32 {
        unsafe {
            let x = vaddq_f32(vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3]));
            let x = vadd_f32(vget_low_f32(x), vget_high_f32(x));
            vget_lane_f32::<0>(x) + vget_lane_f32::<1>(x)
        }
    }
    #[inline(always)]
    unsafe fn largest_each(v: &[F; 16]) -> F {
        unsafe { each_of!(v, vmaxq_f32, vpmaxq_f32) }
    }
    #[inline(always)]
    unsafe fn sum_each(v: &[F; 16]) -> F {
        unsafe { each_of!(v, vaddq_f32, vpaddq_f32) }
    }
}
