//! One sequence that grows, token by token, with its keys and values kept.

use plimsoll_kernels::{KeyValues, RopeTable, Threads};

use crate::gates::Variant;
use crate::model::{Lora, Model, Scratch, Segment};

/// A sequence under one variant, and what its next tokens need of those before.
#[derive(Debug)]
pub struct Session<'a> {
    model: &'a Model,
    lora: &'a [Lora],
    pool: &'a rayon::ThreadPool,
    variant: Variant,
    rope: RopeTable,
    /// One for each layer.
    caches: Vec<KeyValues>,
    scratch: Scratch,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        model: &'a Model,
        lora: &'a [Lora],
        pool: &'a rayon::ThreadPool,
        variant: &Variant,
        tokens: usize,
    ) -> Self {
        let caches = lora.iter().map(|_| model.key_values()).collect();
        Self { model, lora, pool, variant: variant.clone(), rope: model.rope(tokens), caches, scratch: model.scratch() }
    }

    /// Tokens so far.
    pub fn len(&self) -> usize {
        self.caches.first().map_or(0, KeyValues::len)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds tokens, and gives the logits of what follows the last of them.
    ///
    /// # Panics
    /// If there are none, one is not in the vocabulary, or they are more than the session has room for.
    pub fn feed(&mut self, tokens: &[u32]) -> Vec<f32> {
        let Self { model, lora, pool, variant, rope, caches, scratch } = self;
        let mut x = model.embed(tokens);
        let last = [tokens.len() - 1];
        pool.install(|| {
            for (layer, (lora, cache)) in lora.iter().zip(caches.iter_mut()).enumerate() {
                let wanted = (layer + 1 == variant.gates.len()).then_some(&last[..]);
                let (rows, gates) = (0..tokens.len(), variant.gates[layer]);
                let mut segments = [Segment { rows, gates, past: None, cache: Some(cache), wanted }];
                model.block(layer, lora, &mut segments, rope, &mut x, Threads::All, scratch);
            }
            model.logits(&x, Threads::All, scratch)
        })
    }
}
