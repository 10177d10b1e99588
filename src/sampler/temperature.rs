//! Temperature, fixed or by entropy.

use super::candidates::Row;
use super::chain::Apply;

/// Divides the logits by a temperature above 0.
pub(super) struct Temperature {
    pub temp: f32,
}

impl Apply for Temperature {
    fn apply(&mut self, row: &mut Row, _history: &[u32]) {
        divide(row, self.temp);
    }
}

/// Divides the logits by a temperature between `temp - range` and `temp + range`: the less certain
/// the model, the higher (Kalomaze's dynamic temperature).
pub(super) struct DynamicTemperature {
    pub temp: f32,
    pub range: f32,
    pub exponent: f32,
}

impl Apply for DynamicTemperature {
    fn apply(&mut self, row: &mut Row, _history: &[u32]) {
        let low = (self.temp - self.range).max(0.0);
        let high = self.temp + self.range;
        let n = row.list().len();
        if n <= 1 {
            return;
        }
        let max = row.max();
        let entropy = row.mass(max).entropy();
        let normalized = (entropy / libm::log(n as f64)).clamp(0.0, 1.0);
        let share = libm::pow(normalized, f64::from(self.exponent)) as f32;
        let temp = low + (high - low) * share;
        if temp > 0.0 {
            divide(row, temp);
        } else {
            row.keep_best(1);
        }
    }
}

fn divide(row: &mut Row, temp: f32) {
    let max = row.max();
    // Where the quotient is too large for a float, what counts is the distance from the maximum.
    let origin = if max.is_finite() && !(max / temp).is_finite() { max } else { 0.0 };
    if let Some(logits) = row.dense_mut() {
        logits.iter_mut().for_each(|x| *x = (*x - origin) / temp);
    } else {
        row.list().iter_mut().for_each(|c| c.logit = (c.logit - origin) / temp);
    }
}
