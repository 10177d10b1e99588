//! The search of a scale: `x = scale * q`, `q` from a negative code to a positive one.

use super::lanes::{Cpu, F, LANES, Values};
use crate::lanes::Lanes;

/// How a format is searched.
#[derive(Clone, Copy)]
pub struct Centred<L: Lanes> {
    /// What it is computed with.
    pub cpu: Cpu<L>,
    /// The least code.
    pub least: f32,
    /// The greatest code.
    pub most: f32,
    /// The codes, not rounded, that are tried for the value furthest from zero.
    pub starts: &'static [f32],
}

/// Integer scales, as a superblock has them.
pub struct Scales {
    /// The least.
    pub least: f32,
    /// The greatest.
    pub most: f32,
    /// The integers, not rounded, that are tried for the scale furthest from zero.
    pub starts: &'static [f32],
    /// What is added to each sub-block's in the end, where it lowers the error.
    pub steps: &'static [f32],
}

/// Sums over the values of a sub-block: what the best scale for its codes follows from.
#[derive(Clone, Copy)]
struct Sums<L: Lanes> {
    /// Of `w * q * q`.
    qq: F<L>,
    /// Of `w * x * q`.
    xq: F<L>,
    /// Of `w * (scale * q - x)^2`.
    error: F<L>,
}

/// A superblock's f16 scale and the integers that it is multiplied with, in the lanes of the
/// sub-blocks.
#[derive(Clone, Copy)]
pub struct Integers<L: Lanes> {
    /// Scale of the scales.
    pub d: F<L>,
    /// Integer scales.
    pub scale: F<L>,
}

impl<L: Lanes> Centred<L> {
    /// The codes of values.
    #[inline(always)]
    fn code(&self, x: F<L>, inverse: F<L>) -> F<L> {
        (x * inverse).round_within(x.like(self.least), x.like(self.most))
    }

    /// The sums for the codes nearest to the values; without a scale that of the errors is zero.
    #[inline(always)]
    fn sums<const N: usize>(
        &self,
        values: &Values<N>,
        inverse: F<L>,
        scale: Option<F<L>>,
    ) -> Sums<L> {
        let zero = inverse.like(0.0);
        let mut sums = Sums { qq: zero, xq: zero, error: zero };
        for (x, w) in values.each(self.cpu) {
            let q = self.code(x, inverse);
            let wq = w * q;
            sums.qq += wq * q;
            sums.xq += wq * x;
            if let Some(scale) = scale {
                let off = scale * q - x;
                sums.error += w * off * off;
            }
        }
        sums
    }

    /// The errors for the codes nearest to the values.
    #[inline(always)]
    fn error<const N: usize>(&self, values: &Values<N>, scale: F<L>) -> F<L> {
        let inverse = scale.inverse();
        let mut error = scale.like(0.0);
        for (x, w) in values.each(self.cpu) {
            let off = scale * self.code(x, inverse) - x;
            error += w * off * off;
        }
        error
    }

    /// The codes nearest to the values.
    #[inline(always)]
    pub fn codes<const N: usize>(&self, values: &Values<N>, scale: F<L>) -> [[f32; LANES]; N] {
        let inverse = scale.inverse();
        let mut codes = [[0.0; LANES]; N];
        for (codes, x) in codes.iter_mut().zip(&values.x) {
            *codes = self.code(self.cpu.load(x), inverse).array();
        }
        codes
    }

    /// A scale of each sub-block with a small error.
    #[inline(always)]
    fn search<const N: usize>(&self, values: &Values<N>) -> F<L> {
        let zero = self.cpu.splat(0.0);
        let mut far = zero;
        for (x, _) in values.each(self.cpu) {
            far = far.abs().less(x.abs(), x, far);
        }
        let to_one = far.inverse();
        let (mut best, mut best_gain) = (zero, zero);
        for start in self.starts {
            let mut inverse = to_one * zero.like(*start);
            for _ in 0..ROUNDS {
                let sums = self.sums(values, inverse, None);
                let scale = sums.xq.over(sums.qq, zero);
                let gain = scale * sums.xq;
                best = best_gain.less(gain, scale, best);
                best_gain = gain.max(best_gain);
                inverse = scale.inverse();
            }
        }
        best
    }

    /// The scales of blocks with an f16 scale.
    #[inline(always)]
    pub fn halves<const N: usize>(&self, values: &Values<N>) -> F<L> {
        let mut scale = self.search(values);
        let mut best = scale;
        let mut best_error = scale.like(f32::INFINITY);
        for _ in 0..HALF_ROUNDS {
            scale = scale.to_f16();
            let sums = self.sums(values, scale.inverse(), Some(scale));
            best = sums.error.less(best_error, scale, best);
            best_error = sums.error.min(best_error);
            scale = sums.xq.over(sums.qq, scale);
        }
        best
    }

    /// The scales of superblocks of 16 sub-blocks whose scales are integers.
    #[inline(always)]
    pub fn integers<const N: usize>(&self, values: &Values<N>, range: &Scales) -> Integers<L> {
        let found = self.search(values);
        let far = furthest(found);
        let zero = self.cpu.splat(0.0);
        let (least, most) = (zero.like(range.least), zero.like(range.most));
        let mut best = Integers { d: zero, scale: zero };
        let mut best_error = zero.like(f32::INFINITY);
        for start in range.starts {
            let d = (far * zero.like(1.0 / start)).to_f16();
            let mut now = Integers { d, scale: (found * d.inverse()).round_within(least, most) };
            for _ in 0..INTEGER_ROUNDS {
                let scale = now.d * now.scale;
                let sums = self.sums(values, scale.inverse(), Some(scale));
                let error = sums.error.sum::<LANES>();
                best.d = error.less(best_error, now.d, best.d);
                best.scale = error.less(best_error, now.scale, best.scale);
                best_error = error.min(best_error);
                let ss = (now.scale * now.scale * sums.qq).sum::<LANES>();
                let d = (now.scale * sums.xq).sum::<LANES>().over(ss, now.d).to_f16();
                let inverse = d.inverse();
                let ideal = sums.xq.over(sums.qq, scale);
                now = Integers { d, scale: (ideal * inverse).round_within(least, most) };
            }
        }
        let mut best_error = self.error(values, best.d * best.scale);
        for step in range.steps {
            let scale = (best.scale + zero.like(*step)).max(least).min(most);
            let error = self.error(values, best.d * scale);
            best.scale = error.less(best_error, scale, best.scale);
            best_error = error.min(best_error);
        }
        best
    }
}

/// In every lane the lane furthest from zero; of two as far, the positive one.
#[inline(always)]
fn furthest<L: Lanes>(x: F<L>) -> F<L> {
    let (least, most) = (-(-x).largest::<LANES>(), x.largest::<LANES>());
    most.less(-least, least, most)
}

/// How often the best scale for the codes and the codes for that are taken in turn.
const ROUNDS: usize = 2;
/// The same for f16 scales.
const HALF_ROUNDS: usize = 3;
/// The same for integer ones.
const INTEGER_ROUNDS: usize = 2;
