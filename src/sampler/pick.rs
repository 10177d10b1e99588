//! The end of the chain: one token of those that are left.

use super::candidates::Row;
use super::math::weight;
use super::rng::Rng;

/// Draws a position of the row's list by probability, and says how probable it was.
pub(super) fn draw(row: &mut Row, rng: &mut Rng) -> Option<(usize, f64)> {
    let max = row.max();
    row.list();
    let total = row.weight_sum(max);
    // Drawn also when there is no choice: how far the generator has come depends on nothing but
    // the number of tokens.
    let target = rng.next_f64() * total;
    let mut sum = 0.0;
    let mut drawn = None;
    for (i, c) in row.list().iter().enumerate() {
        let w = f64::from(weight(c.logit, max));
        if w > 0.0 {
            sum += w;
            // The last that can be drawn stands for what rounding leaves over.
            drawn = Some((i, w / total));
            if sum > target {
                break;
            }
        }
    }
    drawn
}
