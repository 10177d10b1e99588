//! Units of 256 weights unpacked to memory, for formats whose codes are looked up in tables (a register
//! of rows cannot look up anything but in small ones), and TQ1_0's digits. They share the kernels of
//! their shape, which call [`Unpack`], so that these are compiled for two shapes, not for each format.

#![allow(clippy::undocumented_unsafe_blocks, reason = "each block is its caller's promise")]
#![allow(clippy::missing_safety_doc, reason = "the trait's Safety section covers its methods")]

use std::mem::offset_of;

use super::codes::load_32;
use super::source::{Cache, Packed, Params, Source, Words};
use crate::formats::{
    BlockIQ1M, BlockIQ1S, BlockIQ2S, BlockIQ2XS, BlockIQ2XXS, BlockIQ3S, BlockIQ3XXS, BlockTQ1_0,
};
use crate::formats::{IntBlock, grids};
use crate::simd::{MAX_ROWS, Rows, Simd};

/// Unpacked units of a register's rows.
#[repr(C, align(64))]
struct Stage {
    codes: [UnitCodes; MAX_ROWS],
    /// As [`Staged::scales`] has them: the first 8, then the others.
    scales: [[u32; MAX_ROWS]; 2],
    d: [f32; MAX_ROWS],
}

/// The codes of a unit.
type UnitCodes = [[i8; 32]; 8];

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
    const { assert!(B::LEN == 256 && B::UNIT == 256 && !B::HAS_MIN) };
    unsafe {
        let stage = &mut *stage.cast::<Stage>();
        let mut d = [0; MAX_ROWS];
        for r in 0..S::ROWS {
            // A block has the alignment of a byte.
            let block = &*rows.row(r).cast::<B>().add(u);
            block.codes::<S>(&mut stage.codes[r]);
            let scales = block.scales();
            stage.scales[0][r] = scales as u32;
            if B::SUB == 16 {
                stage.scales[1][r] = (scales >> 32) as u32;
            }
            d[r] = i32::from(u16::from_le_bytes(block.d_bytes()));
        }
        // All at once, by the instruction for it.
        let d = S::mul(S::low_f16(S::load_i(d.as_ptr())), S::splat(B::FACTOR));
        S::store(stage.d.as_mut_ptr(), d);
    }
}

/// A format whose units are unpacked to memory: its blocks, which are of 256 weights.
///
/// # Safety
/// The method [`codes`](Self::codes) is to be called where the CPU has the instructions of `S`. Who
/// implements it keeps to what `S` can.
pub unsafe trait Staged: IntBlock {
    /// What [`Unit::d`](crate::formats::Unit::d) is of the half-precision scale: a power of two.
    const FACTOR: f32;

    /// The codes, as [`IntBlock::unpack`] gives them.
    unsafe fn codes<S: Simd>(&self, out: &mut UnitCodes);
    /// 4 bits for each [`SUB`](IntBlock::SUB) weights, from the low ones up. Twice that, and 1, is the
    /// scale.
    fn scales(&self) -> u64;
    /// The half-precision scale.
    fn d_bytes(&self) -> [u8; 2];
}

/// What is the same of most.
macro_rules! scales {
    ($factor:literal) => {
        const FACTOR: f32 = $factor;
        #[inline(always)]
        fn scales(&self) -> u64 {
            u64::from(self.scales())
        }
        #[inline(always)]
        fn d_bytes(&self) -> [u8; 2] {
            self.d
        }
    };
}

unsafe impl Staged for BlockTQ1_0 {
    const FACTOR: f32 = 1.0;
    #[inline(always)]
    unsafe fn codes<S: Simd>(&self, out: &mut UnitCodes) {
        if let [codes] = out.as_flattened_mut().as_chunks_mut().0 {
            self.digits(codes);
        }
    }
    #[inline(always)]
    fn scales(&self) -> u64 {
        0
    }
    #[inline(always)]
    fn d_bytes(&self) -> [u8; 2] {
        self.d
    }
}

/// Row `index` of a grid. (Not checked: with a mask or a bound, the compiler reads many indices into a
/// vector and takes them from there one by one.)
///
/// # Safety
/// The index has `BITS` bits.
#[inline(always)]
unsafe fn row<const BITS: u32, const N: usize, const ROWS: usize>(
    grid: &[[i8; N]; ROWS],
    index: u16,
) -> &[i8; N] {
    const { assert!(ROWS == 1 << BITS) };
    debug_assert!(usize::from(index) < ROWS);
    unsafe { grid.get_unchecked(usize::from(index)) }
}

/// Leaves numbers in memory that are used one by one. (The compiler would keep them in a vector, and take
/// each from there in two instructions where a load is part of one. Where that was measured to be slower,
/// as of the signs of IQ2_XXS and IQ3_XXS, it is not done.)
#[inline(always)]
fn stored<T>(numbers: &T) -> &T {
    std::hint::black_box(numbers)
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
    scales!(0.125);
    #[inline(always)]
    unsafe fn codes<S: Simd>(&self, out: &mut UnitCodes) {
        for (n, out) in out.iter_mut().enumerate() {
            let qh = u16::from_le_bytes(self.qh[n]);
            let grid = |l: usize| {
                &grids::IQ1[usize::from(self.qs[4 * n + l]) | usize::from(qh >> (3 * l) & 7) << 8]
            };
            // Minus 1, or 1.
            let by = (qh as i16 >> 15) as u8 | 1;
            let grid = [grid(0), grid(1), grid(2), grid(3)];
            unsafe { S::write_moved(out, grid, u32::from_le_bytes([by; 4])) };
        }
    }
}

unsafe impl Staged for BlockIQ1M {
    const FACTOR: f32 = 0.125;
    #[inline(always)]
    fn scales(&self) -> u64 {
        self.scales()
    }
    #[inline(always)]
    fn d_bytes(&self) -> [u8; 2] {
        self.d_bytes()
    }
    #[inline(always)]
    unsafe fn codes<S: Simd>(&self, out: &mut UnitCodes) {
        let qh = self.qh.as_chunks().0;
        let mut high = [0; 8];
        for (high, qh) in high.iter_mut().zip(qh) {
            *high = u16::from_le_bytes(*qh);
        }
        let indices = unsafe { S::indices(&self.qs, high) };
        let indices = stored(&indices);
        // The upper bit of each nibble to a byte: all bits of one for minus 1, the lowest for 1.
        let mut by = [0; 8];
        for (by, high) in by.iter_mut().zip(high) {
            let high = u32::from(high);
            let bits = high >> 3 & 1 | (high & 0x80) << 1 | (high & 0x800) << 5;
            let bits = bits | (high & 0x8000) << 9;
            *by = 0x0101_0101 | ((bits << 8).wrapping_sub(bits));
        }
        let by = stored(&by);
        for (n, out) in out.iter_mut().enumerate() {
            let grid = |l: usize| unsafe { row::<11, _, _>(&grids::IQ1, indices[4 * n + l]) };
            unsafe { S::write_moved(out, [grid(0), grid(1), grid(2), grid(3)], by[n]) };
        }
    }
}

unsafe impl Staged for BlockIQ2XXS {
    scales!(0.125);
    #[inline(always)]
    unsafe fn codes<S: Simd>(&self, out: &mut UnitCodes) {
        let signs = unsafe { S::even_signs(self.bits()) };
        for (n, out) in out.iter_mut().enumerate() {
            let grid = |l: usize| &grids::IQ2_XXS[usize::from(self.qs[n][l])];
            unsafe { S::write_signed(out, [grid(0), grid(1), grid(2), grid(3)], signs[n]) };
        }
    }
}

unsafe impl Staged for BlockIQ2XS {
    scales!(0.125);
    #[inline(always)]
    unsafe fn codes<S: Simd>(&self, out: &mut UnitCodes) {
        let mut signs = [0; 32];
        for (signs, [_, code]) in signs.iter_mut().zip(self.qs) {
            *signs = code >> 1;
        }
        let signs = unsafe { S::eighth_signs(words(&signs)) };
        let signs = stored(&signs);
        for (n, out) in out.iter_mut().enumerate() {
            let grid = |l: usize| {
                let code = u16::from_le_bytes(self.qs[4 * n + l]);
                &grids::IQ2_XS[usize::from(code & 511)]
            };
            unsafe { S::write_signed(out, [grid(0), grid(1), grid(2), grid(3)], signs[n]) };
        }
    }
}

unsafe impl Staged for BlockIQ2S {
    scales!(0.125);
    #[inline(always)]
    unsafe fn codes<S: Simd>(&self, out: &mut UnitCodes) {
        let [indices, signs] = [&self.qs.as_chunks().0[0], &self.qs.as_chunks().0[1]];
        let signs = words(signs);
        for (n, out) in out.iter_mut().enumerate() {
            let high = usize::from(self.qh[n]) << 8;
            let grid =
                |l: usize| &grids::IQ2_S[usize::from(indices[4 * n + l]) | high >> (2 * l) & 0x300];
            unsafe { S::write_signed(out, [grid(0), grid(1), grid(2), grid(3)], signs[n]) };
        }
    }
}

unsafe impl Staged for BlockIQ3XXS {
    scales!(0.25);
    #[inline(always)]
    unsafe fn codes<S: Simd>(&self, out: &mut UnitCodes) {
        let signs = unsafe { S::even_signs(self.bits()) };
        for (n, out) in out.iter_mut().enumerate() {
            let g = |l: usize| &grids::IQ3_XXS[usize::from(self.qs[8 * n + l])];
            let grid = [g(0), g(1), g(2), g(3), g(4), g(5), g(6), g(7)];
            unsafe { S::write_signed(out, grid, signs[n]) };
        }
    }
}

unsafe impl Staged for BlockIQ3S {
    scales!(1.0);
    #[inline(always)]
    unsafe fn codes<S: Simd>(&self, out: &mut UnitCodes) {
        let signs = words(&self.signs);
        let indices = unsafe { S::ninth_bits(&self.qs, u64::from_le_bytes(self.qh)) };
        for (n, out) in out.iter_mut().enumerate() {
            let g = |l: usize| unsafe { row::<9, _, _>(&grids::IQ3_S, indices[8 * n + l]) };
            let grid = [g(0), g(1), g(2), g(3), g(4), g(5), g(6), g(7)];
            unsafe { S::write_signed(out, grid, signs[n]) };
        }
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
            let scales = stage.add(offset_of!(Stage, scales)).cast::<i32>();
            params.packed[0] = S::load_i(scales);
            if SUB == 16 {
                params.packed[1] = S::load_i(scales.add(MAX_ROWS));
            }
            params.d = S::load(stage.add(offset_of!(Stage, d)).cast());
            params
        }
    }

    #[inline(always)]
    unsafe fn scale<S: Simd>(packed: &Packed<S>, j: usize) -> S::I {
        unsafe {
            let (bits, at) = (packed[j / 8], 4 * (j % 8) as i32);
            let twice = if at == 0 { S::shl_i(bits, 1) } else { S::shr_i(bits, at - 1) };
            S::or_i(S::and_i(twice, S::splat_i(30)), S::splat_i(1))
        }
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
        unsafe {
            load_32::<S>(
                Rows::new(stage.add(offset_of!(Stage, codes)), size_of::<UnitCodes>()),
                32 * J,
            )
        }
    }
}
