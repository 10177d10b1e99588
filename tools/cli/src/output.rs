//! Writing to standard output and error.

use std::io::{ErrorKind, Write};

use anyhow::Context;

/// Writes `text` to standard output and flushes it.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut out = anstream::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.context("standard output")
}

/// Writes a line of JSON to standard output.
pub fn json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    print(&(serde_json::to_string(value)? + "\n"))
}

/// Writes an error, its causes behind it, to standard error.
pub fn error(error: &anyhow::Error) -> std::io::Result<()> {
    let red = clap::builder::styling::AnsiColor::Red.on_default().bold();
    writeln!(anstream::stderr(), "{red}error:{red:#} {}", message(error))
}

/// An error and its causes, each once: some errors name their cause themselves.
fn message(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.ends_with(&cause) {
            text += ": ";
            text += &cause;
        }
    }
    text
}

/// Writes a remark to standard error.
pub fn note(text: &str) {
    // A remark that cannot be written is not worth an error.
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// True for the error of a reader that went away.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
    })
}

/// Bytes in a unit that reads well.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_named_once() {
        let cause = || std::io::Error::other("a directory");
        let error = anyhow::Error::new(cause()).context("x.gguf");
        assert_eq!(message(&error), "x.gguf: a directory");
        let error = anyhow::Error::new(cause()).context("x.gguf: a directory");
        assert_eq!(message(&error), "x.gguf: a directory");
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(3 << 29), "1.5 GiB");
    }
}
