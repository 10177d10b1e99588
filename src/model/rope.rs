//! Angles of rotary embeddings.
//!
//! Computed in f64 by a pure-Rust libm, so that they are the same on every machine.

use siskin_quant::par::Team;

use super::hparams::Rope;
use crate::{Result, memory};

/// Frequencies of one kind of layer.
pub(crate) struct Frequencies(Vec<f64>);

impl Frequencies {
    /// `scale * base^(-2 i / n_rot)`, each divided by its factor if there are any.
    pub fn new(rope: Rope, n_rot: usize, factors: Option<&[f32]>) -> Frequencies {
        let frequency = |i: usize| {
            let exponent = -2.0 * i as f64 / n_rot as f64;
            let factor = factors.and_then(|f| f.get(i)).map_or(1.0, |f| f64::from(*f));
            rope.scale * libm::pow(rope.base, exponent) / factor
        };
        Frequencies((0..n_rot / 2).map(frequency).collect())
    }
}

/// Cosines and sines of the positions of a batch.
pub(crate) struct Angles {
    half: usize,
    /// `[tokens][2 * half]`: cosines, then sines.
    values: Vec<f32>,
}

impl Angles {
    /// Memory for `n` tokens.
    ///
    /// # Errors
    /// [`Error::Memory`](crate::Error::Memory)
    pub fn new(n_rot: usize, n: usize) -> Result<Angles> {
        Ok(Angles { half: n_rot / 2, values: memory::zeros(n * n_rot)? })
    }

    /// Computes those of `n` positions from `pos` on.
    pub fn fill(&mut self, team: &mut Team<'_>, frequencies: &Frequencies, pos: usize, n: usize) {
        let half = self.half;
        team.for_rows(&mut self.values[..n * 2 * half], 2 * half, |t, row| {
            let (cos, sin) = row.split_at_mut(half);
            let pos = (pos + t) as f64;
            for ((c, s), f) in cos.iter_mut().zip(sin).zip(&frequencies.0) {
                let (sine, cosine) = libm::sincos(pos * f);
                (*c, *s) = (cosine as f32, sine as f32);
            }
        });
    }

    /// Cosines and sines of token `t`.
    pub fn of(&self, t: usize) -> (&[f32], &[f32]) {
        self.values[t * 2 * self.half..][..2 * self.half].split_at(self.half)
    }
}
