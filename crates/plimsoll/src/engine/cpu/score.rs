//! Scoring on the CPU: all variants in one pass over the frozen weights.
//!
//! Samples are packed end to end in batches. For each layer, the sequences of all trie nodes are split into chunks of
//! rows. A thread computes the whole layer for a chunk, so threads wait for each other only at the end of a layer, and
//! results do not depend on the number of threads. Leading tokens that all samples share are computed once for each
//! node, and all samples use their keys and values.

use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use plimsoll_kernels::{KeyValues, Threads, TokenScore};
use rayon::prelude::*;

use super::load::{CpuEngine, Workspace};
use crate::data::Sample;
use crate::engine::batch::{Batch, Sequence, batches};
use crate::engine::plan::{Footprint, Plan};
use crate::engine::scorer::{Capabilities, EngineIdentity, Request, ScoreEvent, Scorer, layer_passes, stop_if};
use crate::engine::trie::{Node, Trie};
use crate::error::{Error, Result};
use crate::lora::{Projection, Variant};
use crate::model::{BlockPass, Precision, Ropes, Segment};
use crate::result::{LensCurve, SampleScores, VariantScore};

/// Number of rows at which a chunk is full: enough for the matrix products to be fast, few enough for intermediate
/// results to stay in the second-level cache.
pub(super) const CHUNK_ROWS: usize = 128;

/// Number of rows that one thread takes through the head at a time.
const HEAD_ROWS: usize = 252;

/// Tokens of a batch per thread: enough rows for all threads even if the trie is narrow, and few enough that samples
/// are finished, and journalled, every few seconds.
const BATCH_TOKENS: usize = 512;

/// Multiply-adds between two calls of the observer: about a second on two cores.
const WORK_BETWEEN_EVENTS: u64 = 200_000_000_000;

/// Receives progress reports.
type Observer<'a> = &'a mut dyn FnMut(ScoreEvent<'_>) -> ControlFlow<()>;

/// Keys and values of leading tokens: `[layer][node]`.
type Caches = Vec<Vec<KeyValues>>;

/// One batch and one trie.
#[derive(Clone, Copy)]
struct Pass<'a> {
    batch: &'a Batch,
    trie: &'a Trie,
    ropes: &'a Ropes,
    past: Option<&'a Caches>,
    /// Whether the NLL of every answer token is kept.
    token_nll: bool,
}

/// The scores of one sample after a pass.
#[derive(Clone, Default)]
struct Measured {
    variants: Vec<VariantScore>,
    lens: Vec<LensCurve>,
    token_nll: Vec<Vec<f32>>,
}

impl CpuEngine {
    /// The plan that keeps a request within the memory limit.
    fn plan(&self, samples: &[Sample], request: &Request) -> Result<Plan> {
        let threads = self.threads();
        let footprint = Footprint {
            memory: self.memory,
            threads,
            scratch: &|longest| (threads * self.model.scratch_bytes(CHUNK_ROWS + longest)) as u64,
            state: (self.model.config().hidden * size_of::<f32>()) as u64,
            key_values: &|tokens| self.model.key_value_bytes(tokens) as u64,
            batch_tokens: BATCH_TOKENS * threads.max(2),
        };
        Plan::new(samples, &request.variants, &self.adapted, &footprint, self.rotates_alike(samples))
    }

    /// Whether rotary embeddings are the same in all samples, so that shared tokens have the same keys.
    fn rotates_alike(&self, samples: &[Sample]) -> bool {
        let length = |sample: &Sample| sample.tokens.len();
        samples.windows(2).all(|pair| self.model.config().rotates_alike(length(&pair[0]), length(&pair[1])))
    }

    /// The keys and values of shared leading `tokens`, `[layer][node]`. `length` is the length of a sample, for rotary
    /// embeddings that depend on it.
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
            // Of the last layer only keys and values are used.
            let wanted = (layer + 1 == self.lora.len()).then_some(&[][..]);
            let nodes = trie.level(layer);
            let advance = |node: &Node| {
                let Workspace { scratch, .. } = &mut *self.workspace();
                let (mut x, mut cache) = (states[node.parent].clone(), self.model.key_values());
                let (rows, gates) = (0..tokens.len(), node.gates);
                let mut segments = [Segment { rows, gates, length, past: None, cache: Some(&mut cache), wanted }];
                let pass = BlockPass { ropes, threads: Threads::One, scratch, observer: None };
                self.model.block(layer, lora, &mut segments, &mut x, pass);
                (x, cache)
            };
            let computed: Vec<_> = self.pool.install(|| nodes.par_iter().map(advance).collect());
            let (next, of_layer): (Vec<_>, Vec<_>) = computed.into_iter().unzip();
            (states, _) = (next, caches.push(of_layer));
            let work = |node: &Node| self.layer_work(layer, &node.gates, 0, tokens.len(), wanted);
            stop_if(observe(ScoreEvent::Work(nodes.iter().map(work).sum())))?;
        }
        Ok(caches)
    }

    /// Computes one layer for all nodes, from the states of the layer before. States are `(nodes, rows, hidden)`; the
    /// last layer keeps only the rows that predict an answer token.
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
        for chunk in batch.chunks(nodes.len(), CHUNK_ROWS) {
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
            // Long chunks first: at the end, threads wait for a short chunk at most.
            some.sort_by_key(|(chunk, _)| std::cmp::Reverse(chunk.iter().map(work).sum::<u64>()));
            let queue = Mutex::new(some.into_iter());
            let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            self.pool.broadcast(|_| {
                let Workspace { x, scratch } = &mut *self.workspace();
                while let Some((chunk, to)) = next() {
                    x.clear();
                    let mut segments = Vec::with_capacity(chunk.len());
                    for (node, Sequence { rows, wanted, .. }) in chunk {
                        let first = x.len() / hidden;
                        let parent = nodes[node].parent * batch.rows();
                        x.extend_from_slice(&from[(parent + rows.start) * hidden..(parent + rows.end) * hidden]);
                        segments.push(Segment {
                            rows: first..first + rows.len(),
                            gates: nodes[node].gates,
                            length: batch.first + rows.len(),
                            past: past.map(|past| &past[layer][node]),
                            cache: None,
                            wanted: is_last.then_some(wanted),
                        });
                    }
                    let pass = BlockPass { ropes, threads: Threads::One, scratch, observer: None };
                    self.model.block(layer, &self.lora[layer], &mut segments, x, pass);
                    to.copy_from_slice(x);
                }
            });
            stop_if(observe(ScoreEvent::Work(done)))?;
        }
        Ok(())
    }

    /// Scores answer tokens from states `(rows, hidden)`: `wanted[i]` is a row and the token that it should predict.
    fn answers(&self, states: &[f32], wanted: &[(usize, u32)], observe: Observer<'_>) -> Result<Vec<TokenScore>> {
        let hidden = self.model.config().hidden;
        let mut scores = Vec::with_capacity(wanted.len());
        let between = usize::try_from(WORK_BETWEEN_EVENTS / self.head_work(1).max(1)).unwrap_or(usize::MAX);
        for wanted in wanted.chunks(between.max(HEAD_ROWS * self.threads())) {
            // Pieces of nearly equal size, so that no thread waits for a large last one.
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
            stop_if(observe(ScoreEvent::Work(self.head_work(wanted.len()))))?;
        }
        Ok(scores)
    }

    /// Scores a batch under the variants of one trie. Returns for each sample the scores of all variants, and a curve
    /// for each of `lens`, indices of variants in the trie.
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

impl Scorer for CpuEngine {
    fn layers(&self) -> usize {
        self.model.config().layers
    }

    fn adapted(&self) -> &[[bool; Projection::COUNT]] {
        &self.adapted
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::ALL
    }

    fn identity(&self) -> EngineIdentity {
        let Precision { isa, dtype } = self.model.precision();
        EngineIdentity { dtype: dtype.to_string(), instructions: isa.to_string(), threads: self.threads() }
    }

    fn measure_rate(&self, tokens: &[u32]) -> Result<f64> {
        Ok(self.multiply_adds_per_second(tokens))
    }

    fn layer_passes(&self, variants: &[Variant]) -> usize {
        layer_passes(variants, self.adapted()).0
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
        observe: &mut dyn FnMut(ScoreEvent<'_>) -> ControlFlow<()>,
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
                let is_in_trie = |&(_, variant): &(usize, usize)| variants.contains(&variant);
                let lens: Vec<(usize, usize)> = request.lens.iter().copied().enumerate().filter(is_in_trie).collect();
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
            let flow = observe(ScoreEvent::Scored(&finished));
            all.extend(finished);
            stop_if(flow)?;
        }
        Ok(all)
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

fn mean(scores: &[TokenScore], value: impl Fn(&TokenScore) -> f64) -> f64 {
    scores.iter().map(value).sum::<f64>() / scores.len() as f64
}

/// Refuses scores that are infinite or NaN: they would make every mean useless.
fn finite(scores: SampleScores, variants: &[Variant]) -> Result<SampleScores> {
    let infinite = scores.variants.iter().zip(variants).find(|(score, _)| !score.nll.is_finite());
    let Some((_, variant)) = infinite else { return Ok(scores) };
    let cause = if variant.layers_kept() == 0 {
        "without the adapter: check the base model's weights".to_owned()
    } else {
        format!("with LoRA strengths `{}`: check the adapter's weights and scale", variant.spec())
    };
    Err(Error::Engine(format!("hidden states overflow on line {} of the data, {cause}", scores.line)))
}
