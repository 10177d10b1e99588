//! The search of the scales of a superblock: an f16 scale and a small odd integer for each
//! sub-block, chosen together by the error that is left after all rounding.
//!
//! A [`Plan`] says which scales to try and is told the errors. It is not the search that tries
//! them, so that it is compiled once and not for every type and level.

use super::unit::Unit;

/// One number for each sub-block.
pub type Subs = [f32; 16];

/// How much is tried.
#[derive(Clone, Copy)]
pub struct Effort {
    /// Scales of a sub-block by itself, at most 16.
    pub coarse: usize,
    /// The first, as a share of that which brings its largest value to the largest level.
    pub first: f32,
    /// What each further one is multiplied with.
    pub step: f32,
    /// Superblock scales of which the error is computed and not only estimated.
    pub computed: usize,
    /// How often the superblock's scale is fitted to the codes.
    pub refits: usize,
}

/// Superblock scales of which the error is estimated.
const ESTIMATED: usize = 40;
/// At least the scales tried of a sub-block by itself.
const COARSE: usize = 16;

/// What is to be found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The errors.
    Errors,
    /// The codes, and the scale that fits them best.
    Fit,
    /// The codes, at last.
    Codes,
}

/// What is being tried.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// The scales of sub-blocks by themselves.
    Coarse(usize),
    /// The superblock scales that the estimate has chosen: the nearest integers, then the others.
    Computed(usize),
    /// The codes of the best.
    Fit(usize),
    /// The fitted scale with the same integers, those below and those above.
    Fitted(usize, usize),
}

/// How far the search is.
pub struct Plan {
    subs: usize,
    /// The largest integer.
    most: i32,
    /// The f16 is this many times the scale.
    factor: f32,
    unit: Unit,
    effort: Effort,
    phase: Phase,
    /// The scales that bring the largest values to the largest level.
    full: Subs,
    /// The errors of the coarse search.
    coarse: [Subs; COARSE],
    /// The best scale of each sub-block by itself.
    best: Subs,
    /// Estimated errors of superblock scales, and those.
    estimates: [(f32, f32); ESTIMATED],
    /// The best so far.
    d: f32,
    /// Its integers: twice the stored number plus 1.
    pub integers: [i32; 16],
    /// Its errors' sum.
    error: f32,
    /// What is being tried.
    trial: Trial,
}

/// A superblock scale being tried, with the best integers so far and their errors.
#[derive(Clone, Copy)]
struct Trial {
    d: f32,
    integers: [i32; 16],
    errors: Subs,
    /// The integers tried now.
    now: [i32; 16],
}

impl Plan {
    /// Begins with the scales that bring the largest values to the largest level.
    pub fn new(
        full: Subs,
        subs: usize,
        most: i32,
        factor: f32,
        unit: Unit,
        effort: Effort,
    ) -> Self {
        let trial = Trial { d: 0.0, integers: [1; 16], errors: [f32::MAX; 16], now: [1; 16] };
        Plan {
            subs,
            most,
            factor,
            unit,
            effort,
            phase: Phase::Coarse(0),
            full,
            coarse: [[0.0; 16]; COARSE],
            best: full,
            estimates: [(f32::MAX, 0.0); ESTIMATED],
            d: 0.0,
            integers: [1; 16],
            error: f32::MAX,
            trial,
        }
    }

    /// The scales to try and what to find out.
    pub fn ask(&self) -> (Subs, Ask) {
        match self.phase {
            Phase::Coarse(n) => {
                let share = (0..n).fold(self.effort.first, |share, _| share * self.effort.step);
                (self.full.map(|s| s * share), Ask::Errors)
            }
            Phase::Computed(_) | Phase::Fitted(..) => {
                (self.trial.now.map(|l| self.trial.d * l as f32), Ask::Errors)
            }
            Phase::Fit(n) => (
                self.integers.map(|l| self.d * l as f32),
                if n < self.effort.refits { Ask::Fit } else { Ask::Codes },
            ),
        }
    }

    /// Takes the errors asked for.
    pub fn errors(&mut self, errors: &Subs) {
        match self.phase {
            Phase::Coarse(n) => {
                self.coarse[n] = *errors;
                self.phase = Phase::Coarse(n + 1);
                if n + 1 == self.effort.coarse {
                    self.estimate();
                    self.phase = Phase::Computed(0);
                    self.begin_estimated();
                }
            }
            Phase::Computed(n) => {
                self.improve(errors);
                self.phase = Phase::Computed(n + 1);
                if n % 2 == 0 {
                    // The other neighbours of what was rounded.
                    for sub in 0..self.subs {
                        let l = self.trial.now[sub];
                        let step = if self.trial.d * l as f32 <= self.best[sub] { 2 } else { -2 };
                        self.trial.now[sub] = (l + step).clamp(1, self.most);
                    }
                } else {
                    self.accept();
                    if n + 1 == 2 * self.effort.computed {
                        self.phase = Phase::Fit(0);
                    } else {
                        self.begin_estimated();
                    }
                }
            }
            Phase::Fitted(n, step) => {
                self.improve(errors);
                if step == 2 {
                    self.accept();
                    self.phase = Phase::Fit(n + 1);
                } else {
                    let by = if step == 0 { -2 } else { 2 };
                    self.trial.now = self.integers.map(|l| (l + by).clamp(1, self.most));
                    self.phase = Phase::Fitted(n, step + 1);
                }
            }
            Phase::Fit(_) => {}
        }
    }

    /// Takes the scale that fits the codes best.
    pub fn fitted(&mut self, d: f32) {
        if let Phase::Fit(n) = self.phase {
            let d = self.rounded(d);
            // With no other scale there is nothing more to find.
            self.phase = if d > 0.0 && d != self.d {
                Phase::Fitted(n, 0)
            } else {
                Phase::Fit(self.effort.refits)
            };
            self.begin(d, self.integers);
        }
    }

    /// The f16 and the integers as they are stored.
    pub fn scales(&self) -> ([u8; 2], [u8; 16]) {
        (self.unit.f16(self.d * self.factor).1, self.integers.map(|l| (l / 2) as u8))
    }

    /// The nearest scale that can be stored.
    fn rounded(&self, d: f32) -> f32 {
        self.unit.f16(d * self.factor).0 / self.factor
    }

    fn begin(&mut self, d: f32, now: [i32; 16]) {
        self.trial = Trial { d, integers: now, errors: [f32::MAX; 16], now };
    }

    /// Begins to try the best of the estimates that are left.
    fn begin_estimated(&mut self) {
        let mut least = 0;
        for n in 1..ESTIMATED {
            if self.estimates[n].0 < self.estimates[least].0 {
                least = n;
            }
        }
        let d = self.estimates[least].1;
        self.estimates[least].0 = f32::MAX;
        self.begin(d, self.best.map(|s| nearest_odd(s, d, self.most)));
    }

    /// Keeps the integers tried now where they leave smaller errors.
    fn improve(&mut self, errors: &Subs) {
        let trial = &mut self.trial;
        for sub in 0..self.subs {
            if errors[sub] < trial.errors[sub] {
                (trial.errors[sub], trial.integers[sub]) = (errors[sub], trial.now[sub]);
            }
        }
    }

    /// Keeps what was tried if it leaves a smaller error than all before.
    fn accept(&mut self) {
        let error = self.trial.errors[..self.subs].iter().sum();
        if error < self.error {
            (self.error, self.d, self.integers) = (error, self.trial.d, self.trial.integers);
        }
    }

    /// Finds the best scale of each sub-block, and estimates by how much the error grows with
    /// superblock scales that round these.
    fn estimate(&mut self) {
        let Effort { coarse, first, step, .. } = self.effort;
        let (mut curve, mut largest) = ([0.0; 16], 0.0f32);
        for sub in 0..self.subs {
            let at = |n: usize| self.coarse[n][sub];
            let mut least = 0;
            let (mut s, mut best) = (self.full[sub] * first, self.full[sub] * first);
            for n in 1..coarse {
                s *= step;
                if at(n) < at(least) {
                    (least, best) = (n, s);
                }
            }
            // A parabola through three errors.
            let below = at((least + 1).min(coarse - 1)) - at(least);
            let above = at(least.saturating_sub(1)) - at(least);
            let width = best * (1.0 - step);
            let shift = (below - above) / (2.0 * (below + above));
            if least > 0 && least + 1 < coarse && shift.abs() <= 0.5 {
                best += shift * width;
            }
            curve[sub] = (below + above) / (2.0 * width * width);
            self.best[sub] = best;
            largest = largest.max(best);
        }
        for n in 0..ESTIMATED {
            // The largest sub-block's integer, which need not be whole here.
            let integer = (self.most as f32 + 0.6) * (1.0 - 0.55 * n as f32 / ESTIMATED as f32);
            let d = self.rounded(largest / integer);
            let mut error = 0.0;
            for sub in 0..self.subs {
                let off = self.best[sub] - d * nearest_odd(self.best[sub], d, self.most) as f32;
                if curve[sub] > 0.0 {
                    error += curve[sub] * off * off;
                }
            }
            self.estimates[n] = (error, d);
        }
    }
}

/// The odd number nearest to `s / d`, from 1 to `most`.
fn nearest_odd(s: f32, d: f32, most: i32) -> i32 {
    ((s / (2.0 * d)) as i32).clamp(0, most / 2) * 2 + 1
}
