//! Generation of answers: the trait that every engine with a decoder has.

use std::ops::ControlFlow;

use crate::error::Result;
use crate::generate::{GenerateOptions, GenerationEvent, Prompt};
use crate::lora::Variant;
use crate::result::Generated;
use crate::tokenizer::Tokenizer;

/// Answers prompts under variants of an adapter, many side by side.
pub trait Generator {
    /// Longest sequence of the model, prompt and answer together, in tokens.
    fn context(&self) -> usize;

    /// Work of one token, in the unit of [`Scorer::work`](super::Scorer::work).
    fn token_work(&self) -> u64;

    /// Answers every prompt, in the order of the prompts.
    ///
    /// `observe` is called after each step; when it breaks, nothing more is generated.
    ///
    /// # Errors
    /// Options or a variant that make no sense, a prompt that leaves no room for an answer in the model's context, logits
    /// that are not numbers, or [`Error::Interrupted`](crate::Error::Interrupted) where `observe` broke.
    fn generate(
        &self,
        tokenizer: &Tokenizer,
        variants: &[Variant],
        prompts: &[Prompt],
        options: &GenerateOptions,
        observe: &mut dyn FnMut(GenerationEvent<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<Generated>>;
}
