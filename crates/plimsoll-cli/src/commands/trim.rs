//! `plimsoll trim`: writes an adapter with given LoRA strengths.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use plimsoll::TOOL;
use plimsoll::choose::Margin;
use plimsoll::formats::files::sha256_of_files;
use plimsoll::lora::adapter::{Adapter, AdapterLayout, EmbeddingLora, HashedFile, Provenance, write_trimmed_as};
use plimsoll::lora::{Family, LayersKept, Variant};
use plimsoll::report::Asked;
use plimsoll::{Error, report};

use super::inputs::{EmbeddingLoraArgument, margin};
use super::output::{Format, command_line, print};
use crate::hub;

/// Write an adapter that keeps some of the LoRA and drops the rest.
///
/// Tensors with LoRA strength 1 are copied byte for byte. Strengths other than 0 and 1 are multiplied into lora_B and
/// rounded to its dtype. Nothing is retrained, and no base model is needed. To find what to keep, use
/// `plimsoll search`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  plimsoll trim --adapter my-adapter --layers-kept 18 --out my-adapter-18
  plimsoll trim --adapter my-adapter --gates 18-29=0,7.q_proj=0 --out smaller
  plimsoll trim --adapter my-adapter --gates 20-29=0.5 --out weaker
  plimsoll trim --adapter my-adapter --from out --out as-searched
  plimsoll trim --adapter my-adapter --from out --margin 90% --out my-adapter-90

--gates takes LoRA strengths: terms PLACE=STRENGTH, separated by commas. A place is a layer (7), a
range of layers (18-29), a module (q_proj) or both (7.q_proj, 0-9.down_proj). A later term overrides
earlier ones. A strength alone (0.5) is for all places. 1 keeps LoRA as trained, 0 drops it. Places
that no term names have strength 1.")]
pub(super) struct Arguments {
    /// LoRA adapter: a PEFT folder (adapter_config.json, adapter_model.safetensors), an mlx-lm folder, or a repository
    /// id
    #[arg(long, value_name = "FOLDER")]
    adapter: PathBuf,
    #[command(flatten)]
    embedding_lora: EmbeddingLoraArgument,
    #[command(flatten)]
    what: What,
    /// With --from: write the fewest layers that the search shows to hold this margin, such as 90%
    #[arg(long, value_name = "SHARE%|LOSSnats", value_parser = margin, requires = "from")]
    margin: Option<Margin>,
    /// With --margin: of this family of the search [default: bottom-k]
    #[arg(long, value_name = "FAMILY", requires = "margin")]
    family: Option<Family>,
    /// Folder for the trimmed adapter; it must not exist
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// File layout of the trimmed adapter [default: as in --adapter]
    #[arg(long, value_enum, value_name = "peft|mlx")]
    layout: Option<AdapterLayoutArgument>,
    /// What to print on stdout
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum AdapterLayoutArgument {
    /// adapter_model.safetensors, which PEFT, vLLM and llama.cpp's converter read
    Peft,
    /// adapters.safetensors, which mlx-lm reads
    Mlx,
}

/// What to keep: exactly one of three options.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct What {
    /// How many layers keep their LoRA, from the bottom: a number, or `full` (all)
    #[arg(long, value_name = "K")]
    layers_kept: Option<LayersKept>,
    /// LoRA strengths of layers and modules, such as 18-29=0 or 7=0,20-29.q_proj=0.5
    #[arg(long, value_name = "PLACE=STRENGTH,…", allow_hyphen_values = true)]
    gates: Option<String>,
    /// The candidate of a search, whatever its verdict: the output folder of the search, or its result.json
    #[arg(long, value_name = "PATH")]
    from: Option<PathBuf>,
}

/// Runs the subcommand.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let adapter = Adapter::open(&hub::adapter(&arguments.adapter, false)?)?;
    let sha256 = sha256_of_files(&adapter.files())?;
    let asked = match arguments.margin {
        Some(margin) => Asked::Sufficient { margin, family: arguments.family },
        None => Asked::Candidate,
    };
    let (variant, searched) = arguments.what.variant(&adapter, &sha256, asked)?;
    let adapter = adapter.with_embedding_lora(arguments.embedding_lora.choice().or(searched));
    let layout = match arguments.layout {
        None => adapter.layout(),
        Some(AdapterLayoutArgument::Peft) => AdapterLayout::Peft,
        Some(AdapterLayoutArgument::Mlx) => AdapterLayout::Mlx,
    };
    let source = HashedFile { path: arguments.adapter.display().to_string(), sha256 };
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
    /// The variant to write, and with `--from` the search's choice of `--embedding-lora`.
    fn variant(&self, adapter: &Adapter, sha256: &str, asked: Asked) -> Result<(Variant, Option<EmbeddingLora>)> {
        // Without a base model, the number of layers is known up to the highest layer with LoRA only.
        let highest = adapter.layers().last().copied().unwrap_or(0);
        let layers = highest + 1;
        if let Some(gates) = &self.gates {
            let variant = Variant::parse_for(gates, layers, &adapter.places()).with_context(|| {
                format!("{}, whose highest layer with LoRA is {highest}", adapter.folder().display())
            })?;
            return Ok((variant, None));
        }
        if let Some(path) = &self.from {
            return Ok(report::picked_gates(path, sha256, asked)?);
        }
        let kept = match self.layers_kept {
            Some(LayersKept::Base) => 0,
            Some(LayersKept::Some(kept)) if kept <= layers => kept,
            Some(LayersKept::Some(kept)) => {
                return Err(Error::Usage(format!(
                    "{kept} layers kept: expected at most {layers}, since the highest layer with LoRA in {} is \
                     {highest}; `full` keeps all",
                    adapter.folder().display()
                ))
                .into());
            }
            Some(LayersKept::Full) | None => layers,
        };
        Ok((Variant::bottom_k(layers, kept), None))
    }
}
