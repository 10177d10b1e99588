//! Where kernels get a row's units from: unpacked in registers ([`Direct`], [`Parts`]), or to memory
//! ([`staged`](super::staged)).

#![allow(clippy::undocumented_unsafe_blocks, reason = "each block is its caller's promise")]
#![allow(clippy::missing_safety_doc, reason = "the trait's Safety section covers its methods")]

use std::marker::PhantomData;

use super::codes::{Codes, PartCodes};
use super::staged::Unpack;
use crate::act::Sums;
use crate::simd::{Rows, Simd, WORDS};

/// 32 codes of each row, as [`Simd::load_codes`] lays them out: in lanes of rows, where word `i` has
/// codes `4 i .. 4 i + 4` of each, or a register for some of one row's.
pub type Words<S> = [<S as Simd>::I; WORDS];

/// `f` of each word and its number. (`array::map` is not always inlined, and what is not lacks the
/// level's instructions: ten times as slow, by measurement.)
#[inline(always)]
pub(super) fn each<S: Simd>(mut words: Words<S>, f: impl Fn(usize, S::I) -> S::I) -> Words<S> {
    for (i, w) in words.iter_mut().enumerate() {
        *w = f(i, *w);
    }
    words
}

/// The words in which the integer scales and minimums of a unit of 256 are packed. They are unpacked
/// where they are used: all of them at once are more than there are registers.
pub type Packed<S> = [<S as Simd>::I; 4];

/// The scales of a unit, a lane for each row.
pub struct Params<S: Simd> {
    /// Of the sub-blocks.
    pub packed: Packed<S>,
    /// Scale of the unit.
    pub d: S::F,
    /// Scale of its minimums, with its sign.
    pub dmin: S::F,
}

impl<S: Simd> Params<S> {
    /// Zeros.
    ///
    /// # Safety
    /// The CPU has the instructions of `S`.
    #[inline(always)]
    pub unsafe fn zero() -> Self {
        unsafe {
            let zero = S::splat(0.0);
            Params { packed: [S::splat_i(0); 4], d: zero, dmin: zero }
        }
    }
}

/// What codes of one unit, taken in order, leave for those that share bytes with them.
pub struct Cache<S: Simd>(pub [Words<S>; 3]);

impl<S: Simd> Cache<S> {
    /// Nothing.
    ///
    /// # Safety
    /// The CPU has the instructions of `S`.
    #[inline(always)]
    pub unsafe fn new() -> Self {
        unsafe { Cache([[S::splat_i(0); WORDS]; 3]) }
    }
}

/// Rows of a format, unit by unit.
///
/// # Safety
/// The methods are to be called where the CPU has the instructions of `S`, with pointers to units
/// of the format, of which 16 bytes before may be read if they are [`preceded`](Rows::preceded), and
/// [`STAGE`](super::staged::STAGE) initialized bytes of memory at `stage`,
/// aligned to 64.
pub unsafe trait Source {
    /// Weights of a unit: 32 or 256.
    const UNIT: usize;
    /// As [`IntBlock::SUB`](crate::formats::IntBlock::SUB).
    const SUB: usize;
    /// As [`IntBlock::HAS_MIN`](crate::formats::IntBlock::HAS_MIN).
    const HAS_MIN: bool;
    /// As [`Codes::ZERO`].
    const ZERO: i32;
    /// As [`Codes::SIGNED`].
    const SIGNED: bool;
    /// As [`Codes::TOP`].
    const TOP: i32;

    /// As [`Codes::AROUND`].
    const AROUND: bool = false;
    /// Bytes of a unit of a row, if it is a block; else 0.
    const BYTES: usize = 0;
    /// Units that are multiplied with the same activations: of a format with a scale of its own for
    /// each 16 weights, each of two holds one half of 32 codes, and zeros.
    const SPLIT: usize = 1;
    /// Scales of a unit.
    const SUBS: usize = Self::UNIT / Self::SUB;
    /// Units have integer scales.
    const SCALED: bool = Self::UNIT > 32;

    /// What stands for unit `u` of the rows: the addresses of its block, or of the rows themselves.
    fn unit(rows: Rows, u: usize) -> Rows;
    /// Reads the scales of unit `u` of each row.
    unsafe fn open<S: Simd>(p: Rows, u: usize, stage: *mut u8, unpack: Option<Unpack>)
    -> Params<S>;
    /// The integer scale of sub-block `j`, after [`open`](Self::open).
    unsafe fn scale<S: Simd>(packed: &Packed<S>, j: usize) -> S::I;
    /// The integer minimum of sub-block `j`, likewise, as a float.
    unsafe fn min<S: Simd>(packed: &Packed<S>, j: usize) -> S::F;
    /// Codes `32 J .. 32 J + 32` of unit `u`, after [`open`](Self::open) and those before them.
    unsafe fn codes<S: Simd, const J: usize>(
        p: Rows,
        u: usize,
        stage: *const u8,
        cache: &mut Cache<S>,
    ) -> Words<S>;
}

/// [`Source::codes`] as the level's dot products take them.
///
/// # Safety
/// As there.
#[inline(always)]
pub unsafe fn codes<S: Simd, T: Source, const J: usize>(
    p: Rows,
    u: usize,
    stage: *const u8,
    cache: &mut Cache<S>,
) -> Words<S> {
    unsafe {
        let words = T::codes::<S, J>(p, u, stage, cache);
        if flipped::<S, T>() {
            let sign = S::splat_i(0x8080_8080_u32 as i32);
            each::<S>(words, |_, w| S::xor_i(w, sign))
        } else {
            words
        }
    }
}

/// Codes have 128 added, since the level multiplies codes without sign only.
#[inline(always)]
pub const fn flipped<S: Simd, T: Source>() -> bool {
    T::SIGNED && S::UNSIGNED
}

/// What is added to codes, and taken off again with the sums of the activations: 0 or a power of two.
const fn zero<S: Simd, T: Source>() -> i32 {
    T::ZERO + if flipped::<S, T>() { 128 } else { 0 }
}

/// The sums of the activations that the kernels of a format read.
pub const fn sums<S: Simd, T: Source>() -> Sums {
    Sums::of(T::SUB, zero::<S, T>() != 0, T::HAS_MIN)
}

/// `sum`, of codes that stand for more than they are, less `total`, the sum of the activations,
/// as often as that.
///
/// # Safety
/// The CPU has the instructions of `S`.
#[inline(always)]
pub unsafe fn less_zero<S: Simd, T: Source>(sum: S::I, total: *const u8) -> S::I {
    unsafe {
        let zero = const { zero::<S, T>() };
        if zero == 0 {
            return sum;
        }
        debug_assert!(zero.count_ones() == 1, "zero points are powers of two");
        let total = S::splat_i(total.cast::<i32>().read());
        S::sub_i(sum, S::shl_i(total, zero.trailing_zeros() as i32))
    }
}

/// `inner`, the sum of a unit's sub-blocks so far, and `d * isum`. Of the only one of a unit it is the
/// product itself, rounded once. That can be -0, where the sum with +0 is +0 (`d` may have become zero
/// where the codes are not); what it is added to begins with +0, and adding either leaves that as it
/// is.
///
/// # Safety
/// The CPU has the instructions of `S`.
#[inline(always)]
pub unsafe fn add<S: Simd, T: Source>(d: S::F, isum: S::F, inner: S::F) -> S::F {
    unsafe { if T::SCALED { S::fma(d, isum, inner) } else { S::mul(d, isum) } }
}

/// Units unpacked in registers.
pub struct Direct<B>(PhantomData<B>);

// SAFETY: `Codes` has the same conditions; a block is a unit.
unsafe impl<B: Codes> Source for Direct<B> {
    const UNIT: usize = B::UNIT;
    const SUB: usize = B::SUB;
    const HAS_MIN: bool = B::HAS_MIN;
    const ZERO: i32 = B::ZERO;
    const SIGNED: bool = B::SIGNED;
    const TOP: i32 = B::TOP;
    const AROUND: bool = B::AROUND;
    const BYTES: usize = size_of::<B>();

    #[inline(always)]
    fn unit(rows: Rows, u: usize) -> Rows {
        const { assert!(B::LEN == B::UNIT) };
        rows.skip(u * size_of::<B>())
    }

    #[inline(always)]
    unsafe fn open<S: Simd>(p: Rows, _: usize, _: *mut u8, _: Option<Unpack>) -> Params<S> {
        unsafe { B::params::<S>(p) }
    }

    #[inline(always)]
    unsafe fn scale<S: Simd>(packed: &Packed<S>, j: usize) -> S::I {
        unsafe { B::scale::<S>(packed, j) }
    }

    #[inline(always)]
    unsafe fn min<S: Simd>(packed: &Packed<S>, j: usize) -> S::F {
        unsafe { S::to_f32(B::min::<S>(packed, j)) }
    }

    #[inline(always)]
    unsafe fn codes<S: Simd, const J: usize>(
        p: Rows,
        _: usize,
        _: *const u8,
        cache: &mut Cache<S>,
    ) -> Words<S> {
        unsafe { B::codes::<S, J>(p, cache) }
    }
}

/// Units that are parts of a block, unpacked in registers.
pub struct Parts<B>(PhantomData<B>);

impl<B: PartCodes> Parts<B> {
    /// Units of a block.
    const N: usize = B::LEN / B::UNIT;
}

// SAFETY: `PartCodes` has the same conditions.
unsafe impl<B: PartCodes> Source for Parts<B> {
    const UNIT: usize = 32;
    const SUB: usize = 32;
    const HAS_MIN: bool = false;
    const ZERO: i32 = B::ZERO;
    const SIGNED: bool = B::SIGNED;
    const TOP: i32 = B::TOP;
    const SPLIT: usize = 32 / B::UNIT;

    #[inline(always)]
    fn unit(rows: Rows, u: usize) -> Rows {
        rows.skip(u / Self::N * size_of::<B>())
    }

    #[inline(always)]
    unsafe fn open<S: Simd>(p: Rows, u: usize, _: *mut u8, _: Option<Unpack>) -> Params<S> {
        unsafe { Params { d: B::d::<S>(p, u % Self::N), ..Params::zero() } }
    }

    #[inline(always)]
    unsafe fn scale<S: Simd>(_: &Packed<S>, _: usize) -> S::I {
        unsafe { S::splat_i(1) }
    }

    #[inline(always)]
    unsafe fn min<S: Simd>(_: &Packed<S>, _: usize) -> S::F {
        unsafe { S::splat(0.0) }
    }

    #[inline(always)]
    unsafe fn codes<S: Simd, const J: usize>(
        p: Rows,
        u: usize,
        _: *const u8,
        _: &mut Cache<S>,
    ) -> Words<S> {
        unsafe { B::codes::<S>(p, u % Self::N) }
    }
}
