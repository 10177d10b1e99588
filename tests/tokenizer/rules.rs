//! The rules of each kind, on vocabularies small enough to read.

use siskin::tokenizer::{Tokenizer, TokenizerOptions};

use crate::fixture::{Meta, bpe, byte_char, spm, unigram, wordpiece};
use crate::{PLAIN, SPECIAL, texts};

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
fn the_fixture_writes_the_alphabet_of_bytes() {
    assert_eq!((byte_char(b' '), byte_char(b'a'), byte_char(0xff)), ('Ġ', 'a', 'ÿ'));
}
