//! `plimsoll inspect`: the contents of an adapter, and whether it fits a base model.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use plimsoll::lora::adapter::{Adapter, inspect};
use plimsoll::model::Model;
use plimsoll::report;

use super::output::{Format, print};
use crate::{hub, progress};

/// Show an adapter's layers, modules, ranks, scale, norms and bytes, and which runtimes can load it.
///
/// The norm is the Frobenius norm of a module's update, ‖s·B·A‖.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  plimsoll inspect --adapter my-adapter
  plimsoll inspect --adapter my-adapter --model model.gguf
  plimsoll inspect --adapter my-adapter --format json")]
pub(super) struct Arguments {
    /// LoRA adapter: a PEFT folder (adapter_config.json, adapter_model.safetensors), an mlx-lm folder, or a repository
    /// id
    #[arg(long, value_name = "FOLDER")]
    adapter: PathBuf,
    /// Base model: checks that every tensor of the adapter fits it
    #[arg(long, value_name = "PATH")]
    model: Option<PathBuf>,
    /// What to print on stdout
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

/// Runs the subcommand.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let adapter = Adapter::open(&hub::adapter(&arguments.adapter, false)?)?;
    if let Some(model) = &arguments.model {
        // Checks all tensors, whichever value of --embedding-lora would use them.
        let checkpoint = Model::open(&hub::model(model, false)?)?;
        checkpoint.check(&adapter)?;
        progress::say(&format!("fits {}", model.display()));
        progress::warn_of_base(checkpoint.other_base(&adapter));
    }
    let inspection = inspect(&adapter)?;
    match arguments.format {
        Format::Json => print(&(serde_json::to_string_pretty(&inspection)? + "\n"))?,
        Format::Table => print(&report::inspection(&inspection, &plimsoll::model::supported_families()))?,
    }
    Ok(ExitCode::SUCCESS)
}
