//! Causal attention with grouped queries, over packed keys and values.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::dtype::Dtype;
use crate::isa::Isa;
use crate::key_values::{AttentionShape, BLOCK, KeyValues, MAX_HEAD_DIM};
use crate::packed::PANEL;
use crate::simd::{Kernel, LANES, Simd, exp, softcap};
use crate::threads::{SendPtr, Threads, for_each_item};
use crate::tile::{Bf16, Dot, F32, Operand, dispatch_rows, multiply, tiles};
use crate::words::{Line, Rows, Words, encode};

/// Scale, soft cap and sliding window of an attention layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionRule {
    /// Factor of the scores `q · k`: `1 / √head_dim` in most models.
    pub scale: f32,
    /// Soft cap c of the scores, `c · tanh(score / c)` (Gemma 2, arXiv:2408.00118); `None` for no cap.
    pub softcap: Option<f32>,
    /// Sliding window: number of positions that a query attends to, its own included (Beltagy et al.,
    /// arXiv:2004.05150). `None` for all positions up to its own.
    pub window: Option<usize>,
}

impl AttentionRule {
    /// First position that the query at `position` attends to.
    #[inline(always)]
    fn first(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }
}

/// Scratch memory of [`attend`]. It grows as needed, and should be reused.
#[derive(Debug)]
pub struct AttentionScratch {
    dtype: Dtype,
    threads: Vec<ThreadScratch>,
}

/// Scratch memory of one thread.
#[derive(Debug)]
struct ThreadScratch {
    /// Scaled queries of one head, `(queries · group, head_dim)`.
    queries: Rows,
    /// Scores of a register tile, then their softmax without its normaliser, `(rows, keys)`.
    scores: Vec<f32>,
    /// The same as words of the dtype, `(rows, keys)`.
    weights: Words,
}

impl AttentionScratch {
    /// Empty scratch memory for one dtype.
    pub fn new(dtype: Dtype) -> Self {
        Self { dtype, threads: Vec::new() }
    }
}

/// Queries of one sequence, with the keys and values that they attend to.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// Row of the output for the first query. The other queries follow.
    pub to: usize,
    /// Rows `q | k | v` of the last positions of the sequence. Only the queries are read: keys and values are in `own`.
    pub qkv: &'a [f32], // (positions, width)
    /// Rows of `qkv` whose queries are computed, ascending; `None` for all rows.
    pub wanted: Option<&'a [usize]>,
    /// The sequence that `own` continues, if it does.
    pub past: Option<&'a KeyValues>,
    /// Keys and values of the positions after `past`, those of `qkv` included.
    pub own: &'a KeyValues,
}

impl Attention<'_> {
    fn rows(&self) -> usize {
        self.qkv.len() / self.own.shape.width()
    }

    /// Number of queries.
    fn outputs(&self) -> usize {
        self.wanted.map_or(self.rows(), <[usize]>::len)
    }

    /// Row of `qkv` and position of a query.
    #[inline(always)]
    fn query(&self, query: usize) -> (usize, usize) {
        let row = self.wanted.map_or(query, |wanted| wanted[query]);
        (row, self.own.len - self.rows() + row)
    }

    /// Checks that the fields match each other and the dtype of the output.
    ///
    /// # Panics
    /// If they do not.
    fn check(&self, dtype: Dtype) {
        let Self { qkv, wanted, past, own, .. } = self;
        let (rows, width) = (self.rows(), own.shape.width());
        assert_eq!(qkv.len(), rows * width, "shape mismatch: qkv is not whole rows of width {width}");
        assert!(rows <= own.len, "shape mismatch: qkv has {rows} rows, but the sequence {} positions", own.len);
        assert_eq!(own.dtype, dtype, "dtype mismatch: keys and output");
        let wanted = wanted.unwrap_or_default();
        assert!(wanted.is_sorted(), "the rows in `wanted` are not ascending");
        assert!(
            wanted.last().is_none_or(|&last| last < rows),
            "a row in `wanted` is out of bounds: qkv has {rows} rows"
        );
        if let Some(past) = past {
            own.check_past(past);
            assert!(own.first <= past.len, "the past ends at {}, but the sequence begins at {}", past.len, own.first);
        } else {
            assert_eq!(own.first, 0, "the sequence continues a past, but `past` is `None`");
        }
    }
}

/// Rows of one head that a thread processes at a time: a multiple of the tile's rows on every instruction set.
const ITEM_ROWS: usize = 96;

/// Multiply-adds below which a second thread costs more time than it saves.
const MIN_PARALLEL_WORK: usize = 200_000;

/// Causal attention: `softmax(scale · q · kᵀ) · v` for some positions of each sequence.
///
/// A position attends to itself and to the positions before it, up to the window of the rule. `out` has the shape
/// `(rows, heads · head_dim)`. The sequences are in the order of their output rows. Scores are stored for at most 12
/// rows at a time, so memory grows linearly with the number of positions. A thread processes one head of one sequence
/// at a time.
///
/// ```
/// use plimsoll_kernels::{
///     Attention, AttentionRule, AttentionScratch, AttentionShape, Dtype, Isa, KeyValues, Mode, Packed, Rows, Threads,
///     attend, linear,
/// };
///
/// let (isa, dtype) = (Isa::best(), Dtype::F32);
/// let shape = AttentionShape { heads: 1, kv_heads: 1, head_dim: 2 };
/// let qkv = [[0.0, 0.0, 1.0, 1.0, 2.0, 4.0], [0.0, 0.0, 1.0, 1.0, 6.0, 8.0]].concat(); // rows q | k | v
/// let mut own = KeyValues::new(dtype, shape);
/// own.extend(isa, &qkv);
///
/// let mut out = Rows::new(dtype);
/// out.resize(2, 2);
/// let rule = AttentionRule { scale: 1.0, softcap: None, window: None };
/// let sequence = Attention { to: 0, qkv: &qkv, wanted: None, past: None, own: &own };
/// attend(isa, &mut out, rule, &[sequence], Threads::One, &mut AttentionScratch::new(dtype));
///
/// let identity = Packed::from_rows(dtype, &[1.0, 0.0, 0.0, 1.0], 2); // the output projection of a model
/// let mut y = [0.0; 4];
/// linear(isa, &mut y, &out, &identity, None, Mode::Set, Threads::One);
/// assert_eq!(y, [2.0, 4.0, 4.0, 6.0]); // all scores are 0, so the second position has the mean of both values
/// ```
///
/// # Panics
/// If dimensions or dtypes do not match, or the window is 0.
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
    assert_eq!(scratch.dtype, dtype, "dtype mismatch: scratch memory and output");
    assert_eq!(out.width(), heads * head_dim, "shape mismatch: width of the output and of all heads");
    assert!(rule.window != Some(0), "a window of 0 positions");
    let (mut items, mut free, mut work) = (Vec::new(), 0, 0);
    for (sequence, attention) in sequences.iter().enumerate() {
        attention.check(dtype);
        assert_eq!(attention.own.shape, sequences[0].own.shape, "shape mismatch: the first sequence and another one");
        assert!(free <= attention.to, "sequences are not in the order of their output rows, or overlap");
        free = attention.to + attention.outputs();
        let rows = attention.outputs() * heads / kv_heads;
        for head in 0..kv_heads {
            let pieces = (0..rows).step_by(ITEM_ROWS);
            items.extend(pieces.map(|row| (sequence, head, row..rows.min(row + ITEM_ROWS))));
        }
        work += attention.outputs() * attention.own.len * 2 * heads * head_dim;
    }
    assert!(free <= out.rows(), "shape mismatch: {free} rows of sequences, but {} rows of output", out.rows());

    let workers = match threads {
        Threads::All if work >= MIN_PARALLEL_WORK => rayon::current_num_threads().min(items.len()),
        _ => 1,
    };
    let empty = || ThreadScratch { queries: Rows::new(dtype), scores: Vec::new(), weights: Words::default() };
    scratch.threads.resize_with(scratch.threads.len().max(workers), empty);
    let (next, stride) = (AtomicUsize::new(0), out.stride);
    let out = SendPtr(out.words.as_mut_slice().as_mut_ptr());
    for_each_item(&mut scratch.threads[..workers], &|scratch: &mut ThreadScratch| {
        // The closure has to capture the wrapper, which is `Send`, and not the pointer in it.
        let SendPtr(out) = { out };
        while let Some((sequence, head, rows)) = items.get(next.fetch_add(1, Ordering::Relaxed)).cloned() {
            let attention = sequences[sequence];
            isa.run(Attend { out, stride, rule, attention, head, rows, scratch });
        }
    });
}

/// Attention of one sequence for some rows of one key and value head. A row is a query of one head of the group; the
/// rows are ordered by query, then by head.
struct Attend<'a> {
    out: *mut u32,
    /// Words from the start of a row of `out` to the start of the next.
    stride: usize,
    rule: AttentionRule,
    attention: Attention<'a>,
    head: usize,
    rows: Range<usize>,
    scratch: &'a mut ThreadScratch,
}

impl Kernel for Attend<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        self.scale_queries(s);
        match self.attention.own.dtype {
            Dtype::F32 => self.run_dtype::<S, F32>(s),
            Dtype::Bf16 => self.run_dtype::<S, Bf16>(s),
        }
    }
}

impl Attend<'_> {
    /// Writes the scaled queries to the scratch memory, one row after the other.
    #[inline(always)]
    fn scale_queries<S: Simd>(&mut self, s: S) {
        let Self { attention, rows, scratch, rule, .. } = self;
        let AttentionShape { head_dim, .. } = attention.own.shape;
        let (group, width, dtype) = (attention.own.shape.group(), attention.own.shape.width(), attention.own.dtype);
        let scale = rule.scale;
        let mut scaled = [0.0; MAX_HEAD_DIM];
        let scaled = &mut scaled[..head_dim];
        scratch.queries.resize(rows.len(), head_dim);
        for (to, row) in rows.clone().enumerate() {
            let (query, head) = (row / group, self.head * group + row % group);
            let q = &attention.qkv[attention.query(query).0 * width + head * head_dim..][..head_dim];
            for (scaled, q) in scaled.iter_mut().zip(q) {
                *scaled = q * scale;
            }
            encode(s, dtype, scratch.queries.row_mut(to), scaled);
        }
    }

    #[inline(always)]
    fn run_dtype<S: Simd, D: Dot>(&mut self, s: S) {
        for (row, rows) in tiles(self.rows.len(), S::ROWS) {
            dispatch_rows!(rows, S::ROWS, R => self.tile::<S, D, R>(s, row));
        }
    }

    /// The lines of the head in each block of the positions `keys`: (its keys, its values).
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

    /// Computes `R` rows, from `row` on.
    #[inline(always)]
    fn tile<S: Simd, D: Dot, const R: usize>(&mut self, s: S, row: usize) {
        let (group, dtype) = (self.attention.own.shape.group(), self.attention.own.dtype);
        // Columns of the scores are keys, from the first block that any of the rows attends to.
        let position = |r: usize| self.attention.query((self.rows.start + row + r) / group).1;
        let base = self.rule.first(position(0)) / BLOCK * BLOCK;
        let visible = |r: usize| self.rule.first(position(r)) - base..position(r) + 1 - base;
        let keys = base..position(R - 1) + 1;
        let columns = keys.len().div_ceil(BLOCK) * BLOCK;

        let mut scores = std::mem::take(&mut self.scratch.scores);
        if scores.len() < R * columns {
            scores.resize(R * columns, 0.0);
        }
        self.scores::<S, D, R>(s, row, keys.clone(), &mut scores, columns);

        // An odd number of lines, which spreads the rows over the sets of the L1 cache.
        let stride = ((dtype.words(columns) / LANES) | 1) * LANES;
        let mut weights = std::mem::take(&mut self.scratch.weights);
        weights.grow(R * stride);
        let mut normalisers = [0.0; R];
        for (r, scores) in scores.chunks_exact_mut(columns).take(R).enumerate() {
            if let Some(cap) = self.rule.softcap {
                for scores in scores.as_chunks_mut::<LANES>().0 {
                    let capped = softcap(s, cap, s.load(scores));
                    s.store(scores, capped);
                }
            }
            normalisers[r] = 1.0 / softmax(s, scores, visible(r));
            encode(s, dtype, &mut weights.as_mut_slice()[r * stride..][..stride], scores);
        }

        self.weighted_values::<S, D, R>(s, row, keys, weights.as_slice(), stride, normalisers);
        (self.scratch.scores, self.scratch.weights) = (scores, weights);
    }

    /// Writes `q · kᵀ` of `R` rows, from `row` on, to `scores (R, columns)`. Columns are `keys`, padded to whole
    /// blocks.
    #[inline(always)]
    fn scores<S: Simd, D: Dot, const R: usize>(
        &self,
        s: S,
        row: usize,
        keys: Range<usize>,
        scores: &mut [f32],
        columns: usize,
    ) {
        let stride = self.scratch.queries.stride;
        let words = self.scratch.queries.words.as_slice()[row * stride..][..R * stride].as_ptr();
        for (block, (key_panel, _)) in self.blocks(keys).enumerate() {
            let mut sums = [[s.splat(0.0); 2]; R]; // (rows, keys)
            // SAFETY: the slice above has `R` rows, of as many words as a key has. A key panel has two lines for each
            // word.
            #[allow(unsafe_code)]
            unsafe {
                multiply::<S, D, R>(s, &mut sums, Operand { words, stride }, key_panel);
            }
            for (sums, scores) in sums.iter().zip(scores.chunks_exact_mut(columns)) {
                let (scores, _) = scores[block * BLOCK..].as_chunks_mut::<LANES>();
                s.store(&mut scores[0], sums[0]);
                s.store(&mut scores[1], sums[1]);
            }
        }
    }

    /// Writes `weights · v · normaliser` of `R` rows, from `row` on, to the output. `weights` has the shape `(R, keys)`
    /// and rows that are `stride` words apart.
    #[inline(always)]
    fn weighted_values<S: Simd, D: Dot, const R: usize>(
        &self,
        s: S,
        row: usize,
        keys: Range<usize>,
        weights: &[u32],
        stride: usize,
        normalisers: [f32; R],
    ) {
        let AttentionShape { head_dim, .. } = self.attention.own.shape;
        let (group, dtype) = (self.attention.own.shape.group(), self.attention.own.dtype);
        let words = weights[..R * stride].as_ptr();
        let block_words = dtype.words(BLOCK);
        for panel in 0..head_dim.div_ceil(PANEL) {
            let mut sums = [[s.splat(0.0); 2]; R]; // (rows, dimensions)
            for (block, (_, values)) in self.blocks(keys.clone()).enumerate() {
                let words_here = dtype.words((keys.len() - block * BLOCK).min(BLOCK));
                let values = &values[panel * 2 * block_words..][..2 * words_here];
                // SAFETY: the slice above has `R` rows, of at least as many words as the keys have. Those of this block
                // begin at `block * block_words`. `values` has two lines for each of the words that are read.
                #[allow(unsafe_code)]
                unsafe {
                    let a = Operand { words: words.add(block * block_words), stride };
                    multiply::<S, D, R>(s, &mut sums, a, values);
                }
            }
            for (r, (sums, normaliser)) in sums.iter().zip(normalisers).enumerate() {
                let row = self.rows.start + row + r;
                let (query, head) = (row / group, self.head * group + row % group);
                let mut lanes = [0.0; PANEL];
                let (left, right) = lanes.split_at_mut(LANES);
                if let (Ok(left), Ok(right)) = (left.try_into(), right.try_into()) {
                    s.store(left, s.mul(sums[0], s.splat(normaliser)));
                    s.store(right, s.mul(sums[1], s.splat(normaliser)));
                }
                let dims: Range<usize> = panel * PANEL..head_dim.min((panel + 1) * PANEL);
                // The head dimension is even, so a head begins and ends at a word.
                let at = (self.attention.to + query) * self.stride + dtype.words(head * head_dim + dims.start);
                // SAFETY: `attend` checked that the rows of the sequence are rows of `out`, and that a row is as wide
                // as all heads. These words belong to one query and one head, and no other item has both.
                #[allow(unsafe_code)]
                let out = unsafe { std::slice::from_raw_parts_mut(self.out.add(at), dtype.words(dims.len())) };
                encode(s, dtype, out, &lanes[..dims.len()]);
            }
        }
    }
}

/// Softmax without normalisation: replaces the `visible` scores by `e^(x − max)` and the others by 0, and returns the
/// sum.
#[inline(always)]
fn softmax<S: Simd>(s: S, scores: &mut [f32], visible: Range<usize>) -> f32 {
    let (before, scores) = scores.split_at_mut(visible.start / LANES * LANES);
    before.fill(0.0);
    // Of what is left, scores `hidden..end` are visible.
    let (hidden, end) = (visible.start % LANES, visible.end - before.len());
    scores[..hidden].fill(f32::NEG_INFINITY);
    let (vectors, _) = scores.as_chunks_mut::<LANES>();
    let (whole, rest) = vectors.split_at_mut(end / LANES);
    let mut max = s.splat(f32::NEG_INFINITY);
    for vector in whole.iter() {
        max = s.max(max, s.load(vector));
    }
    if let Some(last) = rest.first_mut() {
        last[end % LANES..].fill(f32::NEG_INFINITY);
        max = s.max(max, s.load(last));
    }
    let shift = s.splat(s.reduce_max(max));
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
        last[end % LANES..].fill(0.0);
        if whole.is_empty() {
            last[..hidden].fill(0.0);
        }
        sums = s.add(sums, s.load(last));
        rest.as_flattened_mut().fill(0.0);
    }
    s.reduce_sum(sums)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{assert_close, decode, each_isa, rounded, values};

    /// The definition, in `f64`, of operands that are rounded to the dtype.
    fn reference(qkv: &[f32], shape: AttentionShape, rule: AttentionRule, dtype: Dtype) -> Vec<f64> {
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
        fn attend_agrees_with_the_definition((shape, qkv) in shapes(), rule in rules()) {
            each_isa(|isa, dtype| {
                let found = decode(&run(isa, dtype, shape, rule, &qkv));
                // In bf16 the weights and the result are rounded too, with a relative error of up to 2⁻⁹.
                let tolerance = if dtype == Dtype::F32 { 1e-5 } else { 2.0_f64.powi(-6) };
                assert_close(&found, &reference(&qkv, shape, rule, dtype), tolerance);
            });
        }

        /// All positions at once, one at a time, after a past, and for some queries only: the same bits.
        #[test]
        fn result_does_not_depend_on_the_split(
            (shape, qkv) in shapes(),
            rule in rules(),
            cut in 0.0..1.0,
            seed in 0_usize..1000,
        ) {
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
                let rest = &qkv[cut * width..];
                let some = Attention { to: count, qkv: rest, wanted: Some(&wanted), past: Some(&past), own: &own };
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
    fn result_does_not_depend_on_the_number_of_threads() {
        let shape = AttentionShape { heads: 6, kv_heads: 3, head_dim: 16 };
        let rule = AttentionRule { scale: 0.25, softcap: None, window: None };
        let qkv: Vec<f32> = (0..150 * shape.width()).map(|i| (i as f32 * 0.37).sin()).collect();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("a thread pool");
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
