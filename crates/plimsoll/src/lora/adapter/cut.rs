//! An adapter under a variant: the modules that are kept and dropped, and a summary of what was written.

use std::path::PathBuf;

use serde::Serialize;

use super::module::{EmbeddingLoraModule, Module};

/// A summary of a trimmed adapter that was written.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TrimSummary {
    /// The new folder.
    pub folder: PathBuf,
    /// LoRA strengths of the adapter's layers, as [`Variant::parse`](crate::lora::Variant::parse) reads them.
    pub gates: String,
    /// Layers that keep LoRA, ascending.
    pub layers_kept: Vec<usize>,
    /// Layers whose whole LoRA was dropped, ascending.
    pub layers_dropped: Vec<usize>,
    /// Number of LoRA modules that were kept.
    pub modules: usize,
    /// Number of LoRA modules that were dropped.
    pub modules_dropped: usize,
    /// Distinct LoRA strengths other than 0 and 1, which were folded into B, ascending.
    pub strengths: Vec<f32>,
    /// Bytes of the tensors that were written.
    pub bytes: u64,
    /// Bytes of the full adapter's tensors.
    pub bytes_before: u64,
}

/// An adapter's modules under a variant, in the order of [`Adapter::modules`](super::Adapter::modules).
pub(super) struct Cut<'a> {
    /// Modules that are kept, with their LoRA strengths.
    pub(super) kept: Vec<(&'a Module, f32)>,
    pub(super) dropped: Vec<&'a Module>,
    /// LoRA on embeddings that is kept.
    pub(super) on_embeddings: Vec<&'a EmbeddingLoraModule>,
}
