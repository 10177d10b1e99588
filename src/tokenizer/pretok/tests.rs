//! Every hand-written splitter against the regular expressions of the model's own tokenizer.

use super::*;
use fancy_regex::Regex;
use proptest::prelude::*;
use proptest::strategy::ValueTree;

const CONTRACTIONS: &str = "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]";
const CASED_UPPER: &str = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]";
const CASED_LOWER: &str = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]";
const GPT2_REGEX: &str =
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LINES: &str = r"\s*[\r\n]+|\s+(?!\S)|\s+";
const CJK_REGEX: &str = r"[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+";
const ASIAN_REGEX: &str = r"[\u{4e00}-\u{9fa5}\u{800}-\u{4e00}\u{ac00}-\u{d7ff}]+";
const NOT_SENTENCE_REGEX: &str =
    r" ?[^(\s|.,!?\u{2026}\u{3002}\u{ff0c}\u{3001}\u{964}\u{6d4}\u{60c})]+";

fn llama3(numbers: &str) -> String {
    format!(
        r"(?:{CONTRACTIONS})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{numbers}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{LINES}"
    )
}

fn cased(first: &str, suffix: &str, numbers: &str, tail: &str) -> String {
    let lead = r"[^\r\n\p{L}\p{N}]?";
    let (up, low) = if first.is_empty() {
        (CASED_UPPER.to_string(), CASED_LOWER.to_string())
    } else {
        (format!(r"(?:(?!\p{{Han}}){CASED_UPPER})"), format!(r"(?:(?!\p{{Han}}){CASED_LOWER})"))
    };
    format!(
        r"{first}{lead}{up}*{low}+{suffix}|{lead}{up}+{low}*{suffix}|{numbers}| ?[^\s\p{{L}}\p{{N}}]+{tail}|{LINES}"
    )
}

fn deepseek(tail: &str, newlines: &str) -> String {
    format!(
        r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{{|}}~][A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+| ?[\p{{P}}\p{{S}}]+{tail}|{newlines}|\s+(?!\S)|\s+"##
    )
}

/// The expressions of each pre-tokenizer, from the `tokenizer.json` of a model that uses it.
fn expressions() -> Vec<(&'static str, Vec<String>)> {
    let s = |x: &[&str]| x.iter().map(|x| x.to_string()).collect::<Vec<_>>();
    let suffix = format!("(?:{CONTRACTIONS})?");
    vec![
        ("default", s(&[r"[\p{P}\$\+<=>\^~\|]+", GPT2_REGEX, r"\p{N}+", "[0-9][0-9][0-9]"])),
        ("gpt-2", s(&[GPT2_REGEX])),
        ("smollm", s(&[r"\p{N}", GPT2_REGEX])),
        ("llama-bpe", vec![llama3(r"\p{N}{1,3}")]),
        ("chatglm-bpe", vec![llama3(r"\p{N}{1,3}")]),
        ("glm4", vec![llama3(r"\p{N}{1,3}")]),
        (
            "jais-2",
            vec![llama3(r"\p{N}{1,3}").replace(
                r"|\s+(?!\S)|\s+",
                r"|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}",
            )],
        ),
        ("minicpm5", vec![r"\p{N}{1,3}".into(), llama3(r"\p{N}+")]),
        ("qwen2", vec![llama3(r"\p{N}")]),
        (
            "qwen35",
            vec![format!(
                r"(?:{CONTRACTIONS})|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{LINES}"
            )],
        ),
        (
            "bailingmoe",
            s(&[
                r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
            ]),
        ),
        (
            "ufakzeka",
            s(&[
                r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            ]),
        ),
        (
            "seed-coder",
            vec![format!(
                r"(?:{CONTRACTIONS})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{LINES}"
            )],
        ),
        ("laguna", vec![r"[^\n]+|[\n]+".into(), llama3(r"\p{N}")]),
        (
            "exaone-moe",
            vec![format!(
                r"(?:{CONTRACTIONS})|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
            )],
        ),
        ("gpt-4o", vec![cased("", &suffix, r"\p{N}{1,3}", r"[\r\n/]*")]),
        ("granite-embed-multi-97m", vec![cased("", &suffix, r"\p{N}{1,3}", r"[\r\n/]*")]),
        (
            "tiny_aya",
            vec![r"\d{1,3}(?=(?:\d{3})*\b)".into(), cased("", &suffix, r"\p{N}{1,3}", r"[\r\n/]*")],
        ),
        ("tekken", vec![cased("", "", r"\p{N}", r"[\r\n/]*")]),
        ("kimi-k2", vec![cased(r"\p{Han}+|", &suffix, r"\p{N}{1,3}", r"[\r\n]*")]),
        (
            "youtu",
            vec![
                format!(
                    r"[\u{{ac00}}-\u{{d7a3}}\u{{3131}}-\u{{318e}}]+|[！…“”‘’—：；，\u{{3001}}-\u{{303f}}\u{{fe30}}-\u{{fe4f}}]+|[\u{{3105}}-\u{{312f}}]+|{CJK_REGEX}"
                ),
                cased("", &suffix, r"\p{N}", r"[\r\n/]*"),
            ],
        ),
        (
            "deepseek-llm",
            vec![
                r"[\r\n]".into(),
                format!(r"\s?[{}]+", deepseek_letters()),
                r"\s?[!-/:-~\u{ff01}-\u{ff0f}\u{ff1a}-\u{ff5e}\u{2018}-\u{201f}\u{3000}-\u{3002}]+"
                    .into(),
                r"\s+\z".into(),
                ASIAN_REGEX.into(),
                r"\p{N}+".into(),
            ],
        ),
        ("deepseek-coder", s(&[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", ASIAN_REGEX, r"\p{N}"])),
        (
            "deepseek-v3",
            vec![r"\p{N}{1,3}".into(), CJK_REGEX.into(), deepseek(r"[\r\n]*", r"\s*[\r\n]+")],
        ),
        (
            "spark2_5",
            vec![
                r"\p{N}{1,3}".into(),
                CJK_REGEX.into(),
                deepseek("", r"[\r\n]"),
                r"\p{N}".into(),
            ],
        ),
        (
            "afmoe",
            vec![
                r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))".into(),
                r"[一-鿿㐀-䶿\u{f900}-\u{faff}぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가-힯ᄀ-ᇿ]+".into(),
                deepseek(r"[\r\n]*", r"\s*[\r\n]+"),
            ],
        ),
        ("falcon", s(&[r"[\p{P}\$\+<=>\^~\|`]+", GPT2_REGEX, "[0-9][0-9][0-9]"])),
        ("bloom", s(&[NOT_SENTENCE_REGEX])),
        ("viking", s(&[NOT_SENTENCE_REGEX, r"\p{N}"])),
        (
            "chameleon",
            s(&[
                "<sentinel:[0-9]+>",
                "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
                "([\\t\\n]|    |  )",
                r"\p{N}",
                r"[\p{P}!-/:-@\[-`{-~]",
                GPT2_REGEX,
            ]),
        ),
        ("superbpe", s(&[r"\p{N}+", r"(?=(\d{3})+(?!\d))"])),
        ("gemma4", s(&[r"[^\n]+|[\n]+"])),
        ("sarvam-moe", s(&[r"[^\n]+|[\n]+"])),
        ("whitespace", s(&[r"\S+"])),
    ]
}

fn deepseek_letters() -> String {
    DEEPSEEK_LETTERS.iter().map(|(lo, hi)| format!(r"\u{{{lo:x}}}-\u{{{hi:x}}}")).collect()
}

/// Splits as `tokenizers` does with the behaviour "Isolated": matches and what lies between.
pub(super) fn split_by_regexes(regexes: &[Regex], text: &str) -> Vec<String> {
    let mut pieces = vec![text.to_string()];
    for regex in regexes {
        let mut next = Vec::new();
        for piece in &pieces {
            let mut start = 0;
            for m in regex.find_iter(piece) {
                let m = m.expect("a short text");
                next.push(piece[start..m.start()].to_string());
                next.push(m.as_str().to_string());
                start = m.end();
            }
            next.push(piece[start..].to_string());
        }
        next.retain(|piece| !piece.is_empty());
        pieces = next;
    }
    pieces
}

pub(super) fn ours(name: &str, text: &str) -> Vec<String> {
    let mut pieces = Vec::new();
    PreTokenizer::by_name(name).expect(name).split(text.as_bytes(), &mut |piece| {
        pieces.push(String::from_utf8(piece.to_vec()).expect("pieces end between characters"));
    });
    pieces
}

/// Texts of the characters that the patterns tell apart, in runs and alone.
pub(super) fn tricky_text() -> impl Strategy<Value = String> {
    let chunk = prop_oneof![
        8 => prop::sample::select(vec![
            " ", "  ", "    ", "\n", "\r\n", "\t", "\u{b}", "\u{a0}", "\u{3000}", "\u{2028}", "\u{85}",
            "a", "Z", "hello", "World", "XMLHttp", "'s", "'S", "'re", "'LL", "'x", "'", "''",
            "1", "12", "1234", "\u{663}\u{664}", "½", "Ⅷ", "²", "é", "e\u{301}", "\u{301}", "ß", "Ǆ", "ǅ", "ǆ",
            "ª", "ʰ", "中文", "々", "〇", "の", "カ", "한국", "ㄅ", "ㄱ", "ไทย", "हिन्दी", "\u{93f}", "العربية",
            "!", "...", "/", "//\n", "$", "+", "<=>", "`", "|", "~", "_", "(", ")", "#!", "-x", "\"Hi\"",
            "…", "。", "，", "、", "।", "۔", "،", "！", "：", "“", "”", "—", "😀", "👨\u{200d}👩", "€", "\u{200b}", "\0", "\u{1}",
            "<sentinel:12>", "<sentinel:>", "IMGIMGABZ", "IMGIMGABCDEZ", "IMGIMGZ", "\u{e000}", "\u{378}", "Ⓐ", "ⓐ",
        ]).prop_map(str::to_string),
        1 => any::<char>().prop_map(String::from),
        1 => ("[ \n0-9a]", 1..20usize).prop_map(|(c, n)| c.repeat(n)),
    ];
    prop::collection::vec(chunk, 0..24).prop_map(|v| v.concat())
}

#[test]
fn every_splitter_cuts_where_its_regular_expressions_do() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for (name, expressions) in expressions() {
        let regexes: Vec<_> = expressions.iter().map(|e| Regex::new(e).expect(e)).collect();
        for _ in 0..1500 {
            let text = tricky_text().new_tree(&mut runner).unwrap().current();
            assert_eq!(ours(name, &text), split_by_regexes(&regexes, &text), "{name}: {text:?}");
        }
    }
}

#[test]
fn every_name_that_shares_steps_is_tested_by_one_of_them() {
    let tested: Vec<_> = expressions().into_iter().map(|(name, _)| name).collect();
    for pre in PRE_TOKENIZERS {
        let twin = |p: &&PreTokenizer| p.names.iter().any(|n| tested.contains(n));
        assert!(
            PRE_TOKENIZERS.iter().filter(twin).any(|p| std::ptr::eq(p, pre)),
            "{:?}",
            pre.names
        );
    }
}

#[test]
fn no_name_stands_twice() {
    let mut names: Vec<_> = PreTokenizer::names().collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
}

#[test]
fn long_runs_are_cut_in_time_that_grows_with_their_length() {
    let runs =
        [" ", "a", "A", "1", "\n", " \n", "'", "\u{301}", "ªA", "A\u{301}", "!", "\t ", "中"];
    for pre in PRE_TOKENIZERS {
        for unit in runs {
            for last in ["", "x", "1"] {
                let text = unit.repeat(100_000) + last;
                let start = std::time::Instant::now();
                let mut bytes = 0;
                pre.split(text.as_bytes(), &mut |piece| bytes += piece.len());
                assert_eq!(bytes, text.len());
                // Quadratic would be minutes.
                assert!(start.elapsed().as_secs() < 5, "{:?} {unit:?}", pre.names);
            }
        }
    }
}
