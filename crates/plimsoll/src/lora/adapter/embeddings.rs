//! Changes of an adapter that all variants share: LoRA on embeddings, and weights trained in full.
//!
//! Neither belongs to a layer's LoRA, so no boundary drops it. Both are merged into the weights when the model is
//! loaded.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use plimsoll_formats::Tensors;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::weights::{LayerLora, LoraWeights};

/// An embedding module that LoRA can adapt: the input embedding or the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EmbeddingModule {
    /// The input embedding, `embed_tokens`.
    EmbedTokens,
    /// The head, `lm_head`.
    LmHead,
}

impl EmbeddingModule {
    /// The module's name, such as `lm_head`.
    pub fn name(self) -> &'static str {
        match self {
            Self::EmbedTokens => "embed_tokens",
            Self::LmHead => "lm_head",
        }
    }

    /// The Hugging Face name of the module's weight.
    pub(super) fn weight(self) -> &'static str {
        match self {
            Self::EmbedTokens => "model.embed_tokens.weight",
            Self::LmHead => "lm_head.weight",
        }
    }
}

/// Whether LoRA on embeddings is kept or dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EmbeddingLora {
    /// It is applied in every variant, and written to every trimmed adapter.
    Keep,
    /// It is neither applied nor written.
    Drop,
}

/// The change of one base weight: a replacement, followed by a LoRA update.
#[derive(Clone, Debug, Default)]
pub(crate) struct Patch {
    /// The tensor that replaces the weight.
    pub(crate) replaced: Option<(Arc<Tensors>, String)>,
    /// The LoRA that is added; with DoRA, every row is rescaled. A row of an embedding is a token.
    pub(crate) added: Option<LoraWeights>,
}

/// An adapter bound to a base model: the LoRA of each layer, and the changes that all variants share.
#[derive(Clone, Debug, Default)]
pub struct BoundAdapter {
    pub(super) layers: Vec<LayerLora>,
    /// By Hugging Face name of the weight.
    pub(super) patches: BTreeMap<String, Patch>,
}

impl BoundAdapter {
    /// A binding without an adapter: no LoRA and no changes.
    pub(crate) fn none(layers: usize) -> Self {
        Self { layers: vec![LayerLora::default(); layers], patches: BTreeMap::new() }
    }

    /// The change of a weight, given by its Hugging Face name.
    pub(crate) fn patch(&self, name: &str) -> Option<&Patch> {
        self.patches.get(name)
    }
}

/// Dereferences to the LoRA of each layer.
impl Deref for BoundAdapter {
    type Target = [LayerLora];

    fn deref(&self) -> &[LayerLora] {
        &self.layers
    }
}

impl From<Vec<LayerLora>> for BoundAdapter {
    fn from(layers: Vec<LayerLora>) -> Self {
        Self { layers, patches: BTreeMap::new() }
    }
}
