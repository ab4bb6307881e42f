//! Generation of answers to prompts, under any variants of an adapter.
//!
//! Batching is continuous: up to [`GenerateOptions::batch`] sequences are decoded together, whatever their variants.
//! When one ends, the next prompt takes its place, and its tokens go through the weights together with the next tokens
//! of the others. Leading tokens that all prompts of a variant share are computed once. An answer depends only on its
//! prompt, its variant and the seed, not on the batch.
//!
//! ```
//! # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/golden/tiny-gqa-tied");
//! use std::ops::ControlFlow;
//!
//! use plimsoll::Model;
//! use plimsoll::engine::{CpuEngine, CpuOptions, Generator as _};
//! use plimsoll::generate::{BATCH, GenerateOptions, Prompt};
//! use plimsoll::lora::Variant;
//! use plimsoll::result::Sampling;
//!
//! let model = Model::open(folder)?;
//! let engine = CpuEngine::load(&model, &model.bind(None)?, CpuOptions::default())?;
//! let base = Variant::uniform(model.config().layers, 0.0);
//! let prompts = [Prompt { tokens: vec![30, 31, 32], variant: 0, number: 1 }];
//! let options =
//!     GenerateOptions { sampling: Sampling::GREEDY, max_tokens: 8, stop: Vec::new(), batch: BATCH };
//! let tokenizer = model.tokenizer()?;
//! let answers =
//!     engine.generate(&tokenizer, &[base], &prompts, &options, &mut |_| ControlFlow::Continue(()))?;
//! assert!(answers[0].tokens.len() <= 8);
//! # Ok::<(), plimsoll::Error>(())
//! ```

mod answer;
mod batch;
mod chat;
mod decoder;
mod prompt;
mod sampling;
mod text;

pub(crate) use batch::answer_all;
pub use chat::Chat;
pub use decoder::{Decoder, Step};
pub(crate) use prompt::check;
pub use prompt::{BATCH, GenerateOptions, GenerationEvent, Prompt};
pub use sampling::most_probable;
