//! Text from prompts, under any variants of an adapter.
//!
//! Batching is continuous: up to so many sequences grow side by side, each a token a step, whatever their variants; where
//! one ends, the next prompt takes its place, and its tokens go through the weights together with the others' next ones.
//! Leading tokens that all prompts of a variant share are computed once. A text depends on its prompt, its variant and
//! the seed alone, not on the batch.

mod sampling;
mod text;

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::engine::{Decoding, Embedded, Engine as _, Prefix, Sequence, Turn};
use crate::error::{Error, Result};
use crate::gates::Variant;
use crate::tokenizer::{Tokenizer, TokenizerProblem};
use sampling::Draws;
pub use sampling::{Sampling, most_probable};
use text::{Stops, TextStream};

/// Fewer shared leading tokens than this are not worth a pass of their own.
const SHORTEST_PREFIX: usize = 8;

/// Prompt tokens that join a step at most, beside the first prompt: so that sequences under way do not wait for long.
const PROMPT_TOKENS: usize = 512;

/// Bytes of keys and values where no bound is given.
const MEMORY: u64 = 1 << 30;

/// Tokens that a chat has room for at most: the tables for more would be large, and are seldom needed.
const CHAT_TOKENS: usize = 1 << 15;

/// Sequences side by side where the caller has no opinion: enough for the weights to be read seldom, few enough for the
/// last ones not to run alone for long.
pub const BATCH: usize = 16;

/// How to generate.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
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
    /// The prompt's number: it stands for its luck, and all variants have the same.
    pub number: u64,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generated {
    /// The text, without special tokens, up to the text that ended it.
    pub text: String,
    /// The tokens, without an end token; those of a stop text are among them.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finish {
    /// With a token or a text that ends it.
    Stop,
    /// It has as many tokens as it may have.
    Length,
}

/// What is told while it works.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// More of the text of one prompt, by its index.
    Text(usize, &'a str),
    /// The whole of it.
    Finished(usize, &'a Generated),
    /// Tokens that were picked for answers in one step.
    Tokens(usize),
}

/// Answers every prompt, in the order of the prompts.
///
/// `observe` is called after each step; when it breaks, nothing more is generated.
///
/// # Errors
/// Options or a variant that make no sense, a prompt that leaves no room for an answer in the model's context, logits
/// that are not numbers, or [`Error::Interrupted`] where `observe` broke.
pub fn generate(
    engine: &Embedded,
    tokenizer: &Tokenizer,
    variants: &[Variant],
    prompts: &[Prompt],
    options: &Options,
    observe: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> Result<Vec<Generated>> {
    let context = engine.model().config().context;
    check(prompts, variants.len(), options, context, engine.model().config().vocabulary)?;
    let longest = prompts.iter().map(|prompt| prompt.tokens.len()).max().unwrap_or(0);
    let positions = longest.saturating_add(options.max_tokens).min(context);
    let mut decoding = engine.decoding(positions);
    let prefixes = prefixes(&mut decoding, variants, prompts, observe)?;

    let bytes = engine.model().key_value_bytes(positions) as u64 * engine.layers() as u64;
    let room = engine.memory().unwrap_or(MEMORY) / bytes.max(1);
    let batch = options.batch.min(usize::try_from(room).unwrap_or(usize::MAX)).max(1);
    let mut waiting: VecDeque<usize> = (0..prompts.len()).collect();
    let mut growing: Vec<Growing<'_>> = Vec::new();
    let mut answers: Vec<Option<Generated>> = prompts.iter().map(|_| None).collect();
    loop {
        let mut joining = 0;
        while growing.len() < batch {
            let Some(&index) = waiting.front() else { break };
            let prompt = &prompts[index];
            let shared = prefixes[prompt.variant].as_ref().map_or(0, |(_, length)| *length);
            if joining > 0 && joining + prompt.tokens.len() - shared > PROMPT_TOKENS {
                break;
            }
            waiting.pop_front();
            let (sequence, from) = match &prefixes[prompt.variant] {
                Some((prefix, length)) => (decoding.follow(prefix), *length),
                None => (decoding.begin(&variants[prompt.variant])?, 0),
            };
            joining += prompt.tokens.len() - from;
            let room = options.max_tokens.min(context - prompt.tokens.len());
            growing.push(Growing::new(index, prompt, sequence, from, room, tokenizer, options));
        }
        if growing.is_empty() {
            break;
        }
        // Those of one variant side by side: their low-rank products are then one.
        growing.sort_by_key(|growing| prompts[growing.index].variant);
        step(&mut decoding, &mut growing, tokenizer, &options.sampling);

        let picked = growing.len();
        let mut still = Vec::with_capacity(growing.len());
        let mut flow = ControlFlow::Continue(());
        // Who has said stop is told nothing more.
        let mut tell = |event: Event<'_>| {
            if flow.is_continue() {
                flow = observe(event);
            }
        };
        tell(Event::Tokens(picked));
        for mut one in growing {
            let step = one.step.take().unwrap_or(Ok(None))?;
            if let Some(piece) = one.piece(step.is_some()) {
                tell(Event::Text(one.index, &piece));
            }
            match step {
                None => still.push(one),
                Some(finish) => {
                    let (index, answer, sequence) = one.finish(finish);
                    decoding.end(sequence);
                    tell(Event::Finished(index, &answer));
                    answers[index] = Some(answer);
                }
            }
        }
        growing = still;
        if flow.is_break() {
            return Err(Error::Interrupted);
        }
    }
    Ok(answers.into_iter().flatten().collect())
}

/// Feeds all their next tokens, and lets each pick the one after.
fn step(decoding: &mut Decoding<'_>, growing: &mut [Growing<'_>], tokenizer: &Tokenizer, sampling: &Sampling) {
    let turns =
        growing.iter_mut().map(|Growing { sequence, tokens, fed, .. }| Turn { sequence, tokens: &tokens[*fed..] });
    let mut turns: Vec<Turn<'_>> = turns.collect();
    let mut logits = decoding.feed(&mut turns);
    let vocabulary = logits.len() / growing.len().max(1);
    decoding.engine().pool().install(|| {
        let rows = logits.par_chunks_exact_mut(vocabulary.max(1));
        growing.par_iter_mut().zip(rows).for_each(|(growing, logits)| {
            growing.step = Some(growing.take(logits, tokenizer, sampling));
        });
    });
}

fn check(prompts: &[Prompt], variants: usize, options: &Options, room: usize, vocabulary: usize) -> Result<()> {
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

/// Leading tokens of a variant's prompts, and how many they are.
type Shared = (Arc<Prefix>, usize);

/// For each variant the leading tokens that all its prompts share, if they are several and the tokens are worth it, and
/// how many these are. Each prompt keeps at least one token of its own.
fn prefixes(
    decoding: &mut Decoding<'_>,
    variants: &[Variant],
    prompts: &[Prompt],
    observe: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> Result<Vec<Option<Shared>>> {
    let mut shared = Vec::new();
    for (index, variant) in variants.iter().enumerate() {
        let mut of_variant = prompts.iter().filter(|prompt| prompt.variant == index).map(|prompt| &prompt.tokens[..]);
        let prefix = of_variant.next().and_then(|first| {
            let common = |tokens: &[u32]| {
                let same = first.iter().zip(tokens).take_while(|(a, b)| a == b).count();
                same.min(tokens.len() - 1).min(first.len() - 1)
            };
            of_variant.map(common).min().map(|length| &first[..length])
        });
        let Some(tokens) = prefix.filter(|prefix| prefix.len() >= SHORTEST_PREFIX) else {
            shared.push(None);
            continue;
        };
        let mut sequence = decoding.begin(variant)?;
        decoding.feed(&mut [Turn { sequence: &mut sequence, tokens }]);
        if observe(Event::Tokens(0)).is_break() {
            return Err(Error::Interrupted);
        }
        shared.push(Some((sequence.into_prefix(), tokens.len())));
    }
    Ok(shared)
}

/// A chat under one variant, whose keys and values are kept from answer to answer.
#[derive(Debug)]
pub struct Chat<'a> {
    decoding: Decoding<'a>,
    tokenizer: &'a Tokenizer,
    variant: Variant,
    positions: usize,
    /// What the sequence has.
    kept: Option<(Sequence, Vec<u32>)>,
}

impl<'a> Chat<'a> {
    /// A chat that has not begun. It has room for the model's context, but for at most 32,768 tokens.
    pub fn new(engine: &'a Embedded, tokenizer: &'a Tokenizer, variant: Variant) -> Self {
        let positions = engine.model().config().context.min(CHAT_TOKENS);
        Self { decoding: engine.decoding(positions), tokenizer, variant, positions, kept: None }
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
        options: &Options,
        observe: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Generated> {
        let vocabulary = self.decoding.engine().model().config().vocabulary;
        let one_variant = Prompt { variant: 0, ..prompt.clone() };
        check(&[one_variant], 1, options, self.positions, vocabulary)?;
        // At least one token has to be fed for there to be logits.
        let kept = self
            .kept
            .take()
            .filter(|(_, tokens)| tokens.len() < prompt.tokens.len() && prompt.tokens.starts_with(tokens));
        let (sequence, from) = match kept {
            Some((sequence, tokens)) => (sequence, tokens.len()),
            None => (self.decoding.begin(&self.variant)?, 0),
        };
        let room = options.max_tokens.min(self.positions - prompt.tokens.len());
        let mut growing = [Growing::new(0, prompt, sequence, from, room, self.tokenizer, options)];
        let finish = loop {
            step(&mut self.decoding, &mut growing, self.tokenizer, &options.sampling);
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

/// One answer on its way.
struct Growing<'a> {
    index: usize,
    sequence: Sequence,
    /// Prompt and answer.
    tokens: Vec<u32>,
    prompt: usize,
    /// Tokens that the sequence has.
    fed: usize,
    /// Tokens that the answer may have.
    room: usize,
    draws: Draws,
    stream: TextStream<'a>,
    stops: Stops<'a>,
    text: String,
    /// How much of the text is told.
    told: usize,
    /// What the last step came to.
    step: Option<Result<Option<Finish>>>,
}

impl<'a> Growing<'a> {
    fn new(
        index: usize,
        prompt: &Prompt,
        sequence: Sequence,
        fed: usize,
        room: usize,
        tokenizer: &'a Tokenizer,
        options: &'a Options,
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
    fn take(&mut self, logits: &mut [f32], tokenizer: &Tokenizer, sampling: &Sampling) -> Result<Option<Finish>> {
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
    fn piece(&mut self, is_finished: bool) -> Option<String> {
        let end = if is_finished { self.text.len() } else { self.stops.safe(&self.text) };
        let piece = self.text.get(self.told..end).filter(|piece| !piece.is_empty())?.to_owned();
        self.told = end;
        Some(piece)
    }

    fn finish(self, finish: Finish) -> (usize, Generated, Sequence) {
        let tokens = self.tokens[self.prompt..].to_vec();
        (self.index, Generated { text: self.text, tokens, finish }, self.sequence)
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the shape that `map_err` wants")]
fn refused(problem: TokenizerProblem) -> Error {
    Error::Engine(problem.to_string())
}
