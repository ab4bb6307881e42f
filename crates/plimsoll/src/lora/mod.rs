//! LoRA adapters, and the variants of an adapter: which of its updates are applied, and how strongly.
//!
//! A [`Variant`] has one LoRA strength for each layer and module; a [`Family`] names a set of variants. An [`Adapter`] is
//! read from a folder, bound to a base model, and written again without what a variant drops.

pub mod adapter;
mod family;
mod layers_kept;
mod lora_table;
mod projection;
mod variant;
mod variant_table;

pub use adapter::{
    Adapter, AdapterConfig, AdapterProblem, BoundAdapter, EmbeddingLora, LayerLora, LoraWeights, Module, inspect,
    write_trimmed,
};
pub use family::{Facts, Family, Member, Place, Places, Position, VariantSet};
pub use layers_kept::LayersKept;
pub use lora_table::LoraTable;
pub use projection::Projection;
pub(crate) use variant::MAX_LAYERS;
pub use variant::{LayerGates, LoraPlaces, Variant};
pub use variant_table::{VariantId, VariantTable};
