//! Sufficient layers of a family.

use plimsoll_stats::choose::Margin;
use plimsoll_stats::choose::sufficient::{RetainedShare, Sufficient};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::lora::Family;

/// How many layers of a family keep a given share of the adapter's gain, by tests on all samples in an order that is
/// fixed before any score is known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SufficientLayers {
    /// The family.
    pub family: Family,
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
