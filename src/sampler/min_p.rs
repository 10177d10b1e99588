//! Min-p.

use super::candidates::Row;
use super::chain::Apply;

/// Keeps the tokens that are at least `p` times as likely as the most likely one.
pub(super) struct MinP {
    ln_p: f32,
    min_keep: usize,
}

impl MinP {
    pub fn new(p: f32, min_keep: usize) -> MinP {
        MinP { ln_p: libm::logf(p), min_keep }
    }
}

impl Apply for MinP {
    fn apply(&mut self, row: &mut Row, _history: &[u32]) {
        let max = row.max();
        // With p above 1 not even the maximum would stay.
        let floor = (max + self.ln_p).min(max);
        if self.min_keep <= 1 {
            row.keep_from(floor);
            return;
        }
        let above = match row.dense() {
            Some(logits) => logits.iter().filter(|&&x| x >= floor).count(),
            None => row.list().iter().filter(|c| c.logit >= floor).count(),
        };
        if above >= self.min_keep {
            row.keep_from(floor);
        } else {
            row.keep_best(self.min_keep);
        }
    }
}
