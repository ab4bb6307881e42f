//! The configuration of a decoder, and its validation.

use plimsoll_kernels::{Activation, MAX_HEAD_DIM};

use super::rope::Rope;
use crate::lora::{MAX_LAYERS, Projection};
use crate::model::problem::{ModelProblem, positive, unsupported};

const MAX_WIDTH: usize = 1 << 20;
const MAX_VOCABULARY: usize = 1 << 24;

/// The configuration of a decoder. All numbers are positive, and `heads` is a multiple of `kv_heads`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// Name of the architecture, such as `llama`. The decoder does not use it.
    pub architecture: String,
    /// Number of decoder layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the MLP's hidden layer.
    pub intermediate: usize,
    /// Number of query heads.
    pub heads: usize,
    /// Number of key and value heads.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Vocabulary size in tokens.
    pub vocabulary: usize,
    /// Context length in tokens.
    pub context: usize,
    /// The epsilon of every RMS norm.
    pub norm_epsilon: f32,
    /// Offset of stored norm weights: 1 if the factor is 1 + weight, else 0.
    pub norm_offset: f32,
    /// Offset of norm weights in an adapter, which are stored as in Hugging Face models.
    pub adapter_norm_offset: f32,
    /// Number of dimensions of a head that are rotated, from the first on: an even number.
    pub rotary_dim: usize,
    /// The rotary embeddings of the model; layers refer to them by index.
    pub ropes: Vec<Rope>,
    /// Attention window and rotary embedding of each layer.
    pub attention: Vec<LayerAttention>,
    /// Scale of the products of queries and keys.
    pub attention_scale: f32,
    /// Soft cap c of attention scores, `c · tanh(score / c)`.
    pub attention_softcap: Option<f32>,
    /// Soft cap of the logits.
    pub logit_softcap: Option<f32>,
    /// Scale of the embeddings.
    pub embedding_scale: f32,
    /// Activation function of the MLP's gate projection.
    pub activation: Activation,
    /// The projections that have a bias.
    pub biased: Vec<Projection>,
    /// Whether queries and keys have an RMS norm per head, before the rotary embedding.
    pub query_key_norm: bool,
    /// Whether the outputs of attention and MLP have an RMS norm before the residual addition.
    pub post_norms: bool,
    /// Whether q, k and v are one module, and gate and up another.
    pub is_fused: bool,
    /// Whether the head uses the embedding's weights.
    pub tied_head: bool,
}

/// Attention window and rotary embedding of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerAttention {
    /// Number of positions that a query attends to, its own included; `None` for all positions up to its own.
    pub window: Option<usize>,
    /// Index of the rotary embedding in [`Config::ropes`].
    pub rope: usize,
}

impl Config {
    /// The modules of each layer, in the order in which a block applies them.
    pub fn modules(&self) -> &'static [Projection] {
        use Projection::{Down, Gate, GateUp, K, O, Q, Qkv, Up, V};
        if self.is_fused { &[Qkv, O, GateUp, Down] } else { &[Q, K, V, O, Gate, Up, Down] }
    }

    /// Whether sequences of two lengths have the same rotary embedding at each position, so that they can share keys of
    /// common leading tokens.
    pub fn rotates_alike(&self, a: usize, b: usize) -> bool {
        self.ropes.iter().all(|rope| rope.class(a) == rope.class(b))
    }

    /// Checks the ranges that the fields' documentation states.
    pub(super) fn validate(self) -> Result<Self, ModelProblem> {
        let within = |name: &'static str, value: usize, limit: usize| {
            if (1..=limit).contains(&value) { Ok(()) } else { Err(ModelProblem::OutOfRange { name, value, limit }) }
        };
        within("layers", self.layers, MAX_LAYERS)?;
        within("hidden_size", self.hidden, MAX_WIDTH)?;
        within("intermediate_size", self.intermediate, MAX_WIDTH)?;
        within("num_attention_heads", self.heads, MAX_WIDTH)?;
        within("num_key_value_heads", self.kv_heads, self.heads)?;
        within("head_dim", self.head_dim, MAX_HEAD_DIM)?;
        within("rotary dimensions", self.rotary_dim, self.head_dim)?;
        within("num_attention_heads × head_dim", self.heads * self.head_dim, MAX_WIDTH)?;
        within("vocab_size", self.vocabulary, MAX_VOCABULARY)?;
        within("max_position_embeddings", self.context, MAX_VOCABULARY)?;
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(ModelProblem::Heads { heads: self.heads, kv_heads: self.kv_heads });
        }
        for (name, dims) in [("head_dim", self.head_dim), ("rotary dimensions", self.rotary_dim)] {
            if !dims.is_multiple_of(2) {
                return Err(unsupported(name, dims.to_string(), "an even number"));
            }
        }
        positive("rms_norm_eps", f64::from(self.norm_epsilon))?;
        positive("query_pre_attn_scalar", f64::from(self.attention_scale))?;
        for (name, cap) in
            [("attn_logit_softcapping", self.attention_softcap), ("final_logit_softcapping", self.logit_softcap)]
        {
            cap.map_or(Ok(()), |cap| positive(name, f64::from(cap)))?;
        }
        for window in self.attention.iter().filter_map(|layer| layer.window) {
            within("sliding_window", window, usize::MAX)?;
        }
        self.ropes.iter().try_for_each(|rope| rope.validate(self.rotary_dim))?;
        Ok(self)
    }
}
