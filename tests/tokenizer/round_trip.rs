//! Encoding and decoding undo each other, whole or streamed.

use std::sync::OnceLock;

use proptest::prelude::*;
use siskin::tokenizer::{Kind, Tokenizer};

use crate::fixture::{Meta, bpe, spm, unigram, wordpiece};
use crate::{PLAIN, SPECIAL};

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
    static ALL: OnceLock<Vec<Tokenizer>> = OnceLock::new();
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
}

/// Texts of what tokenizers tell apart, with anything between.
pub fn any_text() -> impl Strategy<Value = String> {
    let parts = prop_oneof![
        4 => prop::sample::select(vec![
            "the", " and", "a", "ab", " ", "  ", "\n", "\n\n", "12", "é", "😀", "'s", "▁", "<tool>", "<|end|>",
            "<x>", "<s>", "<0x0A>", "e\u{301}", "中", "!", "\t", "\0", "x",
        ]).prop_map(String::from),
        1 => any::<String>(),
    ];
    prop::collection::vec(parts, 0..12).prop_map(|parts| parts.concat())
}
