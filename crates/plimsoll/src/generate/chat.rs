//! A chat whose earlier turns are not computed again.

use std::ops::ControlFlow;

use super::answer::{ActiveAnswer, step};
use super::decoder::Decoder;
use super::prompt::{GenerateOptions, Prompt, check};
use crate::error::{Error, Result};
use crate::lora::Variant;
use crate::result::{Finish, Generated};
use crate::tokenizer::Tokenizer;

/// A chat under one variant, whose keys and values are kept from answer to answer.
#[derive(Debug)]
pub struct Chat<'a, D: Decoder> {
    decoder: D,
    tokenizer: &'a Tokenizer,
    variant: Variant,
    positions: usize,
    vocabulary: usize,
    /// What the sequence has.
    kept: Option<(D::Sequence, Vec<u32>)>,
}

impl<'a, D: Decoder> Chat<'a, D> {
    /// A chat that has not begun, with room for so many `positions`, in a model with so many tokens.
    pub(crate) fn new(
        decoder: D,
        tokenizer: &'a Tokenizer,
        variant: Variant,
        positions: usize,
        vocabulary: usize,
    ) -> Self {
        Self { decoder, tokenizer, variant, positions, vocabulary, kept: None }
    }

    /// Answers the chat so far: all its tokens. What an earlier call has seen of them is not computed again.
    ///
    /// `observe` is given the text as it comes, after each token, even where that adds nothing to the text; when it breaks,
    /// so does the answer.
    ///
    /// # Errors
    /// As [`generate`].
    pub fn answer(
        &mut self,
        prompt: &Prompt,
        options: &GenerateOptions,
        observe: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Generated> {
        let one_variant = Prompt { variant: 0, ..prompt.clone() };
        check(&[one_variant], 1, options, self.positions, self.vocabulary)?;
        // At least one token has to be fed for there to be logits.
        let kept = self
            .kept
            .take()
            .filter(|(_, tokens)| tokens.len() < prompt.tokens.len() && prompt.tokens.starts_with(tokens));
        let (sequence, from) = match kept {
            Some((sequence, tokens)) => (sequence, tokens.len()),
            None => (self.decoder.begin(&self.variant)?, 0),
        };
        let room = options.max_tokens.min(self.positions - prompt.tokens.len());
        let mut growing = [ActiveAnswer::new(0, prompt, sequence, from, room, self.tokenizer, options)];
        let finish = loop {
            step(&mut self.decoder, &mut growing, self.tokenizer, &options.sampling);
            let [one] = &mut growing;
            let finish = one.step.take().unwrap_or(Ok(None))?;
            let flow = observe(&one.piece(finish.is_some()).unwrap_or_default());
            match (finish, flow) {
                (Some(finish), _) => break Ok(finish),
                (None, ControlFlow::Break(())) => break Err(Error::Interrupted),
                (None, ControlFlow::Continue(())) => {}
            }
        };
        let [one] = growing;
        let kept = one.tokens[..one.fed].to_vec();
        let (_, answer, sequence) = one.finish(*finish.as_ref().unwrap_or(&Finish::Stop));
        self.kept = Some((sequence, kept));
        finish.map(|_| answer)
    }
}
