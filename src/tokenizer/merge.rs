//! Joining neighbours, best pair first: what byte-pair encoding and SentencePiece have in common.
//!
//! Both take the adjacent pair of the lowest rank, the leftmost among equals, until no pair can
//! be joined. Short pieces are searched linearly in a small array, which beats any queue; long
//! ones go through a heap, so that a million characters without a space take n log n.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A symbol that is no token and can be joined with nothing.
pub(crate) const NO_TOKEN: u32 = u32::MAX;
const NO_RANK: u32 = u32::MAX;
const NONE: u32 = u32::MAX;

/// Pieces up to this many symbols are searched linearly.
const SHORT: usize = 40;

/// One part of a piece.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Symbol {
    /// The token, or a symbol that is none.
    pub(crate) id: u32,
    /// Where it begins in the piece.
    pub(crate) start: u32,
    /// The rank of this symbol joined with the next, and what they make.
    rank: u32,
    joined: u32,
    prev: u32,
    next: u32,
}

impl Symbol {
    pub(crate) fn new(id: u32, start: usize) -> Symbol {
        Symbol { id, start: start as u32, rank: NO_RANK, joined: NO_TOKEN, prev: NONE, next: NONE }
    }
}

/// Two neighbours: the bytes of the piece from `start` to `middle` and from there to `end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) start: usize,
    pub(crate) middle: usize,
    pub(crate) end: usize,
}

/// What two neighbours make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Joined {
    /// Lower is joined first. Never `u32::MAX`.
    pub(crate) rank: u32,
    /// The symbol that they make.
    pub(crate) id: u32,
}

/// The memory that merging needs, kept from piece to piece.
#[derive(Default)]
pub(crate) struct Merger {
    /// The symbols of the piece, in order; what is left when all is joined.
    pub(crate) symbols: Vec<Symbol>,
    heap: BinaryHeap<Reverse<u64>>,
}

impl Merger {
    /// Joins [`Merger::symbols`], the parts of a piece of `len` bytes, until nothing can be.
    ///
    /// `join` says what two neighbours make.
    pub(crate) fn run(&mut self, len: usize, join: impl Fn(Pair) -> Option<Joined>) {
        if self.symbols.len() <= SHORT {
            self.run_short(len, join);
        } else {
            self.run_long(len, join);
        }
    }

    fn run_short(&mut self, len: usize, join: impl Fn(Pair) -> Option<Joined>) {
        let symbols = &mut self.symbols;
        let rate = |symbols: &mut [Symbol], i: usize| {
            let end = symbols.get(i + 2).map_or(len, |s| s.start as usize);
            let joined = symbols.get(i + 1).and_then(|right| {
                let (start, middle) = (symbols[i].start as usize, right.start as usize);
                join(Pair { start, middle, end })
            });
            let Joined { rank, id } = joined.unwrap_or(Joined { rank: NO_RANK, id: NO_TOKEN });
            symbols[i].rank = rank;
            symbols[i].joined = id;
        };
        for i in 0..symbols.len() {
            rate(symbols, i);
        }
        loop {
            let (mut best, mut rank) = (0, NO_RANK);
            for (i, symbol) in symbols.iter().enumerate() {
                if symbol.rank < rank {
                    (best, rank) = (i, symbol.rank);
                }
            }
            if rank == NO_RANK {
                return;
            }
            symbols[best].id = symbols[best].joined;
            symbols.remove(best + 1);
            rate(symbols, best);
            if best > 0 {
                rate(symbols, best - 1);
            }
        }
    }

    fn run_long(&mut self, len: usize, join: impl Fn(Pair) -> Option<Joined>) {
        let symbols = &mut self.symbols;
        let n = symbols.len();
        for (i, symbol) in symbols.iter_mut().enumerate() {
            symbol.prev = if i == 0 { NONE } else { i as u32 - 1 };
            symbol.next = if i + 1 == n { NONE } else { i as u32 + 1 };
        }
        // Sets the rank of the pair that begins at `i`; the entry for the heap, if it has one.
        let rate = |symbols: &mut [Symbol], i: u32| {
            let left = symbols[i as usize];
            let joined = symbols.get(left.next as usize).and_then(|right| {
                let end = symbols.get(right.next as usize).map_or(len, |s| s.start as usize);
                join(Pair { start: left.start as usize, middle: right.start as usize, end })
            });
            let left = &mut symbols[i as usize];
            let Joined { rank, id } = joined.unwrap_or(Joined { rank: NO_RANK, id: NO_TOKEN });
            left.rank = rank;
            left.joined = id;
            (rank != NO_RANK).then_some(Reverse(u64::from(rank) << 32 | u64::from(i)))
        };
        let mut entries = std::mem::take(&mut self.heap).into_vec();
        entries.clear();
        entries.extend((0..n as u32).filter_map(|i| rate(symbols, i)));
        let mut heap = BinaryHeap::from(entries);
        while let Some(Reverse(entry)) = heap.pop() {
            let (rank, i) = ((entry >> 32) as u32, entry as u32);
            // A pair whose rank has changed, or whose left half is gone, is out of date. One
            // that came back to the same rank is as good as new.
            let left = symbols[i as usize];
            if left.rank != rank {
                continue;
            }
            let gone = left.next;
            let next = symbols[gone as usize].next;
            symbols[gone as usize].rank = NO_RANK;
            let left_now = &mut symbols[i as usize];
            left_now.id = left.joined;
            left_now.next = next;
            if next != NONE {
                symbols[next as usize].prev = i;
            }
            heap.extend(rate(symbols, i));
            if left.prev != NONE {
                heap.extend(rate(symbols, left.prev));
            }
        }
        self.heap = heap;
        // Keep only the symbols that are still in the chain.
        let (mut at, mut kept) = (0, 0);
        while at != NONE {
            let symbol = symbols[at as usize];
            symbols[kept] = symbol;
            kept += 1;
            at = symbol.next;
        }
        symbols.truncate(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    /// The definition: search all pairs, join the best, begin again.
    fn naive(text: &str, merges: &HashMap<(&str, &str), u32>) -> Vec<String> {
        let mut parts: Vec<String> = text.chars().map(String::from).collect();
        loop {
            let pairs = parts.windows(2).enumerate();
            let known = pairs.filter_map(|(i, p)| Some((merges.get(&(&p[0], &p[1]))?, i)));
            let Some((_, i)) = known.min() else { return parts };
            let joined = parts[i].clone() + &parts[i + 1];
            parts.splice(i..i + 2, [joined]);
        }
    }

    proptest! {
        #[test]
        fn both_ways_join_as_the_definition_does(
            text in "[ab]{0,100}",
            merges in prop::collection::hash_map(("[ab]{1,4}", "[ab]{1,4}"), 0u32..20, 0..30),
        ) {
            let merges: HashMap<(&str, &str), u32> =
                merges.iter().map(|((l, r), &rank)| ((l.as_str(), r.as_str()), rank)).collect();
            let expected = naive(&text, &merges);
            let join = |pair: Pair| {
                let parts = (&text[pair.start..pair.middle], &text[pair.middle..pair.end]);
                merges.get(&parts).map(|&rank| Joined { rank, id: (pair.end - pair.start) as u32 })
            };
            let symbols: Vec<_> = (0..text.len()).map(|i| Symbol::new(1, i)).collect();
            let joined = |merger: &Merger| {
                let symbols = merger.symbols.iter().map(|s| (s.start as usize, s.id as usize));
                symbols.map(|(start, len)| text[start..start + len].to_string()).collect::<Vec<_>>()
            };
            let mut merger = Merger { symbols: symbols.clone(), ..Default::default() };
            merger.run_short(text.len(), join);
            prop_assert_eq!(joined(&merger), expected.clone());
            if !text.is_empty() {
                merger.symbols = symbols;
                merger.run_long(text.len(), join);
                prop_assert_eq!(joined(&merger), expected);
            }
        }
    }
}
