//! The prompt: from the command line, a file or standard input.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

use crate::args::read_text;
use crate::output;

/// A prompt from the command line, a file or standard input.
///
/// With a prompt on the command line, standard input is read only if it is asked for: a pipe that a
/// parent left open would never end, and in a shell's `while read` loop it is the loop's own.
#[derive(Args)]
pub struct PromptArgs {
    /// The prompt; if it is - or missing, standard input.
    prompt: Option<String>,
    /// Read the prompt from a file, or from standard input if it is -; where PROMPT is given too,
    /// this follows it after an empty line.
    #[arg(short, long)]
    file: Option<PathBuf>,
}

impl PromptArgs {
    /// The text.
    pub fn text(&self) -> anyhow::Result<String> {
        let prompt = match self.prompt.as_deref() {
            Some("-") => Some(standard_input()?),
            Some(text) => Some(text.to_string()),
            None => None,
        };
        let file = self.file.as_deref().map(read).transpose()?;
        match (prompt, file) {
            (Some(prompt), Some(file)) if !file.trim().is_empty() => {
                Ok(format!("{prompt}\n\n{file}"))
            }
            (Some(prompt), Some(_)) => Ok(prompt),
            (Some(prompt), None) => {
                if self.prompt.as_deref() != Some("-") && something_waits() {
                    output::note("standard input is not read; -f - puts it behind the prompt");
                }
                Ok(prompt)
            }
            (None, Some(file)) => Ok(file),
            (None, None) if std::io::stdin().is_terminal() => {
                bail!("no prompt: give one as an argument, with -f FILE or on standard input")
            }
            (None, None) => standard_input(),
        }
    }
}

/// The text of a file, or of standard input if it is named `-`.
pub fn read(path: &Path) -> anyhow::Result<String> {
    if path == Path::new("-") { standard_input() } else { read_text(path) }
}

/// How long standard input may take to end before somebody is told what is being waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// All of standard input.
pub fn standard_input() -> anyhow::Result<String> {
    let (_done, waiting) = channel::<()>();
    if !std::io::stdin().is_terminal() {
        // Ends when `_done` is dropped.
        std::thread::spawn(move || {
            if waiting.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                output::note("waiting for the end of standard input");
            }
        });
    }
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).context("standard input")?;
    String::from_utf8(bytes).context("standard input is not UTF-8")
}

/// True if somebody sent something to standard input. Never waits: what comes later is not seen.
#[cfg(unix)]
fn something_waits() -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::io::Seek;
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileTypeExt;

    let stdin = std::io::stdin();
    let Ok(copy) = stdin.as_fd().try_clone_to_owned() else { return false };
    let mut file = std::fs::File::from(copy);
    let Ok(metadata) = file.metadata() else { return false };
    if metadata.is_file() {
        return file.stream_position().is_ok_and(|at| at < metadata.len());
    }
    let kind = metadata.file_type();
    let mut polled = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    (kind.is_fifo() || kind.is_socket())
        && poll(&mut polled, PollTimeout::ZERO).is_ok_and(|n| n > 0)
        && polled[0].revents().is_some_and(|events| events.contains(PollFlags::POLLIN))
}

#[cfg(not(unix))]
fn something_waits() -> bool {
    false
}
