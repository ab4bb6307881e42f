//! Keys and values of a sequence (KV cache), packed for the matrix products of attention.

use crate::dtype::{Dtype, bf16_bits};
use crate::isa::Isa;
use crate::packed::PANEL;
use crate::simd::{Kernel, LANES, Simd};
use crate::words::{Line, Words, encode, words_of_mut};

/// Positions of a block: the keys of a block are one panel of the product of queries and keys.
pub(crate) const BLOCK: usize = PANEL;

/// Largest supported head dimension.
pub const MAX_HEAD_DIM: usize = 1024;

/// Number and dimension of the heads of an attention layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads. `heads` is a multiple of it (grouped queries; Ainslie et al., arXiv:2305.13245).
    pub kv_heads: usize,
    /// Dimension of one head: even, and at most [`MAX_HEAD_DIM`].
    pub head_dim: usize,
}

impl AttentionShape {
    /// Number of values of one position's queries, keys and values: a row `q | k | v`.
    pub fn width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Query heads for each key and value head.
    pub(crate) fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Lines of one head in a block: (lines of its keys, lines of its values).
    ///
    /// The keys are one panel, with a column for each key. The values are a sequence of panels of 32 dimensions, with
    /// the positions along the words.
    pub(crate) fn head_lines(&self, dtype: Dtype) -> (usize, usize) {
        (2 * dtype.words(self.head_dim), self.head_dim.div_ceil(PANEL) * 2 * dtype.words(BLOCK))
    }

    fn block_lines(&self, dtype: Dtype) -> usize {
        let (keys, values) = self.head_lines(dtype);
        self.kv_heads * (keys + values)
    }
}

/// Keys and values of one sequence in one layer (KV cache), packed in blocks of 32 positions.
///
/// A sequence can continue another one, its past. Then it stores only the blocks that the past has not filled.
///
/// ```
/// use plimsoll_kernels::{AttentionShape, Dtype, Isa, KeyValues};
///
/// let shape = AttentionShape { heads: 2, kv_heads: 1, head_dim: 4 };
/// let mut prompt = KeyValues::new(Dtype::F32, shape);
/// prompt.extend(Isa::best(), &vec![0.5; 3 * shape.width()]); // 3 positions
/// let mut answer = KeyValues::new(Dtype::F32, shape);
/// answer.restart(Some(&prompt));
/// answer.extend(Isa::best(), &vec![0.5; shape.width()]);
/// assert_eq!((prompt.len(), answer.len()), (3, 4));
/// ```
#[derive(Debug)]
pub struct KeyValues {
    pub(crate) shape: AttentionShape,
    pub(crate) dtype: Dtype,
    blocks: Words,
    /// Position of the first block that is stored here. The blocks before it are stored in the past.
    pub(crate) first: usize,
    /// Number of positions, those before `first` included.
    pub(crate) len: usize,
}

impl KeyValues {
    /// An empty cache.
    ///
    /// # Panics
    /// If `heads` is not a positive multiple of `kv_heads`, or `head_dim` is odd, 0 or above [`MAX_HEAD_DIM`].
    pub fn new(dtype: Dtype, shape: AttentionShape) -> Self {
        let AttentionShape { heads, kv_heads, head_dim } = shape;
        assert!(
            kv_heads > 0 && heads.is_multiple_of(kv_heads) && heads > 0,
            "{heads} heads are not a positive multiple of {kv_heads} key and value heads"
        );
        assert!(
            head_dim > 0 && head_dim.is_multiple_of(2) && head_dim <= MAX_HEAD_DIM,
            "head dimension {head_dim}: expected an even number from 2 to {MAX_HEAD_DIM}"
        );
        Self { shape, dtype, blocks: Words::default(), first: 0, len: 0 }
    }

    /// Number of positions, those of the past included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no positions.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Memory of `positions` positions, in bytes.
    pub fn bytes(dtype: Dtype, shape: AttentionShape, positions: usize) -> usize {
        positions.div_ceil(BLOCK) * shape.block_lines(dtype) * size_of::<Line>()
    }

    /// Removes all positions, and starts a sequence that continues `past`.
    ///
    /// If the last block of `past` is not full, it is copied. So blocks begin at the same positions as in a sequence
    /// that has no past, and results are the same to the last bit.
    ///
    /// # Panics
    /// If `past` has another shape or dtype, or continues a past itself.
    pub fn restart(&mut self, past: Option<&Self>) {
        (self.first, self.len) = (0, 0);
        let Some(past) = past else { return };
        self.check_past(past);
        (self.first, self.len) = (past.len / BLOCK * BLOCK, past.len);
        if self.len > self.first {
            let lines = self.shape.block_lines(self.dtype);
            self.blocks.grow(lines * LANES);
            self.blocks.lines_mut()[..lines].copy_from_slice(past.block(self.first / BLOCK));
        }
    }

    /// Checks that this sequence can continue `past`.
    ///
    /// # Panics
    /// If it cannot.
    pub(crate) fn check_past(&self, past: &Self) {
        assert_eq!(past.shape, self.shape, "shape mismatch: past and sequence");
        assert_eq!(past.dtype, self.dtype, "dtype mismatch: past and sequence");
        assert_eq!(past.first, 0, "a past may not continue another past");
    }

    /// The lines of a block. Blocks are counted from position 0.
    pub(crate) fn block(&self, block: usize) -> &[Line] {
        let lines = self.shape.block_lines(self.dtype);
        &self.blocks.lines()[(block - self.first / BLOCK) * lines..][..lines]
    }

    /// Appends positions: the keys and values of rows `q | k | v`, `(positions, width)` with [`AttentionShape::width`].
    ///
    /// # Panics
    /// If the length of `rows` is not a multiple of the width.
    pub fn extend(&mut self, isa: Isa, rows: &[f32]) {
        let width = self.shape.width();
        assert!(
            rows.len().is_multiple_of(width),
            "shape mismatch: {} values are not whole rows of width {width}",
            rows.len()
        );
        let count = rows.len() / width;
        let lines = self.shape.block_lines(self.dtype);
        let begun = (self.len - self.first).div_ceil(BLOCK);
        let blocks = (self.len + count - self.first).div_ceil(BLOCK);
        self.blocks.grow(blocks * lines * LANES);
        // Positions that are not yet written are multiplied by weights of 0. Values of an earlier sequence could be
        // infinite, and 0 · ∞ is NaN.
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
