//! Scores of variants, and how the candidate was picked among them.

use plimsoll_stats::choose::Choice;
use plimsoll_stats::metrics::compare::Estimate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::lora::Family;

/// One variant's scores.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct VariantSummary {
    /// The family it belongs to. A variant that several families have stands here once for each.
    pub family: Family,
    /// What users call it: `18 layers`, `without layer 7`, `strength 0.75`.
    #[serde(default)]
    pub label: String,
    /// Its place in the family: the number of layers, the layer, or the strength.
    #[serde(default)]
    pub at: f64,
    /// Its gates, as `trim --gates` takes them.
    #[serde(default)]
    pub gates: String,
    /// Layers that keep any LoRA.
    pub layers_kept: usize,
    /// Bytes of the tensors that it keeps.
    #[serde(default)]
    pub bytes: u64,
    /// On the samples that chose; null where racing did not score it on all of them.
    pub selection: Option<ScoreSummary>,
    /// On the samples that were held out; null where racing did not score it on them.
    pub holdout: Option<ScoreSummary>,
    /// On the guard's samples that keep variants from being picked; null where there is no guard or it was not scored on them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<ScoreSummary>,
}

impl VariantSummary {
    /// The selection scores; [`ScoreSummary::MISSING`] where there are none.
    pub fn selection(&self) -> ScoreSummary {
        self.selection.unwrap_or(ScoreSummary::MISSING)
    }

    /// The held-out scores; [`ScoreSummary::MISSING`] where there are none.
    pub fn holdout(&self) -> ScoreSummary {
        self.holdout.unwrap_or(ScoreSummary::MISSING)
    }
}

/// Means over samples; the number of samples stands in [`DataFacts`].
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ScoreSummary {
    /// Mean over samples of the sample's nats per answer token.
    pub mean_nll: f64,
    /// Standard error of `mean_nll`.
    pub se: f64,
    /// Mean over samples of the sample's mean probability of the right token.
    pub mean_probability: f64,
    /// Mean over samples of the share of answer tokens that were the most probable ones.
    pub token_accuracy: f64,
}

impl ScoreSummary {
    /// Stands for scores that were not measured: no number of it is one.
    pub const MISSING: Self =
        Self { mean_nll: f64::NAN, se: f64::NAN, mean_probability: f64::NAN, token_accuracy: f64::NAN };
}

/// Gates that were picked and judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Candidate {
    /// The family that they are of.
    pub family: Family,
    /// What users call them.
    pub label: String,
    /// The gates, as `trim --gates` takes them.
    pub gates: String,
    /// Layers that keep any LoRA.
    pub layers_kept: usize,
    /// Bytes of the tensors that they keep.
    pub bytes: u64,
}

/// How families of candidates competed, on the selection samples.
///
/// Each family's rule picks on the other folds and is scored on the one left out. The simplest family whose mean deficit to
/// the best is within one paired standard error of it is taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Arbitration {
    /// Folds of the cross-validation.
    pub folds: usize,
    /// The families, from the simplest.
    pub families: Vec<FamilySummary>,
}

/// One family in the competition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FamilySummary {
    /// The family.
    pub family: Family,
    /// What its rule picks on all selection samples.
    pub pick: Candidate,
    /// Members that it picked from.
    pub members: usize,
    /// Mean NLL of its picks on samples that did not pick, in nats per answer token.
    pub mean_nll: f64,
    /// How much that is above the best family's.
    pub deficit: f64,
    /// Paired standard error of the deficit.
    pub se: f64,
    /// Whether its pick is the candidate.
    pub is_chosen: bool,
}

/// One variant among what is best at its price.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FrontPoint {
    /// Its family.
    pub family: Family,
    /// What users call it.
    pub label: String,
    /// Its gates, as `trim --gates` takes them.
    pub gates: String,
    /// Mean NLL on the selection samples.
    pub nll: f64,
    /// Mean NLL on the guard's samples, where there is a guard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<f64>,
    /// Bytes of the tensors that it keeps.
    pub bytes: u64,
    /// Whether no other variant is better in one of these and as good in the others.
    pub is_on_front: bool,
}

/// A metric of generated answers, on the boundaries that the NLL left.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MetricSummary {
    /// Task and metric, such as `gsm8k flexible`.
    pub name: String,
    /// Which program's number this equals, and with which options.
    pub signature: String,
    /// The boundaries that answered, ascending.
    pub variants: Vec<MetricVariant>,
    /// Whether it chose. It does not where it cannot tell the full adapter from the base model on the held-out samples:
    /// then the answer is the NLL's.
    pub decided: bool,
    /// What the NLL alone would have chosen.
    pub choice_by_nll: Choice,
}

/// One boundary's answers.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MetricVariant {
    /// Layers that keep their LoRA.
    pub layers_kept: usize,
    /// On the samples that chose; null where it did not take part.
    pub selection: Option<Estimate>,
    /// On the samples that were held out; null where it was not judged.
    pub holdout: Option<Estimate>,
}

/// What racing left out, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RaceSummary {
    /// The most probable that the best of the boundaries that were raced was dropped.
    pub error_rate: f64,
    /// Boundaries that were significantly worse than the leader of the time.
    pub dropped: Vec<DroppedBoundary>,
    /// Boundaries that were never scored on the selection samples: their neighbours on the first grid were dropped.
    pub skipped: Vec<usize>,
}

/// A boundary that left a race.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DroppedBoundary {
    /// Layers that keep their LoRA.
    pub layers_kept: usize,
    /// Selection samples that it had been scored on.
    pub samples: usize,
    /// The boundary that led on them.
    pub leader: usize,
    /// By so many nats per answer token, mean over these samples.
    pub deficit: f64,
    /// One-sided p-value of the paired t-test.
    pub p: f64,
}
