//! The parts of an adapter: LoRA modules, LoRA on embeddings, and weights that were trained in full.

use super::embeddings::EmbeddingModule;
use crate::lora::projection::Projection;

/// LoRA on an end of the model.
#[derive(Clone, Debug)]
pub(super) struct EmbeddingLoraModule {
    pub(super) module: EmbeddingModule,
    /// Its path below the base model.
    pub(super) path: String,
    pub(super) rank: usize,
    pub(super) scale: f64,
    pub(super) in_features: usize,
    pub(super) out_features: usize,
    pub(super) names: Names,
    pub(super) bytes: u64,
}

/// A weight that was trained in full.
#[derive(Clone, Debug)]
pub(super) struct Saved {
    /// The weight's name in Hugging Face's decoders.
    pub(super) name: String,
    /// Its name below the base model that the adapter was made for.
    pub(super) path: String,
    /// The tensor's name in the file.
    pub(super) key: String,
}

/// The names of a module's tensors in the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Names {
    pub(super) a: String,
    pub(super) b: String,
    pub(super) magnitude: Option<String>,
}

impl Names {
    pub(super) fn all(&self) -> impl Iterator<Item = &String> {
        [&self.a, &self.b].into_iter().chain(&self.magnitude)
    }
}

/// One LoRA module: its place, its scale and its shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Module {
    /// The decoder block, 0 next to the embedding.
    pub layer: usize,
    /// The linear module in that block.
    pub projection: Projection,
    /// The rank r.
    pub rank: usize,
    /// The alpha that the config gives it.
    pub alpha: f64,
    /// The scale s in `y = Wx + s·B(Ax)`.
    pub scale: f64,
    /// Length of the module's input.
    pub in_features: usize,
    /// Length of the module's output.
    pub out_features: usize,
    /// Bytes of its tensors in the file.
    pub bytes: u64,
    pub(super) names: Names,
}
