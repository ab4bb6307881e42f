//! Generated answers and the settings of sampling.

use serde::{Deserialize, Serialize};

/// A generated answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generated {
    /// The text without special tokens, up to the stop text that ended it.
    pub text: String,
    /// The tokens without the end token; those of a stop text are included.
    pub tokens: Vec<u32>,
    /// Why generation ended.
    pub finish: Finish,
}

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finish {
    /// At an end token or a stop text.
    Stop,
    /// At the limit of tokens.
    Length,
}

/// Settings of sampling: how the next token is picked.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// Divisor of the logits. 0 is greedy decoding: the three filters below have no effect.
    pub temperature: f32,
    /// Keep this many of the most probable tokens, and tokens equal to the last of them; 0 keeps all.
    pub top_k: usize,
    /// Keep the most probable tokens that together reach this probability; 1 keeps all.
    pub top_p: f32,
    /// Keep tokens whose probability is at least this share of the largest; 0 keeps all.
    pub min_p: f32,
    /// Logits of tokens that have occurred are divided by it if positive, multiplied if negative; 1 has no effect.
    pub repetition_penalty: f32,
    /// Seed of the random stream.
    pub seed: u64,
}

impl Sampling {
    /// Greedy decoding: always the most probable token.
    pub const GREEDY: Self =
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 };
}
