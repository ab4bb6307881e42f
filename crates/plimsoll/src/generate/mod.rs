//! Text from prompts, under any variants of an adapter.
//!
//! Batching is continuous: up to so many sequences grow side by side, each a token a step, whatever their variants; where
//! one ends, the next prompt takes its place, and its tokens go through the weights together with the others' next ones.
//! Leading tokens that all prompts of a variant share are computed once. A text depends on its prompt, its variant and
//! the seed alone, not on the batch.

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
