//! Arithmetic that gives the same bits on every machine.
//!
//! Only IEEE additions, multiplications, divisions and comparisons in an order that is written
//! down; no fused operations (a CPU without them would emulate each with a call), nothing of the
//! platform's own libm. Loops are shaped so that the compiler makes vector instructions of them
//! with any instruction set.

/// How many sums a reduction keeps apart: wide enough for any vector register, and fixed, so that
/// the register's width cannot show.
const LANES: usize = 16;

/// Below this, `exp` is taken as 0. e^-87 is 1.6e-38, the edge of normal f32.
const EXP_MIN: f32 = -87.0;

/// `e^x` for `x <= 0`, within 1.5 units in the last place; 0 below -87 and for NaN.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    /// ln 2 in two parts; the first has 9 bits, so that its product with an exponent is exact.
    const LN2_HI: f32 = 355.0 / 512.0;
    const LN2_LO: f32 = -2.121_944_4e-4;
    /// 1.5 * 2^23: adding it rounds to an integer, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;

    let c = if x >= EXP_MIN { x } else { EXP_MIN };
    let shifted = c * LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (c - n * LN2_HI) - n * LN2_LO;
    // Cephes' polynomial for (e^r - 1 - r) / r^2 on |r| <= ln 2 / 2.
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let y = p * (r * r) + r + 1.0;
    // n is in -126..=0, so 2^n is a normal number.
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    let e = y * f32::from_bits(exponent);
    if x >= EXP_MIN { e } else { 0.0 }
}

/// What a logit weighs against the largest: `exp(x - max)`; 1 at the maximum even when that is
/// infinite, 0 for NaN.
#[inline(always)]
pub(super) fn weight(x: f32, max: f32) -> f32 {
    if x == max { 1.0 } else { exp(x - max) }
}

/// The sum of `f` over `items`, in f64: 16 sums by index mod 16, then the tree 8, 4, 2, 1.
#[inline(always)]
pub(super) fn sum_by<T>(items: &[T], f: impl Fn(&T) -> f64) -> f64 {
    let mut acc = [0.0f64; LANES];
    let chunks = items.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (a, item) in acc.iter_mut().zip(chunk) {
            *a += f(item);
        }
    }
    for (a, item) in acc.iter_mut().zip(rest) {
        *a += f(item);
    }
    fold(acc)
}

/// What a set of logits weighs, relative to the largest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mass {
    /// The sum of `exp(x - max)`.
    pub sum: f64,
    /// The sum of `exp(x - max) * (x - max)`.
    pub below: f64,
}

impl Mass {
    /// The entropy of the softmax, in nats.
    pub fn entropy(self) -> f64 {
        libm::log(self.sum) - self.below / self.sum
    }
}

/// Values that are looked at together: a loop over this many has no other work in it than the
/// vector instructions.
pub(super) const TILE: usize = 256;

/// The weights of up to [`TILE`] items.
#[inline(always)]
fn weigh<T>(items: &[T], logit: impl Fn(&T) -> f32, max: f32) -> [f32; TILE] {
    let mut weights = [0.0; TILE];
    for (w, item) in weights.iter_mut().zip(items) {
        *w = weight(logit(item), max);
    }
    weights
}

/// The sum of `exp(x - max)` over `items`.
pub(super) fn weight_sum<T>(items: &[T], logit: impl Fn(&T) -> f32 + Copy, max: f32) -> f64 {
    let mut acc = [0.0f64; LANES];
    for tile in items.chunks(TILE) {
        add_lanes(&mut acc, &weigh(tile, logit, max));
    }
    fold(acc)
}

/// The sum of `exp(x - max)` of each tile of `items`.
pub(super) fn tile_sums<T>(
    items: &[T],
    logit: impl Fn(&T) -> f32 + Copy,
    max: f32,
) -> impl Iterator<Item = f64> {
    items.chunks(TILE).map(move |tile| {
        let mut acc = [0.0f64; LANES];
        add_lanes(&mut acc, &weigh(tile, logit, max));
        fold(acc)
    })
}

/// The [`Mass`] of `items`.
pub(super) fn mass<T>(items: &[T], logit: impl Fn(&T) -> f32 + Copy, max: f32) -> Mass {
    let (mut sum, mut below) = ([0.0f64; LANES], [0.0f64; LANES]);
    for tile in items.chunks(TILE) {
        let weights = weigh(tile, logit, max);
        add_lanes(&mut sum, &weights);
        let mut products = [0.0f32; TILE];
        for ((p, &w), item) in products.iter_mut().zip(&weights).zip(tile) {
            // Neither the infinite distance of what weighs nothing, nor that between infinities.
            let x = logit(item);
            *p = if w > 0.0 && x != max { w * (x - max) } else { 0.0 };
        }
        add_lanes(&mut below, &products);
    }
    Mass { sum: fold(sum), below: fold(below) }
}

/// Adds each value to the sum of its index mod 16.
#[inline(always)]
fn add_lanes(acc: &mut [f64; LANES], values: &[f32; TILE]) {
    for chunk in values.chunks_exact(LANES) {
        for (a, &x) in acc.iter_mut().zip(chunk) {
            *a += f64::from(x);
        }
    }
}

/// The sum of the lanes, by the tree 8, 4, 2, 1.
#[inline(always)]
fn fold(mut acc: [f64; LANES]) -> f64 {
    for width in [8, 4, 2, 1] {
        for i in 0..width {
            acc[i] += acc[i + width];
        }
    }
    acc[0]
}

/// The largest value, NaN aside; `-inf` for none.
pub(super) fn max(values: &[f32]) -> f32 {
    let mut acc = [f32::NEG_INFINITY; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (a, &x) in acc.iter_mut().zip(chunk) {
            *a = if x > *a { x } else { *a };
        }
    }
    acc.iter().chain(rest).fold(f32::NEG_INFINITY, |m, &x| if x > m { x } else { m })
}

/// The smallest f32 that is not below `bound`: comparing with it is comparing with `bound`.
pub(super) fn not_below(bound: f64) -> f32 {
    let near = bound as f32;
    if f64::from(near) < bound { near.next_up() } else { near }
}

/// The position of the first maximum; `None` when all are NaN or `-inf`.
pub(super) fn argmax(values: &[f32]) -> Option<usize> {
    const BLOCK: usize = 256;
    let mut best = f32::NEG_INFINITY;
    let mut block = None;
    for (b, chunk) in values.chunks(BLOCK).enumerate() {
        let m = max(chunk);
        if m > best {
            best = m;
            block = Some(b * BLOCK);
        }
    }
    let start = block?;
    values[start..].iter().position(|&x| x == best).map(|i| start + i)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units_of_the_exact_value() {
        let mut worst = 0.0f64;
        for i in 0..=870_000 {
            let x = -(i as f32) * 1e-4;
            let exact = libm::exp(f64::from(x));
            worst = worst.max(((f64::from(exp(x)) - exact) / exact).abs());
        }
        assert!(worst < 1.5e-7, "{worst:e}");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-87.5), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::NAN), 0.0);
        assert_eq!(weight(f32::INFINITY, f32::INFINITY), 1.0);
        assert_eq!(weight(0.0, f32::INFINITY), 0.0);
    }

    #[test]
    fn a_bound_between_two_floats_keeps_the_upper_one() {
        let between = 1.0 + f64::from(f32::EPSILON) / 4.0;
        assert_eq!(not_below(between), 1.0f32.next_up());
        assert_eq!(not_below(1.0), 1.0);
        assert_eq!(not_below(-between), -1.0);
    }

    #[test]
    fn the_first_maximum_is_found_whatever_stands_beside_it() {
        assert_eq!(argmax(&[]), None);
        assert_eq!(argmax(&[f32::NAN, f32::NEG_INFINITY]), None);
        assert_eq!(argmax(&[f32::NAN, 1.0, 2.0, 2.0]), Some(2));
        let mut many = vec![0.0; 1000];
        many[700] = 3.0;
        many[999] = 3.0;
        many[3] = f32::NAN;
        assert_eq!(argmax(&many), Some(700));
        assert_eq!(max(&many), 3.0);
        assert_eq!(max(&[]), f32::NEG_INFINITY);
    }
}
