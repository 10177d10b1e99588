//! The search of the scales of a superblock of a grid type: an f16 scale and a small odd integer
//! for each sub-block, chosen together by the error that is left after all rounding.

use super::grid_search::{Groups, Lanes, Points, Tables};
use super::search::{LANES, Unit, Weighting, max_abs, prepare, sum};

/// Which values are moved by the grid's `delta`, up or down.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Moved {
    /// None: the grid holds magnitudes, signs are apart.
    No,
    /// Those of a sub-block together.
    SubBlock,
    /// Those of a group.
    Group,
}

/// What the search needs to know of a type.
pub(super) struct GridType<const N: usize, const V: usize> {
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
    /// How much an error counts.
    pub weighting: Weighting,
}

/// One number for each sub-block.
type Subs = [f32; 16];

/// A superblock as it is to be stored.
pub(super) struct Found<const GROUPS: usize> {
    /// The scale, f16.
    pub d: [u8; 2],
    /// The integer of each sub-block: the scale is twice that plus 1.
    pub scales: [u8; 16],
    /// The point of each group.
    pub index: [u16; GROUPS],
    /// The minuses of each 8 values.
    pub signs: [u8; 32],
    /// Whether the values of each group are moved down.
    pub down: [bool; GROUPS],
}

/// A superblock being searched: `CHUNKS` times 16 groups of `N`.
struct Superblock<'a, const N: usize, const V: usize, const CHUNKS: usize> {
    ty: &'a GridType<N, V>,
    groups: [Groups<N>; CHUNKS],
    /// Whether the number of minuses among the 8 values that a group belongs to is odd.
    odd: [bool; 32],
    tables: Tables,
}

/// Searches a superblock. `GROUPS` is `256 / N`, `CHUNKS` a 16th of that.
#[inline(always)]
pub(super) fn search<const N: usize, const V: usize, const CHUNKS: usize, const GROUPS: usize>(
    ty: &GridType<N, V>,
    x: &[f32; 256],
    importance: Option<&[f32; 256]>,
) -> Found<GROUPS> {
    let mut found = Found {
        d: [0; 2],
        scales: [0; 16],
        index: [0; GROUPS],
        signs: [0; 32],
        down: [false; GROUPS],
    };
    let (mut values, mut weights) = ([0.0; 256], [0.0; 256]);
    let Some(unit) = prepare(x, importance, ty.weighting, &mut values, &mut weights) else {
        return found;
    };
    if ty.moved == Moved::No {
        for (n, values) in values.chunks_exact_mut(8).enumerate() {
            for (i, value) in values.iter_mut().enumerate() {
                found.signs[n] |= u8::from(*value < 0.0) << i;
                *value = value.abs();
            }
        }
    }
    let mut block = Superblock::<N, V, CHUNKS> {
        ty,
        groups: [Groups { x: [[0.0; LANES]; N], w: [[0.0; LANES]; N] }; CHUNKS],
        odd: found.signs.map(|signs| signs.count_ones() % 2 == 1),
        tables: Tables::new(),
    };
    for group in 0..GROUPS {
        let out = &mut block.groups[group / LANES];
        for i in 0..N {
            out.x[i][group % LANES] = values[group * N + i];
            out.w[i][group % LANES] = weights[group * N + i];
        }
    }

    let (mut d, mut scales) = block.first_scales(&values, unit);
    for _ in 0..REFITS {
        block.codes(d, &scales, &mut found);
        let fitted = block.fit(&scales, &found);
        d = block.settle(unit, d, fitted, &mut scales);
    }
    block.codes(d, &scales, &mut found);
    found.d = unit.f16(d * ty.factor).1;
    for sub in 0..ty.subs {
        found.scales[sub] = (scales[sub] / 2) as u8;
    }
    if ty.even {
        block.turn_signs(&mut found);
    }
    found
}

/// Scales tried for a sub-block, as shares of that which brings its largest value to the largest
/// level: from the first, each a step less.
const COARSE: usize = 12;
const FIRST: f32 = 1.12;
const STEP: f32 = 0.93;
/// Superblock scales of which the error is estimated, and of which it is computed.
const ESTIMATED: usize = 40;
const COMPUTED: usize = 3;
/// How often the superblock's scale is fitted to the codes.
const REFITS: usize = 2;

impl<const N: usize, const V: usize, const CHUNKS: usize> Superblock<'_, N, V, CHUNKS> {
    /// The sub-block of a group.
    #[inline(always)]
    fn sub(&self, group: usize) -> usize {
        group * self.ty.subs / (CHUNKS * LANES)
    }

    /// The least error of each sub-block with the given scale.
    #[inline(always)]
    fn errors(&mut self, s: &Subs) -> Subs {
        let mut errors = [0.0; 16];
        let mut moved = [[0.0; 16]; 2];
        for chunk in 0..CHUNKS {
            let lanes: Lanes = std::array::from_fn(|i| s[self.sub(chunk * LANES + i)]);
            let (least, other) = self.chunk_errors(chunk, &lanes);
            for i in 0..LANES {
                let group = chunk * LANES + i;
                let sub = self.sub(group);
                let (a, b) = (least[i], other[i]);
                match self.ty.moved {
                    Moved::SubBlock => {
                        moved[0][sub] += a;
                        moved[1][sub] += b;
                    }
                    Moved::Group => errors[sub] += if b < a { b } else { a },
                    Moved::No if !self.ty.even => errors[sub] += a,
                    Moved::No if N == 8 => errors[sub] += if self.odd[group] { b } else { a },
                    // The signs of two groups: either has the one that is turned.
                    Moved::No => {
                        if i % 2 == 0 {
                            let (c, d) = (least[i + 1], other[i + 1]);
                            let turned = if b + c < a + d { b + c } else { a + d };
                            errors[sub] += if self.odd[group / 2] { turned } else { a + c };
                        }
                    }
                }
            }
        }
        if self.ty.moved == Moved::SubBlock {
            for sub in 0..16 {
                let (up, down) = (moved[0][sub], moved[1][sub]);
                errors[sub] = if down < up { down } else { up };
            }
        }
        errors
    }

    /// The least error of each group of a chunk, and the least with a sign turned or with the
    /// values moved down.
    #[inline(always)]
    fn chunk_errors(&mut self, chunk: usize, s: &Lanes) -> (Lanes, Lanes) {
        let (ty, groups) = (self.ty, &self.groups[chunk]);
        let up = ty.levels.map(|level| level + ty.delta);
        self.tables.fill(groups, s, &up, ty.even);
        if ty.even {
            return self.tables.least_of_both(ty.points);
        }
        let least = self.tables.least(ty.points);
        if ty.moved == Moved::No {
            return (least, least);
        }
        let down = ty.levels.map(|level| level - ty.delta);
        self.tables.fill(groups, s, &down, false);
        (least, self.tables.least(ty.points))
    }

    /// Chooses the superblock's scale (that of levels and integers) and the sub-blocks' integers.
    #[inline(always)]
    fn first_scales(&mut self, values: &[f32; 256], unit: Unit) -> (f32, [i32; 16]) {
        let subs = self.ty.subs;
        let top = self.ty.levels[V - 1] + self.ty.delta;
        let mut full = [0.0; 16];
        for sub in 0..subs {
            let len = 256 / subs;
            full[sub] = max_abs(&values[sub * len..][..len]) / top;
        }
        // The best scale of each sub-block for itself, and the errors beside it.
        let mut tried = [[0.0; 16]; COARSE];
        let mut factor = FIRST;
        for errors in &mut tried {
            *errors = self.errors(&full.map(|s| s * factor));
            factor *= STEP;
        }
        let (mut best, mut curve) = ([0.0; 16], [0.0; 16]);
        let mut largest = 0.0f32;
        for sub in 0..subs {
            let mut at = 0;
            let mut s = full[sub] * FIRST;
            let mut best_s = s;
            for k in 0..COARSE {
                if tried[k][sub] < tried[at][sub] {
                    (at, best_s) = (k, s);
                }
                s *= STEP;
            }
            let e = tried[at][sub];
            let below = tried[(at + 1).min(COARSE - 1)][sub] - e;
            let above = tried[at.saturating_sub(1)][sub] - e;
            // A parabola through three errors.
            let step = best_s * (1.0 - STEP);
            curve[sub] = (below + above) / (2.0 * step * step);
            let shift = (below - above) / (2.0 * (below + above));
            let inside = at > 0 && at + 1 < COARSE && shift.abs() <= 0.5;
            best[sub] = if inside { best_s + shift * step } else { best_s };
            largest = if largest < best[sub] { best[sub] } else { largest };
        }
        // The estimate chooses a few superblock scales.
        let max = self.ty.max_scale;
        let mut estimates = [(f32::MAX, 0.0); ESTIMATED];
        for (n, estimate) in estimates.iter_mut().enumerate() {
            // The largest sub-block's integer, which need not be whole here.
            let integer = (max as f32 + 0.6) * (1.0 - 0.55 * n as f32 / ESTIMATED as f32);
            let d = unit.f16(largest / integer * self.ty.factor).0 / self.ty.factor;
            let mut error = 0.0;
            for sub in 0..subs {
                let diff = best[sub] - d * nearest_odd(best[sub], d, max) as f32;
                error += if curve[sub] > 0.0 { curve[sub] * diff * diff } else { 0.0 };
            }
            *estimate = (error, d);
        }
        let mut chosen = (f32::MAX, estimates[0].1, [1; 16]);
        for _ in 0..COMPUTED {
            let mut least = 0;
            for n in 1..ESTIMATED {
                if estimates[n].0 < estimates[least].0 {
                    least = n;
                }
            }
            let d = estimates[least].1;
            estimates[least].0 = f32::MAX;
            let mut scales = best.map(|s| nearest_odd(s, d, max));
            // The other neighbour of what was rounded.
            let other = std::array::from_fn(|sub| {
                let above = d * scales[sub] as f32 <= best[sub];
                (scales[sub] + if above { 2 } else { -2 }).clamp(1, max)
            });
            let total = self.choose(d, &mut scales, &[other]);
            if total < chosen.0 {
                chosen = (total, d, scales);
            }
        }
        (chosen.1, chosen.2)
    }

    /// Replaces each integer by that of the others which leaves the least error; returns the sum
    /// of the errors.
    #[inline(always)]
    fn choose(&mut self, d: f32, scales: &mut [i32; 16], others: &[[i32; 16]]) -> f32 {
        let mut errors = self.errors(&scales.map(|l| d * l as f32));
        for other in others {
            let tried = self.errors(&other.map(|l| d * l as f32));
            for sub in 0..16 {
                if tried[sub] < errors[sub] {
                    (errors[sub], scales[sub]) = (tried[sub], other[sub]);
                }
            }
        }
        errors[..self.ty.subs].iter().sum()
    }

    /// Takes the fitted scale if it leaves a smaller error, with integers next to those before.
    #[inline(always)]
    fn settle(&mut self, unit: Unit, d: f32, fitted: f32, scales: &mut [i32; 16]) -> f32 {
        let max = self.ty.max_scale;
        let fitted = unit.f16(fitted * self.ty.factor).0 / self.ty.factor;
        let before = self.choose(d, scales, &[]);
        let mut refitted = *scales;
        let others = [-2, 2].map(|step| scales.map(|l| (l + step).clamp(1, max)));
        if fitted > 0.0 && self.choose(fitted, &mut refitted, &others) < before {
            *scales = refitted;
            fitted
        } else {
            d
        }
    }

    /// Finds the points for the scales.
    #[inline(always)]
    fn codes<const GROUPS: usize>(
        &mut self,
        d: f32,
        scales: &[i32; 16],
        found: &mut Found<GROUPS>,
    ) {
        let ty = self.ty;
        let up = ty.levels.map(|level| level + ty.delta);
        let down = ty.levels.map(|level| level - ty.delta);
        for chunk in 0..CHUNKS {
            let lanes: Lanes =
                std::array::from_fn(|i| d * scales[self.sub(chunk * LANES + i)] as f32);
            let (least, other) = self.chunk_errors(chunk, &lanes);
            // Whether a group is moved down, or has the sign that is turned.
            let mut second = [false; LANES];
            for i in 0..LANES {
                let group = chunk * LANES + i;
                second[i] = match ty.moved {
                    Moved::Group => other[i] < least[i],
                    Moved::SubBlock => {
                        // A sub-block's groups lie in one chunk.
                        let len = CHUNKS * LANES / ty.subs;
                        let from = i / len * len;
                        let (mut a, mut b) = (0.0, 0.0);
                        for j in from..from + len {
                            a += least[j];
                            b += other[j];
                        }
                        b < a
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
            let groups = &self.groups[chunk];
            let none = [false; LANES];
            let mut index = if ty.moved == Moved::No {
                self.tables.fill(groups, &lanes, &ty.levels, ty.even);
                self.tables.nearest(ty.points, if ty.even { &second } else { &none })
            } else {
                self.tables.fill(groups, &lanes, &up, false);
                self.tables.nearest(ty.points, &none)
            };
            if ty.moved != Moved::No {
                self.tables.fill(groups, &lanes, &down, false);
                let below = self.tables.nearest(ty.points, &none);
                for i in 0..LANES {
                    index[i] = if second[i] { below[i] } else { index[i] };
                }
            }
            found.index[chunk * LANES..][..LANES].copy_from_slice(&index);
            found.down[chunk * LANES..][..LANES].copy_from_slice(&second);
        }
    }

    /// What the values of a group become, in units of the scale, with the sign that is turned.
    #[inline(always)]
    fn point<const GROUPS: usize>(&self, group: usize, found: &Found<GROUPS>) -> [f32; N] {
        let (ty, groups, lane) = (self.ty, &self.groups[group / LANES], group % LANES);
        let second = found.down[group];
        let delta = if second { -ty.delta } else { ty.delta };
        let mut point =
            ty.grid[usize::from(found.index[group])].map(|level| f32::from(level) + delta);
        if second && ty.moved == Moved::No {
            let mut turned = 0;
            let cost = |i: usize| groups.w[i][lane] * groups.x[i][lane] * point[i];
            for i in 1..N {
                if cost(i) < cost(turned) {
                    turned = i;
                }
            }
            point[turned] = -point[turned];
        }
        point
    }

    /// The scale with the least error for the codes found.
    #[inline(always)]
    fn fit<const GROUPS: usize>(&self, scales: &[i32; 16], found: &Found<GROUPS>) -> f32 {
        let (mut xq, mut qq) = ([0.0; LANES], [0.0; LANES]);
        for group in 0..GROUPS {
            let (groups, lane) = (&self.groups[group / LANES], group % LANES);
            let l = scales[self.sub(group)] as f32;
            let point = self.point(group, found);
            for i in 0..N {
                let (x, w, q) = (groups.x[i][lane], groups.w[i][lane], l * point[i]);
                xq[lane] += w * x * q;
                qq[lane] += w * q * q;
            }
        }
        let (xq, qq) = (sum(&xq), sum(&qq));
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

/// The odd number nearest to `s / d`, from 1 to `max`.
#[inline(always)]
fn nearest_odd(s: f32, d: f32, max: i32) -> i32 {
    ((s / (2.0 * d)) as i32).clamp(0, max / 2) * 2 + 1
}
