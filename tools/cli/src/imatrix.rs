//! `siskin imatrix`

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use siskin::Session;
use siskin::gguf::AtomicFile;
use siskin::model::{ImatrixOptions, InputSums};
use siskin_convert::Imatrix;

use crate::args::{ModelArgs, SessionArgs};
use crate::chunks::Chunks;
use crate::{output, process};

/// Measures which weights of a model matter most for a text: an importance matrix.
///
/// Quantizers give the columns that are used most the smallest errors, which makes files of 4 bits
/// and less clearly better. It also holds which columns are used together, by which Siskin lets the
/// errors of one be undone by others: with 4 bits that leaves about 0.6 of the divergence. The text
/// should be like what the model will be used for; 50 to 200 chunks are enough. Take the model in full
/// precision, or Q8_0 if that is too large. The file, 50 MB for a model of 0.5 billion weights, can be
/// used with Siskin and llama.cpp.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    siskin imatrix -m model-f16.gguf -f text.txt -o imatrix.gguf --chunks 100\n  \
    siskin imatrix --show imatrix.gguf\n  \
    siskin imatrix --in english.gguf --in code.gguf -o both.gguf")]
pub struct ImatrixArgs {
    /// The text. It is cut into chunks of --ctx tokens (here 512 by default), each of which begins
    /// anew, with BOS if the model wants it.
    #[arg(short, long)]
    file: Option<PathBuf>,
    /// The file to write; it appears when it is whole.
    #[arg(short, long, required_unless_present = "show")]
    output: Option<PathBuf>,
    /// Replace a file that is there.
    #[arg(long)]
    force: bool,
    /// Chunks to read [default: all].
    #[arg(long)]
    chunks: Option<usize>,
    /// Measure the output matrix too. Takes longer, since the logits of all tokens are computed.
    #[arg(long)]
    process_output: bool,
    /// Leave out how columns are used together: a file as small as llama.cpp's. Who quantizes with it
    /// has the model measure that with a text that is built in.
    #[arg(long)]
    no_sketch: bool,
    /// A file whose numbers are added, of GGUF or llama.cpp's former format; can be given several
    /// times, and without a text.
    #[arg(long = "in", visible_alias = "in-file", value_name = "FILE")]
    inputs: Vec<PathBuf>,
    /// Show what is in a file: for each tensor, the mean squares of its columns' inputs.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["file", "output", "inputs"])]
    show: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    session: SessionArgs,
}

pub fn main(mut args: ImatrixArgs) -> anyhow::Result<()> {
    if let Some(path) = &args.show {
        return show(path, args.json);
    }
    let target = args.output.take().context("--output: where to write is missing")?;
    if args.file.is_none() && args.inputs.is_empty() {
        bail!("nothing to do: give a text with --file, or files to merge with --in");
    }
    if target.exists() && !args.force {
        bail!("{} is there already; --force replaces it", target.display());
    }
    // Where nothing can be written, it is better to know now.
    drop(AtomicFile::create(&target)?);
    let inputs = args.inputs.iter().map(Imatrix::open).collect::<Result<Vec<_>, _>>()?;
    let (collected, chunk_size) = match args.file.take() {
        Some(text) => {
            let (sums, n_ctx) = collect(&mut args, &text)?;
            (Some((text, sums)), u32::try_from(n_ctx)?)
        }
        None => (None, inputs.first().map_or(1, Imatrix::chunk_size)),
    };
    let mut imatrix = Imatrix::new(&target, chunk_size);
    inputs.iter().try_for_each(|input| imatrix.merge(input))?;
    if let Some((text, sums)) = collected {
        imatrix.add_collected(sums)?;
        // Not the path: where it lies on this machine is nobody's concern.
        let name = text.file_name().unwrap_or_default().to_string_lossy();
        imatrix.datasets.push(name.into_owned());
    }
    if args.no_sketch {
        imatrix.drop_sketches();
    } else {
        tell_of_sketches(&imatrix, &inputs);
    }
    imatrix.save(&target)?;
    let (tensors, chunks) = (imatrix.entries().len(), imatrix.chunk_count());
    if args.json {
        return output::json(&serde_json::json!({
            "file": target, "tensors": tensors, "chunks": chunks,
            "chunk_size": imatrix.chunk_size(), "datasets": imatrix.datasets,
        }));
    }
    let (name, size) = (target.display(), imatrix.chunk_size());
    output::print(&format!("{name}: {tensors} tensors, {chunks} chunks of {size} tokens\n"))
}

/// Says if columns that are used together stay unknown.
fn tell_of_sketches(imatrix: &Imatrix, inputs: &[Imatrix]) {
    let has_none = |input: &&Imatrix| !input.entries().any(|(_, entry)| entry.has_sketch());
    if let Some(input) = inputs.iter().find(has_none) {
        output::note(&format!(
            "{} does not say which columns are used together, so what it is added to does not \
             either",
            input.path().display()
        ));
    } else if imatrix.n_sketched() == 0 {
        output::note(
            "this is too little text to tell which columns are used together: 1024 tokens are the \
             least",
        );
    }
}

/// Runs the model on the text. Returns the sums, and the tokens of a chunk.
fn collect(args: &mut ImatrixArgs, text: &Path) -> anyhow::Result<(Vec<InputSums>, usize)> {
    let engine = args.model.load()?;
    let chunks = Chunks::new(text, engine.tokenizer(), &mut args.session, args.chunks)?;
    let mut session = args.session.session(&engine)?;
    let (output, sketch) = (args.process_output, !args.no_sketch);
    let options = ImatrixOptions { output, sketch, forget: false };
    session.collect_imatrix(options)?;
    let bar = chunks.progress()?;
    let _interruptible = process::Interruptible::new(session.cancel_handle())?;
    let read = |session: &mut Session, chunk: &[u32]| {
        session.rewind(0);
        if args.process_output {
            return session.prefill_all(chunk, |_, _| Ok(()));
        }
        session.prefill(chunk).map(|_| ())
    };
    for chunk in chunks.iter() {
        match read(&mut session, chunk) {
            Err(siskin::Error::Cancelled) => return Err(process::Interrupted.into()),
            result => result?,
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok((session.take_imatrix().unwrap_or_default(), chunks.n_ctx()))
}

fn show(path: &Path, json: bool) -> anyhow::Result<()> {
    let imatrix = Imatrix::open(path)?;
    let statistics = imatrix.entries().map(|(name, entry)| (name, entry, entry.statistics()));
    if json {
        let tensors: Vec<_> = statistics
            .map(|(name, entry, s)| {
                serde_json::json!({
                    "name": name, "columns": s.columns, "tokens": s.tokens, "unused": s.unused,
                    "sum": s.sum, "min": s.min, "max": s.max, "stddev": s.stddev,
                    "active": s.active, "entropy": s.entropy, "sketch": entry.has_sketch(),
                })
            })
            .collect();
        return output::json(&serde_json::json!({
            "file": path, "datasets": imatrix.datasets, "chunks": imatrix.chunk_count(),
            "chunk_size": imatrix.chunk_size(), "tensors": tensors,
        }));
    }
    let (chunks, size) = (imatrix.chunk_count(), imatrix.chunk_size());
    let mut text = format!(
        "{}: {} tensors, {chunks} chunks of {size} tokens, from {}\n\n",
        path.display(),
        imatrix.entries().len(),
        if imatrix.datasets.is_empty() { "?".into() } else { imatrix.datasets.join(", ") },
    );
    let width = imatrix.entries().map(|(name, _)| name.len()).max().unwrap_or(0);
    writeln!(
        text,
        "{:width$} {:>8} {:>9} {:>12} {:>12} {:>12} {:>8} {:>8}",
        "tensor", "columns", "tokens", "mean square", "largest", "deviation", "active", "entropy"
    )?;
    for (name, entry, s) in statistics {
        writeln!(
            text,
            "{name:width$} {:8} {:9} {:12.5} {:12.5} {:12.5} {:7.2}% {:7.2}%{}",
            s.columns,
            s.tokens,
            s.sum / s.columns as f64,
            s.max,
            s.stddev,
            100.0 * s.active,
            100.0 * s.entropy,
            match (s.unused, entry.has_sketch()) {
                (0, true) => "  sketch".to_string(),
                (0, false) => String::new(),
                (n, _) => format!("  {n} experts unused"),
            },
        )?;
    }
    text += "\nActive: columns above 0.00001. Entropy: 100% if all columns are used alike; the lower, \
             the more an importance matrix helps. Sketch: it is known which columns are used \
             together.\n";
    output::print(&text)
}
