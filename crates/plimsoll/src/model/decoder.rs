//! The decoder: embedding, blocks, head.
//!
//! A pre-norm transformer with rotary attention and a gated MLP, as in Llama (Touvron et al., arXiv:2302.13971).
//! Differences of other models are facts of the configuration. Rows of several sequences are packed end to end, without
//! padding. Each sequence has the LoRA strengths of its own variant, so that many variants share one pass over the
//! frozen weights.

use std::collections::BTreeMap;
use std::ops::Range;

use plimsoll_kernels::{
    Attention, AttentionRule, AttentionScratch, AttentionShape, KeyValues, Mode, Packed, RopeTable, Rows, Threads,
    TokenScore, add_rms_norm, attend, cap_logits, gated, linear, norm_heads, rms_norm, rotate, score_tokens,
};
use rayon::prelude::*;

use super::Precision;
use super::config::{Config, LayerAttention, Rope};
use super::linears::LinearGroup;
use super::lora::{Lora, LowRank, Product, sized};
use super::observer::BlockObserver;
use super::opened::Model;
use super::reader::WeightRows;
use super::weights::{Norm, Weight};
use crate::error::Result;
use crate::lora::adapter::{BoundAdapter, LayerLora};
use crate::lora::{LayerGates, Projection};

/// A base model with packed weights, ready for forward passes.
#[derive(Debug)]
pub struct Transformer {
    config: Config,
    precision: Precision,
    /// One column for each token of the vocabulary.
    embedding: Packed,
    blocks: Vec<Block>,
    /// `(hidden)`
    final_norm: Vec<f32>,
    /// One column for each token of the vocabulary; `None` if the embedding is the head.
    head: Option<Packed>,
}

/// The weights of one layer.
#[derive(Debug)]
struct Block {
    /// `(hidden)`
    attention_norm: Vec<f32>,
    /// `(hidden)`
    mlp_norm: Vec<f32>,
    /// Norms of queries and of keys: `(head_dim)` each.
    query_key_norms: Option<[Vec<f32>; 2]>,
    /// Norms of the outputs of attention and of the MLP: `(hidden)` each.
    post_norms: Option<[Vec<f32>; 2]>,
    /// Indexed by `LinearGroup as usize`.
    linears: [Packed; LinearGroup::COUNT],
}

/// One sequence among the rows of a block.
#[derive(Debug)]
pub struct Segment<'a> {
    /// Its rows, which follow those of the segment before.
    pub rows: Range<usize>,
    /// The LoRA strengths of the layer.
    pub gates: LayerGates,
    /// Length of the whole sequence in tokens, including tokens to come: some rotary embeddings depend on it.
    pub length: usize,
    /// Keys and values of the positions before its first row.
    pub past: Option<&'a KeyValues>,
    /// Cache for its keys and values, which continues `past`; `None` discards them.
    pub cache: Option<&'a mut KeyValues>,
    /// Rows whose output is needed, ascending and counted from the segment's first row; `None` for all.
    pub wanted: Option<&'a [usize]>,
}

/// Options and buffers of the computation of a block.
pub struct BlockPass<'a> {
    /// Rotary embeddings for the lengths of the segments.
    pub ropes: &'a Ropes,
    /// The threads that share the work.
    pub threads: Threads,
    /// Buffers of the computation.
    pub scratch: &'a mut Scratch,
    /// Observer of the updates of all modules.
    pub observer: Option<&'a mut dyn BlockObserver>,
}

/// Buffers of the computation of a block, which grow as needed and are reused across passes.
#[derive(Debug)]
pub struct Scratch {
    normed: Rows,
    qkv: Vec<f32>,
    attended: Rows,
    gated: Rows,
    /// The output of attention or MLP before its norm.
    branch: Vec<f32>,
    attention: AttentionScratch,
    keys: KeyValues,
    low_rank: LowRank,
}

/// Buffers of attention.
struct AttentionBuffers<'a> {
    /// Keys and values of a segment without a cache.
    keys: &'a mut KeyValues,
    /// The outputs: `(outputs, heads · head_dim)`.
    attended: &'a mut Rows,
    scratch: &'a mut AttentionScratch,
}

impl Transformer {
    /// Reads and packs all weights of a model on all threads of the current pool. The adapter's changes outside the
    /// layers are merged into the weights.
    ///
    /// # Errors
    /// A tensor that cannot be read, or has values that are not finite.
    pub fn load(model: &Model, bound: &BoundAdapter, precision: Precision) -> Result<Self> {
        let config = model.config().clone();
        let Config { hidden, vocabulary, .. } = config;
        let Precision { dtype, .. } = precision;
        let pack = |weight| -> Result<Packed> {
            let rows = model.rows(weight, bound)?;
            Packed::new(dtype, vocabulary, hidden, |column, out| rows.read(column, out))
        };
        let linear = |layer, input: LinearGroup| -> Result<Packed> {
            let of =
                |&projection| -> Result<_> { Ok((projection, model.rows(Weight::Linear(layer, projection), bound)?)) };
            let rows: Vec<(Projection, WeightRows<'_>)> = input.projections().iter().map(of).collect::<Result<_>>()?;
            let packed = Packed::new(dtype, input.columns(&config), input.width(&config), |column, out| {
                let source = input.source(&config, column);
                let found = source.and_then(|(projection, row)| {
                    rows.iter().find(|(candidate, _)| *candidate == projection).map(|(_, rows)| (rows, row))
                });
                match found {
                    Some((rows, row)) => rows.read(row, out),
                    None => {
                        out.fill(0.0);
                        Ok(())
                    }
                }
            })?;
            let biased = input.projections().iter().filter(|projection| config.biased.contains(projection));
            let of =
                |&projection| -> Result<_> { Ok((projection, model.read(Weight::Bias(layer, projection), bound)?)) };
            let biases: BTreeMap<Projection, Vec<f32>> = biased.map(of).collect::<Result<_>>()?;
            if biases.is_empty() {
                return Ok(packed);
            }
            let of_column = |column| {
                let (projection, row) = input.source(&config, column)?;
                biases.get(&projection).map(|bias| bias[row])
            };
            let columns = 0..input.columns(&config);
            Ok(packed.with_bias(columns.map(|column| of_column(column).unwrap_or(0.0)).collect()))
        };
        let block = |layer| -> Result<Block> {
            let norm = |norm| model.read(Weight::Norm(layer, norm), bound);
            let norms = |is_there: bool, a, b| is_there.then(|| -> Result<_> { Ok([norm(a)?, norm(b)?]) }).transpose();
            Ok(Block {
                attention_norm: norm(Norm::Attention)?,
                mlp_norm: norm(Norm::Mlp)?,
                query_key_norms: norms(config.query_key_norm, Norm::Query, Norm::Key)?,
                post_norms: norms(config.post_norms, Norm::PostAttention, Norm::PostMlp)?,
                linears: [
                    linear(layer, LinearGroup::Qkv)?,
                    linear(layer, LinearGroup::AttentionOut)?,
                    linear(layer, LinearGroup::GateUp)?,
                    linear(layer, LinearGroup::Down)?,
                ],
            })
        };
        Ok(Self {
            embedding: pack(Weight::Embedding)?,
            blocks: (0..config.layers).into_par_iter().map(block).collect::<Result<_>>()?,
            final_norm: model.read(Weight::FinalNorm, bound)?,
            head: model.has_own_head(bound).then(|| pack(Weight::Head)).transpose()?,
            precision,
            config,
        })
    }

    /// The configuration of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The dtype and the instruction set.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The rotary embeddings for sequences of these lengths, in tokens.
    pub fn ropes(&self, lengths: impl IntoIterator<Item = usize>) -> Ropes {
        Ropes::new(&self.config, lengths)
    }

    /// Packs the LoRA of a layer for this model.
    pub fn pack_lora(&self, layer: usize, lora: &LayerLora) -> Lora {
        Lora::new(&self.config, self.precision.dtype, &self.blocks[layer].linears, lora)
    }

    /// The packed weights of the projections that share an input.
    fn linears(&self, layer: usize, input: LinearGroup) -> &Packed {
        &self.blocks[layer].linears[input as usize]
    }

    /// An empty cache for the keys and values of one sequence in one layer.
    pub fn key_values(&self) -> KeyValues {
        KeyValues::new(self.precision.dtype, self.attention_shape())
    }

    /// Bytes of the keys and values of a number of positions in one layer.
    pub fn key_value_bytes(&self, positions: usize) -> usize {
        KeyValues::bytes(self.precision.dtype, self.attention_shape(), positions)
    }

    /// Empty buffers for [`block`](Self::block) and [`score`](Self::score).
    pub fn scratch(&self) -> Scratch {
        let dtype = self.precision.dtype;
        Scratch {
            normed: Rows::new(dtype),
            qkv: Vec::new(),
            attended: Rows::new(dtype),
            gated: Rows::new(dtype),
            branch: Vec::new(),
            attention: AttentionScratch::new(dtype),
            keys: self.key_values(),
            low_rank: LowRank::new(dtype),
        }
    }

    /// Bytes of [`scratch`](Self::scratch) after a pass with this number of rows.
    pub fn scratch_bytes(&self, rows: usize) -> usize {
        let Config { hidden, intermediate, heads, head_dim, post_norms, .. } = self.config;
        let branch = if post_norms { hidden } else { 0 };
        let factors = self.precision.dtype.bytes() * (hidden + heads * head_dim * 2 + intermediate);
        rows * (factors + 4 * (2 * self.attention_shape().width() + hidden + branch)) + self.key_value_bytes(rows)
    }

    /// Hidden states before the first layer: `(tokens, hidden)`.
    ///
    /// # Panics
    /// If a token is not in the vocabulary.
    pub fn embed(&self, tokens: &[u32]) -> Vec<f32> {
        let mut x = vec![0.0; tokens.len() * self.config.hidden];
        for (&token, x) in tokens.iter().zip(x.chunks_exact_mut(self.config.hidden)) {
            self.embedding.unpack(token as usize, x);
            x.iter_mut().for_each(|x| *x *= self.config.embedding_scale);
        }
        x
    }

    /// Computes one layer on the hidden states `x (rows, hidden)`, in place. Rows whose output is not wanted are
    /// removed.
    ///
    /// # Panics
    /// If the segments do not cover the rows, or if `ropes` was not made for a segment's length.
    pub fn block(
        &self,
        layer: usize,
        lora: &Lora,
        segments: &mut [Segment<'_>],
        x: &mut Vec<f32>,
        pass: BlockPass<'_>,
    ) {
        let BlockPass { ropes, threads, scratch, mut observer } = pass;
        let Config { hidden, intermediate, heads, kv_heads, head_dim, norm_epsilon, activation, .. } = self.config;
        let Precision { isa, .. } = self.precision;
        let block = &self.blocks[layer];
        let weight = |input: LinearGroup| self.linears(layer, input);
        let width = self.attention_shape().width();
        let Scratch { normed, qkv, attended, gated: activations, branch, attention: buffers, keys, low_rank } = scratch;

        rms_norm(isa, normed, x, &block.attention_norm, norm_epsilon); // (rows, hidden)
        let qkv = sized(qkv, normed.rows() * width);
        let w = weight(LinearGroup::Qkv);
        let product = Product { isa, x: normed, w, threads };
        let update = low_rank.update(product, lora.get(LinearGroup::Qkv), runs(segments), &mut observer);
        linear(isa, qkv, normed, w, update, Mode::Set, threads); // (rows, q | k | v)
        if let Some([query, key]) = &block.query_key_norms {
            norm_heads(isa, qkv, width, 0, heads, query, norm_epsilon);
            norm_heads(isa, qkv, width, heads * head_dim, kv_heads, key, norm_epsilon);
        }

        let wanted: usize = segments.iter().map(Segment::outputs).sum();
        attended.resize(wanted, heads * head_dim);
        let attention = AttentionBuffers { keys, attended: &mut *attended, scratch: buffers };
        self.attend(layer, segments, qkv, attention, ropes, threads);
        keep_wanted_rows(segments, x, hidden);
        let runs = output_runs(segments);

        // Adds the output of attention or MLP to the residual stream, after its norm if there is one.
        let mut add = |x: &mut [f32],
                       from: &Rows,
                       input: LinearGroup,
                       norm: Option<&Vec<f32>>,
                       low_rank: &mut LowRank,
                       observer: &mut Option<&mut dyn BlockObserver>| {
            let w = weight(input);
            let product = Product { isa, x: from, w, threads };
            let update = low_rank.update(product, lora.get(input), runs.clone(), observer);
            match norm {
                None => linear(isa, x, from, w, update, Mode::Add, threads),
                Some(norm) => {
                    let branch = sized(branch, x.len());
                    linear(isa, branch, from, w, update, Mode::Set, threads);
                    add_rms_norm(isa, x, branch, norm, norm_epsilon);
                }
            }
        };
        let [after_attention, after_mlp] = block.post_norms.as_ref().map_or([None, None], |[a, b]| [Some(a), Some(b)]);
        add(x, attended, LinearGroup::AttentionOut, after_attention, low_rank, &mut observer); // (outputs, hidden)

        rms_norm(isa, normed, x, &block.mlp_norm, norm_epsilon); // (outputs, hidden)
        activations.resize(wanted, intermediate);
        let w = weight(LinearGroup::GateUp);
        let product = Product { isa, x: normed, w, threads };
        let update = low_rank.update(product, lora.get(LinearGroup::GateUp), runs.clone(), &mut observer);
        gated(isa, activations, normed, w, activation, update, threads); // (outputs, intermediate)
        add(x, activations, LinearGroup::Down, after_mlp, low_rank, &mut observer); // (outputs, hidden)
    }

    /// Rotates queries and keys in `qkv (rows, q | k | v)`, extends the caches, and computes the attention of all
    /// segments.
    fn attend(
        &self,
        layer: usize,
        segments: &mut [Segment<'_>],
        qkv: &mut [f32],
        buffers: AttentionBuffers<'_>,
        ropes: &Ropes,
        threads: Threads,
    ) {
        let AttentionBuffers { keys, attended, scratch } = buffers;
        let Config { heads, kv_heads, head_dim, .. } = self.config;
        let Precision { isa, .. } = self.precision;
        let LayerAttention { window, rope } = self.config.attention[layer];
        let rule = AttentionRule { scale: self.config.attention_scale, softcap: self.config.attention_softcap, window };
        let width = self.attention_shape().width();
        let mut to = 0;
        for segment in segments.iter_mut() {
            let outputs = segment.outputs();
            let Segment { rows, past, cache, wanted, length, .. } = segment;
            let qkv = &mut qkv[rows.start * width..rows.end * width];
            let is_kept = cache.is_some();
            let own = cache.as_deref_mut().unwrap_or_else(|| {
                keys.restart(*past);
                keys
            });
            let table = ropes.of(rope, *length);
            rotate(isa, qkv, heads + kv_heads, head_dim, table, own.len()..own.len() + rows.len());
            own.extend(isa, qkv);
            // Segments without a cache share one buffer, which the next segment overwrites.
            if !is_kept {
                let attention = [Attention { to, qkv, wanted: *wanted, past: *past, own }];
                attend(isa, attended, rule, &attention, threads, scratch);
            }
            to += outputs;
        }
        // Segments with a cache are computed in one call.
        let (mut kept, mut to) = (Vec::new(), 0);
        for segment in segments.iter() {
            let Segment { rows, past, cache, wanted, .. } = segment;
            let qkv = &qkv[rows.start * width..rows.end * width];
            if let Some(own) = cache {
                kept.push(Attention { to, qkv, wanted: *wanted, past: *past, own });
            }
            to += segment.outputs();
        }
        attend(isa, attended, rule, &kept, threads, scratch);
    }

    /// Scores `tokens[i]` as the prediction of the hidden state `x[i]`, with `x (rows, hidden)` after any layer. The
    /// final norm and the head are applied. After the last layer this is the model's prediction, after earlier layers
    /// the logit lens.
    pub fn score(&self, x: &[f32], tokens: &[u32], scratch: &mut Scratch) -> Vec<TokenScore> {
        let Precision { isa, .. } = self.precision;
        rms_norm(isa, &mut scratch.normed, x, &self.final_norm, self.config.norm_epsilon); // (rows, hidden)
        score_tokens(isa, &scratch.normed, self.head(), tokens, self.config.logit_softcap)
    }

    /// Logits `(rows, vocabulary)` of hidden states `x (rows, hidden)` after the last layer.
    pub fn logits(&self, x: &[f32], threads: Threads, scratch: &mut Scratch) -> Vec<f32> {
        let Config { hidden, vocabulary, norm_epsilon, logit_softcap, .. } = self.config;
        let Precision { isa, .. } = self.precision;
        rms_norm(isa, &mut scratch.normed, x, &self.final_norm, norm_epsilon);
        let mut logits = vec![0.0; x.len() / hidden * vocabulary];
        linear(isa, &mut logits, &scratch.normed, self.head(), None, Mode::Set, threads);
        if let Some(cap) = logit_softcap {
            cap_logits(isa, &mut logits, cap);
        }
        logits
    }

    fn head(&self) -> &Packed {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    fn attention_shape(&self) -> AttentionShape {
        let Config { heads, kv_heads, head_dim, .. } = self.config;
        AttentionShape { heads, kv_heads, head_dim }
    }
}

/// Tables of a model's rotary embeddings for given sequence lengths.
#[derive(Debug)]
pub struct Ropes {
    /// For each rotary embedding of the model, the tables by class of length, see [`Rope::class`].
    tables: Vec<(Rope, BTreeMap<usize, RopeTable>)>,
}

impl Ropes {
    fn new(config: &Config, lengths: impl IntoIterator<Item = usize>) -> Self {
        let lengths: Vec<usize> = lengths.into_iter().collect();
        let tables = config.ropes.iter().map(|rope| {
            // The longest of each class: lengths of one class have the same frequencies.
            let mut longest = BTreeMap::new();
            for &length in &lengths {
                let longest = longest.entry(rope.class(length)).or_default();
                *longest = length.max(*longest);
            }
            let table = |(class, length)| {
                let frequencies = rope.frequencies(config.rotary_dim, length);
                (class, RopeTable::new(&frequencies, rope.attention(), length))
            };
            (rope.clone(), longest.into_iter().map(table).collect())
        });
        Self { tables: tables.collect() }
    }

    /// The table of one rotary embedding for a sequence of this length.
    ///
    /// # Panics
    /// If `self` was not made for this length.
    fn of(&self, rope: usize, length: usize) -> &RopeTable {
        let (rope, tables) = &self.tables[rope];
        &tables[&rope.class(length)]
    }
}

impl Segment<'_> {
    /// Number of rows whose output is wanted.
    fn outputs(&self) -> usize {
        self.wanted.map_or(self.rows.len(), <[usize]>::len)
    }
}

/// Moves the rows of `x (rows, hidden)` whose output is wanted to the front, and removes the others.
fn keep_wanted_rows(segments: &[Segment<'_>], x: &mut Vec<f32>, hidden: usize) {
    let rows = segments.iter().flat_map(|segment| {
        let all = segment.wanted.is_none().then(|| segment.rows.clone()).into_iter().flatten();
        let some = segment.wanted.unwrap_or_default().iter().map(|row| segment.rows.start + row);
        all.chain(some)
    });
    let mut outputs = 0;
    for row in rows {
        if outputs != row {
            x.copy_within(row * hidden..(row + 1) * hidden, outputs * hidden);
        }
        outputs += 1;
    }
    x.truncate(outputs * hidden);
}

/// Rows of each segment, with their LoRA strengths.
fn runs(segments: &[Segment<'_>]) -> Vec<(Range<usize>, LayerGates)> {
    joined(segments.iter().map(|segment| (segment.rows.clone(), segment.gates)))
}

/// Rows of each segment among those whose output is wanted, with their LoRA strengths.
fn output_runs(segments: &[Segment<'_>]) -> Vec<(Range<usize>, LayerGates)> {
    let mut at = 0;
    joined(segments.iter().map(|segment| {
        let start = at;
        at += segment.outputs();
        (start..at, segment.gates)
    }))
}

/// Joins neighbouring runs with the same LoRA strengths.
fn joined(runs: impl Iterator<Item = (Range<usize>, LayerGates)>) -> Vec<(Range<usize>, LayerGates)> {
    let mut joined: Vec<(Range<usize>, LayerGates)> = Vec::new();
    for (rows, gates) in runs {
        match joined.last_mut() {
            Some((last, same)) if *same == gates && last.end == rows.start => last.end = rows.end,
            _ => joined.push((rows, gates)),
        }
    }
    joined
}
