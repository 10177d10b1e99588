//! Integer kernels' operations in AVX-512.

#![allow(clippy::undocumented_unsafe_blocks, reason = "each block is the promise of Simd's caller")]

use std::arch::x86_64::*;

use super::avx2::{
    BITS, byte_of_words, four_words, grid_codes, grid_methods, second_word, two_rows,
};
use super::lanes::Avx512;
use crate::simd::{Rows, Simd, WORDS, WordDot};

// SAFETY: the methods use what the type's documentation names.
unsafe impl Simd for Avx512 {
    type I = __m512i;
    type F = __m512;

    const ROWS: usize = 16;
    const UNSIGNED: bool = true;
    const COLUMNS: usize = 8;
    const TALL: usize = 3;
    const AROUND: bool = true;

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: __m512) {
        unsafe { _mm512_storeu_ps(p, x) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
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
    unsafe fn add_i(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_add_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn sub_i(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_sub_epi32(a, b) }
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
    unsafe fn xor_i(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_xor_si512(a, b) }
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
    unsafe fn lookup(table: &[i8; 16], b: __m512i) -> __m512i {
        unsafe {
            let table = _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast()));
            _mm512_shuffle_epi8(table, b)
        }
    }
    #[inline(always)]
    unsafe fn to_f32(a: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(a) }
    }
    #[inline(always)]
    unsafe fn low_f16(a: __m512i) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm512_cvtepi32_epi16(a)) }
    }
    #[inline(always)]
    unsafe fn gather_words(rows: Rows, offset: usize) -> [__m512i; 4] {
        unsafe {
            let load = |i: usize| _mm_loadu_si128(rows.row(i).add(offset).cast());
            let four = |i: usize| {
                let low = _mm256_set_m128i(load(i + 4), load(i));
                let high = _mm256_set_m128i(load(i + 12), load(i + 8));
                _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
            };
            let r = [four(0), four(1), four(2), four(3)];
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
    unsafe fn gather_word(rows: Rows, offset: usize) -> __m512i {
        unsafe {
            let eight = |i: usize| {
                let four = |i: usize| four_words(rows, i, offset);
                _mm256_set_m128i(four(i + 4), four(i))
            };
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(eight(0)), eight(8))
        }
    }
    #[inline(always)]
    unsafe fn gather_two(rows: Rows, offset: usize) -> [__m512i; 2] {
        unsafe {
            // Rows `i` and `i + 1`, then those 4, 8 and 12 further on.
            let two = |i: usize| {
                let two = |i: usize| two_rows(rows, i, offset);
                let low = _mm256_set_m128i(two(i + 4), two(i));
                let high = _mm256_set_m128i(two(i + 12), two(i + 8));
                let all = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
                _mm512_castsi512_ps(all)
            };
            let (a, b) = (two(0), two(2));
            [
                _mm512_castps_si512(_mm512_shuffle_ps::<0x88>(a, b)),
                _mm512_castps_si512(_mm512_shuffle_ps::<0xdd>(a, b)),
            ]
        }
    }
    #[inline(always)]
    unsafe fn gather_around(rows: Rows, offset: usize) -> (__m512i, [__m512i; 4]) {
        unsafe {
            // Half as many loads as of the parts: a Zen 5 begins two of vectors a cycle, and waited for them
            // (`cargo bench -p siskin --bench kernels`, Q4_0 and Q4_1).
            let row = |i: usize| _mm256_loadu_si256(rows.row(i).add(offset).sub(16).cast());
            let two =
                |i: usize| _mm512_inserti64x4::<1>(_mm512_castsi256_si512(row(i)), row(i + 1));
            let r = [two(0), two(2), two(4), two(6), two(8), two(10), two(12), two(14)];
            // Word `i` of four rows in quarter `i` of a register; the word before, in each quarter.
            let all = _mm512_setr_epi32(4, 12, 20, 28, 5, 13, 21, 29, 6, 14, 22, 30, 7, 15, 23, 31);
            let four = |i: usize| _mm512_permutex2var_epi32(r[2 * i], all, r[2 * i + 1]);
            let third = _mm512_broadcast_i32x4(_mm_setr_epi32(3, 11, 19, 27));
            let before = |i: usize| {
                _mm512_maskz_permutex2var_epi32(15 << (4 * i), r[2 * i], third, r[2 * i + 1])
            };
            let [a, b, c, d] = [before(0), before(1), before(2), before(3)];
            let before = _mm512_or_si512(_mm512_or_si512(a, b), _mm512_or_si512(c, d));
            let r = [four(0), four(1), four(2), four(3)];
            let (a, b) = (
                _mm512_shuffle_i32x4::<0x44>(r[0], r[1]),
                _mm512_shuffle_i32x4::<0x44>(r[2], r[3]),
            );
            let (c, d) = (
                _mm512_shuffle_i32x4::<0xee>(r[0], r[1]),
                _mm512_shuffle_i32x4::<0xee>(r[2], r[3]),
            );
            let words = [
                _mm512_shuffle_i32x4::<0x88>(a, b),
                _mm512_shuffle_i32x4::<0xdd>(a, b),
                _mm512_shuffle_i32x4::<0x88>(c, d),
                _mm512_shuffle_i32x4::<0xdd>(c, d),
            ];
            (before, words)
        }
    }
    #[inline(always)]
    unsafe fn add_fifth_bits(low: [__m512i; WORDS], rows: Rows, offset: usize) -> [__m512i; WORDS] {
        unsafe {
            let word = second_word::<Self>(rows, offset);
            let mut codes = low;
            for i in 0..WORDS {
                // The byte that has the word's bits, in each byte, and a bit of it in each.
                let byte = _mm512_broadcast_i32x4(byte_of_words(i / 2));
                let bit = _mm512_set1_epi32(BITS[i % 2]);
                let set = _mm512_test_epi8_mask(_mm512_shuffle_epi8(word, byte), bit);
                codes[i] = _mm512_mask_add_epi8(codes[i], set, codes[i], _mm512_set1_epi8(16));
            }
            codes
        }
    }
    #[inline(always)]
    unsafe fn dots<const N: usize>(
        w: &[__m512i; N],
        a: *const u8,
        signed: bool,
        _: i32,
    ) -> __m512i {
        unsafe { Self::word_dots(w, a, signed) }
    }
    grid_methods!();
    #[inline(always)]
    unsafe fn ninth_bits(low: &[u8; 64], high: u64) -> [u16; 64] {
        let mut all = [0; 64];
        unsafe {
            for i in 0..2 {
                let low = _mm256_loadu_si256(low.as_ptr().add(32 * i).cast());
                let (low, set) = (_mm512_cvtepu8_epi16(low), (high >> (32 * i)) as u32);
                let codes = _mm512_mask_add_epi16(low, set, low, _mm512_set1_epi16(256));
                _mm512_storeu_si512(all.as_mut_ptr().add(32 * i).cast(), codes);
            }
        }
        all
    }
    #[inline(always)]
    unsafe fn write_signed<const N: usize, const G: usize>(
        out: &mut [i8; 32],
        grid: [&[i8; N]; G],
        signs: u32,
    ) {
        unsafe {
            let codes = grid_codes(&grid);
            let codes = _mm256_mask_sub_epi8(codes, signs, _mm256_setzero_si256(), codes);
            _mm256_storeu_si256(out.as_mut_ptr().cast(), codes);
        }
    }
    #[inline(always)]
    unsafe fn tile<const C: usize, const N: usize>(
        w: *const u8,
        a: *const u8,
        signed: bool,
        _: i32,
    ) -> [__m512i; C] {
        unsafe { Self::word_tiles::<1, C, N>(w, 0, a, signed)[0] }
    }
    #[inline(always)]
    unsafe fn tiles<const R: usize, const C: usize, const N: usize>(
        w: *const u8,
        apart: usize,
        a: *const u8,
        signed: bool,
        _: i32,
    ) -> [[__m512i; C]; R] {
        unsafe { Self::word_tiles::<R, C, N>(w, apart, a, signed) }
    }
}

// SAFETY: the method uses what the type's documentation names.
unsafe impl WordDot for Avx512 {
    #[inline(always)]
    unsafe fn dot(acc: __m512i, w: __m512i, a: i32, signed: bool) -> __m512i {
        debug_assert!(!signed, "codes are without sign here");
        unsafe { _mm512_dpbusd_epi32(acc, w, _mm512_set1_epi32(a)) }
    }
}
