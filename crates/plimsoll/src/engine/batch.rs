//! Batches: samples packed end to end, without padding.

use std::ops::Range;

use crate::data::Sample;

/// The number of leading tokens that all samples share. Tokens that predict an answer token do not count.
pub(super) fn shared_prefix(samples: &[Sample]) -> usize {
    let [first, rest @ ..] = samples else { return 0 };
    if rest.is_empty() {
        return 0;
    }
    let before = |sample: &Sample| sample.answer.iter().min().map_or(0, |&first| first - 1);
    let shared = |sample: &Sample| first.tokens.iter().zip(&sample.tokens).take_while(|(a, b)| a == b).count();
    rest.iter().map(|sample| shared(sample).min(before(sample))).min().unwrap_or(0).min(before(first))
}

/// Splits samples into batches of about `most` tokens, in order. The shared `prefix` does not count.
pub(super) fn batches(mut samples: &[Sample], prefix: usize, most: usize) -> impl Iterator<Item = &[Sample]> {
    std::iter::from_fn(move || {
        let mut tokens = 0;
        let fits = samples.iter().take_while(|sample| {
            let is_first = tokens == 0;
            tokens += sample.tokens.len() - prefix;
            is_first || tokens <= most
        });
        let (batch, rest) = samples.split_at(fits.count());
        samples = rest;
        (!batch.is_empty()).then_some(batch)
    })
}

/// A batch: samples without their shared prefix, packed end to end.
pub(super) struct Batch {
    /// Position of the first row of each sequence, which is the length of the prefix.
    pub(super) first: usize,
    pub(super) tokens: Vec<u32>,
    pub(super) sequences: Vec<Sequence>,
    /// For each answer token, sample by sample: the row that predicts it, and the token.
    pub(super) answers: Vec<(usize, u32)>,
    /// The same after the last layer, which keeps only the rows that predict an answer token.
    pub(super) last_answers: Vec<(usize, u32)>,
}

/// One sample in a batch.
pub(super) struct Sequence {
    pub(super) rows: Range<usize>,
    /// Rows that predict an answer token, counted from the sequence's first row.
    pub(super) wanted: Vec<usize>,
    /// The sample's entries in [`Batch::answers`].
    pub(super) answers: Range<usize>,
}

impl Batch {
    pub(super) fn new(samples: &[Sample], prefix: usize) -> Self {
        let mut batch = Self {
            first: prefix,
            tokens: Vec::new(),
            sequences: Vec::new(),
            answers: Vec::new(),
            last_answers: Vec::new(),
        };
        for sample in samples {
            let (start, answers) = (batch.tokens.len(), batch.answers.len());
            batch.tokens.extend(&sample.tokens[prefix..]);
            // The state at one position predicts the token at the next.
            let wanted: Vec<usize> = sample.answer.iter().map(|&at| at - 1 - prefix).collect();
            for (&row, &at) in wanted.iter().zip(&sample.answer) {
                batch.last_answers.push((batch.answers.len(), sample.tokens[at]));
                batch.answers.push((start + row, sample.tokens[at]));
            }
            let (rows, answers) = (start..batch.tokens.len(), answers..batch.answers.len());
            batch.sequences.push(Sequence { rows, wanted, answers });
        }
        batch
    }

    pub(super) fn rows(&self) -> usize {
        self.tokens.len()
    }

    /// The sequences of all nodes, node by node, in chunks of about `most` rows.
    pub(super) fn chunks(&self, nodes: usize, most: usize) -> Vec<Vec<(usize, &Sequence)>> {
        let mut chunks: Vec<Vec<_>> = Vec::new();
        let mut rows = most;
        for node in 0..nodes {
            for sequence in &self.sequences {
                if rows >= most {
                    chunks.push(Vec::new());
                    rows = 0;
                }
                rows += sequence.rows.len();
                if let Some(chunk) = chunks.last_mut() {
                    chunk.push((node, sequence));
                }
            }
        }
        chunks
    }
}
