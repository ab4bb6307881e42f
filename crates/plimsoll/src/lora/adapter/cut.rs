//! An adapter under a variant: what stays, what is dropped, and a summary for whoever wrote it.

use std::path::PathBuf;

use serde::Serialize;

use super::module::{EmbeddingLoraModule, Module};

/// What was written.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Written {
    /// The new folder.
    pub folder: PathBuf,
    /// The gates of the adapter's layers, as [`Variant::parse`] reads them.
    pub gates: String,
    /// Layers that have LoRA in it, ascending.
    pub layers_kept: Vec<usize>,
    /// Layers whose whole LoRA was dropped, ascending.
    pub layers_dropped: Vec<usize>,
    /// Number of LoRA modules in it.
    pub modules: usize,
    /// Number of LoRA modules that were dropped.
    pub modules_dropped: usize,
    /// Gates that were folded into B: those that occur but 0 and 1, ascending.
    pub strengths: Vec<f32>,
    /// Bytes of its tensors.
    pub bytes: u64,
    /// Bytes of the whole adapter's tensors.
    pub bytes_before: u64,
}

/// The adapter's modules under a variant, each in the order of [`Adapter::modules`].
pub(super) struct Cut<'a> {
    /// Those that stay, with their gates.
    pub(super) kept: Vec<(&'a Module, f32)>,
    pub(super) dropped: Vec<&'a Module>,
    /// LoRA on the ends of the model that stays.
    pub(super) ends: Vec<&'a EmbeddingLoraModule>,
}
