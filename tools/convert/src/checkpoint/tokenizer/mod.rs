//! Tokenizers: from the hub's files to the keys under `tokenizer.`.

mod chat;
mod hub;
mod sentencepiece;
mod special;
mod vocab;

use std::collections::HashSet;
use std::path::Path;

use serde_json::{Map, Value};
use siskin::model::tensor_names::Sizes;
use siskin::tokenizer::recognize_pre_tokenizer;

use super::config::Config;
use super::families::Family;
use super::json;
use super::keys::Keys;
use crate::{Error, Result};
use hub::{TokenizerJson, VocabJson};
use sentencepiece::SentencePiece;
use vocab::{TokenType, Tokens};

/// The files of a folder that say how text becomes tokens.
struct Files<'a> {
    dir: &'a Path,
    /// tokenizer.json, as it is and as read.
    json: Option<(String, TokenizerJson)>,
    /// tokenizer_config.json; empty if there is none.
    config: Map<String, Value>,
}

/// Adds the keys of the tokenizer in `dir`.
pub(super) fn add(
    dir: &Path,
    config: &Config,
    family: &Family,
    sizes: &Sizes,
    keys: &mut Keys,
    notes: &mut Vec<String>,
) -> Result<()> {
    let path = dir.join("tokenizer.json");
    let json = if path.is_file() {
        let text = json::text(&path)?;
        let parsed = json::parse(&path, &text)?;
        Some((text, parsed))
    } else {
        None
    };
    let settings = json::read_if_there(&dir.join("tokenizer_config.json"))?.unwrap_or_default();
    let files = Files { dir, json, config: settings };
    let mut tokens = Tokens::new(sizes.n_vocab);
    let model = dir.join("tokenizer.model");
    let words = dir.join("vocab.txt");
    let encoder = family.arch == "bert";
    match &files.json {
        _ if model.is_file() && !encoder => {
            let pieces = SentencePiece::parse(&model, &json::bytes(&model)?)?;
            from_sentencepiece(&files, &model, pieces, &mut tokens, family, keys)?;
        }
        Some((_, json)) => match (json.kind(), encoder) {
            ("BPE", false) if json.byte_level() => {
                byte_level(&path, json, &mut tokens, keys, notes)?;
            }
            ("BPE", false) if json.escapes_spaces() => {
                spm_of_merges(&path, json, &mut tokens, family, keys)?
            }
            ("Unigram", false) => unigram(&path, json, &mut tokens, keys)?,
            ("WordPiece", true) => {
                let Some(VocabJson::Ids(vocab)) = &json.model.vocab else {
                    return Err(Error::file(&path, "model.vocab is missing"));
                };
                word_pieces(&path, vocab, json, &mut tokens, keys)?;
            }
            (kind, _) => {
                let arch = family.arch;
                let pre = json.pre_tokenizer.get("type").and_then(Value::as_str);
                let pre = pre.unwrap_or("none");
                let reason = format!(
                    "a tokenizer of kind {kind:?} with the pre-tokenizer {pre:?} is not supported \
                     for `{arch}`"
                );
                return Err(Error::file(&path, reason));
            }
        },
        None if encoder && words.is_file() => {
            let text = json::text(&words)?;
            let vocab: Vec<(String, u32)> =
                text.lines().zip(0..).map(|(word, id)| (word.to_string(), id)).collect();
            word_pieces(&words, &vocab, &TokenizerJson::default(), &mut tokens, keys)?;
        }
        None => {
            let reason = "no tokenizer here: neither tokenizer.json nor tokenizer.model";
            return Err(Error::file(dir, reason));
        }
    }
    notes.extend(tokens.note());
    let unknown = tokens.unknown();
    tokens.put(keys);
    special::add(&files, config, sizes.n_vocab, unknown, keys);
    if let Some((_, json)) = &files.json {
        let (lowercase, strip_accents) = json.normalization();
        keys.set_opt("tokenizer.ggml.normalizer.lowercase", lowercase);
        keys.set_opt("tokenizer.ggml.normalizer.strip_accents", strip_accents);
    }
    chat::add(&files, keys)?;
    if let Some((text, _)) = files.json {
        keys.set("tokenizer.huggingface.json", text);
    }
    Ok(())
}

/// GPT-2's kind: merges of bytes.
fn byte_level(
    path: &Path,
    json: &TokenizerJson,
    tokens: &mut Tokens,
    keys: &mut Keys,
    notes: &mut Vec<String>,
) -> Result<()> {
    json.no_affixes(path)?;
    if json.leaves_text(path)? {
        notes.push(
            "the tokenizer composes text (NFC), of which the file cannot tell: text with letters \
             and accents apart becomes other tokens"
                .to_string(),
        );
    }
    let Some(VocabJson::Ids(vocab)) = &json.model.vocab else {
        return Err(Error::file(path, "model.vocab is missing"));
    };
    for (text, id) in vocab {
        tokens.set(path, *id, text, TokenType::Normal, 0.0)?;
    }
    json.add_tokens(tokens, 0.0);
    let merges = json.merges(path)?;
    let ignore_merges = json.model.ignore_merges.unwrap_or(false);
    let pre = recognize_pre_tokenizer(&json.pre_tokenizer.to_string(), ignore_merges);
    let pre = pre.map_err(|e| Error::file(path, e.to_string()))?;
    if pre.is_none() {
        notes.push(
            "the pre-tokenizer's patterns are new: they are kept in tokenizer.huggingface.json, by \
             which Siskin cuts text; llama.cpp will refuse the file"
                .to_string(),
        );
    }
    keys.set("tokenizer.ggml.model", "gpt2");
    keys.set("tokenizer.ggml.pre", pre.unwrap_or("huggingface"));
    keys.set("tokenizer.ggml.merges", merges);
    tokens.without_scores();
    Ok(())
}

/// SentencePiece's byte-pair kind as a tokenizer.json has it: merges of characters. A piece's score
/// is the order in which the merges make it.
fn spm_of_merges(
    path: &Path,
    json: &TokenizerJson,
    tokens: &mut Tokens,
    family: &Family,
    keys: &mut Keys,
) -> Result<()> {
    json.no_affixes(path)?;
    let Some(VocabJson::Ids(vocab)) = &json.model.vocab else {
        return Err(Error::file(path, "model.vocab is missing"));
    };
    let ranks = json.ranks(path)?;
    let last = -(ranks.len() as f32);
    for (text, id) in vocab {
        let ty = match () {
            () if json.model.unk_token.as_deref() == Some(text) => TokenType::Unknown,
            () if vocab::is_byte(text) => TokenType::Byte,
            () => TokenType::Normal,
        };
        let score = ranks.get(text.as_bytes()).map_or(last, |rank| -(*rank as f32));
        tokens.set(path, *id, text, ty, score)?;
    }
    json.add_tokens(tokens, -1000.0);
    keys.set("tokenizer.ggml.model", "llama");
    keys.set("tokenizer.ggml.pre", "default");
    let prefix = family.space_prefix.unwrap_or_else(|| json.adds_space());
    keys.set("tokenizer.ggml.add_space_prefix", prefix);
    Ok(())
}

fn unigram(path: &Path, json: &TokenizerJson, tokens: &mut Tokens, keys: &mut Keys) -> Result<()> {
    let Some(VocabJson::Scores(vocab)) = &json.model.vocab else {
        return Err(Error::file(path, "model.vocab is not a list of pieces with scores"));
    };
    for ((text, score), id) in vocab.iter().zip(0..) {
        let unknown = json.model.unk_id == Some(id);
        let ty = if unknown { TokenType::Unknown } else { TokenType::Normal };
        tokens.set(path, id, text, ty, *score)?;
    }
    json.add_tokens(tokens, 0.0);
    keys.set("tokenizer.ggml.model", "t5");
    keys.set("tokenizer.ggml.pre", "default");
    keys.set("tokenizer.ggml.add_space_prefix", json.adds_space());
    keys.set("tokenizer.ggml.remove_extra_whitespaces", true);
    keys.set_opt("tokenizer.ggml.precompiled_charsmap", json.charsmap(path)?);
    Ok(())
}

/// BERT's kind. Pieces that begin a word are written with U+2581 before, the others without `##`.
fn word_pieces(
    path: &Path,
    vocab: &[(String, u32)],
    json: &TokenizerJson,
    tokens: &mut Tokens,
    keys: &mut Keys,
) -> Result<()> {
    const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    // What was added is found in the text as it is, and goes before the vocabulary.
    let added: HashSet<u32> = json.added_tokens.iter().map(|added| added.id).collect();
    for (text, id) in vocab.iter().filter(|(_, id)| !added.contains(id)) {
        if SPECIAL.contains(&text.as_str()) {
            tokens.set(path, *id, text, TokenType::Control, 0.0)?;
            continue;
        }
        let piece = match text.strip_prefix("##") {
            Some(inner) => inner.to_string(),
            None => format!("\u{2581}{text}"),
        };
        tokens.set(path, *id, &piece, TokenType::Normal, 0.0)?;
    }
    json.add_tokens(tokens, 0.0);
    keys.set("tokenizer.ggml.model", "bert");
    keys.set("tokenizer.ggml.pre", "bert-bge");
    tokens.without_scores();
    Ok(())
}

fn from_sentencepiece(
    files: &Files<'_>,
    path: &Path,
    model: SentencePiece,
    tokens: &mut Tokens,
    family: &Family,
    keys: &mut Keys,
) -> Result<()> {
    for (piece, id) in model.pieces.iter().zip(0..) {
        tokens.set(path, id, &piece.text, piece.ty, piece.score)?;
    }
    // Older folders list what was added in a file of its own.
    let added = files.dir.join("added_tokens.json");
    if let Some(added) = json::read_if_there::<std::collections::BTreeMap<String, u32>>(&added)? {
        for (text, id) in added {
            tokens.add(id, &text, false, -1000.0);
        }
    }
    let decoder = files.config.get("added_tokens_decoder").and_then(Value::as_object);
    match (decoder, &files.json) {
        (Some(decoder), _) => {
            for (id, token) in decoder {
                let text = token.get("content").and_then(Value::as_str);
                let (Ok(id), Some(text)) = (id.parse(), text) else {
                    let reason = format!("added_tokens_decoder: {id:?} is not a token");
                    return Err(Error::file(&files.dir.join("tokenizer_config.json"), reason));
                };
                let special = token.get("special") == Some(&Value::Bool(true));
                tokens.add(id, text, special, -1000.0);
            }
        }
        (None, Some((_, json))) => json.add_tokens(tokens, -1000.0),
        (None, None) => {}
    }
    if model.unigram {
        keys.set("tokenizer.ggml.model", "t5");
        keys.set("tokenizer.ggml.remove_extra_whitespaces", model.remove_extra_whitespaces);
        let map = Some(model.charsmap).filter(|map| !map.is_empty());
        keys.set_opt("tokenizer.ggml.precompiled_charsmap", map);
    } else {
        keys.set("tokenizer.ggml.model", "llama");
    }
    keys.set("tokenizer.ggml.pre", "default");
    let given = match files.config.get("add_prefix_space") {
        Some(Value::Bool(b)) => Some(*b),
        _ => None,
    };
    let prefix = family.space_prefix.or(given).or((!model.add_dummy_prefix).then_some(false));
    keys.set_opt("tokenizer.ggml.add_space_prefix", prefix);
    Ok(())
}

/// Whether the texts of a tokenizer.json and a tokenizer_config.json are understood, for fuzzing: as
/// [`Checkpoint::open`](super::Checkpoint::open) does for a model of `n_vocab` tokens.
///
/// # Errors
/// What is wrong with it.
#[doc(hidden)]
pub fn check_tokenizer(text: &str, settings: &str, n_vocab: usize) -> Result<()> {
    let path = Path::new("<memory>");
    let settings = json::parse(path, settings)?;
    let parsed: TokenizerJson = json::parse(path, text)?;
    let (mut tokens, mut keys) = (Tokens::new(n_vocab), Keys::default());
    let mut notes = Vec::new();
    match parsed.kind() {
        "BPE" if parsed.byte_level() => {
            byte_level(path, &parsed, &mut tokens, &mut keys, &mut notes)?;
        }
        "BPE" => {
            let family = Family::of_class("LlamaForCausalLM");
            let family = family.ok_or_else(|| Error::Invalid("no family".to_string()))?;
            spm_of_merges(path, &parsed, &mut tokens, family, &mut keys)?;
        }
        "Unigram" => unigram(path, &parsed, &mut tokens, &mut keys)?,
        _ => {
            if let Some(VocabJson::Ids(vocab)) = &parsed.model.vocab {
                word_pieces(path, vocab, &parsed, &mut tokens, &mut keys)?;
            }
        }
    }
    let unknown = tokens.unknown();
    tokens.put(&mut keys);
    let json = Some((String::new(), parsed));
    let files = Files { dir: Path::new("<memory>"), json, config: settings };
    special::add(&files, &Config::parse(path, "{}")?, n_vocab, unknown, &mut keys);
    chat::add(&files, &mut keys)?;
    let mut builder = siskin::gguf::Builder::new();
    keys.put(&mut builder)
}

/// As [`check_tokenizer`], of a tokenizer.model.
#[doc(hidden)]
pub fn check_sentencepiece(bytes: &[u8]) -> Result<usize> {
    Ok(SentencePiece::parse(Path::new("<memory>"), bytes)?.pieces.len())
}
