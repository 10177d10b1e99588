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
        // PyTorch divides a number by a tensor in two steps, each rounded.
        let wavelen = freq.recip() * std::f32::consts::TAU;
        if wavelen < context / high {
            1.0
        } else if wavelen > context / low {
            factor
        } else {
            let smooth = (wavelen.recip() * context - low) / (high - low);
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

#[cfg(test)]
mod tests {
    use super::super::config::Config;
    use super::llama3_factors;

    #[test]
    fn factors_are_pytorchs_bit_for_bit() {
        let text = r#"{"rope_parameters": {"rope_type": "llama3", "rope_theta": 10000.0,
            "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192}}"#;
        let rope = Config::parse("config.json".as_ref(), text).unwrap().ropes().unwrap().0;
        let factors = llama3_factors(&rope, 128).unwrap();
        // Those between 1 and 8, by PyTorch 2; a division at once makes two of them others.
        const BETWEEN: [u32; 9] = [
            0x3f9256b0, 0x3fae1fe9, 0x3fd06394, 0x3ffb318f, 0x4018c560, 0x403bfe5d, 0x406ae406,
            0x4095ceb4, 0x40c4c1c6,
        ];
        let bits: Vec<u32> = factors.iter().map(|x| x.to_bits()).collect();
        assert_eq!(bits[41..50], BETWEEN);
        assert!(factors[..41].iter().all(|x| *x == 1.0));
        assert!(factors[50..].iter().all(|x| *x == 8.0));
    }
}
