//! The front matter of a model's README.md: the few lines of YAML that name its license and tags.

use std::path::Path;

use super::json;
use crate::Result;

/// Lines that are read of a card.
const MAX_LINES: usize = 2000;

/// Keys with the strings that they have, one or several. What is nested deeper is left out.
#[derive(Debug, Default)]
pub(super) struct Card(Vec<(String, Vec<String>)>);

impl Card {
    /// Reads the card of a folder; an empty one if there is none.
    pub(super) fn open(dir: &Path) -> Result<Card> {
        let path = dir.join("README.md");
        if !path.is_file() {
            return Ok(Card::default());
        }
        Ok(Card::parse(&String::from_utf8_lossy(&json::bytes(&path)?)))
    }

    fn parse(text: &str) -> Card {
        let mut lines = text.lines().take(MAX_LINES);
        let mut card = Card::default();
        if lines.next().map(str::trim_end) != Some("---") {
            return card;
        }
        for line in lines {
            let line = line.trim_end();
            if line == "---" {
                break;
            }
            let item = line.trim_start().strip_prefix("- ");
            if let Some(item) = item {
                if let (Some((_, list)), Some(item)) = (card.0.last_mut(), scalar(item)) {
                    list.push(item);
                }
            } else if !line.starts_with([' ', '\t', '#'])
                && let Some((key, value)) = line.split_once(':')
            {
                let value = value.trim();
                let list = value.strip_prefix('[').and_then(|v| v.strip_suffix(']'));
                let values = match list {
                    Some(list) => list.split(',').filter_map(scalar).collect(),
                    None => scalar(value).into_iter().collect(),
                };
                card.0.push((key.trim().to_string(), values));
            }
        }
        card
    }

    /// The strings of the first of some keys that has any.
    pub(super) fn list(&self, keys: &[&str]) -> Vec<String> {
        let of = |key: &&str| self.0.iter().find(|(k, v)| k == key && !v.is_empty());
        keys.iter().find_map(of).map(|(_, values)| values.clone()).unwrap_or_default()
    }

    /// The string of the first of some keys that has one.
    pub(super) fn str(&self, keys: &[&str]) -> Option<&str> {
        let of = |key: &&str| self.0.iter().find(|(k, v)| k == key && v.len() == 1);
        keys.iter().find_map(of).and_then(|(_, values)| values.first()).map(String::as_str)
    }
}

/// A plain or quoted string; `None` for what is none, such as the start of a block.
fn scalar(text: &str) -> Option<String> {
    let text = text.trim();
    for quote in ['"', '\''] {
        if let Some(inner) = text.strip_prefix(quote).and_then(|t| t.strip_suffix(quote)) {
            return Some(inner.to_string());
        }
    }
    // A key within an item, or a block of text.
    let plain = !text.is_empty() && !text.starts_with(['|', '>', '{', '&', '*', '!']);
    (plain && !text.ends_with(':') && !text.contains(": ")).then(|| text.to_string())
}

#[cfg(test)]
mod tests {
    use super::Card;

    #[test]
    fn front_matter_gives_strings_and_lists() {
        let card = Card::parse(
            "---\nlicense: apache-2.0\nlanguage:\n- en\n- \"no\"\ntags: [a, 'b']\nwidget:\n\
             - text: x\nbase_model: o/m\n---\nlicense: other\n",
        );
        assert_eq!(card.str(&["license"]), Some("apache-2.0"));
        assert_eq!(card.list(&["languages", "language"]), ["en", "no"]);
        assert_eq!(card.list(&["tags"]), ["a", "b"]);
        assert_eq!(card.list(&["widget"]), [""; 0]);
        assert_eq!(card.str(&["base_model"]), Some("o/m"));
        assert!(Card::parse("# A title\nlicense: mit\n").list(&["license"]).is_empty());
    }
}
