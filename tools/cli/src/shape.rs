//! Models of a shape with random weights, made in memory or in a file: what a model of that size
//! will do on this machine, before it is downloaded.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, bail};
use siskin::GgmlType;
use siskin::gguf::{Builder, GgufFile, Writer};
use siskin_quant::table::KernelTable;
use siskin_quant::types::Act;

/// The sizes of a Llama model.
struct Shape {
    name: &'static str,
    n_layer: u64,
    n_embd: u64,
    n_ff: u64,
    n_head: u32,
    n_head_kv: u32,
    n_vocab: u64,
    tied: bool,
}

/// SmolLM2 135M, Llama 3.2 1B and 3B, Llama 3.1 8B.
const SHAPES: [Shape; 4] = [
    Shape {
        name: "smollm2-135m",
        n_layer: 30,
        n_embd: 576,
        n_ff: 1536,
        n_head: 9,
        n_head_kv: 3,
        n_vocab: 49_152,
        tied: true,
    },
    Shape {
        name: "llama-1b",
        n_layer: 16,
        n_embd: 2048,
        n_ff: 8192,
        n_head: 32,
        n_head_kv: 8,
        n_vocab: 128_256,
        tied: true,
    },
    Shape {
        name: "llama-3b",
        n_layer: 28,
        n_embd: 3072,
        n_ff: 8192,
        n_head: 24,
        n_head_kv: 8,
        n_vocab: 128_256,
        tied: true,
    },
    Shape {
        name: "llama-8b",
        n_layer: 32,
        n_embd: 4096,
        n_ff: 14_336,
        n_head: 32,
        n_head_kv: 8,
        n_vocab: 128_256,
        tied: false,
    },
];

/// The mixes, which give some tensors more bits than the rest.
const MIXES: [&str; 5] = ["q3_k_m", "q4_k_s", "q4_k_m", "q5_k_s", "q5_k_m"];

/// The types of a mix: of the output matrix, of values and of the down projection, where some
/// layers get more bits, and of the rest.
fn types(name: &str) -> anyhow::Result<(GgmlType, GgmlType, GgmlType)> {
    let lower = name.to_ascii_lowercase();
    Ok(match lower.as_str() {
        "q4_k_m" | "q4_k_s" => (GgmlType::Q6_K, GgmlType::Q6_K, GgmlType::Q4_K),
        "q5_k_m" | "q5_k_s" => (GgmlType::Q6_K, GgmlType::Q6_K, GgmlType::Q5_K),
        "q3_k_m" => (GgmlType::Q6_K, GgmlType::Q5_K, GgmlType::Q3_K),
        other => {
            let ty = GgmlType::from_name(other).filter(|ty| ty.info().act != Act::None);
            let ty = ty.with_context(|| {
                let types = GgmlType::ALL.iter().filter(|ty| ty.info().act != Act::None);
                let types: Vec<_> = types.map(|ty| ty.name().to_ascii_lowercase()).collect();
                format!("--type {name}: one of {}, {}", MIXES.join(", "), types.join(", "))
            })?;
            let output = if ty.block_len() == 256 { GgmlType::Q6_K } else { ty };
            (output, ty, ty)
        }
    })
}

/// The type that takes the place of `ty` where rows of `cols` are not whole blocks of it, as in
/// llama.cpp: one with smaller blocks and no fewer bits, or F16.
fn fitting(ty: GgmlType, cols: u64) -> GgmlType {
    let fits = |ty: GgmlType| cols.is_multiple_of(ty.block_len() as u64);
    if fits(ty) {
        return ty;
    }
    let smaller = match ty {
        GgmlType::Q1_0
        | GgmlType::Q2_0
        | GgmlType::TQ1_0
        | GgmlType::TQ2_0
        | GgmlType::Q2_K
        | GgmlType::Q3_K => GgmlType::Q4_0,
        GgmlType::Q4_K => GgmlType::Q5_0,
        GgmlType::Q5_K => GgmlType::Q5_1,
        GgmlType::Q6_K | GgmlType::NVFP4 => GgmlType::Q8_0,
        _ => GgmlType::IQ4_NL,
    };
    if fits(smaller) { smaller } else { GgmlType::F16 }
}

/// Rows of random weights of a type, a number of bytes that repeats.
fn pattern(ty: GgmlType, cols: usize) -> anyhow::Result<Vec<u8>> {
    let bytes =
        ty.row_bytes(cols).with_context(|| format!("rows of {cols} are no blocks of {ty}"))?;
    let mut state = 0x9e37_79b9_u32;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    let mut row = vec![0u8; bytes];
    // The bytes are the same at every level.
    let table = KernelTable::detect().map_err(anyhow::Error::msg)?;
    if table.can_quantize(ty) {
        let values: Vec<f32> =
            (0..cols).map(|_| random() as f32 / u32::MAX as f32 * 0.1 - 0.05).collect();
        table.quantize(ty, &values, None, &mut row)?;
    } else {
        // Small bytes: whatever field they are, the values stay finite.
        row.iter_mut().for_each(|b| *b = (random() % 0x30) as u8);
    }
    Ok(row)
}

/// Makes the model in memory.
pub fn make(shape: &str, ty: &str) -> anyhow::Result<GgufFile> {
    let (builder, tensors) = describe(shape, ty)?;
    let writer = fill(builder.start(Vec::new())?, &tensors)?;
    Ok(GgufFile::from_bytes(writer.finish()?)?)
}

/// Writes the model to a file.
pub fn save(shape: &str, ty: &str, path: &Path) -> anyhow::Result<()> {
    let (builder, tensors) = describe(shape, ty)?;
    Ok(fill(builder.create(path)?, &tensors)?.commit()?)
}

/// A tensor's name, type and shape.
type Tensor = (String, GgmlType, Vec<u64>);

/// The model's metadata and tensors.
fn describe(shape: &str, ty: &str) -> anyhow::Result<(Builder, Vec<Tensor>)> {
    let Some(s) = SHAPES.iter().find(|s| s.name == shape) else {
        let names: Vec<_> = SHAPES.iter().map(|s| s.name).collect();
        bail!("--shape {shape}: one of {}", names.join(", "));
    };
    let (output, more, rest) = types(ty)?;
    let mut b = Builder::new();
    b.put("general.architecture", "llama")?;
    b.put("general.name", format!("{shape} {ty}, random weights").as_str())?;
    let label = shape.rsplit('-').next().unwrap_or(shape).to_uppercase();
    b.put("general.size_label", label.as_str())?;
    b.put("llama.block_count", &(s.n_layer as u32))?;
    b.put("llama.context_length", &131_072u32)?;
    b.put("llama.embedding_length", &(s.n_embd as u32))?;
    b.put("llama.feed_forward_length", &(s.n_ff as u32))?;
    b.put("llama.attention.head_count", &s.n_head)?;
    b.put("llama.attention.head_count_kv", &s.n_head_kv)?;
    b.put("llama.attention.layer_norm_rms_epsilon", &1e-5f32)?;
    b.put("llama.rope.freq_base", &500_000f32)?;
    b.put("tokenizer.ggml.model", "gpt2")?;
    b.put("tokenizer.ggml.pre", "llama-bpe")?;
    // A vocabulary that says nothing, but is as long as the real one.
    let tokens: Vec<String> = (0..s.n_vocab).map(|i| format!("t{i}")).collect();
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    b.put("tokenizer.ggml.tokens", &tokens[..])?;
    b.put("tokenizer.ggml.merges", &["t 0"][..])?;

    let kv = s.n_embd / u64::from(s.n_head) * u64::from(s.n_head_kv);
    let mut tensors: Vec<Tensor> = Vec::new();
    let mut matrix = |name: String, ty, cols, rows| {
        tensors.push((name, fitting(ty, cols), vec![cols, rows]));
    };
    matrix("token_embd.weight".into(), if s.tied { output } else { rest }, s.n_embd, s.n_vocab);
    if !s.tied {
        matrix("output.weight".into(), output, s.n_embd, s.n_vocab);
    }
    for l in 0..s.n_layer {
        // The layers that a mix gives more bits: the first and last eighth, and every third.
        let eighth = s.n_layer / 8;
        let large = l < eighth || l >= s.n_layer - eighth || (l - eighth) % 3 == 2;
        let better = if large { more } else { rest };
        let name = |part: &str| format!("blk.{l}.{part}.weight");
        matrix(name("attn_q"), rest, s.n_embd, s.n_embd);
        matrix(name("attn_k"), rest, s.n_embd, kv);
        matrix(name("attn_v"), better, s.n_embd, kv);
        matrix(name("attn_output"), rest, s.n_embd, s.n_embd);
        matrix(name("ffn_gate"), rest, s.n_embd, s.n_ff);
        matrix(name("ffn_up"), rest, s.n_embd, s.n_ff);
        matrix(name("ffn_down"), better, s.n_ff, s.n_embd);
    }
    for l in 0..s.n_layer {
        for part in ["attn_norm", "ffn_norm"] {
            tensors.push((format!("blk.{l}.{part}.weight"), GgmlType::F32, vec![s.n_embd]));
        }
    }
    tensors.push(("output_norm.weight".into(), GgmlType::F32, vec![s.n_embd]));
    for (name, ty, shape) in &tensors {
        b.tensor(name, *ty, shape)?;
    }
    Ok((b, tensors))
}

/// Writes the tensors' values.
fn fill<W: Write>(mut writer: Writer<W>, tensors: &[Tensor]) -> anyhow::Result<Writer<W>> {
    for (_, ty, shape) in tensors {
        let row = if shape.len() == 1 {
            std::iter::repeat_n(1f32.to_le_bytes(), shape[0] as usize).flatten().collect()
        } else {
            pattern(*ty, shape[0] as usize)?
        };
        for _ in 0..shape.get(1).copied().unwrap_or(1) {
            writer.write(&row)?;
        }
    }
    Ok(writer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight_types() -> impl Iterator<Item = &'static str> {
        GgmlType::ALL.iter().filter(|ty| ty.info().act != Act::None).map(|ty| ty.name())
    }

    #[test]
    fn every_shape_can_be_made_of_every_type_and_mix() {
        for shape in &SHAPES {
            for ty in weight_types().chain(MIXES) {
                let (_, tensors) = describe(shape.name, ty)
                    .unwrap_or_else(|error| panic!("{} {ty}: {error}", shape.name));
                for (name, ty, dims) in tensors {
                    let cols = dims[0] as usize;
                    assert!(ty.row_bytes(cols).is_some(), "{} {name}: {ty}", shape.name);
                }
            }
        }
    }

    #[test]
    fn a_type_that_does_not_fit_is_replaced_as_in_llama_cpp() {
        assert_eq!(fitting(GgmlType::Q4_K, 2048), GgmlType::Q4_K);
        assert_eq!(fitting(GgmlType::Q4_K, 576), GgmlType::Q5_0);
        assert_eq!(fitting(GgmlType::Q6_K, 576), GgmlType::Q8_0);
        assert_eq!(fitting(GgmlType::IQ3_S, 576), GgmlType::IQ4_NL);
        assert_eq!(fitting(GgmlType::Q4_K, 50), GgmlType::F16);
    }

    #[test]
    fn what_holds_no_weights_is_refused() {
        for ty in ["i32", "q8_k", "q9_9"] {
            let error = describe("llama-1b", ty).expect_err("refused").to_string();
            assert!(error.contains(ty) && error.contains("q4_k_m"), "{error}");
        }
    }
}
