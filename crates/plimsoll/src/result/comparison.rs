//! The comparison of several searches.

use plimsoll_stats::choose::{Gain, Interval, Reason, Verdict};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The comparison of several searches, as `plimsoll report --format json` prints it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Comparison {
    /// Version of this layout.
    #[schemars(range(min = 1, max = 1))]
    pub schema: u32,
    /// What all runs have in common.
    pub same: Same,
    /// The runs.
    pub runs: Vec<ComparedRun>,
}

/// What all runs of a comparison have in common; files are compared by their hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Same {
    /// The base model.
    pub model: bool,
    /// The adapter.
    pub adapter: bool,
    /// The file of samples.
    pub data: bool,
    /// The selection and the held-out samples: data, seed and numbers of samples.
    pub samples: bool,
    /// The unit of the gains.
    pub metric: bool,
}

/// One search of a comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct ComparedRun {
    /// Name of the run: its folder's name.
    pub name: String,
    /// Path of the base model, as the user gave it.
    pub model: String,
    /// SHA-256 of the base model.
    pub model_sha256: String,
    /// Path of the adapter, as the user gave it.
    pub adapter: String,
    /// SHA-256 of the adapter.
    pub adapter_sha256: String,
    /// Path of the data, as the user gave it.
    pub data: String,
    /// SHA-256 of the data.
    pub data_sha256: String,
    /// Seed of the sampling and of the split of the samples.
    pub seed: u64,
    /// Number of selection samples.
    pub selection: usize,
    /// Number of held-out samples.
    pub holdout: usize,
    /// The verdict.
    pub verdict: Verdict,
    /// The reason of the verdict.
    pub reason: Reason,
    /// Label of the candidate, such as `18 layers`.
    pub candidate: String,
    /// Number of layers of the model.
    pub layers: usize,
    /// The metric whose points the gains are in; null for nats per answer token.
    pub metric: Option<String>,
    /// Gain of the candidate over the full adapter. Positive is better.
    pub gain: Gain,
    /// Gain of the full adapter over the base model. Positive is better.
    pub adapter_gain: Gain,
    /// Share of the adapter's gain over the base model that the candidate retains; null if that gain is not clearly
    /// above 0.
    pub retained: Option<Interval>,
    /// Bytes of the adapter's tensors that the verdict keeps.
    pub bytes_kept: u64,
    /// Bytes of all tensors of the adapter.
    pub bytes: u64,
    /// Wall-clock seconds of scoring.
    pub seconds: f64,
    /// Samples that were scored before an interruption; `seconds` does not include them.
    #[serde(default)]
    pub resumed: usize,
    /// All boundaries that were scored on all selection samples.
    pub curve: Vec<CurvePoint>,
}

/// One boundary of a run, relative to the depth of the model and to its full adapter.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct CurvePoint {
    /// Number of layers that keep LoRA.
    pub layers_kept: usize,
    /// Share of the model's layers that keep LoRA.
    pub depth: f64,
    /// Mean NLL on the selection samples minus the full adapter's, in nats per answer token. Below 0 is better.
    pub over_full: f64,
}
