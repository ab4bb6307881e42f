//! Sequences that grow side by side, token by token, with their keys and values kept.
//!
//! All sequences that are fed in one call go through the frozen weights together, whatever their variants and however
//! many tokens each is given: the weights are read once for all, and only the low-rank part is each variant's own. What
//! a sequence gets does not depend, to the last bit, on what is fed beside it, nor on how its tokens are cut into calls.

use std::ops::ControlFlow;
use std::sync::Arc;

use plimsoll_kernels::{KeyValues, Threads};

use super::load::CpuEngine;
use crate::engine::generator::Generator;
use crate::error::Result;
use crate::generate::{Chat, Decoder, GenerateOptions, GenerationEvent, Prompt, Step, answer_all, check};
use crate::lora::{LayerGates, Variant};
use crate::model::{BlockPass, Config, Ropes, Scratch, Segment};
use crate::result::Generated;
use crate::tokenizer::Tokenizer;

/// Bytes of keys and values where no bound is given.
const MEMORY: u64 = 1 << 30;

/// Tokens that a chat has room for at most: the tables for more would be large, and are seldom needed.
const CHAT_TOKENS: usize = 1 << 15;

/// Leading tokens that several sequences share: computed once, read by all that follow them.
#[derive(Debug)]
pub struct Prefix {
    gates: Vec<LayerGates>,
    caches: Vec<KeyValues>, // (layers)
}

/// One sequence under one variant: what its next tokens need of those before.
#[derive(Debug)]
pub struct Sequence {
    gates: Vec<LayerGates>,
    past: Option<Arc<Prefix>>,
    caches: Vec<KeyValues>, // (layers)
}

impl Sequence {
    /// Tokens so far, those of its prefix included.
    pub fn len(&self) -> usize {
        self.caches.first().map_or(0, KeyValues::len)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A decoder on the CPU engine.
#[derive(Debug)]
pub struct CpuDecoder<'a> {
    engine: &'a CpuEngine,
    /// Longest sequence, in tokens. Rotary embeddings that depend on a length take it for each: a sequence's keys are kept,
    /// and may not change when it has grown.
    positions: usize,
    ropes: Ropes,
    scratch: Scratch,
    /// Memory of sequences that have ended.
    spare: Vec<Vec<KeyValues>>,
}

impl CpuDecoder<'_> {
    fn caches(&mut self, past: Option<&Arc<Prefix>>) -> Vec<KeyValues> {
        let model = self.engine.model();
        let layers = model.config().layers;
        let mut caches =
            self.spare.pop().unwrap_or_else(|| std::iter::repeat_with(|| model.key_values()).take(layers).collect());
        for (layer, cache) in caches.iter_mut().enumerate() {
            cache.restart(past.map(|past| &past.caches[layer]));
        }
        caches
    }
}

impl Decoder for CpuDecoder<'_> {
    type Sequence = Sequence;
    type Prefix = Arc<Prefix>;

    fn begin(&mut self, variant: &Variant) -> Result<Sequence> {
        self.engine.check(std::slice::from_ref(variant))?;
        Ok(Sequence { gates: variant.gates.clone(), past: None, caches: self.caches(None) })
    }

    /// # Panics
    /// If the sequence follows a prefix itself.
    fn share(&self, sequence: Sequence) -> Arc<Prefix> {
        assert!(sequence.past.is_none(), "a prefix of a prefix");
        Arc::new(Prefix { gates: sequence.gates, caches: sequence.caches })
    }

    fn fork(&mut self, prefix: &Arc<Prefix>) -> Sequence {
        let caches = self.caches(Some(prefix));
        Sequence { gates: prefix.gates.clone(), past: Some(Arc::clone(prefix)), caches }
    }

    fn end(&mut self, sequence: Sequence) {
        self.spare.push(sequence.caches);
    }

    fn forward(&mut self, steps: &mut [Step<'_, Sequence>]) -> Vec<f32> {
        let Self { engine, positions, ropes, scratch, .. } = self;
        let (model, layers) = (engine.model(), engine.lora.len());
        let tokens: Vec<u32> = steps.iter().flat_map(|step| step.tokens).copied().collect();
        let last: Vec<[usize; 1]> = steps.iter().map(|step| [step.tokens.len() - 1]).collect();
        let mut x = model.embed(&tokens);
        engine.pool().install(|| {
            for (layer, lora) in engine.lora.iter().enumerate() {
                let is_last = layer + 1 == layers;
                let mut start = 0;
                let segments = steps.iter_mut().zip(&last).map(|(step, last)| {
                    let Step { sequence: Sequence { gates, past, caches }, tokens } = step;
                    let rows = start..start + tokens.len();
                    start = rows.end;
                    Segment {
                        rows,
                        gates: gates[layer],
                        length: *positions,
                        past: past.as_ref().map(|past| &past.caches[layer]),
                        cache: Some(&mut caches[layer]),
                        wanted: is_last.then_some(last),
                    }
                });
                let mut segments: Vec<Segment<'_>> = segments.collect();
                let pass = BlockPass { ropes, threads: Threads::All, scratch, observer: None };
                model.block(layer, lora, &mut segments, &mut x, pass);
            }
            model.logits(&x, Threads::All, scratch)
        })
    }

    fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.engine.pool().install(work)
    }
}

impl CpuEngine {
    /// A decoder of sequences of at most so many tokens.
    pub fn decoder(&self, positions: usize) -> CpuDecoder<'_> {
        let model = self.model();
        let (ropes, scratch) = (model.ropes([positions]), model.scratch());
        CpuDecoder { engine: self, positions, ropes, scratch, spare: Vec::new() }
    }

    /// A chat that has not begun, under one variant. It has room for the model's context, but for at most 32,768 tokens.
    pub fn chat<'a>(&'a self, tokenizer: &'a Tokenizer, variant: Variant) -> Chat<'a, CpuDecoder<'a>> {
        let Config { context, vocabulary, .. } = *self.model().config();
        let positions = context.min(CHAT_TOKENS);
        Chat::new(self.decoder(positions), tokenizer, variant, positions, vocabulary)
    }
}

impl Generator for CpuEngine {
    fn context(&self) -> usize {
        self.model().config().context
    }

    fn token_work(&self) -> u64 {
        self.work_of_token()
    }

    fn generate(
        &self,
        tokenizer: &Tokenizer,
        variants: &[Variant],
        prompts: &[Prompt],
        options: &GenerateOptions,
        observe: &mut dyn FnMut(GenerationEvent<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<Generated>> {
        let Config { context, vocabulary, layers, .. } = *self.model().config();
        check(prompts, variants.len(), options, context, vocabulary)?;
        let longest = prompts.iter().map(|prompt| prompt.tokens.len()).max().unwrap_or(0);
        let positions = longest.saturating_add(options.max_tokens).min(context);
        let bytes = self.model().key_value_bytes(positions) as u64 * layers as u64;
        let fits = self.memory().unwrap_or(MEMORY) / bytes.max(1);
        let batch = options.batch.min(usize::try_from(fits).unwrap_or(usize::MAX)).max(1);
        answer_all(&mut self.decoder(positions), tokenizer, variants, prompts, options, (batch, context), observe)
    }
}
