//! Samples: tokens, and which of them are the answer.
//!
//! A sample is one line of a JSONL file, in one of five shapes: `messages`, `prompt` and `completion`, `instruction`,
//! `conversations`, or `text`. Where there is a chat template every shape but `text` is rendered with it, and the answer
//! is what rendering with the assistant's turn adds to the prompt rendered with its generation prompt, up to and with the
//! token that ends generation. The whole text is tokenised at once, and the answer's tokens are found in it (`renderer`).
//!
//! Without a template, prompt and completion are joined as they stand: nothing is added but the BOS that the tokenizer
//! itself adds. A rendered template gets none, since templates write their own.
//!
//! A sample that is longer than allowed is left out, or its answer is cut ([`LongSamples`]); both are counted.

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
