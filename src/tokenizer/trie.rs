//! A prefix tree over byte strings, built at once and then only read.

/// No value.
const NONE: u32 = u32::MAX;

/// The strings of a vocabulary by their first bytes. Node 0 is the root; the children of a node
/// stand side by side, ordered by their bytes.
pub(crate) struct Trie {
    /// The byte that leads to each node.
    labels: Vec<u8>,
    first_child: Vec<u32>,
    n_children: Vec<u16>,
    values: Vec<u32>,
    /// The root's children by their byte, as most walks end there.
    root: [u32; 256],
}

impl Trie {
    /// Builds the tree of `keys` with their values. Empty keys are left out; of equal keys the
    /// one of the lowest value counts.
    pub(crate) fn new(mut keys: Vec<(&[u8], u32)>) -> Trie {
        keys.retain(|(key, _)| !key.is_empty());
        // Comparing eight bytes as a number settles most of a sort.
        keys.sort_by_cached_key(|&(key, value)| {
            let mut head = [0; 8];
            let n = key.len().min(8);
            head[..n].copy_from_slice(&key[..n]);
            (u64::from_be_bytes(head), key, value)
        });
        keys.dedup_by_key(|(key, _)| *key);
        let mut trie = Trie {
            labels: vec![0],
            first_child: vec![0],
            n_children: vec![0],
            values: vec![NONE],
            root: [NONE; 256],
        };
        // Breadth first, so that brothers are neighbours: (node, its keys, their common length).
        let mut queue = std::collections::VecDeque::from([(0usize, 0..keys.len(), 0usize)]);
        while let Some((node, mut range, depth)) = queue.pop_front() {
            if let Some(&(key, value)) = keys.get(range.start)
                && key.len() == depth
                && depth > 0
            {
                trie.values[node] = value;
                range.start += 1;
            }
            trie.first_child[node] = trie.labels.len() as u32;
            while range.start < range.end {
                let label = keys[range.start].0[depth];
                let same = keys[range.clone()].iter().take_while(|(key, _)| key[depth] == label);
                let end = range.start + same.count();
                let child = trie.labels.len();
                trie.labels.push(label);
                trie.first_child.push(0);
                trie.n_children.push(0);
                trie.values.push(NONE);
                trie.n_children[node] += 1;
                if node == 0 {
                    trie.root[label as usize] = child as u32;
                }
                queue.push_back((child, range.start..end, depth + 1));
                range.start = end;
            }
        }
        trie
    }

    /// Calls `f` with the length and the value of every key that `text` begins with, the
    /// shortest first.
    pub(crate) fn prefixes(&self, text: &[u8], mut f: impl FnMut(usize, u32)) {
        let mut node = match text.first() {
            Some(&byte) => self.root[byte as usize],
            None => NONE,
        };
        let mut len = 1;
        while node != NONE {
            let value = self.values[node as usize];
            if value != NONE {
                f(len, value);
            }
            let first = self.first_child[node as usize] as usize;
            let children = &self.labels[first..first + self.n_children[node as usize] as usize];
            node = match text.get(len).and_then(|&byte| memchr::memchr(byte, children)) {
                Some(i) => (first + i) as u32,
                None => NONE,
            };
            len += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_finds_the_keys_that_a_search_finds(
            keys in prop::collection::vec("[ab\u{2581}]{0,6}", 0..30),
            text in "[ab\u{2581}]{0,12}",
        ) {
            let list = keys.iter().enumerate().map(|(i, k)| (k.as_bytes(), i as u32)).collect();
            let trie = Trie::new(list);
            let mut found = Vec::new();
            trie.prefixes(text.as_bytes(), |len, value| found.push((len, value)));
            let mut expected: Vec<_> = (1..=text.len())
                .filter(|&n| text.is_char_boundary(n))
                .filter_map(|n| Some((n, keys.iter().position(|k| *k == text[..n])? as u32)))
                .collect();
            expected.sort_unstable();
            prop_assert_eq!(found, expected);
        }
    }
}
