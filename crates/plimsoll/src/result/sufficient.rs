//! Sufficient layers of a family, and the tuned LoRA strength.

use plimsoll_stats::choose::sufficient::{RetainedShare, Sufficient};
use plimsoll_stats::choose::{Gain, Margin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::lora::Family;

/// How many layers of a family keep a given share of the adapter's gain, by tests on all samples in an order that is
/// fixed before any score is known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SufficientLayers {
    /// The family.
    pub family: Family,
    /// The metric of generated answers that was tested; absent for the NLL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
    /// Number of samples.
    pub samples: usize,
    /// One row for each margin, the strictest share first.
    pub rows: Vec<SufficientRow>,
    /// The retained share of each cut that was scored on all samples, the one that drops least first; empty if the
    /// adapter is not shown to gain over the base model.
    pub shares: Vec<RetainedShare>,
}

/// The sufficient layers for one margin, with what they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SufficientRow {
    /// The answer.
    #[serde(flatten)]
    pub answer: Sufficient,
    /// Bytes of the LoRA tensors that are kept.
    pub bytes: u64,
    /// LoRA strengths, as `--gates` reads them.
    pub gates: String,
}

impl SufficientLayers {
    /// The row for a margin.
    pub fn row(&self, margin: Margin) -> Option<&SufficientRow> {
        self.rows.iter().find(|row| row.answer.margin == margin)
    }

    /// The retained share of a cut.
    pub fn share(&self, layers_kept: usize) -> Option<&RetainedShare> {
        self.shares.iter().find(|share| share.layers_kept == layers_kept)
    }
}

/// One LoRA strength for the whole adapter, tuned by cross-validation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TunedStrength {
    /// The strength that is best on all samples; 1 is the adapter as trained.
    pub strength: f64,
    /// The strengths that were tried, ascending.
    pub tried: Vec<StrengthScore>,
    /// Number of folds.
    pub folds: usize,
    /// The gain over the full adapter as trained, on all samples: each is scored at the strength that is best on the
    /// other folds.
    pub gain: Gain,
    /// Whether the gain is shown.
    pub is_better: bool,
    /// How many layers hold the margin at this strength: a share of the gain of the whole adapter at it. Absent if the
    /// strength is not shown to be better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sufficient: Option<Sufficient>,
}

/// The mean score at a strength.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StrengthScore {
    /// The LoRA strength of the whole adapter.
    pub strength: f64,
    /// Mean NLL in nats per answer token, over all samples.
    pub mean_nll: f64,
}
