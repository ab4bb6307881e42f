//! The parts of an adapter: LoRA modules of layers, LoRA on embeddings, and weights trained in full.

use super::embeddings::EmbeddingModule;
use crate::lora::projection::Projection;

/// LoRA on an embedding module.
#[derive(Clone, Debug)]
pub(super) struct EmbeddingLoraModule {
    pub(super) module: EmbeddingModule,
    /// The module's path in the base model.
    pub(super) path: String,
    pub(super) rank: usize,
    pub(super) scale: f64,
    pub(super) in_features: usize,
    pub(super) out_features: usize,
    pub(super) names: Names,
    pub(super) bytes: u64,
}

/// A weight that was trained in full (`modules_to_save`).
#[derive(Clone, Debug)]
pub(super) struct Saved {
    /// The weight's Hugging Face name.
    pub(super) name: String,
    /// The weight's name in the adapter's own base model.
    pub(super) path: String,
    /// The tensor's name in the file.
    pub(super) key: String,
}

/// Names of a module's tensors in the file.
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

/// One LoRA module of a layer: place, rank, scale and shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Module {
    /// The layer, 0 next to the embedding.
    pub layer: usize,
    /// The linear module in that layer.
    pub projection: Projection,
    /// The rank r.
    pub rank: usize,
    /// The alpha of the config.
    pub alpha: f64,
    /// The scale s in `y = Wx + s·B(Ax)`.
    pub scale: f64,
    /// Width of the module's input.
    pub in_features: usize,
    /// Width of the module's output.
    pub out_features: usize,
    /// Bytes of its tensors in the file.
    pub bytes: u64,
    pub(super) names: Names,
}
