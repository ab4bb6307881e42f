//! `plimsoll debug-logits`: the engine's logits of one sequence, for comparison with other implementations. Hidden from
//! the help text, and no promise of stability.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use plimsoll::adapter::Adapter;
use plimsoll::engine::{Embedded, EngineOptions};
use plimsoll::gates::Variant;
use plimsoll::model::{Checkpoint, Dtype, Precision};

use super::print;

/// Print the logits of one sequence under one variant.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[arg(long)]
    model: PathBuf,
    #[arg(long)]
    adapter: PathBuf,
    /// As `trim --gates` takes them
    #[arg(long, default_value = "1", allow_hyphen_values = true)]
    gates: String,
    #[arg(long, value_delimiter = ',', required = true)]
    tokens: Vec<u32>,
}

/// Runs the verb.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let checkpoint = Checkpoint::open(&arguments.model)?;
    let config = checkpoint.config().clone();
    let lora = checkpoint.bind(Some(&Adapter::open(&arguments.adapter)?))?;
    if let Some(token) = arguments.tokens.iter().find(|&&token| token as usize >= config.vocabulary) {
        let largest = config.vocabulary - 1;
        return Err(plimsoll::Error::Usage(format!("token {token}: the model's tokens are 0 to {largest}")).into());
    }
    let variant = Variant::parse(&arguments.gates, config.layers)?;
    let engine = Embedded::load(
        &checkpoint,
        &lora,
        EngineOptions { precision: Precision::new(Dtype::F32), ..EngineOptions::default() },
    )?;
    let logits = engine.logits(&arguments.tokens, &variant)?;
    let rows: Vec<&[f32]> = logits.chunks(config.vocabulary).collect();
    print(&format!("{}\n", serde_json::json!({ "logits": rows })))?;
    Ok(ExitCode::SUCCESS)
}
