//! plimsoll finds out which LoRA layers an adapter needs at inference.
//!
//! Given a base model, a PEFT adapter and validation samples, it scores every boundary (LoRA kept in the layers below,
//! dropped above; arXiv:2503.23360), chooses one, judges it on held-out samples and writes a trimmed adapter. The whole
//! job is [`search`]; its parts stand alone:
//!
//! ```no_run
//! use std::ops::ControlFlow;
//!
//! use plimsoll::adapter::{Adapter, Base};
//! use plimsoll::data::Sample;
//! use plimsoll::engine::{Embedded, Engine as _, EngineOptions, Request};
//! use plimsoll::gates::Variant;
//! use plimsoll::model::Checkpoint;
//!
//! # fn main() -> plimsoll::Result<()> {
//! let checkpoint = Checkpoint::open("model.gguf".as_ref())?;
//! let layers = checkpoint.config().layers;
//! let lora = checkpoint.bind(Some(&Adapter::open("my-adapter".as_ref())?))?;
//! let engine = Embedded::load(&checkpoint, &lora, EngineOptions::default())?;
//!
//! let sample = Sample { line: 1, tokens: vec![1, 2, 3, 4], answer: vec![2, 3] };
//! let request = Request { variants: Variant::every_boundary(layers), ..Request::default() };
//! let scores = engine.score(&[sample], &request, &mut |_| ControlFlow::Continue(()))?;
//! println!("full adapter: {} nats per token", scores[0].mean_nll(layers));
//! # Ok(())
//! # }
//! ```
//!
//! The library never prints, exits, reads the environment or touches the network.

pub mod adapter;
pub mod choose;
pub mod data;
pub mod efficiency;
pub mod engine;
mod error;
pub mod eval;
pub mod files;
pub mod gates;
pub mod generate;
mod journal;
pub mod lens;
pub mod metrics;
pub mod model;
pub mod report;
pub mod search;
pub mod stats;
pub mod tokenizer;

pub use error::{Error, ErrorKind, Problem, Result};
