//! LoRA adapter folders of PEFT and mlx-lm: reading, checking, trimming, writing and inspection.
//!
//! A PEFT adapter is `adapter_config.json` and `adapter_model.safetensors`. Tensor names are
//! `base_model.model.<module path>.lora_A.weight`, of shape (rank, in), and `.lora_B.weight`, of shape (out, rank). The
//! update of a module is `s·B(Ax)`. Source: PEFT 0.21.2. Departure: PEFT loads an adapter whose tensors do not fit the
//! config or the base model, with a warning or without one. Here every tensor must be used, and every module that the
//! config targets must have its tensors. Otherwise the adapter is refused, with the names of the tensors at fault.
//!
//! - [`Adapter::open`] checks what can be checked without the base model, [`Adapter::bind`] the rest.
//! - [`write_trimmed`] writes the LoRA that a variant keeps to a folder that PEFT loads without a warning.
//! - [`inspect()`] reports the content of an adapter, and which runtimes can serve it.
//!
//! ```
//! use plimsoll::lora::Variant;
//! use plimsoll::lora::adapter::{Adapter, Provenance, inspect, write_trimmed};
//!
//! let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/golden/tiny-gqa-tied/adapters/plain");
//! let adapter = Adapter::open(folder)?;
//! assert_eq!(inspect(&adapter)?.layers, [0, 1, 2, 3]);
//!
//! # let temporary = tempfile::tempdir().unwrap();
//! # let out = temporary.path().join("trimmed");
//! let written = write_trimmed(&adapter, &Variant::bottom_k(4, 2), &Provenance::default(), &out)?;
//! assert_eq!(written.layers_kept, [0, 1]);
//! assert_eq!(Adapter::open(&out)?.bytes(), written.bytes);
//! # Ok::<(), plimsoll::Error>(())
//! ```

mod base_name;
mod card;
mod config;
mod cut;
mod embeddings;
mod file_names;
mod fold;
mod inspect;
mod keys;
mod layout;
mod mlx;
mod module;
mod open;
mod problem;
mod provenance;
mod runtimes;
mod sort;
mod table;
mod targets;
mod weights;
mod write;

pub use base_name::OtherBase;
pub(crate) use base_name::other_base;
pub(crate) use card::ranges;
pub use config::{AdapterConfig, Scaling};
pub use cut::TrimSummary;
pub use embeddings::{BoundAdapter, EmbeddingLora, EmbeddingModule};
pub use file_names::{CARD_FILE, CONFIG_FILE, PROVENANCE_FILE, WEIGHTS_FILE};
pub use inspect::{Inspection, ModuleInspection, inspect};
pub use layout::AdapterLayout;
pub use module::Module;
pub use open::{Adapter, BaseShapes};
pub use problem::{AdapterProblem, Faults};
pub use provenance::{HashedFile, Provenance, TrimScores};
pub use runtimes::{RuntimeFacts, Support};
pub use weights::{LayerLora, LoraWeights};
pub use write::{write_trimmed, write_trimmed_as};
