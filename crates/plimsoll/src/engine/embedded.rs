//! The engine for one machine: exact `f32` on the CPU, every variant in one pass over the frozen weights.
//!
//! Samples are taken in batches, packed end to end. For each layer the sequences of all trie nodes are cut into chunks
//! of rows that are handed to the threads; a chunk runs the whole layer on one thread, so nothing waits for anything
//! but the end of the layer, and a result does not depend on the number of threads.

use std::num::NonZero;
use std::ops::{ControlFlow, Range};

use plimsoll_kernels::{RopeTable, TokenScore};
use rayon::prelude::*;

use super::trie::Trie;
use super::{Engine, Event, LensCurve, Request, SampleScores, VariantScore};
use crate::adapter::LayerLora;
use crate::data::Sample;
use crate::error::{Error, Result};
use crate::gates::{LayerGates, Projection, Variant};
use crate::model::{Model, Scratch, Segment};

/// Rows that one thread takes through a layer at a time: enough for the matrix products to reach their speed, few
/// enough for the intermediate results to stay in the last-level cache.
const CHUNK_ROWS: usize = 256;

/// Rows of answers that one thread takes through the head at a time.
const HEAD_ROWS: usize = 128;

/// Tokens of a batch: enough rows for a few threads even where the trie is narrow, few enough for a sample to be
/// finished, and journalled, every few seconds.
const BATCH_TOKENS: usize = 512;

/// More threads than this are refused: they would be a slip of the hand, and take the machine down with them.
pub const MAX_THREADS: usize = 512;

/// Bounds on what the embedded engine uses.
#[derive(Clone, Copy, Debug, Default)]
pub struct EngineOptions {
    /// Worker threads; all cores where none is given.
    pub threads: Option<NonZero<usize>>,
}

/// A base model and an adapter on this machine's CPU.
#[derive(Debug)]
pub struct Embedded {
    model: Model,
    lora: Vec<LayerLora>,
    pool: rayon::ThreadPool,
}

impl Embedded {
    /// An engine for one adapter on one model.
    ///
    /// # Errors
    /// More than [`MAX_THREADS`], or the operating system gives none.
    ///
    /// # Panics
    /// If `lora` has another number of layers than the model.
    pub fn new(model: Model, lora: Vec<LayerLora>, options: EngineOptions) -> Result<Self> {
        assert_eq!(lora.len(), model.config().layers, "an adapter of another model");
        let threads = options.threads.map_or(0, NonZero::get);
        if threads > MAX_THREADS {
            return Err(Error::Usage(format!("{threads} threads: expected at most {MAX_THREADS}")));
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|error| Error::Engine(error.to_string()))?;
        Ok(Self { model, lora, pool })
    }

    /// The base model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// How many threads it works on.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Layers computed for each sample of a request, as it is and with one run for each variant.
    pub fn layer_passes(&self, request: &Request) -> (usize, usize) {
        (self.trie(&request.variants).passes(), request.variants.len() * self.model.config().layers)
    }

    /// Logits `(tokens, vocabulary)` of one sequence under one variant.
    ///
    /// # Errors
    /// A variant of another model.
    pub fn logits(&self, tokens: &[u32], variant: &Variant) -> Result<Vec<f32>> {
        Ok(self.model.logits(&self.hidden_states(tokens, variant)?.pop().unwrap_or_default()))
    }

    /// Hidden states of one sequence under one variant after each layer, each `(tokens, hidden)`.
    ///
    /// # Errors
    /// A variant of another model.
    pub fn hidden_states(&self, tokens: &[u32], variant: &Variant) -> Result<Vec<Vec<f32>>> {
        self.check(std::slice::from_ref(variant))?;
        let rope = self.model.rope(tokens.len());
        let mut x = self.model.embed(tokens);
        let mut scratch = Scratch::default();
        let states = self.lora.iter().zip(&variant.gates).enumerate().map(|(layer, (lora, &gates))| {
            let segment = Segment { rows: 0..tokens.len(), gates };
            self.model.block(layer, lora, &[segment], &rope, &mut x, &mut scratch);
            x.clone()
        });
        Ok(states.collect())
    }

    fn check(&self, variants: &[Variant]) -> Result<()> {
        let layers = self.model.config().layers;
        match variants.iter().find(|variant| variant.gates.len() != layers) {
            Some(variant) => {
                let found = variant.gates.len();
                Err(Error::Usage(format!("a variant of {found} layers for a model of {layers}")))
            }
            None => Ok(()),
        }
    }

    fn trie(&self, variants: &[Variant]) -> Trie {
        let adapted: Vec<[bool; Projection::COUNT]> =
            self.lora.iter().map(|layer| Projection::ALL.map(|p| layer.get(p).is_some())).collect();
        Trie::new(variants, &adapted)
    }

    /// Multiply-adds of one row in one layer, and of one row in the head.
    fn row_work(&self) -> (u64, u64) {
        let config = self.model.config();
        let attention = config.head_dim * (2 * config.heads + 2 * config.kv_heads);
        let layer = config.hidden * (attention + 3 * config.intermediate);
        (layer as u64, (config.hidden * config.vocabulary) as u64)
    }

    /// Takes the states of all nodes of the layer before through one layer.
    fn layer(&self, batch: &Batch<'_>, trie: &Trie, layer: usize, rope: &RopeTable, from: &[f32], to: &mut Vec<f32>) {
        let hidden = self.model.config().hidden;
        let node_len = batch.rows() * hidden;
        let nodes = trie.level(layer);
        to.resize(nodes.len() * node_len, 0.0);
        let mut rest = to.as_mut_slice();
        let mut chunks = Vec::new();
        for sequences in batch.chunks(nodes.len()) {
            let rows: usize = sequences.iter().map(|(_, rows)| rows.len()).sum();
            let (x, after) = std::mem::take(&mut rest).split_at_mut(rows * hidden);
            rest = after;
            chunks.push((sequences, x));
        }
        self.pool.install(|| {
            chunks.into_par_iter().for_each_init(Scratch::default, |scratch, (sequences, x)| {
                let mut segments = Vec::with_capacity(sequences.len());
                let mut at = 0;
                for (node, rows) in sequences {
                    let node = nodes[node];
                    let source = &from[node.parent * node_len..][rows.start * hidden..rows.end * hidden];
                    x[at * hidden..][..source.len()].copy_from_slice(source);
                    segments.push(Segment { rows: at..at + rows.len(), gates: node.gates });
                    at += rows.len();
                }
                self.model.block(layer, &self.lora[layer], &segments, rope, x, scratch);
            });
        });
    }

    /// Scores every answer of the batch from the states of some nodes: `[node][sample][answer token]`.
    fn answers(&self, batch: &Batch<'_>, nodes: &[usize], states: &[f32]) -> Vec<Vec<Vec<TokenScore>>> {
        let hidden = self.model.config().hidden;
        let wanted: Vec<(usize, u32)> = nodes
            .iter()
            .flat_map(|node| batch.wanted.iter().map(move |&(row, token)| (node * batch.rows() + row, token)))
            .collect();
        let scores: Vec<TokenScore> = self.pool.install(|| {
            wanted
                .par_chunks(HEAD_ROWS)
                .map_init(Scratch::default, |scratch, wanted| {
                    let rows = wanted.iter().flat_map(|&(row, _)| &states[row * hidden..][..hidden]);
                    let x: Vec<f32> = rows.copied().collect(); // (rows, hidden)
                    let tokens: Vec<u32> = wanted.iter().map(|&(_, token)| token).collect();
                    self.model.score(&x, &tokens, scratch)
                })
                .flatten_iter()
                .collect()
        });
        let mut scores = scores.into_iter();
        let mut of_sample = |sample: &Sample| scores.by_ref().take(sample.answer.len()).collect();
        nodes.iter().map(|_| batch.samples.iter().map(&mut of_sample).collect()).collect()
    }
}

impl Engine for Embedded {
    fn layers(&self) -> usize {
        self.model.config().layers
    }

    fn work(&self, samples: &[Sample], request: &Request) -> u64 {
        let (layer_work, head_work) = self.row_work();
        let heads = request.variants.len() + request.lens.len() * (self.layers() - 1);
        let rows: usize = samples.iter().map(|sample| sample.tokens.len()).sum();
        let answers: usize = samples.iter().map(|sample| sample.answer.len()).sum();
        (rows * self.trie(&request.variants).passes()) as u64 * layer_work + (answers * heads) as u64 * head_work
    }

    fn score(
        &self,
        samples: &[Sample],
        request: &Request,
        observe: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<SampleScores>> {
        self.check(&request.variants)?;
        let trie = self.trie(&request.variants);
        let last = self.layers() - 1;
        let longest = samples.iter().map(|sample| sample.tokens.len()).max().unwrap_or(0);
        let rope = self.model.rope(longest);

        let (layer_work, head_work) = self.row_work();
        let advance = |rows: usize, work: u64, observe: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>| {
            go_on(observe(Event::Work(rows as u64 * work)))
        };

        let mut all = Vec::with_capacity(samples.len());
        let mut next = Vec::new();
        for batch in Batch::all(samples) {
            let mut states = self.model.embed(&batch.tokens); // (nodes, rows, hidden)
            let mut lens: Vec<Vec<LensCurve>> =
                vec![vec![LensCurve::default(); request.lens.len()]; batch.samples.len()];
            for layer in 0..=last {
                self.layer(&batch, &trie, layer, &rope, &states, &mut next);
                std::mem::swap(&mut states, &mut next);
                advance(trie.level(layer).len() * batch.rows(), layer_work, observe)?;
                if layer < last && !request.lens.is_empty() {
                    let nodes: Vec<usize> = request.lens.iter().map(|&variant| trie.node(variant, layer)).collect();
                    let scores = self.answers(&batch, &nodes, &states);
                    advance(nodes.len() * batch.wanted.len(), head_work, observe)?;
                    for (curve, scores) in scores.iter().enumerate() {
                        for (sample, scores) in scores.iter().enumerate() {
                            lens[sample][curve].push(scores);
                        }
                    }
                }
            }
            let nodes: Vec<usize> = (0..request.variants.len()).map(|variant| trie.node(variant, last)).collect();
            let scores = self.answers(&batch, &nodes, &states);
            advance(nodes.len() * batch.wanted.len(), head_work, observe)?;
            let finished = batch.samples.iter().zip(lens).enumerate().map(|(index, (sample, mut lens))| {
                for (curve, &variant) in lens.iter_mut().zip(&request.lens) {
                    curve.push(&scores[variant][index]);
                }
                let variants = scores.iter().map(|scores| VariantScore::of(&scores[index])).collect();
                let scores = SampleScores { line: sample.line, tokens: sample.answer.len(), variants, lens };
                finite(scores, &request.variants)
            });
            let finished = finished.collect::<Result<Vec<_>>>()?;
            let flow = observe(Event::Scored(&finished));
            all.extend(finished);
            go_on(flow)?;
        }
        Ok(all)
    }
}

/// Some samples, packed end to end.
struct Batch<'a> {
    samples: &'a [Sample],
    tokens: Vec<u32>,
    /// Rows of each sample.
    sequences: Vec<Range<usize>>,
    /// For each answer token, sample by sample, the row that predicts it.
    wanted: Vec<(usize, u32)>,
}

impl<'a> Batch<'a> {
    /// Cuts samples into batches of about [`BATCH_TOKENS`], in order.
    fn all(mut samples: &'a [Sample]) -> impl Iterator<Item = Self> {
        std::iter::from_fn(move || {
            let mut tokens = 0;
            let count = samples.iter().take_while(|sample| {
                let room = tokens < BATCH_TOKENS;
                tokens += sample.tokens.len();
                room
            });
            let (batch, rest) = samples.split_at(count.count());
            samples = rest;
            (!batch.is_empty()).then(|| Self::new(batch))
        })
    }

    fn new(samples: &'a [Sample]) -> Self {
        let mut batch = Self { samples, tokens: Vec::new(), sequences: Vec::new(), wanted: Vec::new() };
        for sample in samples {
            let start = batch.tokens.len();
            batch.tokens.extend(&sample.tokens);
            batch.sequences.push(start..batch.tokens.len());
            // The state at one position predicts the token at the next.
            batch.wanted.extend(sample.answer.iter().map(|&at| (start + at - 1, sample.tokens[at])));
        }
        batch
    }

    fn rows(&self) -> usize {
        self.tokens.len()
    }

    /// The sequences of every node, node by node, as (node, rows within the node), in groups of about [`CHUNK_ROWS`].
    fn chunks(&self, nodes: usize) -> Vec<Vec<(usize, Range<usize>)>> {
        let mut chunks: Vec<Vec<_>> = Vec::new();
        let mut rows = CHUNK_ROWS;
        for node in 0..nodes {
            for sequence in &self.sequences {
                if rows >= CHUNK_ROWS {
                    chunks.push(Vec::new());
                    rows = 0;
                }
                rows += sequence.len();
                if let Some(chunk) = chunks.last_mut() {
                    chunk.push((node, sequence.clone()));
                }
            }
        }
        chunks
    }
}

impl VariantScore {
    fn of(scores: &[TokenScore]) -> Self {
        Self {
            nll: -scores.iter().map(|score| score.log_probability).sum::<f64>(),
            probability: mean(scores, |score| score.log_probability.exp()),
            correct: scores.iter().filter(|score| score.rank == 0).count(),
        }
    }
}

impl LensCurve {
    fn push(&mut self, scores: &[TokenScore]) {
        self.probability.push(mean(scores, |score| score.log_probability.exp()));
        self.top1.push(mean(scores, |score| if score.rank == 0 { 1.0 } else { 0.0 }));
        self.rank.push(mean(scores, |score| score.rank as f64));
    }
}

fn go_on(flow: ControlFlow<()>) -> Result<()> {
    if flow.is_break() { Err(Error::Interrupted) } else { Ok(()) }
}

fn mean(scores: &[TokenScore], value: impl Fn(&TokenScore) -> f64) -> f64 {
    scores.iter().map(value).sum::<f64>() / scores.len() as f64
}

/// Refuses scores that are infinite or not numbers: they would poison every mean without a word.
fn finite(scores: SampleScores, variants: &[Variant]) -> Result<SampleScores> {
    let infinite = scores.variants.iter().zip(variants).find(|(score, _)| !score.nll.is_finite());
    let Some((_, Variant { layers_kept, gates, .. })) = infinite else { return Ok(scores) };
    let cause = if gates.iter().all(|&gates| gates == LayerGates::OFF) {
        "without the adapter: check the base model's weights".to_owned()
    } else {
        format!("with LoRA in {layers_kept} layers: check the adapter's weights and scale")
    };
    Err(Error::Engine(format!("hidden states overflow on line {} of the data, {cause}", scores.line)))
}
