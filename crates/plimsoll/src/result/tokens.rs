//! The tokens of samples with their NLL: `tokens.jsonl`.

use plimsoll_stats::choose::Part;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The tokens of one sample with their NLL: a line of `tokens.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SampleTokens {
    /// The sample's line in its file, from 1.
    pub line: usize,
    /// Whether the sample is a selection or a held-out sample.
    pub part: Part,
    /// The end of its prompt.
    pub prompt: String,
    /// Its tokens, from the end of the prompt on; empty in files of earlier versions.
    #[serde(default)]
    pub sequence: Vec<Token>,
    /// The scored tokens as text, in order.
    pub tokens: Vec<String>,
    /// NLL of each scored token with the base model, in nats.
    pub base: Vec<f32>,
    /// NLL of each scored token with the full adapter, in nats.
    pub full: Vec<f32>,
    /// NLL of each scored token with the candidate, in nats; empty if the candidate is the base model or the full
    /// adapter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidate: Vec<f32>,
}

/// One token of a sample.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// Its text.
    pub text: String,
    /// Whether it is scored, as a token of an answer.
    pub scored: bool,
}
