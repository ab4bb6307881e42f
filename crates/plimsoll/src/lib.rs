//! plimsoll finds out which LoRA layers an adapter needs at inference.

pub mod adapter;
pub mod choose;
pub mod data;
pub mod engine;
mod error;
pub mod files;
pub mod gates;
pub mod lens;
pub mod model;
pub mod report;
pub mod search;
pub mod tokenizer;

pub use error::{Error, ErrorKind, Problem, Result};
