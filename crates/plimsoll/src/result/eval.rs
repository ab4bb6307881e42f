//! What an evaluation found: the one struct that the table and `result.json` render.
//!
//! Fields are added over time and never renamed or taken away; `schema` counts breaking changes.

use plimsoll_formats::text::shown;
use plimsoll_stats::metrics::compare::{Difference, Estimate};
use serde::{Deserialize, Serialize};

use super::answers::Sampling;
use super::efficiency::Efficiency;
use super::search::{AdapterFacts, ModelFacts};

/// The whole result of `eval`. Written as `result.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
    /// The adapter, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterFacts>,
    /// The samples.
    pub data: EvalData,
    /// How answers were generated.
    pub generation: Generation,
    /// What was evaluated: by the number of layers that keep their LoRA, ascending, then by gates as they were given.
    pub variants: Vec<EvalVariant>,
    /// What came out.
    pub metrics: Vec<MetricResult>,
    /// What a cut saves on this machine, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub efficiency: Option<Efficiency>,
    /// What the reader should know before trusting the numbers.
    pub warnings: Vec<EvalWarning>,
    /// What it cost.
    pub cost: EvalCost,
}

/// The task of an evaluation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TaskFacts {
    /// Its name.
    pub name: String,
    /// What it is.
    pub about: String,
    /// The file it was read from; null where it is built in.
    pub file: Option<String>,
    /// Examples before each prompt.
    pub shots: usize,
}

/// The samples of an evaluation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EvalData {
    /// As the user gave it.
    pub path: String,
    /// SHA-256 of the bytes that were read.
    pub sha256: String,
    /// Samples that were evaluated.
    pub samples: usize,
    /// Samples that the file holds.
    pub available: usize,
    /// Samples that were left out because they do not fit into the model's context.
    pub skipped: usize,
    /// How prompts were rendered: `tokenizer`, `none`, or the path of a template.
    pub template: String,
    /// Prompt tokens, mean over samples.
    pub prompt_tokens: f64,
}

/// How answers were generated.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Generation {
    /// Tokens of an answer at most.
    pub max_tokens: usize,
    /// Texts that end an answer.
    pub stop: Vec<String>,
    /// How tokens were picked. Its seed is that of the sample and of all resampling too.
    #[serde(flatten)]
    pub sampling: Sampling,
}

/// What one variant answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EvalVariant {
    /// Layers that keep any LoRA.
    pub layers_kept: usize,
    /// `base`, `full`, the number of layers, or the gates.
    pub name: String,
    /// Its gates, as `trim --gates` takes them: no two variants have the same.
    #[serde(default)]
    pub gates: String,
    /// Tokens of an answer, mean over samples; null where nothing was generated.
    pub answer_tokens: Option<f64>,
    /// Share of answers that were cut at the most tokens there may be; null where nothing was generated.
    pub cut: Option<f64>,
}

/// One metric.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MetricResult {
    /// The task's name for it.
    pub name: String,
    /// Which program's number this equals, and with which options.
    pub signature: String,
    /// Which direction is better.
    pub better: Better,
    /// One for each variant, in their order.
    pub values: Vec<Estimate>,
    /// Paired differences on the same samples.
    pub comparisons: Vec<EvalComparison>,
}

/// Which direction of a metric is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Better {
    /// Larger values.
    Higher,
    /// Smaller values.
    Lower,
}

/// One variant held against the base model or the full adapter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalComparison {
    /// Layers kept of the one.
    pub layers_kept: usize,
    /// Gates of the one.
    #[serde(default)]
    pub gates: String,
    /// Layers kept of the other, which is taken off: none of the base model, all of the full adapter.
    pub against: usize,
    /// The difference, its interval and its p-value.
    #[serde(flatten)]
    pub difference: Difference,
    /// The p-value adjusted for all comparisons of the result (Holm).
    pub p_holm: f64,
}

/// What the reader should know. Displayed, it says what to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum EvalWarning {
    /// Too few samples for intervals to mean much.
    FewSamples {
        /// How many there are.
        samples: usize,
    },
    /// Samples longer than the model's context.
    Skipped {
        /// How many.
        samples: usize,
        /// The model's context, in tokens.
        context: usize,
    },
    /// A reference template without text in any sample: a field that no row has, or that is empty in all.
    UnfilledReference {
        /// The template, as `references[1]`.
        template: String,
    },
    /// The base model has another name than the one that the adapter was trained on.
    OtherBase {
        /// The base model that the adapter names.
        adapter: String,
        /// What the base model of this evaluation is called.
        model: String,
    },
    /// Many answers were cut.
    Cut {
        /// Whose.
        variant: String,
        /// Which share of them.
        share: f64,
        /// Where.
        max_tokens: usize,
    },
}

impl std::fmt::Display for EvalWarning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::FewSamples { samples } => {
                write!(f, "{samples} samples are few: intervals from so few are too narrow; evaluate more")
            }
            Self::Skipped { samples, context } => {
                write!(
                    f,
                    "{samples} samples were left out: they do not fit into the model's context of {context} tokens"
                )
            }
            Self::UnfilledReference { template } => {
                write!(
                    f,
                    "the task's `{template}` has no text in any sample: do its fields have the names of the data's?"
                )
            }
            Self::OtherBase { adapter, model } => write!(
                f,
                "the adapter names {} as its base model, and this one is {}: check that this is the base model of its \
                 training",
                shown(adapter),
                shown(model)
            ),
            Self::Cut { variant, share, max_tokens } => write!(
                f,
                "{:.0} % of the answers of `{variant}` were cut at {max_tokens} tokens: give more with --max-tokens, or \
                 an end with the task's `stop`",
                share * 100.0
            ),
        }
    }
}

/// What an evaluation cost.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EvalCost {
    /// Seconds of the last run.
    pub seconds: f64,
    /// Tokens that were generated in the last run.
    pub tokens: usize,
    /// Answers that an earlier run had left.
    pub resumed: usize,
    /// Worker threads.
    pub threads: usize,
    /// Type of number of weights and of what is multiplied with them.
    pub dtype: String,
    /// Instruction set.
    pub instructions: String,
}
