//! Many columns: 16 rows are unpacked once into a panel, which is multiplied with every column.
//!
//! A panel holds, for each unit of the rows, the codes as the level's
//! [`transpose`](Simd::transpose) writes them, then the scales as i32 and the minimums as f32, each
//! `[sub-block][16 rows]` (units of 256 only), and `d` and `dmin` as f32 `[16 rows]`. It is as long
//! as the thread's scratch memory allows; the accumulators rest in the result in between, which
//! loses nothing.

#![allow(clippy::undocumented_unsafe_blocks, reason = "each block is its caller's promise")]

use super::source::{ROWS, STAGE, Source, Units};
use crate::formats::IntBlock;
use crate::par::SCRATCH_BYTES;
use crate::simd::Simd;
use crate::table::GemmArgs;

/// Bytes of a panel: what leaves the first-level cache to the activations is good enough, since a
/// panel is read once for several columns.
const PANEL: usize = 96 * 1024;
const _: () = assert!(2 * STAGE + PANEL <= SCRATCH_BYTES);

/// Where the parts of a unit are.
struct Layout {
    scales: usize,
    mins: usize,
    d: usize,
    dmin: usize,
    bytes: usize,
}

const fn layout(unit: usize, subs: usize, has_min: bool) -> Layout {
    let scales = ROWS * unit;
    let scaled = unit > 32;
    let mins = scales + if scaled { 64 * subs } else { 0 };
    let d = mins + if scaled && has_min { 64 * subs } else { 0 };
    let dmin = d + 64;
    Layout { scales, mins, d, dmin, bytes: dmin + if has_min { 64 } else { 0 } }
}

/// Rows `row..row + n` (up to 16) of the weights times all columns.
///
/// # Safety
/// As for [`GemmFn`](crate::table::GemmFn).
#[inline(always)]
pub unsafe fn rows<S: Simd, T: Source>(args: &mut GemmArgs<'_>, row: usize, n: usize) {
    unsafe {
        let l = const { layout(T::UNIT, T::SUBS, T::Block::HAS_MIN) };
        let stage = args.scratch.as_mut_ptr();
        let panel = stage.add(2 * STAGE);
        let units = args.layout.k / T::UNIT;
        let most = PANEL / l.bytes;
        let mut u0 = 0;
        while u0 < units {
            let count = most.min(units - u0);
            for u in 0..count {
                unpack::<S, T>(args, row, n, u0 + u, stage, panel.add(u * l.bytes));
            }
            let mut col = 0;
            while col < args.n {
                // Few widths only: each is compiled for each format and level.
                let left = args.n - col;
                col += if S::COLUMNS >= 8 && T::DIRECT && left >= 8 {
                    multiply::<S, T, 8>(args, row, n, col, u0, count, panel)
                } else if S::COLUMNS >= 4 && left >= 4 {
                    multiply::<S, T, 4>(args, row, n, col, u0, count, panel)
                } else if left >= 2 {
                    multiply::<S, T, 2>(args, row, n, col, u0, count, panel)
                } else {
                    multiply::<S, T, 1>(args, row, n, col, u0, count, panel)
                };
            }
            u0 += count;
        }
    }
}

/// Unpacks unit `u` of the rows.
#[inline(always)]
unsafe fn unpack<S: Simd, T: Source>(
    args: &GemmArgs<'_>,
    row: usize,
    n: usize,
    u: usize,
    stage: *mut u8,
    panel: *mut u8,
) {
    unsafe {
        let l = const { layout(T::UNIT, T::SUBS, T::Block::HAS_MIN) };
        let first = args.w.add(row * args.row_bytes);
        let p: Units =
            std::array::from_fn(|r| T::unit(first.add(r.min(n - 1) * args.row_bytes), u));
        let codes = stage.add(STAGE);
        let params = T::open::<S>(&p, u, stage);
        if T::SCALED {
            for j in 0..T::SUBS {
                S::store_i(panel.add(l.scales + 64 * j).cast(), params.scale[j]);
                if T::Block::HAS_MIN {
                    S::store(panel.add(l.mins + 64 * j).cast(), params.min[j]);
                }
            }
        }
        S::store(panel.add(l.d).cast(), params.d);
        if T::Block::HAS_MIN {
            S::store(panel.add(l.dmin).cast(), params.dmin);
        }
        // Rows of 32 codes are staged 64 bytes apart, so that all units interleave by 64.
        let stride = if T::SCALED { T::UNIT } else { 64 };
        for r in 0..ROWS {
            for j in 0..T::UNIT / 32 {
                let mut b = T::codes::<S>(&p, r, j, stage);
                if T::SIGNED && S::PANEL_UNSIGNED {
                    b = S::flip_sign(b);
                }
                S::store_b(codes.add(r * stride + 32 * j), b);
            }
        }
        if T::SCALED {
            for j in 0..T::UNIT / 64 {
                S::transpose(codes.add(64 * j), stride, panel.add(1024 * j));
            }
        } else {
            S::transpose_half(codes, stride, panel);
        }
    }
}

/// Multiplies `count` units of the panel, which begin with unit `u0`, with `C` columns. Returns
/// `C`.
#[inline(always)]
unsafe fn multiply<S: Simd, T: Source, const C: usize>(
    args: &GemmArgs<'_>,
    row: usize,
    n: usize,
    col: usize,
    u0: usize,
    count: usize,
    panel: *const u8,
) -> usize {
    unsafe {
        let l = const { layout(T::UNIT, T::SUBS, T::Block::HAS_MIN) };
        let a = args.layout;
        let x: [*const u8; C] = std::array::from_fn(|c| args.act.add((col + c) * a.stride));
        let out: [*mut f32; C] = std::array::from_fn(|c| args.out.add((col + c) * args.ldo + row));
        let mut acc = [S::splat(0.0); C];
        if u0 > 0 {
            for c in 0..C {
                acc[c] = load_rows::<S>(out[c], n);
            }
        }
        for u in 0..count {
            let panel = panel.add(u * l.bytes);
            let at = (u0 + u) * (T::UNIT / 32);
            let mut inner = [S::splat(0.0); C];
            for j in 0..T::UNIT / 32 {
                let codes = panel.add(512 * j);
                let mut isum;
                if T::Block::SUB == 16 {
                    let s = panel.add(l.scales + 128 * j).cast::<i32>();
                    let (s0, s1) = (S::load_i(s), S::load_i(s.add(16)));
                    let i = 2 * (at + j);
                    isum = dots::<S, T, C, 4>(codes, x, 4 * i, a.sum16, i);
                    for isum in &mut isum {
                        *isum = S::mul_i(*isum, s0);
                    }
                    let i = i + 1;
                    let second = dots::<S, T, C, 4>(codes.add(256), x, 4 * i, a.sum16, i);
                    for c in 0..C {
                        isum[c] = S::add_i(isum[c], S::mul_i(second[c], s1));
                    }
                } else {
                    isum = dots::<S, T, C, 8>(codes, x, 8 * (at + j), a.sum32, at + j);
                    if T::SCALED {
                        let s = S::load_i(panel.add(l.scales + 64 * j).cast());
                        for isum in &mut isum {
                            *isum = S::mul_i(*isum, s);
                        }
                    }
                }
                for c in 0..C {
                    let d = S::splat(*x[c].add(a.d).cast::<f32>().add(at + j));
                    inner[c] = S::fma(d, S::to_f32(isum[c]), inner[c]);
                }
            }
            let d = S::load(panel.add(l.d).cast());
            for c in 0..C {
                acc[c] = S::fma(d, inner[c], acc[c]);
            }
            if T::Block::HAS_MIN {
                let section = if T::Block::SUB == 16 { a.total16 } else { a.total32 };
                let total = |c: usize, j: usize| {
                    S::splat(*x[c].add(section).cast::<f32>().add((u0 + u) * T::SUBS + j))
                };
                let dmin = S::load(panel.add(l.dmin).cast());
                let mut mins = [S::splat(0.0); C];
                if T::SCALED {
                    for j in 0..T::SUBS {
                        let min = S::load(panel.add(l.mins + 64 * j).cast());
                        for c in 0..C {
                            mins[c] = S::fma(min, total(c, j), mins[c]);
                        }
                    }
                } else {
                    mins = std::array::from_fn(|c| total(c, 0));
                }
                for c in 0..C {
                    acc[c] = S::fma(dmin, mins[c], acc[c]);
                }
            }
        }
        for c in 0..C {
            store_rows::<S>(out[c], n, acc[c]);
        }
    }
    C
}

/// The products of `WORDS` groups of 4 codes with the activations from group `word` on; the zero
/// point is taken off by the activations' sum, `i` of the section given.
#[inline(always)]
unsafe fn dots<S: Simd, T: Source, const C: usize, const WORDS: usize>(
    codes: *const u8,
    x: [*const u8; C],
    word: usize,
    section: usize,
    i: usize,
) -> [S::I; C] {
    unsafe {
        let flipped = T::SIGNED && S::PANEL_UNSIGNED;
        let zero = if flipped { T::ZERO + 128 } else { T::ZERO };
        let sums: [S::I; C] = if zero == 0 {
            [S::splat_i(0); C]
        } else {
            std::array::from_fn(|c| S::splat_i(-zero * *x[c].add(section).cast::<i32>().add(i)))
        };
        let a = x.map(|x| x.add(4 * word));
        if T::SIGNED && !S::PANEL_UNSIGNED {
            S::tile::<true, C, WORDS>(sums, codes, a, T::TOP)
        } else {
            S::tile::<false, C, WORDS>(sums, codes, a, if flipped { 255 } else { T::TOP })
        }
    }
}

#[inline(always)]
unsafe fn load_rows<S: Simd>(p: *const f32, n: usize) -> S::V {
    unsafe {
        if n == ROWS {
            return S::load(p);
        }
        let mut x = [0.0; ROWS];
        std::ptr::copy_nonoverlapping(p, x.as_mut_ptr(), n);
        S::load(x.as_ptr())
    }
}

#[inline(always)]
unsafe fn store_rows<S: Simd>(p: *mut f32, n: usize, v: S::V) {
    unsafe {
        if n == ROWS {
            return S::store(p, v);
        }
        let x = S::to_array(v);
        std::ptr::copy_nonoverlapping(x.as_ptr(), p, n);
    }
}
