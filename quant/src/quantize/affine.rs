//! The search of a scale and a minimum: `x = scale * q + min`, `q` from 0 to a largest code.

use super::lanes::{Cpu, F, LANES, Values};
use crate::lanes::Lanes;

/// How a format is searched.
#[derive(Clone, Copy)]
pub struct Affine<L: Lanes> {
    /// What it is computed with.
    pub cpu: Cpu<L>,
    /// The largest code.
    pub top: f32,
    /// The largest integer scale and minimum, where they are integers.
    pub most: f32,
    /// How much is cut off below and above the values' range in the grids that are tried first, in
    /// steps of the grid that spans it.
    pub starts: &'static [(f32, f32)],
}

/// A scale and a minimum of each sub-block.
#[derive(Clone, Copy)]
pub struct Grid<L: Lanes> {
    /// The difference of neighbouring codes.
    pub scale: F<L>,
    /// The value of code 0.
    pub min: F<L>,
}

/// [`Affine::starts`] of the types whose scales are f16.
pub const HALF_STARTS: &[(f32, f32)] = &[
    (0.0, 0.0),
    (0.3, 0.3),
    (0.6, 0.6),
    (0.0, 0.5),
    (0.5, 0.0),
    (1.0, 1.0),
    (-1.0, 0.0),
    (0.0, -1.0),
    (0.0, 1.0),
    (1.0, 0.0),
];

impl<L: Lanes> Grid<L> {
    /// `other`'s sub-blocks where `a < b`.
    #[inline(always)]
    fn less(self, a: F<L>, b: F<L>, other: Self) -> Self {
        Grid { scale: a.less(b, other.scale, self.scale), min: a.less(b, other.min, self.min) }
    }
}

/// Sums over the values of a sub-block: what the best scale and minimum for its codes follow from.
#[derive(Clone, Copy)]
struct Sums<L: Lanes> {
    /// Of `w * q`.
    q: F<L>,
    /// Of `w * q * q`.
    qq: F<L>,
    /// Of `w * x * q`.
    xq: F<L>,
    /// Of `w * (scale * q + min - x)^2`.
    error: F<L>,
}

/// Sums that do not depend on the codes.
#[derive(Clone, Copy)]
struct Fixed<L: Lanes> {
    /// Of `w`.
    w: F<L>,
    /// Of `w * x`.
    x: F<L>,
}

impl<L: Lanes> Sums<L> {
    /// The scale and minimum with the least error for the codes that these are the sums of, and
    /// by how much it is less than that of zeros. `bounded`: no minimum above zero.
    #[inline(always)]
    fn solve(&self, fixed: &Fixed<L>, bounded: bool) -> (Grid<L>, F<L>) {
        let Sums { q, qq, xq, .. } = *self;
        let zero = q.like(0.0);
        let both = fixed.w * qq;
        let det = both - q * q;
        // Below this, what is left of the difference is rounding: all codes are the same.
        let least_det = zero.like(1e-6) * both;
        // Codes above zero alone make the scale, zeros alone the minimum.
        let (alone, level) = (xq.over(qq, zero).max(zero), fixed.x.over(fixed.w, zero));
        let mut scale = least_det.less(det, (fixed.w * xq - fixed.x * q) / det, alone);
        let mut min =
            least_det.less(det, (qq * fixed.x - q * xq) / det, zero.less(qq, zero, level));
        if bounded {
            scale = zero.less(min, alone, scale);
            min = min.min(zero);
        }
        (Grid { scale, min }, scale * xq + min * fixed.x)
    }
}

impl<L: Lanes> Affine<L> {
    /// The codes of values.
    #[inline(always)]
    fn code(&self, x: F<L>, inverse: F<L>, min: F<L>) -> F<L> {
        ((x - min) * inverse).round_within(x.like(0.0), x.like(self.top))
    }

    /// The sums for the codes nearest to the values; without `error` that sum is zero.
    #[inline(always)]
    fn sums<const N: usize>(&self, values: &Values<N>, grid: &Grid<L>, error: bool) -> Sums<L> {
        let zero = self.cpu.splat(0.0);
        let mut sums = Sums { q: zero, qq: zero, xq: zero, error: zero };
        let inverse = zero.like(1.0).over(grid.scale, zero);
        for (x, w) in values.each(self.cpu) {
            let q = self.code(x, inverse, grid.min);
            let wq = w * q;
            sums.q += wq;
            sums.qq += wq * q;
            sums.xq += wq * x;
            if error {
                let off = grid.scale * q + grid.min - x;
                sums.error += w * off * off;
            }
        }
        sums
    }

    /// The errors for the codes nearest to the values.
    #[inline(always)]
    fn error<const N: usize>(&self, values: &Values<N>, grid: &Grid<L>) -> F<L> {
        let zero = self.cpu.splat(0.0);
        let inverse = zero.like(1.0).over(grid.scale, zero);
        let mut error = zero;
        for (x, w) in values.each(self.cpu) {
            let off = grid.scale * self.code(x, inverse, grid.min) + grid.min - x;
            error += w * off * off;
        }
        error
    }

    #[inline(always)]
    fn fixed<const N: usize>(&self, values: &Values<N>) -> Fixed<L> {
        let zero = self.cpu.splat(0.0);
        let mut fixed = Fixed { w: zero, x: zero };
        for (x, w) in values.each(self.cpu) {
            fixed.w += w;
            fixed.x += w * x;
        }
        fixed
    }

    /// The codes nearest to the values.
    #[inline(always)]
    pub fn codes<const N: usize>(&self, values: &Values<N>, grid: &Grid<L>) -> [[f32; LANES]; N] {
        let zero = self.cpu.splat(0.0);
        let inverse = zero.like(1.0).over(grid.scale, zero);
        let mut codes = [[0.0; LANES]; N];
        for (codes, x) in codes.iter_mut().zip(&values.x) {
            *codes = self.code(self.cpu.load(x), inverse, grid.min).array();
        }
        codes
    }

    /// A scale and minimum of each sub-block with a small error.
    #[inline(always)]
    fn search<const N: usize>(
        &self,
        values: &Values<N>,
        fixed: &Fixed<L>,
        bounded: bool,
    ) -> Grid<L> {
        let zero = self.cpu.splat(0.0);
        let (mut low, mut high) = (self.cpu.load(&values.x[0]), self.cpu.load(&values.x[0]));
        for (x, _) in values.each(self.cpu) {
            low = x.min(low);
            high = x.max(high);
        }
        if bounded {
            low = low.min(zero);
        }
        let range = (high - low).max(zero);
        let mut best = Grid { scale: zero, min: low };
        let mut best_gain = zero.like(-1.0);
        for (below, above) in self.starts {
            let scale = range * zero.like((1.0 - (below + above) / self.top) / self.top);
            let cut = zero.like(below / self.top) * range;
            let mut grid = Grid { scale, min: low + cut };
            for _ in 0..ROUNDS {
                let (next, gain) = self.sums(values, &grid, false).solve(fixed, bounded);
                best = best.less(best_gain, gain, next);
                best_gain = gain.max(best_gain);
                grid = next;
            }
        }
        best
    }

    /// The grids of blocks with an f16 scale and minimum.
    #[inline(always)]
    pub fn halves<const N: usize>(&self, values: &Values<N>) -> Grid<L> {
        let fixed = self.fixed(values);
        let mut grid = self.search(values, &fixed, false);
        let mut best = grid;
        let mut best_error = grid.scale.like(f32::INFINITY);
        for _ in 0..HALF_ROUNDS {
            grid = Grid { scale: grid.scale.to_f16(), min: grid.min.to_f16() };
            let sums = self.sums(values, &grid, true);
            best = best.less(sums.error, best_error, grid);
            best_error = sums.error.min(best_error);
            grid.scale = sums.solve(&fixed, false).0.scale.to_f16();
            // The best minimum for the scale as it is rounded.
            grid.min = (fixed.x - grid.scale * sums.q).over(fixed.w, grid.min);
        }
        best
    }

    /// The grids of superblocks of `B` sub-blocks whose scales and minimums are integers.
    #[inline(always)]
    pub fn integers<const N: usize, const B: usize>(&self, values: &Values<N>) -> Integers<L> {
        let fixed = self.fixed(values);
        let found = self.search(values, &fixed, true);
        let top_scale = found.scale.largest::<B>();
        let top_min = (-found.min).largest::<B>();
        let zero = self.cpu.splat(0.0);
        let mut best = Integers { d: zero, dmin: zero, scale: zero, min: zero };
        let mut best_error = zero.like(f32::INFINITY);
        for start in INTEGER_STARTS {
            let d = (top_scale * zero.like(1.0 / (self.most + start.0))).to_f16();
            let dmin = (top_min * zero.like(1.0 / (self.most + start.1))).to_f16();
            let (scale, min) = (self.integer(found.scale, d), self.integer(-found.min, dmin));
            let mut now = Integers { d, dmin, scale, min };
            for _ in 0..INTEGER_ROUNDS {
                let sums = self.sums(values, &now.grid(), true);
                let error = sums.error.sum::<B>();
                best = best.less(error, best_error, now);
                best_error = error.min(best_error);
                self.improve::<B>(&mut now, &sums, &fixed);
            }
        }
        self.polish(values, best)
    }

    /// The nearest integer to a scale or minimum, in units of `d`.
    #[inline(always)]
    fn integer(&self, x: F<L>, d: F<L>) -> F<L> {
        let zero = x.like(0.0);
        x.over(d, zero).round_within(zero, x.like(self.most))
    }

    /// The best scales of a superblock for its codes and integers, then the best integers.
    #[inline(always)]
    fn improve<const B: usize>(&self, now: &mut Integers<L>, sums: &Sums<L>, fixed: &Fixed<L>) {
        let zero = now.d.like(0.0);
        let Integers { scale: s, min: m, .. } = *now;
        let ss = (s * s * sums.qq).sum::<B>();
        let sm = (s * m * sums.q).sum::<B>();
        let mm = (m * m * fixed.w).sum::<B>();
        let sx = (s * sums.xq).sum::<B>();
        let mx = (m * fixed.x).sum::<B>();
        let det = ss * mm - sm * sm;
        // Without minimums the scale stands alone.
        let alone = sx.over(ss, now.d);
        let small = zero.like(1e-6) * ss * mm;
        let d = small.less(det, (mm * sx - sm * mx) / det, zero.less(mm, now.d, alone));
        let dmin = small.less(det, (sm * sx - ss * mx) / det, now.dmin);
        now.d = zero.less(d, d.to_f16(), now.d);
        now.dmin = zero.less(dmin, dmin.to_f16(), now.dmin);

        let (ideal, _) = sums.solve(fixed, false);
        // Where all codes are the same, any scale will do.
        let scale = zero.less(ideal.scale, ideal.scale, now.d * s);
        let min = (fixed.x - scale * sums.q).over(fixed.w, zero);
        let nearest = self.integer(scale, now.d);
        let mut best_loss = zero.like(f32::INFINITY);
        for step in [0.0, -1.0, 1.0] {
            let s = (nearest + zero.like(step)).max(zero).min(zero.like(self.most));
            let least = (s * now.d * sums.q - fixed.x).over(fixed.w, zero);
            let m = self.integer(least, now.dmin);
            // What the error grows by beyond that of the best scale and minimum.
            let (ds, dm) = (s * now.d - scale, zero - m * now.dmin - min);
            let loss = ds * ds * sums.qq + dm * dm * fixed.w + zero.like(2.0) * ds * dm * sums.q;
            now.scale = loss.less(best_loss, s, now.scale);
            now.min = loss.less(best_loss, m, now.min);
            best_loss = loss.min(best_loss);
        }
    }

    /// Changes the integers by one where that lowers the error.
    #[inline(always)]
    fn polish<const N: usize>(&self, values: &Values<N>, mut best: Integers<L>) -> Integers<L> {
        let (zero, most) = (self.cpu.splat(0.0), self.cpu.splat(self.most));
        let mut best_error = self.error(values, &best.grid());
        for (ds, dm) in NEIGHBOURS {
            let mut tried = best;
            tried.scale = (best.scale + zero.like(*ds)).max(zero).min(most);
            tried.min = (best.min + zero.like(*dm)).max(zero).min(most);
            let error = self.error(values, &tried.grid());
            best = best.less(error, best_error, tried);
            best_error = error.min(best_error);
        }
        best
    }
}

/// Integer scales and minimums of sub-blocks, and their superblock's f16 scales.
#[derive(Clone, Copy)]
pub struct Integers<L: Lanes> {
    /// Scale of the scales.
    pub d: F<L>,
    /// Scale of the minimums.
    pub dmin: F<L>,
    /// Integer scales.
    pub scale: F<L>,
    /// Integer minimums.
    pub min: F<L>,
}

impl<L: Lanes> Integers<L> {
    /// The scales and minimums that these stand for.
    #[inline(always)]
    pub fn grid(&self) -> Grid<L> {
        Grid { scale: self.d * self.scale, min: -(self.dmin * self.min) }
    }

    /// `other`'s sub-blocks where `a < b`.
    #[inline(always)]
    fn less(self, a: F<L>, b: F<L>, other: Self) -> Self {
        Integers {
            d: a.less(b, other.d, self.d),
            dmin: a.less(b, other.dmin, self.dmin),
            scale: a.less(b, other.scale, self.scale),
            min: a.less(b, other.min, self.min),
        }
    }
}

/// How often the best scale and minimum for the codes and the codes for those are taken in turn.
const ROUNDS: usize = 2;
/// The same for f16 scales and minimums.
const HALF_ROUNDS: usize = 4;
/// The same for integer ones.
const INTEGER_ROUNDS: usize = 2;
/// What is added to the largest integer scale and minimum, for the first scales of a superblock.
const INTEGER_STARTS: &[(f32, f32)] =
    &[(0.0, 0.0), (0.5, 0.0), (-0.5, 0.0), (0.0, -0.5), (0.0, 0.5), (-1.0, -1.0)];
/// What is added to the integers of a sub-block in the end, where it lowers the error.
const NEIGHBOURS: &[(f32, f32)] = &[
    (-1.0, -1.0),
    (1.0, 1.0),
    (0.0, 1.0),
    (0.0, -1.0),
    (1.0, 0.0),
    (-1.0, 0.0),
    (1.0, -1.0),
    (-1.0, 1.0),
];
