//! Samples: JSONL lines as token ids, with the positions of the answer's tokens.
//!
//! A sample is one line of a JSONL file, in one of five shapes: `messages`, `prompt` and `completion`, `instruction`,
//! `conversations`, or `text`. With a chat template, every shape but `text` is rendered with it. The answer is the text
//! that the assistant's message adds after the generation prompt, up to and including the stop token. The whole text is
//! tokenised at once, and the answer's tokens are found in it (`renderer`).
//!
//! Without a template, prompt and completion are joined unchanged, with the BOS that the tokenizer adds. A rendered
//! template gets no BOS, since templates write their own.
//!
//! A sample above the maximum length is left out, or its answer is cut ([`LongSamples`]). Both are counted.
//!
//! ```
//! use plimsoll::data::{DataOptions, Dataset};
//! use plimsoll::tokenizer::Tokenizer;
//!
//! let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/golden/tiny-gqa-tied");
//! let tokenizer = Tokenizer::from_folder(folder.as_ref())?;
//! let data = Dataset::from_pairs([("Name a sail.", "The jib.")])?;
//! let samples = data.tokenize(&tokenizer, &DataOptions::default())?.samples;
//! let answer = &samples[0].tokens[samples[0].answer[0]..];
//! assert_eq!(tokenizer.decode(answer)?, "The jib.<|im_end|>");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod ending;
mod jsonl;
mod problem;
mod renderer;
mod sample;
mod shape;
mod split;

pub use ending::Ending;
pub use jsonl::{Dataset, load, questions};
pub use problem::DataProblem;
pub use renderer::Renderer;
pub use sample::{DataOptions, LongSamples, Question, Sample, TemplateChoice, TemplateUse, TokenizedDataset, Turns};
pub use split::{Split, race_order, split};
pub(crate) use split::{draw_order, fewest};
