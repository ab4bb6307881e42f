//! The one decoder: embed, blocks, head.
//!
//! Pre-norm transformer with rotary attention and a gated MLP, as Llama has it (Touvron et al., arXiv:2302.13971), with
//! what other models have besides as facts of their configuration. Rows of several sequences lie end to end, without
//! padding; each sequence brings the gates of its own variant, so that many variants share one pass over the frozen
//! weights.

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
use super::lora::{Lora, LowRank, sized};
use super::observer::BlockObserver;
use super::opened::Model;
use super::reader::WeightRows;
use super::weights::{Norm, Weight};
use crate::error::Result;
use crate::lora::adapter::{BoundAdapter, LayerLora};
use crate::lora::{LayerGates, Projection};

/// A base model, ready to run.
#[derive(Debug)]
pub struct Transformer {
    config: Config,
    precision: Precision,
    /// One column for each entry of the vocabulary.
    embedding: Packed,
    blocks: Vec<Block>,
    /// `(hidden)`
    final_norm: Vec<f32>,
    /// The same; none where the embedding serves as the head.
    head: Option<Packed>,
}

/// The weights of one layer.
#[derive(Debug)]
struct Block {
    /// `(hidden)`
    attention_norm: Vec<f32>,
    /// `(hidden)`
    mlp_norm: Vec<f32>,
    /// Of queries and of keys: `(head_dim)` each.
    query_key_norms: Option<[Vec<f32>; 2]>,
    /// Of what attention gives and of what the MLP gives: `(hidden)` each.
    post_norms: Option<[Vec<f32>; 2]>,
    /// Indexed by `LinearGroup as usize`.
    linears: [Packed; LinearGroup::COUNT],
}

/// One sequence among the rows of a block.
#[derive(Debug)]
pub struct Segment<'a> {
    /// Its rows; they follow those of the segment before.
    pub rows: Range<usize>,
    /// How strongly the layer's LoRA is applied to it.
    pub gates: LayerGates,
    /// Tokens that the whole sequence has, or is to have: some rotary embeddings depend on it.
    pub length: usize,
    /// Keys and values of the positions before its first row.
    pub past: Option<&'a KeyValues>,
    /// Where its keys and values are to be kept: begun after `past`. They are dropped where none is given.
    pub cache: Option<&'a mut KeyValues>,
    /// Those of its rows, ascending and counted from its first, whose output is wanted; all where none are given.
    pub wanted: Option<&'a [usize]>,
}

/// How a block is computed.
pub struct BlockPass<'a> {
    /// Made for the lengths of the segments.
    pub ropes: &'a Ropes,
    /// The threads that share the work.
    pub threads: Threads,
    /// Memory of the pass.
    pub scratch: &'a mut Scratch,
    /// Sees the updates of all modules.
    pub observer: Option<&'a mut dyn BlockObserver>,
}

/// Memory that a block works in; grows as needed and is meant to be used again.
#[derive(Debug)]
pub struct Scratch {
    normed: Rows,
    qkv: Vec<f32>,
    mixed: Rows,
    gated: Rows,
    /// What is normed before it is added.
    branch: Vec<f32>,
    attention: AttentionScratch,
    keys: KeyValues,
    low_rank: LowRank,
}

impl Transformer {
    /// Reads and packs all weights of a model, as an adapter changes them in every variant, on all threads of the
    /// current pool. Nothing but the packed weights is kept.
    ///
    /// # Errors
    /// A tensor that cannot be read, or holds values that are not finite.
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

    /// The facts of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What it is computed in.
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

    /// The packed weights of the linear maps with one input.
    fn linears(&self, layer: usize, input: LinearGroup) -> &Packed {
        &self.blocks[layer].linears[input as usize]
    }

    /// Room for the keys and values of one sequence in one layer.
    pub fn key_values(&self) -> KeyValues {
        KeyValues::new(self.precision.dtype, self.attention_shape())
    }

    /// Bytes of the keys and values of so many positions in one layer.
    pub fn key_value_bytes(&self, positions: usize) -> usize {
        KeyValues::bytes(self.precision.dtype, self.attention_shape(), positions)
    }

    /// Memory for [`block`](Self::block) and [`score`](Self::score).
    pub fn scratch(&self) -> Scratch {
        let dtype = self.precision.dtype;
        Scratch {
            normed: Rows::new(dtype),
            qkv: Vec::new(),
            mixed: Rows::new(dtype),
            gated: Rows::new(dtype),
            branch: Vec::new(),
            attention: AttentionScratch::new(dtype),
            keys: self.key_values(),
            low_rank: LowRank::new(dtype),
        }
    }

    /// Bytes that [`scratch`](Self::scratch) grows to for so many rows.
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

    /// Runs one layer over the hidden states `x (rows, hidden)`, in place. Rows whose output is not wanted leave `x`.
    ///
    /// # Panics
    /// If the segments do not cover the rows, or one is longer than the lengths that `ropes` was made for.
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
        let LayerAttention { window, rope } = self.config.attention[layer];
        let rule = AttentionRule { scale: self.config.attention_scale, softcap: self.config.attention_softcap, window };
        let width = self.attention_shape().width();
        let Scratch { normed, qkv, mixed, gated: activations, branch, attention: hands, keys, low_rank } = scratch;

        rms_norm(isa, normed, x, &block.attention_norm, norm_epsilon); // (rows, hidden)
        let qkv = sized(qkv, normed.rows() * width);
        let w = weight(LinearGroup::Qkv);
        let update =
            low_rank.update(isa, lora.get(LinearGroup::Qkv), normed, w, runs(segments), threads, &mut observer);
        linear(isa, qkv, normed, w, update, Mode::Set, threads); // (rows, q | k | v)
        if let Some([query, key]) = &block.query_key_norms {
            norm_heads(isa, qkv, width, 0, heads, query, norm_epsilon);
            norm_heads(isa, qkv, width, heads * head_dim, kv_heads, key, norm_epsilon);
        }

        let wanted: usize = segments.iter().map(Segment::outputs).sum();
        mixed.resize(wanted, heads * head_dim);
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
            // Those that are not kept share one memory, which the next one overwrites.
            if !is_kept {
                let attention = [Attention { to, qkv, wanted: *wanted, past: *past, own }];
                attend(isa, mixed, rule, &attention, threads, hands);
            }
            to += outputs;
        }
        // Those whose keys and values are kept can be attended to all at once.
        let (mut kept, mut to) = (Vec::new(), 0);
        for segment in segments.iter() {
            let Segment { rows, past, cache, wanted, .. } = segment;
            let qkv = &qkv[rows.start * width..rows.end * width];
            if let Some(own) = cache {
                kept.push(Attention { to, qkv, wanted: *wanted, past: *past, own });
            }
            to += segment.outputs();
        }
        attend(isa, mixed, rule, &kept, threads, hands); // (outputs, heads · head_dim)

        let rows = segments.iter().flat_map(|segment| {
            let all = segment.wanted.is_none().then(|| segment.rows.clone()).into_iter().flatten();
            let some = segment.wanted.unwrap_or_default().iter().map(|row| segment.rows.start + row);
            all.chain(some)
        });
        for (to, row) in rows.enumerate().filter(|(to, row)| to != row) {
            x.copy_within(row * hidden..(row + 1) * hidden, to * hidden);
        }
        x.truncate(wanted * hidden);
        let runs = output_runs(segments);

        // What a branch gives goes into the residual stream: as it is, or normed first.
        let mut add = |x: &mut [f32],
                       from: &Rows,
                       input: LinearGroup,
                       norm: Option<&Vec<f32>>,
                       low_rank: &mut LowRank,
                       observer: &mut Option<&mut dyn BlockObserver>| {
            let w = weight(input);
            let update = low_rank.update(isa, lora.get(input), from, w, runs.clone(), threads, observer);
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
        add(x, mixed, LinearGroup::AttentionOut, after_attention, low_rank, &mut observer); // (outputs, hidden)

        rms_norm(isa, normed, x, &block.mlp_norm, norm_epsilon); // (outputs, hidden)
        activations.resize(wanted, intermediate);
        let w = weight(LinearGroup::GateUp);
        let update =
            low_rank.update(isa, lora.get(LinearGroup::GateUp), normed, w, runs.clone(), threads, &mut observer);
        gated(isa, activations, normed, w, activation, update, threads); // (outputs, intermediate)
        add(x, activations, LinearGroup::Down, after_mlp, low_rank, &mut observer); // (outputs, hidden)
    }

    /// Scores `tokens[i]` as what follows the hidden state `x[i]`, with `x (rows, hidden)` taken after any layer: the
    /// final norm and the head are applied here. After the last layer this is the model's own prediction, before it
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

/// A model's rotary embeddings, for sequences of some lengths.
#[derive(Debug)]
pub struct Ropes {
    /// For each rotary embedding of the model the tables of the classes of length that it tells apart.
    tables: Vec<(Rope, BTreeMap<usize, RopeTable>)>,
}

impl Ropes {
    fn new(config: &Config, lengths: impl IntoIterator<Item = usize>) -> Self {
        let lengths: Vec<usize> = lengths.into_iter().collect();
        let tables = config.ropes.iter().map(|rope| {
            // The longest of each class: all of a class have the same frequencies.
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

    /// The table of one rotary embedding for a sequence of so many tokens.
    ///
    /// # Panics
    /// If it was made for no such sequence.
    fn of(&self, rope: usize, length: usize) -> &RopeTable {
        let (rope, tables) = &self.tables[rope];
        &tables[&rope.class(length)]
    }
}

impl Segment<'_> {
    /// Rows whose output is wanted.
    fn outputs(&self) -> usize {
        self.wanted.map_or(self.rows.len(), <[usize]>::len)
    }
}

/// Rows of each segment, with its gates.
fn runs(segments: &[Segment<'_>]) -> Vec<(Range<usize>, LayerGates)> {
    joined(segments.iter().map(|segment| (segment.rows.clone(), segment.gates)))
}

/// The same for the rows whose output is wanted.
fn output_runs(segments: &[Segment<'_>]) -> Vec<(Range<usize>, LayerGates)> {
    let mut at = 0;
    joined(segments.iter().map(|segment| {
        let start = at;
        at += segment.outputs();
        (start..at, segment.gates)
    }))
}

/// Neighbours with the same gates as one run.
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
