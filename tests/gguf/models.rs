//! Whole models from damaged files: a tokenizer, a model and its answer, or an error; no panic.

use siskin::gguf::{Builder, ByteOrder, GgufFile};
use siskin::model::Model;
use siskin::model::archs::{ARCHS, ArchSpec};
use siskin::{
    EncodeOptions, Engine, EngineOptions, GgmlType, Result, Session, SessionOptions, Tokenizer,
};

use crate::alloc::most_held;
use crate::folder::{RealModel, models};
use crate::mutation::{Rng, mutants, use_all};

const N_EMBD: u64 = 256;
const N_FF: u64 = 256;
const HEAD: u64 = 32;
const N_VOCAB: u64 = 300;

/// The keys of a model with one query head, and of a tokenizer of `kind`.
fn keys(arch: &ArchSpec, kind: &str, order: ByteOrder) -> Result<Builder> {
    let mut b = Builder::with_format(3, order)?;
    b.put("general.architecture", arch.name)?;
    let mut number = |key: &str, x: u64| b.put(&format!("{}.{key}", arch.name), &(x as u32));
    number("block_count", 2)?;
    number("context_length", 64)?;
    number("embedding_length", N_EMBD)?;
    number("feed_forward_length", N_FF)?;
    number("attention.head_count", 2)?;
    number("attention.head_count_kv", 1)?;
    number("attention.key_length", HEAD)?;
    number("attention.value_length", HEAD)?;
    number("attention.sliding_window", 3)?;
    let mut float = |key: &str, x: f32| b.put(&format!("{}.{key}", arch.name), &x);
    float("attention.layer_norm_rms_epsilon", 1e-5)?;
    float("rope.freq_base", 10_000.0)?;

    // What is common, then single bytes in two of the ways of writing them, then words.
    let mut tokens: Vec<String> =
        ["<unk>", "<s>", "</s>", "<|im_end|>", "▁", "[UNK]", "##s"].map(String::from).to_vec();
    tokens.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
    tokens.extend(('a'..='z').map(String::from));
    tokens
        .extend(["th", "he", "the", "Ġ", "Ġt", "Ġthe", "▁the", "▁a", "ü", "in"].map(String::from));
    tokens.push("<tool>".to_string());
    let n = tokens.len();
    assert_eq!(n, N_VOCAB as usize);
    let types = |i| [2, 3, 3, 3].get(i).copied().unwrap_or(if i == n - 1 { 4 } else { 1 });
    b.put("tokenizer.ggml.model", kind)?;
    b.put("tokenizer.ggml.tokens", &tokens)?;
    b.put("tokenizer.ggml.token_type", &(0..n).map(types).collect::<Vec<i32>>())?;
    b.put("tokenizer.ggml.scores", &(0..n).map(|i| -(i as f32)).collect::<Vec<_>>())?;
    b.put("tokenizer.ggml.merges", &["t h", "h e", "th e", "Ġ t", "Ġ the", "Ġt he", "i n"][..])?;
    b.put("tokenizer.ggml.bos_token_id", &1u32)?;
    b.put("tokenizer.ggml.eos_token_id", &2u32)?;
    b.put("tokenizer.ggml.add_bos_token", &true)?;
    b.put("tokenizer.ggml.add_space_prefix", &true)?;
    Ok(b)
}

/// A model with matrices of type `ty` as far as their rows are whole blocks. Every byte of the
/// weights is a random one of which `mask` stays: with 0x3f all scales are finite.
fn model(arch: &ArchSpec, kind: &str, ty: GgmlType, order: ByteOrder, mask: u8) -> Result<Vec<u8>> {
    let mut b = keys(arch, kind, order)?;
    let mut tensor = |name: String, shape: &[u64]| {
        let rows = shape.len() == 2 && shape[0].is_multiple_of(ty.block_len() as u64);
        b.tensor(&name, if rows { ty } else { GgmlType::F32 }, shape)
    };
    tensor("token_embd.weight".into(), &[N_EMBD, N_VOCAB])?;
    tensor("output_norm.weight".into(), &[N_EMBD])?;
    for i in 0..2 {
        let mut tensor = |part: &str, shape: &[u64]| tensor(format!("blk.{i}.{part}"), shape);
        tensor("attn_norm.weight", &[N_EMBD])?;
        tensor("attn_q.weight", &[N_EMBD, 2 * HEAD])?;
        tensor("attn_k.weight", &[N_EMBD, HEAD])?;
        tensor("attn_v.weight", &[N_EMBD, HEAD])?;
        tensor("attn_output.weight", &[2 * HEAD, N_EMBD])?;
        tensor("ffn_norm.weight", &[N_EMBD])?;
        tensor("ffn_gate.weight", &[N_EMBD, N_FF])?;
        tensor("ffn_up.weight", &[N_EMBD, N_FF])?;
        tensor("ffn_down.weight", &[N_FF, N_EMBD])?;
        if arch.qk_norm {
            tensor("attn_q_norm.weight", &[HEAD])?;
            tensor("attn_k_norm.weight", &[HEAD])?;
        }
        if arch.post_norm {
            tensor("post_attention_norm.weight", &[N_EMBD])?;
            tensor("post_ffw_norm.weight", &[N_EMBD])?;
        }
    }
    let mut writer = b.start(Vec::new())?;
    let mut rng = Rng(7);
    while writer.next_tensor().is_some() {
        // Every tensor's size is a multiple of 2.
        writer.write(&(rng.next() as u16).to_le_bytes().map(|byte| byte & mask))?;
    }
    writer.finish()
}

/// Four tokens together, then one more.
fn answer(file: GgufFile) -> Result<Vec<f32>> {
    let options = EngineOptions { threads: Some(1), ..EngineOptions::default() };
    let engine = Engine::from_file(file, &options)?;
    let options = SessionOptions { n_ctx: Some(8), n_batch: 4, ..SessionOptions::default() };
    let mut session = Session::new(&engine, &options)?;
    let last = engine.hparams().n_vocab as u32 - 1;
    session.prefill(&[0, 1, 2, 3].map(|token| last.min(token)))?;
    Ok(session.decode(last)?.to_vec())
}

#[test]
fn every_architecture_answers_with_weights_of_every_type_whatever_their_bits() {
    for arch in ARCHS {
        for ty in GgmlType::ALL.iter().filter(|ty| ty.info().act != siskin_quant::Act::None) {
            for (order, mask) in [(ByteOrder::Little, 0x3f), (ByteOrder::Big, 0xff)] {
                let bytes = model(arch, "gpt2", *ty, order, mask).expect("a good file");
                let file = GgufFile::from_bytes(bytes).expect("a good file");
                let logits = answer(file).unwrap_or_else(|e| panic!("{} of {ty}: {e}", arch.name));
                assert_eq!(logits.len() as u64, N_VOCAB);
                let finite = logits.iter().all(|x| x.is_finite());
                assert!(finite || mask == 0xff, "{} of {ty}", arch.name);
            }
        }
    }
}

const TEXT: &str = "<s>the  thing,\n\tin ünïcode: ▁a 1234 <tool>\u{200d}🙂</s>";

/// Tries all that is made of a file, and says whether there was an answer.
///
/// The memory that a model takes beside the file is bounded by the file's size, what a tokenizer
/// takes by that of the keys.
fn try_all(bytes: Vec<u8>) -> bool {
    let size = bytes.len();
    let Ok(file) = GgufFile::from_bytes(bytes) else { return false };
    use_all(&file);
    let keys = file.tensors().iter().map(|t| t.offset as usize).min().unwrap_or(size);
    let (model, held) = most_held(|| Model::new(&file).map(drop));
    let limit = 2 * size + (64 << 10);
    assert!(held <= limit, "{held} bytes held by a model, {limit} allowed");
    let (tokenizer, held) = most_held(|| {
        let tokenizer = Tokenizer::from_gguf(file.metadata(), &Default::default())?;
        for parse_special in [false, true] {
            let options = EncodeOptions { add_special: true, parse_special };
            let tokens = tokenizer.encode(TEXT, options)?;
            tokenizer.decode(&tokens, parse_special);
        }
        Ok::<_, siskin::Error>(())
    });
    let limit = 8 * keys + (64 << 10);
    assert!(held <= limit, "{held} bytes held by a tokenizer, {limit} allowed");
    let answered = answer(file).is_ok();
    assert!(!answered || model.is_ok() && tokenizer.is_ok());
    answered
}

#[test]
fn ten_thousand_mutations_of_whole_models_answer_or_are_refused() {
    let kinds = ["gpt2", "llama", "bert", "t5"];
    let types = [GgmlType::Q4_K, GgmlType::Q8_0, GgmlType::Q4_0, GgmlType::IQ4_XS, GgmlType::F16];
    for (i, arch) in ARCHS.iter().enumerate() {
        let order = if i == 1 { ByteOrder::Big } else { ByteOrder::Little };
        let kind = kinds[i % kinds.len()];
        let good = model(arch, kind, types[i % types.len()], order, 0x3f).expect("a good file");
        assert!(try_all(good.clone()), "{} with {kind} does not run", arch.name);
        let cases = 10_000 / ARCHS.len();
        let answered = mutants(arch.name, &good, cases, 100 + i as u64, 2, try_all);
        assert!(answered > cases / 10, "{}: only {answered} of {cases} run", arch.name);
    }
}

#[test]
fn mutations_of_real_vocabularies_make_a_tokenizer_or_are_refused() {
    for (i, RealModel { path, .. }) in models().iter().enumerate() {
        let file = GgufFile::open(path).unwrap_or_else(|e| panic!("{e}"));
        let mut keys = Builder::with_format(file.version(), file.byte_order()).expect("2 or 3");
        keys.copy(file.metadata(), |_| true).expect("a good file");
        let good = keys.start(Vec::new()).and_then(|w| w.finish()).expect("a good file");
        // A tenth of a second each where nothing is optimized.
        mutants(&path.display().to_string(), &good, 60, 200 + i as u64, 1, try_all);
    }
}
