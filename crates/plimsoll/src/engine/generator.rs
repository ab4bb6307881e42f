//! The trait of engines that generate answers.

use std::ops::ControlFlow;

use crate::error::Result;
use crate::generate::{GenerateOptions, GenerationEvent, Prompt};
use crate::lora::Variant;
use crate::result::Generated;
use crate::tokenizer::Tokenizer;

/// Generates answers to prompts under variants of an adapter, in batches.
pub trait Generator {
    /// The model's context length: prompt and answer together, in tokens.
    fn context(&self) -> usize;

    /// Work of one token, in the unit of [`Scorer::work`](super::Scorer::work).
    fn token_work(&self) -> u64;

    /// Generates the answers to all prompts, in the order of the prompts.
    ///
    /// `observe` is called after each step. If it breaks, generation stops.
    ///
    /// # Errors
    /// Options out of range, a variant of another model, a prompt as long as the context or longer, logits that are not
    /// finite, or [`Error::Interrupted`](crate::Error::Interrupted) if `observe` breaks.
    fn generate(
        &self,
        tokenizer: &Tokenizer,
        variants: &[Variant],
        prompts: &[Prompt],
        options: &GenerateOptions,
        observe: &mut dyn FnMut(GenerationEvent<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<Generated>>;
}
