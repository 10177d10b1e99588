//! The `siskin` command.

mod args;
mod bench;
mod bench_record;
mod calibrating;
mod catalog;
mod chat;
mod check;
mod chunks;
mod compare;
mod complete;
mod convert;
mod download;
mod ftype;
mod hub;
mod imatrix;
mod inspect;
mod logits;
mod output;
mod perplexity;
mod pip;
mod process;
mod prompt;
mod quantize;
mod run;
mod shape;
mod store;
mod tokenize;
mod writing;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Runs, converts and quantizes language models (GGUF) on the CPU.
#[derive(Parser)]
#[command(
    name = "siskin",
    version,
    max_term_width = 100,
    after_help = "Examples:\n  \
        siskin run \"Why is the sky blue?\"          one answer from the default model\n  \
        siskin chat -m qwen2.5-coder-0.5b          a conversation\n  \
        siskin run -m ./model.gguf --raw -f a.txt  complete a text file\n  \
        siskin inspect model.gguf                  what is in a file, what it needs\n  \
        siskin bench -m model.gguf                 how fast it is here\n  \
        siskin convert ./checkpoint --type q4_k_m  a hub checkpoint to a quantized file\n\n\
        MODEL is a path, a name in the store (see `siskin list`) or hf:OWNER/REPO/FILE.gguf.\n\n\
        Environment:\n  \
        SISKIN_HOME   where models are kept (default: siskin/models in the user's cache folder)\n  \
        HF_TOKEN      a token for models of the hub that need one\n  \
        HF_ENDPOINT   a mirror of the hub\n  \
        SISKIN_CPU    forces a kernel level: scalar, wide, avx2, avxvnni, avx512vl,\n  \
                        avx512, neon, dotprod, i8mm\n  \
        NO_COLOR      no colours\n\n\
        Exit codes: 0 success, 1 error, 2 wrong usage, 130 interrupted."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::RunArgs),
    Chat(chat::ChatArgs),
    Inspect(inspect::InspectArgs),
    Tokenize(tokenize::TokenizeArgs),
    Logits(logits::LogitsArgs),
    Perplexity(perplexity::PerplexityArgs),
    Compare(compare::CompareArgs),
    Imatrix(imatrix::ImatrixArgs),
    Bench(bench::BenchArgs),
    Convert(convert::ConvertArgs),
    Quantize(quantize::QuantizeArgs),
    Pull(store::PullArgs),
    List(store::ListArgs),
    Rm(store::RmArgs),
    Completions(complete::CompletionsArgs),
}

/// The arguments, with llama.cpp's -ctk and -ctv: clap takes an option with one dash for several
/// options of one letter.
fn arguments() -> impl Iterator<Item = OsString> {
    let mut options = true;
    std::env::args_os().map(move |arg| {
        options &= arg != "--";
        match arg.to_str() {
            Some("-ctk") if options => "--cache-type-k".into(),
            Some("-ctv") if options => "--cache-type-v".into(),
            _ => arg,
        }
    })
}

fn main() -> ExitCode {
    let result = match Cli::parse_from(arguments()).command {
        Command::Run(args) => run::main(args),
        Command::Chat(args) => chat::main(args),
        Command::Inspect(args) => inspect::main(args),
        Command::Tokenize(args) => tokenize::main(args),
        Command::Logits(args) => logits::main(args),
        Command::Perplexity(args) => perplexity::main(args),
        Command::Compare(args) => compare::main(args),
        Command::Imatrix(args) => imatrix::main(args),
        Command::Bench(args) => bench::main(args),
        Command::Convert(args) => convert::main(args),
        Command::Quantize(args) => quantize::main(args),
        Command::Pull(args) => store::pull(args),
        Command::List(args) => store::list(args),
        Command::Rm(args) => store::remove(args),
        Command::Completions(args) => complete::main::<Cli>(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the output has seen enough.
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) if error.is::<process::Interrupted>() => ExitCode::from(130),
        Err(error) => {
            // Nothing can be done about a standard error that is closed.
            let _ = output::error(&error);
            ExitCode::from(1)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn arguments_are_consistent_and_all_are_explained() {
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        for sub in command.get_subcommands().filter(|s| s.get_name() != "help") {
            assert!(sub.get_about().is_some(), "{}", sub.get_name());
            for arg in sub.get_arguments() {
                assert!(arg.get_help().is_some(), "{} {}", sub.get_name(), arg.get_id());
            }
        }
    }
}
