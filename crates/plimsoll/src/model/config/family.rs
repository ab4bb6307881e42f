//! Facts of model families that no configuration file states.

use crate::lora::Projection;
use crate::model::problem::listed;

/// The facts of a model family. All other facts are read from the file.
pub(super) struct Family {
    /// `model_type` in `config.json`.
    pub(super) model_type: &'static str,
    /// `general.architecture` in a GGUF file.
    pub(super) architecture: &'static str,
    /// Whether a GGUF file stores the rows of queries and keys interleaved, as llama.cpp rotates them.
    pub(super) is_interleaved: bool,
    /// The projections that always have a bias.
    pub(super) biased: &'static [Projection],
    /// Whether queries and keys have an RMS norm per head.
    pub(super) query_key_norm: bool,
    /// Whether q, k and v are one module, and gate and up another.
    pub(super) is_fused: bool,
    /// Gemma's architecture: norms multiply by 1 + weight, the outputs of attention and MLP are normed, embeddings are
    /// multiplied by √hidden, and the MLP's activation is GELU.
    pub(super) is_gemma: bool,
    /// Which layers have an attention window, if the file has no list of layer types.
    pub(super) windows: Windows,
    /// Default of the attention window.
    pub(super) default_window: Option<usize>,
    /// Default of `tie_word_embeddings`.
    pub(super) tied_head: bool,
    /// Default rotary base of layers with a window, if it differs from that of the other layers.
    pub(super) local_theta: Option<f64>,
    /// Default rotary base.
    pub(super) theta: f64,
    /// Default width of a head; `None` for `hidden / heads`.
    pub(super) head_dim: Option<usize>,
    /// Default of `max_position_embeddings`.
    pub(super) context: usize,
    /// Default soft caps of attention scores and of logits.
    pub(super) softcaps: (Option<f64>, Option<f64>),
    /// Default of `original_max_position_embeddings`.
    pub(super) original_context: Option<f64>,
}

/// Which layers have an attention window.
#[derive(Clone, Copy)]
pub(super) enum Windows {
    /// None of them.
    None,
    /// All of them.
    All,
    /// Layers from `max_window_layers` on, if `use_sliding_window` is set.
    Upper,
    /// All except every n-th layer.
    AllBut {
        /// The n.
        every: usize,
    },
}

const LLAMA: Family = Family {
    model_type: "llama",
    architecture: "llama",
    is_interleaved: true,
    biased: &[],
    query_key_norm: false,
    is_fused: false,
    is_gemma: false,
    windows: Windows::None,
    default_window: None,
    tied_head: false,
    local_theta: None,
    theta: 10_000.0,
    head_dim: None,
    context: 2048,
    softcaps: (None, None),
    original_context: None,
};

/// The supported families. Defaults are those of transformers 5.23. llama.cpp has the same defaults for keys that a
/// GGUF file can omit.
pub(super) const FAMILIES: &[Family] = &[
    // Llama 2 and 3, TinyLlama, SmolLM.
    LLAMA,
    // In GGUF files the architecture is `llama`.
    Family { model_type: "mistral", windows: Windows::All, default_window: Some(4096), context: 131_072, ..LLAMA },
    Family {
        model_type: "qwen2",
        architecture: "qwen2",
        is_interleaved: false,
        biased: &[Projection::Q, Projection::K, Projection::V],
        windows: Windows::Upper,
        default_window: Some(4096),
        context: 32_768,
        ..LLAMA
    },
    Family {
        model_type: "qwen3",
        architecture: "qwen3",
        is_interleaved: false,
        query_key_norm: true,
        windows: Windows::Upper,
        default_window: Some(4096),
        context: 32_768,
        head_dim: Some(128),
        ..LLAMA
    },
    Family {
        model_type: "phi3",
        architecture: "phi3",
        is_interleaved: false,
        is_fused: true,
        windows: Windows::All,
        context: 4096,
        original_context: Some(4096.0),
        ..LLAMA
    },
    GEMMA2,
    Family {
        model_type: "gemma3_text",
        architecture: "gemma3",
        query_key_norm: true,
        windows: Windows::AllBut { every: 6 },
        local_theta: Some(10_000.0),
        theta: 1_000_000.0,
        context: 131_072,
        softcaps: (None, None),
        ..GEMMA2
    },
];

const GEMMA2: Family = Family {
    model_type: "gemma2",
    architecture: "gemma2",
    is_interleaved: false,
    is_gemma: true,
    windows: Windows::AllBut { every: 2 },
    default_window: Some(4096),
    tied_head: true,
    head_dim: Some(256),
    context: 8192,
    softcaps: (Some(50.0), Some(30.0)),
    ..LLAMA
};

impl Windows {
    /// The window of each layer; `from` is the first layer with a window for [`Windows::Upper`].
    pub(super) fn of(self, layers: usize, window: Option<usize>, from: usize) -> Vec<Option<usize>> {
        let has = |layer: usize| match self {
            Self::None => false,
            Self::All => true,
            Self::Upper => layer >= from,
            Self::AllBut { every } => !(layer + 1).is_multiple_of(every),
        };
        (0..layers).map(|layer| window.filter(|_| has(layer))).collect()
    }
}

/// The supported values of `model_type` as text: `a, b or c`.
pub fn supported_families() -> String {
    listed(FAMILIES.iter().map(|family| family.model_type))
}
