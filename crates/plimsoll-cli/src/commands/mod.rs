//! The command line: its subcommands, one file each.

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
/// plimsoll measures how much each LoRA layer of an adapter (PEFT or mlx-lm) improves the prediction of the right
/// answers. It finds the boundary layer above which LoRA can be dropped and writes a trimmed adapter, or it reports
/// that the full adapter or the base model is the better choice.
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

/// Runs the subcommand of a parsed command line. Returns the exit code.
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
