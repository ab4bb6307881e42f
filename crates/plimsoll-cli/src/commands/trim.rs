//! `plimsoll trim`: cut an adapter where it is known already what to keep.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;
use plimsoll::adapter::{Adapter, Provenance, Source, write_trimmed};
use plimsoll::files::sha256_of_files;
use plimsoll::gates::Variant;
use plimsoll::report;
use plimsoll::search::TOOL;

use super::{Format, command_line, print};

/// Write an adapter that keeps some of the LoRA and drops the rest.
///
/// What is kept as trained is copied byte for byte; a strength that is neither 0 nor 1 is multiplied into lora_B and
/// rounded to the type that it is stored in. Nothing is retrained. No base model is needed. To find what to keep, use
/// `plimsoll search`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  plimsoll trim --adapter my-adapter --layers-kept 18 --out my-adapter-18
  plimsoll trim --adapter my-adapter --gates 18-29=0,7.q_proj=0 --out smaller
  plimsoll trim --adapter my-adapter --gates 20-29=0.5 --out weaker
  plimsoll trim --adapter my-adapter --from out --out as-searched

Gates are terms PLACE=STRENGTH, separated by commas. A place is a layer (7), layers (18-29), a
module (q_proj) or both (7.q_proj, 0-9.down_proj). A later term overrides those before it. What
no term names stays as trained, 1; 0 drops. A strength alone is for all places.")]
pub(super) struct Arguments {
    /// PEFT LoRA adapter: a folder with adapter_config.json and adapter_model.safetensors
    #[arg(long, value_name = "FOLDER")]
    adapter: PathBuf,
    #[command(flatten)]
    what: What,
    /// Folder for the trimmed adapter; it must not exist
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// What to print on stdout
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

/// What to keep, said in one of three ways.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct What {
    /// Keep LoRA in the layers 0 to K − 1, 0 being next to the embedding
    #[arg(long, value_name = "K")]
    layers_kept: Option<usize>,
    /// Strengths of layers and modules, such as 18-29=0 or 7=0,20-29.q_proj=0.5
    #[arg(long, value_name = "GATES", allow_hyphen_values = true)]
    gates: Option<String>,
    /// The gates that a search picked, whatever its verdict on them: its folder, or its result.json
    #[arg(long, value_name = "PATH")]
    from: Option<PathBuf>,
}

/// Runs the verb.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let adapter = Adapter::open(&arguments.adapter)?;
    let sha256 = sha256_of_files(&adapter.files())?;
    let variant = arguments.what.variant(&adapter, &sha256)?;
    let source = Source { path: arguments.adapter.display().to_string(), sha256 };
    let card =
        Provenance { tool: TOOL.into(), command: Some(command_line()), adapter: Some(source), ..Provenance::default() };
    let written = write_trimmed(&adapter, &variant, &card, &arguments.out)?;
    let text = match arguments.format {
        Format::Json => serde_json::to_string_pretty(&written)? + "\n",
        Format::Table => report::trimmed(&written),
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

impl What {
    fn variant(&self, adapter: &Adapter, sha256: &str) -> Result<Variant> {
        // No base model is at hand: the layers that can be spoken of are those up to the adapter's highest.
        let highest = adapter.layers().last().copied().unwrap_or(0);
        if let Some(gates) = &self.gates {
            return Variant::parse(gates, highest + 1)
                .with_context(|| format!("{}: its highest layer with LoRA is {highest}", adapter.folder().display()));
        }
        match &self.from {
            Some(path) => Ok(report::picked_gates(path, sha256)?),
            None => Ok(Variant::bottom_k(highest + 1, self.layers_kept.unwrap_or(highest + 1))),
        }
    }
}
