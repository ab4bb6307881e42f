//! The base model: configuration, weights, and the decoder.
//!
//! ```
//! use plimsoll::lora::Projection;
//! use plimsoll::{Adapter, Model};
//!
//! let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/golden/tiny-gqa-tied");
//! let model = Model::open(folder)?;
//! assert_eq!((model.config().architecture.as_str(), model.config().layers), ("llama", 4));
//! assert_eq!(model.module_shape(Projection::K), Some((16, 32)));
//! model.check(&Adapter::open(format!("{folder}/adapters/plain"))?)?;
//! # Ok::<(), plimsoll::Error>(())
//! ```

mod config;
mod decoder;
mod linears;
mod lora;
mod observer;
mod opened;
mod precision;
mod problem;
mod reader;
mod weights;

pub use config::supported_families;
pub use config::{Config, LayerAttention, Rope, RopeScaling};
pub use decoder::{BlockPass, Ropes, Scratch, Segment, Transformer};
pub use lora::Lora;
pub use observer::{AdaptedProduct, BlockObserver};
pub use opened::Model;
pub use plimsoll_kernels::{Activation, Dtype, Isa};
pub use precision::Precision;
pub use problem::ModelProblem;
pub use reader::WeightRows;
pub use weights::{Norm, Weight};
