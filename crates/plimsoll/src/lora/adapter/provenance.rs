//! Where a trimmed adapter comes from: `plimsoll.json`, and what its model card says of the scores.

use plimsoll_stats::choose::Interval;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cut::Written;
use super::embeddings::EmbeddingLora;
use crate::error::{Error, Result};

/// Version of the layout of [`PROVENANCE_FILE`](super::PROVENANCE_FILE).
const SCHEMA: u32 = 1;

/// Where a trimmed adapter comes from; what is not known is left out of the card.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// Name and version of the program, such as `plimsoll 0.1.0`.
    pub tool: String,
    /// The command that repeats it.
    pub command: Option<String>,
    /// The adapter that was trimmed.
    pub adapter: Option<Source>,
    /// The base model that the boundary was measured on.
    pub model: Option<Source>,
    /// How many decoder layers that model has.
    pub model_layers: Option<usize>,
    /// The samples.
    pub data: Option<Source>,
    /// Seed of the split and of every resampling.
    pub seed: Option<u64>,
    /// What was measured; a trim to a given boundary has none.
    pub scores: Option<TrimScores>,
}

/// A file, or several taken together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// As the user gave it.
    pub path: String,
    /// SHA-256, as [`files::sha256_of_files`] makes it.
    pub sha256: String,
}

/// Scores on samples that had no part in choosing the boundary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrimScores {
    /// What is measured in place of the NLL, such as `gsm8k flexible`; higher is better then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
    /// How many samples.
    pub samples: usize,
    /// Mean NLL without the adapter, in nats per answer token; or the metric.
    pub base: f64,
    /// Mean NLL with the whole adapter, in nats per answer token; or the metric.
    pub full: f64,
    /// Mean NLL with the trimmed adapter, in nats per answer token; or the metric.
    pub trimmed: f64,
    /// What the trimmed adapter gains over the whole one, in nats per answer token or in the metric. Positive is better.
    pub gain: Interval,
    /// Share of the whole adapter's gain over the base that is left. 1 is all of it.
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
    /// What became of LoRA on the ends of the model, where there is such LoRA.
    #[serde(skip_serializing_if = "Option::is_none")]
    ends: Option<EmbeddingLora>,
    #[serde(flatten)]
    card: Value,
}

impl<'a> ProvenanceFile<'a> {
    pub(super) fn new(written: &'a Written, ends: Option<EmbeddingLora>, card: &Provenance) -> Result<Self> {
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
            ends,
            card,
        })
    }
}
