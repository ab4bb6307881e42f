//! PEFT LoRA folders: read, refuse, trim, write, inspect.
//!
//! An adapter is `adapter_config.json` and `adapter_model.safetensors`. Each tensor's key is
//! `base_model.model.<module path>.lora_A.weight` of shape (rank, in), or `.lora_B.weight` of shape (out, rank), and
//! the update it stands for is `s·B(Ax)`. Source: PEFT 0.21.2. Departures, on purpose: PEFT loads an adapter whose
//! tensors do not fit the config or the base model with a warning, or none; here every tensor must be used, and every
//! module that the config targets must have its tensors, or the adapter is refused with the names of those at fault.
//!
//! - [`Adapter::open`] checks all that can be checked without the base model, [`Adapter::bind`] the rest;
//! - [`write_trimmed`] writes what a variant leaves of the LoRA to a folder that PEFT loads without a warning;
//! - [`inspect()`] says what is in an adapter, and what each runtime makes of it.

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
pub use cut::Written;
pub use embeddings::{BoundAdapter, EmbeddingLora, EmbeddingModule};
pub use file_names::{CARD_FILE, CONFIG_FILE, PROVENANCE_FILE, WEIGHTS_FILE};
pub use inspect::{Inspection, ModuleInspection, inspect};
pub use layout::AdapterLayout;
pub use module::Module;
pub use open::{Adapter, BaseShapes};
pub use problem::{AdapterProblem, Faults};
pub use provenance::{Provenance, Source, TrimScores};
pub use runtimes::{RuntimeFacts, Support};
pub use weights::{LayerLora, LoraWeights};
pub use write::{write_trimmed, write_trimmed_as};
