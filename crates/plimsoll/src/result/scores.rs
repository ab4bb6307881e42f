//! Scores of samples under variants: `scores.jsonl`, and the journal of a search.

use plimsoll_stats::choose::Part;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// All that was measured on one sample. One line of `scores.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SampleScores {
    /// The sample's line in its file, from 1.
    pub line: usize,
    /// How many answer tokens were scored. The same for every variant.
    pub tokens: usize,
    /// One entry for each variant of the request.
    pub variants: Vec<VariantScore>,
    /// One curve for each entry of the request's `lens`; empty where it was not asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lens: Vec<LensCurve>,
    /// For each variant the NLL of every answer token, in nats; empty where it was not asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_nll: Vec<Vec<f32>>,
}

impl SampleScores {
    /// Mean negative log-likelihood of the answer under one variant, in nats per answer token.
    pub fn mean_nll(&self, variant: usize) -> f64 {
        self.variants[variant].nll / self.tokens as f64
    }
}

/// How well one variant predicts one sample's answer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VariantScore {
    /// Negative log-likelihood of the whole answer, in nats: the sum over its tokens.
    pub nll: f64,
    /// Probability given to the right token, mean over the answer's tokens.
    pub probability: f64,
    /// How many answer tokens were the most probable ones.
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

/// Which file a sample is from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The samples that the adapter is for.
    #[default]
    Data,
    /// The samples on which it must not be worse.
    Guard,
}

/// One line of the journal and of `scores.jsonl`: scores of one sample under some gates.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ScoreRow {
    /// Which file the sample is from.
    #[serde(default, skip_serializing_if = "is_data")]
    pub source: Source,
    /// Which part of the file it is in.
    pub part: Part,
    /// What the entries of `variants` are, in their order.
    pub gates: Vec<String>,
    /// The scores.
    #[serde(flatten)]
    pub scores: SampleScores,
}

fn is_data(source: &Source) -> bool {
    *source == Source::Data
}
