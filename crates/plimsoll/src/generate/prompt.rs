//! Prompts, options and events of a generation.

use crate::error::{Error, Result};
use crate::result::{Generated, Sampling};

/// Default batch size: large enough that the weights are read seldom, small enough that the last answers do not run
/// alone for long.
pub const BATCH: usize = 16;

/// Options of a generation.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateOptions {
    /// How the next token is picked.
    pub sampling: Sampling,
    /// Maximum number of tokens of an answer.
    pub max_tokens: usize,
    /// Texts that end an answer and are not part of it. Empty texts are refused.
    pub stop: Vec<String>,
    /// Maximum number of sequences in a batch; less if memory is short.
    pub batch: usize,
}

/// A prompt to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// The prompt's tokens, at least one.
    pub tokens: Vec<u32>,
    /// Index of the variant that answers.
    pub variant: usize,
    /// The prompt's number, which selects its random stream; the stream is the same for all variants.
    pub number: u64,
}

/// An event of a generation, reported after each step.
#[derive(Clone, Copy, Debug)]
pub enum GenerationEvent<'a> {
    /// New text of an answer, with the index of its prompt.
    Text(usize, &'a str),
    /// A finished answer, with the index of its prompt.
    Finished(usize, &'a Generated),
    /// Number of tokens that were picked in one step.
    Tokens(usize),
}

/// Checks options and prompts for a model with a number of `variants`, a `context` length and a `vocabulary` size.
pub(crate) fn check(
    prompts: &[Prompt],
    variants: usize,
    options: &GenerateOptions,
    context: usize,
    vocabulary: usize,
) -> Result<()> {
    options.sampling.check()?;
    if options.max_tokens == 0 || options.batch == 0 {
        return Err(Error::Usage("0 tokens of an answer, or a batch of 0: expected at least 1".into()));
    }
    if options.stop.iter().any(String::is_empty) {
        return Err(Error::Usage("an empty stop text: expected at least one character".into()));
    }
    for Prompt { tokens, variant, number } in prompts {
        if tokens.is_empty() || tokens.len() >= context {
            let found = tokens.len();
            return Err(Error::Usage(format!(
                "prompt {number} has {found} tokens: expected at least 1, and fewer than the context length, {context}"
            )));
        }
        if tokens.iter().any(|&token| token as usize >= vocabulary) {
            return Err(Error::Usage(format!(
                "prompt {number} has a token outside the model's vocabulary of {vocabulary}: use the tokenizer of this \
                 model"
            )));
        }
        if *variant >= variants {
            return Err(Error::Usage(format!("prompt {number} has variant {variant}: expected less than {variants}")));
        }
    }
    Ok(())
}
