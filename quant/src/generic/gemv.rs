//! Few columns: the weights of a register's rows are unpacked into registers and used at once.

#![allow(clippy::undocumented_unsafe_blocks, reason = "each block is its caller's promise")]

use super::source::{Cache, Params, Source, Units, codes, flipped, less_zero};
use super::store_rows;
use crate::act::ActLayout;
use crate::simd::Simd;
use crate::table::GemmArgs;

/// How far ahead of their use weights are asked for, in bytes. Half as much is slower where memory
/// is the limit (a fifth on a Zen 4), twice as much too, since it runs into other threads' rows.
const AHEAD: usize = 16 * 1024;

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

/// Rows `row..row + n` (up to [`Simd::ROWS`]) of the weights times columns `col..col + C`.
///
/// # Safety
/// As for [`GemmFn`](crate::table::GemmFn); the layout is of single columns.
#[inline(always)]
pub unsafe fn rows<S: Simd, T: Source, const C: usize>(
    args: &mut GemmArgs<'_>,
    row: usize,
    n: usize,
    col: usize,
) {
    unsafe {
        let stage = args.scratch.as_mut_ptr();
        let layout = args.layout;
        let x: [*const u8; C] = std::array::from_fn(|c| args.act.add((col + c) * layout.stride));
        let first = args.w.add(row * args.row_bytes);
        // Rows past the end repeat the last one; their results are not stored.
        let p: Units = std::array::from_fn(|r| first.add(r.min(n - 1) * args.row_bytes));
        // Rows lie one after the other: they are asked for as one run of bytes, since 16 short
        // streams are too many for the hardware to follow.
        let ahead = first.wrapping_add(AHEAD);
        if col == 0 && row == args.rows.start {
            prefetch::<S>(first, AHEAD);
        }
        let units = layout.k / T::UNIT;
        let step = S::ROWS * args.row_bytes / units;
        let mut acc = [S::splat(0.0); C];
        for u in 0..units {
            if col == 0 {
                prefetch::<S>(ahead.wrapping_add(u * step), step);
            }
            let p: Units = std::array::from_fn(|r| T::unit(p[r], u));
            let params = T::open::<S>(&p, u, stage, args.unpack);
            let mut part =
                Part { p: &p, stage, params: &params, layout, x, u, inner: [S::splat(0.0); C] };
            let mut cache = Cache::new();
            part.step::<T, 0>(&mut cache);
            if T::UNIT > 32 {
                part.step::<T, 1>(&mut cache);
                part.step::<T, 2>(&mut cache);
                part.step::<T, 3>(&mut cache);
                part.step::<T, 4>(&mut cache);
                part.step::<T, 5>(&mut cache);
                part.step::<T, 6>(&mut cache);
                part.step::<T, 7>(&mut cache);
            }
            let inner = part.inner;
            for c in 0..C {
                acc[c] = S::fma(params.d, inner[c], acc[c]);
                if T::HAS_MIN {
                    let min = min::<S, T>(&params.min, x[c], layout, u);
                    acc[c] = S::fma(params.dmin, min, acc[c]);
                }
            }
        }
        for c in 0..C {
            store_rows::<S>(args.out.add((col + c) * args.ldo + row), n, acc[c]);
        }
    }
}

/// Unit `u` of the rows and `C` columns.
struct Part<'a, S: Simd, const C: usize> {
    p: &'a Units,
    stage: *const u8,
    params: &'a Params<S>,
    layout: &'a ActLayout,
    x: [*const u8; C],
    u: usize,
    inner: [S::F; C],
}

impl<S: Simd, const C: usize> Part<'_, S, C> {
    /// Weights `32 J .. 32 J + 32` of the unit.
    #[inline(always)]
    unsafe fn step<T: Source, const J: usize>(&mut self, cache: &mut Cache<S>) {
        unsafe {
            let words = codes::<S, T, J>(self.p, self.stage, cache);
            let signed = T::SIGNED && !flipped::<S, T>();
            let at = self.u * (T::UNIT / 32) + J;
            let (layout, scale) = (self.layout, &self.params.scale);
            for c in 0..C {
                let x = self.x[c];
                let q = x.add(32 * at);
                let isum = if T::SUB == 16 {
                    let [w0, w1, w2, w3, w4, w5, w6, w7] = words;
                    let sum = x.add(layout.sum16 + 8 * at);
                    let first = S::dots(&[w0, w1, w2, w3], q, signed, T::TOP);
                    let last = S::dots(&[w4, w5, w6, w7], q.add(16), signed, T::TOP);
                    let first = S::mul_i(less_zero::<S, T>(first, sum), scale[2 * J]);
                    let last = S::mul_i(less_zero::<S, T>(last, sum.add(4)), scale[2 * J + 1]);
                    S::add_i(first, last)
                } else {
                    let sum = S::dots(&words, q, signed, T::TOP);
                    let sum = less_zero::<S, T>(sum, x.add(layout.sum32 + 4 * at));
                    if T::SCALED { S::mul_i(sum, scale[J]) } else { sum }
                };
                let d = S::splat(x.add(layout.d + 4 * at).cast::<f32>().read());
                self.inner[c] = S::fma(d, S::to_f32(isum), self.inner[c]);
            }
        }
    }
}

/// The minimums of unit `u`.
#[inline(always)]
unsafe fn min<S: Simd, T: Source>(
    mins: &[S::F; 16],
    x: *const u8,
    layout: &ActLayout,
    u: usize,
) -> S::F {
    unsafe {
        let section = if T::SUB == 16 { layout.total16 } else { layout.total32 };
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
