//! What `convert` and `quantize` share: the choice of types, and writing with a progress bar.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, anyhow};
use clap::Args;
use serde_json::json;
use siskin::GgmlType;
use siskin_convert::plan::{n_bytes, weight_type};
use siskin_convert::{
    FILE_TYPES, FileType, Imatrix, Key, Plan, PlanOptions, Progress, Source, TensorRule,
    WriteOptions, Written,
};
use siskin_quant::table::KernelTable;

use crate::args::parse_bytes;
use crate::{download, output, process};

/// Which tensor gets which type.
#[derive(Args)]
#[command(next_help_heading = "Types")]
pub struct TypeArgs {
    /// Give every matrix the type itself, without the mix that gives some tensors more bits.
    #[arg(long)]
    pub pure: bool,
    /// A type for the tensors whose name has this pattern in it, a regular expression; may be
    /// repeated, the first that fits counts. Example: --tensor 'ffn_down=q6_k'.
    #[arg(long = "tensor", visible_alias = "tensor-type", value_name = "PATTERN=TYPE")]
    pub tensors: Vec<String>,
    /// The type of the output matrix.
    #[arg(long, visible_alias = "output-tensor-type", value_name = "TYPE")]
    pub output_type: Option<String>,
    /// The type of the embeddings.
    #[arg(long, visible_alias = "token-embedding-type", value_name = "TYPE")]
    pub embedding_type: Option<String>,
    /// An importance matrix (`siskin imatrix` makes one): which columns matter more. It makes the
    /// same size better, and types below 3 bits need it.
    #[arg(long, value_name = "FILE")]
    pub imatrix: Option<PathBuf>,
    /// Quantize tensors that are quantized already. This loses more than quantizing the original.
    #[arg(long)]
    pub allow_requantize: bool,
}

impl TypeArgs {
    /// What they say of a file of type `name`.
    pub fn options(&self, name: &str) -> anyhow::Result<PlanOptions> {
        let ty = |name: &Option<String>| name.as_deref().map(weight_type).transpose();
        let rules = self.tensors.iter().map(|t| TensorRule::parse(t));
        Ok(PlanOptions {
            pure: self.pure,
            rules: rules.collect::<Result<_, _>>().context("--tensor")?,
            output: ty(&self.output_type).context("--output-type")?,
            embedding: ty(&self.embedding_type).context("--embedding-type")?,
            imatrix: self.imatrix.is_some(),
            requantize: self.allow_requantize,
            ..PlanOptions::new(file_type(name)?)
        })
    }
}

/// The file type with a name.
pub fn file_type(name: &str) -> anyhow::Result<&'static FileType> {
    FileType::from_name(name).with_context(|| {
        let names: Vec<_> = FILE_TYPES.iter().map(|t| t.name.to_ascii_lowercase()).collect();
        format!("`{name}` is no file type; there are {}", names.join(", "))
    })
}

/// The file types and when to choose them, for `--help`.
pub fn file_types_help() -> String {
    let mut text = String::from("File types, by what they leave of a model:\n");
    for t in FILE_TYPES.iter().filter(|t| !t.about.is_empty()) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {:<10} {}", t.name.to_ascii_lowercase(), t.about);
    }
    text
}

/// How a file is written.
#[derive(Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Parts of at most this size each, for example 2G.
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub split_size: Option<u64>,
    /// Replace a file that is there.
    #[arg(long)]
    pub force: bool,
    /// Say which type each tensor would get and how large the file would be, and write nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Threads [default: all cores].
    #[arg(short, long)]
    pub threads: Option<usize>,
    /// The kernel level (scalar, avx2, ...) [default: the fastest this CPU has]. The file is the
    /// same.
    #[arg(long)]
    pub cpu: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Tensors and bytes of each type of a plan.
fn by_type(source: &dyn Source, plan: &Plan) -> BTreeMap<&'static str, (u64, u64)> {
    let mut types: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (tensor, ty) in source.tensors().iter().zip(&plan.types) {
        let entry = types.entry(ty.name()).or_default();
        entry.0 += 1;
        entry.1 += n_bytes(tensor, *ty);
    }
    types
}

/// Chooses the types and writes the file, or says what would be written.
pub fn write(
    source: &dyn Source,
    file_type: &str,
    types: &TypeArgs,
    out: &Path,
    args: &OutputArgs,
) -> anyhow::Result<()> {
    let table = match &args.cpu {
        Some(level) => KernelTable::for_level(level),
        None => KernelTable::detect(),
    };
    let table = table.map_err(|reason| anyhow!(reason))?;
    let plan = Plan::new(source, &types.options(file_type)?, &table)?;
    plan.notes.iter().for_each(|note| output::note(note));
    let mut options = WriteOptions {
        threads: args.threads,
        split: args.split_size,
        overwrite: args.force,
        ..WriteOptions::default()
    };
    if let Some(path) = &types.imatrix {
        let imatrix = Imatrix::open(path)?;
        options.importance = plan.importance(source.tensors(), &imatrix)?;
        options.keys = imatrix_keys(&imatrix);
    }
    if args.dry_run {
        return report(source, &plan, None, args);
    }
    process::handle_interrupts()?;
    let start = Instant::now();
    let bar = download::progress(Some(0))?;
    let mut progress = |progress: Progress<'_>| {
        bar.set_length(progress.total);
        bar.set_position(progress.done);
        if process::interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let written = siskin_convert::write::write(source, &plan, &table, out, &options, &mut progress);
    bar.finish_and_clear();
    let written = match written {
        Err(siskin_convert::Error::Cancelled) => return Err(process::Interrupted.into()),
        other => other?,
    };
    report(source, &plan, Some((&written, start.elapsed().as_secs_f64())), args)
}

/// What a file says of the importance matrix that it was made with, in llama.cpp's keys. Of the
/// path no more than the name: where it lay on this machine is nobody's concern.
fn imatrix_keys(imatrix: &Imatrix) -> Vec<(String, Key)> {
    let name = imatrix.path().file_name().unwrap_or_default().to_string_lossy();
    let mut keys = vec![("quantize.imatrix.file".to_string(), Key::Str(name.into_owned()))];
    if let Some(dataset) = imatrix.datasets.first() {
        keys.push(("quantize.imatrix.dataset".to_string(), Key::Str(dataset.clone())));
    }
    let entries = imatrix.entries().len() as u32;
    keys.push(("quantize.imatrix.entries_count".to_string(), Key::U32(entries)));
    keys.push(("quantize.imatrix.chunks_count".to_string(), Key::U32(imatrix.chunk_count())));
    keys
}

/// Says what was written, or would be.
fn report(
    source: &dyn Source,
    plan: &Plan,
    written: Option<(&Written, f64)>,
    args: &OutputArgs,
) -> anyhow::Result<()> {
    let tensors = source.tensors();
    let before: u64 = tensors.iter().map(|t| n_bytes(t, t.ty)).sum();
    let after = plan.n_bytes(tensors);
    let bits = plan.bits_per_weight(tensors);
    let types = by_type(source, plan);
    if args.json {
        let each = |(t, ty): (&siskin_convert::TensorDesc, &GgmlType)| {
            json!({
                "name": t.name, "shape": t.shape, "from": t.ty.name(), "type": ty.name(),
                "bytes": n_bytes(t, *ty),
            })
        };
        let types: serde_json::Map<_, _> = types
            .iter()
            .map(|(ty, (n, bytes))| (ty.to_string(), json!({ "tensors": n, "bytes": bytes })))
            .collect();
        return output::json(&json!({
            "paths": written.map(|(w, _)| &w.paths),
            "seconds": written.map(|(_, seconds)| seconds),
            "bytes_before": before,
            "bytes": after,
            "bits_per_weight": bits,
            "notes": plan.notes,
            "types": types,
            "tensors": tensors.iter().zip(&plan.types).map(each).collect::<Vec<_>>(),
        }));
    }
    let mut text = String::new();
    if written.is_none() {
        for (tensor, ty) in tensors.iter().zip(&plan.types) {
            writeln!(text, "{:<40} {:>8} -> {}", tensor.name, tensor.ty.name(), ty.name())?;
        }
    }
    for (ty, (n, bytes)) in &types {
        writeln!(text, "{ty:<8} {n:>5} tensors {:>12}", output::bytes(*bytes))?;
    }
    let (before, after) = (output::bytes(before), output::bytes(after));
    writeln!(text, "{before} -> {after}, {bits:.2} bits for each weight")?;
    if let Some((written, seconds)) = written {
        let paths: Vec<_> = written.paths.iter().map(|p| p.display().to_string()).collect();
        writeln!(text, "{} ({seconds:.1} s)", paths.join(", "))?;
    }
    output::print(&text)
}
