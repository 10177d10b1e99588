//! Integer kernels' operations in AVX2, with or without AVX-VNNI.

#![allow(clippy::undocumented_unsafe_blocks, reason = "each block is the promise of Simd's caller")]

use std::arch::x86_64::*;

use super::lanes::{Avx2, EVEX, MADD};
use crate::simd::{Rows, Simd, WORDS};

/// The words at `offset` of rows `first..first + 4`.
#[inline(always)]
pub(super) unsafe fn four_words(rows: Rows, first: usize, offset: usize) -> __m128i {
    unsafe {
        let word = |i: usize| rows.row(first + i).add(offset).cast::<i32>().read_unaligned();
        let x = _mm_cvtsi32_si128(word(0));
        let x = _mm_insert_epi32::<1>(x, word(1));
        _mm_insert_epi32::<3>(_mm_insert_epi32::<2>(x, word(2)), word(3))
    }
}

/// The two words at `offset` of rows `first` and `first + 1`.
#[inline(always)]
pub(super) unsafe fn two_rows(rows: Rows, first: usize, offset: usize) -> __m128i {
    unsafe {
        let row = |i: usize| rows.row(first + i).add(offset).cast::<f64>().read_unaligned();
        _mm_castpd_si128(_mm_set_pd(row(1), row(0)))
    }
}

/// The word at `offset` of rows, 2 or 4, by the loads that give the rows' first word too.
#[inline(always)]
pub(super) unsafe fn second_word<S: Simd>(rows: Rows, offset: usize) -> S::I {
    debug_assert!(offset == 2 || offset == 4);
    unsafe {
        let [a, b] = S::gather_two(rows, 0);
        if offset == 4 { b } else { S::or_i(S::shr_i(a, 16), S::shl_i(b, 16)) }
    }
}

/// For a shuffle of bytes: byte `i` of each word, four times.
#[inline(always)]
pub(super) unsafe fn byte_of_words(i: usize) -> __m128i {
    let i = i as i32 * 0x0101_0101;
    unsafe { _mm_setr_epi32(i, i + 0x0404_0404, i + 0x0808_0808, i + 0x0c0c_0c0c) }
}

/// Bits 0 to 3, or 4 to 7, each in a byte of its own.
pub(super) const BITS: [i32; 2] = [0x0804_0201, 0x8040_2010_u32 as i32];

/// 32 codes of a grid, `N` from each address.
#[inline(always)]
pub(super) unsafe fn grid_codes<const N: usize, const G: usize>(grid: &[&[i8; N]; G]) -> __m256i {
    const { assert!(N * G == 32 && (N == 4 || N == 8)) };
    unsafe {
        let at = |i: usize| grid[i].as_ptr();
        if N == 8 {
            let two = |i: usize| at(i).cast::<f64>().read_unaligned();
            let half = |i: usize| _mm_castpd_si128(_mm_set_pd(two(i + 1), two(i)));
            return _mm256_set_m128i(half(2), half(0));
        }
        let word = |i: usize| at(i).cast::<i32>().read_unaligned();
        let half = |i: usize| {
            let x = _mm_insert_epi32::<1>(_mm_cvtsi32_si128(word(i)), word(i + 1));
            _mm_insert_epi32::<3>(_mm_insert_epi32::<2>(x, word(i + 2)), word(i + 3))
        };
        _mm256_set_m128i(half(4), half(0))
    }
}

/// What AVX-512 does as AVX2 does it.
macro_rules! grid_methods {
    () => {
        #[inline(always)]
        unsafe fn even_signs(bits: [u32; 8]) -> [u32; 8] {
            use super::avx2::{eighth_signs, of_words, spread_signs, words_of};
            unsafe { words_of(eighth_signs(spread_signs(of_words(bits)))) }
        }
        #[inline(always)]
        unsafe fn eighth_signs(signs: [u32; 8]) -> [u32; 8] {
            use super::avx2::{eighth_signs, of_words, words_of};
            unsafe { words_of(eighth_signs(of_words(signs))) }
        }
        #[inline(always)]
        unsafe fn write_moved(out: &mut [i8; 32], grid: [&[i8; 8]; 4], by: u32) {
            unsafe { super::avx2::write_moved(out, grid, by) }
        }
        #[inline(always)]
        unsafe fn indices(low: &[u8; 32], high: [u16; 8]) -> [u16; 32] {
            unsafe { super::avx2::indices(low, high) }
        }
    };
}
pub(super) use grid_methods;

/// Words in a register.
#[inline(always)]
pub(super) unsafe fn of_words(words: [u32; 8]) -> __m256i {
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

/// And back.
#[inline(always)]
pub(super) unsafe fn words_of(x: __m256i) -> [u32; 8] {
    let mut words = [0; 8];
    unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), x) };
    words
}

/// The lower 28 bits of each word, 7 in each byte.
#[inline(always)]
pub(super) unsafe fn spread_signs(bits: __m256i) -> __m256i {
    unsafe {
        let seven = |x, at| _mm256_and_si256(x, _mm256_set1_epi32(127 << (8 * at)));
        let low = _mm256_or_si256(seven(bits, 0), seven(_mm256_slli_epi32::<1>(bits), 1));
        let (x2, x3) = (_mm256_slli_epi32::<2>(bits), _mm256_slli_epi32::<3>(bits));
        _mm256_or_si256(low, _mm256_or_si256(seven(x2, 2), seven(x3, 3)))
    }
}

/// See [`Simd::eighth_signs`].
#[inline(always)]
pub(super) unsafe fn eighth_signs(signs: __m256i) -> __m256i {
    unsafe {
        // Of each 4 bits, whether the number of ones is odd.
        let odd = _mm256_broadcastsi128_si256(_mm_setr_epi8(
            0, -128, -128, 0, -128, 0, 0, -128, -128, 0, 0, -128, 0, -128, -128, 0,
        ));
        let low = _mm256_set1_epi8(15);
        let high = _mm256_and_si256(_mm256_srli_epi16::<4>(signs), low);
        let low = _mm256_shuffle_epi8(odd, _mm256_and_si256(signs, low));
        let eighth = _mm256_xor_si256(low, _mm256_shuffle_epi8(odd, high));
        _mm256_or_si256(signs, eighth)
    }
}

/// Each byte of a word 8 times.
#[inline(always)]
unsafe fn each_byte(word: u32) -> __m256i {
    let eight = |byte: i64| byte * 0x0101_0101_0101_0101;
    unsafe {
        let byte = _mm256_setr_epi64x(0, eight(1), eight(2), eight(3));
        _mm256_shuffle_epi8(_mm256_set1_epi32(word as i32), byte)
    }
}

/// See [`Simd::write_moved`].
#[inline(always)]
pub(super) unsafe fn write_moved(out: &mut [i8; 32], grid: [&[i8; 8]; 4], by: u32) {
    unsafe {
        let codes = _mm256_add_epi8(grid_codes(&grid), each_byte(by));
        _mm256_storeu_si256(out.as_mut_ptr().cast(), codes);
    }
}

/// See [`Simd::indices`].
#[inline(always)]
pub(super) unsafe fn indices(low: &[u8; 32], high: [u16; 8]) -> [u16; 32] {
    let mut all = [0u16; 32];
    unsafe {
        let words = _mm256_cvtepu16_epi32(_mm_loadu_si128(high.as_ptr().cast()));
        // Each word's bits into a byte each.
        let byte = |l: i32| {
            let bits = _mm256_and_si256(words, _mm256_set1_epi32(7 << (4 * l)));
            _mm256_sll_epi32(bits, _mm_cvtsi32_si128(4 * l))
        };
        let high =
            _mm256_or_si256(_mm256_or_si256(byte(0), byte(1)), _mm256_or_si256(byte(2), byte(3)));
        let low = _mm256_loadu_si256(low.as_ptr().cast());
        let (a, b) = (_mm256_unpacklo_epi8(low, high), _mm256_unpackhi_epi8(low, high));
        let out = all.as_mut_ptr();
        _mm256_storeu_si256(out.cast(), _mm256_permute2x128_si256::<0x20>(a, b));
        _mm256_storeu_si256(out.add(16).cast(), _mm256_permute2x128_si256::<0x31>(a, b));
    }
    all
}

/// The products of bytes, those of neighbours added: at the most twice 128 times 127, which fits.
#[inline(always)]
unsafe fn pairs(w: __m256i, a: __m256i, signed: bool) -> __m256i {
    unsafe {
        if signed {
            // The sign goes over to the activations.
            _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(a, w))
        } else {
            _mm256_maddubs_epi16(w, a)
        }
    }
}

/// `acc`, and pairs widened.
#[inline(always)]
unsafe fn widen(acc: __m256i, pairs: __m256i) -> __m256i {
    unsafe { _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))) }
}

/// How many sums of pairs may be added in 16 bits.
#[inline(always)]
const fn run(signed: bool, top: i32) -> usize {
    if signed { 1 } else { (i16::MAX as i32 / (2 * 127 * top)) as usize }
}

/// `vpdpbusd`, encoded as the CPU has it.
#[inline(always)]
unsafe fn dpbusd<const DOT: u8>(acc: __m256i, w: __m256i, a: __m256i) -> __m256i {
    unsafe {
        if DOT == EVEX {
            _mm256_dpbusd_epi32(acc, w, a)
        } else {
            _mm256_dpbusd_avx_epi32(acc, w, a)
        }
    }
}

// SAFETY: the methods use what the type's documentation names.
unsafe impl<const DOT: u8> Simd for Avx2<DOT> {
    type I = __m256i;
    type F = __m256;

    const ROWS: usize = 8;
    const UNSIGNED: bool = DOT != MADD;
    const COLUMNS: usize = if DOT == MADD { 4 } else { 8 };

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m256 {
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: __m256) {
        unsafe { _mm256_storeu_ps(p, x) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn splat_i(x: i32) -> __m256i {
        unsafe { _mm256_set1_epi32(x) }
    }
    #[inline(always)]
    unsafe fn load_i(p: *const i32) -> __m256i {
        unsafe { _mm256_loadu_si256(p.cast()) }
    }
    #[inline(always)]
    unsafe fn store_i(p: *mut i32, x: __m256i) {
        unsafe { _mm256_storeu_si256(p.cast(), x) }
    }
    #[inline(always)]
    unsafe fn add_i(a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_add_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn sub_i(a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_sub_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn mul_i(a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_mullo_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn and_i(a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_and_si256(a, b) }
    }
    #[inline(always)]
    unsafe fn xor_i(a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_xor_si256(a, b) }
    }
    #[inline(always)]
    unsafe fn or_i(a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_or_si256(a, b) }
    }
    #[inline(always)]
    unsafe fn shr_i(a: __m256i, n: i32) -> __m256i {
        unsafe { _mm256_srl_epi32(a, _mm_cvtsi32_si128(n)) }
    }
    #[inline(always)]
    unsafe fn shl_i(a: __m256i, n: i32) -> __m256i {
        unsafe { _mm256_sll_epi32(a, _mm_cvtsi32_si128(n)) }
    }
    #[inline(always)]
    unsafe fn top_byte(a: __m256i) -> __m256i {
        unsafe { _mm256_srai_epi32::<24>(a) }
    }
    #[inline(always)]
    unsafe fn lookup(table: &[i8; 16], b: __m256i) -> __m256i {
        unsafe {
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            _mm256_shuffle_epi8(table, b)
        }
    }
    #[inline(always)]
    unsafe fn to_f32(a: __m256i) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(a) }
    }
    #[inline(always)]
    unsafe fn low_f16(a: __m256i) -> __m256 {
        unsafe {
            // The low halves of each 128 bits' words, then those bits side by side.
            let low = _mm256_setr_epi64x(0x0d0c_0908_0504_0100, -1, 0x0d0c_0908_0504_0100, -1);
            let a = _mm256_permute4x64_epi64::<0x08>(_mm256_shuffle_epi8(a, low));
            _mm256_cvtph_ps(_mm256_castsi256_si128(a))
        }
    }
    #[inline(always)]
    unsafe fn gather_words(rows: Rows, offset: usize) -> [__m256i; 4] {
        unsafe {
            let load = |i: usize| _mm_loadu_si128(rows.row(i).add(offset).cast());
            let two = |i: usize| _mm256_set_m128i(load(i + 4), load(i));
            let r = [two(0), two(1), two(2), two(3)];
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
    #[inline(always)]
    unsafe fn gather_word(rows: Rows, offset: usize) -> __m256i {
        unsafe {
            let four = |i: usize| four_words(rows, i, offset);
            _mm256_set_m128i(four(4), four(0))
        }
    }
    #[inline(always)]
    unsafe fn gather_two(rows: Rows, offset: usize) -> [__m256i; 2] {
        unsafe {
            // Rows `i` and `i + 1`, then those 4 further on.
            let two = |i: usize| {
                let [low, high] = [two_rows(rows, i, offset), two_rows(rows, i + 4, offset)];
                _mm256_castsi256_ps(_mm256_set_m128i(high, low))
            };
            let (a, b) = (two(0), two(2));
            [
                _mm256_castps_si256(_mm256_shuffle_ps::<0x88>(a, b)),
                _mm256_castps_si256(_mm256_shuffle_ps::<0xdd>(a, b)),
            ]
        }
    }
    #[inline(always)]
    unsafe fn add_fifth_bits(low: [__m256i; WORDS], rows: Rows, offset: usize) -> [__m256i; WORDS] {
        unsafe {
            let word = second_word::<Self>(rows, offset);
            let mut codes = low;
            for i in 0..WORDS {
                // The byte that has the word's bits, in each byte, and a bit of it in each.
                let byte = _mm256_broadcastsi128_si256(byte_of_words(i / 2));
                let bit = _mm256_set1_epi32(BITS[i % 2]);
                let set = _mm256_and_si256(_mm256_shuffle_epi8(word, byte), bit);
                let set = _mm256_cmpeq_epi8(set, bit);
                let fifth = _mm256_and_si256(set, _mm256_set1_epi8(16));
                codes[i] = _mm256_or_si256(codes[i], fifth);
            }
            codes
        }
    }
    #[inline(always)]
    unsafe fn dots<const N: usize>(
        w: &[__m256i; N],
        a: *const u8,
        signed: bool,
        top: i32,
    ) -> __m256i {
        unsafe {
            let mut acc = _mm256_setzero_si256();
            let mut sums = acc;
            for i in 0..N {
                let x = _mm256_set1_epi32(a.add(4 * i).cast::<i32>().read_unaligned());
                if DOT != MADD {
                    acc = dpbusd::<DOT>(acc, w[i], x);
                    continue;
                }
                // Small codes are added in 16 bits as long as they fit, and widened then.
                sums = _mm256_add_epi16(sums, pairs(w[i], x, signed));
                if (i + 1) % run(signed, top) == 0 || i + 1 == N {
                    acc = widen(acc, sums);
                    sums = _mm256_setzero_si256();
                }
            }
            acc
        }
    }
    grid_methods!();
    #[inline(always)]
    unsafe fn ninth_bits(low: &[u8; 64], high: u64) -> [u16; 64] {
        let mut all = [0; 64];
        unsafe {
            let bit = _mm256_setr_epi16(
                1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, -32768,
            );
            for i in 0..4 {
                let set = _mm256_and_si256(_mm256_set1_epi16((high >> (16 * i)) as i16), bit);
                let set = _mm256_cmpeq_epi16(set, bit);
                let low = _mm256_cvtepu8_epi16(_mm_loadu_si128(low.as_ptr().add(16 * i).cast()));
                let ninth = _mm256_and_si256(set, _mm256_set1_epi16(256));
                let codes = _mm256_or_si256(low, ninth);
                _mm256_storeu_si256(all.as_mut_ptr().add(16 * i).cast(), codes);
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
            // The bit of a code's sign, in the byte for 8 of them.
            let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
            let set = each_byte(signs);
            let minus = _mm256_cmpeq_epi8(_mm256_and_si256(set, bit), bit);
            let codes = _mm256_sub_epi8(_mm256_xor_si256(codes, minus), minus);
            _mm256_storeu_si256(out.as_mut_ptr().cast(), codes);
        }
    }
    #[inline(always)]
    unsafe fn tile<const C: usize, const N: usize>(
        w: *const u8,
        a: *const u8,
        signed: bool,
        top: i32,
    ) -> [__m256i; C] {
        unsafe {
            let mut acc = [_mm256_setzero_si256(); C];
            let mut sums = acc;
            for i in 0..N {
                let w = Self::load_i(w.add(32 * i).cast());
                for c in 0..C {
                    let x = a.add(32 * c + 4 * i).cast::<i32>().read_unaligned();
                    let x = _mm256_set1_epi32(x);
                    if DOT != MADD {
                        acc[c] = dpbusd::<DOT>(acc[c], w, x);
                        continue;
                    }
                    sums[c] = _mm256_add_epi16(sums[c], pairs(w, x, signed));
                    if (i + 1) % run(signed, top) == 0 || i + 1 == N {
                        acc[c] = widen(acc[c], sums[c]);
                        sums[c] = _mm256_setzero_si256();
                    }
                }
            }
            acc
        }
    }
}
