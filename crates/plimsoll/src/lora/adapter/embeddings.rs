//! What an adapter changes for every variant alike: LoRA on the ends of the model, and weights that were trained in full.
//!
//! Neither belongs to a layer's LoRA, so no boundary drops it. Both are part of the weights once the model is loaded.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use plimsoll_formats::Tensors;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::weights::{LayerLora, LoraWeights};

/// An end of the model: what it does before its first layer, or after its last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EmbeddingModule {
    /// The table of embeddings, `embed_tokens`.
    EmbedTokens,
    /// What turns hidden states into logits, `lm_head`.
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

    /// The name of its weight in Hugging Face's decoders.
    pub(super) fn weight(self) -> &'static str {
        match self {
            Self::EmbedTokens => "model.embed_tokens.weight",
            Self::LmHead => "lm_head.weight",
        }
    }
}

/// What becomes of LoRA on the ends of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EmbeddingLora {
    /// It is applied in every variant, and written to every trim.
    Keep,
    /// It is left out of both.
    Drop,
}

/// How a weight of the base model is changed: replaced, and then added to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Patch {
    /// The tensor that takes its place.
    pub(crate) replaced: Option<(Arc<Tensors>, String)>,
    /// `s·B·A` is added, and every row rescaled where there are magnitudes. Of an embedding, a row is a token.
    pub(crate) added: Option<LoraWeights>,
}

/// An adapter that fits a base model: the LoRA of each layer, and what it changes in every variant.
#[derive(Clone, Debug, Default)]
pub struct BoundAdapter {
    pub(super) layers: Vec<LayerLora>,
    /// By the weight's name in Hugging Face's decoders.
    pub(super) patches: BTreeMap<String, Patch>,
}

impl BoundAdapter {
    /// No adapter.
    pub(crate) fn none(layers: usize) -> Self {
        Self { layers: vec![LayerLora::default(); layers], patches: BTreeMap::new() }
    }

    /// What is changed in a weight, given by its name in Hugging Face's decoders.
    pub(crate) fn patch(&self, name: &str) -> Option<&Patch> {
        self.patches.get(name)
    }
}

/// The LoRA, layer by layer.
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
