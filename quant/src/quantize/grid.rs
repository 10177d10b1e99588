//! The search of superblocks of the grid types.

use super::GROUP;
use super::lanes::{Cpu, F, LANES};
use super::points::{Points, Tables};
use super::scale_plan::{Ask, Effort, Plan, Subs};
use super::unit::{max_abs, near_one};
use crate::lanes::{Lanes, tree_sum};

/// Which values are moved by the grid's `delta`, up or down.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// None: the grid holds magnitudes, signs are apart.
    No,
    /// Those of a sub-block together.
    SubBlock,
    /// Those of a group.
    Group,
}

/// What the search needs to know of a type.
pub struct GridType<const N: usize, const V: usize> {
    /// The grid.
    pub grid: &'static [[i8; N]],
    /// The same, ordered.
    pub points: Points,
    /// The values in it.
    pub levels: [f32; V],
    /// By how much values may be moved.
    pub delta: f32,
    /// Which are.
    pub moved: Moved,
    /// The number of minuses among 8 values is even.
    pub even: bool,
    /// Sub-blocks in a superblock: 8 or 16.
    pub subs: usize,
    /// The largest integer scale, odd.
    pub max_scale: i32,
    /// The f16 is this many times what levels and integers are multiplied with.
    pub factor: f32,
    /// How much is tried.
    pub effort: Effort,
}

/// A superblock as it is to be stored.
pub struct Found<const GROUPS: usize> {
    /// The scale, f16.
    pub d: [u8; 2],
    /// The integer of each sub-block: the scale is twice that plus 1.
    pub scales: [u8; 16],
    /// The point of each group.
    pub index: [u16; GROUPS],
    /// The minuses of each 8 values.
    pub signs: [u8; 32],
    /// Whether the values of each group are moved down or, where the signs are apart, have the sign
    /// that was turned to make the number of minuses even.
    pub second: [bool; GROUPS],
}

/// Searches superblocks and packs what is found. `GROUPS` is `256 / N`, `CHUNKS` a 16th of that.
#[inline(always)]
fn search_chunks<
    L: Lanes,
    B,
    const N: usize,
    const V: usize,
    const CHUNKS: usize,
    const GROUPS: usize,
>(
    cpu: Cpu<L>,
    ty: &GridType<N, V>,
    x: &[f32; GROUP],
    weights: &[f32; GROUP],
    out: &mut [B],
    pack: fn(&Found<GROUPS>) -> B,
) {
    let (x, weights) = (x.as_chunks().0, weights.as_chunks().0);
    for (n, (out, x)) in out.iter_mut().zip(x).enumerate() {
        *out = pack(&search_one::<L, N, V, CHUNKS, GROUPS>(cpu, ty, x, &weights[n]));
    }
}

/// Searches superblocks with groups of 8 and packs what is found.
#[inline(always)]
pub fn search_8<L: Lanes, B>(
    cpu: Cpu<L>,
    ty: &GridType<8, 3>,
    x: &[f32; GROUP],
    weights: &[f32; GROUP],
    out: &mut [B],
    pack: fn(&Found<32>) -> B,
) {
    search_chunks::<L, B, 8, 3, 2, 32>(cpu, ty, x, weights, out, pack);
}

/// Searches superblocks with groups of 4 and packs what is found.
#[inline(always)]
pub fn search_4<L: Lanes, B>(
    cpu: Cpu<L>,
    ty: &GridType<4, 8>,
    x: &[f32; GROUP],
    weights: &[f32; GROUP],
    out: &mut [B],
    pack: fn(&Found<64>) -> B,
) {
    search_chunks::<L, B, 4, 8, 4, 64>(cpu, ty, x, weights, out, pack);
}

/// 16 groups of `N` values: of each group the first value, of each the second and so on.
type Rows<const N: usize> = [[f32; LANES]; N];

/// A superblock being searched: `CHUNKS` times 16 groups of `N`.
struct Superblock<'a, L: Lanes, const N: usize, const V: usize, const CHUNKS: usize> {
    cpu: Cpu<L>,
    ty: &'a GridType<N, V>,
    x: [Rows<N>; CHUNKS],
    w: [Rows<N>; CHUNKS],
    /// Whether the number of minuses is odd of each 8 values.
    odd: [bool; 32],
    tables: Tables,
}

/// Searches a superblock.
#[inline(always)]
fn search_one<
    L: Lanes,
    const N: usize,
    const V: usize,
    const CHUNKS: usize,
    const GROUPS: usize,
>(
    cpu: Cpu<L>,
    ty: &GridType<N, V>,
    x: &[f32; 256],
    weights: &[f32; 256],
) -> Found<GROUPS> {
    let mut found = Found {
        d: [0; 2],
        scales: [0; 16],
        index: [0; GROUPS],
        signs: [0; 32],
        second: [false; GROUPS],
    };
    let Some((mut x, unit)) = near_one(x) else {
        return found;
    };
    let mut full = [0.0; 16];
    let top = ty.levels[V - 1] + ty.delta;
    for (full, x) in full.iter_mut().zip(x.chunks_exact(256 / ty.subs)) {
        *full = max_abs(x) / top;
    }
    let mut block = Superblock::<L, N, V, CHUNKS> {
        cpu,
        ty,
        x: [[[0.0; LANES]; N]; CHUNKS],
        w: [[[0.0; LANES]; N]; CHUNKS],
        odd: [false; 32],
        tables: Tables::empty(),
    };
    if ty.moved == Moved::No {
        found.signs = take_signs(&mut x);
        for (odd, signs) in block.odd.iter_mut().zip(&found.signs) {
            *odd = signs.count_ones() % 2 == 1;
        }
    }
    for (at, (x, w)) in x.iter().zip(weights).enumerate() {
        let (chunk, i, lane) = (at / N / LANES, at % N, at / N % LANES);
        block.x[chunk][i][lane] = *x;
        block.w[chunk][i][lane] = *w;
    }

    // One call of `try_scales`, since all of it is compiled where it is called.
    let mut plan = Plan::new(full, ty.subs, ty.max_scale, ty.factor, unit, ty.effort);
    loop {
        let (s, codes) = plan.ask();
        let errors = block.try_scales(&s, (codes != Ask::Errors).then_some(&mut found));
        match codes {
            Ask::Errors => plan.errors(&errors),
            Ask::Fit => plan.fitted(block.fit(&plan.integers, &found)),
            Ask::Codes => break,
        }
    }
    (found.d, found.scales) = plan.scales();
    if ty.even {
        block.turn_signs(&mut found);
    }
    found
}

/// Leaves the magnitudes; returns the minuses of each 8 values.
fn take_signs(x: &mut [f32; 256]) -> [u8; 32] {
    let mut signs = [0; 32];
    for (signs, x) in signs.iter_mut().zip(x.chunks_exact_mut(8)) {
        for (i, x) in x.iter_mut().enumerate() {
            *signs |= u8::from(*x < 0.0) << i;
            *x = x.abs();
        }
    }
    signs
}

impl<L: Lanes, const N: usize, const V: usize, const CHUNKS: usize>
    Superblock<'_, L, N, V, CHUNKS>
{
    /// The sub-block of a group.
    #[inline(always)]
    fn sub(&self, group: usize) -> usize {
        group * self.ty.subs / (CHUNKS * LANES)
    }

    /// The least error of each sub-block with the given scales, and if asked for the codes.
    #[inline(always)]
    fn try_scales<const GROUPS: usize>(
        &mut self,
        s: &Subs,
        mut found: Option<&mut Found<GROUPS>>,
    ) -> Subs {
        let (cpu, ty) = (self.cpu, self.ty);
        let zero = cpu.splat(0.0);
        let mut errors = [0.0; 16];
        for chunk in 0..CHUNKS {
            let lanes = self.of_groups(chunk, s);
            // As it is, and with a sign turned or with the values moved down.
            let (mut error, mut index) = ([zero; 2], [zero; 2]);
            for side in 0..1 + usize::from(ty.moved != Moved::No) {
                let mut levels = ty.levels;
                for level in &mut levels {
                    *level += if side == 0 { ty.delta } else { -ty.delta };
                }
                self.tables.fill((&self.x[chunk], &self.w[chunk]), lanes, &levels, ty.even);
                if ty.even {
                    (error[0], error[1]) = self.tables.least_of_both(cpu, ty.points);
                } else {
                    error[side] = self.tables.least(cpu, ty.points);
                    if found.is_some() {
                        index[side] = self.tables.nearest(ty.points, None, cpu);
                    }
                }
            }
            let (least, other) = (error[0].array(), error[1].array());
            let second = self.second(chunk, &least, &other);
            for i in 0..LANES {
                errors[self.sub(chunk * LANES + i)] += if second[i] { other[i] } else { least[i] };
            }
            let Some(found) = &mut found else { continue };
            let mut marks = [0.0; LANES];
            for (mark, second) in marks.iter_mut().zip(second) {
                *mark = if second { 1.0 } else { 0.0 };
            }
            let marks = cpu.load(&marks);
            let index = if ty.even {
                self.tables.nearest(ty.points, Some(marks), cpu)
            } else {
                zero.less(marks, index[1], index[0])
            };
            found.index[chunk * LANES..][..LANES].copy_from_slice(&integers(index.array()));
            found.second[chunk * LANES..][..LANES].copy_from_slice(&second);
        }
        errors
    }

    /// What the sub-blocks have, for each group of a chunk.
    #[inline(always)]
    fn of_groups(&self, chunk: usize, s: &Subs) -> F<L> {
        let mut lanes = [0.0; LANES];
        for (i, lane) in lanes.iter_mut().enumerate() {
            *lane = s[self.sub(chunk * LANES + i)];
        }
        self.cpu.load(&lanes)
    }

    /// Which groups of a chunk are moved down or have the sign that is turned.
    #[inline(always)]
    fn second(&self, chunk: usize, least: &[f32; LANES], other: &[f32; LANES]) -> [bool; LANES] {
        let ty = self.ty;
        let mut second = [false; LANES];
        for i in 0..LANES {
            let group = chunk * LANES + i;
            second[i] = match ty.moved {
                Moved::Group => other[i] < least[i],
                Moved::SubBlock => {
                    // A sub-block's groups lie in one chunk.
                    let len = CHUNKS * LANES / ty.subs;
                    let (mut up, mut down) = (0.0, 0.0);
                    for j in i / len * len..(i / len + 1) * len {
                        up += least[j];
                        down += other[j];
                    }
                    down < up
                }
                Moved::No if !ty.even => false,
                Moved::No if N == 8 => self.odd[group],
                Moved::No => {
                    let pair = i & !1;
                    let first = other[pair] + least[pair + 1] < least[pair] + other[pair + 1];
                    self.odd[group / 2] && first == (i % 2 == 0)
                }
            };
        }
        second
    }

    /// What the values of a group become, in units of the scale, with the sign that is turned.
    #[inline(always)]
    fn point<const GROUPS: usize>(&self, group: usize, found: &Found<GROUPS>) -> [f32; N] {
        let (ty, chunk, lane) = (self.ty, group / LANES, group % LANES);
        let second = found.second[group];
        let grid = &ty.grid[usize::from(found.index[group])];
        let mut point = [if second { -ty.delta } else { ty.delta }; N];
        for i in 0..N {
            point[i] += f32::from(grid[i]);
        }
        if second && ty.moved == Moved::No {
            let (mut turned, mut least) = (0, f32::MAX);
            for i in 0..N {
                let cost = self.w[chunk][i][lane] * self.x[chunk][i][lane] * point[i];
                (turned, least) = if cost < least { (i, cost) } else { (turned, least) };
            }
            point[turned] = -point[turned];
        }
        point
    }

    /// The scale with the least error for the codes found.
    #[inline(always)]
    fn fit<const GROUPS: usize>(&self, integers: &[i32; 16], found: &Found<GROUPS>) -> f32 {
        let (mut xq, mut qq) = ([0.0; LANES], [0.0; LANES]);
        for group in 0..GROUPS {
            let (chunk, lane) = (group / LANES, group % LANES);
            let l = integers[self.sub(group)] as f32;
            let point = self.point(group, found);
            for i in 0..N {
                let (x, w, q) = (self.x[chunk][i][lane], self.w[chunk][i][lane], l * point[i]);
                xq[lane] += w * x * q;
                qq[lane] += w * q * q;
            }
        }
        let (xq, qq) = (tree_sum(xq), tree_sum(qq));
        if qq > 0.0 { xq / qq } else { 0.0 }
    }

    /// Turns the signs that have to be.
    #[inline(always)]
    fn turn_signs<const GROUPS: usize>(&self, found: &mut Found<GROUPS>) {
        for group in 0..GROUPS {
            let point = self.point(group, found);
            let at = group * N;
            for i in 0..N {
                found.signs[at / 8] ^= u8::from(point[i] < 0.0) << (at % 8 + i);
            }
        }
    }
}

fn integers(x: [f32; LANES]) -> [u16; LANES] {
    x.map(|x| x as u16)
}
