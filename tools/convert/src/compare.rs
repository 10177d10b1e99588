//! How far a model's predictions are from those of a reference: what quantizing cost.
//!
//! Everything is computed in f64 from the logits, by additions, multiplications and divisions in an
//! order that is written down, so that the figures are the same on every machine and with any number
//! of threads.

use rayon::prelude::*;

use crate::{Result, write};

/// Sums that are kept apart: wide enough for any vector register, and fixed, so that its width
/// cannot show.
const LANES: usize = 16;

/// `e^x` for `x <= 0`, within 2 units in the last place; 0 below -700 and for NaN.
#[inline(always)]
fn exp(x: f64) -> f64 {
    const MIN: f64 = -700.0;
    /// ln 2 in two parts; the first ends in 32 zero bits, so that its product with an exponent is
    /// exact.
    const LN2_HI: f64 = f64::from_bits(0x3fe6_2e42_0000_0000);
    const LN2_LO: f64 = std::f64::consts::LN_2 - LN2_HI + 2.319_046_813_846_3e-17;
    /// 1.5 * 2^52: adding it rounds to an integer, which then stands in the low bits.
    const ROUND: f64 = 6_755_399_441_055_744.0;

    let c = if x >= MIN { x } else { MIN };
    let shifted = c * std::f64::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (c - n * LN2_HI) - n * LN2_LO;
    // Taylor's series: on |r| <= ln 2 / 2 the next term is below 2e-16.
    let mut p = 1.0 / 479_001_600.0;
    p = p * r + 1.0 / 39_916_800.0;
    p = p * r + 1.0 / 3_628_800.0;
    p = p * r + 1.0 / 362_880.0;
    p = p * r + 1.0 / 40_320.0;
    p = p * r + 1.0 / 5_040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    let y = p * (r * r) + r + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(1023) << 52;
    if x >= MIN { y * f64::from_bits(exponent) } else { 0.0 }
}

/// The sum of the lanes, by the tree 8, 4, 2, 1.
fn fold(mut acc: [f64; LANES]) -> f64 {
    for width in [8, 4, 2, 1] {
        for i in 0..width {
            acc[i] += acc[i + width];
        }
    }
    acc[0]
}

/// The first of the largest logits, and its position; none of no logits, or if one is NaN.
fn top(logits: &[f32]) -> Option<(usize, f32)> {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in logits.chunks(LANES) {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = if x.is_nan() || *x > *lane { *x } else { *lane };
        }
    }
    let larger = |m: f32, x: f32| if m.is_nan() || x <= m { m } else { x };
    let max = lanes.into_iter().fold(f32::NEG_INFINITY, larger);
    logits.iter().position(|x| *x == max).map(|at| (at, max))
}

/// One position of a text: what a reference and a model made of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// The negative log-likelihood of the text's next token by the reference, in nats.
    pub reference_nll: f64,
    /// The same by the model.
    pub nll: f64,
    /// The Kullback-Leibler divergence of the model's distribution of the next token from the
    /// reference's, in nats.
    pub kl: f64,
    /// Both think the same token the most likely.
    pub same_top: bool,
    /// How much more probable the model thinks the text's next token.
    pub delta_p: f64,
}

/// Compares two rows of logits, of which `token` is what comes next in the text. `None` if some are
/// not finite, there are none, or the rows differ in length.
pub fn score(reference: &[f32], model: &[f32], token: u32) -> Option<Score> {
    let ((p_at, p_max), (q_at, q_max)) = (top(reference)?, top(model)?);
    let (p_max, q_max) = (f64::from(p_max), f64::from(q_max));
    if reference.len() != model.len() {
        return None;
    }
    let [mut p_sum, mut q_sum, mut distance] = [[0.0; LANES]; 3];
    // What is missing of the last lanes weighs nothing.
    let lanes = |x: &[f32], max: f64| {
        let mut lanes = [f64::MIN; LANES];
        lanes.iter_mut().zip(x).for_each(|(lane, x)| *lane = f64::from(*x) - max);
        lanes
    };
    for (p, q) in reference.chunks(LANES).zip(model.chunks(LANES)) {
        let (p, q) = (lanes(p, p_max), lanes(q, q_max));
        let (p_exp, q_exp) = (p.map(exp), q.map(exp));
        for i in 0..LANES {
            p_sum[i] += p_exp[i];
            q_sum[i] += q_exp[i];
            distance[i] += p_exp[i] * (p[i] - q[i]);
        }
    }
    let (p_sum, q_sum) = (fold(p_sum), fold(q_sum));
    let (p_log, q_log) = (libm::log(p_sum), libm::log(q_sum));
    // Rounding may leave a little less than 0 of what cannot be.
    let kl = fold(distance) / p_sum - p_log + q_log;
    let at = token as usize;
    let reference_nll = p_log + p_max - f64::from(*reference.get(at)?);
    let nll = q_log + q_max - f64::from(*model.get(at)?);
    let delta_p = libm::exp(-nll) - libm::exp(-reference_nll);
    let finite = kl.is_finite() && nll.is_finite() && reference_nll.is_finite();
    let kl = kl.max(0.0);
    finite.then_some(Score { reference_nll, nll, kl, same_top: p_at == q_at, delta_p })
}

/// Compares rows on several threads.
#[derive(Debug)]
pub struct Scorer(rayon::ThreadPool);

impl Scorer {
    /// With so many threads.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) if the system gives none.
    pub fn new(threads: usize) -> Result<Scorer> {
        write::pool(Some(threads)).map(Scorer)
    }

    /// The [`score`] of each of `tokens`, which the rows of `n_vocab` logits come before.
    pub fn rows(
        &self,
        reference: &[f32],
        model: &[f32],
        n_vocab: usize,
        tokens: &[u32],
    ) -> Vec<Option<Score>> {
        let n = n_vocab.max(1);
        let rows = reference.par_chunks_exact(n).zip(model.par_chunks_exact(n));
        let each = rows.zip(tokens).map(|((p, q), token)| score(p, q, *token));
        self.0.install(|| each.collect())
    }
}

/// A mean and how certain it is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Mean {
    n: u64,
    sum: f64,
    squares: f64,
}

impl Mean {
    /// Adds a value.
    pub fn add(&mut self, value: f64) {
        self.n += 1;
        self.sum += value;
        self.squares += value * value;
    }

    /// Values.
    pub fn n(&self) -> u64 {
        self.n
    }

    /// The mean; NaN of none.
    pub fn mean(&self) -> f64 {
        self.sum / self.n as f64
    }

    /// The root of the mean square.
    pub fn rms(&self) -> f64 {
        (self.squares / self.n as f64).sqrt()
    }

    /// The standard error of the mean.
    pub fn stderr(&self) -> f64 {
        let mean = self.mean();
        let variance = self.squares / self.n as f64 - mean * mean;
        (variance.max(0.0) / (self.n.max(2) - 1) as f64).sqrt()
    }

    /// Of negative log-likelihoods: the perplexity and its standard error.
    pub fn perplexity(&self) -> (f64, f64) {
        let ppl = libm::exp(self.mean());
        (ppl, ppl * self.stderr())
    }
}

/// The scores of a text.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// Negative log-likelihoods by the reference.
    pub reference_nll: Mean,
    /// The same by the model.
    pub nll: Mean,
    /// Divergences.
    pub kl: Mean,
    /// 1 where both think the same token the most likely, 0 elsewhere.
    pub same_top: Mean,
    /// How much more probable the model thinks the text's tokens.
    pub delta_p: Mean,
    all_kl: Vec<f64>,
}

impl Comparison {
    /// Adds a position.
    pub fn add(&mut self, score: &Score) {
        self.reference_nll.add(score.reference_nll);
        self.nll.add(score.nll);
        self.kl.add(score.kl);
        self.same_top.add(f64::from(u8::from(score.same_top)));
        self.delta_p.add(score.delta_p);
        self.all_kl.push(score.kl);
    }

    /// Divergences below which the given parts (0 to 1) of the positions are, between two positions
    /// by their distances, as llama.cpp has it; NaN if there are no positions.
    pub fn kl_quantiles<const N: usize>(&self, parts: [f64; N]) -> [f64; N] {
        let mut all = self.all_kl.clone();
        all.sort_unstable_by(f64::total_cmp);
        parts.map(|part| {
            let at = part.clamp(0.0, 1.0) * all.len().saturating_sub(1) as f64;
            let (low, share) = (at as usize, at - at.floor());
            let get = |i: usize| all.get(i).or(all.last()).copied().unwrap_or(f64::NAN);
            get(low) * (1.0 - share) + get(low + 1) * share
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units_of_the_exact_value() {
        let mut worst = 0.0f64;
        for i in 0..=700_000 {
            let x = -f64::from(i) * 1e-3;
            worst = worst.max((exp(x) / libm::exp(x) - 1.0).abs());
        }
        assert!(worst < 4.5e-16, "{worst:e}");
        assert_eq!(exp(0.0), 1.0);
        for x in [-701.0, f64::NEG_INFINITY, f64::NAN] {
            assert_eq!(exp(x), 0.0);
        }
    }

    /// Logits without a pattern.
    fn logits(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 20) as f32 - 8.0
        };
        (0..n).map(|_| next()).collect()
    }

    #[test]
    fn a_score_is_what_the_definitions_say() {
        for n in [1, 5, 16, 1000] {
            let (a, b) = (logits(n, 1), logits(n, 2));
            let probabilities = |x: &[f32]| -> Vec<f64> {
                let exps: Vec<f64> = x.iter().map(|x| f64::from(*x).exp()).collect();
                let sum: f64 = exps.iter().sum();
                exps.iter().map(|x| x / sum).collect()
            };
            let (p, q) = (probabilities(&a), probabilities(&b));
            let kl: f64 = p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum();
            let token = n - 1;
            let score = score(&a, &b, token as u32).unwrap();
            let near = |got: f64, want: f64| assert!((got - want).abs() < 1e-11, "{got} {want}");
            near(score.kl, kl);
            near(score.reference_nll, -p[token].ln());
            near(score.nll, -q[token].ln());
            near(score.delta_p, q[token] - p[token]);
            let largest = |p: &[f64]| (0..n).max_by(|i, j| p[*i].total_cmp(&p[*j]));
            assert_eq!(score.same_top, largest(&p) == largest(&q));
        }
    }

    #[test]
    fn equal_distributions_do_not_diverge() {
        let a = logits(5000, 3);
        // A constant changes no distribution.
        let shifted: Vec<f32> = a.iter().map(|x| x + 4.0).collect();
        for b in [&a, &shifted] {
            let score = score(&a, b, 7).unwrap();
            assert!(score.kl < 1e-12, "{}", score.kl);
            assert!(score.same_top && score.delta_p.abs() < 1e-12);
        }
        assert_eq!(score(&a, &a, 7).unwrap().kl, 0.0);
    }

    #[test]
    fn logits_without_a_meaning_have_no_score() {
        let good = [0.0, 1.0, 2.0];
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in 0..3 {
                let mut row = good;
                row[at] = bad;
                assert_eq!(score(&good, &row, 0), None, "{row:?}");
                assert_eq!(score(&row, &good, 0), None, "{row:?}");
            }
        }
        assert_eq!(score(&[], &[], 0), None);
        assert_eq!(score(&good, &good[..2], 0), None);
        assert_eq!(score(&good, &good, 3), None);
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let (n, rows) = (777, 13);
        let (a, b) = (logits(n * rows, 4), logits(n * rows, 5));
        let tokens: Vec<u32> = (0..rows as u32).collect();
        let scores = |threads| Scorer::new(threads).unwrap().rows(&a, &b, n, &tokens);
        assert_eq!(scores(1), scores(3));
        assert_eq!(scores(1).len(), rows);
    }

    #[test]
    fn quantiles_lie_between_positions() {
        let mut comparison = Comparison::default();
        for kl in [4.0, 1.0, 2.0, 3.0] {
            let score =
                Score { reference_nll: 1.0, nll: 1.0, kl, same_top: kl > 1.0, delta_p: 0.0 };
            comparison.add(&score);
        }
        assert_eq!(comparison.kl_quantiles([0.0, 0.5, 0.9, 1.0]), [1.0, 2.5, 3.7, 4.0]);
        assert_eq!(comparison.same_top.mean(), 0.75);
        assert_eq!(comparison.kl.mean(), 2.5);
        assert_eq!(comparison.nll.perplexity(), (libm::exp(1.0), 0.0));
        assert!(Comparison::default().kl_quantiles([0.5])[0].is_nan());
    }
}
