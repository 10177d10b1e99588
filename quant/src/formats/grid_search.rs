//! The search of grid points: for 16 groups of values at a time, each with its own scale, the
//! point of the grid with the least weighted error, found among all of them.
//!
//! A point's error is the sum of that of its lower and its upper half, and there are at most 81
//! halves: so the halves' errors are computed once, and a point costs one minimum.

use super::search::LANES;

/// One number for each of 16 groups.
pub(super) type Lanes = [f32; LANES];

/// The errors of all halves.
type Halves = [Lanes; HALVES];

/// At least the number of halves, a power of two.
const HALVES: usize = 128;

/// The points of a grid, ordered by their lower halves.
pub(super) struct Split<const P: usize> {
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
pub(super) struct Points {
    starts: &'static [u16; HALVES + 1],
    upper: &'static [u8],
    index: &'static [u16],
}

/// 16 groups of `N` values.
#[derive(Clone, Copy)]
pub(super) struct Groups<const N: usize> {
    /// The values, of each group the first, of each group the second and so on.
    pub x: [Lanes; N],
    /// Their weights.
    pub w: [Lanes; N],
}

/// Memory for the errors of the halves.
pub(super) struct Tables {
    /// With the signs of the values.
    lower: Halves,
    upper: Halves,
    /// With one sign turned round, the one where that costs least.
    lower_odd: Halves,
    upper_odd: Halves,
    combos: usize,
}

impl Tables {
    pub fn new() -> Self {
        let none = [[0.0; LANES]; HALVES];
        Tables { lower: none, upper: none, lower_odd: none, upper_odd: none, combos: 0 }
    }

    /// Computes the errors of all halves when `x` becomes `s * level`. Those with a sign turned
    /// round only if `odd`.
    #[inline(always)]
    pub fn fill<const N: usize, const V: usize>(
        &mut self,
        groups: &Groups<N>,
        s: &Lanes,
        levels: &[f32; V],
        odd: bool,
    ) {
        fill_half(&groups.x[..N / 2], &groups.w[..N / 2], s, levels, &mut self.lower);
        fill_half(&groups.x[N / 2..], &groups.w[N / 2..], s, levels, &mut self.upper);
        if odd {
            fill_odd(
                &groups.x[..N / 2],
                &groups.w[..N / 2],
                s,
                levels,
                &self.lower,
                &mut self.lower_odd,
            );
            fill_odd(
                &groups.x[N / 2..],
                &groups.w[N / 2..],
                s,
                levels,
                &self.upper,
                &mut self.upper_odd,
            );
        }
        self.combos = V.pow(N as u32 / 2);
    }

    /// The least error of any point.
    #[inline(always)]
    pub fn least(&self, points: Points) -> Lanes {
        let mut best = [f32::MAX; LANES];
        for lower in 0..self.combos {
            let (from, to) = (points.starts[lower], points.starts[lower + 1]);
            let mut least = [f32::MAX; LANES];
            for upper in &points.upper[usize::from(from)..usize::from(to)] {
                min(&mut least, &self.upper[usize::from(*upper) % HALVES]);
            }
            min_sum(&mut best, &least, &self.lower[lower]);
        }
        best
    }

    /// The least error of any point, and the least with one sign turned round.
    #[inline(always)]
    pub fn least_of_both(&self, points: Points) -> (Lanes, Lanes) {
        let (mut best, mut best_odd) = ([f32::MAX; LANES], [f32::MAX; LANES]);
        for lower in 0..self.combos {
            let (from, to) = (points.starts[lower], points.starts[lower + 1]);
            let (mut least, mut least_odd) = ([f32::MAX; LANES], [f32::MAX; LANES]);
            for upper in &points.upper[usize::from(from)..usize::from(to)] {
                min(&mut least, &self.upper[usize::from(*upper) % HALVES]);
                min(&mut least_odd, &self.upper_odd[usize::from(*upper) % HALVES]);
            }
            min_sum(&mut best, &least, &self.lower[lower]);
            min_sum(&mut best_odd, &least, &self.lower_odd[lower]);
            min_sum(&mut best_odd, &least_odd, &self.lower[lower]);
        }
        (best, best_odd)
    }

    /// The index of the point with the least error; for the groups marked in `odd`, with one sign
    /// turned round.
    #[inline(always)]
    pub fn nearest(&self, points: Points, odd: &[bool; LANES]) -> [u16; LANES] {
        let mut best = [f32::MAX; LANES];
        let mut found = [0u32; LANES];
        let any_odd = odd.contains(&true);
        for lower in 0..self.combos {
            let (from, to) = (points.starts[lower], points.starts[lower + 1]);
            for point in usize::from(from)..usize::from(to) {
                let upper = usize::from(points.upper[point]) % HALVES;
                let index = u32::from(points.index[point]);
                let mut error = [0.0; LANES];
                for i in 0..LANES {
                    error[i] = self.lower[lower][i] + self.upper[upper][i];
                }
                if any_odd {
                    for i in 0..LANES {
                        let first = self.lower_odd[lower][i] + self.upper[upper][i];
                        let second = self.lower[lower][i] + self.upper_odd[upper][i];
                        let least = if second < first { second } else { first };
                        error[i] = if odd[i] { least } else { error[i] };
                    }
                }
                for i in 0..LANES {
                    let less = error[i] < best[i];
                    best[i] = if less { error[i] } else { best[i] };
                    found[i] = if less { index } else { found[i] };
                }
            }
        }
        found.map(|index| index as u16)
    }
}

#[inline(always)]
fn min(a: &mut Lanes, b: &Lanes) {
    for i in 0..LANES {
        a[i] = if b[i] < a[i] { b[i] } else { a[i] };
    }
}

#[inline(always)]
fn min_sum(a: &mut Lanes, b: &Lanes, c: &Lanes) {
    for i in 0..LANES {
        let sum = b[i] + c[i];
        a[i] = if sum < a[i] { sum } else { a[i] };
    }
}

/// The weighted squared error of `x` as `s * level`.
#[inline(always)]
fn error(x: &Lanes, w: &Lanes, s: &Lanes, level: f32) -> Lanes {
    let mut error = [0.0; LANES];
    for i in 0..LANES {
        let diff = x[i] - s[i] * level;
        error[i] = w[i] * (diff * diff);
    }
    error
}

#[inline(always)]
fn fill_half<const V: usize>(
    x: &[Lanes],
    w: &[Lanes],
    s: &Lanes,
    levels: &[f32; V],
    out: &mut Halves,
) {
    out[0] = [0.0; LANES];
    let mut count = 1;
    for (x, w) in x.iter().zip(w) {
        let errors = levels.map(|level| error(x, w, s, level));
        // From behind: what is written was read before.
        for half in (0..count).rev() {
            let before = out[half];
            for v in 0..V {
                for i in 0..LANES {
                    out[half * V + v][i] = before[i] + errors[v][i];
                }
            }
        }
        count *= V;
    }
}

/// The errors with one sign turned round, from those without.
#[inline(always)]
fn fill_odd<const V: usize>(
    x: &[Lanes],
    w: &[Lanes],
    s: &Lanes,
    levels: &[f32; V],
    even: &Halves,
    out: &mut Halves,
) {
    let combos = V.pow(x.len() as u32);
    for row in &mut out[..combos] {
        *row = [f32::MAX; LANES];
    }
    let mut step = combos;
    for (x, w) in x.iter().zip(w) {
        step /= V;
        // What it costs to turn the sign of this value at each level.
        let turned = levels.map(|level| {
            let (plus, minus) = (error(x, w, s, level), error(x, w, s, -level));
            let mut cost = [0.0; LANES];
            for i in 0..LANES {
                cost[i] = minus[i] - plus[i];
            }
            cost
        });
        for half in 0..combos {
            min_sum(&mut out[half], &even[half], &turned[half / step % V]);
        }
    }
}
