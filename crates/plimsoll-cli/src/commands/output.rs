//! Printing of results on stdout, and the command line as it was typed.

use std::io::IsTerminal as _;

use anyhow::Result;
use clap::ValueEnum;

/// Format of a result on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Table for the terminal
    Table,
    /// JSON for programs
    Json,
}

/// Whether output is coloured: stdout is a terminal with colours, and `NO_COLOR` is not set (no-color.org).
pub(super) fn colour() -> bool {
    std::io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|value| value != "dumb")
}

/// Prints a result on stdout. A closed pipe, such as that of `head`, is no error.
pub(super) fn print(text: &str) -> Result<()> {
    use std::io::Write as _;
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// The command as it was typed, quoted for a shell; it starts with the program's name.
pub(super) fn command_line() -> String {
    let arguments: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let words = arguments.iter().map(String::as_str);
    // A word with a NUL byte cannot be quoted, and cannot have been typed either.
    let quoted = shlex::try_join(words).unwrap_or_else(|_| arguments.join(" "));
    format!("plimsoll {quoted}")
}
