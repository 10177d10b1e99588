//! What `convert` and `quantize` share: the choice of types, and writing with a progress bar.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use siskin::GgmlType;
use siskin::gguf::AtomicFile;
use siskin_convert::budget::{Budget, Choice, Size};
use siskin_convert::mix::{Role, is_quantized};
use siskin_convert::plan::{n_bytes, weight_type};
use siskin_convert::write::{Split, refuse_existing};
use siskin_convert::{
    FILE_TYPES, FileType, Imatrix, Key, Plan, PlanOptions, Progress, Source, TensorRule,
    WriteOptions, Written,
};
use siskin_quant::table::KernelTable;

use crate::args::parse_bytes;
use crate::calibrating::{Calibrate, Target, calibrate};
use crate::{download, output, process};

/// Which tensor gets which type.
#[derive(Args)]
#[command(next_help_heading = "Types")]
pub struct TypeArgs {
    /// Instead of a file type: choose each tensor's type so that the file has this size, for example
    /// 100M, and the model suffers the least.
    #[arg(long, value_parser = parse_bytes, conflicts_with_all = ["pure", "bpw"])]
    pub size: Option<u64>,
    /// As --size, with the bits that a weight takes on average, for example 4.5.
    #[arg(long, value_parser = parse_bits, conflicts_with = "pure")]
    pub bpw: Option<f64>,
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
    /// An importance matrix (`siskin imatrix` makes one of a text of yours): which columns matter
    /// more, and which are used together. All types below Q8_0 gain by one that does. Where it does
    /// not say the latter, as llama.cpp's, the model is run to measure that (--calibrate).
    #[arg(long, value_name = "FILE")]
    pub imatrix: Option<PathBuf>,
    /// How to find out which columns matter without --imatrix: the model reads a text that is built
    /// in [default: quick, and full for types that are of no use without]. With --imatrix, where that
    /// does not say which columns are used together: full measures it [default], none does without.
    /// Needs room for a copy of a checkpoint.
    #[arg(long, value_name = "HOW")]
    pub calibrate: Option<Calibrate>,
    /// Quantize tensors that are quantized already. This loses more than quantizing the original.
    #[arg(long)]
    pub allow_requantize: bool,
}

impl TypeArgs {
    /// The size that is asked for, if one is.
    pub fn wanted_size(&self) -> Option<Size> {
        self.size.map(Size::Bytes).or(self.bpw.map(Size::BitsPerWeight))
    }

    /// What they say of a file of a type.
    fn options(&self, file_type: &'static FileType) -> anyhow::Result<PlanOptions> {
        if (self.imatrix.is_some(), self.calibrate) == (true, Some(Calibrate::Quick)) {
            bail!("--calibrate quick is instead of --imatrix; --calibrate full adds to one");
        }
        let ty = |name: &Option<String>| name.as_deref().map(weight_type).transpose();
        let rules = self.tensors.iter().map(|t| TensorRule::parse(t));
        Ok(PlanOptions {
            pure: self.pure,
            rules: rules.collect::<Result<_, _>>().context("--tensor")?,
            output: ty(&self.output_type).context("--output-type")?,
            embedding: ty(&self.embedding_type).context("--embedding-type")?,
            imatrix: self.imatrix.is_some(),
            calibrated: self.imatrix.is_none() && self.calibrate != Some(Calibrate::None),
            requantize: self.allow_requantize,
            ..PlanOptions::new(file_type)
        })
    }
}

/// A number of bits.
fn parse_bits(text: &str) -> Result<f64, String> {
    let bits = text.parse().ok().filter(|bits| (1.0..=32.0).contains(bits));
    bits.ok_or_else(|| format!("`{text}` is no number of bits from 1 to 32"))
}

/// The file type with a name.
fn file_type(name: &str) -> anyhow::Result<&'static FileType> {
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
    /// Several files, each with at most this size of weights, for example 2G; the first has the
    /// metadata besides.
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, conflicts_with = "size")]
    pub split_size: Option<u64>,
    /// As many files as the source has, with the same tensors in each.
    #[arg(long, conflicts_with_all = ["split_size", "size"])]
    pub keep_split: bool,
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

/// Chooses the types and writes the file, or says what would be written. Without a file type, a
/// size must be given. `notes` are said beside the plan's.
pub fn write(
    source: &dyn Source,
    name: Option<&str>,
    types: &TypeArgs,
    out: &Path,
    args: &OutputArgs,
    mut notes: Vec<String>,
) -> anyhow::Result<()> {
    let table = match &args.cpu {
        Some(level) => KernelTable::for_level(level),
        None => KernelTable::detect(),
    };
    let table = table.map_err(|reason| anyhow!(reason))?;
    let split = match args.split_size {
        Some(bytes) => Split::Bytes(bytes),
        None if args.keep_split => Split::Keep,
        None => Split::None,
    };
    let mut plan_options = match (name, types.wanted_size()) {
        (Some(name), None) => types.options(file_type(name)?)?,
        // The file type counts for nothing then.
        (None, Some(_)) => types.options(&FILE_TYPES[0])?,
        (Some(name), Some(_)) => bail!("both a file type ({name}) and a size are given: take one"),
        (None, None) => bail!("which file type? q4_k_m is the usual choice; --help lists them"),
    };
    if !args.dry_run && split == Split::None {
        // Said before the work; of parts the names are known only when the types are.
        refuse_existing(&[out.to_path_buf()], args.force)?;
        // Where nothing can be written, too.
        drop(AtomicFile::create(out)?);
    }
    let _writing = process::Uninterrupted::new()?;
    let start = Instant::now();
    let given = types.imatrix.as_ref().map(Imatrix::open).transpose()?.map(Arc::new);
    let target = Target { out, args, table: &table };
    let measured =
        calibrate(source, types, given.as_deref(), &mut plan_options, target, &mut notes)?;
    let mut known = Known::new(given, measured.map(Arc::new));
    let keys = known.keys();
    let (mut plan, choices) = match types.wanted_size() {
        Some(size) => {
            let importance = match &known.imatrix {
                Some(imatrix) => imatrix.importance_of(source.tensors())?,
                None => Vec::new(),
            };
            let bar = ProgressBar::new(source.tensors().len() as u64)
                .with_style(ProgressStyle::with_template("{bar:30} {pos}/{len} tensors measured")?);
            let (importance, threads) = (&importance, args.threads);
            let sketches = known.sketches.as_deref();
            let budget = Budget { size, importance, sketches, keys: &keys, threads };
            let plan = Plan::for_size(source, &plan_options, &budget, &table, &|done, _| {
                bar.set_position(done as u64);
                !process::interrupted()
            });
            bar.finish_and_clear();
            plan.map_err(ended)?
        }
        None => (Plan::new(source, &plan_options, &table)?, Vec::new()),
    };
    let used = |sketches: &Arc<Imatrix>| plan.uses_sketches(source.tensors(), &table, sketches);
    known.sketches = known.sketches.filter(used);
    plan.notes.splice(0..0, notes);
    plan.notes.iter().for_each(|note| output::note(note));
    let mut options = WriteOptions {
        threads: args.threads,
        split,
        keys: known.keys(),
        overwrite: args.force,
        ..WriteOptions::default()
    };
    if let Some(imatrix) = &known.imatrix {
        options.importance = plan.importance(source.tensors(), imatrix)?;
    }
    options.sketches = known.sketches.clone();
    if args.dry_run {
        return report(source, &plan, &choices, &known, None, args);
    }
    let bar = download::progress(Some(0))?;
    let mut progress = on_bar(&bar);
    let written = siskin_convert::write::write(source, &plan, &table, out, &options, &mut progress);
    bar.finish_and_clear();
    let written = written.map_err(ended)?;
    let written = (&written, start.elapsed().as_secs_f64());
    report(source, &plan, &choices, &known, Some(written), args)
}

/// Shows how far the work is, until Ctrl-C is pressed.
pub fn on_bar(bar: &ProgressBar) -> impl FnMut(Progress<'_>) -> ControlFlow<()> {
    |progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.done);
        if process::interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// The error of work that Ctrl-C may have ended.
pub fn ended(error: siskin_convert::Error) -> anyhow::Error {
    match error {
        siskin_convert::Error::Cancelled => process::Interrupted.into(),
        other => other.into(),
    }
}

/// What is known of the columns.
struct Known {
    /// How much each matters.
    imatrix: Option<Arc<Imatrix>>,
    /// Which are used together.
    sketches: Option<Arc<Imatrix>>,
}

impl Known {
    /// Of a matrix that was given, and one that the model measured since there was none, or since it
    /// has no sketches.
    fn new(given: Option<Arc<Imatrix>>, measured: Option<Arc<Imatrix>>) -> Known {
        let sketches = measured.clone().or(given.clone()).filter(|i| i.n_sketched() > 0);
        Known { imatrix: given.or(measured), sketches }
    }

    /// The sketches, where they are not of the same text as the rest.
    fn other_sketches(&self) -> Option<&Imatrix> {
        let (imatrix, sketches) = (self.imatrix.as_ref()?, self.sketches.as_ref()?);
        (!Arc::ptr_eq(imatrix, sketches)).then_some(sketches)
    }

    /// What a file says of them: in llama.cpp's keys, but for sketches, which it does not know.
    fn keys(&self) -> Vec<(String, Key)> {
        let Some(imatrix) = &self.imatrix else { return Vec::new() };
        let key = |name: &str, value| (format!("quantize.{name}"), value);
        let mut keys = vec![key("imatrix.file", Key::Str(file_name(imatrix)))];
        if let Some(dataset) = imatrix.datasets.first() {
            keys.push(key("imatrix.dataset", Key::Str(dataset.clone())));
        }
        keys.push(key("imatrix.entries_count", Key::U32(imatrix.entries().len() as u32)));
        keys.push(key("imatrix.chunks_count", Key::U32(imatrix.chunk_count())));
        if let Some(dataset) = self.other_sketches().and_then(|s| s.datasets.first()) {
            keys.push(key("sketch.dataset", Key::Str(dataset.clone())));
        }
        keys
    }

    /// The same for a reader: a line each.
    fn report(&self) -> String {
        let of = |what: &str, imatrix: &Imatrix| {
            format!("{what}: {} ({})\n", file_name(imatrix), imatrix.datasets.join(", "))
        };
        let importance = self.imatrix.as_deref().map(|i| of("importance of columns", i));
        let together = self.other_sketches().map(|s| of("which are used together", s));
        importance.into_iter().chain(together).collect()
    }
}

/// Of the path of an importance matrix no more than the name.
fn file_name(imatrix: &Imatrix) -> String {
    imatrix.path().file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The tensors of one role: how many have each type, and what they are taken to cost.
#[derive(Default)]
struct OfRole {
    types: BTreeMap<&'static str, usize>,
    noise: f64,
    divergence: f64,
}

/// What was chosen for each role, and why.
fn chosen(source: &dyn Source, choices: &[Choice]) -> anyhow::Result<String> {
    let mut roles: BTreeMap<Role, OfRole> = BTreeMap::new();
    for (tensor, choice) in source.tensors().iter().zip(choices) {
        if is_quantized(tensor) {
            let role = roles.entry(Role::of(&tensor.name)).or_default();
            *role.types.entry(choice.ty.name()).or_default() += 1;
            role.noise += choice.noise;
            role.divergence += choice.divergence;
        }
    }
    let total: f64 = roles.values().map(|r| r.divergence).sum();
    let mut text = String::from("role         mean noise  of the divergence  types\n");
    for (role, of) in &roles {
        let n: usize = of.types.values().sum();
        let types: Vec<_> = of.types.iter().map(|(ty, n)| format!("{ty} x{n}")).collect();
        writeln!(
            text,
            "{:<12} {:>9.3}% {:>17.1}%  {}",
            role.name(),
            100.0 * of.noise / n as f64,
            100.0 * of.divergence / total.max(f64::MIN_POSITIVE),
            types.join(", ")
        )?;
    }
    Ok(text)
}

/// Says what was written, or would be.
fn report(
    source: &dyn Source,
    plan: &Plan,
    choices: &[Choice],
    known: &Known,
    written: Option<(&Written, f64)>,
    args: &OutputArgs,
) -> anyhow::Result<()> {
    let tensors = source.tensors();
    let before: u64 = tensors.iter().map(|t| n_bytes(t, t.ty)).sum();
    let after = plan.n_bytes(tensors);
    let size = |path: &PathBuf| std::fs::metadata(path).map_or(0, |m| m.len());
    let bits = plan.bits_per_weight(tensors);
    let types = by_type(source, plan);
    if args.json {
        let each = |(i, (t, ty)): (usize, (&siskin_convert::TensorDesc, &GgmlType))| {
            json!({
                "name": t.name, "shape": t.shape, "from": t.ty.name(), "type": ty.name(),
                "bytes": n_bytes(t, *ty), "noise": choices.get(i).map(|c| c.noise),
                "divergence": choices.get(i).map(|c| c.divergence),
            })
        };
        let of = |i: &Imatrix| json!({ "file": file_name(i), "datasets": i.datasets });
        let types: serde_json::Map<_, _> = types
            .iter()
            .map(|(ty, (n, bytes))| (ty.to_string(), json!({ "tensors": n, "bytes": bytes })))
            .collect();
        return output::json(&json!({
            "paths": written.map(|(w, _)| &w.paths),
            "file_bytes": written.map(|(w, _)| w.paths.iter().map(size).sum::<u64>()),
            "seconds": written.map(|(_, seconds)| seconds),
            "bytes_before": before,
            "bytes": after,
            "bits_per_weight": bits,
            "notes": plan.notes,
            "imatrix": known.imatrix.as_deref().map(of),
            "sketches": known.sketches.as_deref().map(of),
            "types": types,
            "tensors": tensors.iter().zip(&plan.types).enumerate().map(each).collect::<Vec<_>>(),
        }));
    }
    let mut text = if choices.is_empty() { String::new() } else { chosen(source, choices)? };
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
    text += &known.report();
    if let Some((written, seconds)) = written {
        let paths: Vec<_> = written.paths.iter().map(|p| p.display().to_string()).collect();
        writeln!(text, "{} ({seconds:.1} s)", paths.join(", "))?;
    }
    output::print(&text)
}
