//! Register tile of a matrix product: up to `Simd::ROWS` rows × 32 columns of sums, held in vector registers.
//!
//! The inputs are not blocked. The loop of a tile runs over all words of its rows and of one panel.

use crate::dtype::Dtype;
use crate::isa::Isa;
use crate::simd::{BLOCK_ROWS, BlockOperands, Kernel, LANES, Simd};
use crate::words::Line;

/// Multiply-accumulate on words, implemented for each dtype.
pub(crate) trait Dot {
    /// Whether the words hold `bf16`.
    const IS_BF16: bool;

    /// `acc + a · b` on every lane, where `·` is the dot product of the one or two values of a word.
    fn dot<S: Simd>(s: S, acc: S::F, a: S::W, b: S::W) -> S::F;
}

/// [`Dtype::F32`] at compile time.
pub(crate) struct F32;

/// [`Dtype::Bf16`] at compile time.
pub(crate) struct Bf16;

impl Dot for F32 {
    const IS_BF16: bool = false;

    #[inline(always)]
    fn dot<S: Simd>(s: S, acc: S::F, a: S::W, b: S::W) -> S::F {
        s.dot_f32(acc, a, b)
    }
}

impl Dot for Bf16 {
    const IS_BF16: bool = true;

    #[inline(always)]
    fn dot<S: Simd>(s: S, acc: S::F, a: S::W, b: S::W) -> S::F {
        s.dot_bf16(acc, a, b)
    }
}

/// Pointer to the words of a left operand, without bounds checks. Whoever creates one guarantees its bounds.
#[derive(Clone, Copy)]
pub(crate) struct Operand {
    pub(crate) words: *const u32,
    /// Words from the start of a row to the start of the next.
    pub(crate) stride: usize,
}

/// Adds `a (R, inputs) · b (inputs, 32)` to the sums `(R, 32)`. `b` is a panel: two lines for each word of inputs.
///
/// # Safety
/// `a.words` must point to `R` rows, `a.stride` words apart, of `b.len() / 2` words each.
#[inline(always)]
#[allow(unsafe_code)]
pub(crate) unsafe fn multiply<S: Simd, D: Dot, const R: usize>(
    s: S,
    sums: &mut [[S::F; 2]; R],
    a: Operand,
    b: &[Line],
) {
    let mut acc = *sums;
    for (k, b) in b.chunks_exact(2).enumerate() {
        let (left, right) = (s.load_words(&b[0].0), s.load_words(&b[1].0));
        for (r, acc) in acc.iter_mut().enumerate() {
            // SAFETY: `r < R`, and `k` is less than the words of a row, by the contract above.
            let x = s.splat_word(unsafe { *a.words.add(r * a.stride + k) });
            acc[0] = D::dot(s, acc[0], x, left);
            acc[1] = D::dot(s, acc[1], x, right);
        }
    }
    *sums = acc;
}

/// [`multiply`] that prefetches the lines of `next`, two in each iteration. `next` has as many lines as `b`.
///
/// # Safety
/// As for [`multiply`].
#[inline(always)]
#[allow(unsafe_code)]
pub(crate) unsafe fn multiply_prefetching<S: Simd, D: Dot, const R: usize>(
    s: S,
    sums: &mut [[S::F; 2]; R],
    a: Operand,
    b: &[Line],
    next: &[Line],
) {
    let mut acc = *sums;
    for (k, (b, next)) in b.chunks_exact(2).zip(next.chunks_exact(2)).enumerate() {
        s.prefetch(&next[0].0);
        s.prefetch(&next[1].0);
        let (left, right) = (s.load_words(&b[0].0), s.load_words(&b[1].0));
        for (r, acc) in acc.iter_mut().enumerate() {
            // SAFETY: `r < R`, and `k` is less than the words of a row, by the contract above.
            let x = s.splat_word(unsafe { *a.words.add(r * a.stride + k) });
            acc[0] = D::dot(s, acc[0], x, left);
            acc[1] = D::dot(s, acc[1], x, right);
        }
    }
    *sums = acc;
}

/// Sums of a block: up to 32 rows × 32 columns, in memory. A block multiplies whole steps of 16 words; what is left of
/// the inputs is multiplied in registers, row by row, so that a row's sums do not depend on the other rows.
#[repr(C, align(64))]
pub(crate) struct Block {
    sums: [[[f32; LANES]; 2]; BLOCK_ROWS],
    configured: usize,
}

impl Block {
    /// Whether products of this dtype are computed in blocks.
    #[inline(always)]
    pub(crate) const fn is_used<S: Simd, D: Dot>() -> bool {
        S::HAS_BLOCKS && D::IS_BF16
    }

    pub(crate) fn new() -> Self {
        Self { sums: [[[0.0; LANES]; 2]; BLOCK_ROWS], configured: 0 }
    }

    /// The lines of a panel that a block multiplies, and the others.
    #[inline(always)]
    fn split(b: &[Line]) -> (&[Line], &[Line]) {
        b.split_at(b.len() / (2 * LANES) * (2 * LANES))
    }

    /// Multiplies `a (rows, inputs)` with the whole steps of the panel `b`.
    ///
    /// # Safety
    /// As for [`multiply`], for `rows` rows, at most [`BLOCK_ROWS`] and at least 1.
    #[inline(always)]
    #[allow(unsafe_code)]
    pub(crate) unsafe fn multiply<S: Simd>(&mut self, s: S, a: Operand, rows: usize, b: &[Line]) {
        let (whole, _) = Self::split(b);
        let operands = BlockOperands {
            a: a.words,
            stride: a.stride,
            b: whole.as_ptr().cast(),
            steps: whole.len() / (2 * LANES),
            rows,
        };
        // SAFETY: the sums have space for all rows, and the operands are as the contract says.
        unsafe { s.block(&mut self.configured, self.sums.as_mut_ptr().cast(), operands) };
    }

    /// The sums of rows `row..row + R` of the block, completed by the inputs after the whole steps. `a` begins at row
    /// `row`.
    ///
    /// # Safety
    /// As for [`multiply`].
    #[inline(always)]
    #[allow(unsafe_code)]
    pub(crate) unsafe fn sums<S: Simd, D: Dot, const R: usize>(
        &self,
        s: S,
        row: usize,
        a: Operand,
        b: &[Line],
    ) -> [[S::F; 2]; R] {
        let mut sums = [[s.splat(0.0); 2]; R];
        for (sums, of_row) in sums.iter_mut().zip(&self.sums[row..row + R]) {
            *sums = [s.load(&of_row[0]), s.load(&of_row[1])];
        }
        let (whole, rest) = Self::split(b);
        // SAFETY: the rows have as many words as `b` has pairs of lines.
        unsafe {
            let a = Operand { words: a.words.add(whole.len() / 2), ..a };
            multiply::<S, D, R>(s, &mut sums, a, rest);
        }
        sums
    }
}

/// Splits `rows` rows into tiles of at most `max` rows, of nearly equal size: (first row, number of rows).
#[inline(always)]
pub(crate) fn tiles(rows: usize, max: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = rows.div_ceil(max);
    (0..count).map(move |index| {
        let first = rows * index / count;
        (first, rows * (index + 1) / count - first)
    })
}

/// Evaluates `$call` with the constant `$R` equal to a number of rows from 1 to `$max`, which is 2, 3 or 12.
macro_rules! dispatch_rows {
    ($rows:expr, $max:expr, $R:ident => $call:expr) => {{
        macro_rules! arm {
            ($n:literal) => {{
                const $R: usize = $n;
                $call
            }};
        }
        match $rows {
            1 => arm!(1),
            2 => arm!(2),
            3 if $max > 2 => arm!(3),
            4 if $max > 3 => arm!(4),
            5 if $max > 3 => arm!(5),
            6 if $max > 3 => arm!(6),
            7 if $max > 3 => arm!(7),
            8 if $max > 3 => arm!(8),
            9 if $max > 3 => arm!(9),
            10 if $max > 3 => arm!(10),
            11 if $max > 3 => arm!(11),
            12 if $max > 3 => arm!(12),
            rows => unreachable!("a register tile of {rows} rows"),
        }
    }};
}
pub(crate) use dispatch_rows;

/// Measures the peak arithmetic throughput of one thread, for benchmarks: multiplies and adds in registers, without
/// memory access, and returns the number of floating-point operations of `steps` iterations.
///
/// ```
/// use plimsoll_kernels::{Dtype, Isa, peak};
///
/// let flop = peak(Isa::best(), Dtype::F32, 10);
/// assert_eq!(flop, 10.0 * 16.0 * 16.0 * 2.0); // 16 accumulators of 16 lanes, a multiplication and an addition each
/// ```
pub fn peak(isa: Isa, dtype: Dtype, steps: usize) -> f64 {
    isa.run(Peak { dtype, steps })
}

struct Peak {
    dtype: Dtype,
    steps: usize,
}

impl Peak {
    #[inline(always)]
    fn run_dtype<S: Simd, D: Dot>(&self, s: S, operations: usize) -> f64 {
        if Block::is_used::<S, D>() {
            return self.run_blocks(s);
        }
        let word = s.splat_word(std::hint::black_box(0x3f80_3f80));
        let mut sums = [s.splat(0.0); 16];
        for _ in 0..self.steps {
            for sum in &mut sums {
                *sum = D::dot(s, *sum, word, word);
            }
        }
        std::hint::black_box(s.reduce_sum(sums.into_iter().fold(s.splat(0.0), |total, sum| s.add(total, sum))));
        (self.steps * sums.len() * LANES * operations) as f64
    }
}

impl Peak {
    /// Blocks with operands in the L1 cache. `steps` iterations have as many operations as those in vector registers.
    #[inline(always)]
    fn run_blocks<S: Simd>(&self, s: S) -> f64 {
        /// Words of a row: 16 KiB for each operand.
        const WORDS: usize = 8 * LANES;
        let line = Line([std::hint::black_box(0x3f80_3f80); LANES]);
        let a = vec![line; BLOCK_ROWS * WORDS / LANES];
        let b = vec![line; 2 * WORDS];
        let operations = (BLOCK_ROWS * 2 * LANES * WORDS * 4) as f64;
        let blocks = ((self.steps * 16 * LANES * 4) as f64 / operations).ceil() as usize;
        let mut block = Block::new();
        for _ in 0..blocks {
            let a = Operand { words: a.as_ptr().cast(), stride: WORDS };
            // SAFETY: `a` has 32 rows of `WORDS` words, and `b` two lines for each.
            #[allow(unsafe_code)]
            unsafe {
                block.multiply(s, a, BLOCK_ROWS, &b);
            }
        }
        s.end_blocks();
        std::hint::black_box(&block.sums);
        blocks as f64 * operations
    }
}

impl Kernel for Peak {
    type Output = f64;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        match self.dtype {
            Dtype::F32 => self.run_dtype::<S, F32>(s, 2),
            Dtype::Bf16 => self.run_dtype::<S, Bf16>(s, 4),
        }
    }
}
