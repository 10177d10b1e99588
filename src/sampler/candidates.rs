//! The tokens that can still be drawn, on their way through the chain.

use std::cmp::Ordering;

use super::math::{self, Mass};
use crate::{Result, memory};

/// A token and its logit, which is neither NaN nor `-inf`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    pub id: u32,
    pub logit: f32,
}

/// Best first; equal logits by token id.
pub(super) fn best_first(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.partial_cmp(&a.logit).unwrap_or(Ordering::Equal).then(a.id.cmp(&b.id))
}

/// What the chain keeps from token to token, so that it allocates once.
pub(super) struct Buffers {
    /// Logits that a stage changed while they were still one for each token.
    dense: Vec<f32>,
    list: Vec<Candidate>,
}

impl Buffers {
    pub fn new(n_vocab: usize) -> Result<Buffers> {
        // Pages that no stage touches stay unmapped: the default chain uses a few KiB of these.
        Ok(Buffers { dense: memory::reserved(n_vocab)?, list: memory::reserved(n_vocab)? })
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// One logit for each token of the vocabulary, as the model gave them.
    Given,
    /// The same in `Buffers::dense`, changed.
    Edited,
    /// `Buffers::list`, in an order that depends on nothing but the input.
    List {
        /// Best first.
        sorted: bool,
    },
}

/// The candidates of one draw. A vocabulary stays an array of logits until a stage narrows it.
pub(super) struct Row<'a> {
    given: &'a [f32],
    buf: &'a mut Buffers,
    form: Form,
}

impl<'a> Row<'a> {
    pub fn new(logits: &'a [f32], buf: &'a mut Buffers) -> Row<'a> {
        Row { given: logits, buf, form: Form::Given }
    }

    /// The logits of all tokens, while no stage has narrowed them.
    pub fn dense(&self) -> Option<&[f32]> {
        match self.form {
            Form::Given => Some(self.given),
            Form::Edited => Some(&self.buf.dense),
            Form::List { .. } => None,
        }
    }

    /// The same to change.
    pub fn dense_mut(&mut self) -> Option<&mut [f32]> {
        if self.form == Form::Given {
            self.buf.dense.clear();
            self.buf.dense.extend_from_slice(self.given);
            self.form = Form::Edited;
        }
        match self.form {
            Form::Edited => Some(&mut self.buf.dense),
            _ => None,
        }
    }

    /// The candidates one by one, for a stage that looks at each.
    pub fn list(&mut self) -> &mut Vec<Candidate> {
        if self.dense().is_some() {
            self.keep_from(f32::NEG_INFINITY);
        }
        &mut self.buf.list
    }

    /// Says that the list's logits have been changed: it may be in any order now, and hold
    /// what can no longer be drawn.
    pub fn list_changed(&mut self) {
        self.buf.list.retain(|c| c.logit > f32::NEG_INFINITY);
        self.form = Form::List { sorted: false };
    }

    /// How many can still be drawn; for a vocabulary that is not narrowed, how many tokens.
    pub fn len(&self) -> usize {
        self.dense().map_or(self.buf.list.len(), <[f32]>::len)
    }

    /// The largest logit; `-inf` when there are none.
    pub fn max(&self) -> f32 {
        match (self.dense(), self.form) {
            (Some(logits), _) => math::max(logits),
            (None, Form::List { sorted: true }) => {
                self.buf.list.first().map_or(f32::NEG_INFINITY, |c| c.logit)
            }
            _ => self.buf.list.iter().fold(f32::NEG_INFINITY, |m, c| c.logit.max(m)),
        }
    }

    /// The sum of `exp(logit - max)`.
    pub fn weight_sum(&self, max: f32) -> f64 {
        match self.dense() {
            Some(logits) => math::weight_sum(logits, |&x| x, max),
            None => math::weight_sum(&self.buf.list, |c| c.logit, max),
        }
    }

    /// The same with what the entropy takes.
    pub fn mass(&self, max: f32) -> Mass {
        match self.dense() {
            Some(logits) => math::mass(logits, |&x| x, max),
            None => math::mass(&self.buf.list, |c| c.logit, max),
        }
    }

    /// Keeps the candidates whose logit is at least `floor`, in their order.
    pub fn keep_from(&mut self, floor: f32) {
        let list = &mut self.buf.list;
        let dense = match self.form {
            Form::Given => self.given,
            Form::Edited => &self.buf.dense,
            Form::List { .. } => return list.retain(|c| c.logit >= floor),
        };
        list.clear();
        list.extend(
            dense
                .iter()
                .zip(0..)
                .filter(|&(&x, _)| x >= floor && x > f32::NEG_INFINITY)
                .map(|(&logit, id)| Candidate { id, logit }),
        );
        self.form = Form::List { sorted: false };
    }

    /// Keeps the `k` best, best first.
    pub fn keep_best(&mut self, k: usize) {
        let list = &mut self.buf.list;
        match self.form {
            Form::Given => select_best(self.given, k, list),
            Form::Edited => select_best(&self.buf.dense, k, list),
            Form::List { sorted: true } => list.truncate(k),
            Form::List { sorted: false } => {
                if k < list.len() {
                    list.select_nth_unstable_by(k, best_first);
                    list.truncate(k);
                }
                list.sort_unstable_by(best_first);
            }
        }
        self.form = Form::List { sorted: true };
    }

    /// Keeps the candidates, best first, up to and with the first for which `last` is true. Sorts
    /// no more than that takes.
    pub fn keep_best_until(&mut self, mut last: impl FnMut(&Candidate) -> bool) {
        const FIRST: usize = 256;
        const GROWTH: usize = 8;

        let mut seen = 0;
        let mut k = FIRST;
        while self.dense().is_some_and(|d| k < d.len() / GROWTH) {
            // A longer prefix is selected from the logits again: what is dropped is gone.
            let (given, list) = (self.given, &mut self.buf.list);
            let dense = if self.form == Form::Given { given } else { &self.buf.dense };
            select_best(dense, k, list);
            let found = list[seen..].iter().position(&mut last);
            if let Some(i) = found {
                list.truncate(seen + i + 1);
            }
            if found.is_some() || list.len() < k {
                self.form = Form::List { sorted: true };
                return;
            }
            seen = k;
            k *= GROWTH;
        }

        let sorted = self.form == Form::List { sorted: true };
        let list = self.list();
        // How many at the front stand in their final order; `last` has been asked about `seen`.
        let mut ordered = if sorted { list.len() } else { 0 };
        while seen < list.len() {
            let end = k.min(list.len());
            if ordered < end {
                if end < list.len() {
                    list[ordered..].select_nth_unstable_by(end - ordered, best_first);
                }
                list[ordered..end].sort_unstable_by(best_first);
                ordered = end;
            }
            if let Some(i) = list[seen..end].iter().position(&mut last) {
                list.truncate(seen + i + 1);
                break;
            }
            seen = end;
            k = k.saturating_mul(GROWTH);
        }
        self.form = Form::List { sorted: true };
    }
}

/// Writes the `k` best of `logits` to `list`, best first, in one pass over them.
fn select_best(logits: &[f32], k: usize, list: &mut Vec<Candidate>) {
    const BLOCK: usize = 64;

    list.clear();
    if k == 0 {
        return;
    }
    // Candidates are gathered until there are several times too many and then cut to the best k,
    // whose worst is the bar for all that follow: few blocks hold anything above it.
    let full = k.saturating_mul(4).max(1024);
    let mut floor = f32::NEG_INFINITY;
    for (block, first) in logits.chunks(BLOCK).zip((0u32..).step_by(BLOCK)) {
        // NaN is above nothing; an equal logit of a higher id is not better.
        let above = block.iter().fold(0u32, |n, &x| n + u32::from(x > floor));
        if above == 0 {
            continue;
        }
        for (&logit, id) in block.iter().zip(first..) {
            if logit > floor {
                list.push(Candidate { id, logit });
            }
        }
        if list.len() >= full {
            list.select_nth_unstable_by(k - 1, best_first);
            list.truncate(k);
            floor = list[k - 1].logit;
        }
    }
    if k < list.len() {
        list.select_nth_unstable_by(k - 1, best_first);
        list.truncate(k);
    }
    list.sort_unstable_by(best_first);
}
