//! Where kernels get a row's units from: unpacked in registers, or through [`IntBlock::unpack`].

#![allow(clippy::undocumented_unsafe_blocks, reason = "each block is its caller's promise")]
#![allow(clippy::missing_safety_doc, reason = "the trait's Safety section covers its methods")]

use std::marker::PhantomData;

use super::codes::{Codes, Scales};
use crate::formats::{IntBlock, Unit};
use crate::simd::Simd;

/// Rows of a format, unit by unit.
///
/// # Safety
/// The methods are to be called where the CPU has the instructions of `S`, with pointers to rows
/// that have the unit named.
pub unsafe trait Source {
    /// Weights of a unit: 32 or 256.
    const UNIT: usize;
    /// As [`IntBlock::HAS_MIN`].
    const HAS_MIN: bool;
    /// As [`Codes::ZERO`].
    const ZERO: i32;
    /// As [`Codes::SIGNED`].
    const SIGNED: bool;
    /// Unpacked in registers: worth code for many columns.
    const DIRECT: bool;
    /// What is kept of 16 units from their products until their scales are needed.
    type Kept: Default;

    /// Unit `u` of a row of 32-weight units times the activations, spread over 8 lanes; zero
    /// points not taken off.
    unsafe fn dot32<S: Simd>(
        row: *const u8,
        u: usize,
        a: S::B,
        kept: &mut Self::Kept,
        r: usize,
    ) -> S::S;
    /// Unit `u` of a row of 256-weight units times the activations: the scaled sum, and that of
    /// the minimums, spread over 8 lanes.
    unsafe fn dot256<S: Simd>(
        row: *const u8,
        u: usize,
        a: &[S::B; 8],
        sum16: *const i16,
        kept: &mut Self::Kept,
        r: usize,
    ) -> (S::S, S::S);
    /// The scales of unit `u` of 16 rows, after their products.
    unsafe fn d<S: Simd>(rows: [*const u8; 16], u: usize, kept: &Self::Kept) -> S::V;
    /// The scales of the minimums, likewise.
    unsafe fn dmin<S: Simd>(rows: [*const u8; 16], u: usize, kept: &Self::Kept) -> S::V;
    /// Writes the codes of unit `u` of row `r` to `out`, and returns its scales.
    unsafe fn unpack<S: Simd>(
        row: *const u8,
        u: usize,
        out: *mut u8,
        kept: &mut Self::Kept,
        r: usize,
    ) -> Scales;
}

/// Units unpacked in registers.
pub struct Direct<B>(PhantomData<B>);

#[inline(always)]
unsafe fn block<B>(row: *const u8, u: usize) -> *const u8 {
    unsafe { row.add(u * size_of::<B>()) }
}

// SAFETY: `Codes` has the same conditions; a block is a unit.
unsafe impl<B: Codes> Source for Direct<B> {
    const UNIT: usize = B::UNIT;
    const HAS_MIN: bool = B::HAS_MIN;
    const ZERO: i32 = B::ZERO;
    const SIGNED: bool = B::SIGNED;
    const DIRECT: bool = true;
    type Kept = ();

    #[inline(always)]
    unsafe fn dot32<S: Simd>(row: *const u8, u: usize, a: S::B, _: &mut (), _: usize) -> S::S {
        unsafe {
            let codes = B::codes::<S>(block::<B>(row, u), 0);
            if B::SIGNED { S::dot_s(S::zero(), codes, a) } else { S::dot_u(S::zero(), codes, a) }
        }
    }

    #[inline(always)]
    unsafe fn dot256<S: Simd>(
        row: *const u8,
        u: usize,
        a: &[S::B; 8],
        sum16: *const i16,
        _: &mut (),
        _: usize,
    ) -> (S::S, S::S) {
        unsafe {
            let p = block::<B>(row, u);
            let scales = B::scales(p);
            let mut acc = S::zero();
            for j in 0..8 {
                let scale = S::scale(scales.scale[2 * j], scales.scale[2 * j + 1]);
                let codes = B::codes::<S>(p, j);
                acc = if B::SIGNED {
                    S::dot_s_scaled(acc, codes, a[j], scale)
                } else {
                    S::dot_u_scaled(acc, codes, a[j], scale)
                };
            }
            if B::ZERO != 0 {
                let zero = scales.scale.map(|s| -(B::ZERO as i16) * s);
                acc = S::dot_i16(acc, zero.as_ptr(), sum16);
            }
            let mut min = S::zero();
            if B::HAS_MIN {
                min = S::dot_i16(min, scales.min.as_ptr(), sum16);
            }
            (acc, min)
        }
    }

    #[inline(always)]
    unsafe fn d<S: Simd>(rows: [*const u8; 16], u: usize, _: &()) -> S::V {
        unsafe { B::d::<S>(rows.map(|p| block::<B>(p, u))) }
    }

    #[inline(always)]
    unsafe fn dmin<S: Simd>(rows: [*const u8; 16], u: usize, _: &()) -> S::V {
        unsafe { B::dmin::<S>(rows.map(|p| block::<B>(p, u))) }
    }

    #[inline(always)]
    unsafe fn unpack<S: Simd>(
        row: *const u8,
        u: usize,
        out: *mut u8,
        _: &mut (),
        _: usize,
    ) -> Scales {
        unsafe {
            let p = block::<B>(row, u);
            for j in 0..B::UNIT / 32 {
                S::store_b(out.add(32 * j), B::codes::<S>(p, j));
            }
            B::scales(p)
        }
    }
}

/// Units unpacked to memory: formats without code of their own for registers.
pub struct Unpacked<B>(PhantomData<B>);

/// The scales of 16 units.
#[derive(Default)]
pub struct KeptScales {
    d: [f32; 16],
    dmin: [f32; 16],
}

impl<B: IntBlock> Unpacked<B> {
    #[inline(always)]
    unsafe fn unit(row: *const u8, u: usize, kept: &mut KeptScales, r: usize) -> Unit {
        let units = B::LEN / B::UNIT;
        let mut unit = Unit::default();
        // A block has the alignment of a byte.
        unsafe { (*row.cast::<B>().add(u / units)).unpack(u % units, &mut unit) };
        (kept.d[r], kept.dmin[r]) = (unit.d, unit.dmin);
        unit
    }
}

// SAFETY: `unpack` is safe code; the registers are used as `Simd` says.
unsafe impl<B: IntBlock> Source for Unpacked<B> {
    const UNIT: usize = B::UNIT;
    const HAS_MIN: bool = B::HAS_MIN;
    const ZERO: i32 = 0;
    const SIGNED: bool = true;
    const DIRECT: bool = false;
    type Kept = KeptScales;

    #[inline(always)]
    unsafe fn dot32<S: Simd>(
        row: *const u8,
        u: usize,
        a: S::B,
        kept: &mut KeptScales,
        r: usize,
    ) -> S::S {
        unsafe {
            let unit = Self::unit(row, u, kept, r);
            S::dot_s(S::zero(), S::load_b(unit.q.as_ptr().cast()), a)
        }
    }

    #[inline(always)]
    unsafe fn dot256<S: Simd>(
        row: *const u8,
        u: usize,
        a: &[S::B; 8],
        sum16: *const i16,
        kept: &mut KeptScales,
        r: usize,
    ) -> (S::S, S::S) {
        unsafe {
            let unit = Self::unit(row, u, kept, r);
            let mut acc = S::zero();
            for j in 0..8 {
                let scale = S::scale(unit.scale[2 * j], unit.scale[2 * j + 1]);
                let codes = S::load_b(unit.q.as_ptr().add(32 * j).cast());
                acc = S::dot_s_scaled(acc, codes, a[j], scale);
            }
            let mut min = S::zero();
            if B::HAS_MIN {
                min = S::dot_i16(min, unit.min.as_ptr(), sum16);
            }
            (acc, min)
        }
    }

    #[inline(always)]
    unsafe fn d<S: Simd>(_: [*const u8; 16], _: usize, kept: &KeptScales) -> S::V {
        unsafe { S::load(kept.d.as_ptr()) }
    }

    #[inline(always)]
    unsafe fn dmin<S: Simd>(_: [*const u8; 16], _: usize, kept: &KeptScales) -> S::V {
        unsafe { S::load(kept.dmin.as_ptr()) }
    }

    #[inline(always)]
    unsafe fn unpack<S: Simd>(
        row: *const u8,
        u: usize,
        out: *mut u8,
        kept: &mut KeptScales,
        r: usize,
    ) -> Scales {
        unsafe {
            let unit = Self::unit(row, u, kept, r);
            std::ptr::copy_nonoverlapping(unit.q.as_ptr().cast(), out, B::UNIT);
            Scales { scale: unit.scale, min: unit.min }
        }
    }
}
