//! How the weights of a format are unpacked into registers.

#![allow(clippy::undocumented_unsafe_blocks, reason = "each block is its caller's promise")]
#![allow(clippy::missing_safety_doc, reason = "the trait's Safety section covers its methods")]

use std::mem::offset_of;

use super::source::{Params, Units};
use crate::formats::iq4::VALUES as IQ4;
use crate::formats::mxfp4::VALUES as FP4;
use crate::formats::*;
use crate::simd::Simd;

/// A format whose units of 32 or 256 weights are unpacked as codes without sign, of which
/// [`ZERO`](Self::ZERO) stands for 0, or as signed bytes.
///
/// # Safety
/// The methods are to be called where the CPU has the instructions of `S`, with pointers to
/// blocks.
pub unsafe trait Codes: IntBlock {
    /// What is to be taken from a code; 0 for signed ones.
    const ZERO: i32;
    /// The codes are signed.
    const SIGNED: bool;
    /// The largest code without sign.
    const TOP: i32 = 127;

    /// Codes `32 j .. 32 j + 32` of the unit at `p`.
    unsafe fn codes<S: Simd>(p: *const u8, j: usize) -> S::B;
    /// The scales of 16 units.
    unsafe fn params<S: Simd>(p: &Units) -> Params<S>;
}

#[inline(always)]
unsafe fn f16_at<S: Simd>(p: &Units, offset: usize) -> S::V {
    unsafe { S::gather_f16(p.map(|p| p.add(offset))) }
}

#[inline(always)]
unsafe fn minus_f16_at<S: Simd>(p: &Units, offset: usize) -> S::V {
    unsafe { S::mul(f16_at::<S>(p, offset), S::splat(-1.0)) }
}

/// `params` of a unit of 32: a half-precision `d`, and a minimum.
macro_rules! f16_d {
    ($block:ty $(, $min:ident)?) => {
        #[inline(always)]
        unsafe fn params<S: Simd>(p: &Units) -> Params<S> {
            unsafe {
                Params {
                    d: f16_at::<S>(p, offset_of!($block, d)),
                    $(dmin: f16_at::<S>(p, offset_of!($block, $min)),)?
                    ..Params::zero()
                }
            }
        }
    };
}

/// Bits `at .. at + n` of each.
#[inline(always)]
unsafe fn bits_of<S: Simd>(x: S::I, at: i32, n: i32) -> S::I {
    unsafe { S::and_i(S::shr_i(x, at), S::splat_i((1 << n) - 1)) }
}

/// `low`, and above its 4 bits `high`; minus `less`.
#[inline(always)]
unsafe fn six_bits<S: Simd>(low: S::I, high: S::I, less: i32) -> S::I {
    unsafe { S::add_i(S::add_i(low, S::shl_i(high, 4)), S::splat_i(-less)) }
}

/// `params` of Q4_K and Q5_K, which begin with `d`, `dmin` and 12 bytes of 6-bit scales and
/// minimums.
macro_rules! six_bit_params {
    ($block:ty) => {
        #[inline(always)]
        unsafe fn params<S: Simd>(p: &Units) -> Params<S> {
            const { assert!(offset_of!($block, d) == 0 && offset_of!($block, scales) == 4) };
            unsafe {
                let [d, a, b, c] = S::gather_words(*p);
                let mut params = Params::zero();
                for j in 0..4 {
                    let at = 8 * j as i32;
                    params.scale[j] = bits_of::<S>(a, at, 6);
                    params.min[j] = S::to_f32(bits_of::<S>(b, at, 6));
                    let (low, high) = (bits_of::<S>(c, at, 4), bits_of::<S>(a, at + 6, 2));
                    params.scale[4 + j] = six_bits::<S>(low, high, 0);
                    let (low, high) = (bits_of::<S>(c, at + 4, 4), bits_of::<S>(b, at + 6, 2));
                    params.min[4 + j] = S::to_f32(six_bits::<S>(low, high, 0));
                }
                params.d = S::low_f16(d);
                params.dmin = S::mul(S::low_f16(S::shr_i(d, 16)), S::splat(-1.0));
                params
            }
        }
    };
}

unsafe impl Codes for BlockQ4_0 {
    const ZERO: i32 = 8;
    const SIGNED: bool = false;
    const TOP: i32 = 15;
    f16_d!(Self);
    #[inline(always)]
    unsafe fn codes<S: Simd>(p: *const u8, _: usize) -> S::B {
        unsafe { S::nibbles(p.add(offset_of!(Self, qs))) }
    }
}

unsafe impl Codes for BlockQ4_1 {
    const ZERO: i32 = 0;
    const SIGNED: bool = false;
    const TOP: i32 = 15;
    f16_d!(Self, m);
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
    const TOP: i32 = 31;
    f16_d!(Self);
    #[inline(always)]
    unsafe fn codes<S: Simd>(p: *const u8, _: usize) -> S::B {
        unsafe { five_bits::<S>(p.add(offset_of!(Self, qs)), p.add(offset_of!(Self, qh))) }
    }
}

unsafe impl Codes for BlockQ5_1 {
    const ZERO: i32 = 0;
    const SIGNED: bool = false;
    const TOP: i32 = 31;
    f16_d!(Self, m);
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
    unsafe fn params<S: Simd>(p: &Units) -> Params<S> {
        unsafe {
            let d = p.map(|p| (*p.cast::<Self>()).d());
            Params { d: S::load(d.as_ptr()), ..Params::zero() }
        }
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

unsafe impl Codes for BlockQ2K {
    const ZERO: i32 = 0;
    const SIGNED: bool = false;
    const TOP: i32 = 3;
    #[inline(always)]
    unsafe fn params<S: Simd>(p: &Units) -> Params<S> {
        unsafe {
            let words = S::gather_words(p.map(|p| p.add(offset_of!(Self, scales))));
            let mut params = Params::zero();
            for j in 0..16 {
                let at = 8 * (j % 4) as i32;
                params.scale[j] = bits_of::<S>(words[j / 4], at, 4);
                params.min[j] = S::to_f32(bits_of::<S>(words[j / 4], at + 4, 4));
            }
            params.d = f16_at::<S>(p, offset_of!(Self, d));
            params.dmin = minus_f16_at::<S>(p, offset_of!(Self, dmin));
            params
        }
    }
    #[inline(always)]
    unsafe fn codes<S: Simd>(p: *const u8, j: usize) -> S::B {
        unsafe { two_bits::<S>(p.add(offset_of!(Self, qs) + 32 * (j / 4)), j % 4) }
    }
}

unsafe impl Codes for BlockQ3K {
    const ZERO: i32 = 4;
    const SIGNED: bool = false;
    const TOP: i32 = 7;
    #[inline(always)]
    unsafe fn params<S: Simd>(p: &Units) -> Params<S> {
        unsafe {
            // The block ends with the scales and `d`: two bytes before them make it four words.
            let words = S::gather_words(p.map(|p| p.add(offset_of!(Self, scales) - 2)));
            let join = |i: usize| S::or_i(S::shr_i(words[i], 16), S::shl_i(words[i + 1], 16));
            let low = [join(0), join(1)];
            let high = join(2);
            let mut params = Params::zero();
            for j in 0..16 {
                let (byte, half) = (8 * (j % 4) as i32, 4 * (j / 8) as i32);
                let low = bits_of::<S>(low[j % 8 / 4], byte + half, 4);
                let high = bits_of::<S>(high, byte + 2 * (j / 4) as i32, 2);
                params.scale[j] = six_bits::<S>(low, high, 32);
            }
            params.d = S::low_f16(S::shr_i(words[3], 16));
            params
        }
    }
    #[inline(always)]
    unsafe fn codes<S: Simd>(p: *const u8, j: usize) -> S::B {
        unsafe {
            let low = two_bits::<S>(p.add(offset_of!(Self, qs) + 32 * (j / 4)), j % 4);
            S::or(low, bit_of::<S>(p.add(offset_of!(Self, hmask)), j, 2))
        }
    }
}

unsafe impl Codes for BlockQ4K {
    const ZERO: i32 = 0;
    const SIGNED: bool = false;
    const TOP: i32 = 15;
    six_bit_params!(Self);
    #[inline(always)]
    unsafe fn codes<S: Simd>(p: *const u8, j: usize) -> S::B {
        unsafe { nibbles_of::<S>(p.add(offset_of!(Self, qs) + 32 * (j / 2)), j % 2) }
    }
}

unsafe impl Codes for BlockQ5K {
    const ZERO: i32 = 0;
    const SIGNED: bool = false;
    const TOP: i32 = 31;
    six_bit_params!(Self);
    #[inline(always)]
    unsafe fn codes<S: Simd>(p: *const u8, j: usize) -> S::B {
        unsafe {
            let low = nibbles_of::<S>(p.add(offset_of!(Self, qs) + 32 * (j / 2)), j % 2);
            S::or(low, bit_of::<S>(p.add(offset_of!(Self, qh)), j, 4))
        }
    }
}

unsafe impl Codes for BlockQ6K {
    const ZERO: i32 = 32;
    const SIGNED: bool = false;
    const TOP: i32 = 63;
    #[inline(always)]
    unsafe fn params<S: Simd>(p: &Units) -> Params<S> {
        unsafe {
            let words = S::gather_words(p.map(|p| p.add(offset_of!(Self, scales))));
            let mut params = Params::zero();
            for j in 0..16 {
                params.scale[j] = S::top_byte(S::shl_i(words[j / 4], 24 - 8 * (j % 4) as i32));
            }
            params.d = f16_at::<S>(p, offset_of!(Self, d));
            params
        }
    }
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
}

unsafe impl Codes for BlockIQ4XS {
    const ZERO: i32 = 0;
    const SIGNED: bool = true;
    #[inline(always)]
    unsafe fn params<S: Simd>(p: &Units) -> Params<S> {
        unsafe {
            const { assert!(offset_of!(Self, d) == 0 && offset_of!(Self, scales_l) == 4) };
            // `d` and the high bits of the scales, then their low bits.
            let [first, low, ..] = S::gather_words(*p);
            let mut params = Params::zero();
            for j in 0..8 {
                let low = bits_of::<S>(low, 4 * j as i32, 4);
                let high = bits_of::<S>(first, 16 + 2 * j as i32, 2);
                params.scale[j] = six_bits::<S>(low, high, 32);
            }
            params.d = S::low_f16(first);
            params
        }
    }
    #[inline(always)]
    unsafe fn codes<S: Simd>(p: *const u8, j: usize) -> S::B {
        unsafe { S::lookup(&IQ4, S::nibbles(p.add(offset_of!(Self, qs) + 16 * j))) }
    }
}
