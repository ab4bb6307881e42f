//! Text to token ids and back, and chats to text.
//!
//! Two readers arrive at the same [`Tokenizer`]: a Hugging Face folder (`tokenizer.json` beside
//! `tokenizer_config.json`) and the metadata of a GGUF file. The pieces of a tokenizer (normaliser, pre-tokeniser,
//! byte-pair merges, decoder) are those of the `tokenizers` library, put together here from a validated description:
//! that library panics on some malformed `tokenizer.json`, so it never sees one.
//!
//! Departures, each on purpose: special tokens that a tokenizer adds by itself are kept here as plain ids
//! ([`Special`]) in place of the library's post-processor; truncation and padding of `tokenizer.json` are ignored, as
//! `transformers` does unless asked; BPE dropout is refused, since scores must repeat.

mod core;
mod gguf;
mod json;
mod parts;
mod problem;
mod sentencepiece;
mod template;

pub use self::core::{Encoding, Special, Tokenizer};
pub use problem::TokenizerProblem;
pub use template::{ChatTemplate, GenerationPrompt, Message};
pub(crate) use template::{json_value, to_json};
