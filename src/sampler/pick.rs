//! The end of the chain: one token of those that are left.

use super::candidates::Row;
use super::math::{TILE, tile_sums, weight};
use super::rng::Rng;

/// Draws a position of the row's list by probability, and says how probable it was.
pub(super) fn draw(row: &mut Row, rng: &mut Rng) -> Option<(usize, f64)> {
    let max = row.max();
    row.list();
    let total = row.weight_sum(max);
    // Drawn also when there is no choice: how far the generator has come depends on nothing but
    // the number of tokens.
    let target = rng.next_f64() * total;
    let list = row.list();
    // First the tile, then the token in it. The last that can be drawn stands for what rounding
    // leaves over.
    let (mut sum, mut before, mut start) = (0.0, 0.0, 0);
    for (tile, tile_sum) in tile_sums(list, |c| c.logit, max).enumerate() {
        if tile_sum > 0.0 {
            (before, start) = (sum, tile * TILE);
        }
        sum += tile_sum;
        if sum > target {
            break;
        }
    }
    sum = before;
    let mut drawn = None;
    for (i, c) in list.iter().enumerate().skip(start) {
        let w = f64::from(weight(c.logit, max));
        if w > 0.0 {
            sum += w;
            drawn = Some((i, w / total));
            if sum > target {
                break;
            }
        }
    }
    drawn
}
