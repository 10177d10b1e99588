//! Codes chosen so that errors cancel: where columns of a matrix are used together, an error of one
//! can be undone by the others.
//!
//! With activations `x` and the errors `e` of a row of weights, the error of a product is `e * x`,
//! and its mean square `e' H e` with `H` the mean of `x x'`. Searches take `H` for diagonal, which
//! it is far from: activations have means, and directions in which they are large. Here it is
//!
//! ```text
//! H = diag(rest) + U U'
//! ```
//!
//! with `U` of few columns. Codes are chosen one column after the other, with the scales as the
//! search left them. If the errors before column `j` add up to `r = U' e`, and all later columns were
//! free to take any value, the least mean square would be had with the error
//!
//! ```text
//! e[j] = -(A[j]^-1 u[j] / rest[j])' r,    A[j] = 1 + sum of u[i] u[i]' / rest[i] over i >= j
//! ```
//!
//! so that the code nearest to the value with this error is taken. This is GPTQ (Frantar et al.,
//! 2022) for such an `H`: a few numbers for each column in place of all its correlations.

use bytemuck::try_cast_slice_mut;

use super::curve;
use super::lanes::{Cpu, F, LANES};
use super::{MAX_VALUE, QuantizeFn, Search};
use crate::formats::{IntBlock, Unit};
use crate::lanes::Lanes;

/// Rows that are quantized side by side.
pub const ROWS: usize = LANES;

/// Columns of `U`.
pub const RANK: usize = 64;

/// Values in the largest block.
const MAX_LEN: usize = 256;

/// What a format's codes stand for, before they are scaled.
#[derive(Clone, Copy, Debug)]
pub enum Codes {
    /// Integers from the first to the second. Code 0 is the first.
    Range(i8, i8),
    /// The table of [IQ4](crate::formats::iq4::VALUES).
    Iq4,
}

/// A format whose codes can be changed while its scales stay.
pub trait Recode: Search + IntBlock {
    /// The codes that there are.
    const CODES: Codes;

    /// Sets the codes of all values, of which there are [`LEN`](crate::formats::Block::LEN).
    fn set_codes(&mut self, codes: &[u8]);
}

/// How the columns of a matrix of weights are used together: `H` above, up to a factor.
#[derive(Clone, Debug, PartialEq)]
pub struct Feedback {
    /// `u` of each column.
    factors: Vec<[f32; RANK]>,
    /// What is on the diagonal besides.
    rest: Vec<f32>,
    /// What the sums of errors are multiplied with to be the error that a column should not have.
    answers: Vec<[f32; RANK]>,
}

impl Feedback {
    /// From the parts of `H`: `factors` has `u` of each column, `rest` what is on the diagonal
    /// besides, which is above zero; as many of both.
    pub fn new(factors: Vec<[f32; RANK]>, rest: Vec<f32>) -> Feedback {
        // The inverse of A, and what is made of each u by it.
        let mut inverse = vec![[0.0f32; RANK]; RANK];
        for (i, row) in inverse.iter_mut().enumerate() {
            row[i] = 1.0;
        }
        let mut answers: Vec<_> = factors
            .iter()
            .zip(&rest)
            .rev()
            .map(|(u, rest)| {
                // With u, the inverse becomes less by z z' / (rest + u' z) (Sherman and Morrison),
                // and what it makes of u is z / (rest + u' z).
                let mut z = [0.0; RANK];
                for (row, u) in inverse.iter().zip(u) {
                    for (z, x) in z.iter_mut().zip(row) {
                        *z += x * u;
                    }
                }
                let dot: f32 = z.iter().zip(u).map(|(z, u)| z * u).sum();
                let answer = z.map(|z| z / (rest + dot));
                for (row, z) in inverse.iter_mut().zip(&z) {
                    for (x, answer) in row.iter_mut().zip(&answer) {
                        *x -= z * answer;
                    }
                }
                answer
            })
            .collect();
        answers.reverse();
        Feedback { factors, rest, answers }
    }

    /// `e' H e`: the mean square of the error of a product, of the errors of a row of weights.
    pub fn error(&self, errors: impl IntoIterator<Item = f64>) -> f64 {
        let (mut own, mut sums) = (0.0, [0.0; RANK]);
        for ((e, u), rest) in errors.into_iter().zip(&self.factors).zip(&self.rest) {
            own += e * e * f64::from(*rest);
            for (sum, u) in sums.iter_mut().zip(u) {
                *sum += e * f64::from(*u);
            }
        }
        own + sums.iter().map(|sum| sum * sum).sum::<f64>()
    }

    /// False if a number in it is none, which comes of parts that belong to no `H`.
    pub fn is_finite(&self) -> bool {
        let rows = self.factors.iter().chain(&self.answers);
        rows.flatten().chain(&self.rest).all(|x| x.is_finite())
    }

    /// Columns that the matrix has.
    pub fn columns(&self) -> usize {
        self.answers.len()
    }
}

/// Quantizes whole rows by a search, and then chooses the codes anew.
///
/// # Safety
/// The CPU has what the level needs that the functions were installed for.
pub type RecodeFn = unsafe fn(
    search: QuantizeFn,
    x: &[f32],
    importance: Option<&[f32]>,
    feedback: &Feedback,
    out: &mut [u8],
);

/// See [`RecodeFn`]. The values are as many as the bytes hold, in whole rows of the feedback's
/// columns, of which there are whole blocks, and as many importances.
#[inline(always)]
pub fn rows<L: Lanes, B: Recode>(
    cpu: Cpu<L>,
    search: impl Fn(&[f32], Option<&[f32]>, &mut [u8]),
    x: &[f32],
    importance: Option<&[f32]>,
    feedback: &Feedback,
    out: &mut [u8],
) {
    let columns = feedback.columns();
    let mut values = vec![0.0; LANES * columns];
    let bytes = columns / B::LEN * size_of::<B>();
    for (x, out) in x.chunks(LANES * columns).zip(out.chunks_mut(LANES * bytes)) {
        search(x, importance, out);
        let blocks: &mut [B] = try_cast_slice_mut(out).unwrap_or(&mut []);
        values.fill(0.0);
        for (row, x) in x.chunks_exact(columns).enumerate() {
            for (values, x) in values.chunks_exact_mut(LANES).zip(x) {
                values[row] = x.clamp(-MAX_VALUE, MAX_VALUE);
            }
        }
        group(cpu, &values, feedback, blocks);
    }
}

/// Chooses the codes of up to 16 rows, each in a lane.
#[inline(always)]
fn group<L: Lanes, B: Recode>(cpu: Cpu<L>, x: &[f32], feedback: &Feedback, blocks: &mut [B]) {
    const { assert!(B::UNIT == B::LEN && B::LEN <= MAX_LEN) };
    let row_blocks = feedback.columns() / B::LEN;
    // The sums of the errors so far.
    let mut sums = [[0.0; LANES]; RANK];
    let columns = x.chunks_exact(LANES * B::LEN);
    let parts = feedback.factors.chunks_exact(B::LEN).zip(feedback.answers.chunks_exact(B::LEN));
    for (at, (x, (factors, answers))) in columns.zip(parts).enumerate() {
        let grids = Grids::of(blocks.iter().skip(at).step_by(row_blocks));
        let mut codes = [[0; MAX_LEN]; LANES];
        for (j, ((x, u), answer)) in x.as_chunks().0.iter().zip(factors).zip(answers).enumerate() {
            let target = cpu.load(x) - dot(cpu, &sums, answer);
            let (scale, min) = (cpu.load(&grids.scale[j / 16]), cpu.load(&grids.min[j / 16]));
            let (code, value) = nearest::<L, B>(target, scale, min);
            let code = code.array();
            for (codes, code) in codes.iter_mut().zip(code) {
                codes[j] = code as u8;
            }
            let error = value - cpu.load(x);
            for (sum, u) in sums.iter_mut().zip(u) {
                *sum = (cpu.load(sum) + error * cpu.splat(*u)).array();
            }
        }
        for (block, codes) in blocks.iter_mut().skip(at).step_by(row_blocks).zip(&codes) {
            block.set_codes(&codes[..B::LEN]);
        }
    }
}

/// The scales and minimums of each 16 values of a block of each row.
struct Grids {
    scale: [[f32; LANES]; MAX_LEN / 16],
    min: [[f32; LANES]; MAX_LEN / 16],
}

impl Grids {
    #[inline(always)]
    fn of<'a, B: Recode>(blocks: impl Iterator<Item = &'a B>) -> Grids {
        let zeros = [[0.0; LANES]; MAX_LEN / 16];
        let mut grids = Grids { scale: zeros, min: zeros };
        let mut unit = Unit::default();
        for (lane, block) in blocks.enumerate() {
            block.unpack(0, &mut unit);
            for sub in 0..B::LEN / 16 {
                grids.scale[sub][lane] = unit.d * f32::from(unit.scale[sub]);
                if B::HAS_MIN {
                    grids.min[sub][lane] = unit.dmin * f32::from(unit.min[sub]);
                }
            }
        }
        grids
    }
}

/// `sums' answer`, four sums side by side.
#[inline(always)]
fn dot<L: Lanes>(cpu: Cpu<L>, sums: &[[f32; LANES]; RANK], answer: &[f32; RANK]) -> F<L> {
    let mut parts = [cpu.splat(0.0); 4];
    for (sums, answers) in sums.as_chunks::<4>().0.iter().zip(answer.as_chunks::<4>().0) {
        for ((part, sum), answer) in parts.iter_mut().zip(sums).zip(answers) {
            *part += cpu.load(sum) * cpu.splat(*answer);
        }
    }
    (parts[0] + parts[1]) + (parts[2] + parts[3])
}

/// The code nearest to a target, and its value.
#[inline(always)]
fn nearest<L: Lanes, B: Recode>(target: F<L>, scale: F<L>, min: F<L>) -> (F<L>, F<L>) {
    let t = (target - min) * scale.inverse();
    let (code, q) = match B::CODES {
        Codes::Range(least, most) => {
            let least = t.like(f32::from(least));
            let q = t.round_within(least, t.like(f32::from(most)));
            (q - least, q)
        }
        Codes::Iq4 => (curve::code(t), curve::nearest(t)),
    };
    (code, scale * q + min)
}
