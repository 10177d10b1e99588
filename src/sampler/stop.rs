//! Stop strings in streamed text.

use crate::error::{Error, Result};

/// Finds the first of several strings in text that arrives in pieces, and lets through what comes
/// before it: never text that may yet turn out to be its beginning.
///
/// An Aho-Corasick automaton over bytes: the time is linear in the text, whatever the strings.
///
/// ```
/// let mut stop = siskin::sampler::StopStrings::new(["</end>", "\nUser:"])?;
/// let mut out = String::new();
/// assert_eq!(stop.push("Yes.\nUs", &mut out), None);
/// assert_eq!(out, "Yes.");
/// assert_eq!(stop.push("er: more", &mut out), Some(1));
/// assert_eq!(out, "Yes.");
/// # Ok::<(), siskin::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct StopStrings {
    nodes: Vec<Node>,
    state: usize,
    /// Text that may be the beginning of a stop string: as many bytes as the state is deep.
    held: String,
    found: Option<usize>,
}

/// A prefix of a stop string.
#[derive(Clone, Debug, Default)]
struct Node {
    /// The prefixes that are one byte longer, in the order of that byte.
    next: Vec<(u8, usize)>,
    /// The longest proper suffix that is a prefix too.
    fail: usize,
    depth: usize,
    /// The longest stop string that ends here, and its length.
    stop: Option<(usize, usize)>,
}

/// Bytes in all stop strings together; each costs a node.
const MAX_BYTES: usize = 1 << 20;

impl StopStrings {
    /// A matcher for these strings, of which there may be none.
    pub fn new(stops: impl IntoIterator<Item = impl AsRef<str>>) -> Result<StopStrings> {
        let mut nodes = vec![Node::default()];
        let mut bytes = 0;
        for (index, stop) in stops.into_iter().enumerate() {
            let stop = stop.as_ref().as_bytes();
            bytes += stop.len();
            if stop.is_empty() || bytes > MAX_BYTES {
                return Err(Error::Invalid(format!(
                    "stop string {index}: must not be empty, and all together at most {MAX_BYTES} \
                     bytes long"
                )));
            }
            let mut at = 0;
            for &byte in stop {
                at = match nodes[at].next.binary_search_by_key(&byte, |n| n.0) {
                    Ok(i) => nodes[at].next[i].1,
                    Err(i) => {
                        let new = nodes.len();
                        let depth = nodes[at].depth + 1;
                        nodes.push(Node { depth, ..Node::default() });
                        nodes[at].next.insert(i, (byte, new));
                        new
                    }
                };
            }
            nodes[at].stop.get_or_insert((index, stop.len()));
        }
        let mut stops = StopStrings { nodes, state: 0, held: String::new(), found: None };
        stops.link();
        Ok(stops)
    }

    /// Fills the `fail` links, shorter prefixes first.
    fn link(&mut self) {
        let mut queue = std::collections::VecDeque::from([0]);
        while let Some(at) = queue.pop_front() {
            for i in 0..self.nodes[at].next.len() {
                let (byte, child) = self.nodes[at].next[i];
                let fail = if at == 0 { 0 } else { self.step(self.nodes[at].fail, byte) };
                let inherited = self.nodes[fail].stop;
                let node = &mut self.nodes[child];
                node.fail = fail;
                node.stop = node.stop.or(inherited);
                queue.push_back(child);
            }
        }
    }

    /// The longest prefix that the text ends with after one more byte.
    fn step(&self, mut at: usize, byte: u8) -> usize {
        loop {
            let node = &self.nodes[at];
            if let Ok(i) = node.next.binary_search_by_key(&byte, |n| n.0) {
                return node.next[i].1;
            }
            if at == 0 {
                return 0;
            }
            at = node.fail;
        }
    }

    /// Takes the next piece of text and appends to `out` what can be shown. `Some(i)` once stop
    /// string `i` is complete: nothing of it was shown, and nothing after it ever will be.
    pub fn push(&mut self, text: &str, out: &mut String) -> Option<usize> {
        if self.found.is_some() {
            return self.found;
        }
        for (i, &byte) in text.as_bytes().iter().enumerate() {
            self.state = self.step(self.state, byte);
            if let Some((index, len)) = self.nodes[self.state].stop {
                // Where a stop string begins or ends, a character does: both are UTF-8.
                self.held.push_str(text.get(..=i).unwrap_or_default());
                let shown = self.held.len() - len;
                out.push_str(self.held.get(..shown).unwrap_or_default());
                self.held.clear();
                self.found = Some(index);
                return self.found;
            }
        }
        let depth = self.nodes[self.state].depth;
        let total = self.held.len() + text.len();
        let shown = total - depth;
        if shown >= self.held.len() {
            let split = shown - self.held.len();
            out.push_str(&self.held);
            out.push_str(text.get(..split).unwrap_or_default());
            self.held.clear();
            self.held.push_str(text.get(split..).unwrap_or_default());
        } else {
            out.push_str(self.held.get(..shown).unwrap_or_default());
            self.held.drain(..shown);
            self.held.push_str(text);
        }
        None
    }

    /// At the end of the text: appends what was held back, for it was no stop string.
    pub fn finish(&mut self, out: &mut String) {
        out.push_str(&self.held);
        self.held.clear();
        self.state = 0;
    }

    /// Makes room for pieces of `bytes` bytes: up to that, [`push`](Self::push) allocates nothing
    /// but what `out` has to grow by.
    pub fn reserve(&mut self, bytes: usize) {
        let deepest = self.nodes.iter().map(|n| n.depth).max().unwrap_or(0);
        self.held.reserve(deepest + bytes);
    }

    /// Forgets all text.
    pub fn reset(&mut self) {
        self.held.clear();
        self.state = 0;
        self.found = None;
    }

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.nodes.len() == 1
    }
}
