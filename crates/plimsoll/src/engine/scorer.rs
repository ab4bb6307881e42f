//! The trait of engines that score samples under variants.

use std::ops::ControlFlow;

use super::trie::Trie;
use crate::data::Sample;
use crate::error::{Error, Result};
use crate::lora::{Projection, Variant};
use crate::result::SampleScores;

/// A request: what to compute for every sample.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The variants to score.
    pub variants: Vec<Variant>,
    /// Indices into `variants`: compute the ground-truth probability after every layer for these.
    pub lens: Vec<usize>,
    /// Whether to compute the NLL of every answer token, under all variants.
    pub token_nll: bool,
}

/// A progress report of an engine that scores.
#[derive(Clone, Copy, Debug)]
pub enum ScoreEvent<'a> {
    /// Work done since the last report, in the unit of [`Scorer::work`].
    Work(u64),
    /// Samples that are finished, in the order of the request.
    Scored(&'a [SampleScores]),
}

/// What an engine can compute besides the NLL of answers under boundaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Probability of the ground truth after every layer ([`Request::lens`]).
    pub lens: bool,
    /// NLL of every answer token ([`Request::token_nll`]).
    pub token_nll: bool,
    /// LoRA strengths other than 0 and 1.
    pub strengths: bool,
}

impl Capabilities {
    /// All capabilities.
    pub const ALL: Self = Self { lens: true, token_nll: true, strengths: true };
}

/// The properties of an engine that its results depend on. Scores of engines with different identities are never mixed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineIdentity {
    /// Dtype of weights and activations, such as `bf16`.
    pub dtype: String,
    /// The instruction set, or the server and its version.
    pub instructions: String,
    /// Number of worker threads; results do not depend on it.
    pub threads: usize,
}

/// Scores variants of an adapter on a base model.
pub trait Scorer {
    /// Number of decoder layers of the base model.
    fn layers(&self) -> usize;

    /// Which modules have LoRA, layer by layer, indexed by `Projection as usize`.
    fn adapted(&self) -> &[[bool; Projection::COUNT]];

    /// What the engine can compute.
    fn capabilities(&self) -> Capabilities;

    /// What the engine's results depend on.
    fn identity(&self) -> EngineIdentity;

    /// Work of a call of [`score`](Self::score), in a unit of the engine: multiply-adds on a CPU.
    fn work(&self, samples: &[Sample], request: &Request) -> u64;

    /// Work per second, measured briefly on the tokens of a sample. Approximate: for an estimate of the time left.
    ///
    /// # Errors
    /// An engine that does not answer.
    fn measure_rate(&self, tokens: &[u32]) -> Result<f64>;

    /// Maximum number of variants of one call. Finished samples are journalled after each call, and the CPU engine
    /// keeps the hidden states of all variants of a call.
    fn max_variants(&self) -> usize {
        128
    }

    /// Layer passes for each sample under some variants, for the report of the cost. By default one run per variant.
    fn layer_passes(&self, variants: &[Variant]) -> usize {
        variants.len() * self.layers()
    }

    /// Scores every sample under every variant. Weights outside the layers that the adapter keeps (`modules_to_save`,
    /// LoRA on embeddings) are applied under every variant, the base model included.
    ///
    /// `observe` is called at least a few times per second, so that the caller can show progress and journal finished
    /// samples. If it breaks, scoring stops.
    ///
    /// # Errors
    /// A variant with another number of layers than the model, a score that is not finite, or [`Error::Interrupted`] if
    /// `observe` breaks.
    fn score(
        &self,
        samples: &[Sample],
        request: &Request,
        observe: &mut dyn FnMut(ScoreEvent<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<SampleScores>>;
}

/// Layer passes for each sample under some variants: in a trie, and with one run per variant. `adapted` says which
/// modules have LoRA, layer by layer.
///
/// # Panics
/// If a variant has another number of layers than `adapted`.
pub fn layer_passes(variants: &[Variant], adapted: &[[bool; Projection::COUNT]]) -> (usize, usize) {
    (Trie::new(variants, adapted).passes(), variants.len() * adapted.len())
}

/// [`Error::Interrupted`] if an observer breaks.
pub(crate) fn stop_if(flow: ControlFlow<()>) -> Result<()> {
    if flow.is_break() { Err(Error::Interrupted) } else { Ok(()) }
}
