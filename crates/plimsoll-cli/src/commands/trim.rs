//! `plimsoll trim`: cut an adapter where it is known already what to keep.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use plimsoll::adapter::{Adapter, Ends, Layout, Provenance, Source, write_trimmed_as};
use plimsoll::files::sha256_of_files;
use plimsoll::gates::Variant;
use plimsoll::report;
use plimsoll::search::TOOL;

use super::inputs::EndsArgument;
use super::{Format, command_line, print};
use crate::hub;

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
    /// LoRA adapter: a PEFT folder (adapter_config.json, adapter_model.safetensors), or one of mlx-lm's, or an id
    #[arg(long, value_name = "FOLDER")]
    adapter: PathBuf,
    #[command(flatten)]
    ends: EndsArgument,
    #[command(flatten)]
    what: What,
    /// Folder for the trimmed adapter; it must not exist
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Whose layout to write [default: the adapter's own]
    #[arg(long, value_enum, value_name = "peft|mlx")]
    layout: Option<LayoutArgument>,
    /// What to print on stdout
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LayoutArgument {
    /// adapter_model.safetensors, which PEFT, vLLM and llama.cpp's converter read
    Peft,
    /// adapters.safetensors, which mlx-lm reads
    Mlx,
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
    let adapter = Adapter::open(&hub::adapter(&arguments.adapter, false)?)?;
    let sha256 = sha256_of_files(&adapter.files())?;
    let (variant, ends) = arguments.what.variant(&adapter, &sha256)?;
    let adapter = adapter.with_ends(arguments.ends.choice().or(ends));
    let layout = match arguments.layout {
        None => adapter.layout(),
        Some(LayoutArgument::Peft) => Layout::Peft,
        Some(LayoutArgument::Mlx) => Layout::Mlx,
    };
    let source = Source { path: arguments.adapter.display().to_string(), sha256 };
    let card =
        Provenance { tool: TOOL.into(), command: Some(command_line()), adapter: Some(source), ..Provenance::default() };
    let written = write_trimmed_as(&adapter, &variant, &card, layout, &arguments.out)?;
    let text = match arguments.format {
        Format::Json => serde_json::to_string_pretty(&written)? + "\n",
        Format::Table => report::trimmed(&written),
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

impl What {
    /// The gates, and what a search made of the ends of the model.
    fn variant(&self, adapter: &Adapter, sha256: &str) -> Result<(Variant, Option<Ends>)> {
        // No base model is at hand: the layers that can be spoken of are those up to the adapter's highest.
        let highest = adapter.layers().last().copied().unwrap_or(0);
        if let Some(gates) = &self.gates {
            let variant = Variant::parse(gates, highest + 1)
                .with_context(|| format!("{}: its highest layer with LoRA is {highest}", adapter.folder().display()))?;
            return Ok((variant, None));
        }
        match &self.from {
            Some(path) => Ok(report::picked_gates(path, sha256)?),
            None => Ok((Variant::bottom_k(highest + 1, self.layers_kept.unwrap_or(highest + 1)), None)),
        }
    }
}
