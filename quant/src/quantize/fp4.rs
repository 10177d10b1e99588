//! The search of MXFP4: floats of 4 bits, and a power of two for each 32.

use super::GROUP;
use super::lanes::{Cpu, F, LANES, Values};
use super::unit::max_abs;
use crate::lanes::Lanes;

/// Twice the magnitudes, as the format's codes have them.
const MAGNITUDES: [f32; 8] = [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0];

/// Half the scales that are tried of values with a largest one from 1 to 2, and their exponents.
const TRIED: [(f32, i32); 3] = [(0.125, -2), (0.0625, -3), (0.25, -1)];

/// The exponents of 16 blocks, with the bias of a float, and their codes.
#[inline(always)]
pub fn search<L: Lanes>(
    cpu: Cpu<L>,
    x: &[f32; GROUP],
    weights: &[f32; GROUP],
) -> ([u8; LANES], [[u8; 16]; LANES]) {
    let mut near = [0.0; GROUP];
    let mut exponents = [0; LANES];
    for n in 0..LANES {
        let x = &x[32 * n..][..32];
        // No more than 2^126 to multiply with; for a block that is smaller the scale is least.
        exponents[n] = (max_abs(x).to_bits() >> 23).clamp(1, 253) as i32;
        let up = f32::from_bits((254 - exponents[n] as u32) << 23);
        for (near, x) in near[32 * n..].iter_mut().zip(x) {
            *near = x * up;
        }
    }
    let values = Values::<32>::new(&near, weights);
    let (mut best, mut scale) = (cpu.splat(f32::MAX), cpu.splat(TRIED[0].0));
    let mut step = cpu.splat(0.0);
    for (s, exponent) in TRIED {
        let s = cpu.splat(s);
        let mut error = cpu.splat(0.0);
        for (x, w) in values.each(cpu) {
            let off = x.abs() - s * magnitude(x.abs() / s);
            error += w * (off * off);
        }
        scale = error.less(best, s, scale);
        step = error.less(best, cpu.splat(exponent as f32), step);
        best = error.min(best);
    }
    let mut codes = [[0; 16]; LANES];
    for (j, x) in values.x.iter().enumerate() {
        let code = code(cpu.load(x).abs() / scale).array();
        for i in 0..LANES {
            let sign = u8::from(x[i] < 0.0) << 3;
            let code = code[i] as u8;
            codes[i][j % 16] |= if code > 0 { code | sign } else { 0 } << (j / 16 * 4);
        }
    }
    let mut bytes = [0; LANES];
    for (i, step) in step.array().into_iter().enumerate() {
        bytes[i] = (exponents[i] + step as i32).max(0) as u8;
    }
    (bytes, codes)
}

/// The magnitude nearest to `t`.
#[inline(always)]
fn magnitude<L: Lanes>(t: F<L>) -> F<L> {
    let mut magnitude = t.like(0.0);
    for pair in MAGNITUDES.windows(2) {
        let middle = t.like((pair[0] + pair[1]) / 2.0);
        magnitude += middle.less(t, t.like(pair[1] - pair[0]), t.like(0.0));
    }
    magnitude
}

/// Its code.
#[inline(always)]
fn code<L: Lanes>(t: F<L>) -> F<L> {
    let mut code = t.like(0.0);
    for pair in MAGNITUDES.windows(2) {
        code += t.like((pair[0] + pair[1]) / 2.0).less(t, t.like(1.0), t.like(0.0));
    }
    code
}
