//! Storage of matrix operands: 32-bit words in buffers that are aligned to cache lines.
//!
//! A word holds one `f32`, or two consecutive `bf16` with the first in the lower half. So a matrix product runs the
//! same loop over words for both dtypes, and only the multiply instruction differs.

use memmap2::MmapMut;

use crate::dtype::{Dtype, bf16_word};
use crate::isa::Isa;
use crate::simd::{Kernel, LANES, Simd};

/// One cache line: 16 words.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [u32; LANES]);

/// Buffers of at least this many bytes are allocated in huge pages. Then a panel is in one page, and reading it
/// causes no TLB misses.
const HUGE_PAGE_THRESHOLD: usize = 1 << 20;

/// Growable buffer of words, aligned to cache lines.
#[derive(Debug, Default)]
pub(crate) struct Words {
    lines: Lines,
}

#[derive(Debug)]
enum Lines {
    Heap(Vec<Line>),
    /// Anonymous memory map.
    Mapped(MmapMut),
}

impl Default for Lines {
    fn default() -> Self {
        Self::Heap(Vec::new())
    }
}

impl Words {
    /// `words` zeros, rounded up to whole lines.
    pub(crate) fn zeros(words: usize) -> Self {
        let lines = words.div_ceil(LANES);
        let mapped = || {
            let map = MmapMut::map_anon(lines * size_of::<Line>()).ok()?;
            // The result is ignored: small pages give the same results, more slowly.
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::HugePage);
            Some(Lines::Mapped(map))
        };
        let huge = (lines * size_of::<Line>() >= HUGE_PAGE_THRESHOLD).then(mapped).flatten();
        Self { lines: huge.unwrap_or_else(|| Lines::Heap(vec![Line([0; LANES]); lines])) }
    }

    /// Grows to at least `words` words; new words are 0. Never shrinks.
    pub(crate) fn grow(&mut self, words: usize) {
        let lines = words.div_ceil(LANES);
        if self.lines().len() >= lines {
            return;
        }
        match &mut self.lines {
            Lines::Heap(heap) => heap.resize(lines, Line([0; LANES])),
            Lines::Mapped(_) => {
                let mut heap = self.lines().to_vec();
                heap.resize(lines, Line([0; LANES]));
                self.lines = Lines::Heap(heap);
            }
        }
    }

    pub(crate) fn lines(&self) -> &[Line] {
        match &self.lines {
            Lines::Heap(lines) => lines,
            // SAFETY: a map is aligned to a page, hence to a line. Every bit pattern is a valid `Line`. The map is
            // written to only through the mutable borrow of `lines_mut`.
            #[allow(unsafe_code)]
            Lines::Mapped(map) => unsafe {
                std::slice::from_raw_parts(map.as_ptr().cast(), map.len() / size_of::<Line>())
            },
        }
    }

    pub(crate) fn lines_mut(&mut self) -> &mut [Line] {
        match &mut self.lines {
            Lines::Heap(lines) => lines,
            // SAFETY: as in `lines`; the result borrows `self` mutably.
            #[allow(unsafe_code)]
            Lines::Mapped(map) => unsafe {
                std::slice::from_raw_parts_mut(map.as_mut_ptr().cast(), map.len() / size_of::<Line>())
            },
        }
    }

    pub(crate) fn as_slice(&self) -> &[u32] {
        words_of(self.lines())
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u32] {
        words_of_mut(self.lines_mut())
    }
}

/// The words of some lines.
pub(crate) fn words_of(lines: &[Line]) -> &[u32] {
    // SAFETY: a `Line` is 16 words without padding, and its alignment is larger than that of a word.
    #[allow(unsafe_code)]
    unsafe {
        std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * LANES)
    }
}

/// The words of some lines, mutable.
pub(crate) fn words_of_mut(lines: &mut [Line]) -> &mut [u32] {
    // SAFETY: as in `words_of`; the result borrows `lines` mutably.
    #[allow(unsafe_code)]
    unsafe {
        std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * LANES)
    }
}

/// Converts `f32` values to words. If the number of `bf16` is odd, the last upper half is 0.
#[inline(always)]
pub(crate) fn encode<S: Simd>(s: S, dtype: Dtype, words: &mut [u32], values: &[f32]) {
    match dtype {
        Dtype::F32 => {
            for (word, x) in words.iter_mut().zip(values) {
                *word = x.to_bits();
            }
        }
        Dtype::Bf16 => {
            let (vectors, rest) = values.as_chunks::<LANES>();
            let (words, words_rest) = words.split_at_mut(vectors.len() * (LANES / 2));
            let (words, _) = words.as_chunks_mut::<{ LANES / 2 }>();
            for (words, vector) in words.iter_mut().zip(vectors) {
                *words = s.to_bf16(s.load(vector));
            }
            for (word, pair) in words_rest.iter_mut().zip(rest.chunks(2)) {
                *word = bf16_word(pair);
            }
        }
    }
}

/// Left operand of a matrix product: a buffer of shape `(rows, width)` in one dtype.
///
/// The buffer can be reused. After [`resize`](Self::resize) its values are unspecified, but the padding behind the end
/// of each row is always 0.
///
/// ```
/// use plimsoll_kernels::{Dtype, Isa, Rows};
///
/// let mut x = Rows::new(Dtype::Bf16);
/// x.resize(2, 3);
/// x.write(Isa::best(), 0, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]); // (2, 3)
/// assert_eq!((x.rows(), x.width()), (2, 3));
/// ```
#[derive(Debug)]
pub struct Rows {
    pub(crate) dtype: Dtype,
    pub(crate) words: Words,
    rows: usize,
    width: usize,
    /// Words from the start of a row to the start of the next.
    pub(crate) stride: usize,
}

impl Rows {
    /// An empty buffer of a dtype.
    pub fn new(dtype: Dtype) -> Self {
        Self { dtype, words: Words::default(), rows: 0, width: 0, stride: 0 }
    }

    /// Changes the shape to `(rows, width)`.
    pub fn resize(&mut self, rows: usize, width: usize) {
        let stride = stride(self.dtype.words(width));
        if (stride, width) != (self.stride, self.width) {
            // The rows end elsewhere now, and what becomes padding must be 0.
            self.words.as_mut_slice().fill(0);
        }
        self.words.grow(rows * stride);
        (self.rows, self.width, self.stride) = (rows, width, stride);
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of values in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The words of one row, its padding included.
    #[inline(always)]
    pub(crate) fn row_mut(&mut self, row: usize) -> &mut [u32] {
        &mut self.words.as_mut_slice()[row * self.stride..][..self.stride]
    }

    /// Writes `x (n, width)` to rows `first..first + n`, rounded to the dtype of the buffer.
    ///
    /// # Panics
    /// If the width is 0, the length of `x` is not a multiple of the width, or the buffer has fewer than `first + n`
    /// rows.
    pub fn write(&mut self, isa: Isa, first: usize, x: &[f32]) {
        let (rows, width) = (self.rows, self.width);
        assert!(
            width > 0 && x.len().is_multiple_of(width),
            "shape mismatch: {} values are not whole rows of width {width}",
            x.len()
        );
        assert!(
            first + x.len() / width <= rows,
            "row out of bounds: {} rows from row {first} on do not fit in {rows} rows",
            x.len() / width
        );
        isa.run(Write { to: self, first, x });
    }
}

struct Write<'a> {
    to: &'a mut Rows,
    first: usize,
    x: &'a [f32],
}

impl Kernel for Write<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (dtype, width) = (self.to.dtype, self.to.width);
        for (row, x) in self.x.chunks_exact(width).enumerate() {
            encode(s, dtype, self.to.row_mut(self.first + row), x);
        }
    }
}

/// Words from the start of a row to the start of the next: whole lines, and an odd number of them. The rows of a
/// register tile are read at the same time, and an odd number of lines spreads them over the sets of the L1 cache.
fn stride(words: usize) -> usize {
    (words.div_ceil(LANES) | 1) * LANES
}
