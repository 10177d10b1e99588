//! Any CPU: integer work through the `wide` crate, which uses what the build's target has (SSE2 on
//! plain x86-64), floats as arrays. `wide`'s own fused multiply-add is not fused in such a build
//! and is never used.

#![allow(clippy::undocumented_unsafe_blocks, reason = "each block is the promise of Simd's caller")]

use wide::{i8x16, i16x16, i32x8};

use crate::features::CpuFeatures;
use crate::generic::instantiate_gemm;
use crate::lanes::Portable;
use crate::simd::Simd;
use crate::table::Level;

/// The level above scalar.
pub const LEVEL: Level =
    Level { name: "wide", needs: CpuFeatures::NONE, install: gemm_wide::install };

instantiate_gemm!(gemm_wide, super::Portable,);

type Bytes = [u8; 32];

#[inline(always)]
fn each(a: Bytes, b: Bytes, f: impl Fn(u8, u8) -> u8) -> Bytes {
    std::array::from_fn(|i| f(a[i], b[i]))
}

/// Half `h` of 32 signed bytes, widened.
#[inline(always)]
fn half(x: Bytes, h: usize) -> i16x16 {
    i16x16::from_i8x16(i8x16::new(std::array::from_fn(|i| x[16 * h + i] as i8)))
}

// SAFETY: uses no instruction beyond the build's target.
unsafe impl Simd for Portable {
    type B = Bytes;
    type S = [i32x8; 2];
    type W = [i8; 64];
    type I = [i32; 16];

    const PANEL_UNSIGNED: bool = false;
    const COLUMNS: usize = 2;

    #[inline(always)]
    unsafe fn load_b(p: *const u8) -> Bytes {
        unsafe { p.cast::<Bytes>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_b(p: *mut u8, b: Bytes) {
        unsafe { p.cast::<Bytes>().write_unaligned(b) }
    }
    #[inline(always)]
    unsafe fn splat_b(x: u8) -> Bytes {
        [x; 32]
    }
    #[inline(always)]
    unsafe fn and(a: Bytes, b: Bytes) -> Bytes {
        each(a, b, |a, b| a & b)
    }
    #[inline(always)]
    unsafe fn or(a: Bytes, b: Bytes) -> Bytes {
        each(a, b, |a, b| a | b)
    }
    #[inline(always)]
    unsafe fn flip_sign(a: Bytes) -> Bytes {
        a.map(|a| a ^ 0x80)
    }
    #[inline(always)]
    unsafe fn shr(a: Bytes, n: i32) -> Bytes {
        a.map(|a| a >> n)
    }
    #[inline(always)]
    unsafe fn shl(a: Bytes, n: i32) -> Bytes {
        a.map(|a| a << n)
    }
    #[inline(always)]
    unsafe fn nibbles(p: *const u8) -> Bytes {
        let x = unsafe { p.cast::<[u8; 16]>().read_unaligned() };
        std::array::from_fn(|i| if i < 16 { x[i] & 15 } else { x[i - 16] >> 4 })
    }
    #[inline(always)]
    unsafe fn bits(bits: u32, value: u8) -> Bytes {
        std::array::from_fn(|i| (bits >> i & 1) as u8 * value)
    }
    #[inline(always)]
    unsafe fn lookup(table: &[i8; 16], b: Bytes) -> Bytes {
        b.map(|b| table[usize::from(b & 15)] as u8)
    }

    #[inline(always)]
    unsafe fn zero() -> [i32x8; 2] {
        [i32x8::ZERO; 2]
    }
    // Codes are below 128: as signed bytes they are the same.
    #[inline(always)]
    unsafe fn dot_u(w: Bytes, a: Bytes) -> [i32x8; 2] {
        unsafe { Self::dot_s(w, a) }
    }
    #[inline(always)]
    unsafe fn dot_s(w: Bytes, a: Bytes) -> [i32x8; 2] {
        [half(w, 0).dot(half(a, 0)), half(w, 1).dot(half(a, 1))]
    }
    #[inline(always)]
    unsafe fn reduce(rows: [[i32x8; 2]; 16]) -> [i32; 16] {
        rows.map(|row| (row[0] + row[1]).reduce_add())
    }
    #[inline(always)]
    unsafe fn reduce_halves(rows: [[i32x8; 2]; 16]) -> [[i32; 16]; 2] {
        [rows.map(|row| row[0].reduce_add()), rows.map(|row| row[1].reduce_add())]
    }
    #[inline(always)]
    unsafe fn gather_f16(p: [*const u8; 16]) -> [f32; 16] {
        p.map(|p| crate::float::f16_to_f32(unsafe { p.cast::<u16>().read_unaligned() }))
    }

    #[inline(always)]
    unsafe fn load_w(p: *const u8) -> [i8; 64] {
        unsafe { p.cast::<[i8; 64]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn dot_w<const SIGNED: bool>(acc: [i32; 16], w: [i8; 64], a: i32) -> [i32; 16] {
        let a = a.to_le_bytes().map(|a| i32::from(a as i8));
        let product = |r: usize, i: usize| i32::from(w[4 * r + i]) * a[i];
        std::array::from_fn(|r| {
            // Exact in kernels; what measures the peak lets it wrap.
            let sum = product(r, 0) + product(r, 1) + product(r, 2) + product(r, 3);
            acc[r].wrapping_add(sum)
        })
    }
    #[inline(always)]
    unsafe fn gather_words(p: [*const u8; 16]) -> [[i32; 16]; 4] {
        let word = |p: *const u8| unsafe { i32::from_le(p.cast::<i32>().read_unaligned()) };
        std::array::from_fn(|i| p.map(|p| word(p.wrapping_add(4 * i))))
    }
    #[inline(always)]
    unsafe fn low_f16(a: [i32; 16]) -> [f32; 16] {
        a.map(|a| crate::float::f16_to_f32(a as u16))
    }
    #[inline(always)]
    unsafe fn splat_i(x: i32) -> [i32; 16] {
        [x; 16]
    }
    #[inline(always)]
    unsafe fn load_i(p: *const i32) -> [i32; 16] {
        unsafe { p.cast::<[i32; 16]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_i(p: *mut i32, x: [i32; 16]) {
        unsafe { p.cast::<[i32; 16]>().write_unaligned(x) }
    }
    #[inline(always)]
    unsafe fn mul_i(a: [i32; 16], b: [i32; 16]) -> [i32; 16] {
        std::array::from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn and_i(a: [i32; 16], b: [i32; 16]) -> [i32; 16] {
        std::array::from_fn(|i| a[i] & b[i])
    }
    #[inline(always)]
    unsafe fn or_i(a: [i32; 16], b: [i32; 16]) -> [i32; 16] {
        std::array::from_fn(|i| a[i] | b[i])
    }
    #[inline(always)]
    unsafe fn shr_i(a: [i32; 16], n: i32) -> [i32; 16] {
        a.map(|a| (a as u32 >> n) as i32)
    }
    #[inline(always)]
    unsafe fn shl_i(a: [i32; 16], n: i32) -> [i32; 16] {
        a.map(|a| a << n)
    }
    #[inline(always)]
    unsafe fn top_byte(a: [i32; 16]) -> [i32; 16] {
        a.map(|a| a >> 24)
    }
    #[inline(always)]
    unsafe fn add_i(a: [i32; 16], b: [i32; 16]) -> [i32; 16] {
        std::array::from_fn(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    unsafe fn to_f32(a: [i32; 16]) -> [f32; 16] {
        a.map(|a| a as f32)
    }
    #[inline(always)]
    unsafe fn prefetch(_: *const u8) {}
}
