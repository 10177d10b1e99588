//! Top-p, or nucleus sampling.

use super::candidates::Row;
use super::chain::Apply;
use super::math::weight;

/// Keeps the most likely tokens until their probabilities add up to `p`.
pub(super) struct TopP {
    pub p: f32,
    pub min_keep: usize,
}

impl Apply for TopP {
    fn apply(&mut self, row: &mut Row, _history: &[u32]) {
        let max = row.max();
        let target = row.weight_sum(max) * f64::from(self.p);
        let mut sum = 0.0;
        let mut kept = 0;
        row.keep_best_until(|c| {
            sum += f64::from(weight(c.logit, max));
            kept += 1;
            sum >= target && kept >= self.min_keep
        });
    }
}
