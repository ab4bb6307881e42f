//! Results on stdout, and the command line as it was typed.

use std::io::IsTerminal as _;

use anyhow::Result;
use clap::ValueEnum;

/// How a result is printed on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Table,
    /// For programs; a search prints what result.json holds.
    Json,
}

/// Whether stdout takes colour: a terminal that knows some, and nobody asked for none (no-color.org).
pub(super) fn colour() -> bool {
    std::io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|value| value != "dumb")
}

/// Prints a result. A reader that closed the pipe, such as `head`, is no error.
pub(super) fn print(text: &str) -> Result<()> {
    use std::io::Write as _;
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// The command as it was typed, quoted for a shell, with the program's name in front.
pub(super) fn command_line() -> String {
    let arguments: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let words = arguments.iter().map(String::as_str);
    // A word with a NUL byte cannot be quoted, and cannot have been typed either.
    let quoted = shlex::try_join(words).unwrap_or_else(|_| arguments.join(" "));
    format!("plimsoll {quoted}")
}
