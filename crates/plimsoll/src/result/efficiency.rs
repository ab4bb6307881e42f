//! What a variant costs at inference on this machine.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What was measured of some variants on this machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Efficiency {
    /// Sequences that were decoded side by side.
    pub batch: usize,
    /// Worker threads.
    pub threads: usize,
    /// Type of number of weights.
    pub dtype: String,
    /// The adapter merged first, then what was asked for.
    pub variants: Vec<VariantEfficiency>,
}

/// What was measured of one variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VariantEfficiency {
    /// `merged`, `full`, or the number of layers.
    pub name: String,
    /// Layers that keep their LoRA; null for a merged adapter, whose boundary makes no difference.
    pub layers_kept: Option<usize>,
    /// Bytes of the adapter's weight file.
    pub adapter_bytes: u64,
    /// Seconds to read, check and pack the adapter, the files being in the system's cache: the median of several loads; none
    /// where there is none to load.
    pub load_seconds: Option<f64>,
    /// Decoding speed of all sequences together.
    pub tokens_per_second: Speed,
}

/// A speed that was measured several times.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Speed {
    /// The median round.
    pub median: f64,
    /// The slowest round.
    pub low: f64,
    /// The fastest round.
    pub high: f64,
    /// How many rounds there were.
    pub rounds: usize,
}

impl Speed {
    /// Of the speeds of several rounds, or of the seconds of several runs.
    pub fn of(mut rounds: Vec<f64>) -> Self {
        rounds.sort_by(f64::total_cmp);
        let at = |index: usize| rounds.get(index).copied().unwrap_or(0.0);
        let last = rounds.len().saturating_sub(1);
        Self { median: at(rounds.len() / 2), low: at(0), high: at(last), rounds: rounds.len() }
    }
}
