//! `score(samples, variants) → scores`: the one deep function.
//!
//! What is above it (families, statistics, reports) knows no tensors; what is below it knows no statistics. An
//! [`Engine`] stands behind it, so that a model on another machine can take the place of the embedded one.

mod decoding;
mod embedded;
mod trie;

use std::ops::ControlFlow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::Sample;
use crate::error::Result;
use crate::gates::{Projection, Variant};

pub use decoding::{Decoding, Prefix, Sequence, Turn};
pub use embedded::{Embedded, EngineOptions, MAX_THREADS};

/// What to compute for every sample.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Every variant to score.
    pub variants: Vec<Variant>,
    /// Indices into `variants` of those whose ground-truth probability is wanted after every layer.
    pub lens: Vec<usize>,
    /// Whether the NLL of every single answer token is wanted, under all variants.
    pub token_nll: bool,
}

/// All that was measured on one sample. One line of `scores.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SampleScores {
    /// The sample's line in its file, from 1.
    pub line: usize,
    /// How many answer tokens were scored. The same for every variant.
    pub tokens: usize,
    /// One entry for each variant of the request.
    pub variants: Vec<VariantScore>,
    /// One curve for each entry of the request's `lens`; empty where it was not asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lens: Vec<LensCurve>,
    /// For each variant the NLL of every answer token, in nats; empty where it was not asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_nll: Vec<Vec<f32>>,
}

impl SampleScores {
    /// Mean negative log-likelihood of the answer under one variant, in nats per answer token.
    pub fn mean_nll(&self, variant: usize) -> f64 {
        self.variants[variant].nll / self.tokens as f64
    }
}

/// How well one variant predicts one sample's answer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VariantScore {
    /// Negative log-likelihood of the whole answer, in nats: the sum over its tokens.
    pub nll: f64,
    /// Probability given to the right token, mean over the answer's tokens.
    pub probability: f64,
    /// How many answer tokens were the most probable ones.
    pub correct: usize,
}

/// The logit lens on one sample: one entry for each layer, after that layer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LensCurve {
    /// `softmax(W_U · norm_f(h_l(t)))[y_t]`, mean over the answer's positions.
    pub probability: Vec<f64>,
    /// Share of answer positions where the ground truth is the most probable token.
    pub top1: Vec<f64>,
    /// Tokens with a higher logit than the ground truth, mean over the answer's positions.
    pub rank: Vec<f64>,
}

/// What an engine tells while it works.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// So much more is done, in the unit of [`Engine::work`].
    Work(u64),
    /// Samples that are finished, in the order in which they were given.
    Scored(&'a [SampleScores]),
}

/// Layers computed for each sample that is scored under some variants, by the trie of shared gates, and with one run for each
/// variant. `adapted` says which modules have LoRA, layer by layer.
///
/// # Panics
/// If a variant has another number of layers.
pub fn layer_passes(variants: &[Variant], adapted: &[[bool; Projection::COUNT]]) -> (usize, usize) {
    (trie::Trie::new(variants, adapted).passes(), variants.len() * adapted.len())
}

/// Something that can score variants of an adapter on a base model.
pub trait Engine {
    /// How many decoder layers the base model has.
    fn layers(&self) -> usize;

    /// How much work a call of [`score`](Self::score) is, in multiply-adds.
    fn work(&self, samples: &[Sample], request: &Request) -> u64;

    /// Scores every sample under every variant.
    ///
    /// `observe` is called a few times a second or more often, so that the caller can show progress and journal what
    /// is finished; when it breaks, scoring stops.
    ///
    /// # Errors
    /// A variant of another number of layers than the model's, a score that is not finite, or
    /// [`crate::Error::Interrupted`] where `observe` broke.
    fn score(
        &self,
        samples: &[Sample],
        request: &Request,
        observe: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<SampleScores>>;
}
