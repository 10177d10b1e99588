//! The kernels of a chunk, generic over the lanes.

#![allow(clippy::undocumented_unsafe_blocks, reason = "each body's block is its caller's promise")]

use std::ops::Range;

use super::kv::{F16, F32, Kv, Q4, Q8};
use super::{CHUNK, ChunkArgs, KvType, MANY_ROWS, MergeArgs, QUERY_ROWS};
use crate::lanes::{self, Lanes};

/// Rows from which on a chunk is converted to f32 before it is used.
const WIDEN_ROWS: usize = 8;

/// `f` of each index, for addresses only: what is not inlined lacks the level's instructions.
#[inline(always)]
fn array<T: Copy, const N: usize>(f: impl Fn(usize) -> T) -> [T; N] {
    let mut all = [f(0); N];
    for (i, x) in all.iter_mut().enumerate().skip(1) {
        *x = f(i);
    }
    all
}

/// Scores of `R` rows against `G` groups of 16 positions. Returns `G`.
#[inline(always)]
unsafe fn score_tile<L: Lanes, K: Kv, const R: usize, const G: usize>(
    a: &mut ChunkArgs<'_>,
    groups: Run,
    row: usize,
    g: usize,
) -> usize {
    unsafe {
        let k_dim = a.view.k_dim;
        let q: [*const f32; R] = array(|r| a.q.as_ptr().add((row + r) * k_dim));
        let keys: [*const u8; G] = array(|j| groups.first.add((g + j) * groups.step));
        let mut acc = [[L::splat(0.0); G]; R];
        let next = groups.next;
        let ask = next > 0 && row == 0;
        for b in 0..k_dim.div_ceil(32) {
            let mut scales = [L::splat(0.0); G];
            for j in 0..G {
                scales[j] = K::k_scale::<L>(keys[j], b);
            }
            for d in 32 * b..k_dim.min(32 * b + 32) {
                let mut k = [L::splat(0.0); G];
                for j in 0..G {
                    k[j] = K::k::<L>(keys[j], d, scales[j]);
                }
                if ask && d.is_multiple_of(K::LINE) {
                    for j in 0..G {
                        L::prefetch(keys[j].wrapping_add(next + 64 / K::LINE * d));
                    }
                }
                for r in 0..R {
                    let q = L::splat(*q[r].add(d));
                    for j in 0..G {
                        acc[r][j] = L::fma(q, k[j], acc[r][j]);
                    }
                }
            }
        }
        for r in 0..R {
            for j in 0..G {
                L::store(a.s.as_mut_ptr().add((row + r) * CHUNK + (g + j) * 16), acc[r][j]);
            }
        }
    }
    G
}

/// Where a chunk's keys or values are, and bytes from a group of 16 keys, or a value, to the next.
#[derive(Clone, Copy)]
struct Run {
    first: *const u8,
    step: usize,
    /// Bytes from here to what is read next, for prefetching; 0 if that is not to be done.
    next: usize,
}

/// Calls `$tile::<L, K, R, W>` with as many rows `R`, up to 4, and as wide as the level's registers
/// hold their sums, up to 4 registers; `$n` rows, of which those from `$row` to `$end` have the
/// registers `$range`.
macro_rules! tiles {
    ($tile:ident, $kv:ident, $n:expr, |$row:ident, $end:ident| $range:expr, $($arg:expr),*) => {
        let mut row = 0;
        while row < $n {
            let rows = ($n - row).min(4);
            let ($row, $end) = (row, row + rows);
            let range = $range;
            let mut at = range.start;
            while at < range.end {
                let left = range.end - at;
                at += match rows {
                    4 if L::SUMS >= 16 && left >= 4 => $tile::<L, $kv, 4, 4>($($arg),*, row, at),
                    4 if L::SUMS >= 8 && left >= 2 => $tile::<L, $kv, 4, 2>($($arg),*, row, at),
                    4 => $tile::<L, $kv, 4, 1>($($arg),*, row, at),
                    3 if L::SUMS >= 12 && left >= 4 => $tile::<L, $kv, 3, 4>($($arg),*, row, at),
                    3 => $tile::<L, $kv, 3, 1>($($arg),*, row, at),
                    2 if L::SUMS >= 8 && left >= 4 => $tile::<L, $kv, 2, 4>($($arg),*, row, at),
                    2 if left >= 2 => $tile::<L, $kv, 2, 2>($($arg),*, row, at),
                    2 => $tile::<L, $kv, 2, 1>($($arg),*, row, at),
                    _ if left >= 4 => $tile::<L, $kv, 1, 4>($($arg),*, row, at),
                    _ => $tile::<L, $kv, 1, 1>($($arg),*, row, at),
                };
            }
            row += rows;
        }
    };
}

/// The groups of 16 positions in which one of the rows has a position.
#[inline(always)]
fn groups_of(local: &[(usize, usize)]) -> Range<usize> {
    let used = local.iter().filter(|(lo, hi)| lo < hi);
    let first = used.clone().map(|(lo, _)| lo / 16).min().unwrap_or(0);
    first..used.map(|(_, hi)| hi.div_ceil(16)).max().unwrap_or(0)
}

#[inline(always)]
unsafe fn scores<L: Lanes, K: Kv>(a: &mut ChunkArgs<'_>, keys: Run, local: &[(usize, usize)]) {
    unsafe {
        let n = a.ranges.len();
        tiles!(score_tile, K, n, |row, end| groups_of(&local[row..end]), a, keys);
    }
}

/// The weighted values of `R` rows, dimensions `16 at..` in `D` registers. The positions that all rows
/// attend to come between those that only some do, in increasing order. Returns `D`.
#[inline(always)]
unsafe fn value_tile<L: Lanes, V: Kv, const R: usize, const D: usize>(
    a: &mut ChunkArgs<'_>,
    values: Run,
    local: &[(usize, usize)],
    factors: &[[f32; 3]],
    row: usize,
    at: usize,
) -> usize {
    unsafe {
        let d = 16 * at;
        let value = |j: usize| values.first.add(j * values.step);
        let local = &local[row..row + R];
        let lo = local.iter().map(|x| x.0).max().unwrap_or(0);
        let hi = local.iter().map(|x| x.1).min().unwrap_or(0).max(lo);
        let p: [*const f32; R] = array(|r| a.s.as_ptr().add((row + r) * CHUNK));
        let mut acc = [[L::splat(0.0); D]; R];
        for r in 0..R {
            for j in local[r].0..lo.min(local[r].1) {
                for i in 0..D {
                    let v = V::v::<L>(value(j), d + 16 * i);
                    acc[r][i] = L::fma(L::splat(*p[r].add(j)), v, acc[r][i]);
                }
            }
        }
        let ask = values.next > 0 && row == 0;
        let merged = a.all.is_some();
        for j in lo..hi {
            if ask {
                let from = value(j).wrapping_add(values.next + V::BYTES * at);
                for line in (0..V::BYTES * D).step_by(64) {
                    L::prefetch(from.wrapping_add(line));
                }
            }
            let mut v = [L::splat(0.0); D];
            for (i, v) in v.iter_mut().enumerate() {
                *v = V::v::<L>(value(j), d + 16 * i);
            }
            for r in 0..R {
                let p = L::splat(*p[r].add(j));
                for i in 0..D {
                    acc[r][i] = L::fma(p, v[i], acc[r][i]);
                }
            }
        }
        for r in 0..R {
            for j in hi.max(local[r].0)..local[r].1 {
                for i in 0..D {
                    let v = V::v::<L>(value(j), d + 16 * i);
                    acc[r][i] = L::fma(L::splat(*p[r].add(j)), v, acc[r][i]);
                }
            }
        }
        // In a loop of its own: one that the compiler does not unroll would keep the sums in memory.
        for r in 0..R {
            let o = a.o.as_mut_ptr().add((row + r) * a.view.v_pad + d);
            if merged {
                let [old, new, used] = factors[row + r];
                let (old, new, used) = (L::splat(old), L::splat(new), L::splat(used));
                for i in 0..D {
                    let before = L::load(o.add(16 * i));
                    let after = L::fma(before, old, L::mul(acc[r][i], new));
                    acc[r][i] = L::select_lt(L::splat(0.0), used, after, before);
                }
            }
            for i in 0..D {
                L::store(o.add(16 * i), acc[r][i]);
            }
        }
    }
    D
}

#[inline(always)]
unsafe fn values<L: Lanes, V: Kv>(
    a: &mut ChunkArgs<'_>,
    rows: Run,
    local: &[(usize, usize)],
    factors: &[[f32; 3]],
) {
    unsafe {
        let (n, registers) = (a.ranges.len(), a.view.v_pad / 16);
        tiles!(value_tile, V, n, |_row, _end| 0..registers, a, rows, local, factors);
    }
}

/// Copies groups of 16 keys to `out` as f32.
#[inline(always)]
unsafe fn widen_keys<L: Lanes, K: Kv>(
    out: *mut f32,
    k_dim: usize,
    keys: Run,
    groups: Range<usize>,
) -> Run {
    unsafe {
        for g in groups {
            let group = keys.first.add(g * keys.step);
            let out = out.add(16 * k_dim * g);
            for b in 0..k_dim.div_ceil(32) {
                let scale = K::k_scale::<L>(group, b);
                for d in 32 * b..k_dim.min(32 * b + 32) {
                    L::store(out.add(16 * d), K::k::<L>(group, d, scale));
                }
            }
        }
    }
    Run { first: out.cast_const().cast(), step: 4 * 16 * k_dim, next: 0 }
}

/// Copies the values of groups of 16 positions to `out` as f32.
#[inline(always)]
unsafe fn widen_values<L: Lanes, V: Kv>(
    out: *mut f32,
    v_pad: usize,
    values: Run,
    groups: Range<usize>,
) -> Run {
    unsafe {
        for j in 16 * groups.start..16 * groups.end {
            let value = values.first.add(j * values.step);
            for d in (0..v_pad).step_by(16) {
                L::store(out.add(j * v_pad + d), V::v::<L>(value, d));
            }
        }
    }
    Run { first: out.cast_const().cast(), step: 4 * v_pad, next: 0 }
}

/// Rows whose scores are turned into weights together.
const SOFT_ROWS: usize = 16;
/// Rows that are summed one by one: as many as take no longer so than sixteen together.
const FEW_ROWS: usize = 4;

/// Turns the scores of up to [`SOFT_ROWS`] rows from `row` on into weights, `exp(s - max)`, in the groups of
/// 16 positions that a row attends to one of; 0 for the others of such a group. What is outside a row's
/// groups has no meaning.
#[inline(always)]
unsafe fn soften<L: Lanes>(a: &mut ChunkArgs<'_>, row: usize, local: &[(usize, usize)]) {
    unsafe {
        let least = L::splat(f32::NEG_INFINITY);
        let mut tops = [least; SOFT_ROWS];
        for (i, (lo, hi)) in local.iter().enumerate() {
            if lo == hi {
                continue;
            }
            let groups = lo / 16 * 16..hi.next_multiple_of(16);
            let s = &mut a.s[(row + i) * CHUNK..(row + i + 1) * CHUNK];
            let p = s.as_mut_ptr();
            if a.softcap > 0.0 {
                let c = L::splat(a.softcap);
                for j in groups.clone().step_by(16) {
                    let x = L::div(L::load(p.add(j)), c);
                    L::store(p.add(j), L::mul(lanes::tanh::<L>(x), c));
                }
            }
            s[groups.start..*lo].fill(f32::NEG_INFINITY);
            s[*hi..groups.end].fill(f32::NEG_INFINITY);
            for j in groups.step_by(16) {
                tops[i] = L::max(L::load(p.add(j)), tops[i]);
            }
        }
        let few = local.len() < FEW_ROWS;
        let mut top = [f32::NEG_INFINITY; SOFT_ROWS];
        if few {
            for (top, lanes) in top.iter_mut().zip(&tops[..local.len()]) {
                for x in L::to_array(*lanes) {
                    *top = if x > *top { x } else { *top };
                }
            }
        } else {
            top = L::to_array(L::largest_each(&tops));
        }
        let mut sums = [L::splat(0.0); SOFT_ROWS];
        for (i, (lo, hi)) in local.iter().enumerate() {
            if lo == hi {
                continue;
            }
            let p = a.s.as_mut_ptr().add((row + i) * CHUNK);
            let top = L::splat(top[i]);
            for j in (lo / 16 * 16..hi.next_multiple_of(16)).step_by(16) {
                let e = lanes::exp::<L>(L::sub(L::load(p.add(j)), top));
                L::store(p.add(j), e);
                sums[i] = L::add(sums[i], e);
            }
        }
        // Of rows without positions -infinity and 0.
        let mut sum = [0.0; SOFT_ROWS];
        if few {
            for (sum, lanes) in sum.iter_mut().zip(&sums[..local.len()]) {
                *sum = L::sum(*lanes);
            }
        } else {
            sum = L::to_array(L::sum_each(&sums));
        }
        a.m[row..row + local.len()].copy_from_slice(&top[..local.len()]);
        a.l[row..row + local.len()].copy_from_slice(&sum[..local.len()]);
    }
}

#[inline(always)]
pub unsafe fn chunk<L: Lanes>(a: &mut ChunkArgs<'_>) {
    unsafe {
        let start = a.chunk * CHUNK;
        let slot = start % a.view.capacity;
        let n = a.ranges.len();
        let mut local = [(0usize, 0usize); MANY_ROWS];
        const { assert!(QUERY_ROWS <= MANY_ROWS) };
        for (local, (lo, hi)) in local.iter_mut().zip(a.ranges) {
            let lo = (*lo).max(start) - start;
            let hi = (*hi).clamp(start, start + CHUNK) - start;
            *local = if lo < hi { (lo, hi) } else { (0, 0) };
        }
        let view = a.view;
        let k_step = 16 * view.k_type.bytes(view.k_dim);
        let v_step = view.v_type.bytes(view.v_pad);
        // With few rows the next chunk's memory is the limit. It follows, but where the ring ends.
        let (k_next, v_next) = (CHUNK / 16 * k_step, CHUNK * v_step);
        let mut keys = Run { first: view.k.add(slot / 16 * k_step), step: k_step, next: k_next };
        let mut vs = Run { first: view.v.add(slot * v_step), step: v_step, next: v_next };
        let (mut k_type, mut v_type) = (view.k_type, view.v_type);
        // Many rows read a chunk many times: it is converted once.
        if n >= WIDEN_ROWS && a.kv.len() >= CHUNK * (view.k_dim + view.v_pad) {
            let (k, v) = a.kv.split_at_mut(CHUNK * view.k_dim);
            let (k, v) = (k.as_mut_ptr(), v.as_mut_ptr());
            let groups = groups_of(&local[..n]);
            keys = match k_type {
                KvType::F32 => keys,
                KvType::F16 => widen_keys::<L, F16>(k, view.k_dim, keys, groups.clone()),
                KvType::Q8_0 => widen_keys::<L, Q8>(k, view.k_dim, keys, groups.clone()),
                KvType::Q4_0 => widen_keys::<L, Q4>(k, view.k_dim, keys, groups.clone()),
            };
            vs = match v_type {
                KvType::F32 => vs,
                KvType::F16 => widen_values::<L, F16>(v, view.v_pad, vs, groups.clone()),
                KvType::Q8_0 => widen_values::<L, Q8>(v, view.v_pad, vs, groups.clone()),
                KvType::Q4_0 => widen_values::<L, Q4>(v, view.v_pad, vs, groups.clone()),
            };
            (k_type, v_type) = (KvType::F32, KvType::F32);
        }
        match k_type {
            KvType::F32 => scores::<L, F32>(a, keys, &local),
            KvType::F16 => scores::<L, F16>(a, keys, &local),
            KvType::Q8_0 => scores::<L, Q8>(a, keys, &local),
            KvType::Q4_0 => scores::<L, Q4>(a, keys, &local),
        }
        for (i, local) in local[..n].chunks(SOFT_ROWS).enumerate() {
            soften::<L>(a, i * SOFT_ROWS, local);
        }
        let mut pairs = [[0.0f32; 3]; MANY_ROWS];
        if let Some((m_all, l_all)) = &mut a.all {
            for first in (0..n).step_by(MERGE_ROWS) {
                let rows = first..n.min(first + MERGE_ROWS);
                let (m_all, l_all) = (&mut m_all[rows.clone()], &mut l_all[rows.clone()]);
                let [old, new] = factors::<L>(&a.m[rows.clone()], &a.l[rows.clone()], m_all, l_all);
                for (r, (old, new)) in rows.zip(old.into_iter().zip(new)) {
                    pairs[r] = [old, new, f32::from(a.l[r] != 0.0)];
                }
            }
        }
        match v_type {
            KvType::F32 => values::<L, F32>(a, vs, &local, &pairs),
            KvType::F16 => values::<L, F16>(a, vs, &local, &pairs),
            KvType::Q8_0 => values::<L, Q8>(a, vs, &local, &pairs),
            KvType::Q4_0 => values::<L, Q4>(a, vs, &local, &pairs),
        }
    }
}

/// Rows whose factors are computed together when results are merged: one a lane.
const MERGE_ROWS: usize = 16;

/// Up to [`MERGE_ROWS`] values in as many lanes.
#[inline(always)]
unsafe fn padded<L: Lanes>(x: &[f32]) -> L::V {
    let mut all = [0.0; MERGE_ROWS];
    all[..x.len()].copy_from_slice(x);
    unsafe { L::load(all.as_ptr()) }
}

/// Merges up to [`MERGE_ROWS`] rows' maxima and sums, and returns the factors of what was summed
/// before and of what is new.
#[inline(always)]
unsafe fn factors<L: Lanes>(
    m: &[f32],
    l: &[f32],
    m_all: &mut [f32],
    l_all: &mut [f32],
) -> [[f32; MERGE_ROWS]; 2] {
    let n = m.len();
    unsafe {
        let (new, old) = (padded::<L>(m), padded::<L>(m_all));
        let top = L::max(new, old);
        let old = lanes::exp::<L>(L::sub(old, top));
        let new = lanes::exp::<L>(L::sub(new, top));
        let sum = L::fma(padded::<L>(l_all), old, L::mul(padded::<L>(l), new));
        let (top, sum) = (L::to_array(top), L::to_array(sum));
        for i in 0..n {
            // A row without positions in this chunk stays as it is; any other has a sum of at least 1.
            if l[i] != 0.0 {
                (m_all[i], l_all[i]) = (top[i], sum[i]);
            }
        }
        [L::to_array(old), L::to_array(new)]
    }
}

#[inline(always)]
pub unsafe fn merge<L: Lanes>(a: &mut MergeArgs<'_>) {
    let n = a.m.len();
    let width = a.o.len() / n;
    for first in (0..n).step_by(MERGE_ROWS) {
        let rows = first..n.min(first + MERGE_ROWS);
        let (m_all, l_all) = (&mut a.m_all[rows.clone()], &mut a.l_all[rows.clone()]);
        unsafe {
            let [old, new] = factors::<L>(&a.m[rows.clone()], &a.l[rows.clone()], m_all, l_all);
            for r in rows.filter(|r| a.l[*r] != 0.0) {
                let (old, new) = (L::splat(old[r - first]), L::splat(new[r - first]));
                let o = a.o.as_ptr().add(r * width);
                let all = a.o_all.as_mut_ptr().add(r * width);
                for d in (0..width).step_by(16) {
                    let add = L::mul(L::load(o.add(d)), new);
                    L::store(all.add(d), L::fma(L::load(all.add(d)), old, add));
                }
            }
        }
    }
}
