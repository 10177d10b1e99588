//! The searches by which the K types are quantized: for a group of values a scale (and a minimum)
//! with a small error.
//!
//! The bits are those of ggml's reference, so the order of the operations on floats is part of the
//! rule: nothing here is fused or reassociated.

use std::ops::RangeInclusive;

use super::k_scales::pack_scale_min;
use super::{f16, f16_bytes, furthest};

/// Values smaller than this in a group are taken for zeros.
pub(super) const ALL_ZERO: f32 = 1e-15;

/// Rounds to the nearest integer, ties to even, what is within 22 bits; anything else, a NaN too,
/// gives some integer of 23 bits.
#[inline(always)]
pub(super) fn nearest_int(x: f32) -> i32 {
    let bits = (x + 12_582_912.0).to_bits();
    (bits & 0x007f_ffff) as i32 - 0x0040_0000
}

/// The scale of Q6_K for 16 values, and their codes plus 32: 19 scales around the one that the
/// value furthest from zero asks for, with each value weighted by its square.
pub(super) fn search_centred(x: &[f32; 16]) -> (f32, [u8; 16]) {
    let far = furthest(x);
    if far.abs() < ALL_ZERO {
        return (0.0, [0; 16]);
    }
    let codes = |iscale: f32| x.map(|x| nearest_int(iscale * x).clamp(-32, 31));
    let sums = |codes: &[i32; 16]| {
        let (mut xl, mut ll) = (0.0, 0.0);
        for (x, l) in x.iter().zip(codes) {
            let (w, l) = (x * x, *l as f32);
            xl += w * x * l;
            ll += w * l * l;
        }
        (xl, ll)
    };
    let mut best_codes = codes(-32.0 / far);
    let (xl, ll) = sums(&best_codes);
    let mut scale = if ll != 0.0 { xl / ll } else { 0.0 };
    let mut best = scale * xl;
    for step in (-9..=9).filter(|step| *step != 0) {
        let tried = codes(-(32.0 + 0.1 * step as f32) / far);
        let (xl, ll) = sums(&tried);
        if ll > 0.0 && xl * xl > best * ll {
            best_codes = tried;
            scale = xl / ll;
            best = scale * xl;
        }
    }
    (scale, best_codes.map(|l| (l + 32) as u8))
}

/// The scale of Q3_K for 16 values, and their codes plus 4: codes are changed one at a time while
/// that lowers the error, with each value weighted by its square.
pub(super) fn search_q3(x: &[f32; 16]) -> (f32, [u8; 16]) {
    let far = furthest(x);
    if far.abs() < ALL_ZERO {
        return (0.0, [0; 16]);
    }
    let iscale = -4.0 / far;
    let mut codes = x.map(|x| nearest_int(iscale * x).clamp(-4, 3));
    let (mut xl, mut ll) = (0.0, 0.0);
    for (x, l) in x.iter().zip(codes) {
        let (w, l) = (x * x, l as f32);
        xl += w * x * l;
        ll += w * l * l;
    }
    for _ in 0..5 {
        let mut changed = false;
        for (x, code) in x.iter().zip(&mut codes) {
            let (w, l) = (x * x, *code as f32);
            let others_xl = xl - w * x * l;
            if others_xl > 0.0 {
                let others_ll = ll - w * l * l;
                let new = nearest_int(x * others_ll / others_xl).clamp(-4, 3);
                if new != *code {
                    let l = new as f32;
                    let (new_xl, new_ll) = (others_xl + w * x * l, others_ll + w * l * l);
                    if new_ll > 0.0 && new_xl * new_xl * ll > xl * xl * new_ll {
                        (*code, xl, ll) = (new, new_xl, new_ll);
                        changed = true;
                    }
                }
            }
        }
        if !changed {
            break;
        }
    }
    (if ll > 0.0 { xl / ll } else { 0.0 }, codes.map(|l| (l + 4) as u8))
}

/// How a scale and a minimum are searched.
pub(super) struct MinSearch {
    /// The largest code.
    pub max_code: u8,
    /// What is added to the largest code for the first scale tried; each further one adds 0.1.
    pub first: f32,
    /// Steps after the first.
    pub steps: i32,
    /// The error is the absolute difference, not its square.
    pub absolute: bool,
}

impl MinSearch {
    /// The scale of a group of values, the negated minimum, and the codes.
    pub fn search<const N: usize>(&self, x: &[f32; N], weights: &[f32; N]) -> (f32, f32, [u8; N]) {
        let (mut min, mut max) = (x[0], x[0]);
        let mut sum_w = weights[0];
        let mut sum_x = sum_w * x[0];
        for (x, w) in x.iter().zip(weights).skip(1) {
            min = if *x < min { *x } else { min };
            max = if *x > max { *x } else { max };
            sum_w += w;
            sum_x += w * x;
        }
        min = if min > 0.0 { 0.0 } else { min };
        if max == min {
            return (0.0, -min, [0; N]);
        }
        let top = f32::from(self.max_code);
        let codes = |iscale: f32, min: f32| {
            x.map(|x| nearest_int(iscale * (x - min)).clamp(0, i32::from(self.max_code)) as u8)
        };
        let error = |codes: &[u8; N], scale: f32, min: f32| {
            let mut error = 0.0;
            for ((x, w), l) in x.iter().zip(weights).zip(codes) {
                let diff = scale * f32::from(*l) + min - x;
                error += w * if self.absolute { diff.abs() } else { diff * diff };
            }
            error
        };
        let iscale = top / (max - min);
        let mut scale = 1.0 / iscale;
        let mut best_codes = codes(iscale, min);
        let mut best_error = error(&best_codes, scale, min);
        for step in 0..=self.steps {
            // From the minimum that was best so far, not from the first.
            let tried = codes((self.first + 0.1 * step as f32 + top) / (max - min), min);
            let (mut sum_l, mut sum_l2, mut sum_xl) = (0.0, 0.0, 0.0);
            for ((x, w), l) in x.iter().zip(weights).zip(tried) {
                let wl = w * f32::from(l);
                sum_l += wl;
                sum_l2 += wl * f32::from(l);
                sum_xl += wl * x;
            }
            let det = sum_w * sum_l2 - sum_l * sum_l;
            if det > 0.0 {
                let mut this_scale = (sum_w * sum_xl - sum_x * sum_l) / det;
                let mut this_min = (sum_l2 * sum_x - sum_l * sum_xl) / det;
                if this_min > 0.0 {
                    this_min = 0.0;
                    this_scale = sum_xl / sum_l2;
                }
                let error = error(&tried, this_scale, this_min);
                if error < best_error {
                    (best_codes, best_error) = (tried, error);
                    (scale, min) = (this_scale, this_min);
                }
            }
        }
        (scale, -min, best_codes)
    }
}

/// The codes of values with a scale and minimum that were themselves rounded.
pub(super) fn codes_for<const N: usize>(
    x: &[f32; N],
    d: f32,
    dm: f32,
    range: RangeInclusive<i32>,
) -> [i32; N] {
    x.map(|x| nearest_int((x + dm) / d).clamp(*range.start(), *range.end()))
}

/// What Q4_K and Q5_K have in common.
pub(super) struct ScaleMin {
    /// Scale of the scales, f16.
    pub d: [u8; 2],
    /// Scale of the minimums, f16.
    pub dmin: [u8; 2],
    /// Scales and minimums, packed.
    pub scales: [u8; 12],
    /// Codes of each 32 values.
    pub codes: [[u8; 32]; 8],
}

impl ScaleMin {
    /// Searches a scale and a minimum for each 32 values, each weighted by its size and the root
    /// of the mean square, and rounds them to 6 bits.
    pub fn search(search: &MinSearch, x: &[f32; 256]) -> Self {
        let (parts, _) = x.as_chunks::<32>();
        let (mut scale, mut min, mut codes) = ([0.0f32; 8], [0.0f32; 8], [[0; 32]; 8]);
        for j in 0..8 {
            let mut sum = 0.0;
            for x in &parts[j] {
                sum += x * x;
            }
            let root = (sum / 32.0).sqrt();
            let weights = parts[j].map(|x| root + x.abs());
            (scale[j], min[j], codes[j]) = search.search(&parts[j], &weights);
        }
        let (d, scale) = round_to_6_bits(&scale);
        let (dmin, min) = round_to_6_bits(&min);
        for j in 0..8 {
            let d = f16(d) * f32::from(scale[j]);
            if d != 0.0 {
                let dm = f16(dmin) * f32::from(min[j]);
                let range = 0..=i32::from(search.max_code);
                codes[j] = codes_for(&parts[j], d, dm, range).map(|l| l as u8);
            }
        }
        ScaleMin { d, dmin, scales: pack_scale_min(scale, min), codes }
    }
}

/// The f16 scale with which the largest of the numbers becomes 63, and the numbers.
fn round_to_6_bits(x: &[f32; 8]) -> ([u8; 2], [u8; 8]) {
    let max = largest(x);
    let iscale = if max > 0.0 { 63.0 / max } else { 0.0 };
    (f16_bytes(max / 63.0), x.map(|x| (nearest_int(iscale * x) as u8).min(63)))
}

/// The largest number, at least zero.
pub(super) fn largest(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |max, x| if *x > max { *x } else { max })
}
