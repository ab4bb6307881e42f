//! The plan of a request within a memory limit: variants in one or several tries, shared leading tokens, batch size.

use std::ops::Range;

use super::batch::shared_prefix;
use super::trie::Trie;
use crate::data::Sample;
use crate::error::{Error, Result};
use crate::lora::{Projection, Variant};

/// Minimum number of shared leading tokens that are computed once, in a pass of their own.
const SHORTEST_PREFIX: usize = 8;

/// Default memory limit in bytes, unless one sample needs more.
const MEMORY: u64 = 1 << 30;

/// The memory that an engine needs for a request, in bytes.
pub(super) struct Footprint<'a> {
    /// The memory limit; `None` for the default.
    pub(super) memory: Option<u64>,
    /// Worker threads, for messages.
    pub(super) threads: usize,
    /// Scratch memory of all threads, by the length of the longest sample in tokens.
    pub(super) scratch: &'a dyn Fn(usize) -> u64,
    /// The hidden state of one token.
    pub(super) state: u64,
    /// Keys and values in one layer, by the number of tokens.
    pub(super) key_values: &'a dyn Fn(usize) -> u64,
    /// Maximum number of tokens of a batch.
    pub(super) batch_tokens: usize,
}

/// The plan of a request.
pub(super) struct Plan {
    /// Ranges of the variants, each with its trie.
    pub(super) tries: Vec<(Range<usize>, Trie)>,
    /// Number of leading tokens that are computed once for all samples.
    pub(super) prefix: usize,
    /// Number of tokens at which a batch is full.
    pub(super) tokens: usize,
}

impl Plan {
    /// Plans a request. `can_share` says whether leading tokens that all samples share can be computed once.
    ///
    /// # Errors
    /// A memory limit below the needs of one sample under one variant.
    pub(super) fn new(
        samples: &[Sample],
        variants: &[Variant],
        adapted: &[[bool; Projection::COUNT]],
        footprint: &Footprint<'_>,
        can_share: bool,
    ) -> Result<Self> {
        let longest = samples.iter().map(|sample| sample.tokens.len()).max().unwrap_or(0);
        let scratch = (footprint.scratch)(longest);
        let states = |trie: &Trie, tokens: usize| (2 * trie.width() * tokens) as u64 * footprint.state;
        let trie = Trie::new(variants, adapted);
        // The default limit neither refuses a request nor slows it down.
        let memory = footprint.memory.unwrap_or_else(|| MEMORY.max(2 * (scratch + states(&trie, longest))));
        let available = memory.saturating_sub(scratch);
        if states(&trie, longest) > available {
            let tries = split(variants, adapted, memory, longest, footprint, &states)?;
            return Ok(Self { tries, prefix: 0, tokens: 1 });
        }
        let caches = |prefix: usize| trie.passes() as u64 * (footprint.key_values)(prefix);
        let need = |prefix: usize| caches(prefix) + states(&trie, prefix.max(longest - prefix));
        let shared = if can_share { shared_prefix(samples) } else { 0 };
        let prefix = (0..=shared).rev().find(|&prefix| need(prefix) <= available).unwrap_or(0);
        let prefix = if prefix < SHORTEST_PREFIX { 0 } else { prefix };
        let rows = (available - caches(prefix)) / states(&trie, 1).max(1);
        let tokens = usize::try_from(rows).unwrap_or(usize::MAX).min(footprint.batch_tokens);
        Ok(Self { tries: vec![(0..variants.len(), trie)], prefix, tokens })
    }
}

/// Splits the variants into several tries, because one sample under all of them does not fit.
fn split(
    variants: &[Variant],
    adapted: &[[bool; Projection::COUNT]],
    memory: u64,
    longest: usize,
    footprint: &Footprint<'_>,
    states: &dyn Fn(&Trie, usize) -> u64,
) -> Result<Vec<(Range<usize>, Trie)>> {
    let scratch = (footprint.scratch)(longest);
    let available = memory.saturating_sub(scratch);
    let mut tries: Vec<(Range<usize>, Trie)> = Vec::new();
    for variant in 0..variants.len() {
        let start = tries.last().map_or(0, |(range, _)| range.start);
        let joined = Trie::new(&variants[start..=variant], adapted);
        match tries.last_mut() {
            Some(last) if states(&joined, longest) <= available => *last = (start..variant + 1, joined),
            _ => {
                let alone = Trie::new(&variants[variant..=variant], adapted);
                let need = states(&alone, longest) + scratch;
                if need > memory {
                    let (memory, need, threads) = (memory >> 20, need.div_ceil(1 << 20), footprint.threads);
                    return Err(Error::Usage(format!(
                        "{memory} MiB of memory for a sample of {longest} tokens on {threads} threads: expected at \
                         least {need} MiB, besides the weights"
                    )));
                }
                tries.push((variant..variant + 1, alone));
            }
        }
    }
    Ok(tries)
}
