//! Generated answers.

use serde::{Deserialize, Serialize};

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generated {
    /// The text, without special tokens, up to the text that ended it.
    pub text: String,
    /// The tokens, without an end token; those of a stop text are among them.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finish {
    /// With a token or a text that ends it.
    Stop,
    /// It has as many tokens as it may have.
    Length,
}

/// How the next token is picked.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// Logits are divided by it; 0 picks the most probable token, and leaves the three filters below without effect.
    pub temperature: f32,
    /// Keep the so many most probable tokens, and those equal to the last of them; 0 keeps all.
    pub top_k: usize,
    /// Keep the most probable tokens that together reach this probability; 1 keeps all.
    pub top_p: f32,
    /// Keep the tokens whose probability is at least this share of the largest; 0 keeps all.
    pub min_p: f32,
    /// Logits of tokens that have occurred are divided by it where positive, multiplied where negative; 1 leaves them.
    pub repetition_penalty: f32,
    /// Seed of the draws.
    pub seed: u64,
}

impl Sampling {
    /// The most probable token, always.
    pub const GREEDY: Self =
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 };
}
