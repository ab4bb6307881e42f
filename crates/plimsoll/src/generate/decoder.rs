//! The trait that generation needs from an engine: batched decoding.

use crate::error::Result;
use crate::lora::Variant;

/// Decodes sequences in batches, and keeps their keys and values.
///
/// All sequences of one call of [`forward`](Self::forward) go through the weights together, whatever their variants.
/// The result of a sequence does not depend on the others.
pub trait Decoder {
    /// A sequence under one variant.
    type Sequence: Send;
    /// Leading tokens that several sequences share.
    type Prefix;

    /// Begins an empty sequence.
    ///
    /// # Errors
    /// A variant of another model.
    fn begin(&mut self, variant: &Variant) -> Result<Self::Sequence>;

    /// Turns a sequence into a prefix of other sequences.
    fn share(&self, sequence: Self::Sequence) -> Self::Prefix;

    /// Begins a sequence with the tokens and the variant of a prefix.
    fn fork(&mut self, prefix: &Self::Prefix) -> Self::Sequence;

    /// Ends a sequence, so that its memory can be used again.
    fn end(&mut self, sequence: Self::Sequence);

    /// Adds tokens to sequences. Returns the logits after the last token of each: `(steps, vocabulary)`.
    ///
    /// # Panics
    /// If a step has no tokens, a token is not in the vocabulary, or a sequence becomes longer than the decoder allows.
    fn forward(&mut self, steps: &mut [Step<'_, Self::Sequence>]) -> Vec<f32>;

    /// Runs other work on the decoder's threads.
    fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R;
}

/// A decoding step of one sequence: the sequence and its next tokens.
#[derive(Debug)]
pub struct Step<'a, S> {
    /// The sequence.
    pub sequence: &'a mut S,
    /// The next tokens, at least one.
    pub tokens: &'a [u32],
}
