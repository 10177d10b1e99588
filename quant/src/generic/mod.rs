//! Kernel bodies that every level shares.
//!
//! [`gemm_scalar`] is the reference: one element at a time. [`gemm`] is written over
//! [`Simd`] and compiled for each level by `instantiate_gemm!`: up to
//! [`FEW`](crate::act::FEW) columns go through [`gemv`], more through a [`panel`]. Formats say how their
//! bits become registers in [`codes`], or are unpacked to memory first ([`staged`]).

pub mod codes;
pub mod gemv;
pub mod panel;
pub mod source;
pub mod staged;

use crate::act::Sums;
use crate::formats::{IntBlock, Unit};
use crate::simd::{MAX_ROWS, Rows, Simd, WORDS};
use crate::table::{GemmArgs, KernelTable, Kernels};
use crate::types::GgmlType;

/// The matrix product of a format, one element at a time: the reference that every other kernel
/// is compared with.
///
/// # Safety
/// As for [`GemmFn`](crate::table::GemmFn); the layout's type is the format's.
#[allow(clippy::undocumented_unsafe_blocks, reason = "each block is the caller's promise")]
#[inline(always)]
pub unsafe fn gemm_scalar<B: IntBlock>(args: &mut GemmArgs<'_>) {
    let layout = args.layout;
    let mut unit = Unit::default();
    let units = B::LEN / B::UNIT;
    // Units of 16 are half of what an activation scale covers.
    let step = B::UNIT.min(32);
    for row in args.rows.clone() {
        let blocks: *const B = unsafe { args.w.add(row * args.row_bytes).cast() };
        for col in 0..args.n {
            let (group, c) = (col / layout.group, col % layout.group);
            let x = args.act.wrapping_add(group * layout.stride);
            let value = |section: usize, i: usize| x.wrapping_add(layout.value(section, i, c));
            let total = if B::SUB == 16 { layout.total16 } else { layout.total32 };
            let mut acc = 0.0f32;
            for u in 0..layout.k / B::UNIT {
                let block = unsafe { blocks.add(u / units).read_unaligned() };
                block.unpack(u % units, &mut unit);
                let (mut inner, mut min) = (0.0f32, 0.0f32);
                for j in (0..B::UNIT).step_by(step) {
                    let at = u * B::UNIT + j;
                    let mut isum = 0i32;
                    for i in 0..step {
                        let a = i32::from(unsafe {
                            *x.add(layout.codes((at + i) / 32, c) + (at + i) % 32).cast::<i8>()
                        });
                        isum += i32::from(unit.scale[(j + i) / 16]) * i32::from(unit.q[j + i]) * a;
                    }
                    let d = unsafe { *value(layout.d, at / 32).cast::<f32>() };
                    inner = d.mul_add(isum as f32, inner);
                    if B::HAS_MIN {
                        for i in (0..32).step_by(B::SUB) {
                            let total = unsafe { *value(total, (at + i) / B::SUB).cast::<f32>() };
                            min = f32::from(unit.min[(j + i) / 16]).mul_add(total, min);
                        }
                    }
                }
                acc = unit.d.mul_add(inner, acc);
                if B::HAS_MIN {
                    acc = unit.dmin.mul_add(min, acc);
                }
            }
            unsafe { *args.out.add(col * args.ldo + row) = acc };
        }
    }
}

/// [`gemv::rows`] of a format and a number of columns, with the conditions that it has.
pub(crate) type Few = unsafe fn(&mut GemmArgs<'_>, Tile, usize) -> usize;

/// [`panel::rows`] of a format, with the conditions that it has.
type Many = unsafe fn(&mut GemmArgs<'_>, usize) -> usize;

/// How many of `left` columns are computed at once, where up to `most` are: 1, 2, 4 or 8, since each
/// width is compiled for each format and level. What is computed past the last column costs less than
/// another turn; of 5 it would not.
const fn width(left: usize, most: usize) -> usize {
    match left {
        1 | 2 => left,
        6.. if most >= 8 => 8,
        _ => 4,
    }
}

/// The matrix product by the instructions of `S`. `few` are its [`gemv::rows`] of 1, 2, 4 and
/// [`Simd::COLUMNS`] columns, `near` those of one column where a tile is within
/// [`near_bytes`](GemmArgs::near_bytes), as [`NEAR`](gemv::NEAR) and as [`LONG`](gemv::LONG); `many` its
/// [`panel::rows`] of one tile and of [`panel::tall`]. They are functions of their own: in one, what the
/// compiler does with the registers of a kernel changes with every other.
///
/// # Safety
/// As for [`GemmFn`](crate::table::GemmFn); the layout's type is the format's.
#[inline(always)]
pub unsafe fn gemm<S: Simd, T: source::Source>(
    args: &mut GemmArgs<'_>,
    few: &[Few; 4],
    near: &[Few; 2],
    many: &[Many; 2],
) {
    let mut few = *few;
    let tile_bytes = S::ROWS * args.row_bytes;
    if tile_bytes <= args.near_bytes {
        few[0] = near[usize::from(tile_bytes > gemv::LONG_TILE)];
    }
    let mut row = args.rows.start;
    while row < args.rows.end {
        // SAFETY: the rows are within the matrix, the rest is the caller's promise.
        row += unsafe {
            if args.layout.group > 1 {
                let left = args.rows.end - row;
                let tall = args.n >= panel::MANY && left >= panel::tall_rows::<S, T>();
                many[usize::from(tall)](args, row)
            } else {
                let tile = Tile::new::<S>(args, row);
                let mut col = 0;
                while col < args.n {
                    // There is room for the columns: see the test below.
                    let width = width(args.n - col, S::COLUMNS);
                    col += few[width.ilog2() as usize](args, tile, col);
                }
                tile.n
            }
        }
    }
}

/// Rows that are computed together, as many as a register has lanes. The results of the last `n` are
/// wanted.
#[derive(Clone, Copy)]
pub struct Tile {
    rows: Rows,
    /// The first row whose result is wanted.
    row: usize,
    n: usize,
}

impl Tile {
    /// The tile of `row`, which is within `args.rows`.
    #[inline(always)]
    fn new<S: Simd>(args: &GemmArgs<'_>, row: usize) -> Tile {
        let end = args.rows.end;
        let (first, stride, n) = if end - row >= S::ROWS {
            (row, args.row_bytes, S::ROWS)
        } else if end >= S::ROWS {
            // The last tile of a matrix begins with rows of the one before.
            (end - S::ROWS, args.row_bytes, end - row)
        } else {
            // A matrix of fewer rows than lanes: each row in every lane.
            (row, 0, 1)
        };
        Tile { rows: Rows::new(args.w.wrapping_add(first * args.row_bytes), stride), row, n }
    }

    /// Writes the results that are wanted, to `p` and what follows.
    #[inline(always)]
    unsafe fn store<S: Simd>(self, p: *mut f32, v: S::F) {
        // SAFETY: the caller's promise.
        unsafe {
            if self.n == S::ROWS {
                return S::store(p, v);
            }
            let mut x = [0.0; MAX_ROWS];
            S::store(x.as_mut_ptr(), v);
            std::ptr::copy_nonoverlapping(x.as_ptr().add(S::ROWS - self.n), p, self.n);
        }
    }

    /// Reads what [`store`](Self::store) wrote.
    #[inline(always)]
    unsafe fn load<S: Simd>(self, p: *const f32) -> S::F {
        // SAFETY: the caller's promise.
        unsafe {
            if self.n == S::ROWS {
                return S::load(p);
            }
            let mut x = [0.0; MAX_ROWS];
            std::ptr::copy_nonoverlapping(p, x.as_mut_ptr().add(S::ROWS - self.n), self.n);
            S::load(x.as_ptr())
        }
    }
}

/// See [`PeakFn`](crate::table::PeakFn): the products of panels, without scales.
///
/// # Safety
/// As there.
#[inline(always)]
pub unsafe fn peak<S: Simd>(turns: u64) -> u64 {
    const { assert!(matches!((S::TALL, S::COLUMNS), (1, 4 | 8) | (3, 8)), "others are not measured") };
    // SAFETY: the caller's promise.
    unsafe {
        match const { (S::TALL, S::COLUMNS) } {
            (1, 8) => peak_of::<S, 1, 8>(turns),
            (1, 4) => peak_of::<S, 1, 4>(turns),
            _ => peak_of::<S, 3, 4>(turns),
        }
    }
}

/// Memory as panels and activations have it.
#[repr(align(64))]
struct Aligned<T>(T);

/// [`peak`] of `R` registers of rows and `C` columns.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn peak_of<S: Simd, const R: usize, const C: usize>(turns: u64) -> u64 {
    const { assert!(R <= 3 && C <= 8) };
    // A register's codes.
    let apart = 32 * S::ROWS;
    let w = Aligned([1u8; 3 * 32 * MAX_ROWS]);
    let a = Aligned([1u8; 32 * 8]);
    for _ in 0..turns {
        // Other places each time, so that nothing can be computed once for all; and the sums are wanted, by
        // nothing that takes a multiplier's time.
        let (w, a) = std::hint::black_box((w.0.as_ptr(), a.0.as_ptr()));
        // SAFETY: the arrays hold `R` registers' codes and `C` columns; the rest is the caller's promise.
        let sums = unsafe { S::tiles::<R, C, WORDS>(w, apart, a, false, 15) };
        std::hint::black_box(&sums);
    }
    // Each word is 4 multiplications and 4 additions in each row.
    turns * (R * C * WORDS * S::ROWS * 8) as u64
}

/// Calls `$do!` for each 32 weights of a unit of `$source`, with literals, since codes are unpacked by
/// their place in it.
macro_rules! for_blocks {
    ($source:ident, $do:ident) => {
        $do!(0);
        if $source::UNIT > 32 {
            $do!(1);
            $do!(2);
            $do!(3);
            $do!(4);
            $do!(5);
            $do!(6);
            $do!(7);
        }
    };
}
use for_blocks;

macro_rules! install_int {
    ([$table:ident] $( ($variant:ident, $block:ident) )*) => {
        $( $table.set(
            GgmlType::$variant,
            Kernels {
                act: GgmlType::$variant.info().act,
                gemm: gemm_scalar::<crate::formats::$block>,
                rows: 1,
                // It takes codes for what they stand for.
                sums: Sums::of(
                    <crate::formats::$block as IntBlock>::SUB,
                    false,
                    <crate::formats::$block as IntBlock>::HAS_MIN,
                ),
            },
        ); )*
    };
}

/// Installs kernels for every format with integer codes.
pub(crate) fn install_scalar(table: &mut KernelTable) {
    crate::for_each_format! { install_int [table] }
}

/// Compiles the products of all formats for a level: a module with a function `install`.
macro_rules! instantiate_gemm {
    ($module:ident, $simd:ty, $(#[$attr:meta])*) => {
        mod $module {
            use $crate::formats::*;
            use $crate::generic::gemv::{FAR, LONG, NEAR};
            use $crate::generic::source::{self, Direct, Parts, Source};
            use $crate::generic::staged::{Staged, Unpacked};
            use $crate::generic::{Few, Tile, panel};
            use $crate::lanes::Prefetch;
            use $crate::simd::Rows;
            use $crate::table::{GemmArgs, KernelTable, Kernels};
            use $crate::types::GgmlType;

            type S = $simd;

            $(#[$attr])*
            #[inline(never)]
            unsafe fn few<T: Source, const C: usize, const FETCH: u8>(
                args: &mut GemmArgs<'_>,
                tile: Tile,
                col: usize,
            ) -> usize {
                // SAFETY: the caller's promise.
                unsafe { $crate::generic::gemv::rows::<S, T, C, FETCH>(args, tile, col) }
            }

            $(#[$attr])*
            #[inline(never)]
            unsafe fn many<T: Source, const R: usize>(args: &mut GemmArgs<'_>, row: usize) -> usize {
                // SAFETY: the caller's promise.
                unsafe { panel::rows::<S, T, R>(args, row) }
            }

            $(#[$attr])*
            unsafe fn gemm<T: Source>(args: &mut GemmArgs<'_>) {
                let eight = if const { <S as $crate::simd::Simd>::COLUMNS >= 8 } {
                    few::<T, 8, FAR>
                } else {
                    few::<T, 4, FAR>
                };
                let near: [Few; 2] = if const { <S as Prefetch>::NEAR && <S as Prefetch>::ASKS > 1 } {
                    [few::<T, 1, NEAR>, few::<T, 1, LONG>]
                } else if const { <S as Prefetch>::NEAR } {
                    [few::<T, 1, NEAR>; 2]
                } else {
                    [few::<T, 1, FAR>; 2]
                };
                let few = [few::<T, 1, FAR>, few::<T, 2, FAR>, few::<T, 4, FAR>, eight];
                let tall = match const { panel::tall::<S, T>() } {
                    3 => many::<T, 3>,
                    2 => many::<T, 2>,
                    _ => many::<T, 1>,
                };
                // SAFETY: the caller's promise.
                unsafe { $crate::generic::gemm::<S, T>(args, &few, &near, &[many::<T, 1>, tall]) }
            }

            $(#[$attr])*
            unsafe fn unpack<B: Staged>(rows: Rows, u: usize, stage: *mut u8) {
                // SAFETY: the caller's promise.
                unsafe { $crate::generic::staged::unpack::<S, B>(rows, u, stage) }
            }

            $(#[$attr])*
            unsafe fn unpacked<B: Staged>(args: &mut GemmArgs<'_>) {
                args.unpack = Some(unpack::<B>);
                // SAFETY: the caller's promise.
                unsafe {
                    match B::SUB {
                        16 => gemm::<Unpacked<16>>(args),
                        _ => gemm::<Unpacked<32>>(args),
                    }
                }
            }

            /// The kernels of weights that are unpacked in registers.
            fn direct<T: Source>(ty: GgmlType) -> Kernels {
                let (rows, sums) = (panel::tall_rows::<S, T>(), source::sums::<S, T>());
                Kernels { act: ty.info().act, gemm: gemm::<T>, rows, sums }
            }

            /// The kernels of weights that are unpacked to memory.
            fn staged<B: Staged>(ty: GgmlType) -> Kernels {
                let like = match B::SUB {
                    16 => direct::<Unpacked<16>>,
                    _ => direct::<Unpacked<32>>,
                };
                Kernels { gemm: unpacked::<B>, ..like(ty) }
            }

            $(#[$attr])*
            unsafe fn peak(turns: u64) -> u64 {
                // SAFETY: the caller's promise.
                unsafe { $crate::generic::peak::<S>(turns) }
            }

            /// Installs the products.
            pub fn install(table: &mut KernelTable) {
                table.set_peak(peak);
                let mut set = |ty: GgmlType, kernels: fn(GgmlType) -> Kernels| {
                    table.set(ty, kernels(ty));
                };
                set(GgmlType::Q4_0, direct::<Direct<BlockQ4_0>>);
                set(GgmlType::Q4_1, direct::<Direct<BlockQ4_1>>);
                set(GgmlType::Q5_0, direct::<Direct<BlockQ5_0>>);
                set(GgmlType::Q5_1, direct::<Direct<BlockQ5_1>>);
                set(GgmlType::Q8_0, direct::<Direct<BlockQ8_0>>);
                set(GgmlType::IQ4_NL, direct::<Direct<BlockIQ4NL>>);
                set(GgmlType::MXFP4, direct::<Direct<BlockMXFP4>>);
                set(GgmlType::Q2_K, direct::<Direct<BlockQ2K>>);
                set(GgmlType::Q3_K, direct::<Direct<BlockQ3K>>);
                set(GgmlType::Q4_K, direct::<Direct<BlockQ4K>>);
                set(GgmlType::Q5_K, direct::<Direct<BlockQ5K>>);
                set(GgmlType::Q6_K, direct::<Direct<BlockQ6K>>);
                set(GgmlType::IQ4_XS, direct::<Direct<BlockIQ4XS>>);
                set(GgmlType::IQ1_S, staged::<BlockIQ1S>);
                set(GgmlType::IQ1_M, staged::<BlockIQ1M>);
                set(GgmlType::IQ2_XXS, staged::<BlockIQ2XXS>);
                set(GgmlType::IQ2_XS, staged::<BlockIQ2XS>);
                set(GgmlType::IQ2_S, staged::<BlockIQ2S>);
                set(GgmlType::IQ3_XXS, staged::<BlockIQ3XXS>);
                set(GgmlType::IQ3_S, staged::<BlockIQ3S>);
                set(GgmlType::TQ1_0, staged::<BlockTQ1_0>);
                set(GgmlType::TQ2_0, direct::<Direct<BlockTQ2_0>>);
                set(GgmlType::Q1_0, direct::<Parts<BlockQ1_0>>);
                set(GgmlType::Q2_0, direct::<Parts<BlockQ2_0>>);
                set(GgmlType::NVFP4, direct::<Parts<BlockNVFP4>>);
            }
        }
    };
}
pub(crate) use instantiate_gemm;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::act::{ActLayout, FEW};
    use crate::types::Act;

    /// What is read past the last column is memory of the activations.
    #[test]
    fn there_is_room_for_the_columns_that_are_computed() {
        for most in [4, 8] {
            for n in 1..=FEW {
                let layout = ActLayout::new(Act::Q8, Sums::ALL, 256, n);
                let mut col = 0;
                while col < n {
                    let width = width(n - col, most);
                    assert!([1, 2, 4, most].contains(&width));
                    assert!((col + width) * layout.stride <= layout.bytes(n), "{n} {col} {width}");
                    col += width;
                }
            }
        }
    }
}
