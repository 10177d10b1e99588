//! Vocabularies that lie, and texts made to be slow.

use std::cell::Cell;
use std::time::Instant;

use proptest::prelude::*;
use siskin::tokenizer::Kind;

use crate::fixture::{Meta, bpe, spm, unigram, wordpiece};
use crate::round_trip::any_text;
use crate::{PLAIN, SPECIAL, texts};

#[test]
fn malformed_vocabularies_are_refused_with_the_key_and_the_reason() {
    let good = || bpe("gpt-2", &["a b"]);
    let scored = || spm(&[("a", -1.0)]);
    let cases: Vec<(Meta, &[&str])> = vec![
        (Meta::empty(), &["tokenizer.ggml.model", "missing"]),
        (Meta::new("rwkv"), &["tokenizer.ggml.model", "rwkv"]),
        (good().without("tokenizer.ggml.tokens"), &["tokenizer.ggml.tokens", "missing"]),
        (good().with_strings("tokenizer.ggml.tokens", &[]), &["tokenizer.ggml.tokens", "0 tokens"]),
        (good().with_i32s("tokenizer.ggml.tokens", &[1, 2]), &["tokenizer.ggml.tokens", "strings"]),
        (
            good().with_i32s("tokenizer.ggml.token_type", &[1]),
            &["tokenizer.ggml.token_type", "1 types"],
        ),
        (good().without("tokenizer.ggml.merges"), &["tokenizer.ggml.merges", "missing"]),
        (good().with_i32s("tokenizer.ggml.merges", &[1]), &["tokenizer.ggml.merges", "strings"]),
        (good().with_strings("tokenizer.ggml.merges", &["a b", "ab"]), &["merge 1", "ab"]),
        (good().with_strings("tokenizer.ggml.merges", &["a "]), &["merge 0"]),
        (good().with_strings("tokenizer.ggml.merges", &[""]), &["merge 0"]),
        (good().with_str("tokenizer.ggml.add_bos_token", "yes"), &["tokenizer.ggml.add_bos_token"]),
        (
            scored().with_f32s("tokenizer.ggml.scores", &[0.0]),
            &["tokenizer.ggml.scores", "1 scores"],
        ),
        (scored().nan_score(), &["tokenizer.ggml.scores", "not a number"]),
        (
            scored().with_strings("tokenizer.ggml.scores", &["x"; 300]),
            &["tokenizer.ggml.scores", "not a number"],
        ),
        (
            unigram(&[("a", -1.0)])
                .with_u8s("tokenizer.ggml.precompiled_charsmap", &[9, 0, 0, 0, 1]),
            &["tokenizer.ggml.precompiled_charsmap"],
        ),
        (bpe("huggingface", &["a b"]), &["tokenizer.huggingface.json", "missing"]),
        (hub("{"), &["tokenizer.huggingface.json", "line 1"]),
        (hub(r#"{"model": {}}"#), &["pre_tokenizer", "not supported"]),
        (hub(&splits("(")), &["pre_tokenizer", "pattern"]),
        (hub(&splits(&"a".repeat(20_000))), &["pre_tokenizer", "20000 bytes"]),
        (hub(&splits("(?:(?:a{1000}){1000}){1000}")), &["pre_tokenizer", "pattern"]),
    ];
    for (meta, parts) in cases {
        let error = meta.try_build().expect_err(parts[0]).to_string();
        for part in parts {
            assert!(error.contains(part), "{part:?} not in {error:?}");
        }
    }
}

/// A vocabulary that is cut by a tokenizer.json.
fn hub(json: &str) -> Meta {
    bpe("huggingface", &["a b"]).with_str("tokenizer.huggingface.json", json)
}

/// A tokenizer.json that cuts at the matches of one pattern.
fn splits(pattern: &str) -> String {
    format!(
        r#"{{"model": {{}}, "pre_tokenizer": {{"type": "Sequence", "pretokenizers": [
            {{"type": "Split", "pattern": {{"Regex": {pattern:?}}}, "behavior": "Isolated"}},
            {{"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}}]}}}}"#
    )
}

#[test]
fn an_expression_that_takes_too_long_fails_the_text_not_the_process() {
    let tokenizer = hub(&splits(r"(a*)*(?=b)\1c")).build();
    let error = tokenizer.encode(&"a".repeat(5000), PLAIN).expect_err("too many steps");
    assert!(error.to_string().contains("pre_tokenizer"), "{error}");
}

#[test]
fn new_patterns_cut_text_and_merges_stay_within() {
    let tokenizer = hub(&splits("a|b.")).token("ab", 1).build();
    assert_eq!(texts(&tokenizer, "abc", PLAIN), ["a", "b", "c"]);
    let tokenizer = hub(&splits("c")).token("ab", 1).build();
    assert_eq!(texts(&tokenizer, "abc", PLAIN), ["ab", "c"]);
}

#[test]
fn odd_vocabularies_do_what_can_be_done() {
    let huge = "x".repeat(1 << 20);
    let meta = bpe("gpt-2", &["a b"])
        .token("", 1)
        .token("ab", 1)
        .token(&huge, 3)
        .token(&"y".repeat(512), 3)
        .token_bytes(b"\xff\xfe", 3)
        .token("<0xZZ>", 6)
        .token("odd type", 99)
        .with_i32s("tokenizer.ggml.suppress_tokens", &[-1, 3, 1 << 30])
        .with_u32("tokenizer.ggml.bos_token_id", 1 << 30)
        .with_u32("tokenizer.ggml.eos_token_id", u32::MAX);
    let tokenizer = meta.build();
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (None, None));
    assert_eq!(tokenizer.suppressed_tokens(), [3]);
    // Special tokens are looked for up to 512 bytes.
    let long = "y".repeat(512);
    assert_eq!(texts(&tokenizer, &format!("ab{long}"), SPECIAL), ["ab", &long]);
    assert_eq!(tokenizer.encode(&huge, SPECIAL).unwrap().len(), huge.len());
    // Of two tokens with one text the first counts, and both can be read.
    let first = tokenizer.token_id("ab").unwrap();
    let last = tokenizer.n_vocab() as u32 - 1;
    assert!((first..=last).any(|id| id > first && tokenizer.token_text(id).unwrap() == "ab"));
    for id in 0..=last {
        assert!(tokenizer.token_bytes(id).is_some());
    }
    assert_eq!(tokenizer.token_bytes(last + 1), None);
    assert_eq!(tokenizer.token_text(u32::MAX), None);
    assert_eq!(tokenizer.decode(&[last + 1, u32::MAX], true), "");
    assert_eq!(tokenizer.token_bytes(last).unwrap(), b"", "a type that is not known is no text");
    assert!(!tokenizer.is_eog(u32::MAX) && !tokenizer.is_control(u32::MAX));
}

#[test]
fn long_runs_take_time_in_proportion() {
    let all = [
        bpe("llama-bpe", &["a a", "aa aa", "Ġ Ġ", "ĠĠ ĠĠ", "ð Ł", "ðŁ ĺ", "Ċ Ċ"]),
        Meta::new("gemma4").bytes_as_hex().tokens(&["▁", "a", "aa", "▁▁", "▁▁▁▁", "\n"]).merges(&[
            "a a",
            "▁ ▁",
            "▁▁ ▁▁",
        ]),
        spm(&[
            ("▁", -1.0),
            ("▁▁", -2.0),
            ("a", -1.0),
            ("aa", -2.0),
            ("aaaa", -2.0),
            ("😀😀", -3.0),
        ]),
        wordpiece(&["▁a", "a", "aa"]),
        unigram(&[("▁", -1.0), ("a", -2.0), ("aa", -3.0), ("aaaaaaaa", -4.0)]),
    ];
    for meta in all {
        let tokenizer = meta.build();
        for unit in [" ", "a", "1", "\n", "😀", "a ", "<", "\u{301}"] {
            let text = unit.repeat(1_000_000 / unit.len());
            let start = Instant::now();
            let tokens = tokenizer.encode(&text, SPECIAL).unwrap();
            let back = tokenizer.decode(&tokens, false);
            if matches!(tokenizer.kind(), Kind::Bpe | Kind::Spm) {
                assert!(back == text, "{:?} {unit:?}", tokenizer.kind());
            }
            assert!(start.elapsed().as_secs() < 20, "{:?} {unit:?}", tokenizer.kind());
        }
    }
}

#[test]
fn no_vocabulary_and_no_text_make_it_panic() {
    let (tried, built) = (Cell::new(0), Cell::new(0));
    proptest!(|(
        model in prop::sample::select(vec!["gpt2", "gemma4", "whitespace", "llama", "bert", "t5"]),
        pre in prop::sample::select(vec!["gpt-2", "llama-bpe", "deepseek-llm", "superbpe", "whitespace", "default"]),
        tokens in prop::collection::vec((token_text(), -1i32..8, any::<f32>()), 0..40),
        merges in prop::collection::vec((token_text(), token_text()), 0..20),
        ids in prop::collection::vec(0u32..50, 12),
        flags in prop::collection::vec(any::<bool>(), 6),
        charsmap in prop::collection::vec(any::<u8>(), 0..40),
        text in any_text(),
    )| {
        tried.set(tried.get() + 1);
        let mut meta = Meta::new(model).with_str("tokenizer.ggml.pre", pre);
        for (text, kind, score) in &tokens {
            meta = meta.scored(&[(text, *score, *kind)]);
        }
        let merges: Vec<_> = merges.iter().map(|(a, b)| format!("{a} {b}")).collect();
        meta = meta.merges(&merges.iter().map(String::as_str).collect::<Vec<_>>());
        let names = ["bos", "eos", "eot", "eom", "unknown", "seperator", "padding", "mask", "cls", "fim_pre", "fim_pad", "fim_sep"];
        for (name, &id) in names.iter().zip(&ids) {
            meta = meta.with_u32(&format!("tokenizer.ggml.{name}_token_id"), id);
        }
        let keys = ["add_bos_token", "add_eos_token", "add_space_prefix", "remove_extra_whitespaces", "normalizer.lowercase", "normalizer.strip_accents"];
        for (key, &flag) in keys.iter().zip(&flags) {
            meta = meta.with_bool(&format!("tokenizer.ggml.{key}"), flag);
        }
        if flags[0] {
            meta = meta.with_u8s("tokenizer.ggml.precompiled_charsmap", &charsmap);
        }
        if let Ok(tokenizer) = meta.try_build() {
            built.set(built.get() + 1);
            for opts in [PLAIN, SPECIAL] {
                let Ok(ids) = tokenizer.encode(&text, opts) else { continue };
                for &id in &ids {
                    prop_assert!((id as usize) < tokenizer.n_vocab());
                }
                tokenizer.decode(&ids, opts.parse_special);
            }
            for id in 0..60 {
                tokenizer.token_text(id);
                tokenizer.token_bytes(id);
            }
        }
    });
    let (tried, built) = (tried.get(), built.get());
    assert!(built > tried / 20, "only {built} of {tried} vocabularies make a tokenizer");
}

fn token_text() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "a", "b", "ab", "▁", "▁a", "Ġ", "Ġa", "<0x0A>", "<0x", "é", "Ã", "©", "", " ", "the",
            "<s>", "</s>", "<|end|>",
        ])
        .prop_map(String::from),
        "[ab▁Ġé ]{0,4}",
    ]
}
