//! Top-n-sigma.

use super::candidates::Row;
use super::chain::Apply;
use super::math;

/// Keeps the tokens whose logit is at most `n` standard deviations of all logits below the
/// largest. (llama.cpp leaves the others in the list with a probability of 0.)
pub(super) struct TopNSigma {
    pub n: f32,
}

impl Apply for TopNSigma {
    fn apply(&mut self, row: &mut Row, _history: &[u32]) {
        let (count, mean, variance) = match row.dense() {
            Some(logits) => moments(logits, |&x| x),
            None => moments(row.list(), |c| c.logit),
        };
        let max = row.max();
        let floor = f64::from(max) - f64::from(self.n) * variance.sqrt();
        // Not so when there are no logits, or infinite ones.
        if count > 0.0 && floor.is_finite() && mean.is_finite() {
            row.keep_from(math::not_below(floor));
        }
    }
}

/// How many logits can be drawn, their mean and variance.
fn moments<T>(items: &[T], logit: impl Fn(&T) -> f32) -> (f64, f64, f64) {
    // NaN fails the comparison as `-inf` does.
    let drawn = |item: &T| logit(item) > f32::NEG_INFINITY;
    let count = math::sum_by(items, |i| if drawn(i) { 1.0 } else { 0.0 });
    let sum = math::sum_by(items, |i| if drawn(i) { f64::from(logit(i)) } else { 0.0 });
    let mean = sum / count;
    let squares = math::sum_by(items, |i| {
        let d = f64::from(logit(i)) - mean;
        if drawn(i) { d * d } else { 0.0 }
    });
    (count, mean, squares / count)
}
