//! Integer kernels' operations in AVX-512.

#![allow(clippy::undocumented_unsafe_blocks, reason = "each block is the promise of Simd's caller")]

use std::arch::x86_64::*;

use super::avx2::{halves, halves_of_8};
use super::lanes::Avx512;
use crate::simd::Simd;

// SAFETY: the methods use what the type's documentation names.
unsafe impl Simd for Avx512 {
    type B = __m256i;
    type S = __m256i;
    type W = __m512i;
    type I = __m512i;

    const PANEL_UNSIGNED: bool = true;
    const COLUMNS: usize = 8;

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
    unsafe fn reduce(r: [__m256i; 16]) -> __m512i {
        unsafe {
            let [first, last] = Self::reduce_halves(r);
            _mm512_add_epi32(first, last)
        }
    }
    #[inline(always)]
    unsafe fn reduce_halves(r: [__m256i; 16]) -> [__m512i; 2] {
        unsafe {
            let (low, high) = (halves_of_8(&r[..8]), halves_of_8(&r[8..]));
            let join = |a, b| _mm512_inserti64x4::<1>(_mm512_castsi256_si512(a), b);
            [join(low.0, high.0), join(low.1, high.1)]
        }
    }
    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }

    #[inline(always)]
    unsafe fn dot_u(w: __m256i, a: __m256i) -> __m256i {
        unsafe { _mm256_dpbusd_epi32(Self::zero(), w, a) }
    }
    #[inline(always)]
    unsafe fn dot_s(w: __m256i, a: __m256i) -> __m256i {
        unsafe { Self::dot_u(_mm256_abs_epi8(w), _mm256_sign_epi8(a, w)) }
    }
    #[inline(always)]
    unsafe fn gather_f16(p: [*const u8; 16]) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_set_m128i(halves(&p[8..]), halves(&p[..8]))) }
    }
    #[inline(always)]
    unsafe fn load_w(p: *const u8) -> __m512i {
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn dot_w<const SIGNED: bool>(acc: __m512i, w: __m512i, a: i32) -> __m512i {
        debug_assert!(!SIGNED, "panels are without sign here");
        unsafe { _mm512_dpbusd_epi32(acc, w, _mm512_set1_epi32(a)) }
    }
    #[inline(always)]
    unsafe fn gather_words(p: [*const u8; 16]) -> [__m512i; 4] {
        unsafe {
            let r: [__m512i; 4] = std::array::from_fn(|i| {
                let four = [p[i], p[i + 4], p[i + 8], p[i + 12]].map(|p| _mm_loadu_si128(p.cast()));
                let low = _mm256_set_m128i(four[1], four[0]);
                let high = _mm256_set_m128i(four[3], four[2]);
                _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
            });
            let (a, b) = (_mm512_unpacklo_epi32(r[0], r[1]), _mm512_unpackhi_epi32(r[0], r[1]));
            let (c, d) = (_mm512_unpacklo_epi32(r[2], r[3]), _mm512_unpackhi_epi32(r[2], r[3]));
            [
                _mm512_unpacklo_epi64(a, c),
                _mm512_unpackhi_epi64(a, c),
                _mm512_unpacklo_epi64(b, d),
                _mm512_unpackhi_epi64(b, d),
            ]
        }
    }
    #[inline(always)]
    unsafe fn low_f16(a: __m512i) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm512_cvtepi32_epi16(a)) }
    }
    #[inline(always)]
    unsafe fn splat_i(x: i32) -> __m512i {
        unsafe { _mm512_set1_epi32(x) }
    }
    #[inline(always)]
    unsafe fn load_i(p: *const i32) -> __m512i {
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn store_i(p: *mut i32, x: __m512i) {
        unsafe { _mm512_storeu_si512(p.cast(), x) }
    }
    #[inline(always)]
    unsafe fn mul_i(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_mullo_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn and_i(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_and_si512(a, b) }
    }
    #[inline(always)]
    unsafe fn or_i(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_or_si512(a, b) }
    }
    #[inline(always)]
    unsafe fn shr_i(a: __m512i, n: i32) -> __m512i {
        unsafe { _mm512_srl_epi32(a, _mm_cvtsi32_si128(n)) }
    }
    #[inline(always)]
    unsafe fn shl_i(a: __m512i, n: i32) -> __m512i {
        unsafe { _mm512_sll_epi32(a, _mm_cvtsi32_si128(n)) }
    }
    #[inline(always)]
    unsafe fn top_byte(a: __m512i) -> __m512i {
        unsafe { _mm512_srai_epi32::<24>(a) }
    }
    #[inline(always)]
    unsafe fn add_i(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_add_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn to_f32(a: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(a) }
    }
    #[inline(always)]
    unsafe fn transpose(rows: *const u8, stride: usize, out: *mut u8) {
        unsafe {
            let mut r: [__m512i; 16] =
                std::array::from_fn(|i| _mm512_loadu_si512(rows.add(i * stride).cast()));
            // Words, then pairs, then fours: each step doubles the rows that a register mixes.
            let mut t = r;
            for i in 0..8 {
                t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
                t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
            }
            for i in 0..4 {
                for j in 0..2 {
                    r[4 * i + 2 * j] = _mm512_unpacklo_epi64(t[4 * i + j], t[4 * i + j + 2]);
                    r[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(t[4 * i + j], t[4 * i + j + 2]);
                }
            }
            // Now lane l of r[4 i + j] holds word 4 l + j of rows 4 i to 4 i + 3.
            for j in 0..4 {
                let ab = _mm512_shuffle_i32x4::<0x88>(r[j], r[4 + j]);
                let cd = _mm512_shuffle_i32x4::<0x88>(r[8 + j], r[12 + j]);
                let ef = _mm512_shuffle_i32x4::<0xdd>(r[j], r[4 + j]);
                let gh = _mm512_shuffle_i32x4::<0xdd>(r[8 + j], r[12 + j]);
                let words = [
                    _mm512_shuffle_i32x4::<0x88>(ab, cd),
                    _mm512_shuffle_i32x4::<0x88>(ef, gh),
                    _mm512_shuffle_i32x4::<0xdd>(ab, cd),
                    _mm512_shuffle_i32x4::<0xdd>(ef, gh),
                ];
                for (l, word) in words.into_iter().enumerate() {
                    _mm512_storeu_si512(out.add(64 * (4 * l + j)).cast(), word);
                }
            }
        }
    }
}
