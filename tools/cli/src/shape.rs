//! Models of a shape with random weights, made in memory or in a file: what a model of that size
//! will do on this machine, before it is downloaded.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, bail};
use siskin::GgmlType;
use siskin::gguf::{Builder, GgufFile, Writer};
use siskin_convert::mix::{self, Mix};
use siskin_convert::plan::weight_type;
use siskin_convert::{FILE_TYPES, Facts, FileType, TensorDesc};
use siskin_quant::table::KernelTable;

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

/// The file type with a name: a mix, or all tensors of a type that no file type is named after.
fn file_type(name: &str) -> anyhow::Result<FileType> {
    if let Some(known) = FileType::from_name(name) {
        return Ok(*known);
    }
    let ty = weight_type(name).with_context(|| {
        let names: Vec<_> = FILE_TYPES.iter().map(|t| t.name.to_ascii_lowercase()).collect();
        format!("--type {name}: no file type ({})", names.join(", "))
    })?;
    Ok(FileType { name: ty.name(), number: 0, label: ty.name(), base: ty, about: "" })
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

/// The model's metadata and tensors.
fn describe(shape: &str, ty: &str) -> anyhow::Result<(Builder, Vec<TensorDesc>)> {
    let Some(s) = SHAPES.iter().find(|s| s.name == shape) else {
        let names: Vec<_> = SHAPES.iter().map(|s| s.name).collect();
        bail!("--shape {shape}: one of {}", names.join(", "));
    };
    let file = file_type(ty)?;
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
    // A vocabulary as long as the real one, of which only ASCII means something (a space is Ġ in the
    // byte-level alphabet, a new line Ċ): enough for any text to have tokens.
    let token = |i| match char::from_u32(i as u32) {
        Some(' ') => "Ġ".to_string(),
        Some('\n') => "Ċ".to_string(),
        Some(c) if c.is_ascii_graphic() => c.to_string(),
        _ => format!("t{i}"),
    };
    let tokens: Vec<String> = (0..s.n_vocab).map(token).collect();
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    b.put("tokenizer.ggml.tokens", &tokens[..])?;
    b.put("tokenizer.ggml.merges", &["t 0"][..])?;

    let kv = s.n_embd / u64::from(s.n_head) * u64::from(s.n_head_kv);
    let mut tensors = Vec::new();
    let mut tensor = |name: String, shape: Vec<u64>| {
        tensors.push(TensorDesc { name, shape, ty: GgmlType::F32 });
    };
    tensor("token_embd.weight".into(), vec![s.n_embd, s.n_vocab]);
    if !s.tied {
        tensor("output.weight".into(), vec![s.n_embd, s.n_vocab]);
    }
    for l in 0..s.n_layer {
        let name = |part: &str| format!("blk.{l}.{part}.weight");
        tensor(name("attn_norm"), vec![s.n_embd]);
        tensor(name("attn_q"), vec![s.n_embd, s.n_embd]);
        tensor(name("attn_k"), vec![s.n_embd, kv]);
        tensor(name("attn_v"), vec![s.n_embd, kv]);
        tensor(name("attn_output"), vec![s.n_embd, s.n_embd]);
        tensor(name("ffn_norm"), vec![s.n_embd]);
        tensor(name("ffn_gate"), vec![s.n_embd, s.n_ff]);
        tensor(name("ffn_up"), vec![s.n_embd, s.n_ff]);
        tensor(name("ffn_down"), vec![s.n_ff, s.n_embd]);
    }
    tensor("output_norm.weight".into(), vec![s.n_embd]);
    let facts = Facts {
        arch: "llama".into(),
        n_layer: s.n_layer as usize,
        n_head: s.n_head as usize,
        n_head_kv: s.n_head_kv as usize,
        n_expert: 0,
    };
    let mix = Mix::new(&file, &tensors, &facts, false);
    let types = tensors.iter().map(|t| match mix::is_quantized(t) {
        true => mix::fitting(mix.choose(t), t.cols()),
        false => GgmlType::F32,
    });
    let types: Vec<_> = types.collect();
    for (tensor, ty) in tensors.iter_mut().zip(types) {
        tensor.ty = ty;
        b.tensor(&tensor.name, ty, &tensor.shape)?;
    }
    Ok((b, tensors))
}

/// Writes the tensors' values.
fn fill<W: Write>(mut writer: Writer<W>, tensors: &[TensorDesc]) -> anyhow::Result<Writer<W>> {
    for TensorDesc { ty, shape, .. } in tensors {
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
    use siskin_quant::types::Act;

    use super::*;

    fn weight_types() -> impl Iterator<Item = &'static str> {
        GgmlType::ALL.iter().filter(|ty| ty.info().act != Act::None).map(|ty| ty.name())
    }

    #[test]
    fn every_shape_can_be_made_of_every_type_and_mix() {
        let files = FILE_TYPES.iter().map(|t| t.name);
        let names: Vec<_> = weight_types().chain(files).collect();
        for shape in &SHAPES {
            for ty in &names {
                let (_, tensors) = describe(shape.name, ty)
                    .unwrap_or_else(|error| panic!("{} {ty}: {error}", shape.name));
                for t in tensors {
                    assert!(
                        t.ty.row_bytes(t.cols()).is_some(),
                        "{} {}: {}",
                        shape.name,
                        t.name,
                        t.ty
                    );
                }
            }
        }
    }

    #[test]
    fn what_holds_no_weights_is_refused() {
        for ty in ["i32", "q8_k", "q9_9"] {
            let error = describe("llama-1b", ty).expect_err("refused").to_string();
            assert!(error.contains(ty) && error.contains("q4_k_m"), "{error}");
        }
    }
}
