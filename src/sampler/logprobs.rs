//! Log-probabilities of a row of logits.

use super::candidates::{Buffers, Row};
use super::math;
use crate::Result;

/// The log-softmax of rows of logits. Keeps its buffers from row to row.
///
/// ```
/// let mut lp = siskin::sampler::LogProbs::new(3)?;
/// let top = lp.top(&[0.0, 1.0, 1.0], 2);
/// assert_eq!([top[0].0, top[1].0], [1, 2]);
/// assert!((top[0].1 - lp.of(&[0.0, 1.0, 1.0], 1)).abs() < 1e-12);
/// # Ok::<(), siskin::Error>(())
/// ```
pub struct LogProbs {
    buffers: Buffers,
    top: Vec<(u32, f64)>,
}

impl std::fmt::Debug for LogProbs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogProbs").finish_non_exhaustive()
    }
}

impl LogProbs {
    /// For rows of `n_vocab` logits.
    ///
    /// # Errors
    /// [`Error::Memory`](crate::Error::Memory)
    pub fn new(n_vocab: usize) -> Result<LogProbs> {
        Ok(LogProbs { buffers: Buffers::new(n_vocab)?, top: Vec::new() })
    }

    /// `ln` of the sum of `exp` of a row's logits, summed in f64: a token's log-probability is its
    /// logit less this. `-inf` for a row in which every logit is NaN or `-inf`.
    pub fn log_sum_exp(logits: &[f32]) -> f64 {
        let max = math::max(logits);
        if max == f32::NEG_INFINITY {
            return f64::NEG_INFINITY;
        }
        f64::from(max) + libm::log(math::weight_sum(logits, |&x| x, max))
    }

    /// The log-probability of a token; `-inf` for one that cannot be, NaN included.
    pub fn of(&self, logits: &[f32], token: u32) -> f64 {
        let logit = logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
        log_prob(logit, LogProbs::log_sum_exp(logits))
    }

    /// The `n` most likely tokens with their log-probabilities, best first, equals by id. Fewer
    /// when fewer can be.
    pub fn top(&mut self, logits: &[f32], n: usize) -> &[(u32, f64)] {
        let lse = LogProbs::log_sum_exp(logits);
        let mut row = Row::new(logits, &mut self.buffers);
        row.keep_best(n);
        self.top.clear();
        self.top.extend(row.list().iter().map(|c| (c.id, log_prob(c.logit, lse))));
        &self.top
    }
}

fn log_prob(logit: f32, log_sum_exp: f64) -> f64 {
    if logit.is_nan() || logit == f32::NEG_INFINITY {
        f64::NEG_INFINITY
    } else if logit == f32::INFINITY {
        // Certain, up to others that are: the difference of infinities says nothing.
        0.0
    } else {
        f64::from(logit) - log_sum_exp
    }
}
