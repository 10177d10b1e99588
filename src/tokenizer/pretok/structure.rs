//! The `pre_tokenizer` of a Hugging Face tokenizer.json: which of the named pre-tokenizers it is, by
//! its patterns, and for one with new patterns a splitter that runs these.

use serde_json::Value;

use super::PreTokenizer;
use crate::{Error, Result};

/// The pattern that `ByteLevel` brings along: GPT-2's.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const DIGIT: &str = r"\p{N}";

const CJK: &str = "[一-龥぀-ゟ゠-ヿ]+";
const LINES: &str = r"\s*[\r\n]+|\s+(?!\S)|\s+";

/// Names by the patterns of their models' tokenizer.json, `{lines}` standing for [`LINES`]. Several
/// names have the same patterns and differ in whether words that are tokens are merged.
const KNOWN: &[(&[&str], &[&str])] = &[
    (&[GPT2], &["gpt-2"]),
    (&[DIGIT, GPT2], &["smollm"]),
    (
        &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|{lines}",
        ],
        &["llama-bpe", "dbrx"],
    ),
    (
        &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|{lines}",
        ],
        &["qwen2"],
    ),
    (
        &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|{lines}",
        ],
        &["qwen35"],
    ),
    (
        &[
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|{lines}",
        ],
        &["tekken"],
    ),
    (
        &[
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|{lines}",
        ],
        &["gpt-4o", "granite-embed-multi-97m"],
    ),
    (
        &[
            r"\p{N}{1,3}",
            CJK,
            r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|{lines}"##,
        ],
        &["deepseek-v3"],
    ),
    (
        &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\u{d7ff}]+", DIGIT],
        &["deepseek-coder"],
    ),
    (&[r" ?[^(\s|[.,!?…。，、।۔،])]+"], &["bloom"]),
];

/// The most splits of a pre-tokenizer, and the longest pattern.
const MAX_SPLITS: usize = 32;
const MAX_PATTERN: usize = 16 << 10;

/// What becomes of the matches of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behavior {
    /// Each is a piece, and so is what lies between two.
    Isolated,
    /// They are dropped.
    Removed,
    /// Each goes with what is before.
    MergedWithPrevious,
    /// Each goes with what comes after.
    MergedWithNext,
    /// Those that touch are one piece.
    Contiguous,
}

/// One split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Split {
    pub(super) pattern: String,
    pub(super) behavior: Behavior,
    /// What lies between the matches is taken for the matches.
    pub(super) invert: bool,
}

impl Split {
    fn isolated(pattern: impl Into<String>) -> Split {
        Split { pattern: pattern.into(), behavior: Behavior::Isolated, invert: false }
    }

    /// Whether pieces are cut at both ends of each match: so also where all but the matches is
    /// dropped, if these cover the text.
    fn cuts_at_matches(&self) -> bool {
        self.behavior == Behavior::Isolated || self.behavior == Behavior::Removed && self.invert
    }
}

fn bad(reason: impl std::fmt::Display) -> Error {
    Error::Tokenizer(format!("pre_tokenizer of tokenizer.json: {reason}"))
}

/// The splits of a `pre_tokenizer` that ends in bytes, in order.
pub(super) fn splits(json: &Value) -> Result<Vec<Split>> {
    let mut steps = Vec::new();
    match (kind(json), json.get("pretokenizers").and_then(Value::as_array)) {
        ("Sequence", Some(list)) => steps.extend(list),
        ("Sequence", None) => return Err(bad("a sequence of nothing")),
        _ => steps.push(json),
    }
    let flag = |step: &Value, name: &str, default| match step.get(name) {
        Some(Value::Bool(b)) => *b,
        _ => default,
    };
    let mut splits = Vec::new();
    let mut bytes = false;
    for step in steps {
        match kind(step) {
            "ByteLevel" => {
                if flag(step, "add_prefix_space", true) {
                    return Err(bad("ByteLevel with add_prefix_space is not supported"));
                }
                if flag(step, "use_regex", true) {
                    splits.push(Split::isolated(GPT2));
                }
                bytes = true;
            }
            "Digits" => {
                let each = flag(step, "individual_digits", false);
                splits.push(Split::isolated(if each { DIGIT } else { r"\p{N}+" }));
            }
            "Punctuation" => {
                let behavior = behavior(step, Behavior::Isolated)?;
                let pattern = r"[\p{P}!-/:-@\[-`{-~]".to_string();
                splits.push(Split { pattern, behavior, invert: false });
            }
            "Split" => {
                let pattern = step.get("pattern");
                let text = |key: &str| Some(pattern?.get(key)?.as_str()?.to_string());
                let literal = || text("String").map(|text| fancy_regex::escape(&text).into_owned());
                let Some(pattern) = text("Regex").or_else(literal) else {
                    return Err(bad("a split without a pattern"));
                };
                let behavior = behavior(step, Behavior::Isolated)?;
                splits.push(Split { pattern, behavior, invert: flag(step, "invert", false) });
            }
            other => return Err(bad(format!("the kind {other:?} is not supported"))),
        }
    }
    if !bytes {
        return Err(bad("it does not end in bytes (ByteLevel)"));
    }
    if splits.len() > MAX_SPLITS {
        return Err(bad(format!("{} splits; {MAX_SPLITS} are the most", splits.len())));
    }
    Ok(splits)
}

fn kind(step: &Value) -> &str {
    step.get("type").and_then(Value::as_str).unwrap_or("none")
}

fn behavior(step: &Value, default: Behavior) -> Result<Behavior> {
    Ok(match step.get("behavior").and_then(Value::as_str) {
        None => default,
        Some("Isolated") => Behavior::Isolated,
        Some("Removed") => Behavior::Removed,
        Some("MergedWithPrevious") => Behavior::MergedWithPrevious,
        Some("MergedWithNext") => Behavior::MergedWithNext,
        Some("Contiguous") => Behavior::Contiguous,
        Some(other) => return Err(bad(format!("behavior {other:?} is not known"))),
    })
}

/// The name under which llama.cpp and this library know a `pre_tokenizer`, given as JSON, whose
/// model takes words that are tokens for these (`ignore_merges`) or not; `None` if its patterns are
/// new.
///
/// # Errors
/// It is not JSON, of a kind that does not cut text into words of bytes, or has new patterns that
/// cannot be run.
pub fn recognize_pre_tokenizer(json: &str, ignore_merges: bool) -> Result<Option<&'static str>> {
    let json = serde_json::from_str(json).map_err(bad)?;
    let name = recognize(&splits(&json)?, ignore_merges);
    if name.is_none() {
        Regexes::new(&json)?;
    }
    Ok(name)
}

fn recognize(splits: &[Split], ignore_merges: bool) -> Option<&'static str> {
    if !splits.iter().all(Split::cuts_at_matches) {
        return None;
    }
    // Some files have the characters themselves.
    let escaped =
        |pattern: &str| pattern.replace('\r', r"\r").replace('\n', r"\n").replace('\t', r"\t");
    let same =
        |known: &&str, split: &Split| known.replace("{lines}", LINES) == escaped(&split.pattern);
    let (_, names) = KNOWN.iter().find(|(patterns, _)| {
        patterns.len() == splits.len() && patterns.iter().zip(splits).all(|(k, s)| same(k, s))
    })?;
    let merges = |name: &&&str| {
        PreTokenizer::by_name(name).is_some_and(|pre| pre.ignore_merges == ignore_merges)
    };
    names.iter().find(merges).copied()
}

/// Splits by the patterns of a tokenizer.json.
///
/// Expressions of any kind may need time that grows fast with the text. So texts are cut into
/// slices, at an end of a line where there is one, and an expression that takes too many steps on
/// one of them is an error.
pub(crate) struct Regexes(Vec<(fancy_regex::Regex, Behavior, bool)>);

/// The longest slice, in bytes.
const MAX_SLICE: usize = 64 << 10;
/// Steps that an expression may go back on a match.
const MAX_BACKTRACKING: usize = 1_000_000;

impl Regexes {
    /// Compiles the patterns of a tokenizer.json's `pre_tokenizer`.
    pub(crate) fn new(json: &Value) -> Result<Regexes> {
        let compile = |split: Split| {
            if split.pattern.len() > MAX_PATTERN {
                let len = split.pattern.len();
                return Err(bad(format!("a pattern of {len} bytes; {MAX_PATTERN} are the most")));
            }
            let mut builder = fancy_regex::RegexBuilder::new(&split.pattern);
            let regex = builder.backtrack_limit(MAX_BACKTRACKING).build();
            let regex = regex.map_err(|e| bad(format!("pattern {:?}: {e}", split.pattern)))?;
            Ok((regex, split.behavior, split.invert))
        };
        splits(json)?.into_iter().map(compile).collect::<Result<_>>().map(Regexes)
    }

    /// Calls `f` for every word of `text`.
    pub(crate) fn split(&self, text: &[u8], f: &mut impl FnMut(&[u8])) -> Result<()> {
        let mut text = std::str::from_utf8(text).map_err(bad)?;
        while !text.is_empty() {
            let (slice, rest) = text.split_at(slice_end(text));
            split_by(&self.0, slice, f)?;
            text = rest;
        }
        Ok(())
    }
}

/// Where the first slice of a text ends: after a line's end that no white space follows, else before
/// a space, else where it is full.
fn slice_end(text: &str) -> usize {
    if text.len() <= MAX_SLICE {
        return text.len();
    }
    let mut full = MAX_SLICE;
    while !text.is_char_boundary(full) {
        full -= 1;
    }
    let white = |at: usize| text[at..].chars().next().is_some_and(char::is_whitespace);
    let half = full / 2;
    let candidates = || text[..full].char_indices().rev().take_while(|(at, _)| *at > half);
    let line = candidates().find(|(at, c)| *c == '\n' && !white(at + 1)).map(|(at, _)| at + 1);
    let space = || {
        let word = |at: usize| text[..at].chars().next_back().is_some_and(|c| !c.is_whitespace());
        candidates().find(|(at, c)| *c == ' ' && word(*at) && !white(at + 1)).map(|(at, _)| at)
    };
    line.or_else(space).unwrap_or(full)
}

fn split_by(
    steps: &[(fancy_regex::Regex, Behavior, bool)],
    text: &str,
    f: &mut impl FnMut(&[u8]),
) -> Result<()> {
    let Some(((regex, behavior, invert), rest)) = steps.split_first() else {
        if !text.is_empty() {
            f(text.as_bytes());
        }
        return Ok(());
    };
    // (end, whether it is a match), without empty ones.
    let mut spans: Vec<(usize, bool)> = Vec::new();
    let mut at = 0;
    for found in regex.find_iter(text) {
        let found = found.map_err(|e| bad(format!("pattern {:?}: {e}", regex.as_str())))?;
        if found.start() > at {
            spans.push((found.start(), *invert));
        }
        if found.end() > found.start() {
            spans.push((found.end(), !invert));
        }
        at = found.end();
    }
    if at < text.len() {
        spans.push((text.len(), *invert));
    }
    let mut start = 0;
    for (i, (end, matched)) in spans.iter().enumerate() {
        let next = spans.get(i + 1).map(|(_, matched)| *matched);
        let joined = match behavior {
            Behavior::Isolated | Behavior::Removed => false,
            Behavior::MergedWithPrevious => next == Some(true) && !matched,
            Behavior::MergedWithNext => *matched && next == Some(false),
            Behavior::Contiguous => next == Some(*matched),
        };
        if joined {
            continue;
        }
        if !(*behavior == Behavior::Removed && *matched) {
            split_by(rest, &text[start..*end], f)?;
        }
        start = *end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{ours, split_by_regexes, tricky_text};
    use super::*;
    use proptest::strategy::{Strategy, ValueTree};
    use serde_json::json;

    fn words(json: &Value, text: &str) -> Vec<String> {
        let mut words = Vec::new();
        let mut keep = |word: &[u8]| words.push(String::from_utf8(word.to_vec()).unwrap());
        Regexes::new(json).unwrap().split(text.as_bytes(), &mut keep).unwrap();
        words
    }

    #[test]
    fn known_patterns_cut_where_their_names_do() {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        for (patterns, names) in KNOWN {
            let patterns: Vec<_> = patterns.iter().map(|p| p.replace("{lines}", LINES)).collect();
            let regexes: Vec<_> =
                patterns.iter().map(|p| fancy_regex::Regex::new(p).expect(p)).collect();
            for name in *names {
                assert!(PreTokenizer::by_name(name).is_some(), "{name}");
                for _ in 0..300 {
                    let text = tricky_text().new_tree(&mut runner).unwrap().current();
                    let want = split_by_regexes(&regexes, &text);
                    assert_eq!(ours(name, &text), want, "{name}: {text:?}");
                }
            }
        }
    }

    #[test]
    fn tokenizers_are_recognised_by_their_patterns() {
        let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false});
        let gpt2 = json!({"type": "ByteLevel", "add_prefix_space": false});
        let digits = json!({"type": "Digits", "individual_digits": true});
        let split = |behavior: &str, invert: bool| {
            let pattern = KNOWN[2].0[0].replace("{lines}", LINES);
            let split = json!({"type": "Split", "pattern": {"Regex": pattern},
                "behavior": behavior, "invert": invert});
            json!({"type": "Sequence", "pretokenizers": [split, bytes.clone()]})
        };
        let sequence = json!({"type": "Sequence", "pretokenizers": [digits, gpt2.clone()]});
        let name = |json: &Value, ignore| recognize_pre_tokenizer(&json.to_string(), ignore);
        assert_eq!(name(&gpt2, false).unwrap(), Some("gpt-2"));
        assert_eq!(name(&gpt2, true).unwrap(), None);
        assert_eq!(name(&sequence, false).unwrap(), Some("smollm"));
        assert_eq!(name(&split("Isolated", false), true).unwrap(), Some("llama-bpe"));
        assert_eq!(name(&split("Removed", true), true).unwrap(), Some("llama-bpe"));
        assert_eq!(name(&split("Isolated", false), false).unwrap(), Some("dbrx"));
        assert_eq!(name(&split("Removed", false), true).unwrap(), None);
        for json in [
            json!(null),
            json!({"type": "Metaspace"}),
            json!({"type": "ByteLevel", "add_prefix_space": true}),
            json!({"type": "Digits", "individual_digits": true}),
            json!({"type": "Sequence"}),
            json!({"type": "Split", "pattern": {}, "behavior": "Isolated"}),
            json!({"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": "(a"}, "behavior": "Isolated"}, bytes]}),
        ] {
            assert!(name(&json, false).is_err(), "{json}");
        }
    }

    #[test]
    fn patterns_with_line_ends_in_them_are_those_with_escapes() {
        // As the files of the models have them.
        let coder = r#"{"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "[\r\n]"}, "behavior": "Isolated", "invert": false},
            {"type": "Split", "pattern": {"Regex": "\\s?\\p{L}+"}, "behavior": "Isolated", "invert": false},
            {"type": "Split", "pattern": {"Regex": "\\s?\\p{P}+"}, "behavior": "Isolated", "invert": false},
            {"type": "Split", "pattern": {"Regex": "[一-龥ࠀ-一가-\ud7ff]+"}, "behavior": "Isolated", "invert": false},
            {"type": "Digits", "individual_digits": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]}"#;
        let v3 = r##"{"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}"}, "behavior": "Isolated", "invert": false},
            {"type": "Split", "pattern": {"Regex": "[一-龥぀-ゟ゠-ヿ]+"}, "behavior": "Isolated", "invert": false},
            {"type": "Split", "pattern": {"Regex": "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]}"##;
        assert_eq!(recognize_pre_tokenizer(coder, false).unwrap(), Some("deepseek-coder"));
        assert_eq!(recognize_pre_tokenizer(v3, false).unwrap(), Some("deepseek-v3"));
    }

    #[test]
    fn matches_go_where_the_behavior_says() {
        for (behavior, invert, want) in [
            ("Isolated", false, vec!["a", "-", "-", "b"]),
            ("Removed", false, vec!["a", "b"]),
            ("Removed", true, vec!["-", "-"]),
            ("MergedWithPrevious", false, vec!["a-", "-", "b"]),
            ("MergedWithNext", false, vec!["a", "-", "-b"]),
            ("Contiguous", false, vec!["a", "--", "b"]),
        ] {
            let json = json!({"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"String": "-"}, "behavior": behavior, "invert": invert},
                {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false},
            ]});
            assert_eq!(words(&json, "a--b"), want, "{behavior}");
        }
    }

    #[test]
    fn an_expression_that_takes_too_long_is_an_error() {
        let json = json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": r"(a*)*(?=b)\1c"}, "behavior": "Isolated"},
            {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false},
        ]});
        let regexes = Regexes::new(&json).unwrap();
        assert!(regexes.split("a".repeat(10_000).as_bytes(), &mut |_| {}).is_err());
    }

    #[test]
    fn long_texts_are_cut_at_lines_and_nothing_is_lost() {
        let json = json!({"type": "ByteLevel", "add_prefix_space": false});
        for text in ["some words\n".repeat(20_000), "word ".repeat(40_000), "é".repeat(100_000)] {
            let words = words(&json, &text);
            assert_eq!(words.concat(), text);
            if !text.starts_with('é') {
                let regexes = [fancy_regex::Regex::new(GPT2).unwrap()];
                assert_eq!(words, split_by_regexes(&regexes, &text));
            }
        }
    }
}
