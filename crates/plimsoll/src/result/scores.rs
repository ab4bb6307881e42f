//! Scores of samples under variants: `scores.jsonl`, and the journal of a search.

use plimsoll_stats::choose::Part;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The scores of one sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SampleScores {
    /// The sample's line in its file, from 1.
    pub line: usize,
    /// Number of answer tokens that were scored; the same for every variant.
    pub tokens: usize,
    /// One entry for each variant.
    pub variants: Vec<VariantScore>,
    /// Logit-lens curves of the requested variants; empty if not requested.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lens: Vec<LensCurve>,
    /// For each variant the NLL of every answer token, in nats; empty if not requested.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_nll: Vec<Vec<f32>>,
}

impl SampleScores {
    /// Mean negative log-likelihood of the answer under one variant, in nats per answer token.
    pub fn mean_nll(&self, variant: usize) -> f64 {
        self.variants[variant].nll / self.tokens as f64
    }
}

/// The score of one variant on one sample.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VariantScore {
    /// Negative log-likelihood of the whole answer, in nats: the sum over its tokens.
    pub nll: f64,
    /// Probability of the right token, mean over the answer's tokens.
    pub probability: f64,
    /// Number of answer tokens that were the most probable token.
    pub correct: usize,
}

/// The logit lens on one sample: one entry for each layer, after that layer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LensCurve {
    /// `softmax(W_U · norm_f(h_l(t)))[y_t]`, mean over the answer's positions.
    pub probability: Vec<f64>,
    /// Share of answer positions where the ground truth is the most probable token.
    pub top1: Vec<f64>,
    /// Tokens with a higher logit than the ground truth, mean over the answer's positions.
    pub rank: Vec<f64>,
}

/// The file that a sample is from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DataSource {
    /// The file of `--data`.
    #[default]
    Data,
    /// The file of `--guard`.
    Guard,
}

/// The scores of one sample under some variants: a line of `scores.jsonl` and of the journal.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ScoreRow {
    /// The file that the sample is from.
    #[serde(default, skip_serializing_if = "is_data")]
    pub source: DataSource,
    /// Whether it is a selection or a held-out sample.
    pub part: Part,
    /// The LoRA strengths of the entries of `variants`, in their order and in the syntax of `--gates`.
    pub gates: Vec<String>,
    /// The scores.
    #[serde(flatten)]
    pub scores: SampleScores,
}

fn is_data(source: &DataSource) -> bool {
    *source == DataSource::Data
}
