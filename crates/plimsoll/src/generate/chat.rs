//! A chat that keeps the keys and values of earlier turns.

use std::ops::ControlFlow;

use super::answer::{ActiveAnswer, step};
use super::decoder::Decoder;
use super::prompt::{GenerateOptions, Prompt, check};
use crate::error::{Error, Result};
use crate::lora::Variant;
use crate::result::{Finish, Generated};
use crate::tokenizer::Tokenizer;

/// A chat under one variant. Keys and values are kept between answers.
#[derive(Debug)]
pub struct Chat<'a, D: Decoder> {
    decoder: D,
    tokenizer: &'a Tokenizer,
    variant: Variant,
    positions: usize,
    vocabulary: usize,
    /// The sequence so far, with its tokens.
    kept: Option<(D::Sequence, Vec<u32>)>,
}

impl<'a, D: Decoder> Chat<'a, D> {
    /// A new chat of at most `positions` tokens, with a model of `vocabulary` tokens.
    pub(crate) fn new(
        decoder: D,
        tokenizer: &'a Tokenizer,
        variant: Variant,
        positions: usize,
        vocabulary: usize,
    ) -> Self {
        Self { decoder, tokenizer, variant, positions, vocabulary, kept: None }
    }

    /// Generates the answer to the whole chat so far, given as tokens. Tokens of an earlier call are not computed
    /// again.
    ///
    /// `observe` gets the new text after each token, which may be empty. If it breaks, generation stops.
    ///
    /// # Errors
    /// As [`Generator::generate`](crate::engine::Generator::generate).
    pub fn answer(
        &mut self,
        prompt: &Prompt,
        options: &GenerateOptions,
        observe: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Generated> {
        let one_variant = Prompt { variant: 0, ..prompt.clone() };
        check(&[one_variant], 1, options, self.positions, self.vocabulary)?;
        // At least one token must be processed to get logits.
        let kept = self
            .kept
            .take()
            .filter(|(_, tokens)| tokens.len() < prompt.tokens.len() && prompt.tokens.starts_with(tokens));
        let (sequence, from) = match kept {
            Some((sequence, tokens)) => (sequence, tokens.len()),
            None => (self.decoder.begin(&self.variant)?, 0),
        };
        let max_tokens = options.max_tokens.min(self.positions - prompt.tokens.len());
        let mut active = [ActiveAnswer::new(0, prompt, sequence, from, max_tokens, self.tokenizer, options)];
        let finish = loop {
            step(&mut self.decoder, &mut active, self.tokenizer, &options.sampling);
            let [one] = &mut active;
            let finish = one.step.take().unwrap_or(Ok(None))?;
            let flow = observe(&one.piece(finish.is_some()).unwrap_or_default());
            match (finish, flow) {
                (Some(finish), _) => break Ok(finish),
                (None, ControlFlow::Break(())) => break Err(Error::Interrupted),
                (None, ControlFlow::Continue(())) => {}
            }
        };
        let [one] = active;
        let kept = one.tokens[..one.cached].to_vec();
        let (_, answer, sequence) = one.finish(*finish.as_ref().unwrap_or(&Finish::Stop));
        self.kept = Some((sequence, kept));
        finish.map(|_| answer)
    }
}
