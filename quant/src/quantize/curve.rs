//! The search of IQ4_NL and IQ4_XS: codes for values spaced by a curve, a scale of either sign.

use super::GROUP;
use super::lanes::{Cpu, F, LANES, Values};
use super::unit::near_one;
use crate::formats::iq4::VALUES;
use crate::lanes::Lanes;

/// What the value furthest from zero becomes in the scales that are tried first, with its sign and
/// with the other. Beyond what the codes reach, it is cut off so that others are nearer.
const TRIED: [[f32; 16]; 2] = [
    [
        -143.0, -138.0, -134.0, -130.5, -127.0, -123.5, -120.0, -116.5, -113.0, -109.0, -104.0,
        -99.0, -94.0, -83.0, -74.0, -65.0,
    ],
    [
        126.0, 122.0, 119.0, 116.0, 113.0, 110.0, 107.0, 104.0, 101.0, 97.0, 93.0, 89.0, 84.0,
        79.0, 69.0, 53.0,
    ],
];
/// How often the scale is fitted to the codes.
const REFITS: usize = 3;
/// Superblock scales: what the largest sub-block's integer is, from the first on; the best by
/// estimate of each run of `TAKEN` is tried.
const FIRST: f32 = 32.6;
const STEP: f32 = 0.2;
const RUNS: usize = 5;
const TAKEN: usize = 14;
const SUPER_REFITS: usize = 2;

/// 16 sub-blocks of 32 values, near 1.
struct SubBlocks<L: Lanes> {
    cpu: Cpu<L>,
    values: Values<32>,
    /// The value furthest from zero.
    far: F<L>,
    /// What scales are multiplied with before they are stored, and the inverse.
    down: F<L>,
    up: F<L>,
}

/// A scale and what follows from the codes nearest to the values.
#[derive(Clone, Copy)]
struct Fit<L: Lanes> {
    /// The scale that fits the codes best.
    s: F<L>,
    /// The sum of the weighted squares of the codes' values.
    qq: F<L>,
    /// By how much the error is less than that of zeros.
    gain: F<L>,
}

impl<L: Lanes> SubBlocks<L> {
    /// From blocks of `N`.
    #[inline(always)]
    fn new<const N: usize>(cpu: Cpu<L>, x: &[f32; GROUP], weights: &[f32; GROUP]) -> Self {
        let mut values = [0.0; GROUP];
        let (mut up, mut down, mut far) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
        let (blocks, _) = x.as_chunks::<N>();
        for (n, x) in blocks.iter().enumerate() {
            // A block of zeros stays as it is: all scales are zero.
            if let Some((near, unit)) = near_one(x) {
                values[n * N..][..N].copy_from_slice(&near);
                up[n * N / 32..][..N / 32].fill(unit.up);
                down[n * N / 32..][..N / 32].fill(unit.down);
            }
        }
        for (far, x) in far.iter_mut().zip(values.as_chunks::<32>().0) {
            *far = furthest(x);
        }
        SubBlocks {
            cpu,
            values: Values::new(&values, weights),
            far: cpu.load(&far),
            down: cpu.load(&down),
            up: cpu.load(&up),
        }
    }

    /// The nearest scale that an f16 holds.
    #[inline(always)]
    fn rounded(&self, d: F<L>) -> F<L> {
        (d * self.down).to_f16() * self.up
    }

    /// The best fit among the first scales of one sign, and those that fit its codes.
    #[inline(always)]
    fn fit(&self, tried: &[f32; 16]) -> Fit<L> {
        let zero = self.cpu.splat(0.0);
        let mut best = Fit { s: zero, qq: zero, gain: zero };
        for n in 0..tried.len() + REFITS {
            let inverse = match tried.get(n) {
                Some(value) => zero.less(self.far.abs(), zero.like(*value) / self.far, zero),
                None => best.s.inverse(),
            };
            let fit = self.sums(inverse);
            let better = best.gain;
            best.s = better.less(fit.gain, fit.s, best.s);
            best.qq = better.less(fit.gain, fit.qq, best.qq);
            best.gain = better.less(fit.gain, fit.gain, best.gain);
        }
        best
    }

    /// What follows from the codes nearest with a scale, the inverse of which is given.
    #[inline(always)]
    fn sums(&self, inverse: F<L>) -> Fit<L> {
        let zero = self.cpu.splat(0.0);
        let (mut xq, mut qq) = (zero, zero);
        for (x, w) in self.values.each(self.cpu) {
            let q = nearest(x * inverse);
            let wq = w * q;
            xq += wq * x;
            qq += wq * q;
        }
        let s = xq.over(qq, zero);
        Fit { s, qq, gain: s * xq }
    }

    /// The errors with scales.
    #[inline(always)]
    fn errors(&self, s: F<L>) -> F<L> {
        let zero = self.cpu.splat(0.0);
        let inverse = s.inverse();
        let mut error = zero;
        for (x, w) in self.values.each(self.cpu) {
            let off = x - s * nearest(x * inverse);
            error += w * (off * off);
        }
        error
    }

    /// The codes with scales, packed as 16 bytes for each sub-block.
    #[inline(always)]
    fn codes(&self, s: F<L>) -> [[u8; 16]; LANES] {
        let inverse = s.inverse();
        let mut packed = [[0; 16]; LANES];
        for (j, x) in self.values.x.iter().enumerate() {
            let codes = code(self.cpu.load(x) * inverse).array();
            for i in 0..LANES {
                packed[i][j % 16] |= (codes[i] as u8) << (j / 16 * 4);
            }
        }
        packed
    }
}

/// The value furthest from zero, with its sign; the first of several.
#[inline(always)]
fn furthest(x: &[f32]) -> f32 {
    x.iter().fold(0.0f32, |far, x| if far.abs() < x.abs() { *x } else { far })
}

/// The value nearest to `t` that a code has.
#[inline(always)]
pub fn nearest<L: Lanes>(t: F<L>) -> F<L> {
    let zero = t.like(0.0);
    let mut value = t.like(f32::from(VALUES[0]));
    for pair in VALUES.windows(2) {
        let (a, b) = (f32::from(pair[0]), f32::from(pair[1]));
        value += t.less(t.like((a + b) / 2.0), zero, t.like(b - a));
    }
    value
}

/// The code of that value.
#[inline(always)]
pub fn code<L: Lanes>(t: F<L>) -> F<L> {
    let (zero, one) = (t.like(0.0), t.like(1.0));
    let mut code = zero;
    for pair in VALUES.windows(2) {
        let middle = (f32::from(pair[0]) + f32::from(pair[1])) / 2.0;
        code += t.less(t.like(middle), zero, one);
    }
    code
}

/// Scales and codes of 16 blocks of 32 values.
#[inline(always)]
pub fn search<L: Lanes>(
    cpu: Cpu<L>,
    x: &[f32; GROUP],
    weights: &[f32; GROUP],
) -> ([f32; LANES], [[u8; 16]; LANES]) {
    let blocks = SubBlocks::new::<32>(cpu, x, weights);
    let mut best: Option<Fit<L>> = None;
    for tried in &TRIED {
        let fit = blocks.fit(tried);
        best = Some(match best {
            Some(best) => Fit { s: best.gain.less(fit.gain, fit.s, best.s), ..fit },
            None => fit,
        });
    }
    let s = best.map_or(cpu.splat(0.0), |best| blocks.rounded(best.s));
    ((s * blocks.down).array(), blocks.codes(s))
}

/// What is found of two superblocks of 256 values: their scales (of each, 8 times the same), the
/// integers of their sub-blocks, the codes.
pub struct Found {
    /// The scales.
    pub d: [f32; LANES],
    /// Integers, -32 to 31.
    pub integers: [f32; LANES],
    /// The codes.
    pub codes: [[u8; 16]; LANES],
}

/// Scales, integers and codes of two blocks of 256 values.
#[inline(always)]
pub fn search_super<L: Lanes>(cpu: Cpu<L>, x: &[f32; GROUP], weights: &[f32; GROUP]) -> Found {
    let blocks = SubBlocks::new::<256>(cpu, x, weights);
    let (zero, most) = (cpu.splat(0.0), cpu.splat(f32::MAX));
    let (least_l, most_l) = (cpu.splat(-32.0), cpu.splat(31.0));
    // The best scale of each sign for each sub-block by itself.
    let mut fits = [Fit { s: zero, qq: zero, gain: zero }; 2];
    for (fit, tried) in fits.iter_mut().zip(&TRIED) {
        *fit = blocks.fit(tried);
    }
    let [a, b] = fits;
    let better = a.gain.less(b.gain, b.s, a.s);
    let mut far = better.array();
    for far in far.chunks_exact_mut(8) {
        // Negated, since there is a -32 but no 32.
        far.fill(-furthest(far));
    }
    let far = cpu.load(&far);

    let (mut best_d, mut best_l, mut best_error) = (zero, zero, most);
    for round in 0..RUNS + SUPER_REFITS {
        let (mut d, mut l) = (zero, zero);
        if round < RUNS {
            let mut least = most;
            for n in 0..TAKEN {
                let integer = FIRST - STEP * (round * TAKEN + n) as f32;
                let tried = blocks.rounded(far / zero.like(integer));
                let inverse = tried.inverse();
                let (mut cost, mut integers) = (most, zero);
                for fit in fits {
                    let l = (fit.s * inverse).round_within(least_l, most_l);
                    let off = fit.s - l * tried;
                    let this = fit.qq * (off * off) - fit.gain;
                    integers = this.less(cost, l, integers);
                    cost = this.min(cost);
                }
                let total = cost.sum::<8>();
                l = total.less(least, integers, l);
                d = total.less(least, tried, d);
                least = total.min(least);
            }
        } else {
            // The scale that fits the codes and integers best.
            let s = best_d * best_l;
            let fit = blocks.sums(s.inverse());
            let (xq, qq) = (fit.s * fit.qq * best_l, fit.qq * (best_l * best_l));
            d = blocks.rounded(xq.sum::<8>().over(qq.sum::<8>(), zero));
            l = best_l;
        }
        let (mut least, mut integers) = (most, l);
        for step in [0.0, -1.0, 1.0] {
            let l = (l + zero.like(step)).max(least_l).min(most_l);
            let error = blocks.errors(d * l);
            integers = error.less(least, l, integers);
            least = error.min(least);
        }
        let total = least.sum::<8>();
        best_d = total.less(best_error, d, best_d);
        best_l = total.less(best_error, integers, best_l);
        best_error = total.min(best_error);
    }
    Found {
        d: (best_d * blocks.down).array(),
        integers: best_l.array(),
        codes: blocks.codes(best_d * best_l),
    }
}
