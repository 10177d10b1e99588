//! What `convert` and `quantize` do where no importance matrix is given, or one that does not say which
//! columns are used together: the model measures its own.

use std::path::Path;
use std::time::Duration;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use siskin_convert::calibrate::{Amount, Calibrator};
use siskin_convert::{Error, Imatrix, Plan, PlanOptions, Source};
use siskin_quant::table::KernelTable;

use crate::process;
use crate::writing::{OutputArgs, TypeArgs, ended, on_bar};

/// How the importance of columns is measured where no file says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Calibrate {
    /// 192 tokens.
    Quick,
    /// Up to 2048 tokens, and which columns are used together: better, and slower.
    Full,
    /// Not at all: all columns count alike, or as --imatrix says.
    None,
}

/// Where a file goes, and how it is made.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    pub out: &'a Path,
    pub args: &'a OutputArgs,
    pub table: &'a KernelTable,
}

/// Measures what `options` need, of the types that they say, or of types that are still to be chosen
/// for a size: what an importance matrix says, or what the one that is `given` does not say. `None`
/// where nothing has to be known. Where the model cannot be run, that is noted, unless it was asked
/// for, and the options are told that nothing is known.
pub fn calibrate(
    source: &dyn Source,
    types: &TypeArgs,
    given: Option<&Imatrix>,
    options: &mut PlanOptions,
    target: Target<'_>,
    notes: &mut Vec<String>,
) -> anyhow::Result<Option<Imatrix>> {
    let Target { args, table, .. } = target;
    let asked = types.calibrate.is_some();
    let mut amount = match (types.calibrate, given) {
        (Some(Calibrate::None), _) => return Ok(None),
        (_, Some(given)) if given.n_sketched() > 0 => {
            if asked {
                let says = "the importance matrix says which columns are used together";
                notes.push(format!("{says}: --calibrate changes nothing"));
            }
            return Ok(None);
        }
        (Some(Calibrate::Full), _) | (_, Some(_)) => Amount::Full,
        (_, None) => Amount::Quick,
    };
    if types.wanted_size().is_some() {
        Plan::fixed(source, options, table)?;
    } else {
        let (tensors, plan) = (source.tensors(), Plan::new(source, options, table)?);
        let matters = match given {
            Some(_) => plan.recodes(tensors, table),
            None => plan.weighs_columns(tensors),
        };
        if !matters {
            if asked {
                notes.push("--calibrate changes nothing of these types".into());
            }
            return Ok(None);
        }
        if args.dry_run {
            return Ok(None);
        }
        if !asked && plan.needs_imatrix(tensors) {
            amount = Amount::Full;
        }
    }
    if let Some(given) = given {
        given.check(source.tensors())?;
    }
    let what = match given {
        Some(_) => "which columns are used together",
        None => "which columns matter",
    };
    match measure(source, amount, what, target)? {
        Err(Error::CannotRun(reason)) if !asked => {
            options.calibrated = false;
            notes.push(format!("{what} was not measured, since the model cannot be run: {reason}"));
            Ok(None)
        }
        Err(error @ (Error::Siskin(_) | Error::Io { .. })) => {
            let doing = "the model could not measure how its columns are used, which \
                         --calibrate none does without";
            Err(anyhow::Error::new(error).context(doing))
        }
        result => Ok(Some(result.map_err(ended)?)),
    }
}

/// Loads the model, and has it read the text.
fn measure(
    source: &dyn Source,
    amount: Amount,
    what: &str,
    Target { out, args, table }: Target<'_>,
) -> anyhow::Result<siskin_convert::Result<Imatrix>> {
    // Nothing is written beside the output of a dry run.
    let elsewhere = std::env::temp_dir().join("siskin");
    let out = if args.dry_run { &elsewhere } else { out };
    let copying = ProgressBar::new(0).with_style(ProgressStyle::with_template(
        "{bar:30} {bytes}/{total_bytes} copied, to run the model, {eta} left",
    )?);
    let reading = ProgressBar::new(0).with_style(ProgressStyle::with_template(&format!(
        "{{bar:30}} {{pos}}/{{len}} tokens read, to see {what} ({{elapsed}})",
    ))?);
    let mut copied = on_bar(&copying);
    let calibrator = Calibrator::new(source, amount, out, table, args.threads, &mut copied);
    copying.finish_and_clear();
    let cancel = calibrator.as_ref().ok().map(Calibrator::cancel_handle);
    let _interruptible = cancel.map(process::Interruptible::new).transpose()?;
    let read = |calibrator: Calibrator| {
        reading.set_length(calibrator.n_tokens() as u64);
        reading.enable_steady_tick(Duration::from_millis(200));
        calibrator.run(&mut |done| reading.set_position(done as u64))
    };
    let measured = calibrator.and_then(read);
    reading.finish_and_clear();
    // Also where that came too late to stop anything.
    Ok(if process::interrupted() { Err(Error::Cancelled) } else { measured })
}
