//! What Q4_0, Q4_1, Q5_0 and Q5_1 have in common: 16 blocks of 32 beside each other.

use super::GROUP;
use super::lanes::Values;
use super::weights::weigh;

/// The values of 16 blocks and their weights.
#[inline(always)]
pub fn values(x: &[f32; GROUP], importance: Option<&[f32; GROUP]>) -> Values<32> {
    let weights = match importance {
        Some(importance) => match super::mode() {
            0 => weigh::<32>(x, importance, |mean, x, i| i * (mean + x * x).sqrt()),
            _ => *importance,
        },
        None => [1.0; GROUP],
    };
    Values::new(x, &weights)
}
