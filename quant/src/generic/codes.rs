//! How the weights of a format are unpacked into registers.

#![allow(clippy::undocumented_unsafe_blocks, reason = "each block is its caller's promise")]
#![allow(clippy::missing_safety_doc, reason = "the trait's Safety section covers its methods")]

use std::mem::offset_of;

use crate::formats::iq4::VALUES as IQ4;
use crate::formats::k_scales::{unpack_scale_min, unpack_scales_q3};
use crate::formats::mxfp4::VALUES as FP4;
use crate::formats::*;
use crate::simd::Simd;

/// The scales and minimums of a unit of 256, for each 16 weights.
#[derive(Clone, Copy, Default)]
pub struct Scales {
    /// Factor of each 16 codes.
    pub scale: [i16; 16],
    /// Minimum of each 16 codes.
    pub min: [i16; 16],
}

/// A format whose units of 32 or 256 weights are unpacked as codes without sign, of which
/// [`ZERO`](Self::ZERO) stands for 0, or as signed bytes.
///
/// # Safety
/// The methods are to be called where the CPU has the instructions of `S`, with a pointer to a
/// block.
pub unsafe trait Codes: IntBlock {
    /// What is to be taken from a code; 0 for signed ones.
    const ZERO: i32;
    /// The codes are signed.
    const SIGNED: bool;

    /// Codes `32 j .. 32 j + 32` of the unit at `p`.
    unsafe fn codes<S: Simd>(p: *const u8, j: usize) -> S::B;
    /// The scales of a unit of 256; units of 32 have none.
    unsafe fn scales(_: *const u8) -> Scales {
        Scales::default()
    }
    /// The scales `d` of 16 units.
    unsafe fn d<S: Simd>(p: [*const u8; 16]) -> S::V;
    /// The scales of the minimums of 16 units, with their sign.
    unsafe fn dmin<S: Simd>(p: [*const u8; 16]) -> S::V {
        unsafe { Self::d::<S>(p) }
    }
}

#[inline(always)]
unsafe fn f16_at<S: Simd>(p: [*const u8; 16], offset: usize) -> S::V {
    unsafe { S::gather_f16(p.map(|p| p.add(offset))) }
}

#[inline(always)]
unsafe fn minus_f16_at<S: Simd>(p: [*const u8; 16], offset: usize) -> S::V {
    unsafe { S::mul(f16_at::<S>(p, offset), S::splat(-1.0)) }
}

macro_rules! f16_d {
    ($block:ty) => {
        #[inline(always)]
        unsafe fn d<S: Simd>(p: [*const u8; 16]) -> S::V {
            unsafe { f16_at::<S>(p, offset_of!($block, d)) }
        }
    };
}

unsafe impl Codes for BlockQ4_0 {
    const ZERO: i32 = 8;
    const SIGNED: bool = false;
    f16_d!(Self);
    #[inline(always)]
    unsafe fn codes<S: Simd>(p: *const u8, _: usize) -> S::B {
        unsafe { S::nibbles(p.add(offset_of!(Self, qs))) }
    }
}

unsafe impl Codes for BlockQ4_1 {
    const ZERO: i32 = 0;
    const SIGNED: bool = false;
    f16_d!(Self);
    #[inline(always)]
    unsafe fn dmin<S: Simd>(p: [*const u8; 16]) -> S::V {
        unsafe { f16_at::<S>(p, offset_of!(Self, m)) }
    }
    #[inline(always)]
    unsafe fn codes<S: Simd>(p: *const u8, _: usize) -> S::B {
        unsafe { S::nibbles(p.add(offset_of!(Self, qs))) }
    }
}

#[inline(always)]
unsafe fn five_bits<S: Simd>(qs: *const u8, qh: *const u8) -> S::B {
    unsafe {
        let high = u32::from_le(qh.cast::<u32>().read_unaligned());
        S::or(S::nibbles(qs), S::bits(high, 0x10))
    }
}

unsafe impl Codes for BlockQ5_0 {
    const ZERO: i32 = 16;
    const SIGNED: bool = false;
    f16_d!(Self);
    #[inline(always)]
    unsafe fn codes<S: Simd>(p: *const u8, _: usize) -> S::B {
        unsafe { five_bits::<S>(p.add(offset_of!(Self, qs)), p.add(offset_of!(Self, qh))) }
    }
}

unsafe impl Codes for BlockQ5_1 {
    const ZERO: i32 = 0;
    const SIGNED: bool = false;
    f16_d!(Self);
    #[inline(always)]
    unsafe fn dmin<S: Simd>(p: [*const u8; 16]) -> S::V {
        unsafe { f16_at::<S>(p, offset_of!(Self, m)) }
    }
    #[inline(always)]
    unsafe fn codes<S: Simd>(p: *const u8, _: usize) -> S::B {
        unsafe { five_bits::<S>(p.add(offset_of!(Self, qs)), p.add(offset_of!(Self, qh))) }
    }
}

unsafe impl Codes for BlockQ8_0 {
    const ZERO: i32 = 0;
    const SIGNED: bool = true;
    f16_d!(Self);
    #[inline(always)]
    unsafe fn codes<S: Simd>(p: *const u8, _: usize) -> S::B {
        unsafe { S::load_b(p.add(offset_of!(Self, qs))) }
    }
}

unsafe impl Codes for BlockIQ4NL {
    const ZERO: i32 = 0;
    const SIGNED: bool = true;
    f16_d!(Self);
    #[inline(always)]
    unsafe fn codes<S: Simd>(p: *const u8, _: usize) -> S::B {
        unsafe { S::lookup(&IQ4, S::nibbles(p.add(offset_of!(Self, qs)))) }
    }
}

unsafe impl Codes for BlockMXFP4 {
    const ZERO: i32 = 0;
    const SIGNED: bool = true;
    #[inline(always)]
    unsafe fn d<S: Simd>(p: [*const u8; 16]) -> S::V {
        let d = p.map(|p| unsafe { (*p.cast::<Self>()).d() });
        unsafe { S::load(d.as_ptr()) }
    }
    #[inline(always)]
    unsafe fn codes<S: Simd>(p: *const u8, _: usize) -> S::B {
        unsafe { S::lookup(&FP4, S::nibbles(p.add(offset_of!(Self, qs)))) }
    }
}

/// Bits `2 j` and `2 j + 1` of 32 bytes.
#[inline(always)]
unsafe fn two_bits<S: Simd>(p: *const u8, j: usize) -> S::B {
    unsafe { S::and(S::shr(S::load_b(p), 2 * j as i32), S::splat_b(3)) }
}

/// The low or high nibbles of 32 bytes.
#[inline(always)]
unsafe fn nibbles_of<S: Simd>(p: *const u8, high: usize) -> S::B {
    unsafe { S::and(S::shr(S::load_b(p), 4 * high as i32), S::splat_b(15)) }
}

/// Bit `j` of 32 bytes, moved to bit `to`.
#[inline(always)]
unsafe fn bit_of<S: Simd>(p: *const u8, j: usize, to: i32) -> S::B {
    unsafe { S::shl(S::and(S::shr(S::load_b(p), j as i32), S::splat_b(1)), to) }
}

/// 8 values for 32 weights each, as 16 for 16 weights each.
#[inline(always)]
fn twice(x: [u8; 8]) -> [i16; 16] {
    std::array::from_fn(|i| i16::from(x[i / 2]))
}

unsafe impl Codes for BlockQ2K {
    const ZERO: i32 = 0;
    const SIGNED: bool = false;
    f16_d!(Self);
    #[inline(always)]
    unsafe fn dmin<S: Simd>(p: [*const u8; 16]) -> S::V {
        unsafe { minus_f16_at::<S>(p, offset_of!(Self, dmin)) }
    }
    #[inline(always)]
    unsafe fn codes<S: Simd>(p: *const u8, j: usize) -> S::B {
        unsafe { two_bits::<S>(p.add(offset_of!(Self, qs) + 32 * (j / 4)), j % 4) }
    }
    #[inline(always)]
    unsafe fn scales(p: *const u8) -> Scales {
        let scales = unsafe { (*p.cast::<Self>()).scales };
        Scales { scale: scales.map(|s| i16::from(s & 15)), min: scales.map(|s| i16::from(s >> 4)) }
    }
}

unsafe impl Codes for BlockQ3K {
    const ZERO: i32 = 4;
    const SIGNED: bool = false;
    f16_d!(Self);
    #[inline(always)]
    unsafe fn codes<S: Simd>(p: *const u8, j: usize) -> S::B {
        unsafe {
            let low = two_bits::<S>(p.add(offset_of!(Self, qs) + 32 * (j / 4)), j % 4);
            S::or(low, bit_of::<S>(p.add(offset_of!(Self, hmask)), j, 2))
        }
    }
    #[inline(always)]
    unsafe fn scales(p: *const u8) -> Scales {
        let scales = unpack_scales_q3(unsafe { &(*p.cast::<Self>()).scales });
        Scales { scale: scales.map(|s| i16::from(s) - 32), ..Scales::default() }
    }
}

unsafe impl Codes for BlockQ4K {
    const ZERO: i32 = 0;
    const SIGNED: bool = false;
    f16_d!(Self);
    #[inline(always)]
    unsafe fn dmin<S: Simd>(p: [*const u8; 16]) -> S::V {
        unsafe { minus_f16_at::<S>(p, offset_of!(Self, dmin)) }
    }
    #[inline(always)]
    unsafe fn codes<S: Simd>(p: *const u8, j: usize) -> S::B {
        unsafe { nibbles_of::<S>(p.add(offset_of!(Self, qs) + 32 * (j / 2)), j % 2) }
    }
    #[inline(always)]
    unsafe fn scales(p: *const u8) -> Scales {
        let (scale, min) = unpack_scale_min(unsafe { &(*p.cast::<Self>()).scales });
        Scales { scale: twice(scale), min: twice(min) }
    }
}

unsafe impl Codes for BlockQ5K {
    const ZERO: i32 = 0;
    const SIGNED: bool = false;
    f16_d!(Self);
    #[inline(always)]
    unsafe fn dmin<S: Simd>(p: [*const u8; 16]) -> S::V {
        unsafe { minus_f16_at::<S>(p, offset_of!(Self, dmin)) }
    }
    #[inline(always)]
    unsafe fn codes<S: Simd>(p: *const u8, j: usize) -> S::B {
        unsafe {
            let low = nibbles_of::<S>(p.add(offset_of!(Self, qs) + 32 * (j / 2)), j % 2);
            S::or(low, bit_of::<S>(p.add(offset_of!(Self, qh)), j, 4))
        }
    }
    #[inline(always)]
    unsafe fn scales(p: *const u8) -> Scales {
        let (scale, min) = unpack_scale_min(unsafe { &(*p.cast::<Self>()).scales });
        Scales { scale: twice(scale), min: twice(min) }
    }
}

unsafe impl Codes for BlockQ6K {
    const ZERO: i32 = 32;
    const SIGNED: bool = false;
    f16_d!(Self);
    #[inline(always)]
    unsafe fn codes<S: Simd>(p: *const u8, j: usize) -> S::B {
        unsafe {
            let (n, j) = (j / 4, j % 4);
            let ql = p.add(offset_of!(Self, ql) + 64 * n + 32 * (j % 2));
            let low = nibbles_of::<S>(ql, j / 2);
            let high = two_bits::<S>(p.add(offset_of!(Self, qh) + 32 * n), j);
            S::or(low, S::shl(high, 4))
        }
    }
    #[inline(always)]
    unsafe fn scales(p: *const u8) -> Scales {
        let scales = unsafe { (*p.cast::<Self>()).scales };
        Scales { scale: scales.map(i16::from), ..Scales::default() }
    }
}

unsafe impl Codes for BlockIQ4XS {
    const ZERO: i32 = 0;
    const SIGNED: bool = true;
    f16_d!(Self);
    #[inline(always)]
    unsafe fn codes<S: Simd>(p: *const u8, j: usize) -> S::B {
        unsafe { S::lookup(&IQ4, S::nibbles(p.add(offset_of!(Self, qs) + 16 * j))) }
    }
    #[inline(always)]
    unsafe fn scales(p: *const u8) -> Scales {
        let scales = unsafe { (*p.cast::<Self>()).scales() };
        Scales { scale: std::array::from_fn(|i| i16::from(scales[i / 2])), ..Scales::default() }
    }
}
