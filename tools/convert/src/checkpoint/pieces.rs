//! A tensor of the GGUF file as pieces of the checkpoint's tensors.

use std::ops::Range;

/// Rows of a tensor of the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// The tensor's number in the checkpoint.
    pub(super) tensor: usize,
    /// Which of its rows, in their order there.
    pub(super) rows: Range<u64>,
}

impl Piece {
    fn len(&self) -> u64 {
        self.rows.end.saturating_sub(self.rows.start)
    }
}

/// The order of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Order {
    /// As they are.
    #[default]
    Same,
    /// From a head's two halves apart, as Hugging Face rotates them, to pairs side by side, as
    /// ggml's NORM style does.
    Interleave {
        /// Rows of a head.
        head: u64,
    },
}

impl Order {
    /// The row of the checkpoint that becomes row `row`.
    pub(super) fn source(self, row: u64) -> u64 {
        match self {
            Order::Same => row,
            Order::Interleave { head } => {
                let (first, at) = (row - row % head, row % head);
                first + at % 2 * (head / 2) + at / 2
            }
        }
    }

    /// Rows that stay together: what becomes of a block of these comes from the same block.
    pub(super) fn block(self) -> u64 {
        match self {
            Order::Same => 1,
            Order::Interleave { head } => head,
        }
    }
}

/// What is done to each value.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Op {
    /// Nothing.
    #[default]
    None,
    /// A number is added, in f32.
    Add(f32),
}

/// What a tensor is made from.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Origin {
    /// Rows of the checkpoint, one piece after the other.
    Pieces {
        /// At least one.
        pieces: Vec<Piece>,
        order: Order,
        op: Op,
    },
    /// Values that are computed when the checkpoint is opened.
    Computed(Vec<f32>),
}

/// Calls `f` with each run of consecutive rows of one piece that make up `rows`: the piece's
/// number, the range within the piece, and how many rows of the result come before.
pub(super) fn for_each_run<E>(
    pieces: &[Piece],
    rows: Range<u64>,
    mut f: impl FnMut(usize, Range<u64>, u64) -> Result<(), E>,
) -> Result<(), E> {
    let mut first = 0;
    for (i, piece) in pieces.iter().enumerate() {
        let (from, to) = (rows.start.max(first), rows.end.min(first + piece.len()));
        if from < to {
            f(i, from - first..to - first, from - rows.start)?;
        }
        first += piece.len();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_a_head_become_pairs() {
        let order = Order::Interleave { head: 6 };
        let rows: Vec<u64> = (0..12).map(|row| order.source(row)).collect();
        assert_eq!(rows, [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
    }

    #[test]
    fn rows_are_found_over_pieces() {
        let piece = |tensor, rows| Piece { tensor, rows };
        let pieces = [piece(7, 2..5), piece(1, 0..0), piece(3, 0..4), piece(2, 9..10)];
        let mut runs = Vec::new();
        let keep = |i, rows, at| {
            runs.push((i, rows, at));
            Ok::<_, ()>(())
        };
        for_each_run(&pieces, 1..8, keep).unwrap();
        assert_eq!(runs, [(0, 1..3, 0), (2, 0..4, 2), (3, 0..1, 6)]);
        runs.clear();
        let keep = |i, rows, at| {
            runs.push((i, rows, at));
            Ok::<_, ()>(())
        };
        for_each_run(&pieces, 4..5, keep).unwrap();
        assert_eq!(runs, [(2, 1..2, 0)]);
    }
}
