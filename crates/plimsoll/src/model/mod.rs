//! The base model: its facts, its weights, and the one decoder.

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
