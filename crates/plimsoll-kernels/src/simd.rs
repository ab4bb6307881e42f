//! Vector operations that the kernels are written in: the trait [`Simd`], its portable implementation, and elementary
//! functions over it.
//!
//! A kernel is written once, over [`Simd`], and compiled once for each instruction set. A vector has 16 lanes on every
//! instruction set: one register of 512 bits, two of 256 bits, or an array. A sum over lanes always adds in the same
//! order. So all instruction sets with fused multiply-add give the same bits in `f32`.

use crate::dtype::{bf16_bits, bf16_pair};

/// Lanes of a vector.
pub(crate) const LANES: usize = 16;

/// Maximum rows of a block ([`Simd::block`]). A block has as many columns.
pub(crate) const BLOCK_ROWS: usize = 32;

/// Operands of a block of `bf16` products.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockOperands {
    /// Words of the left operand.
    pub(crate) a: *const u32,
    /// Words from the start of a row to the start of the next.
    pub(crate) stride: usize,
    /// The panel of the right operand: 32 words for each word of inputs.
    pub(crate) b: *const u32,
    /// The number of inputs in steps of 16 words.
    pub(crate) steps: usize,
    /// The number of rows, from 1 to [`BLOCK_ROWS`].
    pub(crate) rows: usize,
}

/// A computation that is compiled for every instruction set.
///
/// `run` must be `#[inline(always)]`, and so must every function that it calls with a [`Simd`]: code is compiled for
/// the target features only if it is inlined into the function that enables them. For the same reason no closure
/// handles vectors, not even in `map` or `map_or`: if the closure is not inlined, every intrinsic in it becomes a
/// function call.
pub(crate) trait Kernel {
    type Output;
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Operations on vectors of 16 lanes.
///
/// `F` is a vector of `f32`. `W` is a vector of 32-bit words; a word holds one `f32` or two `bf16`, the first of them
/// in the lower half.
pub(crate) trait Simd: Copy {
    /// Maximum rows of the register tile. A row has two vectors of accumulators.
    const ROWS: usize;
    type F: Copy;
    type W: Copy;

    fn splat(self, x: f32) -> Self::F;
    fn load(self, x: &[f32; LANES]) -> Self::F;
    fn store(self, y: &mut [f32; LANES], x: Self::F);
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// The larger of `a` and `b`; `b` if either is NaN.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// The smaller of `a` and `b`; `b` if either is NaN.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a · b + c`
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// Number of lanes where `a > b`.
    fn count_greater(self, a: Self::F, b: Self::F) -> u32;
    /// Number of lanes where `a ≥ b`.
    fn count_at_least(self, a: Self::F, b: Self::F) -> u32;
    /// `2ⁿ` for lanes that hold `n + 1.5 · 2²³` (see [`exp`]).
    fn power_of_two(self, x: Self::F) -> Self::F;
    /// Rounds to `bf16`, to nearest and ties to even. Lane i is in word i / 2: in the lower half if i is even.
    #[inline(always)]
    fn to_bf16(self, x: Self::F) -> [u32; LANES / 2] {
        let mut lanes = [0.0; LANES];
        self.store(&mut lanes, x);
        std::array::from_fn(|i| bf16_bits(lanes[2 * i]) | bf16_bits(lanes[2 * i + 1]) << 16)
    }

    fn splat_word(self, x: u32) -> Self::W;
    fn load_words(self, x: &[u32; LANES]) -> Self::W;
    /// `acc + a · b` on words that hold one `f32`.
    fn dot_f32(self, acc: Self::F, a: Self::W, b: Self::W) -> Self::F;
    /// `acc + a₀ · b₀ + a₁ · b₁` on words that hold two `bf16`.
    fn dot_bf16(self, acc: Self::F, a: Self::W, b: Self::W) -> Self::F;

    /// Whether [`block`](Self::block) multiplies `bf16` in blocks.
    const HAS_BLOCKS: bool = false;

    /// Stores the sums of a block, `(rows, 32)`, in rows of 32. `configured` is 0 before the first call and belongs to
    /// the calls until [`end_blocks`](Self::end_blocks).
    ///
    /// # Safety
    /// `sums` must have space for [`BLOCK_ROWS`] rows, `a` must point to `rows` rows, `stride` words apart, of 16 words
    /// for each step, and `b` to 512 words for each step.
    #[allow(unsafe_code)]
    #[inline(always)]
    unsafe fn block(self, configured: &mut usize, sums: *mut f32, operands: BlockOperands) {
        let _ = (configured, sums, operands);
        unreachable!("this instruction set has no blocks");
    }

    /// Ends a sequence of blocks.
    #[inline(always)]
    fn end_blocks(self) {}

    /// Prefetches a cache line into the L2 cache. A hint: it changes no result.
    #[inline(always)]
    fn prefetch(self, line: &[u32; LANES]) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: every x86-64 processor has this instruction, and it is defined for any address.
        #[allow(unsafe_code)]
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(line).cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = line;
    }

    /// Sum of all lanes: the upper half is added to the lower half until one lane is left.
    #[inline(always)]
    fn reduce_sum(self, x: Self::F) -> f32 {
        let mut lanes = [0.0; LANES];
        self.store(&mut lanes, x);
        let mut half = LANES / 2;
        while half > 0 {
            for lane in 0..half {
                lanes[lane] += lanes[lane + half];
            }
            half /= 2;
        }
        lanes[0]
    }

    /// Maximum of all lanes.
    #[inline(always)]
    fn reduce_max(self, x: Self::F) -> f32 {
        let mut lanes = [0.0; LANES];
        self.store(&mut lanes, x);
        lanes.into_iter().fold(f32::NEG_INFINITY, |max, x| if x > max { x } else { max })
    }
}

/// `eˣ` on every lane, within 2 ulp for −87 ≤ x ≤ 88. `x` is clamped to that range.
///
/// `eˣ = 2ⁿ·eʳ` with `n = round(x / ln 2)`. `r = x − n·ln 2` is computed in two parts, so that it is exact to the last
/// bit (Cody and Waite, 1980). `eʳ` on |r| ≤ ln 2 / 2 is the Taylor polynomial of degree 7. Its remainder there,
/// r⁸/8! ≈ 5e-9, is less than half an ulp.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    /// 1.5 · 2²³: adding it leaves the rounded integer in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 = HIGH + LOW, where HIGH has enough trailing zeros for `n · HIGH` to be exact.
    const LN2_HIGH: f32 = 355.0 / 512.0;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // A NaN stays a NaN, because `min` and `max` then return their second operand.
    let x = s.min(s.splat(88.0), s.max(s.splat(-87.0), x));
    let rounded = s.fma(x, s.splat(std::f32::consts::LOG2_E), s.splat(ROUND));
    let n = s.sub(rounded, s.splat(ROUND));
    let r = s.fma(n, s.splat(-LN2_HIGH), x);
    let r = s.fma(n, s.splat(-LN2_LOW), r);
    let mut polynomial = s.splat(1.0 / 5040.0);
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        polynomial = s.fma(polynomial, r, s.splat(coefficient));
    }
    s.mul(polynomial, s.power_of_two(rounded))
}

/// Soft cap `c · tanh(x / c)` on every lane: limits `x` smoothly to −c..c.
///
/// tanh u = 1 − 2 / (e²ᵘ + 1). Its absolute error is that of 1 in `f32`, so the result's is about 1e-7 of `c`.
#[inline(always)]
pub(crate) fn softcap<S: Simd>(s: S, c: f32, x: S::F) -> S::F {
    let one = s.splat(1.0);
    let e = exp(s, s.mul(x, s.splat(2.0 / c)));
    s.mul(s.splat(c), s.sub(one, s.div(s.splat(2.0), s.add(e, one))))
}

/// Implementation of [`Simd`] in plain Rust. The compiler vectorises it for the baseline of the target.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl Portable {
    #[inline(always)]
    fn map(a: [f32; LANES], b: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
        std::array::from_fn(|i| f(a[i], b[i]))
    }

    /// `a · b + c`, fused only if the baseline of the target has the instruction; otherwise `mul_add` is a library
    /// call.
    #[inline(always)]
    fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
        if cfg!(any(target_arch = "aarch64", target_feature = "fma")) { a.mul_add(b, c) } else { a * b + c }
    }
}

impl Simd for Portable {
    const ROWS: usize = 2;
    type F = [f32; LANES];
    type W = [u32; LANES];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [x; LANES]
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::F {
        *x
    }
    #[inline(always)]
    fn store(self, y: &mut [f32; LANES], x: Self::F) {
        *y = x;
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        Self::map(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        Self::map(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        Self::map(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        Self::map(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        Self::map(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        Self::map(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        std::array::from_fn(|i| Self::multiply_add(a[i], b[i], c[i]))
    }
    #[inline(always)]
    fn count_greater(self, a: Self::F, b: Self::F) -> u32 {
        a.iter().zip(&b).map(|(a, b)| u32::from(a > b)).sum()
    }
    #[inline(always)]
    fn count_at_least(self, a: Self::F, b: Self::F) -> u32 {
        a.iter().zip(&b).map(|(a, b)| u32::from(a >= b)).sum()
    }
    #[inline(always)]
    fn power_of_two(self, x: Self::F) -> Self::F {
        x.map(|x| f32::from_bits((x.to_bits() << 23).wrapping_add(1.0_f32.to_bits())))
    }
    #[inline(always)]
    fn splat_word(self, x: u32) -> Self::W {
        [x; LANES]
    }
    #[inline(always)]
    fn load_words(self, x: &[u32; LANES]) -> Self::W {
        *x
    }
    #[inline(always)]
    fn dot_f32(self, acc: Self::F, a: Self::W, b: Self::W) -> Self::F {
        std::array::from_fn(|i| Self::multiply_add(f32::from_bits(a[i]), f32::from_bits(b[i]), acc[i]))
    }
    #[inline(always)]
    fn dot_bf16(self, acc: Self::F, a: Self::W, b: Self::W) -> Self::F {
        std::array::from_fn(|i| {
            let ((a0, a1), (b0, b1)) = (bf16_pair(a[i]), bf16_pair(b[i]));
            Self::multiply_add(a0, b0, Self::multiply_add(a1, b1, acc[i]))
        })
    }
}
