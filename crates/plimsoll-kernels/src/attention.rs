//! Causal attention with grouped queries, over keys and values that are packed as they come.

use std::ops::Range;

use crate::isa::{Isa, Kernel, LANES, Simd, bf16_bits, exp};
use crate::packed::PANEL;
use crate::product::{Factor, Half, Single, Step, multiply, tiles, with_rows};
use crate::words::{Dtype, Line, Rows, Words, encode, words_of_mut};

/// Keys of a block: a panel of the product of queries and keys.
const BLOCK: usize = PANEL;

/// The widest head there may be.
pub const MAX_HEAD_DIM: usize = 1024;

/// The dimensions of one attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; `heads` is a multiple of it (Ainslie et al., arXiv:2305.13245).
    pub kv_heads: usize,
    /// Width of one head; even, and at most [`MAX_HEAD_DIM`].
    pub head_dim: usize,
}

impl AttentionShape {
    /// Numbers of one position's queries, keys and values: a row `q | k | v`.
    pub fn width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Lines of one head in a block: its keys, a panel with one column for each; then its values, a panel of 32
    /// dimensions after the other, with the keys along the words.
    fn head_lines(&self, dtype: Dtype) -> (usize, usize) {
        (2 * dtype.words(self.head_dim), self.head_dim.div_ceil(PANEL) * 2 * dtype.words(BLOCK))
    }

    fn block_lines(&self, dtype: Dtype) -> usize {
        let (keys, values) = self.head_lines(dtype);
        self.kv_heads * (keys + values)
    }
}

/// Keys and values of one sequence in one layer, in blocks of 32 positions, each block laid out as the products read it.
#[derive(Debug)]
pub struct KeyValues {
    shape: AttentionShape,
    dtype: Dtype,
    blocks: Words,
    /// Position of the first block: those before it are in another's hands.
    first: usize,
    /// Positions, those before `first` included.
    len: usize,
}

impl KeyValues {
    /// No positions yet.
    ///
    /// # Panics
    /// If the shape is not one.
    pub fn new(dtype: Dtype, shape: AttentionShape) -> Self {
        let AttentionShape { heads, kv_heads, head_dim } = shape;
        assert!(kv_heads > 0 && heads.is_multiple_of(kv_heads) && heads > 0, "heads do not fit");
        assert!(head_dim > 0 && head_dim.is_multiple_of(2) && head_dim <= MAX_HEAD_DIM, "a head of {head_dim}");
        Self { shape, dtype, blocks: Words::default(), first: 0, len: 0 }
    }

    /// How many positions there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that so many positions take.
    pub fn bytes(dtype: Dtype, shape: AttentionShape, positions: usize) -> usize {
        positions.div_ceil(BLOCK) * shape.block_lines(dtype) * size_of::<Line>()
    }

    /// Forgets everything and begins anew, as what follows `past`: of its last block, if that is not full, a copy is
    /// taken, so that blocks begin at the same positions as if one had gone on with `past` itself.
    ///
    /// # Panics
    /// If `past` is of another shape or type of number.
    pub fn restart(&mut self, past: Option<&Self>) {
        (self.first, self.len) = (0, 0);
        let Some(past) = past else { return };
        assert!(past.shape == self.shape && past.dtype == self.dtype && past.first == 0, "not a past of this");
        (self.first, self.len) = (past.len / BLOCK * BLOCK, past.len);
        if self.len > self.first {
            let lines = self.shape.block_lines(self.dtype);
            self.blocks.grow(lines * LANES);
            self.blocks.lines_mut()[..lines].copy_from_slice(past.block(self.first / BLOCK));
        }
    }

    /// The lines of a block, counted from position 0.
    fn block(&self, block: usize) -> &[Line] {
        let lines = self.shape.block_lines(self.dtype);
        &self.blocks.lines()[(block - self.first / BLOCK) * lines..][..lines]
    }

    /// Adds positions: the keys and values of rows `q | k | v`, [`AttentionShape::width`] numbers each.
    ///
    /// # Panics
    /// If `rows` is not whole rows.
    pub fn extend(&mut self, isa: Isa, rows: &[f32]) {
        let width = self.shape.width();
        assert!(rows.len().is_multiple_of(width), "lengths do not fit");
        let count = rows.len() / width;
        let lines = self.shape.block_lines(self.dtype);
        let begun = (self.len - self.first).div_ceil(BLOCK);
        let blocks = (self.len + count - self.first).div_ceil(BLOCK);
        self.blocks.grow(blocks * lines * LANES);
        // What an earlier sequence left must not meet a weight of 0, which would not make it 0 were it infinite.
        self.blocks.lines_mut()[begun * lines..blocks * lines].fill(Line([0; LANES]));
        isa.run(Extend { to: self, rows, width });
        self.len += count;
    }
}

struct Extend<'a> {
    to: &'a mut KeyValues,
    rows: &'a [f32],
    width: usize,
}

impl Kernel for Extend<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { to, rows, width } = self;
        let (shape, dtype) = (to.shape, to.dtype);
        let AttentionShape { heads, kv_heads, head_dim } = shape;
        let (key_lines, value_lines) = shape.head_lines(dtype);
        let mut key = [0; MAX_HEAD_DIM];
        for (at, row) in rows.chunks_exact(width).enumerate() {
            let position = to.len + at - to.first;
            let lines = shape.block_lines(dtype);
            let block = &mut to.blocks.lines_mut()[position / BLOCK * lines..][..lines];
            let slot = position % BLOCK;
            let (_, row) = row.split_at(heads * head_dim);
            let (keys, values) = row.split_at(kv_heads * head_dim);
            let heads = block.chunks_exact_mut(key_lines + value_lines);
            for ((block, k), v) in heads.zip(keys.chunks_exact(head_dim)).zip(values.chunks_exact(head_dim)) {
                let (key_panel, value_panels) = block.split_at_mut(key_lines);
                let columns = words_of_mut(key_panel)[slot..].iter_mut().step_by(PANEL);
                let key = &mut key[..dtype.words(head_dim)];
                encode(s, dtype, key, k);
                for (word, key) in columns.zip(key) {
                    *word = *key;
                }
                for (panel, v) in value_panels.chunks_exact_mut(2 * dtype.words(BLOCK)).zip(v.chunks(PANEL)) {
                    let words = words_of_mut(panel);
                    match dtype {
                        Dtype::F32 => words[slot * PANEL..].iter_mut().zip(v).for_each(|(word, v)| *word = v.to_bits()),
                        Dtype::Bf16 => {
                            let words = words[slot / 2 * PANEL..].iter_mut().zip(v);
                            if slot.is_multiple_of(2) {
                                words.for_each(|(word, v)| *word = bf16_bits(*v));
                            } else {
                                words.for_each(|(word, v)| *word |= bf16_bits(*v) << 16);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Memory that attention works in; grows as needed and is meant to be used again.
#[derive(Debug)]
pub struct AttentionScratch {
    /// `(kv_heads, queries, group)` rows of one head.
    queries: Rows,
    /// `(rows of a tile, keys)`
    scores: Vec<f32>,
    /// The same as words.
    weights: Words,
}

impl AttentionScratch {
    /// For one type of number.
    pub fn new(dtype: Dtype) -> Self {
        Self { queries: Rows::new(dtype), scores: Vec::new(), weights: Words::default() }
    }
}

/// `softmax(q · kᵀ / √head_dim) · v` for some positions of one sequence, each seeing itself and what lies before it.
///
/// `qkv` holds rows `q | k | v` whose queries are used, and `positions` the position of each, ascending; their keys and
/// values are in `own` already, which follows `past` where there is one. Row i of the result goes to row `first + i` of
/// `out`, `heads · head_dim` numbers wide. Scores are held for 12 rows at a time: no buffer of size positions² exists.
///
/// # Panics
/// If the dimensions do not fit together.
#[allow(clippy::too_many_arguments, reason = "an attention has that many parts")]
pub fn attend(
    isa: Isa,
    out: &mut Rows,
    first: usize,
    qkv: &[f32],
    positions: &[usize],
    past: Option<&KeyValues>,
    own: &KeyValues,
    scratch: &mut AttentionScratch,
) {
    let AttentionShape { heads, kv_heads, head_dim } = own.shape;
    let (dtype, width) = (own.dtype, own.shape.width());
    assert_eq!(qkv.len(), positions.len() * width, "lengths do not fit");
    assert!(out.width() == heads * head_dim && first + positions.len() <= out.rows(), "lengths do not fit");
    assert!(out.dtype == dtype && scratch.queries.dtype == dtype, "types of numbers do not fit");
    assert!(positions.is_sorted() && positions.last().is_none_or(|&last| last < own.len), "a position without a key");
    match past {
        Some(past) => assert!(
            past.shape == own.shape && past.dtype == dtype && past.first == 0 && own.first <= past.len,
            "not a past of this"
        ),
        None => assert_eq!(own.first, 0, "the past is missing"),
    }
    let AttentionScratch { queries, scores, weights } = scratch;
    queries.resize(kv_heads * positions.len() * own.shape.group(), head_dim);
    isa.run(Attend { out, first, qkv, positions, past, own, queries, scores, weights });
}

struct Attend<'a> {
    out: &'a mut Rows,
    first: usize,
    qkv: &'a [f32],
    positions: &'a [usize],
    past: Option<&'a KeyValues>,
    own: &'a KeyValues,
    queries: &'a mut Rows,
    scores: &'a mut Vec<f32>,
    weights: &'a mut Words,
}

impl Kernel for Attend<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        self.gather(s);
        match self.own.dtype {
            Dtype::F32 => self.with::<S, Single>(s),
            Dtype::Bf16 => self.with::<S, Half>(s),
        }
    }
}

impl Attend<'_> {
    /// Lays the queries out head by head, scaled.
    #[inline(always)]
    fn gather<S: Simd>(&mut self, s: S) {
        let AttentionShape { heads, head_dim, .. } = self.own.shape;
        let (group, width, dtype) = (self.own.shape.group(), self.own.shape.width(), self.own.dtype);
        let scale = 1.0 / (head_dim as f32).sqrt();
        let mut scaled = [0.0; MAX_HEAD_DIM];
        let scaled = &mut scaled[..head_dim];
        for (query, row) in self.qkv.chunks_exact(width).enumerate() {
            for (head, q) in row[..heads * head_dim].chunks_exact(head_dim).enumerate() {
                for (scaled, q) in scaled.iter_mut().zip(q) {
                    *scaled = q * scale;
                }
                let to = (head / group * self.positions.len() + query) * group + head % group;
                encode(s, dtype, self.queries.row_mut(to), scaled);
            }
        }
    }

    #[inline(always)]
    fn with<S: Simd, D: Step>(&mut self, s: S) {
        let group = self.own.shape.group();
        for head in 0..self.own.shape.kv_heads {
            for (row, rows) in tiles(self.positions.len() * group, S::ROWS) {
                with_rows!(rows, S::ROWS, R => self.tile::<S, D, R>(s, head, row));
            }
        }
    }

    /// The lines of one head in the blocks that hold `keys` positions.
    #[inline(always)]
    fn blocks(&self, head: usize, keys: usize) -> impl Iterator<Item = (&[Line], &[Line])> {
        let (key_lines, value_lines) = self.own.shape.head_lines(self.own.dtype);
        (0..keys.div_ceil(BLOCK)).map(move |block| {
            let lines = match self.past {
                Some(past) if block * BLOCK < self.own.first => past.block(block),
                _ => self.own.block(block),
            };
            lines[head * (key_lines + value_lines)..][..key_lines + value_lines].split_at(key_lines)
        })
    }

    /// `R` rows of one key and value head: queries of one position after the other, the group's heads of each in turn.
    #[inline(always)]
    fn tile<S: Simd, D: Step, const R: usize>(&mut self, s: S, head: usize, row: usize) {
        let AttentionShape { head_dim, .. } = self.own.shape;
        let (group, dtype) = (self.own.shape.group(), self.own.dtype);
        let seen = |r: usize| self.positions[(row + r) / group] + 1;
        let keys = seen(R - 1);
        let columns = keys.div_ceil(BLOCK) * BLOCK;

        let mut scores = std::mem::take(self.scores);
        if scores.len() < R * columns {
            scores.resize(R * columns, 0.0);
        }
        let stride = self.queries.stride;
        let first = head * self.positions.len() * group + row;
        let words = self.queries.words.as_slice()[first * stride..][..R * stride].as_ptr();
        for (block, (key_panel, _)) in self.blocks(head, keys).enumerate() {
            let mut sums = [[s.splat(0.0); 2]; R]; // (rows, keys)
            // SAFETY: the slice above has `R` rows of as many words as a key has, and a key panel has two lines for each.
            #[allow(unsafe_code)]
            unsafe {
                multiply::<S, D, R>(s, &mut sums, Factor { words, stride }, key_panel);
            }
            for (sums, scores) in sums.iter().zip(scores.chunks_exact_mut(columns)) {
                let (scores, _) = scores[block * BLOCK..].as_chunks_mut::<LANES>();
                s.store(&mut scores[0], sums[0]);
                s.store(&mut scores[1], sums[1]);
            }
        }

        // An odd number of lines, for the sake of the first-level cache.
        let stride = ((dtype.words(columns) / LANES) | 1) * LANES;
        self.weights.grow(R * stride);
        let mut normalisers = [0.0; R];
        for (r, scores) in scores.chunks_exact_mut(columns).take(R).enumerate() {
            normalisers[r] = 1.0 / softmax(s, scores, seen(r));
            encode(s, dtype, &mut self.weights.as_mut_slice()[r * stride..][..stride], scores);
        }
        *self.scores = scores;

        let words = self.weights.as_slice()[..R * stride].as_ptr();
        let block_words = dtype.words(BLOCK);
        for panel in 0..head_dim.div_ceil(PANEL) {
            let mut sums = [[s.splat(0.0); 2]; R]; // (rows, dimensions)
            for (block, (_, values)) in self.blocks(head, keys).enumerate() {
                let words_here = dtype.words((keys - block * BLOCK).min(BLOCK));
                let values = &values[panel * 2 * block_words..][..2 * words_here];
                // SAFETY: the slice above has `R` rows of as many words as there are keys, of which this block's begin
                // at `block * block_words`; `values` has two lines for each of the words that are used.
                #[allow(unsafe_code)]
                unsafe {
                    let a = Factor { words: words.add(block * block_words), stride };
                    multiply::<S, D, R>(s, &mut sums, a, values);
                }
            }
            for (r, (sums, normaliser)) in sums.iter().zip(normalisers).enumerate() {
                let (query, head) = ((row + r) / group, head * group + (row + r) % group);
                let mut lanes = [0.0; PANEL];
                let (left, right) = lanes.split_at_mut(LANES);
                if let (Ok(left), Ok(right)) = (left.try_into(), right.try_into()) {
                    s.store(left, s.mul(sums[0], s.splat(normaliser)));
                    s.store(right, s.mul(sums[1], s.splat(normaliser)));
                }
                let dims: Range<usize> = panel * PANEL..head_dim.min((panel + 1) * PANEL);
                // A head's width is even, so that it begins with a word and ends with one.
                let at = dtype.words(head * head_dim + dims.start);
                let out = &mut self.out.row_mut(self.first + query)[at..at + dtype.words(dims.len())];
                encode(s, dtype, out, &lanes[..dims.len()]);
            }
        }
    }
}

/// `e^(x − max)` of the first `seen` scores, zeros behind them, and the sum of the former.
#[inline(always)]
fn softmax<S: Simd>(s: S, scores: &mut [f32], seen: usize) -> f32 {
    let (vectors, _) = scores.as_chunks_mut::<LANES>();
    let (whole, rest) = vectors.split_at_mut(seen / LANES);
    let mut largest = s.splat(f32::NEG_INFINITY);
    for vector in whole.iter() {
        largest = s.max(largest, s.load(vector));
    }
    if let Some(last) = rest.first_mut() {
        last[seen % LANES..].fill(f32::NEG_INFINITY);
        largest = s.max(largest, s.load(last));
    }
    let shift = s.splat(s.largest(largest));
    let mut sums = s.splat(0.0);
    for vector in whole {
        let e = exp(s, s.sub(s.load(vector), shift));
        sums = s.add(sums, e);
        s.store(vector, e);
    }
    if let Some((last, rest)) = rest.split_first_mut() {
        let e = exp(s, s.sub(s.load(last), shift));
        s.store(last, e);
        last[seen % LANES..].fill(0.0);
        sums = s.add(sums, s.load(last));
        rest.as_flattened_mut().fill(0.0);
    }
    s.sum(sums)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{assert_close, decode, each_isa, rounded, values};

    fn plain(qkv: &[f32], shape: AttentionShape, dtype: Dtype) -> Vec<f64> {
        let AttentionShape { heads, kv_heads, head_dim } = shape;
        let rows: Vec<&[f32]> = qkv.chunks(shape.width()).collect();
        let mut out = Vec::new();
        for (position, row) in rows.iter().enumerate() {
            for head in 0..heads {
                let q = &row[head * head_dim..][..head_dim];
                let at = (heads + head * kv_heads / heads) * head_dim;
                let weights: Vec<f64> = rows[..=position]
                    .iter()
                    .map(|row| {
                        let k = &row[at..][..head_dim];
                        let scale = 1.0 / (head_dim as f32).sqrt();
                        let dot: f64 =
                            q.iter().zip(k).map(|(&q, &k)| rounded(dtype, q * scale) * rounded(dtype, k)).sum();
                        dot.exp()
                    })
                    .collect();
                let total: f64 = weights.iter().sum();
                for i in 0..head_dim {
                    let v = |row: &&[f32]| rounded(dtype, row[at + kv_heads * head_dim + i]);
                    out.push(rows.iter().zip(&weights).map(|(row, weight)| weight / total * v(row)).sum());
                }
            }
        }
        out
    }

    fn shapes() -> impl Strategy<Value = (AttentionShape, Vec<f32>)> {
        (1_usize..4, 1_usize..4, 1_usize..26, 1_usize..100).prop_flat_map(|(kv_heads, group, half, positions)| {
            let shape = AttentionShape { heads: kv_heads * group, kv_heads, head_dim: 2 * half };
            (Just(shape), values(positions * shape.width()))
        })
    }

    fn run(isa: Isa, dtype: Dtype, shape: AttentionShape, qkv: &[f32]) -> Rows {
        let positions: Vec<usize> = (0..qkv.len() / shape.width()).collect();
        let mut own = KeyValues::new(dtype, shape);
        own.extend(isa, qkv);
        let mut out = Rows::new(dtype);
        out.resize(positions.len(), shape.heads * shape.head_dim);
        attend(isa, &mut out, 0, qkv, &positions, None, &own, &mut AttentionScratch::new(dtype));
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]
        #[test]
        fn agrees_with_the_definition((shape, qkv) in shapes()) {
            each_isa(|isa, dtype| {
                let found = decode(&run(isa, dtype, shape, &qkv));
                // In bf16 the weights are rounded as well, to 2⁻⁹ of each, and so is the result.
                let tolerance = if dtype == Dtype::F32 { 1e-5 } else { 2.0_f64.powi(-6) };
                assert_close(&found, &plain(&qkv, shape, dtype), tolerance);
            });
        }

        /// Positions in one go, one at a time, after a shared past, and some of them only: the same to the last bit.
        #[test]
        fn the_past_may_lie_elsewhere((shape, qkv) in shapes(), cut in 0.0..1.0, seed in 0_usize..1000) {
            each_isa(|isa, dtype| {
                let (width, count) = (shape.width(), qkv.len() / shape.width());
                let whole = decode(&run(isa, dtype, shape, &qkv));
                let cut = (cut * count as f64) as usize;
                let mut scratch = AttentionScratch::new(dtype);

                let mut past = KeyValues::new(dtype, shape);
                past.extend(isa, &qkv[..cut * width]);
                let mut own = KeyValues::new(dtype, shape);
                own.extend(isa, &vec![f32::INFINITY; 70 * width]);
                own.restart(Some(&past));
                own.extend(isa, &qkv[cut * width..]);
                let positions: Vec<usize> = (cut..count).filter(|position| (position * 7 + seed) % 3 > 0).collect();
                let some: Vec<f32> = positions.iter().flat_map(|p| &qkv[p * width..][..width]).copied().collect();
                let mut out = Rows::new(dtype);
                out.resize(positions.len() + 1, shape.heads * shape.head_dim);
                attend(isa, &mut out, 1, &some, &positions, Some(&past), &own, &mut scratch);
                let found = decode(&out);
                for (row, position) in positions.iter().enumerate() {
                    let size = shape.heads * shape.head_dim;
                    assert_eq!(found[(row + 1) * size..][..size], whole[position * size..][..size], "{isa}");
                }

                own.restart(None);
                for (position, row) in qkv.chunks(width).enumerate() {
                    own.extend(isa, row);
                    attend(isa, &mut out, 0, row, &[position], None, &own, &mut scratch);
                    let size = shape.heads * shape.head_dim;
                    assert_eq!(decode(&out)[..size], whole[position * size..][..size], "{isa}");
                }
            });
        }
    }
}
