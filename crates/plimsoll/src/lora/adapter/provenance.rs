//! The provenance of a trimmed adapter: the content of `plimsoll.json`, and the facts that its model card states.

use plimsoll_stats::choose::Interval;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cut::TrimSummary;
use super::embeddings::EmbeddingLora;
use crate::error::{Error, Result};

/// Version of the layout of [`PROVENANCE_FILE`](super::PROVENANCE_FILE).
const SCHEMA: u32 = 2;

/// The provenance of a trimmed adapter. Unknown facts are left out of the files.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// Name and version of the program, such as `plimsoll 0.1.0`.
    pub tool: String,
    /// The command line that repeats the trim.
    pub command: Option<String>,
    /// The adapter that was trimmed.
    pub adapter: Option<HashedFile>,
    /// The base model that the variants were scored on.
    pub model: Option<HashedFile>,
    /// Number of decoder layers of that model.
    pub model_layers: Option<usize>,
    /// The samples.
    pub data: Option<HashedFile>,
    /// Seed of the split and of every resampling.
    pub seed: Option<u64>,
    /// Scores of the trimmed adapter; none for a trim to a given boundary.
    pub scores: Option<TrimScores>,
}

/// The path and hash of one file, or of several files together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashedFile {
    /// The path as the user gave it.
    pub path: String,
    /// SHA-256, see [`sha256_of_files`](plimsoll_formats::files::sha256_of_files).
    pub sha256: String,
}

/// Scores on samples that had no part in the choice of the trimmed adapter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrimScores {
    /// The metric that replaces the NLL, such as `gsm8k flexible`; higher is better. `None` for the NLL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
    /// Number of samples.
    pub samples: usize,
    /// Score of the base model: mean NLL in nats per answer token, or the metric.
    pub base: f64,
    /// Score of the full adapter, in the same unit.
    pub full: f64,
    /// Score of the trimmed adapter, in the same unit.
    pub trimmed: f64,
    /// Gain of the trimmed over the full adapter, in the same unit. Positive is better.
    pub gain: Interval,
    /// Share of the full adapter's gain over the base model that the trimmed adapter retains; 1 is all of it.
    pub retained: Option<Interval>,
}

/// The content of [`PROVENANCE_FILE`](super::PROVENANCE_FILE).
#[derive(Serialize)]
pub(super) struct ProvenanceFile<'a> {
    schema: u32,
    gates: &'a str,
    layers_kept: &'a [usize],
    layers_dropped: &'a [usize],
    modules: usize,
    modules_dropped: usize,
    strengths: &'a [f32],
    bytes: u64,
    bytes_before: u64,
    /// Whether LoRA on embeddings was kept or dropped; absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding_lora: Option<EmbeddingLora>,
    #[serde(flatten)]
    card: Value,
}

impl<'a> ProvenanceFile<'a> {
    pub(super) fn new(
        written: &'a TrimSummary,
        embedding_lora: Option<EmbeddingLora>,
        card: &Provenance,
    ) -> Result<Self> {
        let mut card = serde_json::to_value(card).map_err(|error| Error::Internal(error.to_string()))?;
        if let Some(fields) = card.as_object_mut() {
            fields.retain(|_, value| !value.is_null());
        }
        Ok(Self {
            schema: SCHEMA,
            gates: &written.gates,
            layers_kept: &written.layers_kept,
            layers_dropped: &written.layers_dropped,
            modules: written.modules,
            modules_dropped: written.modules_dropped,
            strengths: &written.strengths,
            bytes: written.bytes,
            bytes_before: written.bytes_before,
            embedding_lora,
            card,
        })
    }
}
