//! The subcommands: one file each.

mod debug_logits;
mod eval;
mod generate;
mod inputs;
mod inspect;
mod output;
mod report;
mod search;
mod trim;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Which LoRA layers does inference need?
///
/// plimsoll measures what every LoRA layer of a PEFT adapter contributes to predicting the right answers, finds the
/// boundary layer above which LoRA can be dropped, or says that the full adapter should stay, and writes a trimmed
/// adapter.
#[derive(Debug, Parser)]
#[command(name = "plimsoll", version, max_term_width = 100, args_override_self = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Search(search::Arguments),
    Trim(trim::Arguments),
    Eval(eval::Arguments),
    Generate(generate::Arguments),
    Inspect(inspect::Arguments),
    Report(report::Arguments),
    #[command(hide = true)]
    DebugLogits(debug_logits::Arguments),
}

/// Runs the subcommand that the user asked for.
pub(crate) fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Search(arguments) => search::run(&arguments),
        Command::Trim(arguments) => trim::run(&arguments),
        Command::Eval(arguments) => eval::run(&arguments),
        Command::Generate(arguments) => generate::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Report(arguments) => report::run(&arguments),
        Command::DebugLogits(arguments) => debug_logits::run(&arguments),
    }
}
