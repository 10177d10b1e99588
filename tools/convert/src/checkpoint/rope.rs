//! Llama 3's rotary factors.

use super::config::Rope;
use crate::Result;

/// What each rotary frequency is divided by, in f32 as the model's own code has it: slow
/// frequencies by `factor`, fast ones by 1, those between by something between.
pub(super) fn llama3_factors(rope: &Rope, n_rot: usize) -> Result<Vec<f32>> {
    let theta = rope.theta.unwrap_or(10_000.0);
    let or = |key: &str, default: f32| Ok::<_, crate::Error>(rope.f32(key)?.unwrap_or(default));
    let factor = or("factor", 8.0)?;
    let (low, high) = (or("low_freq_factor", 1.0)?, or("high_freq_factor", 4.0)?);
    let context = or("original_max_position_embeddings", 8192.0)?;
    let factors = (0..n_rot / 2).map(|i| {
        let exponent = (2 * i) as f32 / n_rot as f32;
        let freq = 1.0 / libm::pow(f64::from(theta), f64::from(exponent)) as f32;
        let wavelen = std::f32::consts::TAU / freq;
        if wavelen < context / high {
            1.0
        } else if wavelen > context / low {
            factor
        } else {
            let smooth = (context / wavelen - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    });
    let factors: Vec<f32> = factors.collect();
    if factors.iter().any(|x| !x.is_finite() || *x <= 0.0) {
        let reason = "rope_parameters: these give factors that are not above 0".to_string();
        return Err(rope.error(reason));
    }
    Ok(factors)
}
