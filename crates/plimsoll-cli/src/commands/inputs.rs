//! Arguments that several subcommands share.

use std::num::NonZero;

use anyhow::Result;
use clap::{Args, ValueEnum};
use plimsoll::Error;
use plimsoll::choose::Margin;
use plimsoll::data::TemplateChoice;
use plimsoll::engine::{CpuOptions, MAX_THREADS};
use plimsoll::generate::BATCH;
use plimsoll::lora::adapter::EmbeddingLora;
use plimsoll::model::{Dtype, Precision};
use plimsoll::result::Sampling;

/// `--embedding-lora`: whether LoRA that belongs to no layer is kept.
#[derive(Debug, Args)]
pub(super) struct EmbeddingLoraArgument {
    /// Keep or drop LoRA on embed_tokens and lm_head, which belongs to no layer. Required if the adapter has such LoRA
    #[arg(long, value_enum, value_name = "keep|drop")]
    embedding_lora: Option<EmbeddingLoraChoice>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum EmbeddingLoraChoice {
    /// Apply it in every variant, and keep it in every trimmed adapter
    Keep,
    /// Apply it in no variant, and keep it in no trimmed adapter
    Drop,
}

impl EmbeddingLoraArgument {
    /// The library's option; `None` if the flag is not given.
    pub(super) fn choice(&self) -> Option<EmbeddingLora> {
        self.embedding_lora.map(|choice| match choice {
            EmbeddingLoraChoice::Keep => EmbeddingLora::Keep,
            EmbeddingLoraChoice::Drop => EmbeddingLora::Drop,
        })
    }
}

/// A number of nats per token.
pub(super) fn nats(text: &str) -> Result<f64, &'static str> {
    let nats = text.parse::<f64>().ok().filter(|nats| nats.is_finite() && *nats >= 0.0);
    nats.ok_or("expected a number of nats per token, 0 or more")
}

/// A margin: a share of the adapter's gain, or a loss in nats.
pub(super) fn margin(text: &str) -> Result<Margin, &'static str> {
    match text.strip_suffix('%') {
        Some(percent) => {
            let percent = percent.trim().parse::<f64>().ok().filter(|percent| (0.0..=100.0).contains(percent));
            percent.map(|percent| Margin::Share(percent / 100.0)).ok_or("expected a share from 0% to 100%")
        }
        None => {
            let number = text.strip_suffix("nats").or_else(|| text.strip_suffix("points"));
            let number = number.ok_or(
                "expected a unit: a share such as 98%, or a loss such as 0.005nats or, of a metric, 0.02points",
            )?;
            nats(number.trim()).map(Margin::Nats)
        }
    }
}

/// A margin and whether it is in points of a metric, not in nats.
#[derive(Clone, Debug)]
pub(super) struct MarginArgument {
    pub(super) margin: Margin,
    pub(super) is_in_points: bool,
}

/// Parses a margin as [`margin`] does, and keeps its unit.
pub(super) fn margin_argument(text: &str) -> Result<MarginArgument, &'static str> {
    Ok(MarginArgument { margin: margin(text)?, is_in_points: text.ends_with("points") })
}

/// Options of the engine: dtype, threads and memory.
#[derive(Debug, Args)]
#[command(next_help_heading = "Engine")]
pub(super) struct EngineArguments {
    /// Dtype that the engine computes in, independent of the dtype of the stored weights [default: bf16 if the
    /// processor supports it, otherwise f32]
    #[arg(long, value_enum)]
    dtype: Option<DtypeArgument>,
    /// Worker threads [default: all cores]
    #[arg(long, value_name = "N", value_parser = threads)]
    threads: Option<NonZero<usize>>,
    /// Memory limit for everything except the weights, such as 512MiB or 2GiB [default: 1GiB, or more if one sample
    /// needs it]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<u64>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DtypeArgument {
    /// Weights and activations in bf16, sums in f32
    Bf16,
    /// Weights, activations and sums in f32
    F32,
}

impl EngineArguments {
    /// The library's options.
    pub(super) fn options(&self) -> CpuOptions {
        CpuOptions {
            threads: self.threads,
            precision: match self.dtype {
                None => Precision::default(),
                Some(DtypeArgument::Bf16) => Precision::new(Dtype::Bf16),
                Some(DtypeArgument::F32) => Precision::new(Dtype::F32),
            },
            memory: self.memory,
        }
    }
}

/// Options of sampling: how the next token is chosen.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub(super) struct SamplingArguments {
    /// Sampling temperature: logits are divided by it. 0 takes the most probable token
    #[arg(long, value_name = "T", default_value_t = 0.0, allow_negative_numbers = true)]
    temperature: f32,
    /// Sample from the K most probable tokens [default: all tokens]
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Sample from the most probable tokens that together reach this probability [default: 1]
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Sample from tokens that have at least this share of the highest probability [default: 0]
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
    /// Repetition penalty: for tokens that occurred before, positive logits are divided by it, negative ones multiplied
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    repetition_penalty: f32,
    /// Seed of the sampling; answers do not depend on --batch
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

impl SamplingArguments {
    /// The library's options.
    ///
    /// # Errors
    /// A filter at temperature 0, or a number out of range.
    pub(super) fn sampling(&self) -> Result<Sampling> {
        let filters =
            [("--top-k", self.top_k.is_some()), ("--top-p", self.top_p.is_some()), ("--min-p", self.min_p.is_some())];
        if let Some((name, _)) = filters.iter().find(|(_, given)| *given && self.temperature == 0.0) {
            let problem = format!("{name} has no effect at temperature 0: set --temperature above 0");
            return Err(Error::Usage(problem).into());
        }
        let sampling = Sampling {
            temperature: self.temperature,
            top_k: self.top_k.unwrap_or(Sampling::GREEDY.top_k),
            top_p: self.top_p.unwrap_or(Sampling::GREEDY.top_p),
            min_p: self.min_p.unwrap_or(Sampling::GREEDY.min_p),
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
        };
        sampling.check()?;
        Ok(sampling)
    }
}

/// The chat template of `--template`: `tokenizer`, `none`, or a file.
pub(super) fn template(argument: &str) -> Result<TemplateChoice> {
    Ok(match argument {
        "tokenizer" => TemplateChoice::Tokenizer,
        "none" => TemplateChoice::None,
        file => TemplateChoice::from_file(file.as_ref())?,
    })
}

/// The default of `--batch`.
pub(super) fn default_batch() -> NonZero<usize> {
    NonZero::new(BATCH).unwrap_or(NonZero::<usize>::MIN)
}

/// Parses a whole number of at least 1.
pub(super) fn at_least_one(text: &str) -> Result<NonZero<usize>, &'static str> {
    text.parse().map_err(|_| "expected a whole number, at least 1")
}

fn threads(text: &str) -> Result<NonZero<usize>, String> {
    let threads = text.parse::<NonZero<usize>>().ok().filter(|threads| threads.get() <= MAX_THREADS);
    threads.ok_or_else(|| format!("expected a whole number from 1 to {MAX_THREADS}"))
}

/// Parses a number of bytes: a whole number with a unit.
fn size(text: &str) -> Result<u64, &'static str> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let split = units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift)));
    let bytes = split.and_then(|(number, shift)| number.trim().parse::<u64>().ok()?.checked_mul(1 << shift));
    bytes.filter(|&bytes| bytes > 0).ok_or("expected a whole number with a unit, such as 512MiB or 2GiB")
}
