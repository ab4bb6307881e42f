//! Size, load time and decoding speed of variants on one machine.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Size, load time and decoding speed of some variants, measured on this machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Efficiency {
    /// Sequences that are decoded in one batch.
    pub batch: usize,
    /// Worker threads.
    pub threads: usize,
    /// Dtype of the weights.
    pub dtype: String,
    /// The merged adapter first, then the other variants.
    pub variants: Vec<VariantEfficiency>,
}

/// Size, load time and decoding speed of one variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VariantEfficiency {
    /// `merged`, `full`, or the number of layers. `merged` is an adapter that is merged into the base weights: its
    /// speed is that of the base model, which is measured.
    pub name: String,
    /// Number of layers that keep LoRA; null for `merged`, whose speed does not depend on it.
    pub layers_kept: Option<usize>,
    /// Bytes of the adapter's weight file; 0 for `merged`.
    pub adapter_bytes: u64,
    /// Seconds to read, check and pack the adapter from the system's file cache, median of several loads; null for
    /// `merged`.
    pub load_seconds: Option<f64>,
    /// Decoding speed in tokens per second, all sequences together.
    pub tokens_per_second: Speed,
}

/// A speed that was measured in several rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Speed {
    /// The median round.
    pub median: f64,
    /// The lowest value.
    pub low: f64,
    /// The highest value.
    pub high: f64,
    /// Number of rounds.
    pub rounds: usize,
}

impl Speed {
    /// The median, lowest and highest of several values.
    pub fn of(mut rounds: Vec<f64>) -> Self {
        rounds.sort_by(f64::total_cmp);
        let at = |index: usize| rounds.get(index).copied().unwrap_or(0.0);
        let last = rounds.len().saturating_sub(1);
        Self { median: at(rounds.len() / 2), low: at(0), high: at(last), rounds: rounds.len() }
    }
}
