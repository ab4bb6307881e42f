//! Prompts, options and reports of a generation.

use crate::error::{Error, Result};
use crate::result::{Generated, Sampling};

/// Sequences side by side where the caller has no opinion: enough for the weights to be read seldom, few enough for the
/// last ones not to run alone for long.
pub const BATCH: usize = 16;

/// How answers are generated.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateOptions {
    /// How the next token is picked.
    pub sampling: Sampling,
    /// Tokens of an answer at most.
    pub max_tokens: usize,
    /// Texts that end an answer, and are not part of it; none of them empty.
    pub stop: Vec<String>,
    /// Sequences side by side at most; fewer where memory does not hold so many.
    pub batch: usize,
}

/// One answer that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// At least one token.
    pub tokens: Vec<u32>,
    /// Index of the variant that answers.
    pub variant: usize,
    /// The prompt's number: its random stream, which is the same for all variants.
    pub number: u64,
}

/// A report of a generation, after each of its steps.
#[derive(Clone, Copy, Debug)]
pub enum GenerationEvent<'a> {
    /// More of the text of one prompt, by its index.
    Text(usize, &'a str),
    /// The whole of it.
    Finished(usize, &'a Generated),
    /// Tokens that were picked for answers in one step.
    Tokens(usize),
}

/// Whether options and prompts make sense for a model with so many `variants` and tokens, and `room` for so many.
pub(crate) fn check(
    prompts: &[Prompt],
    variants: usize,
    options: &GenerateOptions,
    room: usize,
    vocabulary: usize,
) -> Result<()> {
    options.sampling.check()?;
    if options.max_tokens == 0 || options.batch == 0 {
        return Err(Error::Usage("a generation of 0 tokens or in batches of 0: expected at least 1".into()));
    }
    if options.stop.iter().any(String::is_empty) {
        return Err(Error::Usage("an empty stop text would end every answer before it begins".into()));
    }
    for Prompt { tokens, variant, number } in prompts {
        if tokens.is_empty() || tokens.len() >= room {
            let found = tokens.len();
            return Err(Error::Usage(format!(
                "prompt {number} has {found} tokens: expected at least 1, and fewer than the {room} that there is room for"
            )));
        }
        if tokens.iter().any(|&token| token as usize >= vocabulary) {
            return Err(Error::Usage(format!(
                "prompt {number} has tokens outside of the model's vocabulary of {vocabulary}: the tokenizer belongs to \
                 another model"
            )));
        }
        if *variant >= variants {
            return Err(Error::Usage(format!("prompt {number} asks for variant {variant} of {variants}")));
        }
    }
    Ok(())
}
