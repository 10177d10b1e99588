//! The search of grid points: for 16 groups of values at a time, each with its own scale, the
//! point of the grid with the least weighted error, found among all of them.
//!
//! A point's error is the sum of that of its lower and its upper half, and there are at most 81
//! halves: so the halves' errors are computed once, and a point costs one minimum.

use super::lanes::{Cpu, F, LANES};
use crate::lanes::Lanes;

/// At least the number of halves, a power of two.
const HALVES: usize = 128;

/// The points of a grid, ordered by their lower halves.
pub struct Split<const P: usize> {
    /// Where the points with each lower half begin.
    starts: [u16; HALVES + 1],
    /// The upper half of each point.
    upper: [u8; P],
    /// The point's index in the grid.
    index: [u16; P],
}

impl<const P: usize> Split<P> {
    /// Orders the points of a grid whose values are `levels`.
    pub const fn new<const N: usize, const V: usize>(
        grid: &[[i8; N]; P],
        levels: &[i8; V],
    ) -> Self {
        let mut split = Split { starts: [0; HALVES + 1], upper: [0; P], index: [0; P] };
        let mut row = 0;
        while row < P {
            split.starts[half(&grid[row], 0, levels) + 1] += 1;
            row += 1;
        }
        let mut lower = 0;
        while lower < HALVES {
            split.starts[lower + 1] += split.starts[lower];
            lower += 1;
        }
        let mut next = split.starts;
        row = 0;
        while row < P {
            let lower = half(&grid[row], 0, levels);
            let at = next[lower] as usize;
            split.upper[at] = half(&grid[row], N / 2, levels) as u8;
            split.index[at] = row as u16;
            next[lower] += 1;
            row += 1;
        }
        split
    }

    /// The same for any number of points.
    pub const fn points(&'static self) -> Points {
        Points { starts: &self.starts, upper: &self.upper, index: &self.index }
    }
}

/// The number of the half that begins with value `from`.
const fn half<const N: usize, const V: usize>(
    point: &[i8; N],
    from: usize,
    levels: &[i8; V],
) -> usize {
    let mut number = 0;
    let mut i = from;
    while i < from + N / 2 {
        let mut rank = 0;
        while levels[rank] != point[i] {
            rank += 1;
        }
        number = number * V + rank;
        i += 1;
    }
    number
}

/// The points of a grid, see [`Split`].
#[derive(Clone, Copy)]
pub struct Points {
    starts: &'static [u16; HALVES + 1],
    upper: &'static [u8],
    index: &'static [u16],
}

impl Points {
    /// The points with a lower half, in the order of [`Split`].
    #[inline(always)]
    fn with_lower(self, lower: usize) -> std::ops::Range<usize> {
        usize::from(self.starts[lower])..usize::from(self.starts[lower + 1])
    }
}

/// The errors of all halves.
type Halves = [[f32; LANES]; HALVES];

/// Memory for the errors of the halves.
pub struct Tables {
    lower: Halves,
    upper: Halves,
    /// With one sign turned round, the one where that costs least.
    lower_odd: Halves,
    upper_odd: Halves,
    /// How many halves there are.
    combos: usize,
}

impl Tables {
    /// Of halves that are not yet known.
    #[inline(always)]
    pub fn empty() -> Self {
        let none = [[0.0; LANES]; HALVES];
        Tables { lower: none, upper: none, lower_odd: none, upper_odd: none, combos: 0 }
    }

    /// Computes the errors of all halves when the values `x`, weighted by `w`, become `s * level`.
    /// Those with a sign turned round only if `odd`.
    #[inline(always)]
    pub fn fill<L: Lanes, const N: usize, const V: usize>(
        &mut self,
        (x, w): (&[[f32; LANES]; N], &[[f32; LANES]; N]),
        s: F<L>,
        levels: &[f32; V],
        odd: bool,
    ) {
        let ((x0, x1), (w0, w1)) = (x.split_at(N / 2), w.split_at(N / 2));
        fill_half(x0, w0, s, levels, &mut self.lower);
        fill_half(x1, w1, s, levels, &mut self.upper);
        if odd {
            fill_odd(x0, w0, s, levels, &self.lower, &mut self.lower_odd);
            fill_odd(x1, w1, s, levels, &self.upper, &mut self.upper_odd);
        }
        self.combos = V.pow(N as u32 / 2);
    }

    /// The least error of any point.
    #[inline(always)]
    pub fn least<L: Lanes>(&self, cpu: Cpu<L>, points: Points) -> F<L> {
        let mut best = cpu.splat(f32::MAX);
        for lower in 0..self.combos {
            let mut least = cpu.splat(f32::MAX);
            for upper in &points.upper[points.with_lower(lower)] {
                least = cpu.load(&self.upper[usize::from(*upper) % HALVES]).min(least);
            }
            best = (least + cpu.load(&self.lower[lower])).min(best);
        }
        best
    }

    /// The least error of any point, and the least with one sign turned round.
    #[inline(always)]
    pub fn least_of_both<L: Lanes>(&self, cpu: Cpu<L>, points: Points) -> (F<L>, F<L>) {
        let most = cpu.splat(f32::MAX);
        let (mut best, mut best_odd) = (most, most);
        for lower in 0..self.combos {
            let (mut least, mut least_odd) = (most, most);
            for upper in &points.upper[points.with_lower(lower)] {
                let upper = usize::from(*upper) % HALVES;
                least = cpu.load(&self.upper[upper]).min(least);
                least_odd = cpu.load(&self.upper_odd[upper]).min(least_odd);
            }
            let plain = cpu.load(&self.lower[lower]);
            best = (least + plain).min(best);
            best_odd = (least_odd + plain).min(best_odd);
            best_odd = (least + cpu.load(&self.lower_odd[lower])).min(best_odd);
        }
        (best, best_odd)
    }

    /// The index of the point with the least error; for the groups marked in `odd` with a 1, with
    /// one sign turned round.
    #[inline(always)]
    pub fn nearest<L: Lanes>(&self, points: Points, odd: Option<F<L>>, cpu: Cpu<L>) -> F<L> {
        let zero = cpu.splat(0.0);
        let (mut best, mut found) = (cpu.splat(f32::MAX), zero);
        for lower in 0..self.combos {
            let plain = cpu.load(&self.lower[lower]);
            for point in points.with_lower(lower) {
                let upper = usize::from(points.upper[point]) % HALVES;
                let mut error = plain + cpu.load(&self.upper[upper]);
                if let Some(odd) = odd {
                    let first = cpu.load(&self.lower_odd[lower]) + cpu.load(&self.upper[upper]);
                    let second = plain + cpu.load(&self.upper_odd[upper]);
                    error = zero.less(odd, first.min(second), error);
                }
                let index = cpu.splat(f32::from(points.index[point]));
                found = error.less(best, index, found);
                best = error.min(best);
            }
        }
        found
    }
}

/// The weighted squared error of `x` as `s * level`.
#[inline(always)]
fn error<L: Lanes>(x: F<L>, w: F<L>, s: F<L>, level: f32) -> F<L> {
    let off = x - s * s.like(level);
    w * (off * off)
}

#[inline(always)]
fn fill_half<L: Lanes, const V: usize>(
    x: &[[f32; LANES]],
    w: &[[f32; LANES]],
    s: F<L>,
    levels: &[f32; V],
    out: &mut Halves,
) {
    out[0] = [0.0; LANES];
    let mut count = 1;
    for (x, w) in x.iter().zip(w) {
        let mut errors = [s; V];
        for v in 0..V {
            errors[v] = error(s.of(x), s.of(w), s, levels[v]);
        }
        // From behind: what is written was read before.
        for half in (0..count).rev() {
            let before = s.of(&out[half]);
            for v in 0..V {
                out[half * V + v] = (before + errors[v]).array();
            }
        }
        count *= V;
    }
}

/// The errors with one sign turned round, from those without.
#[inline(always)]
fn fill_odd<L: Lanes, const V: usize>(
    x: &[[f32; LANES]],
    w: &[[f32; LANES]],
    s: F<L>,
    levels: &[f32; V],
    even: &Halves,
    out: &mut Halves,
) {
    // The least cost of turning a sign, built up as in `fill_half`.
    out[0] = [f32::MAX; LANES];
    let mut count = 1;
    for (x, w) in x.iter().zip(w) {
        let mut costs = [s; V];
        for v in 0..V {
            let (x, w) = (s.of(x), s.of(w));
            costs[v] = error(x, w, s, -levels[v]) - error(x, w, s, levels[v]);
        }
        for half in (0..count).rev() {
            let before = s.of(&out[half]);
            for v in 0..V {
                out[half * V + v] = before.min(costs[v]).array();
            }
        }
        count *= V;
    }
    for half in 0..count {
        out[half] = (s.of(&out[half]) + s.of(&even[half])).array();
    }
}
