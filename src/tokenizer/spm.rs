//! SentencePiece's byte-pair model: neighbours that make a token are joined, the highest score
//! first; what is no token falls back to bytes.

use super::boundary::Boundary;
use super::cache::WordCache;
use super::merge::{Joined, Merger, NO_TOKEN, Symbol};
use super::pretok::char_at;
use super::vocab::Vocab;

/// What merging needs beside the vocabulary.
pub(crate) struct Spm {
    /// The rank of each token: the higher its score, the lower.
    ranks: Vec<u32>,
    /// The token of each byte that stands alone.
    bytes: [Option<u32>; 256],
    boundary: Boundary,
}

impl Spm {
    /// `scores` has an entry for each token, none of them NaN.
    pub(crate) fn new(vocab: &Vocab, scores: &[f32], unknown: Option<u32>) -> Spm {
        let by_text = vocab.byte_tokens();
        let bytes = std::array::from_fn(|byte| {
            by_text[byte].or_else(|| vocab.find(&[byte as u8])).or(unknown)
        });
        Spm {
            ranks: scores.iter().map(|&score| rank(score)).collect(),
            bytes,
            boundary: Boundary::new(&[vocab]),
        }
    }

    /// Appends the tokens of `text`, with U+2581 for its spaces, to `out`.
    pub(crate) fn encode(
        &self,
        vocab: &Vocab,
        text: &[u8],
        merger: &mut Merger,
        cache: &mut WordCache,
        out: &mut Vec<u32>,
    ) {
        self.boundary.split(text, |part| {
            cache.get_or_encode(part, out, |out| self.encode_part(vocab, part, merger, out));
        });
    }

    fn encode_part(&self, vocab: &Vocab, text: &[u8], merger: &mut Merger, out: &mut Vec<u32>) {
        merger.symbols.clear();
        let mut at = 0;
        while at < text.len() {
            let (_, len) = char_at(text, at);
            let id = vocab.find(&text[at..at + len]).unwrap_or(NO_TOKEN);
            merger.symbols.push(Symbol::new(id, at));
            at += len;
        }
        merger.run(text.len(), |pair| {
            let id = vocab.find(&text[pair.start..pair.end])?;
            let rank = self.ranks.get(id as usize).copied()?;
            Some(Joined { rank, id })
        });
        for (i, symbol) in merger.symbols.iter().enumerate() {
            if symbol.id != NO_TOKEN {
                out.push(symbol.id);
                continue;
            }
            let end = merger.symbols.get(i + 1).map_or(text.len(), |next| next.start as usize);
            let bytes = &text[symbol.start as usize..end];
            out.extend(bytes.iter().filter_map(|&byte| self.bytes[byte as usize]));
        }
    }
}

/// A number that is lower the higher the score; equal scores give equal ranks.
fn rank(score: f32) -> u32 {
    // Adding zero makes one zero of the two.
    let bits = (score + 0.0).to_bits();
    let ordered = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    !ordered
}

#[cfg(test)]
mod tests {
    use super::rank;

    #[test]
    fn ranks_order_scores_from_high_to_low() {
        let scores = [f32::INFINITY, 1e30, 1.0, 1e-40, 0.0, -1e-40, -1.0, -3e38, f32::NEG_INFINITY];
        for pair in scores.windows(2) {
            assert!(rank(pair[0]) < rank(pair[1]), "{pair:?}");
        }
        assert_eq!(rank(0.0), rank(-0.0));
        assert!(rank(f32::NEG_INFINITY) < u32::MAX);
    }
}
