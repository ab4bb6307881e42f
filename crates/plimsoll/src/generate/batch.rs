//! Continuous batching: when one answer ends, the next prompt takes its place.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use super::answer::{ActiveAnswer, step};
use super::decoder::{Decoder, Step};
use super::prompt::{GenerateOptions, GenerationEvent, Prompt};
use crate::error::{Error, Result};
use crate::lora::Variant;
use crate::result::Generated;
use crate::tokenizer::Tokenizer;

/// Minimum number of shared leading tokens that are computed once, in a pass of their own.
const SHORTEST_PREFIX: usize = 8;

/// Maximum number of prompt tokens that join a step after the first prompt, so that running sequences do not wait long.
const PROMPT_TOKENS: usize = 512;

/// Answers checked prompts, in the order of the prompts: at most `batch` at a time, in sequences of at most `context`
/// tokens.
///
/// # Errors
/// A variant of another model, logits that are not finite, or [`Error::Interrupted`] if `observe` breaks.
pub(crate) fn answer_all<D: Decoder>(
    decoder: &mut D,
    tokenizer: &Tokenizer,
    variants: &[Variant],
    prompts: &[Prompt],
    options: &GenerateOptions,
    (batch, context): (usize, usize),
    observe: &mut dyn FnMut(GenerationEvent<'_>) -> ControlFlow<()>,
) -> Result<Vec<Generated>> {
    let prefixes = prefixes(decoder, variants, prompts, observe)?;
    let mut waiting: VecDeque<usize> = (0..prompts.len()).collect();
    let mut active: Vec<ActiveAnswer<'_, D::Sequence>> = Vec::new();
    let mut answers: Vec<Option<Generated>> = prompts.iter().map(|_| None).collect();
    loop {
        let mut joining = 0;
        while active.len() < batch {
            let Some(&index) = waiting.front() else { break };
            let prompt = &prompts[index];
            let shared = prefixes[prompt.variant].as_ref().map_or(0, |(_, length)| *length);
            if joining > 0 && joining + prompt.tokens.len() - shared > PROMPT_TOKENS {
                break;
            }
            waiting.pop_front();
            let (sequence, from) = match &prefixes[prompt.variant] {
                Some((prefix, length)) => (decoder.fork(prefix), *length),
                None => (decoder.begin(&variants[prompt.variant])?, 0),
            };
            joining += prompt.tokens.len() - from;
            let max_tokens = options.max_tokens.min(context - prompt.tokens.len());
            active.push(ActiveAnswer::new(index, prompt, sequence, from, max_tokens, tokenizer, options));
        }
        if active.is_empty() {
            break;
        }
        // Sequences of one variant next to each other, so that their low-rank products are one product.
        active.sort_by_key(|active| prompts[active.index].variant);
        step(decoder, &mut active, tokenizer, &options.sampling);

        let picked = active.len();
        let mut unfinished = Vec::with_capacity(active.len());
        let mut flow = ControlFlow::Continue(());
        // After it broke, the observer is not called again.
        let mut report = |event: GenerationEvent<'_>| {
            if flow.is_continue() {
                flow = observe(event);
            }
        };
        report(GenerationEvent::Tokens(picked));
        for mut one in active {
            let step = one.step.take().unwrap_or(Ok(None))?;
            if let Some(piece) = one.piece(step.is_some()) {
                report(GenerationEvent::Text(one.index, &piece));
            }
            match step {
                None => unfinished.push(one),
                Some(finish) => {
                    let (index, answer, sequence) = one.finish(finish);
                    decoder.end(sequence);
                    report(GenerationEvent::Finished(index, &answer));
                    answers[index] = Some(answer);
                }
            }
        }
        active = unfinished;
        if flow.is_break() {
            return Err(Error::Interrupted);
        }
    }
    Ok(answers.into_iter().flatten().collect())
}

/// The shared prefix of a variant's prompts, and its number of tokens.
type Shared<P> = (P, usize);

/// For each variant, the leading tokens that all its prompts share: `None` for a single prompt, or for less than
/// [`SHORTEST_PREFIX`] tokens. Each prompt keeps at least one token after the prefix.
fn prefixes<D: Decoder>(
    decoder: &mut D,
    variants: &[Variant],
    prompts: &[Prompt],
    observe: &mut dyn FnMut(GenerationEvent<'_>) -> ControlFlow<()>,
) -> Result<Vec<Option<Shared<D::Prefix>>>> {
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
        let mut sequence = decoder.begin(variant)?;
        decoder.forward(&mut [Step { sequence: &mut sequence, tokens }]);
        if observe(GenerationEvent::Tokens(0)).is_break() {
            return Err(Error::Interrupted);
        }
        shared.push(Some((decoder.share(sequence), tokens.len())));
    }
    Ok(shared)
}
