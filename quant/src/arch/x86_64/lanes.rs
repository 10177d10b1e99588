//! Sixteen lanes in two AVX registers or one AVX-512 register.

#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "each block is the promise of Lanes's caller"
)]

use std::arch::asm;
use std::arch::x86_64::*;

use crate::lanes::{Lanes, Prefetch, ROUND};

/// Two 256-bit registers; AVX2, FMA and F16C, and what `DOT` needs for dot products.
#[derive(Clone, Copy, Debug)]
pub struct Avx2<const DOT: u8>;

/// Dot products by `vpmaddubsw`.
pub const MADD: u8 = 0;
/// By `vpdpbusd` of AVX-VNNI.
pub const VEX: u8 = 1;
/// By `vpdpbusd` of AVX-512 VL and VNNI.
pub const EVEX: u8 = 2;

/// One 512-bit register; AVX-512 F, BW, DQ, VL and VNNI.
#[derive(Clone, Copy, Debug)]
pub struct Avx512;

/// The methods of [`Prefetch`] but for what levels choose.
macro_rules! prefetch {
    () => {
        const NEAR: bool = true;

        #[inline(always)]
        fn prefetch(p: *const u8) {
            // SAFETY: SSE is a part of every x86-64, and a prefetch faults on no address.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
        }
        #[inline(always)]
        fn prefetch_near(p: *const u8) {
            // SAFETY: as above.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
        }
    };
}

impl<const DOT: u8> Prefetch for Avx2<DOT> {
    prefetch!();
}

impl Prefetch for Avx512 {
    const ASKS: usize = 2;

    prefetch!();
    #[inline(always)]
    #[allow(clippy::pointers_in_nomem_asm_block, reason = "a comment reads nothing")]
    fn here(mut p: *const u8) -> *const u8 {
        // SAFETY: a comment does nothing; `p` comes back as it is.
        unsafe { asm!("/* {p} */", p = inout(reg) p, options(nomem, nostack, preserves_flags)) };
        p
    }
}

/// The largest of 8 lanes.
#[inline(always)]
unsafe fn largest(x: __m256) -> f32 {
    unsafe {
        let x = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
        let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
        _mm_cvtss_f32(_mm_max_ss(x, _mm_shuffle_ps::<1>(x, x)))
    }
}

/// `$op` of the lanes of each of 16 vectors, in a lane each: lane `i` with `i + 8`, then `i + 4`, `i + 2` and
/// `i + 1`, each step of two vectors at once, whose results share a register. (Loops, since closures are
/// not always inlined, and what is not lacks the level's instructions.)
macro_rules! each_of_avx2 {
    ($v:ident, $op:ident) => {{
        let mut out = [_mm256_setzero_ps(); 2];
        // Lane 4 l + m of result k is of vector 8 k + 4 l + m.
        for (k, out) in out.iter_mut().enumerate() {
            let mut quarters = [_mm256_setzero_pd(); 4];
            for (m, out) in quarters.iter_mut().enumerate() {
                let (a, b) = ($v[8 * k + m], $v[8 * k + 4 + m]);
                let (a, b) = ($op(a.0, a.1), $op(b.0, b.1));
                let low = _mm256_permute2f128_ps::<0x20>(a, b);
                let high = _mm256_permute2f128_ps::<0x31>(a, b);
                *out = _mm256_castps_pd($op(low, high));
            }
            let mut halves = [_mm256_setzero_ps(); 2];
            for (i, out) in halves.iter_mut().enumerate() {
                let (a, b) = (quarters[2 * i], quarters[2 * i + 1]);
                let (low, high) = (_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b));
                *out = $op(_mm256_castpd_ps(low), _mm256_castpd_ps(high));
            }
            let [a, b] = halves;
            *out = $op(_mm256_shuffle_ps::<0x88>(a, b), _mm256_shuffle_ps::<0xdd>(a, b));
        }
        (out[0], out[1])
    }};
}

/// The same.
macro_rules! each_of_avx512 {
    ($v:ident, $op:ident) => {{
        // Lane 4 l + m of the result is of vector 4 l + m.
        let mut quarters = [_mm512_setzero_pd(); 4];
        for (m, out) in quarters.iter_mut().enumerate() {
            let mut eighths = [_mm512_setzero_ps(); 2];
            for (i, out) in eighths.iter_mut().enumerate() {
                let (a, b) = ($v[8 * i + m], $v[8 * i + 4 + m]);
                let low = _mm512_shuffle_f32x4::<0x44>(a, b);
                *out = $op(low, _mm512_shuffle_f32x4::<0xee>(a, b));
            }
            let [a, b] = eighths;
            let low = _mm512_shuffle_f32x4::<0x88>(a, b);
            *out = _mm512_castps_pd($op(low, _mm512_shuffle_f32x4::<0xdd>(a, b)));
        }
        let mut halves = [_mm512_setzero_ps(); 2];
        for (i, out) in halves.iter_mut().enumerate() {
            let (a, b) = (quarters[2 * i], quarters[2 * i + 1]);
            let (low, high) = (_mm512_unpacklo_pd(a, b), _mm512_unpackhi_pd(a, b));
            *out = $op(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
        }
        let [a, b] = halves;
        $op(_mm512_shuffle_ps::<0x88>(a, b), _mm512_shuffle_ps::<0xdd>(a, b))
    }};
}

// SAFETY: the methods use AVX2, FMA and F16C, which the type's documentation names.
unsafe impl<const DOT: u8> Lanes for Avx2<DOT> {
    type V = (__m256, __m256);

    const SUMS: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        unsafe { (_mm256_set1_ps(x), _mm256_set1_ps(x)) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::V {
        unsafe { (_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))) }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self::V {
        unsafe {
            (
                _mm256_cvtph_ps(_mm_loadu_si128(p.cast())),
                _mm256_cvtph_ps(_mm_loadu_si128(p.add(8).cast())),
            )
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self::V {
        unsafe {
            let half = |p: *const u16| {
                let x = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(x))
            };
            (half(p), half(p.add(8)))
        }
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> Self::V {
        unsafe {
            let half =
                |p: *const i8| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast())));
            (half(p), half(p.add(8)))
        }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Self::V) {
        unsafe {
            _mm256_storeu_ps(p, v.0);
            _mm256_storeu_ps(p.add(8), v.1);
        }
    }
    #[inline(always)]
    unsafe fn store_f16(p: *mut u16, v: Self::V) {
        unsafe {
            _mm_storeu_si128(p.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v.0));
            _mm_storeu_si128(p.add(8).cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v.1));
        }
    }
    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        unsafe { (_mm256_add_ps(a.0, b.0), _mm256_add_ps(a.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
        unsafe { (_mm256_sub_ps(a.0, b.0), _mm256_sub_ps(a.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        unsafe { (_mm256_mul_ps(a.0, b.0), _mm256_mul_ps(a.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
        unsafe { (_mm256_div_ps(a.0, b.0), _mm256_div_ps(a.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
        unsafe { (_mm256_max_ps(a.0, b.0), _mm256_max_ps(a.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V {
        unsafe { (_mm256_min_ps(a.0, b.0), _mm256_min_ps(a.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        unsafe { (_mm256_fmadd_ps(a.0, b.0, c.0), _mm256_fmadd_ps(a.1, b.1, c.1)) }
    }
    #[inline(always)]
    unsafe fn abs(a: Self::V) -> Self::V {
        unsafe {
            let sign = _mm256_set1_ps(-0.0);
            (_mm256_andnot_ps(sign, a.0), _mm256_andnot_ps(sign, a.1))
        }
    }
    #[inline(always)]
    unsafe fn select_lt(a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V {
        unsafe {
            (
                _mm256_blendv_ps(y.0, x.0, _mm256_cmp_ps::<_CMP_LT_OQ>(a.0, b.0)),
                _mm256_blendv_ps(y.1, x.1, _mm256_cmp_ps::<_CMP_LT_OQ>(a.1, b.1)),
            )
        }
    }
    #[inline(always)]
    unsafe fn exp2_rounded(t: Self::V) -> Self::V {
        unsafe {
            let half = |t| {
                let n = _mm256_slli_epi32::<23>(_mm256_castps_si256(t));
                _mm256_castsi256_ps(_mm256_add_epi32(n, _mm256_set1_epi32(0x3f80_0000)))
            };
            (half(t.0), half(t.1))
        }
    }
    #[inline(always)]
    unsafe fn store_i8_rounded(p: *mut i8, t: [Self::V; 4]) {
        unsafe {
            let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
            let round = _mm256_set1_epi32(ROUND.to_bits().cast_signed());
            for i in 0..2 {
                let (a, b) = (t[2 * i], t[2 * i + 1]);
                let low = _mm256_packs_epi32(
                    _mm256_sub_epi32(_mm256_castps_si256(a.0), round),
                    _mm256_sub_epi32(_mm256_castps_si256(a.1), round),
                );
                let high = _mm256_packs_epi32(
                    _mm256_sub_epi32(_mm256_castps_si256(b.0), round),
                    _mm256_sub_epi32(_mm256_castps_si256(b.1), round),
                );
                let bytes = _mm256_packs_epi16(low, high);
                let bytes = _mm256_permutevar8x32_epi32(bytes, order);
                _mm256_storeu_si256(p.add(32 * i).cast(), bytes);
            }
        }
    }
    #[inline(always)]
    unsafe fn largest(v: Self::V) -> f32 {
        unsafe { largest(_mm256_max_ps(v.0, v.1)) }
    }
    #[inline(always)]
    unsafe fn sum(v: Self::V) -> f32 {
        unsafe {
            let x = _mm256_add_ps(v.0, v.1);
            let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps::<1>(x, x)))
        }
    }
    #[inline(always)]
    unsafe fn largest_each(v: &[Self::V; 16]) -> Self::V {
        unsafe { each_of_avx2!(v, _mm256_max_ps) }
    }
    #[inline(always)]
    unsafe fn sum_each(v: &[Self::V; 16]) -> Self::V {
        unsafe { each_of_avx2!(v, _mm256_add_ps) }
    }
}

// SAFETY: the methods use AVX-512 F and AVX2, which the type's documentation names.
unsafe impl Lanes for Avx512 {
    type V = __m512;

    const SUMS: usize = 16;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::V {
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self::V {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self::V {
        unsafe {
            let x = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(x))
        }
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> Self::V {
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast()))) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Self::V) {
        unsafe { _mm512_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn store_f16(p: *mut u16, v: Self::V) {
        unsafe { _mm256_storeu_si256(p.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v)) }
    }
    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn abs(a: Self::V) -> Self::V {
        unsafe { _mm512_abs_ps(a) }
    }
    #[inline(always)]
    unsafe fn select_lt(a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V {
        unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), y, x) }
    }
    #[inline(always)]
    unsafe fn exp2_rounded(t: Self::V) -> Self::V {
        unsafe {
            let n = _mm512_slli_epi32::<23>(_mm512_castps_si512(t));
            _mm512_castsi512_ps(_mm512_add_epi32(n, _mm512_set1_epi32(0x3f80_0000)))
        }
    }
    #[inline(always)]
    unsafe fn store_i8_rounded(p: *mut i8, t: [Self::V; 4]) {
        unsafe {
            let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
            let round = _mm512_set1_epi32(ROUND.to_bits().cast_signed());
            // One store of all in place of the narrowing instruction with a store for each.
            let low = _mm512_packs_epi32(
                _mm512_sub_epi32(_mm512_castps_si512(t[0]), round),
                _mm512_sub_epi32(_mm512_castps_si512(t[1]), round),
            );
            let high = _mm512_packs_epi32(
                _mm512_sub_epi32(_mm512_castps_si512(t[2]), round),
                _mm512_sub_epi32(_mm512_castps_si512(t[3]), round),
            );
            let bytes = _mm512_permutexvar_epi32(order, _mm512_packs_epi16(low, high));
            _mm512_storeu_si512(p.cast(), bytes);
        }
    }
    #[inline(always)]
    unsafe fn largest(v: Self::V) -> f32 {
        unsafe {
            let high = _mm512_extractf64x4_pd::<1>(_mm512_castps_pd(v));
            largest(_mm256_max_ps(_mm512_castps512_ps256(v), _mm256_castpd_ps(high)))
        }
    }
    #[inline(always)]
    unsafe fn sum(v: Self::V) -> f32 {
        unsafe {
            let lo = _mm512_castps512_ps256(v);
            let hi = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(v)));
            let x = _mm256_add_ps(lo, hi);
            let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps::<1>(x, x)))
        }
    }
    #[inline(always)]
    unsafe fn largest_each(v: &[Self::V; 16]) -> Self::V {
        unsafe { each_of_avx512!(v, _mm512_max_ps) }
    }
    #[inline(always)]
    unsafe fn sum_each(v: &[Self::V; 16]) -> Self::V {
        unsafe { each_of_avx512!(v, _mm512_add_ps) }
    }
}
