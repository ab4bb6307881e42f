//! An answer while it is generated: its next token, its text, and when it ends.

use rayon::prelude::*;

use super::decoder::{Decoder, Step};
use super::prompt::{GenerateOptions, Prompt};
use super::sampling::Draws;
use super::text::{Stops, TextStream};
use crate::error::{Error, Result};
use crate::result::{Finish, Generated, Sampling};
use crate::tokenizer::{Tokenizer, TokenizerProblem};

/// An answer while it is generated.
pub(super) struct ActiveAnswer<'a, S> {
    pub(super) index: usize,
    pub(super) sequence: S,
    /// Prompt and answer.
    pub(super) tokens: Vec<u32>,
    pub(super) prompt: usize,
    /// Tokens that the sequence has.
    pub(super) fed: usize,
    /// Tokens that the answer may have.
    pub(super) room: usize,
    pub(super) draws: Draws,
    pub(super) stream: TextStream<'a>,
    pub(super) stops: Stops<'a>,
    pub(super) text: String,
    /// How much of the text is told.
    pub(super) told: usize,
    /// What the last step came to.
    pub(super) step: Option<Result<Option<Finish>>>,
}

impl<'a, S> ActiveAnswer<'a, S> {
    pub(super) fn new(
        index: usize,
        prompt: &Prompt,
        sequence: S,
        fed: usize,
        room: usize,
        tokenizer: &'a Tokenizer,
        options: &'a GenerateOptions,
    ) -> Self {
        Self {
            index,
            sequence,
            tokens: prompt.tokens.clone(),
            prompt: prompt.tokens.len(),
            fed,
            room,
            draws: Draws::new(options.sampling.seed, prompt.number),
            stream: TextStream::new(tokenizer),
            stops: Stops::new(&options.stop),
            text: String::new(),
            told: 0,
            step: None,
        }
    }

    /// Picks the next token; says whether that ends the answer.
    fn pick(&mut self, logits: &mut [f32], tokenizer: &Tokenizer, sampling: &Sampling) -> Result<Option<Finish>> {
        if let Some(logit) = logits.iter().find(|logit| logit.is_nan() || **logit == f32::INFINITY) {
            return Err(Error::Engine(format!(
                "a logit is {logit}: hidden states overflow; check the weights of the model and of the adapter, and its scale"
            )));
        }
        // Sums of squares that overflow leave nothing of a state, and then all logits are equal.
        if logits.len() > 1 && logits.iter().all(|logit| *logit == logits[0]) {
            return Err(Error::Engine(
                "all logits are equal: hidden states overflow; check the weights of the model and of the adapter, and its \
                 scale"
                    .to_owned(),
            ));
        }
        self.fed = self.tokens.len();
        let candidates = sampling.candidates(logits, &self.tokens);
        let token = self.draws.pick(&candidates);
        if tokenizer.ends().contains(&token) {
            return self.settle(Finish::Stop);
        }
        self.tokens.push(token);
        let searched = self.text.len();
        self.text.push_str(&self.stream.push(token).map_err(refused)?);
        if self.stops.find(&self.text, searched).is_some() {
            return self.settle(Finish::Stop);
        }
        if self.tokens.len() - self.prompt >= self.room {
            return self.settle(Finish::Length);
        }
        Ok(None)
    }

    /// Takes the text of all tokens at once, in place of that which was told piece by piece.
    fn settle(&mut self, finish: Finish) -> Result<Option<Finish>> {
        self.text = self.stream.whole().map_err(refused)?;
        if let Some(at) = self.stops.find(&self.text, 0) {
            self.text.truncate(at);
        }
        Ok(Some(finish))
    }

    /// The text that can be told by now and is not told yet.
    pub(super) fn piece(&mut self, is_finished: bool) -> Option<String> {
        let end = if is_finished { self.text.len() } else { self.stops.safe(&self.text) };
        let piece = self.text.get(self.told..end).filter(|piece| !piece.is_empty())?.to_owned();
        self.told = end;
        Some(piece)
    }

    pub(super) fn finish(self, finish: Finish) -> (usize, Generated, S) {
        let tokens = self.tokens[self.prompt..].to_vec();
        (self.index, Generated { text: self.text, tokens, finish }, self.sequence)
    }
}

/// Gives all sequences their next tokens, and picks for each the one after.
pub(super) fn step<D: Decoder>(
    decoder: &mut D,
    growing: &mut [ActiveAnswer<'_, D::Sequence>],
    tokenizer: &Tokenizer,
    sampling: &Sampling,
) {
    let steps =
        growing.iter_mut().map(|ActiveAnswer { sequence, tokens, fed, .. }| Step { sequence, tokens: &tokens[*fed..] });
    let mut steps: Vec<Step<'_, D::Sequence>> = steps.collect();
    let mut logits = decoder.forward(&mut steps);
    let vocabulary = logits.len() / growing.len().max(1);
    decoder.install(|| {
        let rows = logits.par_chunks_exact_mut(vocabulary.max(1));
        growing.par_iter_mut().zip(rows).for_each(|(growing, logits)| {
            growing.step = Some(growing.pick(logits, tokenizer, sampling));
        });
    });
}

#[allow(clippy::needless_pass_by_value, reason = "the shape that `map_err` wants")]
fn refused(problem: TokenizerProblem) -> Error {
    Error::Engine(problem.to_string())
}
