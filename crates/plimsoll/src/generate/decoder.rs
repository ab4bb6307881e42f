//! Decoding of sequences side by side: what generation needs of an engine.

use crate::error::Result;
use crate::lora::Variant;

/// A decoder that keeps what its sequences need of the tokens before.
///
/// All sequences of one call of [`forward`](Self::forward) go through the weights together, whatever their variants. What
/// a sequence gets does not depend on the others.
pub trait Decoder {
    /// A sequence under one variant.
    type Sequence: Send;
    /// Leading tokens that several sequences share.
    type Prefix;

    /// Begins a sequence.
    ///
    /// # Errors
    /// A variant of another model.
    fn begin(&mut self, variant: &Variant) -> Result<Self::Sequence>;

    /// Makes a sequence a prefix of others.
    fn share(&self, sequence: Self::Sequence) -> Self::Prefix;

    /// Begins a sequence behind a prefix, under the prefix's variant.
    fn fork(&mut self, prefix: &Self::Prefix) -> Self::Sequence;

    /// Ends a sequence.
    fn end(&mut self, sequence: Self::Sequence);

    /// Adds tokens to some sequences, and gives for each the logits of what follows its last token:
    /// `(steps, vocabulary)`.
    ///
    /// # Panics
    /// If a step has no tokens, one of them is not in the vocabulary, or a sequence becomes longer than the decoder allows.
    fn forward(&mut self, steps: &mut [Step<'_, Self::Sequence>]) -> Vec<f32>;

    /// Runs work of the caller's own on the decoder's threads.
    fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R;
}

/// A sequence and its next tokens.
#[derive(Debug)]
pub struct Step<'a, S> {
    /// The sequence.
    pub sequence: &'a mut S,
    /// At least one token.
    pub tokens: &'a [u32],
}
