//! Causal attention with grouped queries, over keys and values that are packed as they come.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::isa::{Isa, Kernel, LANES, Simd, bf16_bits, exp, softcap};
use crate::packed::PANEL;
use crate::product::{Destination, Factor, Half, Single, Step, Threads, multiply, on_each, tiles, with_rows};
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

/// What becomes of a query's products with the keys before they are weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionRule {
    /// What they are multiplied by; `1 / √head_dim` in most models.
    pub scale: f32,
    /// The bound c of `c · tanh(score / c)`, where scores are softly bounded (Gemma 2, arXiv:2408.00118).
    pub softcap: Option<f32>,
    /// How many positions a query sees, its own included; all before it where none is given (Beltagy et al.,
    /// arXiv:2004.05150).
    pub window: Option<usize>,
}

impl AttentionRule {
    /// The first position that the query of a position sees.
    #[inline(always)]
    fn first(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }
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
    dtype: Dtype,
    /// One for each thread.
    hands: Vec<Hand>,
}

/// What one thread works in.
#[derive(Debug)]
struct Hand {
    /// `(queries, group)` rows of one head.
    queries: Rows,
    /// `(rows of a tile, keys)`
    scores: Vec<f32>,
    /// The same as words.
    weights: Words,
}

impl AttentionScratch {
    /// For one type of number.
    pub fn new(dtype: Dtype) -> Self {
        Self { dtype, hands: Vec::new() }
    }
}

/// One sequence's part in an attention.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// The row of the output that the first result goes to; the others follow.
    pub to: usize,
    /// Rows `q | k | v` of the sequence's last positions. Of these the queries are used: keys and values are in `own`.
    pub qkv: &'a [f32],
    /// The rows whose queries are used, ascending; all where none are given.
    pub wanted: Option<&'a [usize]>,
    /// Keys and values of the positions before those of `own`.
    pub past: Option<&'a KeyValues>,
    /// Keys and values of the rest, up to the last row's.
    pub own: &'a KeyValues,
}

impl Attention<'_> {
    fn rows(&self) -> usize {
        self.qkv.len() / self.own.shape.width()
    }

    /// Rows whose queries are used.
    fn outputs(&self) -> usize {
        self.wanted.map_or(self.rows(), <[usize]>::len)
    }

    /// The row of a query, and its position.
    #[inline(always)]
    fn query(&self, query: usize) -> (usize, usize) {
        let row = self.wanted.map_or(query, |wanted| wanted[query]);
        (row, self.own.len - self.rows() + row)
    }

    fn check(&self, dtype: Dtype) {
        let Self { qkv, wanted, past, own, .. } = self;
        let rows = self.rows();
        assert!(qkv.len() == rows * own.shape.width() && rows <= own.len, "lengths do not fit");
        assert!(own.dtype == dtype, "types of numbers do not fit");
        let wanted = wanted.unwrap_or_default();
        assert!(wanted.is_sorted() && wanted.last().is_none_or(|&last| last < rows), "a query outside of the rows");
        match past {
            Some(past) => assert!(
                past.shape == own.shape && past.dtype == dtype && past.first == 0 && own.first <= past.len,
                "not a past of this"
            ),
            None => assert_eq!(own.first, 0, "the past is missing"),
        }
    }
}

/// Rows of one head that a thread takes at a time: a whole number of tiles, whatever the instruction set.
const ITEM_ROWS: usize = 96;

/// Below this number of multiply-adds a second thread costs more than it takes over.
const WORTH_SHARING: usize = 200_000;

/// `softmax(scale · q · kᵀ) · v` for some positions of each sequence, each seeing itself and what lies before it, as far
/// as the rule's window reaches.
///
/// Rows of `out` are `heads · head_dim` numbers wide; sequences come in the order of theirs. Scores are held for 12 rows
/// at a time: no buffer of size positions² exists. Threads take a head of a sequence at a time.
///
/// # Panics
/// If the dimensions do not fit together.
pub fn attend(
    isa: Isa,
    out: &mut Rows,
    rule: AttentionRule,
    sequences: &[Attention<'_>],
    threads: Threads,
    scratch: &mut AttentionScratch,
) {
    let Some(AttentionShape { heads, kv_heads, head_dim }) = sequences.first().map(|first| first.own.shape) else {
        return;
    };
    let dtype = out.dtype;
    assert!(scratch.dtype == dtype && out.width() == heads * head_dim, "lengths do not fit");
    assert!(rule.window != Some(0), "a window in which nothing is seen");
    let (mut items, mut free, mut work) = (Vec::new(), 0, 0);
    for (sequence, attention) in sequences.iter().enumerate() {
        attention.check(dtype);
        assert_eq!(attention.own.shape, sequences[0].own.shape, "sequences of different models");
        assert!(free <= attention.to, "sequences do not come in the order of their rows");
        free = attention.to + attention.outputs();
        let rows = attention.outputs() * heads / kv_heads;
        for head in 0..kv_heads {
            let pieces = (0..rows).step_by(ITEM_ROWS);
            items.extend(pieces.map(|row| (sequence, head, row..rows.min(row + ITEM_ROWS))));
        }
        work += attention.outputs() * attention.own.len * 2 * heads * head_dim;
    }
    assert!(free <= out.rows(), "lengths do not fit");

    let workers = match threads {
        Threads::All if work >= WORTH_SHARING => rayon::current_num_threads().min(items.len()),
        _ => 1,
    };
    let hand = || Hand { queries: Rows::new(dtype), scores: Vec::new(), weights: Words::default() };
    scratch.hands.resize_with(scratch.hands.len().max(workers), hand);
    let (next, stride) = (AtomicUsize::new(0), out.stride);
    let out = Destination(out.words.as_mut_slice().as_mut_ptr());
    on_each(&mut scratch.hands[..workers], &|hand: &mut Hand| {
        // The whole of the wrapper, not the pointer in it, has to travel to the other thread.
        let Destination(out) = { out };
        while let Some((sequence, head, rows)) = items.get(next.fetch_add(1, Ordering::Relaxed)).cloned() {
            let attention = sequences[sequence];
            isa.run(Attend { out, stride, rule, attention, head, rows, hand });
        }
    });
}

/// Some rows of one head of one sequence: queries of one position after the other, the group's heads of each in turn.
struct Attend<'a> {
    out: *mut u32,
    /// Words from a row of `out` to the next.
    stride: usize,
    rule: AttentionRule,
    attention: Attention<'a>,
    head: usize,
    rows: Range<usize>,
    hand: &'a mut Hand,
}

impl Kernel for Attend<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        self.gather(s);
        match self.attention.own.dtype {
            Dtype::F32 => self.with::<S, Single>(s),
            Dtype::Bf16 => self.with::<S, Half>(s),
        }
    }
}

impl Attend<'_> {
    /// Lays the queries out one after the other, scaled.
    #[inline(always)]
    fn gather<S: Simd>(&mut self, s: S) {
        let Self { attention, rows, hand, rule, .. } = self;
        let AttentionShape { head_dim, .. } = attention.own.shape;
        let (group, width, dtype) = (attention.own.shape.group(), attention.own.shape.width(), attention.own.dtype);
        let scale = rule.scale;
        let mut scaled = [0.0; MAX_HEAD_DIM];
        let scaled = &mut scaled[..head_dim];
        hand.queries.resize(rows.len(), head_dim);
        for (to, row) in rows.clone().enumerate() {
            let (query, head) = (row / group, self.head * group + row % group);
            let q = &attention.qkv[attention.query(query).0 * width + head * head_dim..][..head_dim];
            for (scaled, q) in scaled.iter_mut().zip(q) {
                *scaled = q * scale;
            }
            encode(s, dtype, hand.queries.row_mut(to), scaled);
        }
    }

    #[inline(always)]
    fn with<S: Simd, D: Step>(&mut self, s: S) {
        for (row, rows) in tiles(self.rows.len(), S::ROWS) {
            with_rows!(rows, S::ROWS, R => self.tile::<S, D, R>(s, row));
        }
    }

    /// The lines of the head in the blocks that hold the positions `keys`.
    #[inline(always)]
    fn blocks(&self, keys: Range<usize>) -> impl Iterator<Item = (&[Line], &[Line])> {
        let Attention { past, own, .. } = self.attention;
        let (key_lines, value_lines) = own.shape.head_lines(own.dtype);
        (keys.start / BLOCK..keys.end.div_ceil(BLOCK)).map(move |block| {
            let lines = match past {
                Some(past) if block * BLOCK < own.first => past.block(block),
                _ => own.block(block),
            };
            lines[self.head * (key_lines + value_lines)..][..key_lines + value_lines].split_at(key_lines)
        })
    }

    /// `R` of the rows, from `row` on.
    #[inline(always)]
    fn tile<S: Simd, D: Step, const R: usize>(&mut self, s: S, row: usize) {
        let AttentionShape { head_dim, .. } = self.attention.own.shape;
        let (group, dtype) = (self.attention.own.shape.group(), self.attention.own.dtype);
        let query = |r: usize| (self.rows.start + row + r) / group;
        // Columns of the scores are keys from the first block on that any of the rows sees.
        let position = |r: usize| self.attention.query(query(r)).1;
        let base = self.rule.first(position(0)) / BLOCK * BLOCK;
        let seen = |r: usize| self.rule.first(position(r)) - base..position(r) + 1 - base;
        let keys = base..position(R - 1) + 1;
        let columns = keys.len().div_ceil(BLOCK) * BLOCK;

        let mut scores = std::mem::take(&mut self.hand.scores);
        if scores.len() < R * columns {
            scores.resize(R * columns, 0.0);
        }
        let stride = self.hand.queries.stride;
        let words = self.hand.queries.words.as_slice()[row * stride..][..R * stride].as_ptr();
        for (block, (key_panel, _)) in self.blocks(keys.clone()).enumerate() {
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
        let mut weights = std::mem::take(&mut self.hand.weights);
        weights.grow(R * stride);
        let mut normalisers = [0.0; R];
        for (r, scores) in scores.chunks_exact_mut(columns).take(R).enumerate() {
            if let Some(cap) = self.rule.softcap {
                for scores in scores.as_chunks_mut::<LANES>().0 {
                    let bounded = softcap(s, cap, s.load(scores));
                    s.store(scores, bounded);
                }
            }
            normalisers[r] = 1.0 / softmax(s, scores, seen(r));
            encode(s, dtype, &mut weights.as_mut_slice()[r * stride..][..stride], scores);
        }

        let words = weights.as_slice()[..R * stride].as_ptr();
        let block_words = dtype.words(BLOCK);
        for panel in 0..head_dim.div_ceil(PANEL) {
            let mut sums = [[s.splat(0.0); 2]; R]; // (rows, dimensions)
            for (block, (_, values)) in self.blocks(keys.clone()).enumerate() {
                let words_here = dtype.words((keys.len() - block * BLOCK).min(BLOCK));
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
                let head = self.head * group + (self.rows.start + row + r) % group;
                let mut lanes = [0.0; PANEL];
                let (left, right) = lanes.split_at_mut(LANES);
                if let (Ok(left), Ok(right)) = (left.try_into(), right.try_into()) {
                    s.store(left, s.mul(sums[0], s.splat(normaliser)));
                    s.store(right, s.mul(sums[1], s.splat(normaliser)));
                }
                let dims: Range<usize> = panel * PANEL..head_dim.min((panel + 1) * PANEL);
                // A head's width is even, so that it begins with a word and ends with one.
                let at = (self.attention.to + query(r)) * self.stride + dtype.words(head * head_dim + dims.start);
                // SAFETY: `attend` checked that the sequence's rows are rows of `out`, and that these are as wide as all
                // heads; these words belong to one query and one head, which no other item has.
                #[allow(unsafe_code)]
                let out = unsafe { std::slice::from_raw_parts_mut(self.out.add(at), dtype.words(dims.len())) };
                encode(s, dtype, out, &lanes[..dims.len()]);
            }
        }
        (self.hand.scores, self.hand.weights) = (scores, weights);
    }
}

/// `e^(x − max)` of the scores `seen`, zeros beside them, and the sum of the former.
#[inline(always)]
fn softmax<S: Simd>(s: S, scores: &mut [f32], seen: Range<usize>) -> f32 {
    let (before, scores) = scores.split_at_mut(seen.start / LANES * LANES);
    before.fill(0.0);
    let (hidden, seen) = (seen.start % LANES, seen.end - before.len());
    scores[..hidden].fill(f32::NEG_INFINITY);
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
    for (at, vector) in whole.iter_mut().enumerate() {
        let e = exp(s, s.sub(s.load(vector), shift));
        s.store(vector, e);
        if at == 0 && hidden > 0 {
            vector[..hidden].fill(0.0);
            sums = s.add(sums, s.load(vector));
        } else {
            sums = s.add(sums, e);
        }
    }
    if let Some((last, rest)) = rest.split_first_mut() {
        let e = exp(s, s.sub(s.load(last), shift));
        s.store(last, e);
        last[seen % LANES..].fill(0.0);
        if whole.is_empty() {
            last[..hidden].fill(0.0);
        }
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

    fn plain(qkv: &[f32], shape: AttentionShape, rule: AttentionRule, dtype: Dtype) -> Vec<f64> {
        let AttentionShape { heads, kv_heads, head_dim } = shape;
        let rows: Vec<&[f32]> = qkv.chunks(shape.width()).collect();
        let mut out = Vec::new();
        for (position, row) in rows.iter().enumerate() {
            for head in 0..heads {
                let q = &row[head * head_dim..][..head_dim];
                let at = (heads + head * kv_heads / heads) * head_dim;
                let first = rule.window.map_or(0, |window| (position + 1).saturating_sub(window));
                let weights: Vec<f64> = rows[first..=position]
                    .iter()
                    .map(|row| {
                        let k = &row[at..][..head_dim];
                        let scaled = |q: &f32| rounded(dtype, q * rule.scale);
                        let dot: f64 = q.iter().zip(k).map(|(q, &k)| scaled(q) * rounded(dtype, k)).sum();
                        rule.softcap.map_or(dot, |cap| f64::from(cap) * (dot / f64::from(cap)).tanh()).exp()
                    })
                    .collect();
                let total: f64 = weights.iter().sum();
                for i in 0..head_dim {
                    let v = |row: &&[f32]| rounded(dtype, row[at + kv_heads * head_dim + i]);
                    out.push(rows[first..].iter().zip(&weights).map(|(row, weight)| weight / total * v(row)).sum());
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

    fn rules() -> impl Strategy<Value = AttentionRule> {
        let window = proptest::option::of(1_usize..80);
        (0.05_f32..0.6, proptest::option::of(0.5_f32..5.0), window).prop_map(|(scale, softcap, window)| AttentionRule {
            scale,
            softcap,
            window,
        })
    }

    fn run(isa: Isa, dtype: Dtype, shape: AttentionShape, rule: AttentionRule, qkv: &[f32]) -> Rows {
        let mut own = KeyValues::new(dtype, shape);
        own.extend(isa, qkv);
        let mut out = Rows::new(dtype);
        out.resize(qkv.len() / shape.width(), shape.heads * shape.head_dim);
        let attention = Attention { to: 0, qkv, wanted: None, past: None, own: &own };
        attend(isa, &mut out, rule, &[attention], Threads::One, &mut AttentionScratch::new(dtype));
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]
        #[test]
        fn agrees_with_the_definition((shape, qkv) in shapes(), rule in rules()) {
            each_isa(|isa, dtype| {
                let found = decode(&run(isa, dtype, shape, rule, &qkv));
                // In bf16 the weights are rounded as well, to 2⁻⁹ of each, and so is the result.
                let tolerance = if dtype == Dtype::F32 { 1e-5 } else { 2.0_f64.powi(-6) };
                assert_close(&found, &plain(&qkv, shape, rule, dtype), tolerance);
            });
        }

        /// Positions in one go, one at a time, after a shared past, and some of them only: the same to the last bit.
        #[test]
        fn the_past_may_lie_elsewhere((shape, qkv) in shapes(), rule in rules(), cut in 0.0..1.0, seed in 0_usize..1000) {
            each_isa(|isa, dtype| {
                let (width, count) = (shape.width(), qkv.len() / shape.width());
                let whole = decode(&run(isa, dtype, shape, rule, &qkv));
                let cut = (cut * count as f64) as usize;
                let mut scratch = AttentionScratch::new(dtype);

                let mut past = KeyValues::new(dtype, shape);
                past.extend(isa, &qkv[..cut * width]);
                let mut own = KeyValues::new(dtype, shape);
                own.extend(isa, &vec![f32::INFINITY; 70 * width]);
                own.restart(Some(&past));
                own.extend(isa, &qkv[cut * width..]);
                let wanted: Vec<usize> = (0..count - cut).filter(|row| (row * 7 + seed) % 3 > 0).collect();
                let mut alone = KeyValues::new(dtype, shape);
                alone.extend(isa, &qkv);
                let mut out = Rows::new(dtype);
                out.resize(count + wanted.len(), shape.heads * shape.head_dim);
                let all = Attention { to: 0, qkv: &qkv, wanted: None, past: None, own: &alone };
                let some = Attention { to: count, qkv: &qkv[cut * width..], wanted: Some(&wanted), past: Some(&past), own: &own };
                for threads in [Threads::One, Threads::All] {
                    attend(isa, &mut out, rule, &[all, some], threads, &mut scratch);
                    let found = decode(&out);
                    let size = shape.heads * shape.head_dim;
                    assert_eq!(found[..count * size], whole, "{isa}");
                    for (at, row) in wanted.iter().enumerate() {
                        assert_eq!(found[(count + at) * size..][..size], whole[(cut + row) * size..][..size], "{isa}");
                    }
                }

                own.restart(None);
                for (position, row) in qkv.chunks(width).enumerate() {
                    own.extend(isa, row);
                    let attention = Attention { to: 0, qkv: row, wanted: None, past: None, own: &own };
                    attend(isa, &mut out, rule, &[attention], Threads::One, &mut scratch);
                    let size = shape.heads * shape.head_dim;
                    assert_eq!(decode(&out)[..size], whole[position * size..][..size], "{isa}");
                }
            });
        }
    }

    #[test]
    fn threads_share_the_work() {
        let shape = AttentionShape { heads: 6, kv_heads: 3, head_dim: 16 };
        let rule = AttentionRule { scale: 0.25, softcap: None, window: None };
        let qkv: Vec<f32> = (0..150 * shape.width()).map(|i| (i as f32 * 0.37).sin()).collect();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("a pool");
        each_isa(|isa, dtype| {
            let mut own = KeyValues::new(dtype, shape);
            own.extend(isa, &qkv);
            let whole = Attention { to: 0, qkv: &qkv, wanted: None, past: None, own: &own };
            let last = Attention { to: 150, wanted: Some(&[3, 149]), ..whole };
            let run = |threads| {
                let mut out = Rows::new(dtype);
                out.resize(152, shape.heads * shape.head_dim);
                attend(isa, &mut out, rule, &[whole, last], threads, &mut AttentionScratch::new(dtype));
                decode(&out)
            };
            assert!(pool.install(|| run(Threads::All)) == run(Threads::One), "{isa}");
        });
    }
}
