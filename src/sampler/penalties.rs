//! Repetition, frequency and presence penalties.

use super::candidates::Row;
use super::chain::Apply;
use super::marks::Marks;
use super::params::SamplerParams;
use crate::Result;

/// Makes each token of the last `last_n` less likely: its logit is divided by `repeat` (multiplied
/// when negative), then lowered by `freq` for each occurrence and by `present` once.
pub(super) struct Penalties {
    last_n: usize,
    repeat: f32,
    freq: f32,
    present: f32,
    counts: Marks,
}

impl Penalties {
    /// The stage, unless the parameters leave it nothing to do.
    pub fn new(params: &SamplerParams, n_vocab: usize) -> Result<Option<Penalties>> {
        let SamplerParams { penalty_last_n, penalty_repeat, penalty_freq, penalty_present, .. } =
            *params;
        let off = penalty_repeat == 1.0 && penalty_freq == 0.0 && penalty_present == 0.0;
        if penalty_last_n == 0 || off {
            return Ok(None);
        }
        Ok(Some(Penalties {
            last_n: penalty_last_n,
            repeat: penalty_repeat,
            freq: penalty_freq,
            present: penalty_present,
            counts: Marks::new(n_vocab)?,
        }))
    }
}

impl Apply for Penalties {
    fn apply(&mut self, row: &mut Row, history: &[u32]) {
        for &token in &history[history.len().saturating_sub(self.last_n)..] {
            self.counts.update(token, |n| n.saturating_add(1));
        }
        let (repeat, freq, present) = (self.repeat, self.freq, self.present);
        self.counts.apply(row, |_, count, logit| {
            // Dividing a negative logit would make the token more likely.
            let logit = if logit <= 0.0 { logit * repeat } else { logit / repeat };
            logit - (count as f32 * freq + present)
        });
    }
}
