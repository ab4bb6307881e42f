//! The facts of a decoder, checked.

use plimsoll_kernels::{Activation, MAX_HEAD_DIM};

use super::rope::Rope;
use crate::lora::{MAX_LAYERS, Projection};
use crate::model::problem::{ModelProblem, positive, unsupported};

const MAX_WIDTH: usize = 1 << 20;
const MAX_VOCABULARY: usize = 1 << 24;

/// The facts of a decoder. All numbers are positive, and `heads` is a multiple of `kv_heads`.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Name of the architecture, such as `llama`: for people to read, the decoder does not.
    pub architecture: String,
    /// Number of decoder layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width inside the MLP.
    pub intermediate: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Number of tokens.
    pub vocabulary: usize,
    /// Longest sequence the model was made for, in tokens.
    pub context: usize,
    /// Added to the mean square in every norm.
    pub norm_epsilon: f32,
    /// Added to a norm's weight as it is stored: 1 where a weight of 0 changes nothing, else 0.
    pub norm_offset: f32,
    /// The same for the norms that an adapter brings, which are as Hugging Face stores them.
    pub adapter_norm_offset: f32,
    /// How many dimensions of a head are rotated, from its first on: an even number.
    pub rotary_dim: usize,
    /// The rotary embeddings that layers choose from.
    pub ropes: Vec<Rope>,
    /// How each layer attends.
    pub attention: Vec<LayerAttention>,
    /// What products of queries and keys are multiplied by.
    pub attention_scale: f32,
    /// The bound c of `c · tanh(score / c)`, where attention's scores are softly bounded.
    pub attention_softcap: Option<f32>,
    /// The same for logits.
    pub logit_softcap: Option<f32>,
    /// What embeddings are multiplied by.
    pub embedding_scale: f32,
    /// What is applied to the MLP's gate.
    pub activation: Activation,
    /// The linear maps that have a bias.
    pub biased: Vec<Projection>,
    /// Whether every head's query and key is normed before it is rotated.
    pub query_key_norm: bool,
    /// Whether what attention and the MLP give is normed before it is added to the residual stream.
    pub post_norms: bool,
    /// Whether q, k and v are one module, and gate and up another.
    pub is_fused: bool,
    /// Whether the head uses the embedding's weights.
    pub tied_head: bool,
}

/// How a layer attends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerAttention {
    /// How many positions a query sees, its own included; all before it where none is given.
    pub window: Option<usize>,
    /// Which of the model's rotary embeddings it uses.
    pub rope: usize,
}

impl Config {
    /// The modules that each layer has, in the order in which a block applies them.
    pub fn modules(&self) -> &'static [Projection] {
        use Projection::{Down, Gate, GateUp, K, O, Q, Qkv, Up, V};
        if self.is_fused { &[Qkv, O, GateUp, Down] } else { &[Q, K, V, O, Gate, Up, Down] }
    }

    /// Whether sequences of two lengths are embedded alike, position by position: what one has of its first tokens is then
    /// right for the other.
    pub fn rotates_alike(&self, a: usize, b: usize) -> bool {
        self.ropes.iter().all(|rope| rope.class(a) == rope.class(b))
    }

    /// Checks what the fields' documentation promises.
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
