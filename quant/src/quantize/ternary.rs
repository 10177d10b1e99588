//! The search of TQ1_0 and TQ2_0: `x = d * q`, q of -1, 0 and 1.

use super::lanes::{Cpu, F, LANES};
use super::unit::{max_abs, near_one};
use crate::lanes::{Lanes, tree_sum};

/// Smallest values that are not taken for zero, as shares of the largest: this many, evenly.
const TRIED: usize = 32;
/// How often that is set to half of the scale that fits.
const REFITS: usize = 3;

/// The scale, f16, and `q + 1` of each value.
#[inline(always)]
pub fn search<L: Lanes>(cpu: Cpu<L>, x: &[f32; 256], w: &[f32; 256]) -> ([u8; 2], [u8; 256]) {
    let mut codes = [1; 256];
    let Some((x, unit)) = near_one(x) else {
        return ([0; 2], codes);
    };
    let largest = max_abs(&x);
    let (mut d, mut gain) = (0.0, 0.0);
    for n in 0..TRIED + REFITS {
        let bound = if n < TRIED { largest * n as f32 / TRIED as f32 } else { d / 2.0 };
        let (this, tried) = fit(cpu, (&x, w), bound);
        if tried > gain {
            (d, gain) = (this, tried);
        }
    }
    let (d, bytes) = unit.f16(d);
    for (code, x) in codes.iter_mut().zip(&x) {
        *code += u8::from(*x > d / 2.0);
        *code -= u8::from(*x < -d / 2.0);
    }
    (bytes, codes)
}

/// The scale that fits the values beyond the bound best, and by how much the error is less than
/// that of zeros.
#[inline(always)]
fn fit<L: Lanes>(cpu: Cpu<L>, (x, w): (&[f32; 256], &[f32; 256]), bound: f32) -> (f32, f32) {
    let zero = cpu.splat(0.0);
    let (mut sum_x, mut sum_w): (F<L>, F<L>) = (zero, zero);
    let rows = x.as_chunks::<LANES>().0.iter().zip(w.as_chunks::<LANES>().0);
    for (x, w) in rows {
        let x = cpu.load(x).abs();
        let w = cpu.splat(bound).less(x, cpu.load(w), zero);
        sum_x += w * x;
        sum_w += w;
    }
    let (x, w) = (tree_sum(sum_x.array()), tree_sum(sum_w.array()));
    if w > 0.0 { (x / w, x / w * x) } else { (0.0, 0.0) }
}
