//! What the squared errors of values are multiplied with.

use super::GROUP;

/// The mean of the squares, summed in eight parts.
#[inline(always)]
pub fn mean_square(x: &[f32]) -> f32 {
    let mut sums = [0.0; 8];
    for part in x.chunks_exact(8) {
        for (sum, x) in sums.iter_mut().zip(part) {
            *sum += x * x;
        }
    }
    sums.into_iter().sum::<f32>() / x.len() as f32
}

/// Weights by what `rule` makes of the mean square of each run of `N` values, a value and its
/// importance.
#[inline(always)]
pub fn weigh<const N: usize>(
    x: &[f32; GROUP],
    importance: &[f32; GROUP],
    rule: impl Fn(f32, f32, f32) -> f32,
) -> [f32; GROUP] {
    let mut weights = [0.0; GROUP];
    let parts = x.chunks_exact(N).zip(importance.chunks_exact(N));
    for (weights, (x, importance)) in weights.chunks_exact_mut(N).zip(parts) {
        let mean = mean_square(x);
        for ((weight, x), importance) in weights.iter_mut().zip(x).zip(importance) {
            *weight = rule(mean, *x, *importance);
        }
    }
    weights
}

pub fn k_weights(x: &[f32; GROUP], importance: Option<&[f32; GROUP]>) -> [f32; GROUP] {
    match importance {
        Some(importance) => match super::mode() {
            0 => weigh::<256>(x, importance, |mean, x, i| i * (2.0 * mean + x * x).sqrt()),
            1 => weigh::<256>(x, importance, |mean, x, i| i * (mean + x * x).sqrt()),
            _ => *importance,
        },
        None => match super::mode() {
            0 => weigh::<16>(x, &[1.0; GROUP], |mean, x, _| x * x),
            1 => weigh::<16>(x, &[1.0; GROUP], |mean, x, _| mean.sqrt() + x.abs()),
            _ => [1.0; GROUP],
        },
    }
}
