//! Where kernels get a row's units from: unpacked in registers, or through [`IntBlock::unpack`].

#![allow(clippy::undocumented_unsafe_blocks, reason = "each block is its caller's promise")]
#![allow(clippy::missing_safety_doc, reason = "the trait's Safety section covers its methods")]

use std::marker::PhantomData;

use super::codes::Codes;
use crate::formats::{Block, IntBlock, Unit};
use crate::simd::Simd;

/// Rows computed together.
pub const ROWS: usize = 16;
/// Bytes of the memory that [`Source::open`] may use.
pub const STAGE: usize = ROWS * 256;

/// One unit of 16 rows.
pub type Units = [*const u8; ROWS];

/// The scales of a unit of 16 rows, a lane each.
pub struct Params<S: Simd> {
    /// Integer scales, of each [`SUB`](IntBlock::SUB) weights; none in units of 32.
    pub scale: [S::I; 16],
    /// Integer minimums, likewise, as floats.
    pub min: [S::V; 16],
    /// Scale of the unit.
    pub d: S::V,
    /// Scale of its minimums, with its sign.
    pub dmin: S::V,
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
            Params { scale: [S::splat_i(0); 16], min: [zero; 16], d: zero, dmin: zero }
        }
    }
}

/// Rows of a format, unit by unit.
///
/// # Safety
/// The methods are to be called where the CPU has the instructions of `S`, with pointers to units
/// of the format, and [`STAGE`] bytes of memory at `stage`.
pub unsafe trait Source {
    /// The format.
    type Block: IntBlock;
    /// As [`Codes::ZERO`].
    const ZERO: i32;
    /// As [`Codes::SIGNED`].
    const SIGNED: bool;
    /// As [`Codes::TOP`].
    const TOP: i32;
    /// Unpacked in registers: worth code for many columns.
    const DIRECT: bool;

    /// Weights of a unit: 32 or 256.
    const UNIT: usize = Self::Block::UNIT;
    /// Scales of a unit.
    const SUBS: usize = Self::UNIT / Self::Block::SUB;
    /// Units have integer scales.
    const SCALED: bool = Self::UNIT > 32;

    /// The pointer to unit `u` of a row.
    #[inline(always)]
    fn unit(row: *const u8, u: usize) -> *const u8 {
        // Formats whose blocks are of several units point at the block: see `open`.
        row.wrapping_add(u / (Self::Block::LEN / Self::UNIT) * size_of::<Self::Block>())
    }
    /// Reads the scales of 16 rows' unit, which is number `u` of the row.
    unsafe fn open<S: Simd>(p: &Units, u: usize, stage: *mut u8) -> Params<S>;
    /// Codes `32 j .. 32 j + 32` of row `r`, after [`open`](Self::open).
    unsafe fn codes<S: Simd>(p: &Units, r: usize, j: usize, stage: *const u8) -> S::B;
}

/// Units unpacked in registers.
pub struct Direct<B>(PhantomData<B>);

// SAFETY: `Codes` has the same conditions; a block is a unit.
unsafe impl<B: Codes> Source for Direct<B> {
    type Block = B;
    const ZERO: i32 = B::ZERO;
    const SIGNED: bool = B::SIGNED;
    const TOP: i32 = B::TOP;
    const DIRECT: bool = true;

    #[inline(always)]
    unsafe fn open<S: Simd>(p: &Units, _: usize, _: *mut u8) -> Params<S> {
        unsafe { B::params::<S>(p) }
    }

    #[inline(always)]
    unsafe fn codes<S: Simd>(p: &Units, r: usize, j: usize, _: *const u8) -> S::B {
        unsafe { B::codes::<S>(p[r], j) }
    }
}

/// Units unpacked to memory: formats without code of their own for registers.
pub struct Unpacked<B>(PhantomData<B>);

// SAFETY: `unpack` is safe code; the registers are used as `Simd` says.
unsafe impl<B: IntBlock> Source for Unpacked<B> {
    type Block = B;
    const ZERO: i32 = 0;
    const SIGNED: bool = true;
    const TOP: i32 = 127;
    const DIRECT: bool = false;

    #[inline(always)]
    unsafe fn open<S: Simd>(p: &Units, u: usize, stage: *mut u8) -> Params<S> {
        unsafe {
            let units = B::LEN / B::UNIT;
            let mut unit = Unit::default();
            let mut scale = [[0i32; ROWS]; 16];
            let mut min = [[0f32; ROWS]; 16];
            let mut d = [[0f32; ROWS]; 2];
            for r in 0..ROWS {
                // A block has the alignment of a byte.
                (*p[r].cast::<B>()).unpack(u % units, &mut unit);
                let codes = unit.q.as_ptr().cast();
                std::ptr::copy_nonoverlapping(codes, stage.add(r * B::UNIT), B::UNIT);
                if Self::SCALED {
                    for j in 0..Self::SUBS {
                        scale[j][r] = i32::from(unit.scale[j * B::SUB / 16]);
                        min[j][r] = f32::from(unit.min[j * B::SUB / 16]);
                    }
                }
                (d[0][r], d[1][r]) = (unit.d, unit.dmin);
            }
            let mut params = Params::<S>::zero();
            if Self::SCALED {
                for j in 0..Self::SUBS {
                    params.scale[j] = S::load_i(scale[j].as_ptr());
                    params.min[j] = S::load(min[j].as_ptr());
                }
            }
            params.d = S::load(d[0].as_ptr());
            params.dmin = S::load(d[1].as_ptr());
            params
        }
    }

    #[inline(always)]
    unsafe fn codes<S: Simd>(_: &Units, r: usize, j: usize, stage: *const u8) -> S::B {
        unsafe { S::load_b(stage.add(r * B::UNIT + 32 * j)) }
    }
}
