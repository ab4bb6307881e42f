//! `plimsoll trim`: cut an adapter at a boundary that is known already.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use plimsoll::adapter::{Adapter, Provenance, Source, write_trimmed};
use plimsoll::files::sha256_of_files;
use plimsoll::report;
use plimsoll::search::TOOL;

use super::{Format, command_line, print};

/// Write an adapter that keeps the LoRA of the lowest layers and drops the rest.
///
/// The kept tensors are copied byte for byte; nothing is retrained. No base model is needed. To find the number of
/// layers to keep, use `plimsoll search`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  plimsoll trim --adapter my-adapter --layers-kept 18 --out my-adapter-18")]
pub(super) struct Arguments {
    /// PEFT LoRA adapter: a folder with adapter_config.json and adapter_model.safetensors
    #[arg(long, value_name = "FOLDER")]
    adapter: PathBuf,
    /// Keep LoRA in the layers 0 to K − 1, 0 being next to the embedding
    #[arg(long, value_name = "K")]
    layers_kept: usize,
    /// Folder for the trimmed adapter; it must not exist
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// What to print on stdout
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

/// Runs the verb.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let adapter = Adapter::open(&arguments.adapter)?;
    let keep: Vec<usize> = adapter.layers().into_iter().filter(|&layer| layer < arguments.layers_kept).collect();
    if keep.is_empty() {
        let layers_kept = arguments.layers_kept;
        return Err(plimsoll::Error::Usage(format!(
            "--layers-kept {layers_kept} keeps no LoRA: use the base model without an adapter; nothing is written"
        ))
        .into());
    }
    let source = Source { path: arguments.adapter.display().to_string(), sha256: sha256_of_files(&adapter.files())? };
    let card =
        Provenance { tool: TOOL.into(), command: Some(command_line()), adapter: Some(source), ..Provenance::default() };
    let written = write_trimmed(&adapter, &keep, &card, &arguments.out)?;
    let text = match arguments.format {
        Format::Json => serde_json::to_string_pretty(&written)? + "\n",
        Format::Table => report::trimmed(&written),
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}
