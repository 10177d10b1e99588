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

/// The sums of the first and of the last 16 bytes of 8 rows, a lane for each row.
#[inline(always)]
pub(super) unsafe fn halves_of_8(r: &[__m256i]) -> (__m256i, __m256i) {
    unsafe {
        let low = _mm256_hadd_epi32(_mm256_hadd_epi32(r[0], r[1]), _mm256_hadd_epi32(r[2], r[3]));
        let high = _mm256_hadd_epi32(_mm256_hadd_epi32(r[4], r[5]), _mm256_hadd_epi32(r[6], r[7]));
        (_mm256_permute2x128_si256::<0x20>(low, high), _mm256_permute2x128_si256::<0x31>(low, high))
    }
}

/// [`Simd::gather_words`] of 8 places.
#[inline(always)]
unsafe fn words_of_8(p: &[*const u8]) -> [__m256i; 4] {
    unsafe {
        let r: [__m256i; 4] =
            std::array::from_fn(|i| _mm256_loadu2_m128i(p[i + 4].cast(), p[i].cast()));
        let (a, b) = (_mm256_unpacklo_epi32(r[0], r[1]), _mm256_unpackhi_epi32(r[0], r[1]));
        let (c, d) = (_mm256_unpacklo_epi32(r[2], r[3]), _mm256_unpackhi_epi32(r[2], r[3]));
        [
            _mm256_unpacklo_epi64(a, c),
            _mm256_unpackhi_epi64(a, c),
            _mm256_unpacklo_epi64(b, d),
            _mm256_unpackhi_epi64(b, d),
        ]
    }
}

// SAFETY: the methods use what the type's documentation names.
unsafe impl<const VNNI: bool> Simd for Avx2<VNNI> {
    type B = __m256i;
    type S = __m256i;
    type W = (__m256i, __m256i);
    type I = (__m256i, __m256i);

    const PANEL_UNSIGNED: bool = VNNI;
    const COLUMNS: usize = 4;

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
    unsafe fn reduce(r: [__m256i; 16]) -> Self::I {
        unsafe {
            let [first, last] = Self::reduce_halves(r);
            Self::add_i(first, last)
        }
    }
    #[inline(always)]
    unsafe fn reduce_halves(r: [__m256i; 16]) -> [Self::I; 2] {
        unsafe {
            let (low, high) = (halves_of_8(&r[..8]), halves_of_8(&r[8..]));
            [(low.0, high.0), (low.1, high.1)]
        }
    }
    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }

    #[inline(always)]
    unsafe fn dot_u(w: __m256i, a: __m256i) -> __m256i {
        unsafe {
            if VNNI {
                _mm256_dpbusd_avx_epi32(Self::zero(), w, a)
            } else {
                _mm256_madd_epi16(_mm256_maddubs_epi16(w, a), _mm256_set1_epi16(1))
            }
        }
    }
    #[inline(always)]
    unsafe fn dot_s(w: __m256i, a: __m256i) -> __m256i {
        // The sign goes over to the activations; |w| up to 128 times 127, twice, fits 16 bits.
        unsafe { Self::dot_u(_mm256_abs_epi8(w), _mm256_sign_epi8(a, w)) }
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
    unsafe fn gather_words(p: [*const u8; 16]) -> [Self::I; 4] {
        unsafe {
            let (low, high) = (words_of_8(&p[..8]), words_of_8(&p[8..]));
            std::array::from_fn(|i| (low[i], high[i]))
        }
    }
    #[inline(always)]
    unsafe fn low_f16(a: Self::I) -> Self::V {
        unsafe {
            let half = |a| {
                // The low halves of each 128 bits' words, then those bits side by side.
                let low = _mm256_setr_epi64x(0x0d0c_0908_0504_0100, -1, 0x0d0c_0908_0504_0100, -1);
                let a = _mm256_permute4x64_epi64::<0x08>(_mm256_shuffle_epi8(a, low));
                _mm256_cvtph_ps(_mm256_castsi256_si128(a))
            };
            (half(a.0), half(a.1))
        }
    }
    #[inline(always)]
    unsafe fn dot_w<const SIGNED: bool>(acc: Self::I, w: Self::W, a: i32) -> Self::I {
        unsafe {
            let a = _mm256_set1_epi32(a);
            let one = |acc, w| {
                if VNNI {
                    return _mm256_dpbusd_avx_epi32(acc, w, a);
                }
                let dot = if SIGNED { Self::dot_s(w, a) } else { Self::dot_u(w, a) };
                _mm256_add_epi32(acc, dot)
            };
            (one(acc.0, w.0), one(acc.1, w.1))
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
    unsafe fn store_i(p: *mut i32, x: Self::I) {
        unsafe {
            Self::store_b(p.cast(), x.0);
            Self::store_b(p.add(8).cast(), x.1);
        }
    }
    #[inline(always)]
    unsafe fn mul_i(a: Self::I, b: Self::I) -> Self::I {
        unsafe { (_mm256_mullo_epi32(a.0, b.0), _mm256_mullo_epi32(a.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn and_i(a: Self::I, b: Self::I) -> Self::I {
        unsafe { (Self::and(a.0, b.0), Self::and(a.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn or_i(a: Self::I, b: Self::I) -> Self::I {
        unsafe { (Self::or(a.0, b.0), Self::or(a.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn shr_i(a: Self::I, n: i32) -> Self::I {
        unsafe {
            let n = _mm_cvtsi32_si128(n);
            (_mm256_srl_epi32(a.0, n), _mm256_srl_epi32(a.1, n))
        }
    }
    #[inline(always)]
    unsafe fn shl_i(a: Self::I, n: i32) -> Self::I {
        unsafe {
            let n = _mm_cvtsi32_si128(n);
            (_mm256_sll_epi32(a.0, n), _mm256_sll_epi32(a.1, n))
        }
    }
    #[inline(always)]
    unsafe fn top_byte(a: Self::I) -> Self::I {
        unsafe { (_mm256_srai_epi32::<24>(a.0), _mm256_srai_epi32::<24>(a.1)) }
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
