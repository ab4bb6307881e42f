//! Tokens of samples with their scores: `tokens.jsonl`.

use plimsoll_stats::choose::Part;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Token by token, what one sample's answer got: a line of `tokens.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SampleTokens {
    /// The sample's line in its file, from 1.
    pub line: usize,
    /// The part that it belongs to.
    pub part: Part,
    /// The end of its prompt.
    pub prompt: String,
    /// Its tokens, from the end of the prompt on; empty where an earlier version wrote the file.
    #[serde(default)]
    pub sequence: Vec<Token>,
    /// The scored tokens as text, in order.
    pub tokens: Vec<String>,
    /// Negative log-likelihood of each with the base model, in nats.
    pub base: Vec<f32>,
    /// The same with the full adapter.
    pub full: Vec<f32>,
    /// The same with the candidate, where that is neither of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidate: Vec<f32>,
}

/// A token of a sample.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// Its text.
    pub text: String,
    /// Whether it is scored, as a part of an answer.
    pub scored: bool,
}
