//! What the tokenizers promise, on vocabularies small enough to read.

mod tokenizer_fixture;

use proptest::prelude::*;
use siskin::tokenizer::{EncodeOptions, Kind, Tokenizer, TokenizerOptions};
use tokenizer_fixture::{Meta, bpe, byte_char, spm, unigram, wordpiece};

const PLAIN: EncodeOptions = EncodeOptions { add_special: false, parse_special: false };
const SPECIAL: EncodeOptions = EncodeOptions { add_special: true, parse_special: true };

/// The tokens of a text, as the file writes them.
fn texts(tokenizer: &Tokenizer, text: &str, opts: EncodeOptions) -> Vec<String> {
    let tokens = tokenizer.encode(text, opts).expect(text);
    tokens.iter().map(|&id| tokenizer.token_text(id).expect("a token")).collect()
}

#[track_caller]
fn check(tokenizer: &Tokenizer, cases: &[(&str, &[&str])]) {
    for (text, expected) in cases {
        assert_eq!(texts(tokenizer, text, PLAIN), *expected, "{text:?}");
    }
}

#[test]
fn merges_are_made_by_rank_and_from_the_left() {
    let tokenizer = bpe("gpt-2", &["l o", "lo w", "e r", "a a", "Ġ lo", "n l"]).build();
    check(
        &tokenizer,
        &[
            ("", &[]),
            ("low", &["low"]),
            ("lower", &["low", "er"]),
            (" low", &["Ġ", "low"]),
            (" lo", &["Ġlo"]),
            // "lo" ranks before "n l".
            ("nlo", &["n", "lo"]),
            ("aaa", &["aa", "a"]),
            ("aaaa a", &["aa", "aa", "Ġ", "a"]),
            ("é", &["Ã", "©"]),
            ("\n\u{0}", &["Ċ", "Ā"]),
        ],
    );
}

#[test]
fn words_are_cut_as_the_named_pre_tokenizer_cuts_them() {
    let merges = ["1 2", "12 3", "Ġ x", "x y", "a Ġ", "' s"];
    let pieces = |pre: &str, text: &str| texts(&bpe(pre, &merges).build(), text, PLAIN);
    assert_eq!(pieces("gpt-2", "123 xy"), ["123", "Ġx", "y"]);
    assert_eq!(pieces("smollm", "123 xy"), ["1", "2", "3", "Ġx", "y"]);
    assert_eq!(pieces("llama-bpe", "1231 xy"), ["123", "1", "Ġx", "y"]);
    // No pattern joins a letter to the space after it.
    assert_eq!(pieces("gpt-2", "a a's"), ["a", "Ġ", "a", "'s"]);
}

#[test]
fn a_word_that_is_a_token_is_one_where_merges_are_ignored() {
    let meta = |pre| bpe(pre, &["l o"]).token("low", 1);
    check(&meta("llama-bpe").build(), &[("low", &["low"])]);
    check(&meta("qwen2").build(), &[("low", &["lo", "w"])]);
}

#[test]
fn an_unknown_pre_tokenizer_is_an_error_that_says_what_to_do() {
    let meta = bpe("from-the-future", &["l o"]);
    let error = meta.try_build().unwrap_err().to_string();
    for part in ["from-the-future", "tokenizer.ggml.pre", "pre-tokenizer option", "llama-bpe"] {
        assert!(error.contains(part), "{error}");
    }
    let opts = TokenizerOptions { pre: Some("gpt-2".into()) };
    assert!(Tokenizer::from_gguf(meta.file().metadata(), &opts).is_ok());
    let opts = TokenizerOptions { pre: Some("nonsense".into()) };
    assert!(Tokenizer::from_gguf(meta.file().metadata(), &opts).is_err());
}

#[test]
fn a_file_without_a_pre_tokenizer_gets_the_default() {
    let mut meta = bpe("", &["1 2", "12 3", "123 4"]);
    meta.remove("tokenizer.ggml.pre");
    check(&meta.build(), &[("1234", &["123", "4"])]);
}

#[test]
fn text_that_merges_make_and_that_is_no_token_falls_back_to_bytes() {
    let mut meta = bpe("gpt-2", &["a b", "ab c"]);
    meta.rename("ab", "unreachable");
    // "ab" still leads to "abc", but cannot stand.
    check(&meta.build(), &[("abc", &["abc"]), ("abd", &["a", "b", "d"])]);
}

#[test]
fn a_byte_that_is_no_token_is_unknown_or_nothing() {
    let mut meta = bpe("gpt-2", &[]);
    meta.rename("z", "no longer z");
    check(&meta.clone().build(), &[("xzx", &["x", "x"])]);
    let meta = meta.token("<unk>", 2).id_of("unknown", "<unk>");
    check(&meta.build(), &[("xzx", &["x", "<unk>", "x"])]);
}

#[test]
fn raw_merges_run_over_lines_and_fall_back_to_bytes() {
    let meta = Meta::new("gemma4")
        .bytes_as_hex()
        .tokens(&["▁", "a", "b", "\n", "\n\n", "▁a", "ab", "▁ab", "b▁", "é"])
        .merges(&["▁ a", "a b", "▁a b", "▁ ab"])
        .token("<bos>", 3)
        .id_of("bos", "<bos>");
    let tokenizer = meta.build();
    check(
        &tokenizer,
        &[
            ("ab ab a", &["ab", "▁ab", "▁a"]),
            ("a\n\nb\n", &["a", "\n\n", "b", "\n"]),
            ("é", &["é"]),
            ("中", &["<0xE4>", "<0xB8>", "<0xAD>"]),
        ],
    );
    assert_eq!(texts(&tokenizer, "a", SPECIAL), ["<bos>", "a"]);
    assert_eq!(tokenizer.decode(&tokenizer.encode(" ab 中\n", PLAIN).unwrap(), false), " ab 中\n");
}

#[test]
fn neighbours_are_joined_by_score_then_from_the_left() {
    let meta = spm(&[
        ("▁", -1.0),
        ("a", -9.0),
        ("b", -9.0),
        ("c", -9.0),
        ("ab", -2.0),
        ("bc", -1.5),
        ("abc", -5.0),
        ("aa", -3.0),
        ("▁a", -4.0),
    ]);
    check(
        &meta.build(),
        &[
            // "bc" comes first, and then "▁a" before "abc".
            ("abc", &["▁a", "bc"]),
            ("bc", &["▁", "bc"]),
            ("aaa", &["▁", "aa", "a"]),
            ("a", &["▁a"]),
            ("ba a", &["▁", "b", "a", "▁a"]),
            ("é", &["▁", "<0xC3>", "<0xA9>"]),
        ],
    );
    let meta = meta.with_bool("tokenizer.ggml.add_space_prefix", false);
    check(&meta.build(), &[("abc", &["abc"]), (" abc", &["▁a", "bc"]), ("", &[])]);
}

#[test]
fn what_is_no_byte_token_either_is_unknown() {
    let meta = Meta::new("llama").scored(&[("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("a", -1.0, 1)]);
    let meta = meta.with_bool("tokenizer.ggml.add_space_prefix", false);
    check(&meta.build(), &[("aéa", &["a", "<unk>", "<unk>", "a"])]);
}

#[test]
fn the_space_before_a_text_comes_and_goes() {
    let tokenizer = spm(&[("▁", -1.0), ("a", -9.0), ("▁a", -2.0)]).token("<x>", 3).build();
    assert_eq!(texts(&tokenizer, "a", SPECIAL), ["<s>", "▁a"]);
    // It stands again after a special token.
    assert_eq!(texts(&tokenizer, "a<x>a", SPECIAL), ["<s>", "▁a", "<x>", "▁a"]);
    let tokens = tokenizer.encode("a a", SPECIAL).unwrap();
    assert_eq!(tokenizer.decode(&tokens, false), "a a");
    assert_eq!(tokenizer.decode(&tokens, true), "<s>a a");
    // What goes on from a prompt keeps it.
    let mut stream = tokenizer.decoder();
    assert_eq!(stream.push(tokens[1]), " a");
}

#[test]
fn special_tokens_are_parsed_only_on_request() {
    let tokenizer = bpe("gpt-2", &["i m"])
        .token("<|im_start|>", 3)
        .token("<tool>", 4)
        .token("<tool>x", 3)
        .build();
    let text = "<|im_start|>a<tool>xa";
    assert_eq!(texts(&tokenizer, text, SPECIAL), ["<|im_start|>", "a", "<tool>x", "a"]);
    let plain = texts(&tokenizer, text, PLAIN);
    assert_eq!(plain[..4], ["<", "|", "im", "_"]);
    // A user-defined token is text that is never cut.
    assert_eq!(plain[plain.len() - 3..], ["<tool>", "x", "a"]);
    let control = tokenizer.token_id("<|im_start|>").unwrap();
    assert!(tokenizer.is_control(control) && tokenizer.is_special(control));
    assert_eq!(tokenizer.decode(&[control], false), "");
    assert_eq!(tokenizer.decode(&[control], true), "<|im_start|>");
    assert_eq!(tokenizer.token_bytes(control).unwrap(), b"<|im_start|>");
}

#[test]
fn tokens_swallow_the_space_around_them_where_the_model_is_known_for_it() {
    let phi = bpe("gpt-2", &[])
        .with_str("general.name", "Phi-3 mini")
        .token("<|user|>", 3)
        .token("<s>", 3)
        .build();
    assert_eq!(texts(&phi, "a <|user|> \n\t b", SPECIAL), ["a", "Ġ", "<|user|>", "b"]);
    assert_eq!(texts(&phi, "<s> b", SPECIAL), ["<s>", "Ġ", "b"]);
    let jina = bpe("jina-v2-code", &[]).token("<mask>", 3).build();
    assert_eq!(texts(&jina, "a \n<mask> b", SPECIAL), ["a", "<mask>", "Ġ", "b"]);
    let other = bpe("gpt-2", &[]).token("<mask>", 3).build();
    assert_eq!(texts(&other, "a <mask>", SPECIAL), ["a", "Ġ", "<mask>"]);
}

#[test]
fn sequences_begin_and_end_as_the_file_says_or_its_kind_does() {
    let ends = |meta: &Meta| {
        let tokenizer = meta.build();
        let texts = texts(&tokenizer, "a", SPECIAL);
        (texts.first().unwrap() == "<s>", texts.last().unwrap() == "</s>")
    };
    let named = |pre: &str| {
        let meta = bpe(pre, &[]).token("<s>", 3).token("</s>", 3);
        meta.id_of("bos", "<s>").id_of("eos", "</s>")
    };
    assert_eq!(ends(&named("gpt-2")), (false, false));
    assert_eq!(ends(&named("llama-bpe")), (true, false));
    let says = |bos, eos| {
        named("llama-bpe")
            .with_bool("tokenizer.ggml.add_bos_token", bos)
            .with_bool("tokenizer.ggml.add_eos_token", eos)
    };
    assert_eq!(ends(&says(false, true)), (false, true));
    assert_eq!(ends(&says(true, true)), (true, true));
    assert_eq!(ends(&spm(&[("a", -1.0)])), (true, false));
    assert_eq!(ends(&unigram(&[("a", -1.0)])), (false, true));
    assert_eq!(texts(&wordpiece(&["▁a"]).build(), "a", SPECIAL), ["[CLS]", "▁a", "[SEP]"]);
}

#[test]
fn a_byte_pair_file_that_names_no_ends_has_none() {
    let tokenizer = bpe("llama-bpe", &[]).build();
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.pad()), (None, None, None));
    assert_eq!(texts(&tokenizer, "a", SPECIAL), ["a"]);
}

#[test]
fn generation_ends_at_the_tokens_that_are_known_for_it() {
    let tokenizer = bpe("gpt-2", &[])
        .token("<|im_end|>", 1)
        .token("<end_of_turn>", 3)
        .token("<|other|>", 3)
        .token("<my_eos>", 3)
        .id_of("eos", "<my_eos>")
        .build();
    let id = |text| tokenizer.token_id(text).unwrap();
    for text in ["<|im_end|>", "<end_of_turn>", "<my_eos>"] {
        assert!(tokenizer.is_eog(id(text)), "{text}");
        assert!(tokenizer.is_control(id(text)), "{text}");
    }
    assert!(!tokenizer.is_eog(id("<|other|>")));
    assert_eq!(tokenizer.eot(), Some(id("<|im_end|>")));
    // In Harmony <|end|> ends a message, and the answer goes on.
    let harmony = ["<|return|>", "<|call|>", "<|end|>"];
    let tokenizer =
        harmony.iter().fold(bpe("gpt-4o", &[]), |meta, text| meta.token(text, 3)).build();
    let eog: Vec<_> =
        tokenizer.eog_tokens().iter().map(|&id| tokenizer.token_text(id).unwrap()).collect();
    assert_eq!(eog, ["<|return|>", "<|call|>"]);
}

#[test]
fn words_are_normalized_and_covered_by_the_longest_pieces() {
    let pieces = ["▁un", "▁unaff", "aff", "able", "▁a", "▁!", "▁中", "▁ω"];
    let tokenizer = wordpiece(&pieces).build();
    check(
        &tokenizer,
        &[
            ("unaffable", &["▁unaff", "able"]),
            ("UNaffable", &["▁unaff", "able"]),
            ("Á a\u{301} ä", &["▁a", "▁a", "▁a"]),
            ("a!a", &["▁a", "▁!", "▁a"]),
            ("a中a", &["▁a", "▁中", "▁a"]),
            ("a\u{200b}\u{0}\u{fffd}!", &["▁a", "▁!"]),
            ("a\u{3000}a\u{a0}\ta\n", &["▁a", "▁a", "▁a"]),
            ("unx", &["[UNK]"]),
            ("aff", &["[UNK]"]),
            ("Ω", &["▁ω"]),
            ("▁", &["[UNK]"]),
        ],
    );
    let long = "a".repeat(101);
    check(&tokenizer, &[(&long, &["[UNK]"])]);
    let cased =
        wordpiece(&["▁A", "▁a", "▁Á"]).with_bool("tokenizer.ggml.normalizer.lowercase", false);
    check(&cased.build(), &[("A a Á", &["▁A", "▁a", "▁Á"])]);
}

#[test]
fn the_likeliest_cover_of_a_text_is_found() {
    let tokens = [("▁", -3.0), ("a", -4.0), ("b", -4.0), ("ab", -9.0), ("▁a", -4.5), ("▁ab", -9.5)];
    let meta = unigram(&tokens)
        .with_bool("tokenizer.ggml.add_space_prefix", true)
        .with_bool("tokenizer.ggml.remove_extra_whitespaces", true);
    check(
        &meta.clone().build(),
        &[
            ("", &[]),
            ("   ", &[]),
            ("ab", &["▁a", "b"]),
            ("  a   ab ", &["▁a", "▁a", "b"]),
            // Unknown characters side by side are one token.
            ("aéüa", &["▁a", "<unk>", "a"]),
        ],
    );
    let tokenizer = meta.with_bool("tokenizer.ggml.remove_extra_whitespaces", false).build();
    check(&tokenizer, &[("a  a", &["▁a", "▁", "▁a"])]);
    assert_eq!(tokenizer.decode(&tokenizer.encode("a  ab", PLAIN).unwrap(), false), "a  ab");
}

#[test]
fn user_defined_tokens_of_a_unigram_model_cost_nothing() {
    let meta = unigram(&[("a", -1.0), ("b", -1.0)]).scored(&[("ab<x>", -100.0, 4)]);
    check(&meta.build(), &[("ab<x>", &["ab<x>"])]);
}

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
    ];
    for (meta, parts) in cases {
        let error = meta.try_build().expect_err(parts[0]).to_string();
        for part in parts {
            assert!(error.contains(part), "{part:?} not in {error:?}");
        }
    }
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
            let start = std::time::Instant::now();
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
fn tokenizers_are_shared_between_threads() {
    fn shared<T: Send + Sync>(_: &T) {}
    shared(&bpe("gpt-2", &[]).build());
}

/// A tokenizer of each kind, to be built once.
fn one_of_each() -> Vec<Tokenizer> {
    let merges =
        ["t h", "th e", "Ġ the", "a n", "an d", "Ġ and", "Ã ©", "ð Ł", "Ċ Ċ", "Ġ Ġ", "1 2", "' s"];
    let scored = [
        ("▁", -1.0),
        ("▁a", -2.0),
        ("a", -3.0),
        ("b", -3.0),
        ("ab", -2.5),
        ("é", -4.0),
        ("▁▁", -5.0),
    ];
    let mut all: Vec<_> = ["gpt-2", "llama-bpe", "qwen2", "smollm", "deepseek-v3", "gpt-4o"]
        .iter()
        .map(|pre| bpe(pre, &merges).token("<tool>", 4).token("<|end|>", 3).build())
        .collect();
    all.push(spm(&scored).token("<x>", 3).build());
    all.push(spm(&scored).with_bool("tokenizer.ggml.add_space_prefix", false).build());
    all.push(wordpiece(&["▁a", "a", "▁b", "b", "▁!"]).build());
    all.push(unigram(&scored).with_bool("tokenizer.ggml.add_space_prefix", true).build());
    all.push(
        Meta::new("gemma4")
            .bytes_as_hex()
            .tokens(&["▁", "a", "b", "▁a", "ab", "\n"])
            .merges(&["▁ a", "a b"])
            .build(),
    );
    all
}

fn each_tokenizer(
    f: impl Fn(&Tokenizer) -> Result<(), TestCaseError>,
) -> Result<(), TestCaseError> {
    static ALL: std::sync::OnceLock<Vec<Tokenizer>> = std::sync::OnceLock::new();
    ALL.get_or_init(one_of_each).iter().try_for_each(f)
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(text in any_text()) {
        each_tokenizer(|tokenizer| {
            // U+2581 is a space to SentencePiece and its relatives; the other kinds normalize.
            let raw = tokenizer.token_id("▁").is_some() && text.contains('▁');
            if matches!(tokenizer.kind(), Kind::Bpe | Kind::Spm) && !raw {
                let tokens = tokenizer.encode(&text, PLAIN).unwrap();
                prop_assert_eq!(tokenizer.decode(&tokens, false), text.clone());
                if tokenizer.kind() == Kind::Bpe {
                    let tokens = tokenizer.encode(&text, SPECIAL).unwrap();
                    prop_assert_eq!(tokenizer.decode(&tokens, true), text.clone());
                }
            }
            Ok(())
        })?;
    }

    #[test]
    fn streaming_gives_the_text_of_the_whole(ids in prop::collection::vec(0u32..400, 0..40), special: bool) {
        each_tokenizer(|tokenizer| {
            let mut stream = tokenizer.decoder().with_special(special).from_start();
            let mut text = String::new();
            for &id in &ids {
                text += stream.push(id);
            }
            text += stream.finish();
            prop_assert_eq!(text, tokenizer.decode(&ids, special));
            Ok(())
        })?;
    }

    #[test]
    fn no_vocabulary_and_no_text_make_it_panic(
        model in prop::sample::select(vec!["gpt2", "gemma4", "whitespace", "llama", "bert", "t5"]),
        pre in prop::sample::select(vec!["gpt-2", "llama-bpe", "deepseek-llm", "superbpe", "whitespace", "default"]),
        tokens in prop::collection::vec((token_text(), -1i32..8, any::<f32>()), 0..40),
        merges in prop::collection::vec((token_text(), token_text()), 0..20),
        ids in prop::collection::vec(0u32..50, 12),
        flags in prop::collection::vec(any::<bool>(), 6),
        charsmap in prop::collection::vec(any::<u8>(), 0..40),
        text in any_text(),
    ) {
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
    }
}

fn any_text() -> impl Strategy<Value = String> {
    let parts = prop_oneof![
        4 => prop::sample::select(vec![
            "the", " and", "a", "ab", " ", "  ", "\n", "\n\n", "12", "é", "😀", "'s", "▁", "<tool>", "<|end|>",
            "<x>", "<s>", "<0x0A>", "e\u{301}", "中", "!", "\t", "\0", "x",
        ]).prop_map(String::from),
        1 => any::<String>(),
    ];
    prop::collection::vec(parts, 0..12).prop_map(|parts| parts.concat())
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

#[test]
fn the_fixture_writes_the_alphabet_of_bytes() {
    assert_eq!((byte_char(b' '), byte_char(b'a'), byte_char(0xff)), ('Ġ', 'a', 'ÿ'));
}
