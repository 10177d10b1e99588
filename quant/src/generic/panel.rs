//! Many columns: a register's rows are unpacked once into a panel, which is multiplied with every column.
//!
//! A panel holds, for each unit of the rows, the codes as the level's
//! [`store_panel`](Simd::store_panel) writes them, then the scales as i32 and the minimums as f32, each
//! `[sub-block][rows]` (units of 256 only), and `d` and `dmin` as f32 `[rows]`. It is as long
//! as the thread's scratch memory allows; the accumulators rest in the result in between, which
//! loses nothing.
//!
//! With [`MANY`] columns and registers for it ([`Simd::TALL`]), the rows of several registers are multiplied
//! together, so that each broadcast of activations serves all of them: a CPU that begins two vector products
//! a cycle, but also just two loads, waits for broadcasts else. With fewer columns, the weights of the next
//! tile are asked for while a panel is multiplied.

#![allow(clippy::undocumented_unsafe_blocks, reason = "each block is its caller's promise")]

use super::source::{self, Cache, Source, add, codes, flipped};
use super::staged::{STAGE, Unpack};
use super::{Tile, for_blocks};
use crate::act::GROUP;
use crate::lanes::LINE;
use crate::par::SCRATCH_BYTES;
use crate::simd::{Rows, Simd};
use crate::table::GemmArgs;

/// Bytes of a panel, which with the activations of some columns is to stay in the second-level cache:
/// it is read once for several columns. Three registers' rows of 2048 weights of any type fit; shorter panels
/// that fit the first-level cache were no faster.
const PANEL: usize = 144 * 1024;
const _: () = assert!(STAGE + PANEL <= SCRATCH_BYTES);

/// Where the parts of a unit are.
struct Layout {
    scales: usize,
    mins: usize,
    d: usize,
    dmin: usize,
    bytes: usize,
}

const fn layout(rows: usize, unit: usize, subs: usize, has_min: bool) -> Layout {
    let scales = rows * unit;
    let scaled = unit > 32;
    let mins = scales + if scaled { 4 * rows * subs } else { 0 };
    let d = mins + if scaled && has_min { 4 * rows * subs } else { 0 };
    let dmin = d + 4 * rows;
    Layout { scales, mins, d, dmin, bytes: dmin + if has_min { 4 * rows } else { 0 } }
}

/// The weights of the next tile, asked for in small portions while a panel is multiplied: with few columns,
/// that takes no longer than memory takes to bring them. (`siskin bench --shape llama-1b -n 0 -p 9` took
/// 1.35 times as long without, on two cores, and 1.1 times if they were asked for while a tile is
/// unpacked.)
struct NextTile {
    at: *const u8,
    /// Bytes from `at` on.
    left: usize,
    /// Bytes of a portion.
    portion: usize,
    /// Units that are multiplied with some columns between two portions.
    strip: usize,
}

impl NextTile {
    /// What comes from `row` on, after a tile of `units`: a portion for each `strip` of them and as many
    /// columns as are multiplied at once.
    fn new<S: Simd>(args: &GemmArgs<'_>, row: usize, units: usize, strip: usize) -> NextTile {
        let (at, rows) = match args.rows.end - row {
            0 if args.next.is_null() => (args.next, 0),
            0 => (args.next, S::ROWS),
            left => (args.w.wrapping_add(row * args.row_bytes), left.min(S::ROWS)),
        };
        if args.n >= MANY {
            return NextTile { at, left: 0, portion: 0, strip: units };
        }
        let left = args.row_bytes.saturating_mul(rows);
        let times = units.div_ceil(strip) * args.n.div_ceil(S::COLUMNS);
        NextTile { at, left, portion: left.div_ceil(times).next_multiple_of(LINE), strip }
    }

    /// Asks for the next portion.
    #[inline(always)]
    fn ask<S: Simd>(&mut self) {
        let bytes = self.portion.min(self.left);
        for offset in (0..bytes).step_by(LINE) {
            // A prefetch faults on no address: of the next matrix no more is known than where it begins.
            S::prefetch(self.at.wrapping_add(offset));
        }
        self.at = self.at.wrapping_add(bytes);
        self.left -= bytes;
    }
}

/// Columns from which on multiplying a tile takes longer than reading the next, and several tiles are
/// multiplied together. (What those are unpacked to does not fit the first-level cache, for which fewer
/// columns do not make up: `siskin bench --shape llama-1b -n 0 -p 16` took 1.12 times as long so.)
pub const MANY: usize = 128;

/// Tiles that are multiplied together where there are as many. What has two sums for each 32 weights needs
/// twice the registers.
pub const fn tall<S: Simd, T: Source>() -> usize {
    if T::SUB == 16 && S::TALL > 2 { 2 } else { S::TALL }
}

/// Rows that are multiplied together where there are as many.
pub const fn tall_rows<S: Simd, T: Source>() -> usize {
    tall::<S, T>() * S::ROWS
}

/// Columns that `R` tiles are multiplied with at once, at the most.
const fn columns<S: Simd, const R: usize>() -> usize {
    if R > 1 { 4 } else { S::COLUMNS }
}

/// `R` tiles of rows from `row` on, times all columns. Returns how many rows that is.
///
/// # Safety
/// As for [`GemmFn`](crate::table::GemmFn); the layout is of groups of columns. More than one tile are
/// within `args.rows`.
#[inline(always)]
pub unsafe fn rows<S: Simd, T: Source, const R: usize>(
    args: &mut GemmArgs<'_>,
    row: usize,
) -> usize {
    unsafe {
        debug_assert!(R == 1 || args.rows.end - row >= R * S::ROWS);
        let mut tiles = [Tile::new::<S>(args, row); R];
        for (r, tile) in tiles.iter_mut().enumerate().skip(1) {
            *tile = Tile::new::<S>(args, row + r * S::ROWS);
        }
        let rows = if R == 1 { tiles[0].n } else { R * S::ROWS };
        let l = const { layout(S::ROWS, T::UNIT, T::SUBS, T::HAS_MIN) };
        let stage = args.scratch.as_mut_ptr();
        let panel = stage.add(STAGE);
        let units = args.layout.k / T::UNIT * T::SPLIT;
        let most = PANEL / (R * l.bytes);
        let mut next = NextTile::new::<S>(args, row + rows, units, 256 / T::UNIT);
        let mut u0 = 0;
        while u0 < units {
            let count = most.min(units - u0);
            for u in 0..count {
                for (r, tile) in tiles.iter().enumerate() {
                    let panel = panel.add((u * R + r) * l.bytes);
                    unpack::<S, T>(tile.rows, u0 + u, stage, panel, args.unpack);
                }
            }
            let part = Part { u0, count, panel };
            let mut col = 0;
            while col < args.n {
                // Few widths only: each is compiled for each format and level. What is computed
                // past the last column is not stored.
                let left = args.n - col;
                col += if const { columns::<S, R>() >= 8 } && left > 4 {
                    multiply::<S, T, R, 8>(args, &tiles, col, part, &mut next)
                } else if left > 2 {
                    multiply::<S, T, R, 4>(args, &tiles, col, part, &mut next)
                } else {
                    multiply::<S, T, R, 2>(args, &tiles, col, part, &mut next)
                };
            }
            u0 += count;
        }
        rows
    }
}

/// `count` units, which begin with unit `u0`, of the rows in a panel: of each unit, one after the other, the
/// tiles.
#[derive(Clone, Copy)]
struct Part {
    u0: usize,
    count: usize,
    panel: *const u8,
}

/// Unpacks unit `u` of the rows.
#[inline(always)]
unsafe fn unpack<S: Simd, T: Source>(
    rows: Rows,
    u: usize,
    stage: *mut u8,
    panel: *mut u8,
    how: Option<Unpack>,
) {
    unsafe {
        let l = const { layout(S::ROWS, T::UNIT, T::SUBS, T::HAS_MIN) };
        let p = T::unit(rows, u);
        let params = T::open::<S>(p, u, stage, how);
        if T::SCALED {
            for j in 0..T::SUBS {
                S::store_i(
                    panel.add(l.scales + 4 * S::ROWS * j).cast(),
                    T::scale::<S>(&params.packed, j),
                );
                if T::HAS_MIN {
                    S::store(
                        panel.add(l.mins + 4 * S::ROWS * j).cast(),
                        T::min::<S>(&params.packed, j),
                    );
                }
            }
        }
        S::store(panel.add(l.d).cast(), params.d);
        if T::HAS_MIN {
            S::store(panel.add(l.dmin).cast(), params.dmin);
        }
        let mut cache = Cache::new();
        macro_rules! store {
            ($j:literal) => {
                let codes = codes::<S, T, $j>(p, u, stage, &mut cache);
                S::store_panel(panel.add(32 * S::ROWS * $j), &codes, T::ZERO);
            };
        }
        for_blocks!(T, store);
    }
}

/// The sum of a tile's products, less what its codes have too much.
#[inline(always)]
unsafe fn less_zero<S: Simd, T: Source>(sum: S::I, total: *const u8) -> S::I {
    const { assert!(!(S::CENTRED && S::UNSIGNED), "codes less their zero point are signed") };
    if S::CENTRED { sum } else { unsafe { source::less_zero::<S, T>(sum, total) } }
}

/// Multiplies a part of `R` tiles with `C` columns, which are of one group. Returns `C`.
#[inline(always)]
unsafe fn multiply<S: Simd, T: Source, const R: usize, const C: usize>(
    args: &GemmArgs<'_>,
    tiles: &[Tile; R],
    col: usize,
    Part { u0, count, panel }: Part,
    next: &mut NextTile,
) -> usize {
    unsafe {
        let l = const { layout(S::ROWS, T::UNIT, T::SUBS, T::HAS_MIN) };
        let a = args.layout;
        let signed = T::SIGNED && !flipped::<S, T>();
        debug_assert_eq!(a.group, GROUP);
        let x = args.act.add(col / GROUP * a.stride);
        let first = col % GROUP;
        // What the layout's own functions say, with a distance that the compiler knows. Else the compiler
        // computes the addresses of a unit's eight minimums in a register and takes them out one by one,
        // for which the multiplications of Q4_K wait.
        let item = |section: usize, i: usize, c: usize| {
            debug_assert_eq!(section + 4 * (first + i * GROUP + c), a.value(section, i, first + c));
            x.add(section + 4 * first).add(4 * (i * GROUP + c))
        };
        let float =
            |section: usize, i: usize, c: usize| S::splat(item(section, i, c).cast::<f32>().read());
        let zero = [[S::splat(0.0); C]; R];
        let mut acc = zero;
        let out = |r: usize, c: usize| args.out.add((col + c) * args.ldo + tiles[r].row);
        let columns = C.min(args.n - col);
        if u0 > 0 {
            for r in 0..R {
                for c in 0..columns {
                    acc[r][c] = tiles[r].load::<S>(out(r, c));
                }
            }
        }
        let mut u = 0;
        while u < count {
            next.ask::<S>();
            let end = count.min(u + next.strip);
            while u < end {
                let panel = panel.add(u * R * l.bytes);
                // A register of tile `r`.
                let register = |offset: usize, r: usize| panel.add(offset + r * l.bytes);
                let at = (u0 + u) / T::SPLIT * (T::UNIT / 32);
                let mut inner = zero;
                for j in 0..T::UNIT / 32 {
                    let codes = panel.add(32 * S::ROWS * j);
                    debug_assert_eq!(32 * (first + GROUP * (at + j)), a.codes(at + j, first));
                    let q = x.add(32 * first).add(32 * GROUP * (at + j));
                    let mut isum;
                    if T::SUB == 16 {
                        let i = 2 * (at + j);
                        let scale = |r: usize, half: usize| {
                            S::load_i(register(l.scales + 4 * S::ROWS * (2 * j + half), r).cast())
                        };
                        isum = S::tiles::<R, C, 4>(codes, l.bytes, q, signed, T::TOP);
                        for r in 0..R {
                            for c in 0..C {
                                isum[r][c] = less_zero::<S, T>(isum[r][c], item(a.sum16, i, c));
                                isum[r][c] = S::mul_i(isum[r][c], scale(r, 0));
                            }
                        }
                        let (codes, q) = (codes.add(16 * S::ROWS), q.add(16));
                        let last = S::tiles::<R, C, 4>(codes, l.bytes, q, signed, T::TOP);
                        for r in 0..R {
                            for c in 0..C {
                                let last = less_zero::<S, T>(last[r][c], item(a.sum16, i + 1, c));
                                isum[r][c] = S::add_i(isum[r][c], S::mul_i(last, scale(r, 1)));
                            }
                        }
                    } else {
                        isum = S::tiles::<R, C, 8>(codes, l.bytes, q, signed, T::TOP);
                        for r in 0..R {
                            for c in 0..C {
                                isum[r][c] =
                                    less_zero::<S, T>(isum[r][c], item(a.sum32, at + j, c));
                                if T::SCALED {
                                    let scale = register(l.scales + 4 * S::ROWS * j, r);
                                    isum[r][c] = S::mul_i(isum[r][c], S::load_i(scale.cast()));
                                }
                            }
                        }
                    }
                    for r in 0..R {
                        for c in 0..C {
                            let d = float(a.d, at + j, c);
                            inner[r][c] = add::<S, T>(d, S::to_f32(isum[r][c]), inner[r][c]);
                        }
                    }
                }
                for r in 0..R {
                    let d = S::load(register(l.d, r).cast());
                    for c in 0..C {
                        acc[r][c] = S::fma(d, inner[r][c], acc[r][c]);
                    }
                }
                if T::HAS_MIN {
                    let total = if T::SUB == 16 { a.total16 } else { a.total32 };
                    let i = (u0 + u) * T::SUBS;
                    let mut mins = zero;
                    for j in 0..if T::SCALED { T::SUBS } else { 1 } {
                        for r in 0..R {
                            for c in 0..C {
                                let total = float(total, i + j, c);
                                mins[r][c] = if T::SCALED {
                                    let min = register(l.mins + 4 * S::ROWS * j, r);
                                    S::fma(S::load(min.cast()), total, mins[r][c])
                                } else {
                                    total
                                };
                            }
                        }
                    }
                    for r in 0..R {
                        let dmin = S::load(register(l.dmin, r).cast());
                        for c in 0..C {
                            acc[r][c] = S::fma(dmin, mins[r][c], acc[r][c]);
                        }
                    }
                }
                u += 1;
            }
        }
        for r in 0..R {
            for c in 0..columns {
                tiles[r].store::<S>(out(r, c), acc[r][c]);
            }
        }
    }
    C
}
