//! A number for each of the few tokens that the history concerns.

use super::candidates::Row;
use crate::{Result, memory};

/// A map from token to a positive number, as an array over the vocabulary: looked up in one step,
/// cleared in as many steps as it has entries, and never allocated again.
#[derive(Default)]
pub(super) struct Marks {
    of: Vec<u32>,
    touched: Vec<u32>,
}

impl Marks {
    /// Room for `n_vocab` tokens.
    pub fn new(n_vocab: usize) -> Result<Marks> {
        Ok(Marks { of: memory::zeros(n_vocab)?, touched: memory::reserved(n_vocab)? })
    }

    /// Changes a token's number, which is 0 at first, to a positive one. A token that the
    /// vocabulary does not have is left out.
    pub fn update(&mut self, token: u32, f: impl Fn(u32) -> u32) {
        if let Some(mark) = self.of.get_mut(token as usize) {
            if *mark == 0 {
                self.touched.push(token);
            }
            *mark = f(*mark);
        }
    }

    /// Changes the logits of the marked tokens, then forgets the marks.
    pub fn apply(&mut self, row: &mut Row, mut f: impl FnMut(u32, u32, f32) -> f32) {
        if self.touched.is_empty() {
            return;
        }
        if let Some(logits) = row.dense_mut() {
            for &id in &self.touched {
                let logit = &mut logits[id as usize];
                *logit = f(id, self.of[id as usize], *logit);
            }
        } else {
            for c in row.list() {
                let mark = self.of[c.id as usize];
                if mark > 0 {
                    c.logit = f(c.id, mark, c.logit);
                }
            }
            row.list_changed();
        }
        for id in self.touched.drain(..) {
            self.of[id as usize] = 0;
        }
    }
}
