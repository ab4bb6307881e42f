//! Instruction sets: which one runs, and the few vector operations that the kernels are written in.
//!
//! A kernel is written once, over [`Simd`], and compiled once for each instruction set. A vector has 16 lanes whatever
//! the registers are (one of 512 bits, two of 256, or an array), and sums over lanes are taken in one order, so that the
//! sets with fused multiply-add give the same bits in `f32`.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
use std::fmt;

use crate::words::Line;

/// Numbers in a vector.
pub(crate) const LANES: usize = 16;

/// An instruction set that this processor has.
///
/// There is no way to make one that the processor lacks: that is what makes the kernels safe to call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Isa(Set);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Set {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
}

impl Isa {
    /// All that this processor has, the slowest first.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut, reason = "only the portable one exists elsewhere")]
        let mut sets = vec![Set::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            sets.extend(avx2.then_some(Set::Avx2));
            sets.extend(avx512.then_some(Set::Avx512));
            sets.extend((avx512 && is_x86_feature_detected!("avx512bf16")).then_some(Set::Avx512Bf16));
        }
        sets.into_iter().map(Self).collect()
    }

    /// The fastest that this processor has.
    pub fn best() -> Self {
        Self::available().pop().unwrap_or(Self(Set::Portable))
    }

    /// Whether products of `bf16` numbers are an instruction here. Elsewhere they are computed as `f32`, which saves
    /// memory and no time.
    pub fn has_bf16_products(self) -> bool {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Set::Avx512Bf16 => true,
            _ => false,
        }
    }

    /// Runs a kernel, compiled for this instruction set.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            Set::Portable => kernel.run(Portable),
            // SAFETY: an `Isa` is made by `available` alone, after it found these features in the processor.
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            Set::Avx2 => unsafe { run_avx2(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            Set::Avx512 => unsafe { run_avx512(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            Set::Avx512Bf16 => unsafe { run_avx512bf16(kernel) },
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Set::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Set::Avx512Bf16 => "avx512bf16",
        })
    }
}

/// A computation that is compiled for every instruction set. `run` must be `#[inline(always)]`, and so must be all that
/// it calls with a [`Simd`]: only code that is inlined into the function that enables the features is compiled for them.
/// So no closure handles vectors, not even in `map` or `map_or`: what is left as a function of its own makes a call of
/// every intrinsic in it.
pub(crate) trait Kernel {
    type Output;
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx2)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn run_avx512bf16<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512Bf16)
}

/// Vectors of 16 lanes: `F` of `f32`, `W` of 32-bit words that hold one `f32` or two `bf16` (the lower half is the
/// earlier number).
pub(crate) trait Simd: Copy {
    /// Rows of the register tile, with two vectors of accumulators each.
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
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a · b + c`
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// How many lanes of `a` are greater than those of `b`.
    fn count_greater(self, a: Self::F, b: Self::F) -> u32;
    /// How many lanes of `a` are at least those of `b`.
    fn count_at_least(self, a: Self::F, b: Self::F) -> u32;
    /// `2ⁿ` where the lanes hold `n + 1.5 · 2²³` (see [`exp`]).
    fn power_of_two(self, x: Self::F) -> Self::F;
    /// Rounds to `bf16`, to nearest and ties to even: lane i is the lower half of word i / 2 where i is even.
    #[inline(always)]
    fn to_bf16(self, x: Self::F) -> [u32; LANES / 2] {
        let mut lanes = [0.0; LANES];
        self.store(&mut lanes, x);
        std::array::from_fn(|i| bf16_bits(lanes[2 * i]) | bf16_bits(lanes[2 * i + 1]) << 16)
    }

    fn splat_word(self, x: u32) -> Self::W;
    fn load_words(self, x: &[u32; LANES]) -> Self::W;
    /// `acc + a · b` on words that hold an `f32`.
    fn step_f32(self, acc: Self::F, a: Self::W, b: Self::W) -> Self::F;
    /// `acc + a₀ · b₀ + a₁ · b₁` on words that hold two `bf16`.
    fn step_bf16(self, acc: Self::F, a: Self::W, b: Self::W) -> Self::F;

    /// Asks for a cache line to be fetched into the second-level cache; a hint, without effect on any result.
    #[inline(always)]
    fn prefetch(self, line: &Line) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: every x86-64 processor has this instruction, and it is defined for any address.
        #[allow(unsafe_code)]
        unsafe {
            _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(line).cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = line;
    }

    /// Sum of all lanes: halves onto halves.
    #[inline(always)]
    fn sum(self, x: Self::F) -> f32 {
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

    /// The largest lane.
    #[inline(always)]
    fn largest(self, x: Self::F) -> f32 {
        let mut lanes = [0.0; LANES];
        self.store(&mut lanes, x);
        lanes.into_iter().fold(f32::NEG_INFINITY, |largest, x| if x > largest { x } else { largest })
    }
}

/// `eˣ` on every lane; within 2 ulp for −87 ≤ x ≤ 88, clamped outside.
///
/// `eˣ = 2ⁿ·eʳ` with `n = round(x / ln 2)`; `r = x − n·ln 2` is taken in two parts, so that it is exact to the last
/// bit (Cody and Waite, 1980), and `eʳ` on |r| ≤ ln 2 / 2 is the Taylor polynomial of degree 7, whose remainder there,
/// r⁸/8! ≈ 5e-9, lies below half an ulp.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    /// 1.5 · 2²³: adding it leaves the rounded integer in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 = HIGH + LOW, where HIGH has trailing zeros enough for `n · HIGH` to be exact.
    const LN2_HIGH: f32 = 355.0 / 512.0;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // A NaN comes out as a NaN: `min` and `max` return their second operand then.
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

/// `c · tanh(x / c)`: `x`, bounded softly by `c` on both sides.
///
/// tanh u = 1 − 2 / (e²ᵘ + 1), of which the absolute error is that of 1 in `f32`: the result's is some 1e-7 of `c`.
#[inline(always)]
pub(crate) fn softcap<S: Simd>(s: S, c: f32, x: S::F) -> S::F {
    let one = s.splat(1.0);
    let e = exp(s, s.mul(x, s.splat(2.0 / c)));
    s.mul(s.splat(c), s.sub(one, s.div(s.splat(2.0), s.add(e, one))))
}

/// The `f32` whose upper half is the `bf16` nearest to `x`, ties to even; a NaN stays one.
#[inline(always)]
pub(crate) fn bf16_bits(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    if x.is_nan() { bits >> 16 | 0x40 } else { rounded }
}

/// The lower and the upper `bf16` of a word.
#[inline(always)]
fn halves(word: u32) -> (f32, f32) {
    (f32::from_bits(word << 16), f32::from_bits(word & 0xffff_0000))
}

/// Plain Rust, which the compiler vectorises for what every processor of the target has.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl Portable {
    #[inline(always)]
    fn map(a: [f32; LANES], b: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
        std::array::from_fn(|i| f(a[i], b[i]))
    }

    /// Fused where that is an instruction of the target's baseline, and not a call of a library.
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
    fn step_f32(self, acc: Self::F, a: Self::W, b: Self::W) -> Self::F {
        std::array::from_fn(|i| Self::multiply_add(f32::from_bits(a[i]), f32::from_bits(b[i]), acc[i]))
    }
    #[inline(always)]
    fn step_bf16(self, acc: Self::F, a: Self::W, b: Self::W) -> Self::F {
        std::array::from_fn(|i| {
            let ((a0, a1), (b0, b1)) = (halves(a[i]), halves(b[i]));
            Self::multiply_add(a0, b0, Self::multiply_add(a1, b1, acc[i]))
        })
    }
}

/// Implements the methods of [`Simd`] by intrinsics.
#[cfg(target_arch = "x86_64")]
macro_rules! intrinsics {
    ($($name:ident($($argument:ident: $type:ty),*) -> $output:ty = $body:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($argument: $type),*) -> $output {
            // SAFETY: the intrinsics need features of the processor, and nothing else but that what they load from or
            // store to is 16 numbers long, which the array types say. A value of this type is handed to a kernel only by
            // the `run_…` function that enables those features, and is in reach of nothing outside this crate.
            #[allow(unsafe_code)]
            unsafe { $body }
        }
    )*};
}

/// Two registers of 256 bits, with fused multiply-add.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct Avx2;

#[cfg(target_arch = "x86_64")]
impl Simd for Avx2 {
    const ROWS: usize = 3;
    type F = [__m256; 2];
    type W = [__m256i; 2];

    intrinsics! {
        splat(x: f32) -> Self::F = [_mm256_set1_ps(x); 2];
        load(x: &[f32; LANES]) -> Self::F = {
            let x = x.as_ptr();
            [_mm256_loadu_ps(x), _mm256_loadu_ps(x.add(8))]
        };
        store(y: &mut [f32; LANES], x: Self::F) -> () = {
            let y = y.as_mut_ptr();
            _mm256_storeu_ps(y, x[0]);
            _mm256_storeu_ps(y.add(8), x[1]);
        };
        add(a: Self::F, b: Self::F) -> Self::F = [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])];
        sub(a: Self::F, b: Self::F) -> Self::F = [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])];
        mul(a: Self::F, b: Self::F) -> Self::F = [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])];
        div(a: Self::F, b: Self::F) -> Self::F = [_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])];
        max(a: Self::F, b: Self::F) -> Self::F = [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])];
        min(a: Self::F, b: Self::F) -> Self::F = [_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])];
        fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F =
            [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])];
        count_greater(a: Self::F, b: Self::F) -> u32 = {
            let lower = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(a[0], b[0]));
            let upper = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(a[1], b[1]));
            lower.count_ones() + upper.count_ones()
        };
        count_at_least(a: Self::F, b: Self::F) -> u32 = {
            let lower = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(a[0], b[0]));
            let upper = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(a[1], b[1]));
            lower.count_ones() + upper.count_ones()
        };
        power_of_two(x: Self::F) -> Self::F = {
            let one = _mm256_castps_si256(_mm256_set1_ps(1.0));
            let lower = _mm256_slli_epi32::<23>(_mm256_castps_si256(x[0]));
            let upper = _mm256_slli_epi32::<23>(_mm256_castps_si256(x[1]));
            [_mm256_castsi256_ps(_mm256_add_epi32(lower, one)), _mm256_castsi256_ps(_mm256_add_epi32(upper, one))]
        };
        splat_word(x: u32) -> Self::W = [_mm256_set1_epi32(x.cast_signed()); 2];
        load_words(x: &[u32; LANES]) -> Self::W = {
            let x = x.as_ptr().cast::<__m256i>();
            [_mm256_loadu_si256(x), _mm256_loadu_si256(x.add(1))]
        };
        step_f32(acc: Self::F, a: Self::W, b: Self::W) -> Self::F = {
            let first = _mm256_fmadd_ps(_mm256_castsi256_ps(a[0]), _mm256_castsi256_ps(b[0]), acc[0]);
            let second = _mm256_fmadd_ps(_mm256_castsi256_ps(a[1]), _mm256_castsi256_ps(b[1]), acc[1]);
            [first, second]
        };
        step_bf16(acc: Self::F, a: Self::W, b: Self::W) -> Self::F = {
            let mask = _mm256_set1_epi32(0xffff_0000_u32.cast_signed());
            let upper_a = [_mm256_and_si256(a[0], mask), _mm256_and_si256(a[1], mask)];
            let upper_b = [_mm256_and_si256(b[0], mask), _mm256_and_si256(b[1], mask)];
            let lower_a = [_mm256_slli_epi32::<16>(a[0]), _mm256_slli_epi32::<16>(a[1])];
            let lower_b = [_mm256_slli_epi32::<16>(b[0]), _mm256_slli_epi32::<16>(b[1])];
            Avx2.step_f32(Avx2.step_f32(acc, upper_a, upper_b), lower_a, lower_b)
        };
    }
}

/// The methods that both kinds of AVX-512 share.
#[cfg(target_arch = "x86_64")]
macro_rules! avx512 {
    () => {
        const ROWS: usize = 12;
        type F = __m512;
        type W = __m512i;

        intrinsics! {
            splat(x: f32) -> Self::F = _mm512_set1_ps(x);
            load(x: &[f32; LANES]) -> Self::F = _mm512_loadu_ps(x.as_ptr());
            store(y: &mut [f32; LANES], x: Self::F) -> () = _mm512_storeu_ps(y.as_mut_ptr(), x);
            add(a: Self::F, b: Self::F) -> Self::F = _mm512_add_ps(a, b);
            sub(a: Self::F, b: Self::F) -> Self::F = _mm512_sub_ps(a, b);
            mul(a: Self::F, b: Self::F) -> Self::F = _mm512_mul_ps(a, b);
            div(a: Self::F, b: Self::F) -> Self::F = _mm512_div_ps(a, b);
            max(a: Self::F, b: Self::F) -> Self::F = _mm512_max_ps(a, b);
            min(a: Self::F, b: Self::F) -> Self::F = _mm512_min_ps(a, b);
            fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F = _mm512_fmadd_ps(a, b, c);
            count_greater(a: Self::F, b: Self::F) -> u32 = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b).count_ones();
            count_at_least(a: Self::F, b: Self::F) -> u32 = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(a, b).count_ones();
            power_of_two(x: Self::F) -> Self::F = {
                let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(x));
                _mm512_castsi512_ps(_mm512_add_epi32(exponent, _mm512_castps_si512(_mm512_set1_ps(1.0))))
            };
            splat_word(x: u32) -> Self::W = _mm512_set1_epi32(x.cast_signed());
            load_words(x: &[u32; LANES]) -> Self::W = _mm512_loadu_si512(x.as_ptr().cast());
            step_f32(acc: Self::F, a: Self::W, b: Self::W) -> Self::F =
                _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), acc);
            sum(x: Self::F) -> f32 = {
                // In the order of the other sets.
                let x = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps::<1>(x));
                let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
                let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
                _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
            };
            largest(x: Self::F) -> f32 = _mm512_reduce_max_ps(x);
        }
    };
}

/// Registers of 512 bits.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct Avx512;

#[cfg(target_arch = "x86_64")]
impl Simd for Avx512 {
    avx512!();

    intrinsics! {
        step_bf16(acc: Self::F, a: Self::W, b: Self::W) -> Self::F = {
            let mask = _mm512_set1_epi32(0xffff_0000_u32.cast_signed());
            let acc = Avx512.step_f32(acc, _mm512_and_si512(a, mask), _mm512_and_si512(b, mask));
            Avx512.step_f32(acc, _mm512_slli_epi32::<16>(a), _mm512_slli_epi32::<16>(b))
        };
    }
}

/// Registers of 512 bits, and products of `bf16` numbers.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct Avx512Bf16;

#[cfg(target_arch = "x86_64")]
impl Simd for Avx512Bf16 {
    avx512!();

    intrinsics! {
        step_bf16(acc: Self::F, a: Self::W, b: Self::W) -> Self::F = {
            // Both types are 64 bytes without a rule for what is in them.
            let bf16 = |x| std::mem::transmute::<__m512i, __m512bh>(x);
            _mm512_dpbf16_ps(acc, bf16(a), bf16(b))
        };
        to_bf16(x: Self::F) -> [u32; LANES / 2] =
            std::mem::transmute::<__m256bh, [u32; LANES / 2]>(_mm512_cvtneps_pbh(x));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Exp(f32);

    impl Kernel for Exp {
        type Output = f32;
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> f32 {
            let mut lanes = [0.0; LANES];
            s.store(&mut lanes, exp(s, s.splat(self.0)));
            lanes[LANES - 1]
        }
    }

    #[test]
    fn exp_is_within_two_ulp() {
        for isa in Isa::available() {
            for step in -8_700..=8_800 {
                let x = step as f32 / 100.0;
                let expected = f64::from(x).exp();
                let ulp = f64::from(f32::EPSILON) * expected;
                let found = isa.run(Exp(x));
                assert!((f64::from(found) - expected).abs() <= 2.0 * ulp, "{isa}, e^{x}: {found}, expected {expected}");
            }
            assert_eq!(isa.run(Exp(0.0)), 1.0);
            assert!(isa.run(Exp(f32::NEG_INFINITY)) < 1.7e-38);
            assert!(isa.run(Exp(f32::NAN)).is_nan());
        }
    }

    struct Round([f32; LANES]);

    impl Kernel for Round {
        type Output = [u32; LANES / 2];
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> [u32; LANES / 2] {
            s.to_bf16(s.load(&self.0))
        }
    }

    struct Steps {
        acc: f32,
        a: [u32; LANES],
        b: [u32; LANES],
    }

    impl Kernel for Steps {
        type Output = [[f32; LANES]; 2];
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> [[f32; LANES]; 2] {
            let (acc, a, b) = (s.splat(self.acc), s.load_words(&self.a), s.load_words(&self.b));
            let numbers = self.a.map(f32::from_bits);
            let (mut sum, mut half) = (numbers, LANES / 2);
            while half > 0 {
                sum = std::array::from_fn(|i| if i < half { sum[i] + sum[i + half] } else { 0.0 });
                half /= 2;
            }
            assert_eq!(s.sum(s.load(&numbers)), sum[0], "a sum in another order");
            assert_eq!(s.largest(s.load(&numbers)), numbers.into_iter().fold(f32::NEG_INFINITY, f32::max));
            let mut out = [[0.0; LANES]; 2];
            s.store(&mut out[0], s.step_f32(acc, a, b));
            s.store(&mut out[1], s.step_bf16(acc, a, b));
            out
        }
    }

    proptest! {
        #[test]
        fn every_set_rounds_alike(x in proptest::array::uniform16(-1e30_f32..1e30)) {
            for isa in Isa::available() {
                assert_eq!(isa.run(Round(x)), Portable.to_bf16(x), "{isa}");
            }
        }

        /// The instruction for `bf16` and its stand-ins agree to the rounding of `f32`.
        #[test]
        fn every_set_steps_alike(
            acc in -2.0_f32..2.0,
            a in proptest::array::uniform16(-2.0_f32..2.0),
            b in proptest::array::uniform16(-2.0_f32..2.0),
        ) {
            let words = |x: [f32; LANES]| x.map(|x| bf16_bits(x) | bf16_bits(x * 0.3) << 16);
            for isa in Isa::available() {
                let [single, _] = isa.run(Steps { acc, a: a.map(f32::to_bits), b: b.map(f32::to_bits) });
                let [_, half] = isa.run(Steps { acc, a: words(a), b: words(b) });
                for i in 0..LANES {
                    let expected = f64::from(a[i]) * f64::from(b[i]) + f64::from(acc);
                    assert!((f64::from(single[i]) - expected).abs() < 1e-6, "{isa}");
                    let ((a0, a1), (b0, b1)) = (halves(words(a)[i]), halves(words(b)[i]));
                    let expected = f64::from(a0) * f64::from(b0) + f64::from(a1) * f64::from(b1) + f64::from(acc);
                    assert!((f64::from(half[i]) - expected).abs() < 2e-6, "{isa}");
                }
            }
        }
    }

    #[test]
    fn a_nan_is_rounded_to_a_nan() {
        for isa in Isa::available() {
            for nan in [f32::NAN, f32::from_bits(0x7fff_ffff), f32::from_bits(0xff80_0001)] {
                let [word, ..] = isa.run(Round([nan; LANES]));
                assert!(f32::from_bits(word << 16).is_nan() && f32::from_bits(word & 0xffff_0000).is_nan(), "{isa}");
            }
        }
    }
}
