//! XTC: exclude top choices.

use super::candidates::{Row, best_first};
use super::chain::Apply;
use super::math::weight;
use super::rng::Rng;

/// With `probability`, removes all tokens of probability `threshold` or more but the least likely
/// of them.
pub(super) struct Xtc {
    pub probability: f32,
    pub threshold: f32,
    pub min_keep: usize,
    pub rng: Rng,
}

impl Apply for Xtc {
    fn apply(&mut self, row: &mut Row, _history: &[u32]) {
        if row.len() < 2 || self.rng.next_f64() > f64::from(self.probability) {
            return;
        }
        let max = row.max();
        let bar = row.weight_sum(max) * f64::from(self.threshold);
        let top = |logit: f32| f64::from(weight(logit, max)) >= bar;
        let list = row.list();
        let n_top = list.iter().filter(|c| top(c.logit)).count();
        let least = list.iter().filter(|c| top(c.logit)).copied().max_by(best_first);
        let (Some(least), true) = (least, n_top >= 2) else { return };
        if list.len() - (n_top - 1) >= self.min_keep {
            // The others stay in their order, and the least of the top is the best of them.
            list.retain(|c| *c == least || !top(c.logit));
        }
    }

    fn reset(&mut self, seed: u64) {
        self.rng = Rng::new(seed);
    }
}
