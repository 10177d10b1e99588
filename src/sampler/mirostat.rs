//! Mirostat 2 (Basu et al., 2021).

use super::candidates::Row;
use super::math::not_below;
use super::pick::draw;
use super::rng::Rng;

/// Draws among the tokens whose surprise, in bits, is at most `mu`, and moves `mu` so that the
/// surprise of what is drawn comes out at `tau`.
pub(super) struct Mirostat {
    tau: f32,
    eta: f32,
    mu: f32,
}

impl Mirostat {
    pub fn new(tau: f32, eta: f32) -> Mirostat {
        Mirostat { tau, eta, mu: 2.0 * tau }
    }

    pub fn reset(&mut self) {
        self.mu = 2.0 * self.tau;
    }

    /// Drops what is too surprising; the most likely token stays.
    pub fn narrow(&self, row: &mut Row) {
        let max = row.max();
        let ln_sum = libm::log(row.weight_sum(max));
        // -log2 p <= mu, with ln p = logit - max - ln_sum.
        let below = ln_sum - f64::from(self.mu) * std::f64::consts::LN_2;
        if below > 0.0 {
            row.keep_best(1);
        } else {
            row.keep_from(not_below(f64::from(max) + below));
        }
    }

    pub fn pick(&mut self, row: &mut Row, rng: &mut Rng) -> Option<usize> {
        self.narrow(row);
        let (i, p) = draw(row, rng)?;
        let error = -libm::log2(p) as f32 - self.tau;
        self.mu -= self.eta * error;
        Some(i)
    }
}
