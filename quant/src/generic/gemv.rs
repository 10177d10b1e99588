//! One column: 16 rows in flight, lanes are rows after a joint reduction.

#![allow(clippy::undocumented_unsafe_blocks, reason = "each block is its caller's promise")]

use super::source::{ROWS, Source, Units};
use crate::formats::IntBlock;
use crate::simd::Simd;
use crate::table::GemmArgs;

/// Asks for the lines of `bytes` bytes at `p`.
#[inline(always)]
unsafe fn prefetch<S: Simd>(p: *const u8, bytes: usize) {
    let mut i = 0;
    while i < bytes {
        // Past the end of the weights a prefetch does nothing: addresses need not be valid.
        unsafe { S::prefetch(p.wrapping_add(i)) };
        i += 64;
    }
}

/// Rows `row..row + n` (up to 16) of the weights times column `col`.
///
/// # Safety
/// As for [`GemmFn`](crate::table::GemmFn).
#[inline(always)]
pub unsafe fn rows<S: Simd, T: Source>(args: &mut GemmArgs<'_>, row: usize, n: usize, col: usize) {
    unsafe {
        let stage = args.scratch.as_mut_ptr();
        let layout = args.layout;
        let x = args.act.add(col * layout.stride);
        let first = args.w.add(row * args.row_bytes);
        // Rows past the end repeat the last one; their results are not stored.
        let p: Units = std::array::from_fn(|r| first.add(r.min(n - 1) * args.row_bytes));
        // The rows of the next tile, as one run of bytes: 16 short streams are too many for the
        // hardware to follow.
        let next = first.wrapping_add(ROWS * args.row_bytes);
        let units = layout.k / T::UNIT;
        let step = ROWS * args.row_bytes / units;
        let mut acc = S::splat(0.0);
        for u in 0..units {
            prefetch::<S>(next.wrapping_add(u * step), step);
            let p: Units = std::array::from_fn(|r| T::unit(p[r], u));
            let params = T::open::<S>(&p, u, stage);
            let at = u * (T::UNIT / 32);
            let mut inner = S::splat(0.0);
            for j in 0..T::UNIT / 32 {
                let a = S::load_b(x.add(32 * (at + j)));
                let mut dots = [S::zero(); ROWS];
                for (r, dot) in dots.iter_mut().enumerate() {
                    let codes = T::codes::<S>(&p, r, j, stage);
                    *dot = if T::SIGNED { S::dot_s(codes, a) } else { S::dot_u(codes, a) };
                }
                let zero = |section: usize, i: usize| {
                    S::splat_i(-T::ZERO * *x.add(section).cast::<i32>().add(i))
                };
                let isum = if T::Block::SUB == 16 {
                    let mut halves = S::reduce_halves(dots);
                    for (i, half) in halves.iter_mut().enumerate() {
                        if T::ZERO != 0 {
                            *half = S::add_i(*half, zero(layout.sum16, 2 * (at + j) + i));
                        }
                        *half = S::mul_i(*half, params.scale[2 * j + i]);
                    }
                    S::add_i(halves[0], halves[1])
                } else {
                    let mut sum = S::reduce(dots);
                    if T::ZERO != 0 {
                        sum = S::add_i(sum, zero(layout.sum32, at + j));
                    }
                    if T::SCALED { S::mul_i(sum, params.scale[j]) } else { sum }
                };
                let d = S::splat(*x.add(layout.d).cast::<f32>().add(at + j));
                inner = S::fma(d, S::to_f32(isum), inner);
            }
            acc = S::fma(params.d, inner, acc);
            if T::Block::HAS_MIN {
                acc = S::fma(params.dmin, min::<S, T>(&params.min, x, layout, u), acc);
            }
        }
        let out = args.out.add(col * args.ldo + row);
        if n == ROWS {
            S::store(out, acc);
        } else {
            let acc = S::to_array(acc);
            std::ptr::copy_nonoverlapping(acc.as_ptr(), out, n);
        }
    }
}

/// The minimums of unit `u`.
#[inline(always)]
unsafe fn min<S: Simd, T: Source>(
    mins: &[S::V; 16],
    x: *const u8,
    layout: &crate::act::ActLayout,
    u: usize,
) -> S::V {
    unsafe {
        let section = if T::Block::SUB == 16 { layout.total16 } else { layout.total32 };
        let total = x.add(section).cast::<f32>().add(u * T::SUBS);
        if !T::SCALED {
            return S::splat(*total);
        }
        let mut min = S::splat(0.0);
        for j in 0..T::SUBS {
            min = S::fma(mins[j], S::splat(*total.add(j)), min);
        }
        min
    }
}
