//! What the searches of the IQ types, MXFP4 and TQ have in common.
//!
//! Every loop over lanes is over an array of a fixed length: however wide the registers of a level
//! are, a sum has the same order and a result the same bits. Nothing is fused.

use bytemuck::bytes_of;

use super::{Block, f16, f16_bytes};

/// Blocks (or parts of blocks) that are searched at a time, each in its own lane.
pub(super) const LANES: usize = 16;

/// A power of two by which values are brought near 1, where no square overflows or vanishes.
#[derive(Clone, Copy)]
pub(super) struct Unit {
    /// What values are multiplied with.
    pub up: f32,
    /// What scales are multiplied with to undo that.
    pub down: f32,
}

impl Unit {
    /// For values of at most `max`; `None` if they are so small that no f16 scale is.
    #[inline(always)]
    pub fn of(max: f32) -> Option<Self> {
        /// 2^-40: the products of the smallest f16 and any code are larger.
        const MIN: u32 = 127 - 40;
        let exponent = max.to_bits() >> 23;
        // 2^-126 is the smallest factor that is a normal float.
        let exponent = if exponent > 253 { 253 } else { exponent };
        if exponent < MIN {
            return None;
        }
        Some(Unit {
            up: f32::from_bits((254 - exponent) << 23),
            down: f32::from_bits(exponent << 23),
        })
    }

    /// The scale nearest to `d` that an f16 holds, and the f16.
    #[inline(always)]
    pub fn f16(self, d: f32) -> (f32, [u8; 2]) {
        let bytes = f16_bytes((d * self.down).clamp(-65504.0, 65504.0));
        (f16(bytes) * self.up, bytes)
    }
}

/// How much an error counts.
#[derive(Clone, Copy)]
pub(super) struct Weighting {
    /// With importance: what the mean square is multiplied with before the root.
    pub with: f32,
    /// Without: the share of the mean square that is added to a value's square.
    pub without: f32,
}

/// The largest absolute value; not a number does not count.
#[inline(always)]
pub(super) fn max_abs(x: &[f32]) -> f32 {
    let mut max = [0.0f32; LANES];
    let (rows, rest) = x.as_chunks::<LANES>();
    for row in rows {
        for i in 0..LANES {
            let x = row[i].abs();
            max[i] = if max[i] < x { x } else { max[i] };
        }
    }
    rest.iter().chain(&max).fold(0.0, |max, x| if max < x.abs() { x.abs() } else { max })
}

/// The sum, of 16 partial sums.
#[inline(always)]
pub(super) fn sum(x: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (rows, rest) = x.as_chunks::<LANES>();
    for row in rows {
        for i in 0..LANES {
            sums[i] += row[i];
        }
    }
    for (sum, x) in sums.iter_mut().zip(rest) {
        *sum += x;
    }
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            sums[i] += sums[i + half];
        }
    }
    sums[0]
}

/// Brings the values of a block near 1 and computes their weights. `None` if they are all zero, as
/// far as an f16 scale goes.
#[inline(always)]
pub(super) fn prepare<const N: usize>(
    x: &[f32; N],
    importance: Option<&[f32; N]>,
    weighting: Weighting,
    out: &mut [f32; N],
    weights: &mut [f32; N],
) -> Option<Unit> {
    let unit = Unit::of(max_abs(x))?;
    for i in 0..N {
        out[i] = x[i] * unit.up;
        weights[i] = out[i] * out[i];
    }
    let mean = sum(weights) / N as f32;
    // Importance is a matter of proportions too.
    let scaled = importance.and_then(|q| {
        let max = max_abs(q);
        (max > 0.0).then(|| (q, 1.0 / max.max(f32::MIN_POSITIVE)))
    });
    match scaled {
        Some((q, factor)) => {
            /// Values of no importance at all still come out near what they were.
            const LEAST: f32 = 1e-9;
            for i in 0..N {
                let q = q[i] * factor + LEAST;
                weights[i] = q * (weighting.with * mean + weights[i]).sqrt();
            }
        }
        None => {
            for i in 0..N {
                weights[i] += weighting.without * mean;
            }
        }
    }
    Some(unit)
}

/// Makes each block of rows from its values and the importance of their columns.
#[inline(always)]
pub(super) fn for_blocks<B: Block, const N: usize>(
    x: &[f32],
    importance: Option<&[f32]>,
    out: &mut [u8],
    quantize: impl Fn(&[f32; N], Option<&[f32; N]>) -> B,
) {
    let (blocks, _) = x.as_chunks::<N>();
    let columns = importance.map(|q| q.as_chunks::<N>().0).filter(|q| !q.is_empty());
    for (n, (x, out)) in blocks.iter().zip(out.chunks_exact_mut(size_of::<B>())).enumerate() {
        let block = quantize(x, columns.map(|q| &q[n % q.len()]));
        out.copy_from_slice(bytes_of(&block));
    }
}
