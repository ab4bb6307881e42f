//! Weights of a model by what they are for.

use crate::lora::Projection;

/// A tensor of the decoder, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// The embedding: a row for each token.
    Embedding,
    /// The head: a row for each token.
    Head,
    /// The norm before the head.
    FinalNorm,
    /// A norm of a layer.
    Norm(usize, Norm),
    /// A linear map of a layer: a row for each output. Never a fused one.
    Linear(usize, Projection),
    /// A bias of a layer. Never a fused one.
    Bias(usize, Projection),
}

/// A norm of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    /// Before attention.
    Attention,
    /// Of what attention gives.
    PostAttention,
    /// Before the MLP.
    Mlp,
    /// Of what the MLP gives.
    PostMlp,
    /// Of each head's query.
    Query,
    /// Of each head's key.
    Key,
}

/// Where a weight lies.
#[derive(Debug)]
pub(super) struct Place {
    /// The tensor's name.
    pub(super) name: String,
    /// The tensor's shape.
    pub(super) shape: Vec<usize>,
    /// The weight's first row in it.
    pub(super) first: usize,
}

/// The name of a module's tensors in a GGUF file.
pub(super) fn gguf_name(projection: Projection) -> &'static str {
    match projection {
        Projection::Q => "attn_q",
        Projection::K => "attn_k",
        Projection::V => "attn_v",
        Projection::O => "attn_output",
        Projection::Gate => "ffn_gate",
        // Where gate and up are one module, llama.cpp calls it so.
        Projection::Up | Projection::GateUp => "ffn_up",
        Projection::Down => "ffn_down",
        Projection::Qkv => "attn_qkv",
    }
}
