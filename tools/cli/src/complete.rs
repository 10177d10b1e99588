//! `siskin completions`

use clap::{Args, CommandFactory};
use clap_complete::Shell;

/// Prints a shell's completion script.
///
/// For bash: siskin completions bash > ~/.local/share/bash-completion/completions/siskin
#[derive(Args)]
pub struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

pub fn main<C: CommandFactory>(args: CompletionsArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut C::command(), "siskin", &mut script);
    crate::output::print(&String::from_utf8_lossy(&script))
}
