//! Any text through a tokenizer of each kind. What byte pairs are made of comes back, and a
//! stream gives the text of the whole.
//!
//! The first byte picks the tokenizer.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use siskin::gguf::{Builder, GgufFile};
use siskin::tokenizer::{EncodeOptions, Kind, Tokenizer, TokenizerOptions};

/// The character of a byte in GPT-2's alphabet.
fn byte_char(byte: u8) -> char {
    let printable = |b: u8| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let before = (0..byte).filter(|&b| !printable(b)).count() as u32;
    let c = if printable(byte) { u32::from(byte) } else { 0x100 + before };
    char::from_u32(c).expect("a character")
}

fn build(model: &str, pre: &str) -> Tokenizer {
    const MERGES: [&str; 8] = ["a a", "aa aa", "Ġ a", "Ġ Ġ", "Ċ Ċ", "Ã ©", "ð Ł", "▁ a"];
    let mut tokens: Vec<String> = match model {
        "gpt2" => (0..=255).map(|byte| byte_char(byte).to_string()).collect(),
        "bert" => ["[UNK]", "▁a", "a", "▁!", "▁é"].map(String::from).to_vec(),
        _ => (0..256).map(|byte| format!("<0x{byte:02X}>")).collect(),
    };
    let mut types = vec![if tokens[0].starts_with("<0x") { 6 } else { 1 }; tokens.len()];
    if model != "bert" {
        tokens.extend(["▁", "a", "\n"].map(String::from));
        tokens.extend(MERGES.iter().map(|merge| merge.replace(' ', "")));
        tokens.extend(["<tool>", "<|end|>"].map(String::from));
        types.resize(tokens.len() - 2, 1);
        types.extend([4, 3]);
    }
    let scores: Vec<f32> = (0..tokens.len()).map(|i| -(i as f32) / 100.0).collect();
    let mut builder = Builder::new();
    let pairs = [
        builder.put("tokenizer.ggml.model", model),
        builder.put("tokenizer.ggml.pre", pre),
        builder.put("tokenizer.ggml.tokens", &tokens),
        builder.put("tokenizer.ggml.token_type", &types),
        builder.put("tokenizer.ggml.scores", &scores),
        builder.put("tokenizer.ggml.merges", &MERGES[..]),
        builder.put("tokenizer.ggml.unknown_token_id", &0u32),
    ];
    pairs.into_iter().collect::<siskin::Result<()>>().expect("pairs");
    let bytes = builder.start(Vec::new()).and_then(|writer| writer.finish()).expect("a file");
    let file = GgufFile::from_bytes(bytes).expect("a file");
    Tokenizer::from_gguf(file.metadata(), &TokenizerOptions::default()).expect("a tokenizer")
}

static ALL: OnceLock<Vec<Tokenizer>> = OnceLock::new();

fuzz_target!(|data: &[u8]| {
    let all = ALL.get_or_init(|| {
        let pre = [
            "gpt-2",
            "llama-bpe",
            "qwen2",
            "qwen35",
            "smollm",
            "default",
            "falcon",
            "jais-2",
            "tekken",
            "gpt-4o",
            "tiny_aya",
            "kimi-k2",
            "youtu",
            "deepseek-llm",
            "deepseek-coder",
            "deepseek-v3",
            "spark2_5",
            "afmoe",
            "bloom",
            "chameleon",
            "superbpe",
            "exaone-moe",
        ];
        let byte_level = pre.iter().map(|pre| build("gpt2", pre));
        let others = ["gemma4", "llama", "bert", "t5"].map(|model| build(model, "default"));
        byte_level.chain(others).collect()
    });
    let Some((&which, text)) = data.split_first() else { return };
    let tokenizer = &all[usize::from(which) % all.len()];
    let text = String::from_utf8_lossy(text);
    let options = EncodeOptions { add_special: false, parse_special: which & 0x80 != 0 };
    let tokens = tokenizer.encode(&text, options).expect("tokens");
    let decoded = tokenizer.decode(&tokens, true);
    let raw = tokenizer.token_id("<0x00>").is_some();
    if tokenizer.kind() == Kind::Bpe && !(raw && text.contains('\u{2581}')) {
        assert_eq!(decoded, text);
    }
    let mut stream = tokenizer.decoder().with_special(true).from_start();
    let mut streamed = String::new();
    for &id in &tokens {
        streamed += stream.push(id);
    }
    streamed += stream.finish();
    assert_eq!(streamed, decoded);
});
