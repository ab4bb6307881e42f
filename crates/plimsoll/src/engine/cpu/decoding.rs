//! Batched decoding with a cache of keys and values.
//!
//! All sequences of a call go through the frozen weights together, with any variants and any numbers of tokens: the
//! weights are read once, and only the low-rank part differs between variants. The result of a sequence does not
//! depend, to the last bit, on the other sequences of the call, nor on how its tokens are split into calls.

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

/// Default limit for keys and values, in bytes.
const MEMORY: u64 = 1 << 30;

/// Maximum length of a chat, in tokens: the rotary tables of longer ones would be large, and are seldom needed.
const CHAT_TOKENS: usize = 1 << 15;

/// Leading tokens that several sequences share: computed once, and read by all of these sequences.
#[derive(Debug)]
pub struct Prefix {
    gates: Vec<LayerGates>,
    caches: Vec<KeyValues>, // (layers)
}

/// A sequence under one variant, with the keys and values of its tokens.
#[derive(Debug)]
pub struct Sequence {
    gates: Vec<LayerGates>,
    past: Option<Arc<Prefix>>,
    caches: Vec<KeyValues>, // (layers)
}

impl Sequence {
    /// Number of tokens so far, with those of the prefix.
    pub fn len(&self) -> usize {
        self.caches.first().map_or(0, KeyValues::len)
    }

    /// Whether there are no tokens yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The decoder of the CPU engine.
#[derive(Debug)]
pub struct CpuDecoder<'a> {
    engine: &'a CpuEngine,
    /// Maximum length of a sequence, in tokens. Rotary embeddings that depend on the length use it for all sequences,
    /// because cached keys must not change when a sequence grows.
    positions: usize,
    ropes: Ropes,
    scratch: Scratch,
    /// Caches of sequences that have ended, for reuse.
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
    /// If the sequence has a prefix itself.
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
    /// A decoder for sequences of at most `positions` tokens.
    pub fn decoder(&self, positions: usize) -> CpuDecoder<'_> {
        let model = self.model();
        let (ropes, scratch) = (model.ropes([positions]), model.scratch());
        CpuDecoder { engine: self, positions, ropes, scratch, spare: Vec::new() }
    }

    /// A new chat under one variant. Its maximum length is the model's context, but at most 32,768 tokens.
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
