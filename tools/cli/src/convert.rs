//! `siskin convert`

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use siskin::GgmlType;
use siskin_convert::{Checkpoint, ConvertOptions, GgufSource, Source};

use crate::store;
use crate::writing::{self, OutputArgs, TypeArgs};

/// Makes a GGUF file of a checkpoint as the hub serves it: a folder of config.json, safetensors
/// files and a tokenizer. `siskin convert ./SmolLM2-135M --type q4_k_m` is all that is needed.
///
/// The weights are read, quantized and written in slices: memory stays small whatever the model's
/// size. A GGUF file will do in place of the folder.
#[derive(Args)]
#[command(after_help = writing::file_types_help())]
pub struct ConvertArgs {
    /// The folder of the checkpoint, or a GGUF file.
    source: PathBuf,
    /// The file to write [default: NAME-TYPE.gguf in the current folder].
    out: Option<PathBuf>,
    /// The file type (see below) [default: the type of the checkpoint's own weights].
    #[arg(long = "type", visible_alias = "outtype", value_name = "TYPE")]
    file_type: Option<String>,
    /// Merge a LoRA adapter, a folder as PEFT saves it; may be repeated. Example: --lora
    /// ./adapter=0.5.
    #[arg(long, value_name = "DIR[=SCALE]")]
    lora: Vec<String>,
    /// The model's name in the file [default: from the folder's name].
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    types: TypeArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// A folder, and the factor after the last `=` if there is one.
fn lora(text: &str) -> anyhow::Result<(PathBuf, f32)> {
    match text.rsplit_once('=') {
        Some((dir, scale)) => {
            let scale = scale.parse().with_context(|| format!("--lora: {scale:?} is no number"))?;
            Ok((dir.into(), scale))
        }
        None => Ok((text.into(), 1.0)),
    }
}

/// The file type that keeps the weights as they are: the type of the largest tensor.
fn own_type(source: &dyn Source) -> anyhow::Result<&'static str> {
    let largest = source.tensors().iter().max_by_key(|t| t.n_values());
    Ok(match largest.map(|t| t.ty) {
        Some(GgmlType::BF16) => "bf16",
        Some(GgmlType::F16) => "f16",
        None | Some(GgmlType::F32) => "f32",
        Some(ty) => anyhow::bail!(
            "{}: its weights are quantized already ({}): say with --type what to make of them",
            source.path().display(),
            ty.name()
        ),
    })
}

/// `NAME-TYPE.gguf`
fn default_out(source: &Path, file_type: &str) -> anyhow::Result<PathBuf> {
    let full = source.canonicalize().with_context(|| source.display().to_string())?;
    let name = if full.is_dir() { full.file_name() } else { full.file_stem() };
    let name = name.unwrap_or_default().to_string_lossy();
    Ok(format!("{name}-{}.gguf", file_type.to_ascii_lowercase()).into())
}

pub fn main(args: ConvertArgs) -> anyhow::Result<()> {
    let mut notes = Vec::new();
    let mut fp8 = false;
    let source: Box<dyn Source> = if args.source.is_dir() {
        let lora = args.lora.iter().map(|text| lora(text)).collect::<Result<_, _>>()?;
        let options = ConvertOptions { name: args.name.clone(), lora };
        let checkpoint = Checkpoint::open(&args.source, &options)?;
        notes.extend_from_slice(checkpoint.notes());
        fp8 = checkpoint.is_fp8();
        Box::new(checkpoint)
    } else {
        anyhow::ensure!(args.lora.is_empty(), "--lora: adapters are merged with checkpoints only");
        anyhow::ensure!(args.name.is_none(), "--name: a GGUF file keeps the name that it has");
        Box::new(GgufSource::open(&store::resolve(&args.source.to_string_lossy())?)?)
    };
    let file_type = match args.file_type.as_deref() {
        Some(name) => Some(name),
        None if args.types.wanted_size().is_some() => None,
        None if fp8 => {
            notes.push(
                "weights are 8-bit floats: they become bf16, as models run them; --type f32 \
                 keeps each exactly"
                    .to_string(),
            );
            Some("bf16")
        }
        None => Some(own_type(&*source)?),
    };
    let out = match args.out {
        Some(out) => out,
        None => default_out(source.path(), file_type.unwrap_or("sized"))?,
    };
    writing::write(&*source, file_type, &args.types, &out, &args.output, notes)
}

#[cfg(test)]
mod tests {
    use super::lora;

    #[test]
    fn an_adapter_may_have_a_factor() {
        assert_eq!(lora("a/b").unwrap(), ("a/b".into(), 1.0));
        assert_eq!(lora("a=b=0.5").unwrap(), ("a=b".into(), 0.5));
        assert!(lora("a=b").is_err());
    }
}
