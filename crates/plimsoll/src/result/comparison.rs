//! Several searches side by side.

use plimsoll_stats::choose::{Gain, Interval, Reason, Verdict};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Several searches side by side. What `report --format json` prints of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Comparison {
    /// Version of this layout.
    #[schemars(range(min = 1, max = 1))]
    pub schema: u32,
    /// What all runs have in common.
    pub same: Same,
    /// The runs.
    pub runs: Vec<ComparedRun>,
}

/// What all runs of a comparison have in common, told by hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Same {
    /// The base model.
    pub model: bool,
    /// The adapter.
    pub adapter: bool,
    /// The file of samples.
    pub data: bool,
    /// The samples that chose and those that were held out: the data, the seed, and how many there are of each.
    pub samples: bool,
    /// What gains are given in.
    pub metric: bool,
}

/// One search among others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ComparedRun {
    /// What it is called here: its folder's name.
    pub name: String,
    /// The base model, as its user gave it.
    pub model: String,
    /// SHA-256 of the base model.
    pub model_sha256: String,
    /// The adapter, as its user gave it.
    pub adapter: String,
    /// SHA-256 of the adapter.
    pub adapter_sha256: String,
    /// The data, as its user gave it.
    pub data: String,
    /// SHA-256 of the data.
    pub data_sha256: String,
    /// Seed of the draw and the split of the samples.
    pub seed: u64,
    /// How many samples chose.
    pub selection: usize,
    /// How many samples judged.
    pub holdout: usize,
    /// What to do.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// What was judged: `18 layers`.
    pub candidate: String,
    /// Number of decoder layers.
    pub layers: usize,
    /// The metric that gains are in the points of; null where they are in nats per answer token.
    pub metric: Option<String>,
    /// What the candidate gains over the full adapter. Positive is better.
    pub gain: Gain,
    /// What the full adapter gains over the base model. Positive is better.
    pub adapter_gain: Gain,
    /// Share of the adapter's gain over the base model that the candidate retains, where that gain is clear of 0.
    pub retained: Option<Interval>,
    /// Bytes of the adapter's tensors that the answer keeps.
    pub bytes_kept: u64,
    /// Bytes of all its tensors.
    pub bytes: u64,
    /// Wall-clock seconds of scoring.
    pub seconds: f64,
    /// Samples whose scores an interrupted run had left: their share is not in `seconds`.
    #[serde(default)]
    pub resumed: usize,
    /// Every boundary that was scored on all selection samples.
    pub curve: Vec<CurvePoint>,
}

/// One boundary of a run, in terms that models of any depth share.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CurvePoint {
    /// Layers that keep their LoRA.
    pub layers_kept: usize,
    /// Their share of all layers.
    pub depth: f64,
    /// Mean NLL on the selection samples, less that of the full adapter: below 0 the cut is better.
    pub over_full: f64,
}
