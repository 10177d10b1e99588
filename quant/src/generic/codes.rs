//! How the weights of a format are unpacked into registers.

#![allow(clippy::undocumented_unsafe_blocks, reason = "each block is its caller's promise")]
#![allow(clippy::missing_safety_doc, reason = "the trait's Safety section covers its methods")]

use std::mem::offset_of;

use super::source::{Cache, Packed, Params, Words, each};
use crate::formats::iq4::VALUES as IQ4;
use crate::formats::mxfp4::VALUES as FP4;
use crate::formats::*;
use crate::simd::{MAX_ROWS, Rows, Simd, WORDS};

/// A format whose units of 32 or 256 weights are unpacked as codes without sign, of which
/// [`ZERO`](Self::ZERO) stands for 0, or as signed bytes.
///
/// # Safety
/// The methods are to be called where the CPU has the instructions of `S`, with pointers to
/// blocks; where those are [`preceded`](Rows::preceded), [`AROUND`](Self::AROUND) holds, and the 16 bytes
/// before each may be read.
pub unsafe trait Codes: IntBlock {
    /// What is to be taken from a code; 0 for signed ones.
    const ZERO: i32;
    /// The codes are signed.
    const SIGNED: bool;
    /// The largest code without sign.
    const TOP: i32 = 127;
    /// The scales, in 4 bytes or less, are followed by 16 bytes of codes. [`Simd::gather_around`] has both
    /// by one load; [`params`](Self::params) and [`codes`](Self::codes) each call it, and the compiler keeps
    /// the first call's.
    const AROUND: bool = false;

    /// Codes `32 J .. 32 J + 32` of the units, after those before them.
    unsafe fn codes<S: Simd, const J: usize>(p: Rows, cache: &mut Cache<S>) -> Words<S>;
    /// The scales of the units.
    unsafe fn params<S: Simd>(p: Rows) -> Params<S>;
    /// The integer scale of sub-block `j`, in units of 256.
    #[inline(always)]
    unsafe fn scale<S: Simd>(_: &Packed<S>, _: usize) -> S::I {
        // SAFETY: the caller's promise.
        unsafe { S::splat_i(1) }
    }
    /// The integer minimum of sub-block `j`, in units of 256 of formats that have them.
    #[inline(always)]
    unsafe fn min<S: Simd>(_: &Packed<S>, _: usize) -> S::I {
        // SAFETY: the caller's promise.
        unsafe { S::splat_i(0) }
    }
}

/// A format of which a block has several units, of 32 weights or 16, each of the latter multiplied as
/// one half of 32 codes.
///
/// # Safety
/// As for [`Codes`].
pub unsafe trait PartCodes: IntBlock {
    /// As [`Codes::ZERO`].
    const ZERO: i32;
    /// As [`Codes::SIGNED`].
    const SIGNED: bool;
    /// As [`Codes::TOP`].
    const TOP: i32;

    /// The scale of unit `index` of the blocks.
    unsafe fn d<S: Simd>(p: Rows, index: usize) -> S::F;
    /// Its codes.
    unsafe fn codes<S: Simd>(p: Rows, index: usize) -> Words<S>;
}

/// 32 bytes of each row, at `offset` of each.
#[inline(always)]
pub(super) unsafe fn load_32<S: Simd>(p: Rows, offset: usize) -> Words<S> {
    unsafe {
        let [a, b, c, d] = S::load_codes(p, offset);
        let [e, f, g, h] = S::load_codes(p, offset + 16);
        [a, b, c, d, e, f, g, h]
    }
}

/// The half-precision values at `offset` of blocks of `bytes` bytes.
#[inline(always)]
unsafe fn f16_at<S: Simd>(p: Rows, offset: usize, bytes: usize) -> S::F {
    unsafe {
        if offset + 4 <= bytes {
            S::low_f16(S::gather_word(p, offset))
        } else {
            S::low_f16(S::shr_i(S::gather_word(p, offset - 2), 16))
        }
    }
}

/// The first word of each row, by the loads of the first two if the second is needed too: on x86-64
/// those are as many as of one word, and the compiler keeps them for both.
#[inline(always)]
unsafe fn first_word<S: Simd>(p: Rows, second: bool) -> S::I {
    unsafe { if second { S::gather_two(p, 0)[0] } else { S::gather_word(p, 0) } }
}

/// `f` of each row's block.
#[inline(always)]
unsafe fn each_row<S: Simd, B: IntBlock>(p: Rows, f: impl Fn(&B) -> f32) -> S::F {
    unsafe {
        let mut d = [0.0; MAX_ROWS];
        for r in 0..S::ROWS {
            // A block has the alignment of a byte.
            d[r] = f(&*p.row(r).cast::<B>());
        }
        S::load(d.as_ptr())
    }
}

#[inline(always)]
unsafe fn minus<S: Simd>(x: S::F) -> S::F {
    unsafe { S::mul(x, S::splat(-1.0)) }
}

/// Bits `at .. at + n` of each byte, as its lowest.
#[inline(always)]
unsafe fn bytes_bits<S: Simd>(words: &Words<S>, at: usize, n: usize) -> Words<S> {
    let mask = 0x0101_0101 * ((1 << n) - 1);
    each::<S>(*words, |_, w| unsafe {
        if at + n == 8 {
            return S::high_bits(w, at as i32);
        }
        let w = if at == 0 { w } else { S::shr_i(w, at as i32) };
        S::and_i(w, S::splat_i(mask))
    })
}

/// Adds bit `from` of each byte of `high` as bit `to` of the bytes of `low`.
#[inline(always)]
unsafe fn add_bit<S: Simd>(low: Words<S>, high: &Words<S>, from: usize, to: usize) -> Words<S> {
    unsafe { add_bits::<S>(low, high, from, to, 1) }
}

/// Adds bits `from .. from + n` of each byte of `high` as bits `to .. to + n` of the bytes of `low`.
#[inline(always)]
unsafe fn add_bits<S: Simd>(
    low: Words<S>,
    high: &Words<S>,
    from: usize,
    to: usize,
    n: usize,
) -> Words<S> {
    let mask = (0x0101_0101 * ((1 << n) - 1)) << to;
    each::<S>(low, |i, low| unsafe {
        let moved = if from >= to {
            S::shr_i(high[i], (from - to) as i32)
        } else {
            S::shl_i(high[i], (to - from) as i32)
        };
        S::or_i(low, S::and_i(moved, S::splat_i(mask)))
    })
}

/// 32 codes of which 16 bytes hold the low halves first: their low nibbles, then the high ones.
#[inline(always)]
unsafe fn nibbles<S: Simd>(p: Rows, offset: usize) -> Words<S> {
    unsafe {
        let [a, b, c, d] =
            if p.preceded() { S::gather_around(p, offset).1 } else { S::load_codes(p, offset) };
        let mask = S::splat_i(0x0f0f_0f0f);
        let low = |w| S::and_i(w, mask);
        let high = |w| S::high_bits(w, 4);
        [low(a), low(b), low(c), low(d), high(a), high(b), high(c), high(d)]
    }
}

/// `params` of a unit of 32: a half-precision `d`, and a minimum after it.
macro_rules! f16_d {
    ($block:ty) => {
        #[inline(always)]
        unsafe fn params<S: Simd>(p: Rows) -> Params<S> {
            const { assert!(!Self::AROUND || offset_of!($block, qs) == offset_of!($block, d) + 2) };
            unsafe {
                let (d, bytes) = (offset_of!($block, d), size_of::<$block>());
                let d = if p.preceded() {
                    S::low_f16(S::shr_i(S::gather_around(p, d + 2).0, 16))
                } else {
                    f16_at::<S>(p, d, bytes)
                };
                Params { d, ..Params::zero() }
            }
        }
    };
    ($block:ty, m) => {
        #[inline(always)]
        unsafe fn params<S: Simd>(p: Rows) -> Params<S> {
            const { assert!(offset_of!($block, d) == 0 && offset_of!($block, m) == 2) };
            const { assert!(!Self::AROUND || offset_of!($block, qs) == 4) };
            unsafe {
                let both = if p.preceded() {
                    S::gather_around(p, 4).0
                } else {
                    first_word::<S>(p, offset_of!($block, qs) > 4)
                };
                let (d, dmin) = (S::low_f16(both), S::low_f16(S::shr_i(both, 16)));
                Params { d, dmin, ..Params::zero() }
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
        unsafe fn params<S: Simd>(p: Rows) -> Params<S> {
            const { assert!(offset_of!($block, d) == 0 && offset_of!($block, scales) == 4) };
            unsafe {
                let packed = S::gather_words(p, 0);
                let d = S::low_f16(packed[0]);
                let dmin = minus::<S>(S::low_f16(S::shr_i(packed[0], 16)));
                Params { packed, d, dmin }
            }
        }
        #[inline(always)]
        unsafe fn scale<S: Simd>([_, a, _, c]: &Packed<S>, j: usize) -> S::I {
            unsafe {
                let at = 8 * (j % 4) as i32;
                if j < 4 {
                    bits_of::<S>(*a, at, 6)
                } else {
                    six_bits::<S>(bits_of::<S>(*c, at, 4), bits_of::<S>(*a, at + 6, 2), 0)
                }
            }
        }
        #[inline(always)]
        unsafe fn min<S: Simd>([_, _, b, c]: &Packed<S>, j: usize) -> S::I {
            unsafe {
                let at = 8 * (j % 4) as i32;
                if j < 4 {
                    bits_of::<S>(*b, at, 6)
                } else {
                    six_bits::<S>(bits_of::<S>(*c, at + 4, 4), bits_of::<S>(*b, at + 6, 2), 0)
                }
            }
        }
    };
}

unsafe impl Codes for BlockQ4_0 {
    const ZERO: i32 = 8;
    const AROUND: bool = true;
    const SIGNED: bool = false;
    const TOP: i32 = 15;
    f16_d!(Self);
    #[inline(always)]
    unsafe fn codes<S: Simd, const J: usize>(p: Rows, _: &mut Cache<S>) -> Words<S> {
        unsafe { nibbles::<S>(p, offset_of!(Self, qs)) }
    }
}

unsafe impl Codes for BlockQ4_1 {
    const ZERO: i32 = 0;
    const AROUND: bool = true;
    const SIGNED: bool = false;
    const TOP: i32 = 15;
    f16_d!(Self, m);
    #[inline(always)]
    unsafe fn codes<S: Simd, const J: usize>(p: Rows, _: &mut Cache<S>) -> Words<S> {
        unsafe { nibbles::<S>(p, offset_of!(Self, qs)) }
    }
}

unsafe impl Codes for BlockQ5_0 {
    const ZERO: i32 = 16;
    const SIGNED: bool = false;
    const TOP: i32 = 31;
    #[inline(always)]
    unsafe fn params<S: Simd>(p: Rows) -> Params<S> {
        unsafe {
            const { assert!(offset_of!(Self, d) == 0) };
            Params { d: S::low_f16(first_word::<S>(p, true)), ..Params::zero() }
        }
    }
    #[inline(always)]
    unsafe fn codes<S: Simd, const J: usize>(p: Rows, _: &mut Cache<S>) -> Words<S> {
        unsafe { S::add_fifth_bits(nibbles::<S>(p, offset_of!(Self, qs)), p, offset_of!(Self, qh)) }
    }
}

unsafe impl Codes for BlockQ5_1 {
    const ZERO: i32 = 0;
    const SIGNED: bool = false;
    const TOP: i32 = 31;
    f16_d!(Self, m);
    #[inline(always)]
    unsafe fn codes<S: Simd, const J: usize>(p: Rows, _: &mut Cache<S>) -> Words<S> {
        unsafe { S::add_fifth_bits(nibbles::<S>(p, offset_of!(Self, qs)), p, offset_of!(Self, qh)) }
    }
}

unsafe impl Codes for BlockQ8_0 {
    const ZERO: i32 = 0;
    const SIGNED: bool = true;
    f16_d!(Self);
    #[inline(always)]
    unsafe fn codes<S: Simd, const J: usize>(p: Rows, _: &mut Cache<S>) -> Words<S> {
        unsafe { load_32::<S>(p, offset_of!(Self, qs)) }
    }
}

unsafe impl Codes for BlockIQ4NL {
    const ZERO: i32 = 0;
    const AROUND: bool = true;
    const SIGNED: bool = true;
    f16_d!(Self);
    #[inline(always)]
    unsafe fn codes<S: Simd, const J: usize>(p: Rows, _: &mut Cache<S>) -> Words<S> {
        unsafe { each::<S>(nibbles::<S>(p, offset_of!(Self, qs)), |_, w| S::lookup(&IQ4, w)) }
    }
}

unsafe impl Codes for BlockMXFP4 {
    const ZERO: i32 = 0;
    const SIGNED: bool = true;
    #[inline(always)]
    unsafe fn params<S: Simd>(p: Rows) -> Params<S> {
        unsafe { Params { d: each_row::<S, Self>(p, |block| block.d()), ..Params::zero() } }
    }
    #[inline(always)]
    unsafe fn codes<S: Simd, const J: usize>(p: Rows, _: &mut Cache<S>) -> Words<S> {
        unsafe { each::<S>(nibbles::<S>(p, offset_of!(Self, qs)), |_, w| S::lookup(&FP4, w)) }
    }
}

unsafe impl PartCodes for BlockQ1_0 {
    const ZERO: i32 = 1;
    const SIGNED: bool = false;
    const TOP: i32 = 2;
    #[inline(always)]
    unsafe fn d<S: Simd>(p: Rows, _: usize) -> S::F {
        unsafe { f16_at::<S>(p, offset_of!(Self, d), size_of::<Self>()) }
    }
    #[inline(always)]
    unsafe fn codes<S: Simd>(p: Rows, index: usize) -> Words<S> {
        unsafe { S::load_bits(p.skip(offset_of!(Self, qs) + 4 * index)) }
    }
}

unsafe impl PartCodes for BlockQ2_0 {
    const ZERO: i32 = 1;
    const SIGNED: bool = false;
    const TOP: i32 = 3;
    #[inline(always)]
    unsafe fn d<S: Simd>(p: Rows, _: usize) -> S::F {
        unsafe { f16_at::<S>(p, offset_of!(Self, d), size_of::<Self>()) }
    }
    #[inline(always)]
    unsafe fn codes<S: Simd>(p: Rows, index: usize) -> Words<S> {
        unsafe { S::load_pairs(p.skip(offset_of!(Self, qs) + 8 * index)) }
    }
}

unsafe impl PartCodes for BlockNVFP4 {
    const ZERO: i32 = 0;
    const SIGNED: bool = true;
    const TOP: i32 = 127;
    #[inline(always)]
    unsafe fn d<S: Simd>(p: Rows, index: usize) -> S::F {
        unsafe { each_row::<S, Self>(p, |block| block.d(index)) }
    }
    #[inline(always)]
    unsafe fn codes<S: Simd>(p: Rows, index: usize) -> Words<S> {
        unsafe {
            let codes = S::load_nibbles(p.skip(offset_of!(Self, qs) + 8 * index));
            let first = -i32::from(index.is_multiple_of(2));
            let half = [S::splat_i(first), S::splat_i(!first)];
            let mut words = [S::splat_i(0); WORDS];
            for i in 0..WORDS {
                words[i] = S::and_i(S::lookup(&FP4, codes[i % 4]), half[i / 4]);
            }
            words
        }
    }
}

unsafe impl Codes for BlockQ2K {
    const ZERO: i32 = 0;
    const SIGNED: bool = false;
    const TOP: i32 = 3;
    #[inline(always)]
    unsafe fn params<S: Simd>(p: Rows) -> Params<S> {
        unsafe {
            let packed = S::gather_words(p, offset_of!(Self, scales));
            // The block ends with both.
            const { assert!(offset_of!(Self, d) + 4 == size_of::<Self>()) };
            let last = S::gather_word(p, size_of::<Self>() - 4);
            let dmin = minus::<S>(S::low_f16(S::shr_i(last, 16)));
            Params { packed, d: S::low_f16(last), dmin }
        }
    }
    #[inline(always)]
    unsafe fn scale<S: Simd>(packed: &Packed<S>, j: usize) -> S::I {
        unsafe { bits_of::<S>(packed[j / 4], 8 * (j % 4) as i32, 4) }
    }
    #[inline(always)]
    unsafe fn min<S: Simd>(packed: &Packed<S>, j: usize) -> S::I {
        unsafe { bits_of::<S>(packed[j / 4], 8 * (j % 4) as i32 + 4, 4) }
    }
    #[inline(always)]
    unsafe fn codes<S: Simd, const J: usize>(p: Rows, cache: &mut Cache<S>) -> Words<S> {
        unsafe {
            if J.is_multiple_of(4) {
                cache.0[0] = load_32::<S>(p, offset_of!(Self, qs) + 8 * J);
            }
            bytes_bits::<S>(&cache.0[0], 2 * (J % 4), 2)
        }
    }
}

unsafe impl Codes for BlockTQ2_0 {
    const ZERO: i32 = 1;
    const SIGNED: bool = false;
    const TOP: i32 = 3;
    f16_d!(Self);
    #[inline(always)]
    unsafe fn codes<S: Simd, const J: usize>(p: Rows, cache: &mut Cache<S>) -> Words<S> {
        unsafe {
            if J.is_multiple_of(4) {
                cache.0[0] = load_32::<S>(p, offset_of!(Self, qs) + 8 * J);
            }
            bytes_bits::<S>(&cache.0[0], 2 * (J % 4), 2)
        }
    }
}

unsafe impl Codes for BlockQ3K {
    const ZERO: i32 = 4;
    const SIGNED: bool = false;
    const TOP: i32 = 7;
    #[inline(always)]
    unsafe fn params<S: Simd>(p: Rows) -> Params<S> {
        unsafe {
            // The block ends with the scales and `d`: two bytes before them make it four words.
            let words = S::gather_words(p, offset_of!(Self, scales) - 2);
            let join = |i: usize| S::or_i(S::shr_i(words[i], 16), S::shl_i(words[i + 1], 16));
            let packed = [join(0), join(1), join(2), words[3]];
            Params { packed, d: S::low_f16(S::shr_i(words[3], 16)), ..Params::zero() }
        }
    }
    #[inline(always)]
    unsafe fn scale<S: Simd>(packed: &Packed<S>, j: usize) -> S::I {
        unsafe {
            let (byte, half) = (8 * (j % 4) as i32, 4 * (j / 8) as i32);
            let low = bits_of::<S>(packed[j % 8 / 4], byte + half, 4);
            six_bits::<S>(low, bits_of::<S>(packed[2], byte + 2 * (j / 4) as i32, 2), 32)
        }
    }
    #[inline(always)]
    unsafe fn codes<S: Simd, const J: usize>(p: Rows, cache: &mut Cache<S>) -> Words<S> {
        unsafe {
            if J.is_multiple_of(4) {
                cache.0[0] = load_32::<S>(p, offset_of!(Self, qs) + 8 * J);
            }
            if J == 0 {
                cache.0[1] = load_32::<S>(p, offset_of!(Self, hmask));
            }
            add_bit::<S>(bytes_bits::<S>(&cache.0[0], 2 * (J % 4), 2), &cache.0[1], J, 2)
        }
    }
}

unsafe impl Codes for BlockQ4K {
    const ZERO: i32 = 0;
    const SIGNED: bool = false;
    const TOP: i32 = 15;
    six_bit_params!(Self);
    #[inline(always)]
    unsafe fn codes<S: Simd, const J: usize>(p: Rows, cache: &mut Cache<S>) -> Words<S> {
        unsafe {
            if J.is_multiple_of(2) {
                cache.0[0] = load_32::<S>(p, offset_of!(Self, qs) + 16 * J);
            }
            bytes_bits::<S>(&cache.0[0], 4 * (J % 2), 4)
        }
    }
}

unsafe impl Codes for BlockQ5K {
    const ZERO: i32 = 0;
    const SIGNED: bool = false;
    const TOP: i32 = 31;
    six_bit_params!(Self);
    #[inline(always)]
    unsafe fn codes<S: Simd, const J: usize>(p: Rows, cache: &mut Cache<S>) -> Words<S> {
        unsafe {
            if J.is_multiple_of(2) {
                cache.0[0] = load_32::<S>(p, offset_of!(Self, qs) + 16 * J);
            }
            if J == 0 {
                cache.0[1] = load_32::<S>(p, offset_of!(Self, qh));
            }
            add_bit::<S>(bytes_bits::<S>(&cache.0[0], 4 * (J % 2), 4), &cache.0[1], J, 4)
        }
    }
}

unsafe impl Codes for BlockQ6K {
    const ZERO: i32 = 32;
    const SIGNED: bool = false;
    const TOP: i32 = 63;
    #[inline(always)]
    unsafe fn params<S: Simd>(p: Rows) -> Params<S> {
        unsafe {
            let packed = S::gather_words(p, offset_of!(Self, scales));
            let d = f16_at::<S>(p, offset_of!(Self, d), size_of::<Self>());
            Params { packed, d, ..Params::zero() }
        }
    }
    #[inline(always)]
    unsafe fn scale<S: Simd>(packed: &Packed<S>, j: usize) -> S::I {
        unsafe { S::top_byte(S::shl_i(packed[j / 4], 24 - 8 * (j % 4) as i32)) }
    }
    #[inline(always)]
    unsafe fn codes<S: Simd, const J: usize>(p: Rows, cache: &mut Cache<S>) -> Words<S> {
        unsafe {
            // 128 codes: 64 bytes of nibbles, the low ones first, and 32 bytes of two bits.
            let (n, j) = (J / 4, J % 4);
            if j < 2 {
                cache.0[j] = load_32::<S>(p, offset_of!(Self, ql) + 64 * n + 32 * j);
            }
            if j == 0 {
                cache.0[2] = load_32::<S>(p, offset_of!(Self, qh) + 32 * n);
            }
            let low = bytes_bits::<S>(&cache.0[j % 2], 4 * (j / 2), 4);
            add_bits::<S>(low, &cache.0[2], 2 * j, 4, 2)
        }
    }
}

unsafe impl Codes for BlockIQ4XS {
    const ZERO: i32 = 0;
    const SIGNED: bool = true;
    #[inline(always)]
    unsafe fn params<S: Simd>(p: Rows) -> Params<S> {
        unsafe {
            const { assert!(offset_of!(Self, d) == 0 && offset_of!(Self, scales_l) == 4) };
            // `d` and the high bits of the scales, then their low bits.
            let packed = S::gather_words(p, 0);
            Params { packed, d: S::low_f16(packed[0]), ..Params::zero() }
        }
    }
    #[inline(always)]
    unsafe fn scale<S: Simd>([first, low, ..]: &Packed<S>, j: usize) -> S::I {
        unsafe {
            let low = bits_of::<S>(*low, 4 * j as i32, 4);
            six_bits::<S>(low, bits_of::<S>(*first, 16 + 2 * j as i32, 2), 32)
        }
    }
    #[inline(always)]
    unsafe fn codes<S: Simd, const J: usize>(p: Rows, _: &mut Cache<S>) -> Words<S> {
        unsafe {
            each::<S>(nibbles::<S>(p, offset_of!(Self, qs) + 16 * J), |_, w| S::lookup(&IQ4, w))
        }
    }
}
