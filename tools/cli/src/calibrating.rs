//! What `convert` and `quantize` do where no importance matrix is given: the model measures its own.

use std::path::Path;
use std::time::Duration;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use siskin_convert::calibrate::{Amount, Calibrator};
use siskin_convert::{Error, Imatrix, Plan, PlanOptions, Source};
use siskin_quant::table::KernelTable;

use crate::writing::{OutputArgs, ended, on_bar};
use crate::{download, output, process};

/// How the importance of columns is measured where no file says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Calibrate {
    /// 192 tokens: less time than quantizing takes.
    Quick,
    /// 2048 tokens, and which columns are used together: better yet, in several times the time.
    Full,
    /// Not at all: all columns count alike.
    None,
}

/// Measures what `options` need for a file at `out`, of the types that they say, or (`sized`) of
/// types that are still to be chosen. `None` where nothing has to be known. Where the model cannot
/// be run, that is said, and the options are told that nothing is known.
pub fn calibrate(
    source: &dyn Source,
    how: Option<Calibrate>,
    options: &mut PlanOptions,
    sized: bool,
    out: &Path,
    table: &KernelTable,
    args: &OutputArgs,
) -> anyhow::Result<Option<Imatrix>> {
    let mut amount = match how {
        _ if !options.calibrated => return Ok(None),
        Some(Calibrate::Full) => Amount::Full,
        _ => Amount::Quick,
    };
    if !sized {
        let (tensors, plan) = (source.tensors(), Plan::new(source, options, table)?);
        if args.dry_run || !plan.weighs_columns(tensors) {
            return Ok(None);
        }
        if how.is_none() && plan.needs_imatrix(tensors) {
            amount = Amount::Full;
        }
    }
    let copying = download::progress(Some(0))?;
    let reading = ProgressBar::new(0).with_style(ProgressStyle::with_template(
        "{bar:30} {pos}/{len} tokens read, to see which columns matter ({elapsed})",
    )?);
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
    match measured {
        Err(Error::CannotRun(reason)) => {
            output::note(&format!(
                "which columns matter was not measured, since the model cannot be run: {reason}"
            ));
            options.calibrated = false;
            Ok(None)
        }
        result => result.map(Some).map_err(ended),
    }
}
