//! `plimsoll debug-logits`: prints the engine's logits of one sequence, for comparison with other implementations.
//! Hidden from the help text; its output may change.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use plimsoll::engine::{CpuEngine, CpuOptions};
use plimsoll::generate::{Decoder as _, Step};
use plimsoll::lora::Variant;
use plimsoll::lora::adapter::Adapter;
use plimsoll::model::{Dtype, Model, Precision};

use super::output::print;

/// Print the logits of one sequence under one variant.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[arg(long)]
    model: PathBuf,
    #[arg(long)]
    adapter: Option<PathBuf>,
    /// LoRA strengths, as for `trim --gates`
    #[arg(long, default_value = "1", allow_hyphen_values = true)]
    gates: String,
    #[arg(long, value_delimiter = ',', required = true)]
    tokens: Vec<u32>,
    /// Continues with this number of greedy tokens, and prints them and the logits of the first of them
    #[arg(long)]
    greedy: Option<usize>,
}

/// Runs the subcommand.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let checkpoint = Model::open(&arguments.model)?;
    let config = checkpoint.config().clone();
    let adapter = arguments.adapter.as_deref().map(Adapter::open).transpose()?;
    let lora = checkpoint.bind(adapter.as_ref())?;
    if let Some(token) = arguments.tokens.iter().find(|&&token| token as usize >= config.vocabulary) {
        let largest = config.vocabulary - 1;
        return Err(plimsoll::Error::Usage(format!("token {token}: the model's tokens are 0 to {largest}")).into());
    }
    let variant = Variant::parse(&arguments.gates, config.layers)?;
    let engine = CpuEngine::load(
        &checkpoint,
        &lora,
        CpuOptions { precision: Precision::new(Dtype::F32), ..CpuOptions::default() },
    )?;
    if let Some(count) = arguments.greedy {
        let mut decoder = engine.decoder(arguments.tokens.len() + count);
        let mut sequence = decoder.begin(&variant)?;
        let first = decoder.forward(&mut [Step { sequence: &mut sequence, tokens: &arguments.tokens }]);
        let (mut logits, mut tokens) = (first.clone(), Vec::new());
        for _ in 0..count {
            // Of equal logits the lowest token, as `argmax` picks it.
            let best = logits.iter().enumerate().rev().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(token, _)| token);
            tokens.push(u32::try_from(best)?);
            logits = decoder.forward(&mut [Step { sequence: &mut sequence, tokens: &tokens[tokens.len() - 1..] }]);
        }
        print(&format!("{}\n", serde_json::json!({ "logits": first, "tokens": tokens })))?;
        return Ok(ExitCode::SUCCESS);
    }
    let logits = engine.logits(&arguments.tokens, &variant)?;
    let rows: Vec<&[f32]> = logits.chunks(config.vocabulary).collect();
    print(&format!("{}\n", serde_json::json!({ "logits": rows })))?;
    Ok(ExitCode::SUCCESS)
}
