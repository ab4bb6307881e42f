//! The result of an evaluation: the struct of its `result.json`, from which its tables are rendered.
//!
//! New versions may add fields; `schema` counts breaking changes.

use plimsoll_stats::metrics::compare::{Difference, Estimate};
use serde::{Deserialize, Serialize};

use super::answers::Sampling;
use super::efficiency::Efficiency;
use super::search::{AdapterFacts, ModelFacts};
use super::warning::OTHER_BASE_ADVICE;
use crate::lora::adapter::OtherBase;

/// The result of `plimsoll eval`, as `result.json` holds it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EvalResult {
    /// Version of this layout.
    pub schema: u32,
    /// Name and version of the program.
    pub tool: String,
    /// The command that repeats the evaluation.
    pub command: String,
    /// The task.
    pub task: TaskFacts,
    /// The base model.
    pub model: ModelFacts,
    /// The adapter; absent if the base model alone was evaluated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterFacts>,
    /// The samples.
    pub data: EvalData,
    /// Settings of generation.
    pub generation: Generation,
    /// The variants: boundaries by number of layers, ascending, then the variants of `--gates` in their order.
    pub variants: Vec<EvalVariant>,
    /// The metrics.
    pub metrics: Vec<MetricResult>,
    /// Size, load time and speed of variants on this machine; absent if not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub efficiency: Option<Efficiency>,
    /// Warnings.
    pub warnings: Vec<EvalWarning>,
    /// Cost of the evaluation.
    pub cost: EvalCost,
}

/// The task of an evaluation.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TaskFacts {
    /// Its name.
    pub name: String,
    /// Its description.
    pub about: String,
    /// Its file; null for a built-in task.
    pub file: Option<String>,
    /// Number of examples before each prompt.
    pub shots: usize,
}

/// The samples of an evaluation.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EvalData {
    /// Path of the data, as the user gave it.
    pub path: String,
    /// SHA-256 of the file as it is on disk.
    pub sha256: String,
    /// Number of samples that were evaluated.
    pub samples: usize,
    /// Number of samples in the file.
    pub available: usize,
    /// Number of samples that were left out because they do not fit into the model's context.
    pub skipped: usize,
    /// Template of the prompts: `tokenizer`, `none`, or the path of a template.
    pub template: String,
    /// Mean number of prompt tokens per sample.
    pub prompt_tokens: f64,
}

/// Settings of generation.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Generation {
    /// Largest number of tokens of an answer.
    pub max_tokens: usize,
    /// Texts that end an answer.
    pub stop: Vec<String>,
    /// Settings of sampling. The seed is also that of the choice of samples and of all resampling.
    #[serde(flatten)]
    pub sampling: Sampling,
}

/// One variant of an evaluation.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EvalVariant {
    /// Number of layers that keep any LoRA.
    pub layers_kept: usize,
    /// `base`, `full`, the number of layers, or the LoRA strengths.
    pub name: String,
    /// Its LoRA strengths, in the syntax of `trim --gates`; different for all variants.
    #[serde(default)]
    pub gates: String,
    /// Mean number of tokens per answer; null if nothing was generated.
    pub answer_tokens: Option<f64>,
    /// Share of answers that were cut off at the limit of tokens; null if nothing was generated.
    pub cut: Option<f64>,
}

/// One metric of an evaluation.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MetricResult {
    /// Its name in the task.
    pub name: String,
    /// The reference implementation that the values equal, with its options.
    pub signature: String,
    /// Whether higher or lower values are better.
    pub better: Better,
    /// The value of each variant, in their order.
    pub values: Vec<Estimate>,
    /// Differences between variants, paired by sample.
    pub comparisons: Vec<EvalComparison>,
}

/// Whether higher or lower values of a metric are better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Better {
    /// Larger values.
    Higher,
    /// Smaller values.
    Lower,
}

/// The comparison of a variant with the base model or the full adapter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EvalComparison {
    /// Number of layers that the variant keeps.
    pub layers_kept: usize,
    /// LoRA strengths of the variant, in the syntax of `trim --gates`.
    #[serde(default)]
    pub gates: String,
    /// Number of layers that the other keeps: 0 for the base model, all for the full adapter.
    pub against: usize,
    /// The variant's value minus the other's, with interval and p-value.
    #[serde(flatten)]
    pub difference: Difference,
    /// The p-value adjusted for all comparisons of the result (Holm).
    pub p_holm: f64,
}

/// A warning of an evaluation. `Display` gives sentences: the problem, and what to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EvalWarning {
    /// Few samples: the intervals are rough.
    FewSamples {
        /// Number of samples.
        samples: usize,
    },
    /// Samples longer than the model's context were left out.
    Skipped {
        /// Number of samples.
        samples: usize,
        /// The model's context, in tokens.
        context: usize,
    },
    /// A reference template that has no text in any sample: its field is missing or empty in all rows.
    UnfilledReference {
        /// The template, such as `references[1]`.
        template: String,
    },
    /// The base model has another name than the one that the adapter was trained on.
    OtherBase {
        /// The base model that the adapter names.
        adapter: String,
        /// The name of the base model of this evaluation.
        model: String,
    },
    /// Many answers were cut off at the limit of tokens.
    Cut {
        /// The variant.
        variant: String,
        /// Share of its answers.
        share: f64,
        /// The limit of tokens.
        max_tokens: usize,
    },
}

impl std::fmt::Display for EvalWarning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::FewSamples { samples } => {
                write!(f, "{samples} samples are few: 95 % intervals are too narrow. Evaluate more samples.")
            }
            Self::Skipped { samples, context } => {
                write!(
                    f,
                    "{samples} samples were left out: they do not fit into the model's context of {context} tokens."
                )
            }
            Self::UnfilledReference { template } => {
                write!(f, "the task's `{template}` has no text in any sample. Check the names of its fields.")
            }
            Self::OtherBase { adapter, model } => {
                let found = OtherBase { adapter: adapter.clone(), model: model.clone() };
                write!(f, "{found}. {OTHER_BASE_ADVICE}")
            }
            Self::Cut { variant, share, max_tokens } => write!(
                f,
                "{:.0} % of the answers of `{variant}` were cut off at {max_tokens} tokens. Raise --max-tokens, or \
                 add a text that ends answers to the task's `stop`.",
                share * 100.0
            ),
        }
    }
}

/// The cost of an evaluation.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EvalCost {
    /// Wall-clock seconds of the last run.
    pub seconds: f64,
    /// Number of tokens that were generated in the last run.
    pub tokens: usize,
    /// Number of answers that an interrupted run had finished.
    pub resumed: usize,
    /// Worker threads.
    pub threads: usize,
    /// Dtype of weights and activations.
    pub dtype: String,
    /// Instruction set of the engine, such as `avx512bf16`.
    pub instructions: String,
}
