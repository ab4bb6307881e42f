//! The one decoder: embed, blocks, head.
//!
//! Pre-norm transformer with rotary attention and a gated MLP, as Llama has it (Touvron et al., arXiv:2302.13971).
//! Rows of several sequences lie end to end, without padding; each sequence brings the gates of its own variant, so
//! that many variants share one pass over the frozen weights.

use std::ops::Range;

use plimsoll_kernels::{
    AttentionShape, RopeTable, TokenScore, Update, add, attend, matmul, rms_norm, rotate, score_tokens, swiglu,
};
use rayon::prelude::*;

use super::checkpoint::{Checkpoint, Weight};
use super::config::Config;
use crate::adapter::{LayerLora, LoraWeights};
use crate::error::Result;
use crate::gates::{LayerGates, Projection};

/// A base model, ready to run.
#[derive(Debug)]
pub struct Model {
    config: Config,
    /// `(vocabulary, hidden)`
    embedding: Vec<f32>,
    blocks: Vec<Block>,
    /// `(hidden)`
    final_norm: Vec<f32>,
    /// `(vocabulary, hidden)`; none where the embedding serves as the head.
    head: Option<Vec<f32>>,
}

#[derive(Debug)]
struct Block {
    /// `(hidden)`
    attention_norm: Vec<f32>,
    /// `(hidden)`
    mlp_norm: Vec<f32>,
    /// Indexed by `Projection as usize`; each `(outputs, inputs)`.
    linears: Vec<Vec<f32>>,
}

/// One sequence among the rows of a block.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Its rows; they follow those of the segment before.
    pub rows: Range<usize>,
    /// How strongly the layer's LoRA is applied to it.
    pub gates: LayerGates,
}

/// Memory that a block works in; grows as needed and is meant to be used again.
#[derive(Debug, Default)]
pub struct Scratch {
    normed: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    mixed: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    out: Vec<f32>,
    low_rank: Vec<f32>,
    scores: Vec<f32>,
}

impl Model {
    /// Reads all weights of a checkpoint, layers in parallel.
    ///
    /// # Errors
    /// A tensor that cannot be read, or holds values that are not finite.
    pub fn load(checkpoint: &Checkpoint) -> Result<Self> {
        let config = checkpoint.config().clone();
        let read = |weight| checkpoint.read(weight);
        let ((embedding, head), blocks) = rayon::join(
            || {
                let head = (!config.tied_head).then(|| read(Weight::Head)).transpose();
                (read(Weight::Embedding), head)
            },
            || {
                let block = |layer| {
                    let linears = Projection::ALL.into_iter().map(|projection| read(Weight::Linear(layer, projection)));
                    Ok(Block {
                        attention_norm: read(Weight::AttentionNorm(layer))?,
                        mlp_norm: read(Weight::MlpNorm(layer))?,
                        linears: linears.collect::<Result<_>>()?,
                    })
                };
                (0..config.layers).into_par_iter().map(block).collect::<Result<Vec<_>>>()
            },
        );
        Ok(Self { embedding: embedding?, blocks: blocks?, final_norm: read(Weight::FinalNorm)?, head: head?, config })
    }

    /// The facts of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The rotary embedding for sequences of up to `positions` tokens.
    pub fn rope(&self, positions: usize) -> RopeTable {
        RopeTable::new(&self.config.rope_frequencies(), positions)
    }

    /// Hidden states before the first layer: `(tokens, hidden)`.
    ///
    /// # Panics
    /// If a token is not in the vocabulary.
    pub fn embed(&self, tokens: &[u32]) -> Vec<f32> {
        let hidden = self.config.hidden;
        tokens.iter().flat_map(|&token| &self.embedding[token as usize * hidden..][..hidden]).copied().collect()
    }

    /// Runs one layer over the hidden states `x (rows, hidden)`, in place. Every segment starts at position 0.
    ///
    /// # Panics
    /// If the segments do not cover the rows, or one is longer than `rope`.
    pub fn block(
        &self,
        layer: usize,
        lora: &LayerLora,
        segments: &[Segment],
        rope: &RopeTable,
        x: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let Config { hidden, intermediate, heads, kv_heads, head_dim, norm_epsilon, .. } = self.config;
        let block = &self.blocks[layer];
        let rows = x.len() / hidden;
        let Scratch { normed, q, k, v, mixed, gate, up, out, low_rank, scores } = scratch;
        let mut linear = |projection: Projection, y: &mut [f32], x: &[f32]| {
            let weight = &block.linears[projection as usize];
            lora_linear(y, x, weight, lora.get(projection), segments, |gates| gates.get(projection), low_rank);
        };

        let normed = sized(normed, rows * hidden);
        rms_norm(normed, x, &block.attention_norm, norm_epsilon); // (rows, hidden)
        let q = sized(q, rows * heads * head_dim);
        let k = sized(k, rows * kv_heads * head_dim);
        let v = sized(v, rows * kv_heads * head_dim);
        linear(Projection::Q, q, normed); // (rows, heads, head_dim)
        linear(Projection::K, k, normed); // (rows, kv_heads, head_dim)
        linear(Projection::V, v, normed); // (rows, kv_heads, head_dim)
        let mixed = sized(mixed, q.len());
        let shape = AttentionShape { heads, kv_heads, head_dim };
        for Segment { rows, .. } in segments {
            let queries = rows.start * heads * head_dim..rows.end * heads * head_dim;
            let keys = rows.start * kv_heads * head_dim..rows.end * kv_heads * head_dim;
            rotate(&mut q[queries.clone()], heads, rope, 0);
            rotate(&mut k[keys.clone()], kv_heads, rope, 0);
            attend(&mut mixed[queries.clone()], &q[queries], &k[keys.clone()], &v[keys], shape, scores);
        }
        let out = sized(out, rows * hidden);
        linear(Projection::O, out, mixed); // (rows, hidden)
        add(x, out);

        rms_norm(normed, x, &block.mlp_norm, norm_epsilon); // (rows, hidden)
        let gate = sized(gate, rows * intermediate);
        let up = sized(up, rows * intermediate);
        linear(Projection::Gate, gate, normed); // (rows, intermediate)
        linear(Projection::Up, up, normed); // (rows, intermediate)
        swiglu(gate, up);
        linear(Projection::Down, out, gate); // (rows, hidden)
        add(x, out);
    }

    /// Scores `tokens[i]` as what follows the hidden state `x[i]`, with `x (rows, hidden)` taken after any layer: the
    /// final norm and the head are applied here. After the last layer this is the model's own prediction, before it
    /// the logit lens.
    pub fn score(&self, x: &[f32], tokens: &[u32], scratch: &mut Scratch) -> Vec<TokenScore> {
        let normed = sized(&mut scratch.normed, x.len());
        rms_norm(normed, x, &self.final_norm, self.config.norm_epsilon); // (rows, hidden)
        score_tokens(normed, self.head(), tokens, &mut scratch.scores)
    }

    /// Logits `(rows, vocabulary)` of hidden states `x (rows, hidden)` after the last layer.
    pub fn logits(&self, x: &[f32]) -> Vec<f32> {
        let Config { hidden, vocabulary, norm_epsilon, .. } = self.config;
        let mut normed = vec![0.0; x.len()];
        rms_norm(&mut normed, x, &self.final_norm, norm_epsilon);
        let mut logits = vec![0.0; x.len() / hidden * vocabulary];
        matmul(&mut logits, &normed, self.head(), hidden, Update::Set);
        logits
    }

    /// `(vocabulary, hidden)`
    fn head(&self) -> &[f32] {
        self.head.as_ref().unwrap_or(&self.embedding)
    }
}

/// `y = W·x + gate · scale · B·(A·x)`, where segments with gate 0 cost nothing beyond the base product.
fn lora_linear(
    y: &mut [f32],
    x: &[f32],
    weight: &[f32],
    lora: Option<&LoraWeights>,
    segments: &[Segment],
    gate: impl Fn(&LayerGates) -> f32,
    scratch: &mut Vec<f32>,
) {
    let rows = segments.last().map_or(0, |segment| segment.rows.end);
    let (inputs, outputs) = (x.len() / rows.max(1), y.len() / rows.max(1));
    matmul(y, x, weight, inputs.max(1), Update::Set);
    let Some(lora) = lora else { return };
    for run in segments.chunk_by(|a, b| gate(&a.gates) == gate(&b.gates)) {
        let (strength, rows) = (gate(&run[0].gates), run[0].rows.start..run[run.len() - 1].rows.end);
        if strength == 0.0 {
            continue;
        }
        let (x, y) = (&x[rows.start * inputs..rows.end * inputs], &mut y[rows.start * outputs..rows.end * outputs]);
        let low_rank = sized(scratch, rows.len() * lora.rank);
        matmul(low_rank, x, &lora.a, inputs, Update::Set); // (rows, rank)
        matmul(y, low_rank, &lora.b, lora.rank, Update::Add(strength * lora.scale)); // (rows, outputs)
    }
}

/// The first `len` numbers of a buffer that grows as needed.
fn sized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}
