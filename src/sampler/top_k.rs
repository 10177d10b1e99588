//! Top-k.

use super::candidates::Row;
use super::chain::Apply;

/// Keeps the `k` most likely tokens.
pub(super) struct TopK {
    pub k: usize,
}

impl Apply for TopK {
    fn apply(&mut self, row: &mut Row, _history: &[u32]) {
        row.keep_best(self.k);
    }
}
