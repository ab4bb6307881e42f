//! Tokenizers and chat templates: text to token ids and back, and chats to text.
//!
//! A [`Tokenizer`] is read from a Hugging Face folder (`tokenizer.json`, `tokenizer_config.json`) or from the metadata
//! of a GGUF file. Its components (normaliser, pre-tokeniser, byte-pair merges, decoder) are those of the `tokenizers`
//! library, built from a validated description, because the library panics on some malformed `tokenizer.json`.
//!
//! Departures: special tokens that a tokenizer adds are stored as plain ids ([`Special`]) in place of the library's
//! post-processor. Truncation and padding of `tokenizer.json` are ignored, as in `transformers` by default. BPE dropout
//! is refused, because scores must be reproducible.
//!
//! ```
//! use plimsoll::tokenizer::{GenerationPrompt, Message, Special, Tokenizer};
//!
//! let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/golden/tiny-gqa-tied");
//! let tokenizer = Tokenizer::from_folder(folder.as_ref())?;
//! let ids = tokenizer.encode("the keel", Special::Leave)?;
//! assert_eq!(tokenizer.decode(&ids)?, "the keel");
//!
//! let template = tokenizer.template()?.expect("the folder has a chat template");
//! let prompt = template.render(&[Message::new("user", "Hi")], GenerationPrompt::Add)?;
//! assert_eq!(prompt, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

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
