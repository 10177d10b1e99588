//! Locally typical sampling (Meister et al., 2022).

use super::candidates::{Candidate, Row};
use super::chain::Apply;
use super::math::weight;
use std::cmp::Ordering;

/// Keeps the tokens whose surprise is nearest to the expected one, until their probabilities add
/// up to more than `p`.
pub(super) struct Typical {
    pub p: f32,
    pub min_keep: usize,
}

impl Apply for Typical {
    fn apply(&mut self, row: &mut Row, _history: &[u32]) {
        const FIRST: usize = 256;
        const GROWTH: usize = 8;

        let max = row.max();
        let mass = row.mass(max);
        let (entropy, ln_sum) = (mass.entropy(), libm::log(mass.sum));
        // `-ln p`; an infinite maximum leaves tokens that are certain or impossible.
        let surprise = |c: &Candidate| {
            if c.logit == max { ln_sum } else { ln_sum - f64::from(c.logit - max) }
        };
        let list = row.list();
        let by_distance = |a: &Candidate, b: &Candidate| {
            let (a_far, b_far) = ((surprise(a) - entropy).abs(), (surprise(b) - entropy).abs());
            a_far.partial_cmp(&b_far).unwrap_or(Ordering::Equal).then(a.id.cmp(&b.id))
        };

        let target = mass.sum * f64::from(self.p);
        let mut reached = 0.0;
        let mut ordered = 0;
        let mut k = FIRST;
        'all: while ordered < list.len() {
            let end = k.min(list.len());
            if end < list.len() {
                list[ordered..].select_nth_unstable_by(end - ordered, by_distance);
            }
            list[ordered..end].sort_unstable_by(by_distance);
            for i in ordered..end {
                reached += f64::from(weight(list[i].logit, max));
                if reached > target && i + 1 >= self.min_keep {
                    list.truncate(i + 1);
                    break 'all;
                }
            }
            ordered = end;
            k = k.saturating_mul(GROWTH);
        }
        row.list_changed();
    }
}
