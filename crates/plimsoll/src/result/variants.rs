//! Scores of variants, and how the candidate was picked: families, the Pareto front, a metric, racing.

use plimsoll_stats::choose::Choice;
use plimsoll_stats::metrics::compare::Estimate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::lora::Family;

/// The scores of one variant.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct VariantSummary {
    /// Its family. A variant of several families has one entry for each.
    pub family: Family,
    /// Its label, such as `18 layers`, `without layer 7` or `strength 0.75`.
    #[serde(default)]
    pub label: String,
    /// Its coordinate in the family: the number of layers, the layer, or the LoRA strength.
    #[serde(default)]
    pub at: f64,
    /// Its LoRA strengths, in the syntax of `trim --gates`.
    #[serde(default)]
    pub gates: String,
    /// Number of layers that keep any LoRA.
    pub layers_kept: usize,
    /// Bytes of the tensors that it keeps.
    #[serde(default)]
    pub bytes: u64,
    /// Scores on the selection samples; null if racing did not score it on all of them.
    pub selection: Option<ScoreSummary>,
    /// Scores on the held-out samples; null if it was not scored on them.
    pub holdout: Option<ScoreSummary>,
    /// Scores on the guard's selection samples; null without a guard, or if it was not scored on them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<ScoreSummary>,
}

impl VariantSummary {
    /// The selection scores; [`ScoreSummary::MISSING`] if there are none.
    pub fn selection(&self) -> ScoreSummary {
        self.selection.unwrap_or(ScoreSummary::MISSING)
    }

    /// The held-out scores; [`ScoreSummary::MISSING`] if there are none.
    pub fn holdout(&self) -> ScoreSummary {
        self.holdout.unwrap_or(ScoreSummary::MISSING)
    }
}

/// Mean scores over samples.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ScoreSummary {
    /// Mean NLL over samples, in nats per answer token.
    pub mean_nll: f64,
    /// Standard error of `mean_nll`.
    pub se: f64,
    /// Mean over samples of the mean probability of the right token.
    pub mean_probability: f64,
    /// Mean over samples of the share of answer tokens that were the most probable token.
    pub token_accuracy: f64,
}

impl ScoreSummary {
    /// Scores that were not measured: all NaN.
    pub const MISSING: Self =
        Self { mean_nll: f64::NAN, se: f64::NAN, mean_probability: f64::NAN, token_accuracy: f64::NAN };
}

/// The variant that was picked and judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Candidate {
    /// Its family.
    pub family: Family,
    /// Its label.
    pub label: String,
    /// Its LoRA strengths, in the syntax of `trim --gates`.
    pub gates: String,
    /// Number of layers that keep any LoRA.
    pub layers_kept: usize,
    /// Bytes of the tensors that it keeps.
    pub bytes: u64,
}

/// Comparison of the families by cross-validation on the selection samples.
///
/// For each fold, each family's rule picks on the other folds and is scored on the fold left out. The simplest family
/// whose mean deficit to the best is at most one paired standard error is taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Arbitration {
    /// Number of folds of the cross-validation.
    pub folds: usize,
    /// The families, the simplest first.
    pub families: Vec<FamilySummary>,
}

/// The result of one family in the comparison of families.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FamilySummary {
    /// The family.
    pub family: Family,
    /// The pick of its rule on all selection samples.
    pub pick: Candidate,
    /// Number of variants that it picked from.
    pub members: usize,
    /// Mean NLL of its picks on the folds left out, in nats per answer token.
    pub mean_nll: f64,
    /// Difference to the best family's `mean_nll`.
    pub deficit: f64,
    /// Paired standard error of the deficit.
    pub se: f64,
    /// Whether its pick is the candidate.
    pub is_chosen: bool,
}

/// One scored variant in the plane of bytes and NLL, and whether it is on the Pareto front.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FrontPoint {
    /// Its family.
    pub family: Family,
    /// Its label.
    pub label: String,
    /// Its LoRA strengths, in the syntax of `trim --gates`.
    pub gates: String,
    /// Mean NLL on the selection samples, in nats per answer token.
    pub nll: f64,
    /// Mean NLL on the guard's selection samples; absent without a guard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<f64>,
    /// Bytes of the tensors that it keeps.
    pub bytes: u64,
    /// Whether no other variant dominates it: is at least as good in all of these, and better in one.
    pub is_on_front: bool,
}

/// A metric of generated answers, on the boundaries with an NLL near the best.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MetricSummary {
    /// Task and metric, such as `gsm8k flexible`.
    pub name: String,
    /// The reference implementation that the values equal, with its options.
    pub signature: String,
    /// The boundaries that generated answers, ascending.
    pub variants: Vec<MetricVariant>,
    /// Whether the metric chose. If it does not separate the full adapter from the base model on the held-out
    /// samples, the NLL chooses.
    pub decided: bool,
    /// The choice of the NLL alone.
    pub choice_by_nll: Choice,
}

/// The metric of one boundary's answers.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MetricVariant {
    /// Number of layers that keep LoRA.
    pub layers_kept: usize,
    /// On the selection samples; null if it did not take part.
    pub selection: Option<Estimate>,
    /// On the held-out samples; null if it was not judged.
    pub holdout: Option<Estimate>,
}

/// The boundaries that racing dropped or skipped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RaceSummary {
    /// Upper bound of the probability that the best boundary of the race was dropped.
    pub error_rate: f64,
    /// Boundaries that were dropped because they were significantly worse than the leader at that time.
    pub dropped: Vec<DroppedBoundary>,
    /// Boundaries that were not scored on the selection samples, because both neighbours on the first grid were
    /// dropped.
    pub skipped: Vec<usize>,
}

/// A boundary that a race dropped.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DroppedBoundary {
    /// Number of layers that keep LoRA.
    pub layers_kept: usize,
    /// Number of selection samples that it was scored on.
    pub samples: usize,
    /// The leader on these samples.
    pub leader: usize,
    /// Mean difference to the leader on these samples, in nats per answer token.
    pub deficit: f64,
    /// One-sided p-value of the paired t-test.
    pub p: f64,
}
