//! Scoring of variants on samples: the trait that every engine has.

use std::ops::ControlFlow;

use super::trie::Trie;
use crate::data::Sample;
use crate::error::{Error, Result};
use crate::lora::{Projection, Variant};
use crate::result::SampleScores;

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

/// A report of an engine while it scores.
#[derive(Clone, Copy, Debug)]
pub enum ScoreEvent<'a> {
    /// More work is done, in the unit of [`Scorer::work`].
    Work(u64),
    /// Samples that are finished, in the order in which they were given.
    Scored(&'a [SampleScores]),
}

/// What an engine can compute beside the NLL of answers under boundaries.
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
    /// Everything.
    pub const ALL: Self = Self { lens: true, token_nll: true, strengths: true };
}

/// What results depend on beside their inputs. Scores of engines with different identities are never mixed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineIdentity {
    /// What weights and activations are held as, such as `bf16`.
    pub dtype: String,
    /// The instruction set, or the server and its version.
    pub instructions: String,
    /// Worker threads; results do not depend on their number.
    pub threads: usize,
}

/// Scores variants of an adapter on a base model.
pub trait Scorer {
    /// Number of decoder layers of the base model.
    fn layers(&self) -> usize;

    /// Which modules have LoRA, layer by layer, indexed by `Projection as usize`.
    fn adapted(&self) -> &[[bool; Projection::COUNT]];

    /// What it can compute.
    fn capabilities(&self) -> Capabilities;

    /// What its results depend on.
    fn identity(&self) -> EngineIdentity;

    /// Work of a call of [`score`](Self::score), in a unit of the engine's own: multiply-adds on a CPU.
    fn work(&self, samples: &[Sample], request: &Request) -> u64;

    /// Work per second, measured for a moment on the tokens of a sample. Rough: for an estimate of the time left.
    fn measure_rate(&self, tokens: &[u32]) -> f64;

    /// Scores every sample under every variant.
    ///
    /// `observe` is called a few times a second or more often, so that the caller can show progress and journal what
    /// is finished; when it breaks, scoring stops.
    ///
    /// # Errors
    /// A variant of another number of layers than the model's, a score that is not finite, or
    /// [`Error::Interrupted`] where `observe` broke.
    fn score(
        &self,
        samples: &[Sample],
        request: &Request,
        observe: &mut dyn FnMut(ScoreEvent<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<SampleScores>>;
}

/// Layers computed for each sample that is scored under some variants, by the trie of shared gates, and with one run for
/// each variant. `adapted` says which modules have LoRA, layer by layer.
///
/// # Panics
/// If a variant has another number of layers.
pub fn layer_passes(variants: &[Variant], adapted: &[[bool; Projection::COUNT]]) -> (usize, usize) {
    (Trie::new(variants, adapted).passes(), variants.len() * adapted.len())
}

/// [`Error::Interrupted`], where an observer broke.
pub(crate) fn stop_if(flow: ControlFlow<()>) -> Result<()> {
    if flow.is_break() { Err(Error::Interrupted) } else { Ok(()) }
}
