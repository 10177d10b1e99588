//! Byte-pair encoding: merges by rank inside each word.
//!
//! A merge joins two texts to a third, which nearly always is a token. So merges are kept with
//! the token that they make, as the place where they cut it: two neighbours can be joined if
//! their text together is a token that has a merge with its cut between them. Reading the merges
//! then costs no look-up at all where tokens are listed in the order of their merges, as they are
//! in most vocabularies, and a quarter of the memory of a table of pairs.
//!
//! In GPT-2's form the smallest parts are bytes; in the raw form (Gemma 4) they are characters,
//! and what is no token falls back to `<0x0A>` bytes.

use super::alphabet;
use super::boundary::Boundary;
use super::cache::WordCache;
use super::merge::{Joined, Merger, NO_TOKEN, Pair, Symbol};
use super::pretok::{PreTokenizer, Regexes, char_at};
use super::vocab::{Vocab, attr};
use crate::{Error, Result};

/// The merges of a vocabulary.
pub(crate) struct Bpe {
    pre: &'static PreTokenizer,
    /// How text is cut where `pre` does not say.
    regexes: Option<Box<Regexes>>,
    /// The merges that make text `i` are `merges[starts[i]..starts[i + 1]]`. Texts are the
    /// tokens, and after them those of `extras`.
    starts: Vec<u32>,
    merges: Vec<Merge>,
    /// Texts that merges make and that are no tokens.
    extras: Vocab,
    /// The token of each byte, by itself in GPT-2's form, as `<0x0A>` in the raw form.
    bytes: [Option<u32>; 256],
    n_vocab: u32,
    unknown: Option<u32>,
    boundary: Option<Boundary>,
}

/// One way to make a text.
#[derive(Clone, Copy, Default)]
struct Merge {
    /// The length of the left part.
    left: u32,
    rank: u32,
}

impl Bpe {
    /// Reads the merges, each `left right`, in order of rank.
    pub(crate) fn new<'a>(
        vocab: &Vocab,
        pre: &'static PreTokenizer,
        regexes: Option<Regexes>,
        unknown: Option<u32>,
        merges: impl ExactSizeIterator<Item = &'a [u8]>,
    ) -> Result<Bpe> {
        if merges.len() >= u32::MAX as usize / 2 {
            return Err(Error::Tokenizer(format!("{} merges are too many", merges.len())));
        }
        let n_vocab = vocab.len() as u32;
        let mut extras = Vocab::with_capacity(0, false);
        // (text, merge), in order of rank.
        let mut all: Vec<(u32, Merge)> = Vec::with_capacity(merges.len());
        let (mut buf, mut last) = (Vec::new(), 0);
        for (rank, merge) in merges.enumerate() {
            let Some((left, right)) = split_merge(merge) else {
                return Err(Error::Tokenizer(format!(
                    "tokenizer.ggml.merges: merge {rank}, {:?}, is not two texts with a space \
                     between",
                    String::from_utf8_lossy(&merge[..merge.len().min(64)])
                )));
            };
            buf.clear();
            let cut = if pre.raw {
                buf.extend_from_slice(left);
                buf.extend_from_slice(right);
                left.len()
            } else {
                // What is outside the alphabet can match no text.
                let decodes = alphabet::decode(left, &mut buf);
                let cut = buf.len();
                if !(decodes && alphabet::decode(right, &mut buf)) {
                    continue;
                }
                cut
            };
            // Most vocabularies list tokens in the order of the merges that make them.
            let near = [last, last + 1];
            let near = near.into_iter().find(|&id| vocab.bytes(id) == buf && vocab.is_first(id));
            let id = match near.or_else(|| vocab.find(&buf)) {
                Some(id) => id,
                None => n_vocab + extra(&mut extras, &buf)?,
            };
            if id < n_vocab {
                last = id;
            }
            all.push((id, Merge { left: cut as u32, rank: rank as u32 }));
        }

        // Sorted by text, in order of rank for each: count, sum up, fill.
        let mut starts = vec![0u32; vocab.len() + extras.len() + 1];
        for (id, _) in &all {
            starts[*id as usize] += 1;
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += std::mem::replace(start, sum);
        }
        let mut merges = vec![Merge::default(); all.len()];
        for (id, merge) in all {
            // A start grows to the next one as its merges are filled in.
            let at = &mut starts[id as usize];
            merges[*at as usize] = merge;
            *at += 1;
        }
        starts.rotate_right(1);
        starts[0] = 0;

        let bytes = if pre.raw {
            vocab.byte_tokens()
        } else {
            std::array::from_fn(|byte| vocab.find(&[byte as u8]))
        };
        let boundary = pre.raw.then(|| Boundary::new(&[vocab, &extras]));
        let regexes = regexes.map(Box::new);
        Ok(Bpe { pre, regexes, starts, merges, extras, bytes, n_vocab, unknown, boundary })
    }

    /// Appends the tokens of `text` to `out`.
    pub(crate) fn encode(
        &self,
        vocab: &Vocab,
        text: &[u8],
        merger: &mut Merger,
        cache: &mut WordCache,
        out: &mut Vec<u32>,
    ) -> Result<()> {
        let mut encode = |word: &[u8]| {
            cache.get_or_encode(word, out, |out| self.encode_word(vocab, word, merger, out));
        };
        if let Some(regexes) = &self.regexes {
            return regexes.split(text, &mut encode);
        }
        self.pre.split(text, &mut |word| match &self.boundary {
            Some(boundary) => boundary.split(word, &mut encode),
            None => encode(word),
        });
        Ok(())
    }

    fn encode_word(&self, vocab: &Vocab, word: &[u8], merger: &mut Merger, out: &mut Vec<u32>) {
        let is_token =
            self.pre.ignore_merges || self.pre.newline_tokens && word.iter().all(|&b| b == b'\n');
        if is_token && let Some(id) = vocab.find(word) {
            out.push(id);
            return;
        }
        merger.symbols.clear();
        if self.pre.raw {
            let mut at = 0;
            while at < word.len() {
                let (_, len) = char_at(word, at);
                let id = vocab.find(&word[at..at + len]).unwrap_or(NO_TOKEN);
                merger.symbols.push(Symbol::new(id, at));
                at += len;
            }
        } else {
            let symbols = word.iter().enumerate();
            let id = |byte: u8| self.bytes[byte as usize].unwrap_or(NO_TOKEN);
            merger.symbols.extend(symbols.map(|(at, &byte)| Symbol::new(id(byte), at)));
        }
        merger.run(word.len(), |pair| self.join(vocab, word, pair));
        for (i, symbol) in merger.symbols.iter().enumerate() {
            if symbol.id < self.n_vocab {
                out.push(symbol.id);
                continue;
            }
            // No token covers this text as a whole: its bytes, as far as they are tokens.
            let end = merger.symbols.get(i + 1).map_or(word.len(), |next| next.start as usize);
            let bytes = &word[symbol.start as usize..end];
            out.extend(bytes.iter().filter_map(|&b| self.bytes[b as usize].or(self.unknown)));
        }
    }

    #[inline]
    fn join(&self, vocab: &Vocab, word: &[u8], pair: Pair) -> Option<Joined> {
        let text = &word[pair.start..pair.end];
        let id = match vocab.find(text) {
            Some(id) => id,
            None if self.extras.len() > 0 => self.n_vocab + self.extras.find(text)?,
            None => return None,
        };
        let range = self.starts.get(id as usize..=id as usize + 1)?;
        let merges = self.merges.get(range[0] as usize..range[1] as usize)?;
        let left = (pair.middle - pair.start) as u32;
        let merge = merges.iter().find(|merge| merge.left == left)?;
        Some(Joined { rank: merge.rank, id })
    }
}

/// The two texts of a merge. The left one may begin with a space, but not be empty.
fn split_merge(merge: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = memchr::memchr(b' ', merge.get(1..)?)? + 1;
    let (left, right) = (&merge[..space], &merge[space + 1..]);
    (!right.is_empty()).then_some((left, right))
}

/// The place of a text among those that are no tokens.
fn extra(extras: &mut Vocab, text: &[u8]) -> Result<u32> {
    if let Some(id) = extras.find(text) {
        return Ok(id);
    }
    extras.push(text, attr::NORMAL)?;
    Ok(extras.len() as u32 - 1)
}
