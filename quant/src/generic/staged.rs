//! Units of 256 weights unpacked to memory, for formats whose codes are looked up in tables: a register of rows cannot
//! look up anything but small ones. They share the kernels of their shape, which call [`Unpack`].

#![allow(clippy::undocumented_unsafe_blocks, reason = "each block is its caller's promise")]
#![allow(clippy::missing_safety_doc, reason = "the trait's Safety section covers its methods")]

use std::mem::offset_of;

use super::codes::{bits_of, load_32};
use super::source::{Cache, Packed, Params, Source, Words};
use crate::formats::{
    BlockIQ1M, BlockIQ1S, BlockIQ2S, BlockIQ2XS, BlockIQ2XXS, BlockIQ3S, BlockIQ3XXS, BlockTQ1_0,
};
use crate::formats::{IntBlock, Unit, grids};
use crate::simd::{MAX_ROWS, Rows, Simd};

/// Unpacked units of a register's rows.
#[repr(C, align(64))]
struct Stage {
    units: [Unit; MAX_ROWS],
    /// The units' scales, of which all staged formats have small ones without sign.
    scales: [[u8; 16]; MAX_ROWS],
    d: [f32; MAX_ROWS],
}

/// Bytes of the memory that units are unpacked to.
pub const STAGE: usize = size_of::<Stage>();

/// Unpacks unit `u` of the rows of a register to `stage`.
///
/// # Safety
/// The rows have the unit; `stage` is valid for [`STAGE`] initialized bytes, and aligned to 64.
pub type Unpack = unsafe fn(rows: Rows, u: usize, stage: *mut u8);

/// [`Unpack`] of a format.
///
/// # Safety
/// As there; and the CPU has the instructions of `S`.
#[inline(always)]
pub unsafe fn unpack<S: Simd, B: Staged>(rows: Rows, u: usize, stage: *mut u8) {
    unsafe {
        let stage = &mut *stage.cast::<Stage>();
        for r in 0..S::ROWS {
            let unit = &mut stage.units[r];
            // A block has the alignment of a byte.
            (*rows.row(r).cast::<B>().add(u)).stage::<S>(unit);
            stage.d[r] = unit.d;
            for (to, scale) in stage.scales[r].iter_mut().zip(unit.scale) {
                *to = scale as u8;
            }
        }
    }
}

/// A format whose units are unpacked to memory.
///
/// # Safety
/// The method is to be called where the CPU has the instructions of `S`.
pub unsafe trait Staged: IntBlock {
    /// [`IntBlock::unpack`], if it can be with the instructions of `S`; scales are below 256.
    #[inline(always)]
    unsafe fn stage<S: Simd>(&self, out: &mut Unit) {
        const { assert!(Self::LEN == 256 && Self::UNIT == 256 && !Self::HAS_MIN) };
        self.unpack(0, out);
    }
}

unsafe impl Staged for BlockTQ1_0 {}

/// 32 codes of a unit each.
#[inline(always)]
fn blocks(unit: &mut Unit) -> &mut [[i8; 32]] {
    unit.q.as_chunks_mut().0
}

/// Words of the lowest byte first.
#[inline(always)]
fn words(bytes: &[u8; 32]) -> [u32; 8] {
    let mut words = [0; 8];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    words
}

unsafe impl Staged for BlockIQ1S {
    #[inline(always)]
    unsafe fn stage<S: Simd>(&self, out: &mut Unit) {
        for (n, out) in blocks(out).iter_mut().enumerate() {
            let qh = u16::from_le_bytes(self.qh[n]);
            let grid = |l: usize| {
                &grids::IQ1[usize::from(self.qs[4 * n + l]) | usize::from(qh >> (3 * l) & 7) << 8]
            };
            let by = if qh & 0x8000 != 0 { u32::MAX } else { 0x0101_0101 };
            unsafe { S::write_moved(out, [grid(0), grid(1), grid(2), grid(3)], by) };
        }
        self.unpack_scales(out);
    }
}

unsafe impl Staged for BlockIQ1M {
    #[inline(always)]
    unsafe fn stage<S: Simd>(&self, out: &mut Unit) {
        for (n, out) in blocks(out).iter_mut().enumerate() {
            let qh = u16::from_le_bytes([self.qh[2 * n], self.qh[2 * n + 1]]);
            let grid = |l: usize| {
                let high = usize::from(qh >> (4 * l) & 7) << 8;
                &grids::IQ1[usize::from(self.qs[4 * n + l]) | high]
            };
            // The upper bit of each nibble to a byte; of -1, all bits, of 1, the lowest.
            let minus = u32::from(qh);
            let minus = (minus >> 3 & 1)
                | (minus & 0x80) << 1
                | (minus & 0x800) << 5
                | (minus & 0x8000) << 9;
            let by = 0x0101_0101 | minus * 255;
            unsafe { S::write_moved(out, [grid(0), grid(1), grid(2), grid(3)], by) };
        }
        self.unpack_scales(out);
    }
}

unsafe impl Staged for BlockIQ2XXS {
    #[inline(always)]
    unsafe fn stage<S: Simd>(&self, out: &mut Unit) {
        let signs = unsafe { S::even_signs(self.bits()) };
        for (n, out) in blocks(out).iter_mut().enumerate() {
            let [a, b, c, d, ..] = self.qs[n];
            let grid = |i: u8| &grids::IQ2_XXS[usize::from(i)];
            unsafe { S::write_signed(out, [grid(a), grid(b), grid(c), grid(d)], signs[n]) };
        }
        self.unpack_scales(out);
    }
}

unsafe impl Staged for BlockIQ2XS {
    #[inline(always)]
    unsafe fn stage<S: Simd>(&self, out: &mut Unit) {
        let mut signs = [0; 32];
        for (signs, [_, code]) in signs.iter_mut().zip(self.qs) {
            *signs = code >> 1;
        }
        let signs = unsafe { S::eighth_signs(words(&signs)) };
        for (n, out) in blocks(out).iter_mut().enumerate() {
            let grid = |l: usize| {
                let code = u16::from_le_bytes(self.qs[4 * n + l]);
                &grids::IQ2_XS[usize::from(code & 511)]
            };
            unsafe { S::write_signed(out, [grid(0), grid(1), grid(2), grid(3)], signs[n]) };
        }
        self.unpack_scales(out);
    }
}

unsafe impl Staged for BlockIQ2S {
    #[inline(always)]
    unsafe fn stage<S: Simd>(&self, out: &mut Unit) {
        let [indices, signs] = [&self.qs.as_chunks().0[0], &self.qs.as_chunks().0[1]];
        let signs = words(signs);
        for (n, out) in blocks(out).iter_mut().enumerate() {
            let high = usize::from(self.qh[n]) << 8;
            let grid =
                |l: usize| &grids::IQ2_S[usize::from(indices[4 * n + l]) | high >> (2 * l) & 0x300];
            unsafe { S::write_signed(out, [grid(0), grid(1), grid(2), grid(3)], signs[n]) };
        }
        self.unpack_scales(out);
    }
}

unsafe impl Staged for BlockIQ3XXS {
    #[inline(always)]
    unsafe fn stage<S: Simd>(&self, out: &mut Unit) {
        let signs = unsafe { S::even_signs(self.bits()) };
        for (n, out) in blocks(out).iter_mut().enumerate() {
            let g = |l: usize| &grids::IQ3_XXS[usize::from(self.qs[8 * n + l])];
            let grid = [g(0), g(1), g(2), g(3), g(4), g(5), g(6), g(7)];
            unsafe { S::write_signed(out, grid, signs[n]) };
        }
        self.unpack_scales(out);
    }
}

unsafe impl Staged for BlockIQ3S {
    #[inline(always)]
    unsafe fn stage<S: Simd>(&self, out: &mut Unit) {
        let signs = words(&self.signs);
        let indices = unsafe { S::ninth_bits(&self.qs, u64::from_le_bytes(self.qh)) };
        for (n, out) in blocks(out).iter_mut().enumerate() {
            // SAFETY: the indices have 9 bits, the grid as many rows as that allows. (With a mask, the
            // compiler reads them into a vector and takes them from there one by one.)
            let g = |l: usize| unsafe {
                let index = usize::from(indices[8 * n + l]);
                debug_assert!(index < grids::IQ3_S.len());
                grids::IQ3_S.get_unchecked(index)
            };
            let grid = [g(0), g(1), g(2), g(3), g(4), g(5), g(6), g(7)];
            unsafe { S::write_signed(out, grid, signs[n]) };
        }
        self.unpack_scales(out);
    }
}

/// Units of 256 weights with scales for each `SUB`.
pub struct Unpacked<const SUB: usize>;

// SAFETY: the memory is used as `Source` says, the registers as `Simd` says.
unsafe impl<const SUB: usize> Source for Unpacked<SUB> {
    const UNIT: usize = 256;
    const SUB: usize = SUB;
    const HAS_MIN: bool = false;
    const ZERO: i32 = 0;
    const SIGNED: bool = true;
    const TOP: i32 = 127;

    #[inline(always)]
    fn unit(rows: Rows, _: usize) -> Rows {
        rows
    }

    #[inline(always)]
    unsafe fn open<S: Simd>(
        p: Rows,
        u: usize,
        stage: *mut u8,
        unpack: Option<Unpack>,
    ) -> Params<S> {
        unsafe {
            let mut params = Params::<S>::zero();
            let Some(unpack) = unpack else { return params };
            unpack(p, u, stage);
            let scales = stage.add(offset_of!(Stage, scales));
            params.packed = S::gather_words(Rows::new(scales, 16), 0);
            params.d = S::load(stage.add(offset_of!(Stage, d)).cast());
            params
        }
    }

    #[inline(always)]
    unsafe fn scale<S: Simd>(packed: &Packed<S>, _: *const u8, j: usize) -> S::I {
        // Those of 32 weights are there twice.
        let j = j * SUB / 16;
        unsafe { bits_of::<S>(packed[j / 4], 8 * (j % 4) as i32, 8) }
    }

    #[inline(always)]
    unsafe fn min<S: Simd>(_: &Packed<S>, _: usize) -> S::F {
        unsafe { S::splat(0.0) }
    }

    #[inline(always)]
    unsafe fn codes<S: Simd, const J: usize>(
        _: Rows,
        _: usize,
        stage: *const u8,
        _: &mut Cache<S>,
    ) -> Words<S> {
        unsafe { load_32::<S>(Rows::new(stage, size_of::<Unit>()), offset_of!(Unit, q) + 32 * J) }
    }
}
