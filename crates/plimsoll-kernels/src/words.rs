//! Numbers as the products read them: 32-bit words on cache lines.
//!
//! A word is one `f32`, or two neighbouring `bf16` (the earlier in the lower half). That makes a product the same walk
//! over words for both, and the two differ in one instruction.

use memmap2::MmapMut;

use crate::isa::{Isa, Kernel, LANES, Simd, bf16_bits};

/// What the factors of a product are held as. Sums are `f32` always.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// Single precision.
    F32,
    /// The upper half of single precision: 8 bits of mantissa.
    Bf16,
}

impl Dtype {
    /// Words that hold so many numbers.
    #[inline(always)]
    pub(crate) fn words(self, numbers: usize) -> usize {
        match self {
            Self::F32 => numbers,
            Self::Bf16 => numbers.div_ceil(2),
        }
    }

    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

/// One cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [u32; LANES]);

/// From so many bytes on, memory is asked for in large pages: a panel then lies in one, and walking over it misses no
/// translation.
const LARGE: usize = 1 << 20;

/// Words that begin on a cache line.
#[derive(Debug, Default)]
pub(crate) struct Words {
    lines: Lines,
}

#[derive(Debug)]
enum Lines {
    Heap(Vec<Line>),
    /// Zeros of the operating system's.
    Mapped(MmapMut),
}

impl Default for Lines {
    fn default() -> Self {
        Self::Heap(Vec::new())
    }
}

impl Words {
    /// So many zeros, rounded up to whole lines.
    pub(crate) fn zeros(words: usize) -> Self {
        let lines = words.div_ceil(LANES);
        let mapped = || {
            let map = MmapMut::map_anon(lines * size_of::<Line>()).ok()?;
            // A wish: memory is as good without it.
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::HugePage);
            Some(Lines::Mapped(map))
        };
        let large = (lines * size_of::<Line>() >= LARGE).then(mapped).flatten();
        Self { lines: large.unwrap_or_else(|| Lines::Heap(vec![Line([0; LANES]); lines])) }
    }

    /// Grows to at least so many words, with zeros; never shrinks.
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
            // SAFETY: a map begins on a page, hence on a line; any bytes are a line; and the map is only ever written to
            // through the borrow below.
            #[allow(unsafe_code)]
            Lines::Mapped(map) => unsafe {
                std::slice::from_raw_parts(map.as_ptr().cast(), map.len() / size_of::<Line>())
            },
        }
    }

    pub(crate) fn lines_mut(&mut self) -> &mut [Line] {
        match &mut self.lines {
            Lines::Heap(lines) => lines,
            // SAFETY: as above; the borrow is handed on.
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

pub(crate) fn words_of(lines: &[Line]) -> &[u32] {
    // SAFETY: a `Line` is 16 words without padding, and wants more alignment than a word does.
    #[allow(unsafe_code)]
    unsafe {
        std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * LANES)
    }
}

pub(crate) fn words_of_mut(lines: &mut [Line]) -> &mut [u32] {
    // SAFETY: as above; the borrow is handed on.
    #[allow(unsafe_code)]
    unsafe {
        std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * LANES)
    }
}

/// Writes numbers as words; with an odd count of `bf16`, the last upper half is 0.
#[inline(always)]
pub(crate) fn encode<S: Simd>(s: S, dtype: Dtype, words: &mut [u32], numbers: &[f32]) {
    match dtype {
        Dtype::F32 => {
            for (word, x) in words.iter_mut().zip(numbers) {
                *word = x.to_bits();
            }
        }
        Dtype::Bf16 => {
            let (vectors, rest) = numbers.as_chunks::<LANES>();
            let (words, words_rest) = words.split_at_mut(vectors.len() * (LANES / 2));
            let (words, _) = words.as_chunks_mut::<{ LANES / 2 }>();
            for (words, vector) in words.iter_mut().zip(vectors) {
                *words = s.to_bf16(s.load(vector));
            }
            for (word, pair) in words_rest.iter_mut().zip(rest.chunks(2)) {
                *word = bf16_bits(pair[0]) | pair.get(1).map_or(0, |x| bf16_bits(*x) << 16);
            }
        }
    }
}

/// The left factor of a product: rows of numbers.
///
/// A buffer that is filled and used again: what lies in it after [`resize`](Self::resize) is unspecified, but never
/// beyond a row's end, where there are zeros.
#[derive(Debug)]
pub struct Rows {
    pub(crate) dtype: Dtype,
    pub(crate) words: Words,
    rows: usize,
    width: usize,
    /// Words from a row to the next.
    pub(crate) stride: usize,
}

impl Rows {
    /// No rows yet.
    pub fn new(dtype: Dtype) -> Self {
        Self { dtype, words: Words::default(), rows: 0, width: 0, stride: 0 }
    }

    /// Makes room for `rows` rows of `width` numbers.
    pub fn resize(&mut self, rows: usize, width: usize) {
        let stride = stride(self.dtype.words(width));
        if (stride, width) != (self.stride, self.width) {
            // Ends of rows lie elsewhere now: what was a number there must not count as one.
            self.words.as_mut_slice().fill(0);
        }
        self.words.grow(rows * stride);
        (self.rows, self.width, self.stride) = (rows, width, stride);
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Numbers in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The words of one row, with what is behind its end.
    #[inline(always)]
    pub(crate) fn row_mut(&mut self, row: usize) -> &mut [u32] {
        &mut self.words.as_mut_slice()[row * self.stride..][..self.stride]
    }

    /// Writes rows from `first` on: `x` is as many as its length holds.
    ///
    /// # Panics
    /// If `x` is not whole rows, or there is no room for them.
    pub fn write(&mut self, isa: Isa, first: usize, x: &[f32]) {
        assert!(self.width > 0 && x.len().is_multiple_of(self.width), "lengths do not fit");
        assert!(first + x.len() / self.width <= self.rows, "rows outside of the factor");
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

/// Words from a row to the next: whole lines, and an odd number of them, so that the rows of a tile, which are read side
/// by side, spread over the sets of the first-level cache.
fn stride(words: usize) -> usize {
    (words.div_ceil(LANES) | 1) * LANES
}
