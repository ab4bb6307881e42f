//! The verbs: one file each.

mod debug_logits;
mod eval;
mod generate;
mod inputs;
mod inspect;
mod report;
mod search;
mod trim;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

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

/// How a result is printed on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// For programs; a search prints what result.json holds.
    Json,
}

/// Runs the verb that the user asked for.
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

/// Whether stdout takes colour: a terminal that knows some, and nobody asked for none (no-color.org).
fn colour() -> bool {
    std::io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|value| value != "dumb")
}

/// Prints a result. A reader that closed the pipe, such as `head`, is no error.
fn print(text: &str) -> Result<()> {
    use std::io::Write as _;
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// The command as it was typed, quoted for a shell, with the program's name in front.
fn command_line() -> String {
    let arguments: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let words = arguments.iter().map(String::as_str);
    // A word with a NUL byte cannot be quoted, and cannot have been typed either.
    let quoted = shlex::try_join(words).unwrap_or_else(|_| arguments.join(" "));
    format!("plimsoll {quoted}")
}
