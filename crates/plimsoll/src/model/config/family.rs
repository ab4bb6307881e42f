//! What the name of a family says and its configuration does not.

use crate::lora::Projection;
use crate::model::problem::listed;

/// The facts that come with a family's name. Everything else stands in the file.
pub(super) struct Family {
    /// `model_type` in `config.json`.
    pub(super) model_type: &'static str,
    /// `general.architecture` in a GGUF file.
    pub(super) architecture: &'static str,
    /// Whether a GGUF file has the rows of its queries and keys in llama.cpp's own order.
    pub(super) is_interleaved: bool,
    /// The linear maps that have a bias whatever the file says.
    pub(super) biased: &'static [Projection],
    /// Whether every head's query and key is normed.
    pub(super) query_key_norm: bool,
    /// Whether q, k and v are one module, and gate and up another.
    pub(super) is_fused: bool,
    /// Gemma's ways: norms multiply by 1 + weight, what attention and MLP give is normed as well, embeddings are
    /// multiplied by √hidden, the MLP's activation is GELU.
    pub(super) is_gemma: bool,
    /// Which layers have a window, where one is given and no list of layers says it.
    pub(super) windows: Windows,
    /// The window of a file that does not mention one.
    pub(super) default_window: Option<usize>,
    /// Whether the head is the embedding where the file does not say it.
    pub(super) tied_head: bool,
    /// The rotary base of layers with a window, where it is one of their own.
    pub(super) local_theta: Option<f64>,
    /// The rotary base where the file does not say it.
    pub(super) theta: f64,
    /// The head's width where the file does not say it; none: `hidden / heads`.
    pub(super) head_dim: Option<usize>,
    /// `max_position_embeddings` where the file does not say it.
    pub(super) context: usize,
    /// Bounds of attention's scores and of the logits where the file does not say them.
    pub(super) softcaps: (Option<f64>, Option<f64>),
    /// The context before stretching that counts where the file does not say it.
    pub(super) original_context: Option<f64>,
}

/// Which layers have a window.
#[derive(Clone, Copy)]
pub(super) enum Windows {
    /// None of them.
    None,
    /// All of them.
    All,
    /// Those from `max_window_layers` on, where `use_sliding_window` is set.
    Upper,
    /// All but every so-many-th.
    AllBut {
        /// Every how many-th has none.
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

/// The families that are read. Defaults are those of transformers 5.23; llama.cpp has no others where a GGUF file can
/// leave something out.
pub(super) const FAMILIES: &[Family] = &[
    // Llama 2 and 3, TinyLlama, SmolLM.
    LLAMA,
    // A GGUF file of it says llama.
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
    /// The window of each layer; `from` is the first that has one where only the upper ones have.
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

/// The values of `model_type` that are supported, in a sentence.
pub fn supported_families() -> String {
    listed(FAMILIES.iter().map(|family| family.model_type))
}
