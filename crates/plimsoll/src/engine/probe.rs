//! The traits of engines that measure: energies of updates, hidden states, speeds.

use std::ops::ControlFlow;

use crate::data::Sample;
use crate::error::Result;
use crate::lora::{Projection, Variant};
use crate::result::Efficiency;

/// Observes forward passes without changing them.
pub trait Probe {
    /// The energy of each module's update in runs of the full adapter: `Σ ‖s·B·A·x‖²` over all tokens of the samples,
    /// by layer and then by `Projection as usize`; 0 without LoRA. `go_on` is called with the work that was done since
    /// the last call.
    ///
    /// LoRA-drop (Zhou et al., arXiv:2402.07721) ranks layers by this energy.
    ///
    /// # Errors
    /// [`Error::Interrupted`](crate::Error::Interrupted) if `go_on` breaks.
    fn output_energy(
        &self,
        samples: &[Sample],
        go_on: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Vec<[f64; Projection::COUNT]>>;

    /// Work of [`output_energy`](Self::output_energy), in the unit of [`Scorer::work`](super::Scorer::work).
    fn energy_work(&self, samples: &[Sample]) -> u64;

    /// Hidden states of one sequence under one variant after each layer, each `(tokens, hidden)`.
    ///
    /// # Errors
    /// A variant of another model.
    fn hidden_states(&self, tokens: &[u32], variant: &Variant) -> Result<Vec<Vec<f32>>>;
}

/// Measures the cost of variants at inference: bytes of the adapter, time to load it, decoding speed.
pub trait Benchmark {
    /// Measures the merged adapter and the variants that keep any LoRA, on some prompts (of many variants only a few).
    /// `go_on` is called between pieces of work.
    ///
    /// # Errors
    /// [`Error::Interrupted`](crate::Error::Interrupted) if `go_on` breaks; an adapter that cannot be written or read.
    fn efficiency(
        &self,
        variants: &[Variant],
        prompts: &[&[u32]],
        go_on: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Efficiency>;
}
