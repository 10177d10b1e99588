//! Integer kernels' operations in AVX2, with or without AVX-VNNI.

#![allow(clippy::undocumented_unsafe_blocks, reason = "each block is the promise of Simd's caller")]

use std::arch::x86_64::*;

use super::lanes::Avx2;
use crate::simd::Simd;

/// 8 half-precision values, inserted into a register one by one: storing them to memory to read
/// them back as one would stall.
#[inline(always)]
pub(super) unsafe fn halves(p: &[*const u8]) -> __m128i {
    unsafe {
        let h = |i: usize| p[i].cast::<i16>().read_unaligned();
        _mm_setr_epi16(h(0), h(1), h(2), h(3), h(4), h(5), h(6), h(7))
    }
}

// SAFETY: the methods use what the type's documentation names.
unsafe impl<const VNNI: bool> Simd for Avx2<VNNI> {
    type B = __m256i;
    type S = __m256i;
    type Scale = __m256i;
    type W = (__m256i, __m256i);
    type I = (__m256i, __m256i);

    const PANEL_UNSIGNED: bool = VNNI;
    const COLUMNS: usize = 2;

    #[inline(always)]
    unsafe fn load_b(p: *const u8) -> __m256i {
        unsafe { _mm256_loadu_si256(p.cast()) }
    }
    #[inline(always)]
    unsafe fn store_b(p: *mut u8, b: __m256i) {
        unsafe { _mm256_storeu_si256(p.cast(), b) }
    }
    #[inline(always)]
    unsafe fn splat_b(x: u8) -> __m256i {
        unsafe { _mm256_set1_epi8(x as i8) }
    }
    #[inline(always)]
    unsafe fn and(a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_and_si256(a, b) }
    }
    #[inline(always)]
    unsafe fn or(a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_or_si256(a, b) }
    }
    #[inline(always)]
    unsafe fn flip_sign(a: __m256i) -> __m256i {
        unsafe { _mm256_xor_si256(a, _mm256_set1_epi8(-128)) }
    }
    #[inline(always)]
    unsafe fn shr(a: __m256i, n: i32) -> __m256i {
        unsafe { _mm256_srl_epi16(a, _mm_cvtsi32_si128(n)) }
    }
    #[inline(always)]
    unsafe fn shl(a: __m256i, n: i32) -> __m256i {
        unsafe { _mm256_sll_epi16(a, _mm_cvtsi32_si128(n)) }
    }
    #[inline(always)]
    unsafe fn nibbles(p: *const u8) -> __m256i {
        unsafe {
            let x = _mm_loadu_si128(p.cast());
            let both = _mm256_set_m128i(_mm_srli_epi16::<4>(x), x);
            _mm256_and_si256(both, _mm256_set1_epi8(15))
        }
    }
    #[inline(always)]
    unsafe fn bits(bits: u32, value: u8) -> __m256i {
        unsafe {
            // Each byte gets the byte that holds its bit, and its bit alone.
            let which = _mm256_setr_epi64x(
                0,
                0x0101_0101_0101_0101,
                0x0202_0202_0202_0202,
                0x0303_0303_0303_0303,
            );
            let x = _mm256_shuffle_epi8(_mm256_set1_epi32(bits as i32), which);
            let mask = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
            let set = _mm256_cmpeq_epi8(_mm256_and_si256(x, mask), mask);
            _mm256_and_si256(set, _mm256_set1_epi8(value as i8))
        }
    }
    #[inline(always)]
    unsafe fn lookup(table: &[i8; 16], b: __m256i) -> __m256i {
        unsafe {
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            _mm256_shuffle_epi8(table, b)
        }
    }
    #[inline(always)]
    unsafe fn zero() -> __m256i {
        unsafe { _mm256_setzero_si256() }
    }
    #[inline(always)]
    unsafe fn scale(first: i16, second: i16) -> __m256i {
        unsafe { _mm256_set_m128i(_mm_set1_epi16(second), _mm_set1_epi16(first)) }
    }
    #[inline(always)]
    unsafe fn dot_u_scaled(acc: __m256i, w: __m256i, a: __m256i, s: __m256i) -> __m256i {
        // The scale rides on the widening of pairs, which is needed anyway.
        unsafe { _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(w, a), s)) }
    }
    #[inline(always)]
    unsafe fn dot_s_scaled(acc: __m256i, w: __m256i, a: __m256i, s: __m256i) -> __m256i {
        unsafe { Self::dot_u_scaled(acc, _mm256_abs_epi8(w), _mm256_sign_epi8(a, w), s) }
    }
    #[inline(always)]
    unsafe fn dot_i16(acc: __m256i, x: *const i16, y: *const i16) -> __m256i {
        unsafe {
            let (x, y) = (_mm256_loadu_si256(x.cast()), _mm256_loadu_si256(y.cast()));
            _mm256_add_epi32(acc, _mm256_madd_epi16(x, y))
        }
    }
    #[inline(always)]
    unsafe fn reduce(r: [__m256i; 8]) -> __m256i {
        unsafe {
            let low =
                _mm256_hadd_epi32(_mm256_hadd_epi32(r[0], r[1]), _mm256_hadd_epi32(r[2], r[3]));
            let high =
                _mm256_hadd_epi32(_mm256_hadd_epi32(r[4], r[5]), _mm256_hadd_epi32(r[6], r[7]));
            _mm256_add_epi32(
                _mm256_permute2x128_si256::<0x20>(low, high),
                _mm256_permute2x128_si256::<0x31>(low, high),
            )
        }
    }
    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }

    #[inline(always)]
    unsafe fn dot_u(acc: __m256i, w: __m256i, a: __m256i) -> __m256i {
        unsafe {
            if VNNI {
                _mm256_dpbusd_avx_epi32(acc, w, a)
            } else {
                let pairs = _mm256_maddubs_epi16(w, a);
                _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
            }
        }
    }
    #[inline(always)]
    unsafe fn dot_s(acc: __m256i, w: __m256i, a: __m256i) -> __m256i {
        // The sign goes over to the activations; |w| up to 128 times 127, twice, fits 16 bits.
        unsafe { Self::dot_u(acc, _mm256_abs_epi8(w), _mm256_sign_epi8(a, w)) }
    }
    #[inline(always)]
    unsafe fn join(low: __m256i, high: __m256i) -> Self::I {
        (low, high)
    }
    #[inline(always)]
    unsafe fn gather_f16(p: [*const u8; 16]) -> Self::V {
        unsafe { (_mm256_cvtph_ps(halves(&p[..8])), _mm256_cvtph_ps(halves(&p[8..]))) }
    }
    #[inline(always)]
    unsafe fn load_w(p: *const u8) -> Self::W {
        unsafe { (Self::load_b(p), Self::load_b(p.add(32))) }
    }
    #[inline(always)]
    unsafe fn dot_w<const SIGNED: bool>(acc: Self::I, w: Self::W, a: i32) -> Self::I {
        unsafe {
            let a = _mm256_set1_epi32(a);
            if SIGNED {
                (Self::dot_s(acc.0, w.0, a), Self::dot_s(acc.1, w.1, a))
            } else {
                (Self::dot_u(acc.0, w.0, a), Self::dot_u(acc.1, w.1, a))
            }
        }
    }
    #[inline(always)]
    unsafe fn dot_pairs(acc: Self::I, x: Self::I, y: i32) -> Self::I {
        unsafe {
            let y = _mm256_set1_epi32(y);
            let product = (_mm256_madd_epi16(x.0, y), _mm256_madd_epi16(x.1, y));
            Self::add_i(acc, product)
        }
    }
    #[inline(always)]
    unsafe fn splat_i(x: i32) -> Self::I {
        unsafe { (_mm256_set1_epi32(x), _mm256_set1_epi32(x)) }
    }
    #[inline(always)]
    unsafe fn load_i(p: *const i32) -> Self::I {
        unsafe { Self::load_w(p.cast()) }
    }
    #[inline(always)]
    unsafe fn mul_add_i(acc: Self::I, x: Self::I, y: Self::I) -> Self::I {
        unsafe { Self::add_i(acc, (_mm256_mullo_epi32(x.0, y.0), _mm256_mullo_epi32(x.1, y.1))) }
    }
    #[inline(always)]
    unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I {
        unsafe { (_mm256_add_epi32(a.0, b.0), _mm256_add_epi32(a.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn to_f32(a: Self::I) -> Self::V {
        unsafe { (_mm256_cvtepi32_ps(a.0), _mm256_cvtepi32_ps(a.1)) }
    }
}
