//! Weights of a decoder by their role.

use crate::lora::Projection;

/// A weight of the decoder: a tensor, or a part of a fused one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// The embedding: one row for each token.
    Embedding,
    /// The head: one row for each token.
    Head,
    /// The norm before the head.
    FinalNorm,
    /// A norm of a layer.
    Norm(usize, Norm),
    /// A projection of a layer: one row for each output. Never a fused one.
    Linear(usize, Projection),
    /// The bias of a projection of a layer. Never a fused one.
    Bias(usize, Projection),
}

/// A norm of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    /// Before attention.
    Attention,
    /// After attention.
    PostAttention,
    /// Before the MLP.
    Mlp,
    /// After the MLP.
    PostMlp,
    /// Of each head's query.
    Query,
    /// Of each head's key.
    Key,
}

/// The location of a weight in the files.
#[derive(Debug)]
pub(super) struct Place {
    /// The tensor's name.
    pub(super) name: String,
    /// The tensor's shape.
    pub(super) shape: Vec<usize>,
    /// The weight's first row in the tensor.
    pub(super) first: usize,
}

/// The name of a module in tensor names of a GGUF file.
pub(super) fn gguf_name(projection: Projection) -> &'static str {
    match projection {
        Projection::Q => "attn_q",
        Projection::K => "attn_k",
        Projection::V => "attn_v",
        Projection::O => "attn_output",
        Projection::Gate => "ffn_gate",
        // llama.cpp uses this name for fused gate and up projections, too.
        Projection::Up | Projection::GateUp => "ffn_up",
        Projection::Down => "ffn_down",
        Projection::Qkv => "attn_qkv",
    }
}
