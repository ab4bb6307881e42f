//! Arguments that several subcommands share.

use std::num::NonZero;

use anyhow::Result;
use clap::{Args, ValueEnum};
use plimsoll::Error;
use plimsoll::data::TemplateChoice;
use plimsoll::engine::{CpuOptions, MAX_THREADS};
use plimsoll::lora::adapter::EmbeddingLora;
use plimsoll::model::{Dtype, Precision};
use plimsoll::result::Sampling;

/// Whether LoRA that belongs to no layer is kept.
#[derive(Debug, Args)]
pub(super) struct EmbeddingLoraArgument {
    /// Keep or drop LoRA on embed_tokens and lm_head, which belongs to no layer; an adapter that has such LoRA is refused
    /// unless this is given
    #[arg(long, value_enum, value_name = "keep|drop")]
    embedding_lora: Option<EmbeddingLoraChoice>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum EmbeddingLoraChoice {
    /// Applied in every variant, and part of every trimmed adapter
    Keep,
    /// Left out of both
    Drop,
}

impl EmbeddingLoraArgument {
    /// As the library wants it.
    pub(super) fn choice(&self) -> Option<EmbeddingLora> {
        self.embedding_lora.map(|choice| match choice {
            EmbeddingLoraChoice::Keep => EmbeddingLora::Keep,
            EmbeddingLoraChoice::Drop => EmbeddingLora::Drop,
        })
    }
}

/// How the engine computes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Engine")]
pub(super) struct EngineArguments {
    /// Arithmetic of the engine, whatever the weights are stored as [default: bf16 where the processor has it, f32
    /// elsewhere]
    #[arg(long, value_enum)]
    dtype: Option<DtypeArgument>,
    /// Worker threads [default: all cores]
    #[arg(long, value_name = "N", value_parser = threads)]
    threads: Option<NonZero<usize>>,
    /// Memory for everything but the weights, such as 512MiB or 2GiB [default: 1GiB, or more where one sample
    /// needs it]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<u64>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DtypeArgument {
    /// Weights and what they are multiplied with in half as many bytes; sums in single precision
    Bf16,
    /// Single precision
    F32,
}

impl EngineArguments {
    /// As the engine wants them.
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

/// How the next token is picked.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub(super) struct SamplingArguments {
    /// Draw tokens, from logits divided by this; 0 takes the most probable one
    #[arg(long, value_name = "T", default_value_t = 0.0, allow_negative_numbers = true)]
    temperature: f32,
    /// Draw from the K most probable tokens
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Draw from the most probable tokens that together reach this probability
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Draw from tokens at least this share as probable as the most probable one
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
    /// Divide positive logits of tokens that have occurred by this, and multiply negative ones
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    repetition_penalty: f32,
    /// Seed of the draws; they do not depend on the batch
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

impl SamplingArguments {
    /// As the library wants them.
    ///
    /// # Errors
    /// A filter without a temperature, or a number that makes no sense.
    pub(super) fn sampling(&self) -> Result<Sampling> {
        let filters =
            [("--top-k", self.top_k.is_some()), ("--top-p", self.top_p.is_some()), ("--min-p", self.min_p.is_some())];
        if let Some((name, _)) = filters.iter().find(|(_, given)| *given && self.temperature == 0.0) {
            return Err(Error::Usage(format!("{name} is of no effect without --temperature: give one above 0")).into());
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

/// The template that `--template` asks for.
pub(super) fn template(argument: &str) -> Result<TemplateChoice> {
    Ok(match argument {
        "tokenizer" => TemplateChoice::Tokenizer,
        "none" => TemplateChoice::None,
        file => TemplateChoice::from_file(file.as_ref())?,
    })
}

/// A whole number of at least 1.
pub(super) fn at_least_one(text: &str) -> Result<NonZero<usize>, &'static str> {
    text.parse().map_err(|_| "expected a whole number, at least 1")
}

fn threads(text: &str) -> Result<NonZero<usize>, String> {
    let threads = text.parse::<NonZero<usize>>().ok().filter(|threads| threads.get() <= MAX_THREADS);
    threads.ok_or_else(|| format!("expected a whole number from 1 to {MAX_THREADS}"))
}

/// Bytes: a whole number with a unit.
fn size(text: &str) -> Result<u64, &'static str> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let split = units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift)));
    let bytes = split.and_then(|(number, shift)| number.trim().parse::<u64>().ok()?.checked_mul(1 << shift));
    bytes.filter(|&bytes| bytes > 0).ok_or("expected a whole number with a unit, such as 512MiB or 2GiB")
}
