//! Integer kernels' operations in NEON. Codes are in registers as [`super::dot`] says.

#![allow(clippy::undocumented_unsafe_blocks, reason = "each block is the promise of Simd's caller")]

use std::arch::aarch64::*;

use super::dot::{Dot, transpose};
use super::lanes::{Neon, widen};
use crate::simd::{Rows, Simd, WORDS};

// SAFETY: the methods use NEON and what `D` needs, which the type's documentation names.
unsafe impl<D: Dot> Simd for Neon<D> {
    type I = int32x4_t;
    type F = float32x4_t;

    const ROWS: usize = 4;
    const UNSIGNED: bool = false;
    const CENTRED: bool = true;
    const COLUMNS: usize = 8;

    #[inline(always)]
    unsafe fn splat(x: f32) -> float32x4_t {
        unsafe { vdupq_n_f32(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> float32x4_t {
        unsafe { vld1q_f32(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: float32x4_t) {
        unsafe { vst1q_f32(p, x) }
    }
    #[inline(always)]
    unsafe fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vmulq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        unsafe { vfmaq_f32(c, a, b) }
    }
    #[inline(always)]
    unsafe fn splat_i(x: i32) -> int32x4_t {
        unsafe { vdupq_n_s32(x) }
    }
    #[inline(always)]
    unsafe fn load_i(p: *const i32) -> int32x4_t {
        unsafe { vld1q_s32(p) }
    }
    #[inline(always)]
    unsafe fn store_i(p: *mut i32, x: int32x4_t) {
        unsafe { vst1q_s32(p, x) }
    }
    #[inline(always)]
    unsafe fn add_i(a: int32x4_t, b: int32x4_t) -> int32x4_t {
        unsafe { vaddq_s32(a, b) }
    }
    #[inline(always)]
    unsafe fn sub_i(a: int32x4_t, b: int32x4_t) -> int32x4_t {
        unsafe { vsubq_s32(a, b) }
    }
    #[inline(always)]
    unsafe fn mul_i(a: int32x4_t, b: int32x4_t) -> int32x4_t {
        unsafe { vmulq_s32(a, b) }
    }
    #[inline(always)]
    unsafe fn and_i(a: int32x4_t, b: int32x4_t) -> int32x4_t {
        unsafe { vandq_s32(a, b) }
    }
    #[inline(always)]
    unsafe fn xor_i(a: int32x4_t, b: int32x4_t) -> int32x4_t {
        unsafe { veorq_s32(a, b) }
    }
    #[inline(always)]
    unsafe fn or_i(a: int32x4_t, b: int32x4_t) -> int32x4_t {
        unsafe { vorrq_s32(a, b) }
    }
    #[inline(always)]
    unsafe fn shr_i(a: int32x4_t, n: i32) -> int32x4_t {
        unsafe {
            let a = vreinterpretq_u32_s32(a);
            vreinterpretq_s32_u32(vshlq_u32(a, vdupq_n_s32(-n)))
        }
    }
    #[inline(always)]
    unsafe fn shl_i(a: int32x4_t, n: i32) -> int32x4_t {
        unsafe { vshlq_s32(a, vdupq_n_s32(n)) }
    }
    #[inline(always)]
    unsafe fn top_byte(a: int32x4_t) -> int32x4_t {
        unsafe { vshrq_n_s32::<24>(a) }
    }
    #[inline(always)]
    unsafe fn lookup(table: &[i8; 16], b: int32x4_t) -> int32x4_t {
        unsafe {
            let table = vld1q_s8(table.as_ptr());
            vreinterpretq_s32_s8(vqtbl1q_s8(table, vreinterpretq_u8_s32(b)))
        }
    }
    #[inline(always)]
    unsafe fn to_f32(a: int32x4_t) -> float32x4_t {
        unsafe { vcvtq_f32_s32(a) }
    }
    #[inline(always)]
    unsafe fn low_f16(a: int32x4_t) -> float32x4_t {
        unsafe { widen(vmovn_u32(vreinterpretq_u32_s32(a))) }
    }
    #[inline(always)]
    unsafe fn gather_words(rows: Rows, offset: usize) -> [int32x4_t; 4] {
        unsafe { transpose(Self::load_codes(rows, offset)) }
    }
    #[inline(always)]
    unsafe fn gather_word(rows: Rows, offset: usize) -> int32x4_t {
        unsafe {
            let word = |r: usize| rows.row(r).add(offset).cast::<i32>().read_unaligned();
            let x = vsetq_lane_s32::<1>(word(1), vdupq_n_s32(word(0)));
            vsetq_lane_s32::<3>(word(3), vsetq_lane_s32::<2>(word(2), x))
        }
    }
    #[inline(always)]
    unsafe fn load_codes(rows: Rows, offset: usize) -> [int32x4_t; 4] {
        unsafe {
            let row = |r: usize| vreinterpretq_s32_u8(vld1q_u8(rows.row(r).add(offset)));
            [row(0), row(1), row(2), row(3)]
        }
    }
    #[inline(always)]
    unsafe fn high_bits(a: int32x4_t, at: i32) -> int32x4_t {
        unsafe {
            let a = vreinterpretq_u8_s32(a);
            vreinterpretq_s32_u8(vshlq_u8(a, vdupq_n_s8(-at as i8)))
        }
    }
    #[inline(always)]
    unsafe fn load_bits(rows: Rows) -> [int32x4_t; WORDS] {
        unsafe {
            let mut codes = [vdupq_n_s32(0); WORDS];
            let bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
            for r in 0..4 {
                let word = rows.row(r).cast::<u32>().read_unaligned();
                for half in 0..2 {
                    let byte = |i: usize| vdup_n_u8((word >> (16 * half + 8 * i)) as u8);
                    let set = vtstq_u8(vcombine_u8(byte(0), byte(1)), bit);
                    let code = vandq_u8(set, vdupq_n_u8(2));
                    codes[4 * half + r] = vreinterpretq_s32_u8(code);
                }
            }
            codes
        }
    }
    #[inline(always)]
    unsafe fn load_pairs(rows: Rows) -> [int32x4_t; WORDS] {
        unsafe {
            let mut codes = [vdupq_n_s32(0); WORDS];
            // Each byte four times, and by how much its codes are shifted.
            let bytes =
                vcombine_u8(vcreate_u8(0x0101_0101_0000_0000), vcreate_u8(0x0303_0303_0202_0202));
            let by = vreinterpretq_s8_u32(vdupq_n_u32(0xfafc_fe00));
            for r in 0..4 {
                for half in 0..2 {
                    let word = rows.row(r).add(4 * half).cast::<u32>().read_unaligned();
                    let four = vqtbl1q_u8(vreinterpretq_u8_u32(vdupq_n_u32(word)), bytes);
                    let code = vandq_u8(vshlq_u8(four, by), vdupq_n_u8(3));
                    codes[4 * half + r] = vreinterpretq_s32_u8(code);
                }
            }
            codes
        }
    }
    #[inline(always)]
    unsafe fn load_nibbles(rows: Rows) -> [int32x4_t; 4] {
        unsafe {
            let mut codes = [vdupq_n_s32(0); 4];
            for r in 0..4 {
                let bytes = vld1_u8(rows.row(r));
                let low = vand_u8(bytes, vdup_n_u8(15));
                let code = vcombine_u8(low, vshr_n_u8::<4>(bytes));
                codes[r] = vreinterpretq_s32_u8(code);
            }
            codes
        }
    }
    #[inline(always)]
    unsafe fn add_fifth_bits(
        low: [int32x4_t; WORDS],
        rows: Rows,
        offset: usize,
    ) -> [int32x4_t; WORDS] {
        unsafe {
            // The byte of each code's bit, and the bit in it.
            let byte = vcombine_u8(vdup_n_u8(0), vdup_n_u8(1));
            let bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
            let mut codes = low;
            for r in 0..4 {
                let word = rows.row(r).add(offset).cast::<u32>().read_unaligned();
                let word = vreinterpretq_u8_u32(vdupq_n_u32(word));
                for i in 0..2 {
                    let bytes = vqtbl1q_u8(word, vaddq_u8(byte, vdupq_n_u8(2 * i as u8)));
                    let set = vandq_u8(vtstq_u8(bytes, bit), vdupq_n_u8(16));
                    codes[4 * i + r] = vorrq_s32(codes[4 * i + r], vreinterpretq_s32_u8(set));
                }
            }
            codes
        }
    }
    // Codes without sign are below 128: as signed bytes they are the same.
    #[inline(always)]
    unsafe fn dots<const N: usize>(
        w: &[int32x4_t; N],
        a: *const u8,
        _: bool,
        top: i32,
    ) -> int32x4_t {
        unsafe {
            let mut bytes = [vdupq_n_s8(0); N];
            for i in 0..N {
                bytes[i] = vreinterpretq_s8_s32(w[i]);
            }
            D::dots(&bytes, a, top)
        }
    }
    #[inline(always)]
    unsafe fn write_signed<const N: usize, const G: usize>(
        out: &mut [i8; 32],
        grid: [&[i8; N]; G],
        signs: u32,
    ) {
        const { assert!(N * G == 32 && (N == 4 || N == 8)) };
        unsafe {
            let bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
            let eight = |i: usize| {
                if N == 8 {
                    vld1_s8(grid[i].as_ptr())
                } else {
                    let word = |i: usize| grid[i].as_ptr().cast::<i32>().read_unaligned();
                    let two = vset_lane_s32::<1>(word(2 * i + 1), vdup_n_s32(word(2 * i)));
                    vreinterpret_s8_s32(two)
                }
            };
            for half in 0..2 {
                let codes = vcombine_s8(eight(2 * half), eight(2 * half + 1));
                let byte = |i: usize| vdup_n_u8((signs >> (16 * half + 8 * i)) as u8);
                let minus = vtstq_u8(vcombine_u8(byte(0), byte(1)), bit);
                let minus = vreinterpretq_s8_u8(minus);
                vst1q_s8(out.as_mut_ptr().add(16 * half), vsubq_s8(veorq_s8(codes, minus), minus));
            }
        }
    }
    #[inline(always)]
    unsafe fn tile<const C: usize, const N: usize>(
        w: *const u8,
        a: *const u8,
        _: bool,
        top: i32,
    ) -> [int32x4_t; C] {
        unsafe { D::tile::<C, N>(w, a, top) }
    }
    #[inline(always)]
    unsafe fn store_panel(p: *mut u8, w: &[int32x4_t; WORDS], zero: i32) {
        unsafe {
            for half in [0, 4] {
                let code = |i| vsubq_s8(vreinterpretq_s8_s32(w[half + i]), vdupq_n_s8(zero as i8));
                let panel = D::panel([code(0), code(1), code(2), code(3)]);
                for i in 0..4 {
                    vst1q_s8(p.add(16 * (half + i)).cast(), panel[i]);
                }
            }
        }
    }
}
