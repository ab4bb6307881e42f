//! LoRA adapters, and variants of an adapter: which updates are applied, and how strongly.
//!
//! - A *layer* is one decoder block, counted from 0 next to the embedding.
//! - A *LoRA strength* is a factor on the update of one module: 1 as trained, 0 dropped.
//! - A [`Variant`] has one LoRA strength for each layer and module. A *boundary* k is the variant with LoRA kept in
//!   layers `0..k` and dropped above.
//! - A [`Family`] is a named set of variants.
//! - An [`Adapter`] is read from a folder, bound to a base model, and written again without the parts that a variant
//!   drops.
//!
//! ```
//! use plimsoll::lora::Variant;
//!
//! let boundary = Variant::bottom_k(4, 3);
//! assert_eq!((boundary.name(), boundary.spec()), ("3 layers".to_owned(), "3=0".to_owned()));
//! let weaker = Variant::parse("2-3=0.5", 4)?;
//! assert_eq!((weaker.layers_kept(), weaker.boundary()), (4, None));
//! # Ok::<(), plimsoll::Error>(())
//! ```

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
