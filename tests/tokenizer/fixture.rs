//! Vocabularies made by hand, and the GGUF bytes of them.

use siskin::Result;
use siskin::gguf::{Builder, Bytes, GgufFile};
use siskin::tokenizer::{Tokenizer, TokenizerOptions};

#[derive(Clone)]
enum Value {
    U32(u32),
    Bool(bool),
    Str(Vec<u8>),
    Strings(Vec<Vec<u8>>),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
    U8s(Vec<u8>),
}

/// The metadata of a file that holds nothing but a vocabulary.
#[derive(Clone)]
pub struct Meta {
    values: Vec<(String, Value)>,
    tokens: Vec<(Vec<u8>, i32, f32)>,
    merges: Option<Vec<Vec<u8>>>,
}

impl Meta {
    pub fn empty() -> Meta {
        Meta { values: Vec::new(), tokens: Vec::new(), merges: None }
    }

    pub fn new(model: &str) -> Meta {
        Meta::empty().with_str("tokenizer.ggml.model", model)
    }

    fn with(mut self, key: &str, value: Value) -> Meta {
        self.remove(key);
        self.values.push((key.to_string(), value));
        self
    }

    pub fn remove(&mut self, key: &str) {
        self.values.retain(|(k, _)| k != key);
    }

    pub fn without(mut self, key: &str) -> Meta {
        match key {
            "tokenizer.ggml.tokens" => self.tokens.clear(),
            "tokenizer.ggml.merges" => self.merges = None,
            _ => self.remove(key),
        }
        self
    }

    pub fn with_str(self, key: &str, value: &str) -> Meta {
        self.with(key, Value::Str(value.into()))
    }

    pub fn with_bool(self, key: &str, value: bool) -> Meta {
        self.with(key, Value::Bool(value))
    }

    pub fn with_u32(self, key: &str, value: u32) -> Meta {
        self.with(key, Value::U32(value))
    }

    pub fn with_strings(self, key: &str, values: &[&str]) -> Meta {
        self.with(key, Value::Strings(values.iter().map(|v| v.as_bytes().to_vec()).collect()))
    }

    pub fn with_i32s(self, key: &str, values: &[i32]) -> Meta {
        self.with(key, Value::I32s(values.to_vec()))
    }

    pub fn with_f32s(self, key: &str, values: &[f32]) -> Meta {
        self.with(key, Value::F32s(values.to_vec()))
    }

    pub fn with_u8s(self, key: &str, values: &[u8]) -> Meta {
        self.with(key, Value::U8s(values.to_vec()))
    }

    /// Names the token of a text as `tokenizer.ggml.{name}_token_id`.
    pub fn id_of(self, name: &str, text: &str) -> Meta {
        let id = self.tokens.iter().position(|(t, ..)| t == text.as_bytes()).expect(text);
        self.with_u32(&format!("tokenizer.ggml.{name}_token_id"), id as u32)
    }

    pub fn token_bytes(mut self, text: &[u8], kind: i32) -> Meta {
        self.tokens.push((text.to_vec(), kind, 0.0));
        self
    }

    pub fn token(self, text: &str, kind: i32) -> Meta {
        self.token_bytes(text.as_bytes(), kind)
    }

    pub fn tokens(self, texts: &[&str]) -> Meta {
        texts.iter().fold(self, |meta, text| meta.token(text, 1))
    }

    pub fn scored(mut self, tokens: &[(&str, f32, i32)]) -> Meta {
        self.tokens.extend(tokens.iter().map(|&(text, score, kind)| (text.into(), kind, score)));
        self
    }

    pub fn bytes_as_hex(self) -> Meta {
        (0..256).fold(self, |meta, byte| meta.token(&format!("<0x{byte:02X}>"), 6))
    }

    pub fn merges(mut self, merges: &[&str]) -> Meta {
        self.merges = Some(merges.iter().map(|merge| merge.as_bytes().to_vec()).collect());
        self
    }

    pub fn rename(&mut self, from: &str, to: &str) {
        let token = self.tokens.iter_mut().find(|(text, ..)| text == from.as_bytes());
        token.expect(from).0 = to.into();
    }

    pub fn nan_score(mut self) -> Meta {
        self.tokens.last_mut().expect("a token").2 = f32::NAN;
        self
    }

    /// The file as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut all = Vec::new();
        let given = |key: &str| self.values.iter().any(|(k, _)| k == key);
        let mut add = |key: &str, value: Value| {
            if !given(key) {
                all.push((key.to_string(), value));
            }
        };
        if !self.tokens.is_empty() {
            let texts = self.tokens.iter().map(|token| token.0.clone()).collect();
            add("tokenizer.ggml.tokens", Value::Strings(texts));
            let kinds = self.tokens.iter().map(|token| token.1).collect();
            add("tokenizer.ggml.token_type", Value::I32s(kinds));
            let scores = self.tokens.iter().map(|token| token.2).collect();
            add("tokenizer.ggml.scores", Value::F32s(scores));
        }
        if let Some(merges) = &self.merges {
            add("tokenizer.ggml.merges", Value::Strings(merges.clone()));
        }
        all.extend(self.values.iter().cloned());

        let mut builder = Builder::new();
        for (key, value) in &all {
            match value {
                Value::U32(x) => builder.put(key, x),
                Value::Bool(x) => builder.put(key, x),
                Value::Str(x) => builder.put(key, &Bytes(x)),
                Value::Strings(x) => {
                    builder.put(key, &x.iter().map(|text| Bytes(text)).collect::<Vec<_>>())
                }
                Value::I32s(x) => builder.put(key, x),
                Value::F32s(x) => builder.put(key, x),
                Value::U8s(x) => builder.put(key, x),
            }
            .expect("a pair");
        }
        builder.start(Vec::new()).and_then(|writer| writer.finish()).expect("a file")
    }

    pub fn file(&self) -> GgufFile {
        GgufFile::from_bytes(self.to_bytes()).expect("a valid file")
    }

    pub fn try_build(&self) -> Result<Tokenizer> {
        Tokenizer::from_gguf(self.file().metadata(), &TokenizerOptions::default())
    }

    #[track_caller]
    pub fn build(&self) -> Tokenizer {
        self.try_build().expect("a tokenizer")
    }
}

/// The character of a byte in GPT-2's alphabet.
pub fn byte_char(byte: u8) -> char {
    let printable = |b: u8| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return byte as char;
    }
    let before = (0..byte).filter(|&b| !printable(b)).count();
    char::from_u32(0x100 + before as u32).expect("a character")
}

/// Byte-pair encoding: all bytes, and what the merges make.
pub fn bpe(pre: &str, merges: &[&str]) -> Meta {
    let meta = Meta::new("gpt2").with_str("tokenizer.ggml.pre", pre);
    let meta = (0..=255).fold(meta, |meta, byte| meta.token(&byte_char(byte).to_string(), 1));
    let meta = merges.iter().fold(meta, |meta, merge| meta.token(&merge.replace(' ', ""), 1));
    meta.merges(merges)
}

/// SentencePiece: `<unk>`, `<s>`, `</s>`, all bytes, and tokens with their scores.
pub fn spm(tokens: &[(&str, f32)]) -> Meta {
    let meta = Meta::new("llama").token("<unk>", 2).token("<s>", 3).token("</s>", 3).bytes_as_hex();
    tokens.iter().fold(meta, |meta, &(text, score)| meta.scored(&[(text, score, 1)]))
}

/// WordPiece: the tokens with a part to play at the ids that the file then names.
pub fn wordpiece(tokens: &[&str]) -> Meta {
    let meta = Meta::new("bert");
    let meta =
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]"].iter().fold(meta, |meta, text| meta.token(text, 3));
    let meta = meta.tokens(tokens);
    let named =
        [("padding", "[PAD]"), ("unknown", "[UNK]"), ("cls", "[CLS]"), ("seperator", "[SEP]")];
    named.iter().fold(meta, |meta, (name, text)| meta.id_of(name, text))
}

/// Unigram: `<pad>`, `</s>`, `<unk>`, and tokens with their scores.
pub fn unigram(tokens: &[(&str, f32)]) -> Meta {
    let meta = Meta::new("t5").token("<pad>", 3).token("</s>", 3).token("<unk>", 2);
    tokens.iter().fold(meta, |meta, &(text, score)| meta.scored(&[(text, score, 1)]))
}
