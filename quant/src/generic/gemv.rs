//! Few columns: the weights of a register's rows are unpacked into registers and used at once.

#![allow(clippy::undocumented_unsafe_blocks, reason = "each block is its caller's promise")]

use super::source::{Cache, Packed, Params, Source, add, codes, flipped, less_zero};
use super::staged::Unpack;
use super::{Tile, for_blocks};
use crate::act::ActLayout;
use crate::lanes::LINE;
use crate::simd::{Rows, Simd};
use crate::table::GemmArgs;

/// Weights are fetched into the second-level cache.
pub const FAR: u8 = 0;
/// Into the first-level cache.
pub const NEAR: u8 = 1;
/// Likewise, those of tiles longer than [`LONG_TILE`]: where lines are asked for more than once, once more. (So
/// far those are AVX-512's on AMD, by [`near_bytes`](crate::table::KernelTable::near_bytes).) On a Zen 5 whose
/// memory reads 50 GB/s that is a few percent faster, of shorter tiles less; at 70 GB/s, which is little less
/// than what most kernels compute, only Q8_0 gains (`siskin bench --shape llama-1b --type TYPE -p 16 -n 64`).
pub const LONG: u8 = 2;
/// Bytes of a tile of which two fit a first-level cache of 48 KiB.
pub const LONG_TILE: usize = 24 << 10;

/// Bytes after which a line is asked for again: the time that memory takes to answer.
const LATER: usize = 4096;

/// How often a line is asked for.
const fn asks<S: Simd, const FETCH: u8>() -> usize {
    if FETCH == LONG && S::ASKS > 1 { S::ASKS + 1 } else { S::ASKS }
}
/// [`asks`], at the most.
const MOST_ASKS: usize = 3;

/// How much more than a whole tile is asked for ahead of its use, in bytes. A tile's rows are read side
/// by side: with less than a tile its last rows are asked for after they are used, which halves the
/// speed of memory.
const fn ahead<S: Simd, const FETCH: u8>() -> usize {
    // The last time is a whole tile ahead; a single one is `LATER` more.
    LATER * if asks::<S, FETCH>() > 2 { asks::<S, FETCH>() - 1 } else { 1 }
}

/// Asks for weights in the order in which they lie in memory, a few lines at a time between
/// computations: in a burst, most requests are dropped (on a Zen 4), and the rows of a tile are too
/// many short streams for the hardware to follow by itself.
struct Stream {
    /// What was not asked for yet, as if the rows went on.
    at: *const u8,
    /// The end of the rows that are multiplied in this call.
    end: *const u8,
    /// What follows them, as the distance from `end`.
    turn: usize,
}

impl Stream {
    /// The stream that goes with a tile.
    #[inline(always)]
    fn new<S: Simd, const FETCH: u8>(args: &GemmArgs<'_>, tile: Tile) -> Stream {
        let row = |r: usize| args.w.wrapping_add(r * args.row_bytes);
        let end = row(args.rows.end);
        let turn =
            if args.next.is_null() { 0 } else { (args.next.addr()).wrapping_sub(end.addr()) };
        let at = row(tile.row + S::ROWS).wrapping_add(ahead::<S, FETCH>());
        Stream { at, end, turn }
    }

    /// Where `at` is: what follows the rows lies elsewhere. (A group that crosses their end is asked for
    /// as if they went on: a few lines of a thread's part.)
    #[inline(always)]
    fn place(&self, at: *const u8) -> *const u8 {
        at.wrapping_add(if at < self.end { 0 } else { self.turn })
    }

    /// The next group of units.
    #[inline(always)]
    fn group<S: Simd, const FETCH: u8>(&self) -> Group {
        const { assert!(FETCH <= LONG && S::ASKS >= 1 && asks::<S, FETCH>() <= MOST_ASKS) };
        let mut from = [self.at; MOST_ASKS];
        for (i, from) in from.iter_mut().enumerate().take(asks::<S, FETCH>()) {
            *from = self.place(self.at.wrapping_sub(i * LATER));
        }
        Group { from }
    }
}

/// What is asked for beside the computations of a group of units.
#[derive(Clone, Copy)]
struct Group {
    /// For the first time, the second and so on.
    from: [*const u8; MOST_ASKS],
}

impl Group {
    /// Asks for step `step` of `steps` of the group's `bytes`, into the cache of `FETCH`. Of
    /// most formats all three are constants, and no loop is left.
    #[inline(always)]
    fn ask<S: Simd, const FETCH: u8>(self, bytes: usize, step: usize, steps: usize) {
        let mut from = self.from;
        from[0] = S::here(from[0]);
        let prefetch = if FETCH == FAR { S::prefetch } else { S::prefetch_near };
        let lines = bytes.div_ceil(LINE);
        for line in step * lines / steps..(step + 1) * lines / steps {
            // A prefetch faults on no address: those past the end of the weights need not be valid.
            for from in &from[..asks::<S, FETCH>()] {
                prefetch(from.wrapping_add(LINE * line));
            }
        }
    }
}

/// Units whose weights are asked for together: of the short ones two, which in 16 rows are whole lines.
const fn together<T: Source>() -> usize {
    if T::UNIT > 32 { 1 } else { 2 }
}

/// Units that are known not to be a row's first are read with what is before them in the row.
const fn around<S: Simd, T: Source>() -> bool {
    assert!(
        !T::AROUND || (T::BYTES >= 16 && T::SPLIT == 1),
        "the unit before is a block of the row"
    );
    S::AROUND && T::AROUND
}

/// A tile of rows times columns `col..col + C`, of those that there are. Returns `C`. `FETCH`
/// says how the next tile is fetched. (Decided within, where each line is asked for, it costs up to a fifth
/// of the speed.)
///
/// # Safety
/// As for [`GemmFn`](crate::table::GemmFn); the layout is of single columns, and columns `col..col + C` are
/// among those that [`ActLayout::bytes`] has room for.
#[inline(always)]
pub unsafe fn rows<S: Simd, T: Source, const C: usize, const FETCH: u8>(
    args: &mut GemmArgs<'_>,
    tile: Tile,
    col: usize,
) -> usize {
    unsafe {
        let layout = args.layout;
        debug_assert!(col < args.n && (col + C) * layout.stride <= layout.bytes(args.n));
        let mut columns = Columns::<S, C> {
            rows: tile.rows,
            stage: args.scratch.as_mut_ptr(),
            unpack: args.unpack,
            layout,
            // Those past the last are computed as well, but not stored.
            x: std::array::from_fn(|c| args.act.add((col + c) * layout.stride)),
            acc: [S::splat(0.0); C],
        };
        let units = layout.k / T::UNIT * T::SPLIT;
        let mut stream = Stream::new::<S, FETCH>(args, tile);
        let bytes = together::<T>() * S::ROWS;
        let bytes = if T::BYTES > 0 { bytes * T::BYTES } else { bytes * args.row_bytes / units };
        let whole = units - units % together::<T>();
        // The first columns ask for all; more of them, for the same lines again and again.
        let on = if col == 0 { bytes } else { 0 };
        macro_rules! group {
            ($u:expr, $preceded:expr) => {
                let group = stream.group::<S, FETCH>();
                stream.at = stream.at.wrapping_add(on);
                columns.unit::<T, 0, FETCH, { $preceded }>($u, group, bytes);
                if together::<T>() == 2 {
                    columns.unit::<T, 1, FETCH, true>($u + 1, group, bytes);
                }
            };
        }
        let mut u = 0;
        if const { around::<S, T>() } && whole > 0 {
            group!(0, false);
            u = together::<T>();
        }
        while u < whole {
            group!(u, true);
            u += together::<T>();
        }
        if whole < units {
            columns.unit::<T, 0, FETCH, false>(whole, stream.group::<S, FETCH>(), bytes);
        }
        for c in 0..C.min(args.n - col) {
            tile.store::<S>(args.out.add((col + c) * args.ldo + tile.row), columns.acc[c]);
        }
    }
    C
}

/// A tile's rows and `C` columns.
struct Columns<'a, S: Simd, const C: usize> {
    rows: Rows,
    stage: *mut u8,
    unpack: Option<Unpack>,
    layout: &'a ActLayout,
    x: [*const u8; C],
    acc: [S::F; C],
}

impl<S: Simd, const C: usize> Columns<'_, S, C> {
    /// Unit `u`, the `I`-th of those whose weights are asked for [`together`]: `bytes` of `group`. If
    /// `PRECEDED`, it is known not to be the row's first.
    #[inline(always)]
    unsafe fn unit<T: Source, const I: usize, const FETCH: u8, const PRECEDED: bool>(
        &mut self,
        u: usize,
        group: Group,
        bytes: usize,
    ) {
        unsafe {
            let preceded = around::<S, T>() && PRECEDED;
            let p = T::unit(self.rows, u).with_preceded(preceded).here::<S>();
            let params = T::open::<S>(p, u, self.stage, self.unpack);
            let (x, layout) = (self.x, self.layout);
            let inner = [S::splat(0.0); C];
            let mut part = Part { p, stage: self.stage, params: &params, layout, x, u, inner };
            let mut cache = Cache::new();
            macro_rules! step {
                ($j:literal) => {
                    // Of units of one step, half before it and half after: fewer at once.
                    let per = if T::UNIT == 32 { 2 } else { 1 };
                    let (steps, step) = (per * T::UNIT / 32, per * (I * T::UNIT / 32 + $j));
                    let steps = together::<T>() * steps;
                    group.ask::<S, FETCH>(bytes, step, steps);
                    part.step::<T, $j>(&mut cache);
                    if per == 2 {
                        group.ask::<S, FETCH>(bytes, step + 1, steps);
                    }
                };
            }
            for_blocks!(T, step);
            let inner = part.inner;
            for c in 0..C {
                self.acc[c] = S::fma(params.d, inner[c], self.acc[c]);
                if T::HAS_MIN {
                    let min = min::<S, T>(&params.packed, x[c], layout, u);
                    self.acc[c] = S::fma(params.dmin, min, self.acc[c]);
                }
            }
        }
    }
}

/// Unit `u` of the rows and `C` columns.
struct Part<'a, S: Simd, const C: usize> {
    p: Rows,
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
            let words = codes::<S, T, J>(self.p, self.u, self.stage, cache);
            let signed = T::SIGNED && !flipped::<S, T>();
            let at = self.u / T::SPLIT * (T::UNIT / 32) + J;
            let layout = self.layout;
            let scale = |j: usize| T::scale::<S>(&self.params.packed, j);
            for c in 0..C {
                let x = self.x[c];
                let q = x.add(32 * at);
                let isum = if T::SUB == 16 {
                    let [w0, w1, w2, w3, w4, w5, w6, w7] = words;
                    let sum = x.add(layout.sum16 + 8 * at);
                    let first = S::dots(&[w0, w1, w2, w3], q, signed, T::TOP);
                    let last = S::dots(&[w4, w5, w6, w7], q.add(16), signed, T::TOP);
                    let first = S::mul_i(less_zero::<S, T>(first, sum), scale(2 * J));
                    let last = S::mul_i(less_zero::<S, T>(last, sum.add(4)), scale(2 * J + 1));
                    S::add_i(first, last)
                } else {
                    let sum = S::dots(&words, q, signed, T::TOP);
                    let sum = less_zero::<S, T>(sum, x.add(layout.sum32 + 4 * at));
                    if T::SCALED { S::mul_i(sum, scale(J)) } else { sum }
                };
                let d = S::splat(x.add(layout.d + 4 * at).cast::<f32>().read());
                self.inner[c] = add::<S, T>(d, S::to_f32(isum), self.inner[c]);
            }
        }
    }
}

/// The minimums of unit `u`.
#[inline(always)]
unsafe fn min<S: Simd, T: Source>(
    packed: &Packed<S>,
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
            min = S::fma(T::min::<S>(packed, j), S::splat(*total.add(j)), min);
        }
        min
    }
}
