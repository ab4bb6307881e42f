//! The state of an answer during generation: its tokens, its text, and when it ends.

use rayon::prelude::*;

use super::decoder::{Decoder, Step};
use super::prompt::{GenerateOptions, Prompt};
use super::sampling::RandomStream;
use super::text::{Stops, TextStream};
use crate::error::{Error, Result};
use crate::result::{Finish, Generated, Sampling};
use crate::tokenizer::{Tokenizer, TokenizerProblem};

/// The cause of bad logits, and what to do.
const OVERFLOW: &str = "hidden states overflow; check the weights of the model and of the adapter, and its scale";

/// An answer that is being generated.
pub(super) struct ActiveAnswer<'a, S> {
    /// Index of the prompt.
    pub(super) index: usize,
    pub(super) sequence: S,
    /// Tokens of prompt and answer.
    pub(super) tokens: Vec<u32>,
    /// Number of tokens of the prompt.
    pub(super) prompt: usize,
    /// Number of tokens that the sequence has processed.
    pub(super) cached: usize,
    /// Maximum number of tokens of the answer.
    pub(super) max_tokens: usize,
    pub(super) random: RandomStream,
    pub(super) stream: TextStream<'a>,
    pub(super) stops: Stops<'a>,
    pub(super) text: String,
    /// Number of bytes of the text that are emitted.
    pub(super) emitted: usize,
    /// The result of the last step: why the answer ended, if it did.
    pub(super) step: Option<Result<Option<Finish>>>,
}

impl<'a, S> ActiveAnswer<'a, S> {
    pub(super) fn new(
        index: usize,
        prompt: &Prompt,
        sequence: S,
        cached: usize,
        max_tokens: usize,
        tokenizer: &'a Tokenizer,
        options: &'a GenerateOptions,
    ) -> Self {
        Self {
            index,
            sequence,
            tokens: prompt.tokens.clone(),
            prompt: prompt.tokens.len(),
            cached,
            max_tokens,
            random: RandomStream::new(options.sampling.seed, prompt.number),
            stream: TextStream::new(tokenizer),
            stops: Stops::new(&options.stop),
            text: String::new(),
            emitted: 0,
            step: None,
        }
    }

    /// Picks the next token. Returns why the answer ends, if it does.
    fn pick(&mut self, logits: &mut [f32], tokenizer: &Tokenizer, sampling: &Sampling) -> Result<Option<Finish>> {
        if let Some(logit) = logits.iter().find(|logit| logit.is_nan() || **logit == f32::INFINITY) {
            return Err(Error::Engine(format!("a logit is {logit}: {OVERFLOW}")));
        }
        // If the sum of squares in a norm overflows, the normed state is 0, and all logits are equal.
        if logits.len() > 1 && logits.iter().all(|logit| *logit == logits[0]) {
            return Err(Error::Engine(format!("all logits are equal: {OVERFLOW}")));
        }
        self.cached = self.tokens.len();
        let candidates = sampling.candidates(logits, &self.tokens);
        let token = self.random.pick(&candidates);
        if tokenizer.end_tokens().contains(&token) {
            return self.finish_text(Finish::Stop);
        }
        self.tokens.push(token);
        let searched = self.text.len();
        self.text.push_str(&self.stream.push(token).map_err(refused)?);
        if self.stops.find(&self.text, searched).is_some() {
            return self.finish_text(Finish::Stop);
        }
        if self.tokens.len() - self.prompt >= self.max_tokens {
            return self.finish_text(Finish::Length);
        }
        Ok(None)
    }

    /// Ends the answer: its text is that of all tokens, up to a stop text.
    fn finish_text(&mut self, finish: Finish) -> Result<Option<Finish>> {
        self.text = self.stream.whole().map_err(refused)?;
        if let Some(at) = self.stops.find(&self.text, 0) {
            self.text.truncate(at);
        }
        Ok(Some(finish))
    }

    /// The text that is final and not emitted yet. Marks it as emitted.
    pub(super) fn piece(&mut self, is_finished: bool) -> Option<String> {
        let end = if is_finished { self.text.len() } else { self.stops.safe(&self.text) };
        let piece = self.text.get(self.emitted..end).filter(|piece| !piece.is_empty())?.to_owned();
        self.emitted = end;
        Some(piece)
    }

    /// The index of the prompt, the finished answer, and the sequence.
    pub(super) fn finish(self, finish: Finish) -> (usize, Generated, S) {
        let tokens = self.tokens[self.prompt..].to_vec();
        (self.index, Generated { text: self.text, tokens, finish }, self.sequence)
    }
}

/// Runs one decoding step: processes the new tokens of all sequences, and picks the next token of each.
pub(super) fn step<D: Decoder>(
    decoder: &mut D,
    active: &mut [ActiveAnswer<'_, D::Sequence>],
    tokenizer: &Tokenizer,
    sampling: &Sampling,
) {
    let steps = active
        .iter_mut()
        .map(|ActiveAnswer { sequence, tokens, cached, .. }| Step { sequence, tokens: &tokens[*cached..] });
    let mut steps: Vec<Step<'_, D::Sequence>> = steps.collect();
    let mut logits = decoder.forward(&mut steps);
    let vocabulary = logits.len() / active.len().max(1);
    decoder.install(|| {
        let rows = logits.par_chunks_exact_mut(vocabulary.max(1));
        active.par_iter_mut().zip(rows).for_each(|(active, logits)| {
            active.step = Some(active.pick(logits, tokenizer, sampling));
        });
    });
}

#[allow(clippy::needless_pass_by_value, reason = "`map_err` passes it by value")]
fn refused(problem: TokenizerProblem) -> Error {
    Error::Engine(problem.to_string())
}
