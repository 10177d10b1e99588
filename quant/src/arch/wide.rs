//! Any CPU: integer work through the `wide` crate, which uses what the build's target has (SSE2 on
//! plain x86-64), floats as arrays. `wide`'s own fused multiply-add is not fused in such a build
//! and is never used.

#![allow(clippy::undocumented_unsafe_blocks, reason = "each block is the promise of Simd's caller")]

use wide::{i16x16, i32x8};

use crate::features::CpuFeatures;
use crate::generic::instantiate_gemm;
use crate::lanes::Portable;
use crate::simd::{Rows, Simd, WORDS, WordDot};
use crate::table::Level;

/// The level above scalar.
pub const LEVEL: Level =
    Level { name: "wide", needs: CpuFeatures::NONE, install: gemm_wide::install };

instantiate_gemm!(gemm_wide, super::Portable,);

/// Bytes `2 n` and `2 n + 1` of each word, widened; signed or not.
#[inline(always)]
fn pairs(x: i32x8, n: i32) -> i16x16 {
    let words = x.to_array();
    i16x16::new(std::array::from_fn(|i| {
        i16::from((words[i / 2] >> (16 * n + 8 * (i as i32 % 2))) as i8)
    }))
}

// The long ones are calls: compiled into each kernel they would take minutes.
// SAFETY: uses no instruction beyond the build's target.
unsafe impl Simd for Portable {
    type I = [i32; 8];
    type F = [f32; 8];

    const ROWS: usize = 8;
    const UNSIGNED: bool = false;
    const COLUMNS: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: f32) -> [f32; 8] {
        [x; 8]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> [f32; 8] {
        unsafe { p.cast::<[f32; 8]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: [f32; 8]) {
        unsafe { p.cast::<[f32; 8]>().write_unaligned(x) }
    }
    #[inline(always)]
    unsafe fn mul(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn fma(a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }

    #[inline(always)]
    unsafe fn splat_i(x: i32) -> [i32; 8] {
        [x; 8]
    }
    #[inline(always)]
    unsafe fn load_i(p: *const i32) -> [i32; 8] {
        unsafe { p.cast::<[i32; 8]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_i(p: *mut i32, x: [i32; 8]) {
        unsafe { p.cast::<[i32; 8]>().write_unaligned(x) }
    }
    #[inline(always)]
    unsafe fn add_i(a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        std::array::from_fn(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    unsafe fn sub_i(a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        std::array::from_fn(|i| a[i].wrapping_sub(b[i]))
    }
    #[inline(always)]
    unsafe fn mul_i(a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        std::array::from_fn(|i| a[i].wrapping_mul(b[i]))
    }
    #[inline(always)]
    unsafe fn and_i(a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        std::array::from_fn(|i| a[i] & b[i])
    }
    #[inline(always)]
    unsafe fn xor_i(a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        std::array::from_fn(|i| a[i] ^ b[i])
    }
    #[inline(always)]
    unsafe fn or_i(a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        std::array::from_fn(|i| a[i] | b[i])
    }
    #[inline(always)]
    unsafe fn shr_i(a: [i32; 8], n: i32) -> [i32; 8] {
        a.map(|a| (a as u32 >> n) as i32)
    }
    #[inline(always)]
    unsafe fn shl_i(a: [i32; 8], n: i32) -> [i32; 8] {
        a.map(|a| a << n)
    }
    #[inline(always)]
    unsafe fn top_byte(a: [i32; 8]) -> [i32; 8] {
        a.map(|a| a >> 24)
    }
    #[inline(never)]
    unsafe fn lookup(table: &[i8; 16], b: [i32; 8]) -> [i32; 8] {
        b.map(|b| i32::from_le_bytes(b.to_le_bytes().map(|b| table[usize::from(b & 15)] as u8)))
    }
    #[inline(always)]
    unsafe fn to_f32(a: [i32; 8]) -> [f32; 8] {
        a.map(|a| a as f32)
    }
    #[inline(never)]
    unsafe fn low_f16(a: [i32; 8]) -> [f32; 8] {
        a.map(|a| crate::float::f16_to_f32(a as u16))
    }
    #[inline(never)]
    unsafe fn gather_words(rows: Rows, offset: usize) -> [[i32; 8]; 4] {
        std::array::from_fn(|i| unsafe { Self::gather_word(rows, offset + 4 * i) })
    }
    #[inline(always)]
    unsafe fn gather_word(rows: Rows, offset: usize) -> [i32; 8] {
        let word = |p: *const u8| unsafe { i32::from_le(p.cast::<i32>().read_unaligned()) };
        std::array::from_fn(|r| word(rows.row(r).wrapping_add(offset)))
    }
    #[inline(always)]
    unsafe fn add_fifth_bits(
        low: [[i32; 8]; WORDS],
        rows: Rows,
        offset: usize,
    ) -> [[i32; 8]; WORDS] {
        let word = unsafe { Self::gather_word(rows, offset) };
        let mut codes = low;
        for (i, codes) in codes.iter_mut().enumerate() {
            // Bit `b` of four goes to bit 8 b + 4: the factor has bits 4, 11, 18 and 25, and no two
            // products of bits meet.
            let bits = word.map(|w| ((w >> (4 * i)) & 15).wrapping_mul(0x0204_0810) & 0x1010_1010);
            *codes = std::array::from_fn(|r| codes[r] | bits[r]);
        }
        codes
    }
    #[inline(always)]
    unsafe fn dots<const N: usize>(
        w: &[[i32; 8]; N],
        a: *const u8,
        signed: bool,
        _: i32,
    ) -> [i32; 8] {
        unsafe { Self::word_dots(w, a, signed) }
    }
    #[inline(always)]
    unsafe fn tile<const C: usize, const N: usize>(
        w: *const u8,
        a: *const u8,
        signed: bool,
        _: i32,
    ) -> [[i32; 8]; C] {
        unsafe { Self::word_tiles::<1, C, N>(w, 0, a, signed)[0] }
    }
}

// SAFETY: uses no instruction beyond the build's target.
unsafe impl WordDot for Portable {
    // Codes without sign are below 128: as signed bytes they are the same.
    #[inline(never)]
    unsafe fn dot(acc: [i32; 8], w: [i32; 8], a: i32, _: bool) -> [i32; 8] {
        let a = i32x8::splat(a);
        let (low, high) = (pairs(a, 0), pairs(a, 1));
        let w = i32x8::new(w);
        (i32x8::new(acc) + pairs(w, 0).dot(low) + pairs(w, 1).dot(high)).to_array()
    }
}
