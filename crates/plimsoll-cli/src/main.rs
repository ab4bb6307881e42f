//! `plimsoll`: finds the LoRA layers that inference needs, and trims the rest.
//!
//! Results go to stdout, progress and messages to stderr. Exit codes: 0 done, 1 internal error or a result that
//! cannot be written, 2 usage, 3 bad input (model, adapter, data), 4 engine, 5 done with `--fail-if-kept` and a verdict
//! to keep the full adapter or to use the base model, 130 interrupted.

#![allow(clippy::doc_markdown, reason = "doc comments on arguments are help texts, not Markdown")]

mod commands;
mod hub;
mod interrupt;
mod progress;

use std::process::ExitCode;

use clap::Parser as _;
use commands::Cli;
use plimsoll::ErrorKind;

fn main() -> ExitCode {
    match commands::run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            progress::say(&format!("plimsoll: {error:#}"));
            ExitCode::from(exit_code(&error))
        }
    }
}

fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<plimsoll::Error>().map(plimsoll::Error::kind) {
        None | Some(ErrorKind::Internal) => 1,
        Some(ErrorKind::Usage) => 2,
        Some(ErrorKind::Input) => 3,
        Some(ErrorKind::Engine) => 4,
        Some(ErrorKind::Interrupted) => 130,
    }
}
