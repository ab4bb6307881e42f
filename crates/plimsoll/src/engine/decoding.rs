//! Sequences that grow side by side, token by token, with their keys and values kept.
//!
//! All sequences that are fed in one call go through the frozen weights together, whatever their variants and however
//! many tokens each is given: the weights are read once for all, and only the low-rank part is each variant's own. What
//! a sequence gets does not depend, to the last bit, on what is fed beside it, nor on how its tokens are cut into calls.

use std::sync::Arc;

use plimsoll_kernels::{KeyValues, Threads};

use super::Embedded;
use crate::error::Result;
use crate::gates::{LayerGates, Variant};
use crate::model::{Ropes, Scratch, Segment};

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

    /// What it has so far, for others to follow.
    ///
    /// # Panics
    /// If it follows a prefix itself.
    pub fn into_prefix(self) -> Arc<Prefix> {
        assert!(self.past.is_none(), "a prefix of a prefix");
        Arc::new(Prefix { gates: self.gates, caches: self.caches })
    }
}

/// A sequence and the tokens that it is given next.
#[derive(Debug)]
pub struct Turn<'a> {
    /// The sequence.
    pub sequence: &'a mut Sequence,
    /// At least one token.
    pub tokens: &'a [u32],
}

/// Where sequences grow.
#[derive(Debug)]
pub struct Decoding<'a> {
    engine: &'a Embedded,
    /// Tokens that there is room for in each sequence. Rotary embeddings that depend on a length take it for each: a
    /// sequence's keys are kept, and may not change when it has grown.
    positions: usize,
    ropes: Ropes,
    scratch: Scratch,
    /// Memory of sequences that have ended.
    spare: Vec<Vec<KeyValues>>,
}

impl<'a> Decoding<'a> {
    pub(super) fn new(engine: &'a Embedded, positions: usize) -> Self {
        let model = engine.model();
        Self { engine, positions, ropes: model.ropes([positions]), scratch: model.scratch(), spare: Vec::new() }
    }

    /// The engine that it runs on.
    pub fn engine(&self) -> &'a Embedded {
        self.engine
    }

    /// Begins a sequence.
    ///
    /// # Errors
    /// A variant of another model.
    pub fn begin(&mut self, variant: &Variant) -> Result<Sequence> {
        self.engine.check(std::slice::from_ref(variant))?;
        Ok(Sequence { gates: variant.gates.clone(), past: None, caches: self.caches(None) })
    }

    /// Begins a sequence behind leading tokens, under their variant.
    pub fn follow(&mut self, prefix: &Arc<Prefix>) -> Sequence {
        let caches = self.caches(Some(prefix));
        Sequence { gates: prefix.gates.clone(), past: Some(Arc::clone(prefix)), caches }
    }

    /// Ends a sequence, whose memory the next one will have.
    pub fn end(&mut self, sequence: Sequence) {
        self.spare.push(sequence.caches);
    }

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

    /// Adds tokens to some sequences, and gives for each the logits of what follows its last token: `(turns, vocabulary)`.
    ///
    /// # Panics
    /// If a turn has no tokens, one of them is not in the vocabulary, or a sequence outgrows the positions that the
    /// decoding has room for.
    pub fn feed(&mut self, turns: &mut [Turn<'_>]) -> Vec<f32> {
        let Self { engine, positions, ropes, scratch, .. } = self;
        let (model, layers) = (engine.model(), engine.lora().len());
        let tokens: Vec<u32> = turns.iter().flat_map(|turn| turn.tokens).copied().collect();
        let last: Vec<[usize; 1]> = turns.iter().map(|turn| [turn.tokens.len() - 1]).collect();
        let mut x = model.embed(&tokens);
        engine.pool().install(|| {
            for (layer, lora) in engine.lora().iter().enumerate() {
                let is_last = layer + 1 == layers;
                let mut start = 0;
                let segments = turns.iter_mut().zip(&last).map(|(turn, last)| {
                    let Turn { sequence: Sequence { gates, past, caches }, tokens } = turn;
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
                model.block(layer, lora, &mut segments, ropes, &mut x, Threads::All, scratch);
            }
            model.logits(&x, Threads::All, scratch)
        })
    }
}
