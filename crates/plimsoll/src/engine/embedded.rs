//! The engine for one machine: every variant in one pass over the frozen weights.
//!
//! Samples are taken in batches, packed end to end. For each layer the sequences of all trie nodes are cut into chunks
//! of rows that are handed to the threads; a chunk runs the whole layer on one thread, so nothing waits for anything
//! but the end of the layer, and a result does not depend on the number of threads. Leading tokens that all samples
//! share are computed once for each node; their keys and values serve every sample.

use std::num::NonZero;
use std::ops::{ControlFlow, Range};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use plimsoll_kernels::{KeyValues, Threads, TokenScore};
use rayon::prelude::*;

use super::trie::{Node, Trie};
use super::{Decoding, Engine, Event, LensCurve, Request, SampleScores, VariantScore};
use crate::adapter::{Bound, LayerLora, LoraWeights};
use crate::data::Sample;
use crate::error::{Error, Result};
use crate::gates::{LayerGates, Projection, Variant};
use crate::model::{Checkpoint, Grams, Lora, Model, Precision, Ropes, Scratch, Segment};

/// Rows that one thread takes through a layer at a time, and those of the sequence that fills them up: enough for the
/// matrix products to reach their speed, few enough for the intermediate results to stay in the second-level cache.
const CHUNK_ROWS: usize = 128;

/// Rows of answers that one thread takes through the head at a time.
const HEAD_ROWS: usize = 252;

/// Tokens of a batch for each thread, and at least: enough rows for all threads even where the trie is narrow, few
/// enough for a sample to be finished, and journalled, every few seconds.
const BATCH_TOKENS: usize = 512;

/// Fewer shared leading tokens than this are not worth a pass of their own.
const SHORTEST_PREFIX: usize = 8;

/// Multiply-adds between two calls of the observer: about a second's on two cores.
const WORK_BETWEEN_EVENTS: u64 = 200_000_000_000;

/// How long a rate is measured, or little more.
const MEASURED: Duration = Duration::from_millis(300);

/// Bytes of the working set where no bound is given, and one sample does not need more.
const MEMORY: u64 = 1 << 30;

/// More threads than this are refused: they would be a slip of the hand, and take the machine down with them.
pub const MAX_THREADS: usize = 512;

/// What the embedded engine computes in, and bounds on what it uses.
#[derive(Clone, Copy, Debug, Default)]
pub struct EngineOptions {
    /// Worker threads; all cores where none is given.
    pub threads: Option<NonZero<usize>>,
    /// Type of number and instruction set.
    pub precision: Precision,
    /// Bytes of the working set: hidden states, keys and values, intermediate results, but not the weights. The number
    /// of rows in flight follows from it. 1 GiB where none is given, or more where one sample needs it.
    pub memory: Option<u64>,
}

/// A base model and an adapter on this machine's CPU.
#[derive(Debug)]
pub struct Embedded {
    model: Model,
    adapted: Vec<[bool; Projection::COUNT]>,
    /// Multiply-adds of a row in each module's LoRA, layer by layer.
    lora_work: Vec<[u64; Projection::COUNT]>,
    lora: Vec<Lora>,
    pool: rayon::ThreadPool,
    /// What each thread of the pool works in.
    workspaces: Vec<Mutex<Workspace>>,
    memory: Option<u64>,
}

/// What a thread works in: rows on their way through a layer, and the layer's own memory.
#[derive(Debug)]
struct Workspace {
    x: Vec<f32>,
    scratch: Scratch,
}

impl Embedded {
    /// Loads a model and packs an adapter for it.
    ///
    /// # Errors
    /// A weight that cannot be read, more than [`MAX_THREADS`], or the operating system gives none.
    ///
    /// # Panics
    /// If `lora` has another number of layers than the model.
    pub fn load(checkpoint: &Checkpoint, lora: &Bound, options: EngineOptions) -> Result<Self> {
        let EngineOptions { threads, precision, memory } = options;
        assert_eq!(lora.len(), checkpoint.config().layers, "an adapter of another model");
        let threads = threads.map_or(0, NonZero::get);
        if threads > MAX_THREADS {
            return Err(Error::Usage(format!("{threads} threads: expected at most {MAX_THREADS}")));
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|error| Error::Engine(error.to_string()))?;
        let model = pool.install(|| Model::load(checkpoint, lora, precision))?;
        let work = |lora: &LoraWeights| (lora.a.len() + lora.b.len()) as u64;
        Ok(Self {
            adapted: lora.iter().map(|layer| Projection::ALL.map(|p| layer.get(p).is_some())).collect(),
            lora_work: lora.iter().map(|layer| Projection::ALL.map(|p| layer.get(p).map_or(0, work))).collect(),
            lora: pool
                .install(|| lora.iter().enumerate().map(|(layer, lora)| Lora::new(&model, layer, lora)).collect()),
            workspaces: (0..pool.current_num_threads())
                .map(|_| Mutex::new(Workspace { x: Vec::new(), scratch: model.scratch() }))
                .collect(),
            model,
            pool,
            memory,
        })
    }

    /// The base model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    pub(super) fn lora(&self) -> &[Lora] {
        &self.lora
    }

    /// The threads that it works on, for work of the caller's own.
    pub fn pool(&self) -> &rayon::ThreadPool {
        &self.pool
    }

    /// The bound on memory beside the weights, where there is one.
    pub fn memory(&self) -> Option<u64> {
        self.memory
    }

    /// How many threads it works on.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Which modules have LoRA, layer by layer.
    pub fn adapted(&self) -> &[[bool; Projection::COUNT]] {
        &self.adapted
    }

    /// Where sequences grow, with room for so many tokens in each.
    pub fn decoding(&self, positions: usize) -> Decoding<'_> {
        Decoding::new(self, positions)
    }

    /// How much each module's update adds to what flows through it: `Σ ‖s·B·A·x‖²` over all tokens of the samples, by layer
    /// and then by `Projection as usize`, in the runs of the full adapter; 0 where there is no LoRA. `lora` is what the
    /// engine was loaded with.
    ///
    /// LoRA-drop (Zhou et al., arXiv:2402.07721) ranks layers by this energy. It is `zᵀ·(BᵀB)·z` with the scaled
    /// `z = s·A·x` that the engine has in hand anyway, so that no product with B is formed for it.
    ///
    /// # Errors
    /// [`Error::Interrupted`] where `go_on` broke.
    pub fn output_energy(
        &self,
        lora: &[LayerLora],
        samples: &[Sample],
        go_on: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Vec<[f64; Projection::COUNT]>> {
        let grams: Vec<Grams> = self.pool.install(|| lora.par_iter().map(Grams::new).collect());
        let full = Variant::uniform(self.lora.len(), 1.0);
        let ropes = self.model.ropes(samples.iter().map(|sample| sample.tokens.len()));
        let mut energy = vec![[0.0; Projection::COUNT]; self.lora.len()];
        // A few at a time, so that the caller is heard between them; sums stay in the order of the samples.
        for samples in samples.chunks(4 * self.threads()) {
            let of_sample = |sample: &Sample| {
                let Workspace { x, scratch } = &mut *self.workspace();
                *x = self.model.embed(&sample.tokens);
                let of_layer = |(layer, lora): (usize, &Lora)| {
                    let rows = 0..sample.tokens.len();
                    let gates = full.gates[layer];
                    let length = rows.len();
                    let mut segments = [Segment { rows, gates, length, past: None, cache: None, wanted: None }];
                    let metered = scratch.meter(&grams[layer]);
                    self.model.block(layer, lora, &mut segments, &ropes, x, Threads::One, metered);
                    scratch.metered()
                };
                self.lora.iter().enumerate().map(of_layer).collect::<Vec<_>>()
            };
            let measured: Vec<_> = self.pool.install(|| samples.par_iter().map(of_sample).collect());
            for layers in &measured {
                for (sum, energy) in energy.iter_mut().zip(layers) {
                    sum.iter_mut().zip(energy).for_each(|(sum, energy)| *sum += energy);
                }
            }
            stop_if(go_on(self.energy_work(samples)))?;
        }
        Ok(energy)
    }

    /// Multiply-adds of [`output_energy`](Self::output_energy).
    pub fn energy_work(&self, samples: &[Sample]) -> u64 {
        let of_layer = |layer: usize, rows: usize| self.layer_work(layer, &LayerGates::ON, 0, rows, None);
        let layers = 0..self.lora.len();
        samples.iter().flat_map(|sample| layers.clone().map(|layer| of_layer(layer, sample.tokens.len()))).sum()
    }

    /// Multiply-adds of one token in all layers of the full adapter and in the head.
    pub fn token_work(&self) -> u64 {
        let layers = 0..self.lora.len();
        layers.map(|layer| self.layer_work(layer, &LayerGates::ON, 0, 1, None)).sum::<u64>() + self.head_work(1)
    }

    /// Multiply-adds a second, measured for a moment: each thread takes the leading tokens of a sequence through one layer
    /// after the other. Rough, for an estimate of the time that work will take.
    pub fn measure_rate(&self, tokens: &[u32]) -> f64 {
        let rows = 0..tokens.len().min(CHUNK_ROWS);
        let (tokens, length, gates) = (&tokens[rows.clone()], rows.len(), LayerGates::ON);
        let ropes = self.model.ropes([length]);
        self.pool.broadcast(|_| self.workspace().x = self.model.embed(tokens));
        let (begun, mut work) = (Instant::now(), 0);
        for (layer, lora) in self.lora.iter().enumerate() {
            self.pool.broadcast(|_| {
                let Workspace { x, scratch } = &mut *self.workspace();
                let mut segments =
                    [Segment { rows: rows.clone(), gates, length, past: None, cache: None, wanted: None }];
                self.model.block(layer, lora, &mut segments, &ropes, x, Threads::One, scratch);
            });
            work += self.threads() as u64 * self.layer_work(layer, &gates, 0, length, None);
            if begun.elapsed() > MEASURED {
                break;
            }
        }
        work as f64 / begun.elapsed().as_secs_f64().max(1e-9)
    }

    /// Logits `(tokens, vocabulary)` of one sequence under one variant.
    ///
    /// # Errors
    /// A variant of another model.
    pub fn logits(&self, tokens: &[u32], variant: &Variant) -> Result<Vec<f32>> {
        let states = self.hidden_states(tokens, variant)?.pop().unwrap_or_default();
        Ok(self.pool.install(|| self.model.logits(&states, Threads::All, &mut self.model.scratch())))
    }

    /// Hidden states of one sequence under one variant after each layer, each `(tokens, hidden)`.
    ///
    /// # Errors
    /// A variant of another model.
    pub fn hidden_states(&self, tokens: &[u32], variant: &Variant) -> Result<Vec<Vec<f32>>> {
        self.check(std::slice::from_ref(variant))?;
        let ropes = self.model.ropes([tokens.len()]);
        let mut x = self.model.embed(tokens);
        let mut scratch = self.model.scratch();
        let states = self.lora.iter().zip(&variant.gates).enumerate().map(|(layer, (lora, &gates))| {
            let (rows, length) = (0..tokens.len(), tokens.len());
            let segment = Segment { rows, gates, length, past: None, cache: None, wanted: None };
            let mut segments = [segment];
            self.pool.install(|| {
                self.model.block(layer, lora, &mut segments, &ropes, &mut x, Threads::All, &mut scratch);
            });
            x.clone()
        });
        Ok(states.collect())
    }

    /// The workspace of the pool's calling thread; no other asks for it.
    fn workspace(&self) -> MutexGuard<'_, Workspace> {
        let index = self.pool.current_thread_index().unwrap_or(0);
        // What a panic left in it is overwritten before it is read.
        self.workspaces[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn check(&self, variants: &[Variant]) -> Result<()> {
        let layers = self.model.config().layers;
        match variants.iter().find(|variant| variant.gates.len() != layers) {
            Some(variant) => {
                let found = variant.gates.len();
                Err(Error::Usage(format!("a variant of {found} layers for a model of {layers}")))
            }
            None => Ok(()),
        }
    }

    /// Multiply-adds of one sequence in one layer of one node: keys and values of all its rows, everything else of those
    /// whose output is wanted.
    fn layer_work(&self, layer: usize, gates: &LayerGates, first: usize, rows: usize, wanted: Option<&[usize]>) -> u64 {
        let config = self.model.config();
        let head = (config.heads * config.head_dim) as u64;
        // Positions that the queries see, in sum.
        let (outputs, seen) = match wanted {
            Some(wanted) => (wanted.len(), wanted.iter().map(|row| first + row + 1).sum()),
            None => (rows, rows * (2 * first + rows + 1) / 2),
        };
        let (hidden, rows, outputs, seen) = (config.hidden as u64, rows as u64, outputs as u64, seen as u64);
        let keys_and_values = 2 * hidden * (config.kv_heads * config.head_dim) as u64;
        let rest = hidden * (2 * head + 3 * config.intermediate as u64);
        let lora = Projection::ALL.iter().filter(|&&projection| gates.get(projection) != 0.0).map(|&projection| {
            let rows = if matches!(projection, Projection::K | Projection::V) { rows } else { outputs };
            rows * self.lora_work[layer][projection as usize]
        });
        rows * keys_and_values + outputs * rest + seen * 2 * head + lora.sum::<u64>()
    }

    /// Multiply-adds of so many rows in the head.
    fn head_work(&self, rows: usize) -> u64 {
        let config = self.model.config();
        (rows * config.hidden * config.vocabulary) as u64
    }

    /// How to keep a request within the bounds on memory.
    fn plan(&self, samples: &[Sample], request: &Request) -> Result<Plan> {
        let longest = samples.iter().map(|sample| sample.tokens.len()).max().unwrap_or(0);
        let floats = |numbers: usize| (numbers * size_of::<f32>()) as u64;
        let hidden = self.model.config().hidden;
        let threads = self.threads();
        let scratch = (threads * self.model.scratch_bytes(CHUNK_ROWS + longest)) as u64;
        let states = |trie: &Trie, tokens: usize| floats(2 * trie.width() * tokens * hidden);
        let trie = Trie::new(&request.variants, &self.adapted);
        // Nobody who has set no bound is to be refused, or slowed down, by it.
        let memory = self.memory.unwrap_or_else(|| MEMORY.max(2 * (scratch + states(&trie, longest))));
        let available = memory.saturating_sub(scratch);
        if states(&trie, longest) <= available {
            let caches = |prefix: usize| (trie.passes() * self.model.key_value_bytes(prefix)) as u64;
            let need = |prefix: usize| caches(prefix) + states(&trie, prefix.max(longest - prefix));
            let shared = if self.rotates_alike(samples) { shared_prefix(samples) } else { 0 };
            let prefix = (0..=shared).rev().find(|&prefix| need(prefix) <= available).unwrap_or(0);
            let prefix = if prefix < SHORTEST_PREFIX { 0 } else { prefix };
            let rows = (available - caches(prefix)) / states(&trie, 1).max(1);
            let tokens = usize::try_from(rows).unwrap_or(usize::MAX).min(BATCH_TOKENS * threads.max(2));
            return Ok(Plan { tries: vec![(0..request.variants.len(), trie)], prefix, tokens });
        }

        // Not even one sample fits with all variants: they are taken a few at a time.
        let mut tries: Vec<(Range<usize>, Trie)> = Vec::new();
        for variant in 0..request.variants.len() {
            let start = tries.last().map_or(0, |(range, _)| range.start);
            let joined = Trie::new(&request.variants[start..=variant], &self.adapted);
            match tries.last_mut() {
                Some(last) if states(&joined, longest) <= available => *last = (start..variant + 1, joined),
                _ => {
                    let alone = Trie::new(&request.variants[variant..=variant], &self.adapted);
                    let need = states(&alone, longest) + scratch;
                    if need > memory {
                        let (memory, need) = (memory >> 20, need.div_ceil(1 << 20));
                        return Err(Error::Usage(format!(
                            "{memory} MiB of memory for a sample of {longest} tokens on {threads} threads: expected at \
                             least {need} MiB, besides the weights"
                        )));
                    }
                    tries.push((variant..variant + 1, alone));
                }
            }
        }
        Ok(Plan { tries, prefix: 0, tokens: 1 })
    }

    /// Whether what samples share is the same in each of them.
    fn rotates_alike(&self, samples: &[Sample]) -> bool {
        let length = |sample: &Sample| sample.tokens.len();
        samples.windows(2).all(|pair| self.model.config().rotates_alike(length(&pair[0]), length(&pair[1])))
    }

    /// Takes the leading `tokens` of sequences of `length` tokens, or of others that are rotated alike, through all nodes, and
    /// keeps their keys and values: `[layer][node]`.
    fn prefix(
        &self,
        tokens: &[u32],
        length: usize,
        trie: &Trie,
        ropes: &Ropes,
        observe: Observer<'_>,
    ) -> Result<Caches> {
        let mut states = vec![self.model.embed(tokens)]; // [node] (tokens, hidden)
        let mut caches = Vec::with_capacity(self.lora.len());
        for (layer, lora) in self.lora.iter().enumerate() {
            // Nothing above the last layer's keys and values is read.
            let wanted = (layer + 1 == self.lora.len()).then_some(&[][..]);
            let nodes = trie.level(layer);
            let advance = |node: &Node| {
                let Workspace { scratch, .. } = &mut *self.workspace();
                let (mut x, mut cache) = (states[node.parent].clone(), self.model.key_values());
                let (rows, gates) = (0..tokens.len(), node.gates);
                let mut segments = [Segment { rows, gates, length, past: None, cache: Some(&mut cache), wanted }];
                self.model.block(layer, lora, &mut segments, ropes, &mut x, Threads::One, scratch);
                (x, cache)
            };
            let computed: Vec<_> = self.pool.install(|| nodes.par_iter().map(advance).collect());
            let (next, of_layer): (Vec<_>, Vec<_>) = computed.into_iter().unzip();
            (states, _) = (next, caches.push(of_layer));
            let work = |node: &Node| self.layer_work(layer, &node.gates, 0, tokens.len(), wanted);
            stop_if(observe(Event::Work(nodes.iter().map(work).sum())))?;
        }
        Ok(caches)
    }

    /// Takes the states of all nodes of the layer before through one layer. States are `(nodes, rows, hidden)`; after
    /// the last layer only the rows that predict an answer token are left.
    fn layer(
        &self,
        pass: &Pass<'_>,
        layer: usize,
        from: &[f32],
        to: &mut Vec<f32>,
        observe: Observer<'_>,
    ) -> Result<()> {
        let Pass { batch, trie, ropes, past, .. } = *pass;
        let hidden = self.model.config().hidden;
        let is_last = layer + 1 == self.lora.len();
        let nodes = trie.level(layer);
        let outputs = |sequence: &Sequence| if is_last { sequence.wanted.len() } else { sequence.rows.len() };
        let work = |&(node, sequence): &(usize, &Sequence)| {
            let Sequence { rows, wanted, .. } = sequence;
            let wanted = is_last.then_some(wanted.as_slice());
            self.layer_work(layer, &nodes[node].gates, batch.first, rows.len(), wanted)
        };

        to.resize(nodes.len() * batch.sequences.iter().map(outputs).sum::<usize>() * hidden, 0.0);
        let mut rest = to.as_mut_slice();
        let mut chunks = Vec::new();
        for chunk in batch.chunks(nodes.len()) {
            let len: usize = chunk.iter().map(|(_, sequence)| outputs(sequence) * hidden).sum();
            let (x, after) = std::mem::take(&mut rest).split_at_mut(len);
            rest = after;
            chunks.push((chunk, x));
        }
        while !chunks.is_empty() {
            let mut done = 0;
            let enough = chunks.iter().rposition(|(chunk, _)| {
                done += chunk.iter().map(work).sum::<u64>();
                done >= WORK_BETWEEN_EVENTS
            });
            let mut some = chunks.split_off(enough.unwrap_or(0));
            // Long ones first, each to the thread that is free: at the end they wait for a short one at most.
            some.sort_by_key(|(chunk, _)| std::cmp::Reverse(chunk.iter().map(work).sum::<u64>()));
            let queue = Mutex::new(some.into_iter());
            let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            self.pool.broadcast(|_| {
                let Workspace { x, scratch } = &mut *self.workspace();
                while let Some((chunk, to)) = next() {
                    x.clear();
                    let mut segments = Vec::with_capacity(chunk.len());
                    for (node, Sequence { rows, wanted, .. }) in chunk {
                        let at = x.len() / hidden;
                        let parent = nodes[node].parent * batch.rows();
                        x.extend_from_slice(&from[(parent + rows.start) * hidden..(parent + rows.end) * hidden]);
                        segments.push(Segment {
                            rows: at..at + rows.len(),
                            gates: nodes[node].gates,
                            length: batch.first + rows.len(),
                            past: past.map(|past| &past[layer][node]),
                            cache: None,
                            wanted: is_last.then_some(wanted),
                        });
                    }
                    self.model.block(layer, &self.lora[layer], &mut segments, ropes, x, Threads::One, scratch);
                    to.copy_from_slice(x);
                }
            });
            stop_if(observe(Event::Work(done)))?;
        }
        Ok(())
    }

    /// Scores answers from states `(rows, hidden)`: `wanted[i]` is a row and the token that it should predict.
    fn answers(&self, states: &[f32], wanted: &[(usize, u32)], observe: Observer<'_>) -> Result<Vec<TokenScore>> {
        let hidden = self.model.config().hidden;
        let mut scores = Vec::with_capacity(wanted.len());
        let between = usize::try_from(WORK_BETWEEN_EVENTS / self.head_work(1).max(1)).unwrap_or(usize::MAX);
        for wanted in wanted.chunks(between.max(HEAD_ROWS * self.threads())) {
            // As equal as can be, so that no thread waits for a last large piece.
            let pieces = wanted.len().div_ceil(HEAD_ROWS).next_multiple_of(self.threads());
            self.pool.install(|| {
                scores.par_extend(
                    wanted
                        .par_chunks(wanted.len().div_ceil(pieces).max(1))
                        .map(|wanted| {
                            let Workspace { x, scratch } = &mut *self.workspace();
                            x.clear();
                            for &(row, _) in wanted {
                                x.extend_from_slice(&states[row * hidden..][..hidden]);
                            }
                            let tokens: Vec<u32> = wanted.iter().map(|&(_, token)| token).collect();
                            self.model.score(x, &tokens, scratch)
                        })
                        .flatten_iter(),
                );
            });
            stop_if(observe(Event::Work(self.head_work(wanted.len()))))?;
        }
        Ok(scores)
    }

    /// Scores a batch under the variants of one trie: `[sample]`, and within it one entry for each of them, and one curve
    /// for each of `lens`, which count from the trie's first variant.
    fn batch(&self, pass: &Pass<'_>, lens: &[usize], observe: Observer<'_>) -> Result<Vec<Measured>> {
        let Pass { batch, trie, .. } = pass;
        let last = self.lora.len() - 1;
        let hidden = self.model.config().hidden;
        let mut measured = vec![
            Measured { lens: vec![LensCurve::default(); lens.len()], ..Measured::default() };
            batch.sequences.len()
        ];
        let mut states = self.model.embed(&batch.tokens); // (nodes, rows, hidden)
        let mut next = Vec::new();
        for layer in 0..=last {
            self.layer(pass, layer, &states, &mut next, observe)?;
            std::mem::swap(&mut states, &mut next);
            let rows = states.len() / hidden / trie.level(layer).len();
            let nodes: Vec<usize> = if layer == last {
                (0..trie.level(last).len()).collect()
            } else {
                lens.iter().map(|&variant| trie.node(variant, layer)).collect()
            };
            let answers = if layer == last { &batch.last_answers } else { &batch.answers };
            let wanted: Vec<(usize, u32)> = nodes
                .iter()
                .flat_map(|node| answers.iter().map(move |&(row, token)| (node * rows + row, token)))
                .collect();
            let scores = self.answers(&states, &wanted, observe)?;
            let of = |index: usize, sequence: &Sequence| {
                &scores[index * answers.len()..][..answers.len()][sequence.answers.clone()]
            };
            for (measured, sequence) in measured.iter_mut().zip(&batch.sequences) {
                for (index, (curve, &variant)) in measured.lens.iter_mut().zip(lens).enumerate() {
                    curve.push(of(if layer == last { trie.node(variant, last) } else { index }, sequence));
                }
                if layer == last {
                    let score = |variant| VariantScore::of(of(trie.node(variant, last), sequence));
                    measured.variants = (0..trie.variants()).map(score).collect();
                    if pass.token_nll {
                        let tokens = |variant| of(trie.node(variant, last), sequence).iter();
                        let nll = |score: &TokenScore| -score.log_probability as f32;
                        measured.token_nll = (0..trie.variants()).map(|v| tokens(v).map(nll).collect()).collect();
                    }
                }
            }
        }
        Ok(measured)
    }
}

/// Told how far the work is.
type Observer<'a> = &'a mut dyn FnMut(Event<'_>) -> ControlFlow<()>;

/// Keys and values of leading tokens: `[layer][node]`.
type Caches = Vec<Vec<KeyValues>>;

/// How a request is worked through.
struct Plan {
    /// Ranges of the variants, each with its trie.
    tries: Vec<(Range<usize>, Trie)>,
    /// Leading tokens that are computed once for all samples.
    prefix: usize,
    /// A batch is full when it has so many tokens.
    tokens: usize,
}

/// One batch on its way through one trie.
#[derive(Clone, Copy)]
struct Pass<'a> {
    batch: &'a Batch,
    trie: &'a Trie,
    ropes: &'a Ropes,
    past: Option<&'a Caches>,
    /// Whether the NLL of every answer token is kept.
    token_nll: bool,
}

/// What is known of one sample after a pass.
#[derive(Clone, Default)]
struct Measured {
    variants: Vec<VariantScore>,
    lens: Vec<LensCurve>,
    token_nll: Vec<Vec<f32>>,
}

impl Engine for Embedded {
    fn layers(&self) -> usize {
        self.model.config().layers
    }

    fn work(&self, samples: &[Sample], request: &Request) -> u64 {
        let Ok(Plan { tries, prefix, .. }) = self.plan(samples, request) else { return 0 };
        let answers: usize = samples.iter().map(|sample| sample.answer.len()).sum();
        let lens = self.head_work(answers * request.lens.len() * (self.layers() - 1));
        let batch = Batch::new(samples, prefix);
        let layers = tries.iter().flat_map(|(_, trie)| (0..self.layers()).map(move |layer| (layer, trie.level(layer))));
        let layers =
            layers.flat_map(|(layer, nodes)| nodes.iter().map(move |node| (layer, node))).map(|(layer, node)| {
                let is_last = layer + 1 == self.layers();
                let shared = self.layer_work(layer, &node.gates, 0, prefix, is_last.then_some(&[][..]));
                let own = batch.sequences.iter().map(|Sequence { rows, wanted, .. }| {
                    self.layer_work(layer, &node.gates, prefix, rows.len(), is_last.then_some(wanted.as_slice()))
                });
                shared + own.sum::<u64>()
            });
        let heads: usize = tries.iter().map(|(_, trie)| trie.level(self.layers() - 1).len()).sum();
        layers.sum::<u64>() + lens + self.head_work(answers * heads)
    }

    fn score(
        &self,
        samples: &[Sample],
        request: &Request,
        observe: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<SampleScores>> {
        self.check(&request.variants)?;
        if request.variants.is_empty() || samples.is_empty() {
            return Ok(Vec::new());
        }
        let Plan { tries, prefix, tokens } = self.plan(samples, request)?;
        let ropes = self.model.ropes(samples.iter().map(|sample| sample.tokens.len()));
        let caches = match tries.as_slice() {
            [(_, trie)] if prefix > 0 => {
                let tokens = &samples[0].tokens;
                Some(self.prefix(&tokens[..prefix], tokens.len(), trie, &ropes, observe)?)
            }
            _ => None,
        };
        let mut all = Vec::with_capacity(samples.len());
        for samples in batches(samples, prefix, tokens) {
            let batch = Batch::new(samples, prefix);
            let mut finished: Vec<SampleScores> = samples
                .iter()
                .map(|sample| SampleScores {
                    line: sample.line,
                    tokens: sample.answer.len(),
                    variants: Vec::new(),
                    lens: vec![LensCurve::default(); request.lens.len()],
                    token_nll: Vec::new(),
                })
                .collect();
            for (variants, trie) in &tries {
                let ours = |&(_, variant): &(usize, usize)| variants.contains(&variant);
                let lens: Vec<(usize, usize)> = request.lens.iter().copied().enumerate().filter(ours).collect();
                let of_trie: Vec<usize> = lens.iter().map(|(_, variant)| variant - variants.start).collect();
                let (past, token_nll) = (caches.as_ref(), request.token_nll);
                let pass = Pass { batch: &batch, trie, ropes: &ropes, past, token_nll };
                for (scores, measured) in finished.iter_mut().zip(self.batch(&pass, &of_trie, observe)?) {
                    scores.variants.extend(measured.variants);
                    scores.token_nll.extend(measured.token_nll);
                    for (&(index, _), curve) in lens.iter().zip(measured.lens) {
                        scores.lens[index] = curve;
                    }
                }
            }
            let finished: Vec<_> =
                finished.into_iter().map(|scores| finite(scores, &request.variants)).collect::<Result<_>>()?;
            let flow = observe(Event::Scored(&finished));
            all.extend(finished);
            stop_if(flow)?;
        }
        Ok(all)
    }
}

/// How many leading tokens all samples share, as far as none of them is needed to predict an answer.
fn shared_prefix(samples: &[Sample]) -> usize {
    let [first, rest @ ..] = samples else { return 0 };
    if rest.is_empty() {
        return 0;
    }
    let before = |sample: &Sample| sample.answer.iter().min().map_or(0, |&first| first - 1);
    let shared = |sample: &Sample| first.tokens.iter().zip(&sample.tokens).take_while(|(a, b)| a == b).count();
    rest.iter().map(|sample| shared(sample).min(before(sample))).min().unwrap_or(0).min(before(first))
}

/// Cuts samples into batches of about `most` tokens that are not shared, in order.
fn batches(mut samples: &[Sample], prefix: usize, most: usize) -> impl Iterator<Item = &[Sample]> {
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

/// Some samples without their shared prefix, packed end to end.
struct Batch {
    /// Position of each sequence's first row.
    first: usize,
    tokens: Vec<u32>,
    sequences: Vec<Sequence>,
    /// For each answer token, sample by sample, the row that predicts it, and the token.
    answers: Vec<(usize, u32)>,
    /// The same after the last layer, where no other rows are left.
    last_answers: Vec<(usize, u32)>,
}

/// One sample in a batch.
struct Sequence {
    rows: Range<usize>,
    /// Rows that predict an answer token, counted from the sequence's first.
    wanted: Vec<usize>,
    /// Its entries in the batch's answers.
    answers: Range<usize>,
}

impl Batch {
    fn new(samples: &[Sample], prefix: usize) -> Self {
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

    fn rows(&self) -> usize {
        self.tokens.len()
    }

    /// The sequences of every node, node by node, in groups of about [`CHUNK_ROWS`] rows.
    fn chunks(&self, nodes: usize) -> Vec<Vec<(usize, &Sequence)>> {
        let mut chunks: Vec<Vec<_>> = Vec::new();
        let mut rows = CHUNK_ROWS;
        for node in 0..nodes {
            for sequence in &self.sequences {
                if rows >= CHUNK_ROWS {
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

fn stop_if(flow: ControlFlow<()>) -> Result<()> {
    if flow.is_break() { Err(Error::Interrupted) } else { Ok(()) }
}

fn mean(scores: &[TokenScore], value: impl Fn(&TokenScore) -> f64) -> f64 {
    scores.iter().map(value).sum::<f64>() / scores.len() as f64
}

/// Refuses scores that are infinite or not numbers: they would poison every mean without a word.
fn finite(scores: SampleScores, variants: &[Variant]) -> Result<SampleScores> {
    let infinite = scores.variants.iter().zip(variants).find(|(score, _)| !score.nll.is_finite());
    let Some((_, variant)) = infinite else { return Ok(scores) };
    let cause = if variant.layers_kept() == 0 {
        "without the adapter: check the base model's weights".to_owned()
    } else {
        format!("with the adapter's gates at `{}`: check the adapter's weights and scale", variant.spec())
    };
    Err(Error::Engine(format!("hidden states overflow on line {} of the data, {cause}", scores.line)))
}
