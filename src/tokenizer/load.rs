//! From the metadata of a file to a [`Tokenizer`].

use super::bpe::Bpe;
use super::charsmap::CharsMap;
use super::pretok::{PreTokenizer, Regexes};
use super::special::Specials;
use super::spm::Spm;
use super::unigram::{Unigram, Whitespace};
use super::vocab::{Vocab, attr};
use super::wordpiece::WordPiece;
use super::{Kind, Model, SpecialTokens, Tokenizer, TokenizerOptions};
use crate::gguf::{Array, Metadata, ValueType};
use crate::{Error, Result};

/// Whether the model "whitespace" lowers letters.
#[derive(Clone, Copy)]
pub(super) struct Lowercase(bool);

impl Lowercase {
    pub(super) fn apply(self, word: &str) -> std::borrow::Cow<'_, str> {
        if self.0 { word.to_lowercase().into() } else { word.into() }
    }
}

fn bad(key: &str, reason: impl std::fmt::Display) -> Error {
    Error::Tokenizer(format!("{key}: {reason}"))
}

impl Tokenizer {
    /// Builds the tokenizer that the metadata of a GGUF file describes.
    pub fn from_gguf(meta: &Metadata, opts: &TokenizerOptions) -> Result<Tokenizer> {
        const MODEL: &str = "tokenizer.ggml.model";
        let model = match meta.str(MODEL)? {
            Some(model) => model,
            None => return Err(bad(MODEL, "missing: the file has no tokenizer")),
        };
        let kind = match model {
            "gpt2" | "gemma4" | "whitespace" => Kind::Bpe,
            "llama" => Kind::Spm,
            "bert" => Kind::WordPiece,
            "t5" => Kind::Unigram,
            other => {
                return Err(bad(
                    MODEL,
                    format!(
                        "{other:?} is not supported; supported are gpt2, gemma4, whitespace, \
                         llama, bert and t5"
                    ),
                ));
            }
        };
        let pre = match kind {
            Kind::Bpe => Some(pre_tokenizer(meta, opts, model)?),
            _ => None,
        };
        let (pre, regexes) = pre.unzip();
        let byte_level = pre.is_some_and(|pre| !pre.raw);
        let mut vocab = read_tokens(meta, byte_level)?;
        let mut ids = special_ids(meta, kind, &vocab)?;
        let add_space_prefix =
            meta.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(kind == Kind::Spm);
        let merge_runs = meta.bool("tokenizer.ggml.remove_extra_whitespaces")?.unwrap_or(false);
        let lowercase = meta.bool("tokenizer.ggml.normalizer.lowercase")?;

        let model = match (kind, pre) {
            (Kind::Bpe, Some(pre)) => {
                const MERGES: &str = "tokenizer.ggml.merges";
                let Some(merges) = meta.array(MERGES)? else {
                    return Err(bad(MERGES, "missing"));
                };
                let regexes = regexes.flatten();
                let bpe = Bpe::new(&vocab, pre, regexes, ids.unk, strings(MERGES, merges)?)?;
                let words = model == "whitespace";
                Model::Bpe {
                    bpe,
                    escape_spaces: pre.escape_spaces,
                    words: words.then_some(Lowercase(lowercase.unwrap_or(false))),
                }
            }
            (Kind::Spm, _) => Model::Spm(Spm::new(&vocab, &read_scores(meta, &vocab)?, ids.unk)),
            (Kind::WordPiece, _) => {
                let lowercase = lowercase.unwrap_or(true);
                let strip_accents = meta.bool("tokenizer.ggml.normalizer.strip_accents")?;
                let strip_accents = strip_accents.unwrap_or(lowercase);
                Model::WordPiece(WordPiece { lowercase, strip_accents, unknown: ids.unk })
            }
            _ => {
                let charsmap = match meta.array("tokenizer.ggml.precompiled_charsmap")? {
                    Some(array) => array.iter_u32().map(|byte| byte as u8).collect(),
                    None => Vec::new(),
                };
                let charsmap = CharsMap::new(&charsmap)?;
                let whitespace = Whitespace { add_prefix: add_space_prefix, merge_runs };
                let scores = read_scores(meta, &vocab)?;
                let model = Unigram::new(&vocab, scores, charsmap, whitespace, ids.unk);
                Model::Unigram(Box::new(model))
            }
        };

        let eog = find_by_text(&mut vocab, &mut ids);
        strip_attributes(meta, &mut vocab)?;
        let default_bos = match kind {
            Kind::Bpe => pre.is_some_and(|pre| pre.add_bos),
            Kind::Unigram => false,
            _ => true,
        };
        let add_bos = meta.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(default_bos);
        let add_eos = meta.bool("tokenizer.ggml.add_eos_token")?.unwrap_or(kind == Kind::Unigram);
        Ok(Tokenizer {
            specials: Specials::new(&vocab)?,
            suppressed: suppressed(meta, &vocab)?,
            vocab,
            model,
            ids,
            eog,
            // Files of Gemma 4 are known to say that they want none.
            add_bos: add_bos || pre.is_some_and(|pre| pre.newline_tokens),
            add_eos,
            add_space_prefix: kind == Kind::Spm && add_space_prefix,
            strip_first_space: match kind {
                Kind::Bpe => false,
                Kind::Spm => add_space_prefix,
                Kind::WordPiece => true,
                Kind::Unigram => add_space_prefix || merge_runs,
            },
        })
    }
}

/// The pre-tokenizer by the options, the model or the file. A file without one, as they were
/// before 2024, gets llama.cpp's "default".
fn pre_tokenizer(
    meta: &Metadata,
    opts: &TokenizerOptions,
    model: &str,
) -> Result<(&'static PreTokenizer, Option<Regexes>)> {
    const PRE: &str = "tokenizer.ggml.pre";
    let (key, name) = match &opts.pre {
        Some(name) => ("pre-tokenizer", name.as_str()),
        None if model == "gemma4" => ("pre-tokenizer", "gemma4"),
        None => (PRE, meta.str(PRE)?.filter(|name| !name.is_empty()).unwrap_or("default")),
    };
    if name == PreTokenizer::HUGGINGFACE {
        return huggingface(meta);
    }
    PreTokenizer::by_name(name).map(|pre| (pre, None)).ok_or_else(|| {
        let known: Vec<_> = PreTokenizer::names().collect();
        bad(
            key,
            format!(
                "{name:?} is not known, and a wrong one would silently spoil the model's output; \
                 if it splits text as one of these does, name that one as the pre-tokenizer \
                 option: {}",
                known.join(", ")
            ),
        )
    })
}

/// What a tokenizer.json says of how text is cut; the rest of it is skipped.
#[derive(serde::Deserialize)]
struct TokenizerJson {
    #[serde(default)]
    pre_tokenizer: serde_json::Value,
    model: TokenizerModel,
}

#[derive(serde::Deserialize)]
struct TokenizerModel {
    #[serde(default)]
    ignore_merges: bool,
}

/// The pre-tokenizer of the tokenizer.json that a file brings along.
fn huggingface(meta: &Metadata) -> Result<(&'static PreTokenizer, Option<Regexes>)> {
    const JSON: &str = "tokenizer.huggingface.json";
    let json = meta.str(JSON)?.ok_or_else(|| bad(JSON, "missing"))?;
    let json: TokenizerJson = serde_json::from_str(json).map_err(|e| bad(JSON, e))?;
    let pre = PreTokenizer::huggingface(json.model.ignore_merges);
    Ok((pre, Some(Regexes::new(&json.pre_tokenizer)?)))
}

/// The strings of an array.
fn strings<'a>(key: &str, array: Array<'a>) -> Result<impl ExactSizeIterator<Item = &'a [u8]>> {
    if array.element_type() == ValueType::String {
        Ok(array.iter_bytes())
    } else {
        Err(bad(key, format!("an array of {:?}, not of strings", array.element_type())))
    }
}

fn read_tokens(meta: &Metadata, byte_level: bool) -> Result<Vocab> {
    const TOKENS: &str = "tokenizer.ggml.tokens";
    const TYPES: &str = "tokenizer.ggml.token_type";
    let tokens = meta.array(TOKENS)?.ok_or_else(|| bad(TOKENS, "missing"))?;
    let tokens = strings(TOKENS, tokens)?;
    let n = tokens.len();
    // The ids above are kept for symbols that are no tokens.
    if n == 0 || n >= u32::MAX as usize / 2 {
        return Err(bad(TOKENS, format!("{n} tokens")));
    }
    // The attributes first, in a loop of their own: that leaves the loop below to cache misses,
    // which then overlap.
    let attrs = match meta.array(TYPES)? {
        Some(types) if types.len() < n => {
            return Err(bad(TYPES, format!("{} types for {n} tokens", types.len())));
        }
        Some(types) => types.iter_i32().take(n).map(attr::of_token_type).collect(),
        None => vec![attr::NORMAL; n],
    };
    let mut vocab = Vocab::with_capacity(n, byte_level);
    for (text, attr) in tokens.zip(attrs) {
        vocab.push(text, attr)?;
    }
    Ok(vocab)
}

/// A score for each token; zeros if the file has none.
fn read_scores(meta: &Metadata, vocab: &Vocab) -> Result<Vec<f32>> {
    const SCORES: &str = "tokenizer.ggml.scores";
    let Some(array) = meta.array(SCORES)? else { return Ok(vec![0.0; vocab.len()]) };
    let mut scores: Vec<f32> = array.iter_f32().collect();
    if scores.len() < vocab.len() {
        return Err(bad(SCORES, format!("{} scores for {} tokens", scores.len(), vocab.len())));
    }
    scores.truncate(vocab.len());
    if let Some(id) = scores.iter().position(|score| score.is_nan()) {
        return Err(bad(SCORES, format!("the score of token {id} is not a number")));
    }
    Ok(scores)
}

/// The ids that the file names, else those that its kind of model has by custom. An id outside
/// the vocabulary counts as not named.
fn special_ids(meta: &Metadata, kind: Kind, vocab: &Vocab) -> Result<SpecialTokens> {
    let id = |keys: &[&str], default: Option<u32>| -> Result<Option<u32>> {
        let known = |id: &u32| (*id as usize) < vocab.len();
        for key in keys {
            if let Some(id) = meta.u32(&format!("tokenizer.ggml.{key}_token_id"))?.filter(known) {
                return Ok(Some(id));
            }
        }
        Ok(default.filter(known))
    };
    // In order: bos, eos, unk, sep, pad, mask.
    let default = match kind {
        Kind::Bpe => [None; 6],
        Kind::Spm => [Some(1), Some(2), Some(0), None, None, None],
        Kind::WordPiece => [Some(101), None, Some(100), Some(102), Some(0), Some(103)],
        Kind::Unigram => [None, Some(1), Some(2), None, Some(0), None],
    };
    let bos: &[&str] = if kind == Kind::WordPiece { &["bos", "cls"] } else { &["bos"] };
    Ok(SpecialTokens {
        bos: id(bos, default[0])?,
        eos: id(&["eos"], default[1])?,
        unk: id(&["unknown"], default[2])?,
        // The key has been misspelt from the beginning.
        sep: id(&["seperator", "separator"], default[3])?,
        pad: id(&["padding"], default[4])?,
        mask: id(&["mask"], default[5])?,
        eot: id(&["eot"], None)?,
        eom: id(&["eom"], None)?,
        fim_pre: id(&["fim_pre", "prefix"], None)?,
        fim_suf: id(&["fim_suf", "suffix"], None)?,
        fim_mid: id(&["fim_mid", "middle"], None)?,
        fim_pad: id(&["fim_pad"], None)?,
        fim_rep: id(&["fim_rep"], None)?,
        fim_sep: id(&["fim_sep"], None)?,
    })
}

const EOT: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
];
const EOM: &[&str] = &["<|eom_id|>"];
const FIM_PRE: &[&str] = &[
    "<|fim_prefix|>",
    "<fim-prefix>",
    "<fim_prefix>",
    "<｜fim▁begin｜>",
    "<PRE>",
    "▁<PRE>",
    "<|code_prefix|>",
    "<|prefix|>",
];
const FIM_SUF: &[&str] = &[
    "<|fim_suffix|>",
    "<fim-suffix>",
    "<fim_suffix>",
    "<｜fim▁hole｜>",
    "<SUF>",
    "▁<SUF>",
    "<|code_suffix|>",
    "<|suffix|>",
];
const FIM_MID: &[&str] = &[
    "<|fim_middle|>",
    "<fim-middle>",
    "<fim_middle>",
    "<｜fim▁end｜>",
    "<MID>",
    "▁<MID>",
    "<|code_middle|>",
    "<|middle|>",
];
const FIM_PAD: &[&str] = &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"];
const FIM_REP: &[&str] = &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"];
const FIM_SEP: &[&str] = &["<|file_sep|>"];
/// Tokens that end a generation in whatever vocabulary they stand.
const EOG: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];
/// Tokens of the Harmony format that are part of the text that a reader of it wants to see.
const ALWAYS_TEXT: &[&str] = &["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

/// Finds by their text the tokens that the file does not name, as converters often leave them
/// out, and the tokens that end a generation, which are returned in order. These are the rules
/// of llama.cpp; where several texts would do, the first in the lists counts.
fn find_by_text(vocab: &mut Vocab, ids: &mut SpecialTokens) -> Vec<u32> {
    let slots = [
        (&mut ids.eot, EOT),
        (&mut ids.eom, EOM),
        (&mut ids.fim_pre, FIM_PRE),
        (&mut ids.fim_suf, FIM_SUF),
        (&mut ids.fim_mid, FIM_MID),
        (&mut ids.fim_pad, FIM_PAD),
        (&mut ids.fim_rep, FIM_REP),
        (&mut ids.fim_sep, FIM_SEP),
    ];
    for (slot, texts) in slots {
        if slot.is_none() {
            *slot = texts.iter().find_map(|text| vocab.find_text(text.as_bytes()));
            // Looked for by its text, it is a control token whatever the file takes it for.
            if let Some(id) = *slot {
                vocab.change_attr(id, attr::CONTROL, 0);
            }
        }
    }
    for id in 0..vocab.len() as u32 {
        if vocab.is(id, attr::CONTROL) && memchr::memmem::find(vocab.bytes(id), b"unused").is_some()
        {
            vocab.change_attr(id, attr::UNUSED, 0);
        }
    }
    let mut eog: Vec<u32> = [ids.fim_pad, ids.fim_rep, ids.fim_sep].into_iter().flatten().collect();
    for text in EOG {
        if let Some(id) = vocab.find_text(text.as_bytes()) {
            vocab.change_attr(id, attr::CONTROL, 0);
            eog.push(id);
        }
    }
    for text in ALWAYS_TEXT {
        if let Some(id) = vocab.find_text(text.as_bytes()) {
            vocab.change_attr(id, attr::USER_DEFINED, attr::ALL_KINDS);
        }
    }
    eog.extend([ids.eos, ids.eot, ids.eom].into_iter().flatten());

    let has = |vocab: &Vocab, eog: &[u32], text: &str| {
        vocab.find_text(text.as_bytes()).filter(|id| eog.contains(id))
    };
    // Harmony and Solar end a message, not the answer, with <|end|>.
    if let Some(end) = has(vocab, &eog, "<|end|>") {
        let any = |texts: &[&str]| texts.iter().any(|text| has(vocab, &eog, text).is_some());
        if any(&["<|call|>", "<|calls|>"]) && any(&["<|return|>", "<|flush|>"]) {
            eog.retain(|&id| id != end);
            vocab.change_attr(end, attr::USER_DEFINED, attr::ALL_KINDS);
        }
    }
    // In Gemma 4 and PLaMo, </s> is the HTML tag.
    if let Some(end) = has(vocab, &eog, "</s>") {
        let any = |texts: &[&str]| texts.iter().any(|text| has(vocab, &eog, text).is_some());
        if any(&["<|tool_response>", "<|plamo:eos|>"]) {
            eog.retain(|&id| id != end);
            vocab.change_attr(end, attr::NORMAL, attr::ALL_KINDS);
        }
    }
    eog.sort_unstable();
    eog.dedup();
    eog
}

/// Which tokens swallow the white space around them is in no key of a GGUF file: llama.cpp's
/// rules by the names of the model and of the pre-tokenizer.
fn strip_attributes(meta: &Metadata, vocab: &mut Vocab) -> Result<()> {
    let name = meta.bytes("general.name")?.unwrap_or_default().to_ascii_lowercase();
    let name = String::from_utf8_lossy(&name);
    let arch = meta.str("general.architecture")?.unwrap_or("");
    let pre = meta.str("tokenizer.ggml.pre")?.unwrap_or("");
    let any = |text: &str, parts: &[&str]| parts.iter().any(|part| text.contains(part));
    let mut set = |text: &str, set: u16, clear: u16| {
        if let Some(id) = vocab.find_text(text.as_bytes()) {
            vocab.change_attr(id, set, clear);
        }
    };
    if any(pre, &["jina-v2-de", "jina-v2-es", "jina-v2-code"])
        || any(arch, &["nomic-bert-moe", "jina-bert-v3"])
    {
        set("<mask>", attr::LSTRIP, 0);
    } else if any(&name, &["phi-3", "phi3"]) {
        for id in 0..vocab.len() as u32 {
            if vocab.is(id, attr::CONTROL | attr::USER_DEFINED | attr::UNKNOWN) {
                vocab.change_attr(id, attr::RSTRIP, 0);
            }
        }
        for text in ["<unk>", "<s>", "<|endoftext|>"] {
            if let Some(id) = vocab.find_text(text.as_bytes()) {
                vocab.change_attr(id, 0, attr::RSTRIP);
            }
        }
    } else if any(&name, &["modern-bert"]) {
        set("[MASK]", attr::LSTRIP, 0);
    }
    Ok(())
}

fn suppressed(meta: &Metadata, vocab: &Vocab) -> Result<Vec<u32>> {
    const SUPPRESS: &str = "tokenizer.ggml.suppress_tokens";
    let Some(array) = meta.array(SUPPRESS)? else { return Ok(Vec::new()) };
    let ids = array.iter_i32().filter_map(|id| u32::try_from(id).ok());
    Ok(ids.filter(|&id| (id as usize) < vocab.len()).collect())
}
