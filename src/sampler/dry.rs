//! DRY: don't repeat yourself (p-e-w, 2024).

use super::candidates::Row;
use super::chain::Apply;
use super::marks::Marks;
use super::params::SamplerParams;
use crate::{Result, memory};

/// The sequence breakers that llama.cpp uses unless told otherwise.
pub const DRY_DEFAULT_BREAKERS: [&str; 4] = ["\n", ":", "\"", "*"];

/// Bytes of a breaker that are looked at.
const MAX_BREAKER: usize = 40;
/// Tokens of history for which there is room without asking.
const AT_ONCE: usize = 4096;
/// Tokens after a breaker's first that are compared.
const MAX_TAIL: usize = 20;

/// The token sequences across which [DRY](SamplerParams::dry_multiplier) sees no repetition.
///
/// A breaker is text, and text can begin inside a token and end in another: so each is a first
/// token and the tokens that must follow it, mostly none.
#[derive(Clone, Debug, Default)]
pub struct DryBreakers {
    /// Sorted by the first token.
    sequences: Vec<(u32, Vec<u32>)>,
}

impl DryBreakers {
    /// No breakers: repetition is seen across everything.
    pub fn none() -> DryBreakers {
        DryBreakers::default()
    }

    /// Finds the tokens in which one of `breakers` stands or begins.
    ///
    /// `text_of` appends a token's bytes to a buffer (those of special tokens too), `tokenize`
    /// gives the tokens of the rest of a breaker that begins at the end of a token, without
    /// special tokens. An empty breaker is ignored; of a long one the first 40 bytes count.
    ///
    /// ```
    /// use siskin::sampler::{DRY_DEFAULT_BREAKERS, DryBreakers};
    ///
    /// let vocab = ["a", ":", "a\n", "b"];
    /// let text_of = |token: u32, out: &mut Vec<u8>| {
    ///     out.extend_from_slice(vocab[token as usize].as_bytes());
    /// };
    /// let breakers = DryBreakers::new(4, &DRY_DEFAULT_BREAKERS, text_of, |_| Vec::new());
    /// ```
    pub fn new(
        n_vocab: usize,
        breakers: &[impl AsRef<str>],
        mut text_of: impl FnMut(u32, &mut Vec<u8>),
        mut tokenize: impl FnMut(&[u8]) -> Vec<u32>,
    ) -> DryBreakers {
        let mut sequences = Vec::new();
        let mut text = Vec::new();
        for token in 0..u32::try_from(n_vocab).unwrap_or(u32::MAX) {
            text.clear();
            text_of(token, &mut text);
            for breaker in breakers {
                let breaker = breaker.as_ref().as_bytes();
                let breaker = &breaker[..breaker.len().min(MAX_BREAKER)];
                if breaker.is_empty() {
                    continue;
                }
                if text.windows(breaker.len()).any(|w| w == breaker) {
                    sequences.push((token, Vec::new()));
                    continue;
                }
                // The token's end may be the breaker's beginning.
                for head in 1..breaker.len().min(text.len() + 1) {
                    if text.ends_with(&breaker[..head]) {
                        let mut tail = tokenize(&breaker[head..]);
                        tail.truncate(MAX_TAIL);
                        sequences.push((token, tail));
                    }
                }
            }
        }
        DryBreakers::from_sequences(sequences)
    }

    /// Breakers that are already tokens: each a first token and those that must follow it.
    pub fn from_sequences(sequences: impl IntoIterator<Item = (u32, Vec<u32>)>) -> DryBreakers {
        let mut sequences: Vec<_> = sequences.into_iter().collect();
        sequences.sort();
        sequences.dedup();
        DryBreakers { sequences }
    }

    fn beginning_with(&self, token: u32) -> &[(u32, Vec<u32>)] {
        let start = self.sequences.partition_point(|s| s.0 < token);
        let len = self.sequences[start..].partition_point(|s| s.0 == token);
        &self.sequences[start..start + len]
    }

    /// How many of the last tokens come after the last breaker in `recent`, which is the history
    /// backwards.
    fn since_last(&self, recent: &[u32]) -> usize {
        for (i, &token) in recent.iter().enumerate() {
            let longest = self
                .beginning_with(token)
                .iter()
                .map(|(_, tail)| tail)
                // The tokens after the first stand before it here, the nearest last.
                .filter(|tail| {
                    tail.len() <= i && tail.iter().eq(recent[..i].iter().rev().take(tail.len()))
                })
                .map(Vec::len)
                .max();
            if let Some(longest) = longest {
                return i - longest;
            }
        }
        recent.len()
    }
}

/// Makes a token that would continue a repetition of the last tokens less likely, the longer the
/// repetition the more: `multiplier * base ^ (length - allowed)` is taken from its logit.
pub(super) struct Dry {
    multiplier: f32,
    base: f32,
    allowed: usize,
    last_n: usize,
    /// The largest exponent for which the power is finite.
    max_exponent: usize,
    breakers: DryBreakers,
    recent: Vec<u32>,
    /// For each position of `recent`: how many tokens from there on equal those from 0 on.
    repeats: Vec<usize>,
    /// For each token: 1 + the longest repetition that it would continue.
    continued: Marks,
}

impl Dry {
    /// The stage, unless the parameters leave it nothing to do.
    pub fn new(
        params: &SamplerParams,
        n_vocab: usize,
        breakers: DryBreakers,
    ) -> Result<Option<Dry>> {
        /// ln of the largest float.
        const LN_MAX: f32 = 88.722_84;

        if !params.uses_dry() {
            return Ok(None);
        }
        let SamplerParams { dry_multiplier, dry_base, dry_allowed_length, .. } = *params;
        let last_n = params.dry_penalty_last_n;
        let max_exponent = if dry_base > 1.000_001 {
            (LN_MAX / libm::logf(dry_base)) as usize
        } else {
            usize::MAX
        };
        Ok(Some(Dry {
            multiplier: dry_multiplier,
            base: dry_base,
            allowed: dry_allowed_length,
            last_n,
            max_exponent,
            breakers,
            recent: memory::reserved(last_n.min(AT_ONCE))?,
            repeats: memory::reserved(last_n.min(AT_ONCE))?,
            continued: Marks::new(n_vocab)?,
        }))
    }

    /// Fills `repeats` with the Z-function of `recent`, cut off at `limit`. Linear: the text is
    /// compared only beyond the furthest match so far.
    fn find_repeats(&mut self, limit: usize) {
        let s = &self.recent;
        let z = &mut self.repeats;
        z.clear();
        z.resize(s.len(), 0);
        // The match that reaches furthest: `s[start..end]` equals `s[..end - start]`.
        let (mut start, mut end) = (0usize, 0usize);
        for k in 1..s.len() {
            let known = end.saturating_sub(k);
            // Inside that match the beginning has been compared with itself already; its count
            // is a final one if it ends before the match does or was cut off.
            if known > 0 && z[k - start] < known {
                z[k] = z[k - start];
                continue;
            }
            let mut n = known;
            while k + n < s.len() && s[n] == s[k + n] {
                n += 1;
            }
            z[k] = n.min(limit);
            if n > 0 {
                (start, end) = (k, k + n);
            }
        }
    }

    fn penalty(&self, length: usize) -> f32 {
        let exponent = (length - self.allowed).min(self.max_exponent);
        self.multiplier * libm::powf(self.base, exponent as f32)
    }
}

impl Apply for Dry {
    fn apply(&mut self, row: &mut Row, history: &[u32]) {
        let n = history.len().min(self.last_n);
        if n <= self.allowed {
            return;
        }
        self.recent.clear();
        self.recent.extend(history.iter().rev().take(n));
        let limit = self.breakers.since_last(&self.recent);
        if limit < self.allowed {
            return;
        }
        self.find_repeats(limit);
        for (k, &length) in self.repeats.iter().enumerate().skip(1) {
            if length >= self.allowed {
                // What followed the earlier occurrence would continue the repetition.
                let mark = u32::try_from(length).map_or(u32::MAX, |n| n.saturating_add(1));
                self.continued.update(self.recent[k - 1], |m| m.max(mark));
            }
        }
        let mut continued = std::mem::take(&mut self.continued);
        continued.apply(row, |token, mark, logit| {
            let breaks = self.breakers.beginning_with(token).iter().any(|(_, t)| t.is_empty());
            if breaks { logit } else { logit - self.penalty(mark as usize - 1) }
        });
        self.continued = continued;
    }

    fn reserve(&mut self, n_history: usize) -> Result<()> {
        let n = n_history.min(self.last_n);
        memory::reserve(&mut self.recent, n)?;
        memory::reserve(&mut self.repeats, n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repeats(recent: &[u32], limit: usize) -> Vec<usize> {
        let params = SamplerParams { dry_multiplier: 1.0, ..Default::default() };
        let mut dry = Dry::new(&params, 0, DryBreakers::none()).unwrap().expect("enabled");
        dry.recent = recent.to_vec();
        dry.find_repeats(limit);
        dry.repeats
    }

    #[test]
    fn repeats_are_those_of_comparing_every_position() {
        let mut x = 1u32;
        for len in 0..40 {
            for letters in 1..4 {
                let s: Vec<u32> = (0..len)
                    .map(|_| {
                        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        (x >> 24) % letters
                    })
                    .collect();
                for limit in [0, 1, 3, len] {
                    let naive: Vec<usize> = (0..len)
                        .map(|k| s[k..].iter().zip(&s).take_while(|(a, b)| a == b).count())
                        .map(|n| n.min(limit))
                        .collect();
                    let fast = repeats(&s, limit);
                    assert_eq!(fast.get(1..), naive.get(1..), "{s:?} limit {limit}");
                }
            }
        }
    }

    #[test]
    fn a_breaker_may_begin_in_one_token_and_end_in_others() {
        let vocab = ["a<", "|e", "nd|>", "x<|end|>y", "b"];
        let text_of = |t: u32, out: &mut Vec<u8>| {
            out.extend_from_slice(vocab[t as usize].as_bytes());
        };
        let breakers = DryBreakers::new(5, &["<|end|>", ""], text_of, |rest| match rest {
            b"|end|>" => vec![1, 2],
            _ => Vec::new(),
        });
        assert_eq!(breakers.sequences, [(0, vec![1, 2]), (3, vec![])]);
        // Backwards: b b (end of breaker: 2 1 0) b
        assert_eq!(breakers.since_last(&[4, 4, 2, 1, 0, 4]), 2);
        assert_eq!(breakers.since_last(&[4, 3, 4]), 1);
        assert_eq!(breakers.since_last(&[2, 4, 1, 0]), 4);
    }
}
