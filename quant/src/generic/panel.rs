//! Many columns: 16 rows are unpacked once into a panel, which is multiplied with every column.
//!
//! A panel holds, for each unit of the rows, the codes as `[k / 4][16 rows][4]`, then the scales
//! as i32 `[k / 16][16 rows]` and the minimums as pairs of i16 `[k / 32][16 rows][2]` (units of
//! 256 only), and `d` and `dmin` as f32 `[16 rows]`. It is as long as the thread's scratch memory
//! allows; the accumulators rest in the result in between, which loses nothing.

#![allow(clippy::undocumented_unsafe_blocks, reason = "each block is its caller's promise")]

use super::gemv::ROWS;
use super::source::Source;
use crate::par::SCRATCH_BYTES;
use crate::simd::Simd;
use crate::table::GemmArgs;

/// Bytes of the rows as they are unpacked, before they are interleaved.
const STAGE: usize = ROWS * 256;
/// Bytes of a panel: what leaves the first-level cache to the activations is good enough, since a
/// panel is read once for several columns.
const PANEL: usize = 96 * 1024;
const _: () = assert!(STAGE + PANEL <= SCRATCH_BYTES);

/// Where the parts of a unit are.
struct Layout {
    scales: usize,
    mins: usize,
    d: usize,
    dmin: usize,
    bytes: usize,
}

const fn layout(unit: usize, has_min: bool) -> Layout {
    let scales = 16 * unit;
    let mins = scales + if unit == 256 { 16 * 64 } else { 0 };
    let d = mins + if unit == 256 && has_min { 8 * 64 } else { 0 };
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
        let l = const { layout(T::UNIT, T::HAS_MIN) };
        let stage = args.scratch.as_mut_ptr();
        let panel = stage.add(STAGE);
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
        let l = const { layout(T::UNIT, T::HAS_MIN) };
        let first = args.w.add(row * args.row_bytes);
        let p: [*const u8; ROWS] =
            std::array::from_fn(|r| first.add(r.min(n - 1) * args.row_bytes));
        let mut kept = T::Kept::default();
        // Rows of 32 codes are staged 64 bytes apart, so that all units interleave by 64.
        let stride = if T::UNIT == 256 { 256 } else { 64 };
        for r in 0..ROWS {
            let out = stage.add(r * stride);
            let scales = T::unpack::<S>(p[r], u, out, &mut kept, r);
            if T::SIGNED && S::PANEL_UNSIGNED {
                for j in 0..T::UNIT / 32 {
                    let b = S::load_b(out.add(32 * j));
                    S::store_b(out.add(32 * j), S::flip_sign(b));
                }
            }
            if T::UNIT == 256 {
                let to = panel.add(l.scales).cast::<i32>();
                for j in 0..16 {
                    *to.add(16 * j + r) = i32::from(scales.scale[j]);
                }
                if T::HAS_MIN {
                    let to = panel.add(l.mins).cast::<[i16; 2]>();
                    for j in 0..8 {
                        *to.add(16 * j + r) = [scales.min[2 * j], scales.min[2 * j + 1]];
                    }
                }
            }
        }
        if T::UNIT == 256 {
            for j in 0..4 {
                S::transpose(stage.add(64 * j), stride, panel.add(1024 * j));
            }
        } else {
            // The second half of what is written is overwritten by what follows.
            S::transpose_half(stage, stride, panel);
        }
        S::store(panel.add(l.d).cast(), T::d::<S>(p, u, &kept));
        if T::HAS_MIN {
            S::store(panel.add(l.dmin).cast(), T::dmin::<S>(p, u, &kept));
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
        let l = const { layout(T::UNIT, T::HAS_MIN) };
        let zero = if T::SIGNED && S::PANEL_UNSIGNED { T::ZERO + 128 } else { T::ZERO };
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
            let at = u0 + u;
            let mut isum;
            if T::UNIT == 256 {
                isum = [S::splat_i(0); C];
                for j in 0..16 {
                    let mut part: [S::I; C] = std::array::from_fn(|c| {
                        let sum = *x[c].add(a.sum16).cast::<i16>().add(16 * at + j);
                        S::splat_i(-zero * i32::from(sum))
                    });
                    for g in 4 * j..4 * j + 4 {
                        let w = S::load_w(panel.add(64 * g));
                        for c in 0..C {
                            let a = x[c].add(256 * at + 4 * g).cast::<i32>().read_unaligned();
                            part[c] = dot::<S, T>(part[c], w, a);
                        }
                    }
                    let scale = S::load_i(panel.add(l.scales + 64 * j).cast());
                    for c in 0..C {
                        isum[c] = S::mul_add_i(isum[c], part[c], scale);
                    }
                }
            } else {
                isum = std::array::from_fn(|c| {
                    let sum = *x[c].add(a.sum32).cast::<i32>().add(at);
                    S::splat_i(-zero * sum)
                });
                for g in 0..8 {
                    let w = S::load_w(panel.add(64 * g));
                    for c in 0..C {
                        let a = x[c].add(32 * at + 4 * g).cast::<i32>().read_unaligned();
                        isum[c] = dot::<S, T>(isum[c], w, a);
                    }
                }
            }
            let d = S::load(panel.add(l.d).cast());
            let da: [S::V; C] =
                std::array::from_fn(|c| S::splat(*x[c].add(a.d).cast::<f32>().add(at)));
            for c in 0..C {
                acc[c] = S::fma(S::mul(d, da[c]), S::to_f32(isum[c]), acc[c]);
            }
            if T::HAS_MIN {
                let dmin = S::load(panel.add(l.dmin).cast());
                for c in 0..C {
                    let imin = if T::UNIT == 256 {
                        let mut imin = S::splat_i(0);
                        for j in 0..8 {
                            let sums = x[c].add(a.sum16).cast::<i32>().add(8 * at + j).read();
                            let mins = S::load_i(panel.add(l.mins + 64 * j).cast());
                            imin = S::dot_pairs(imin, mins, sums);
                        }
                        S::to_f32(imin)
                    } else {
                        S::splat(*x[c].add(a.sum32).cast::<i32>().add(at) as f32)
                    };
                    acc[c] = S::fma(S::mul(dmin, da[c]), imin, acc[c]);
                }
            }
        }
        for c in 0..C {
            store_rows::<S>(out[c], n, acc[c]);
        }
    }
    C
}

#[inline(always)]
unsafe fn dot<S: Simd, T: Source>(acc: S::I, w: S::W, a: i32) -> S::I {
    unsafe {
        if T::SIGNED && !S::PANEL_UNSIGNED {
            S::dot_w::<true>(acc, w, a)
        } else {
            S::dot_w::<false>(acc, w, a)
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
