//! Implementations of [`Simd`] for x86-64: AVX2 with FMA, AVX-512, AVX-512 with `bf16` dot products, and AMX in
//! addition.
//!
//! A value of these types can be created in this module only, by the `run_…` function that enables the target features.
//! So a kernel that has one runs on a processor that has the features.

use std::arch::x86_64::*;

use crate::amx;
use crate::simd::{BlockOperands, Kernel, LANES, Simd};

/// Runs a kernel that is compiled for AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub(crate) fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx2(()))
}

/// Runs a kernel that is compiled for AVX-512 (F, BW, DQ, VL).
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
pub(crate) fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512(()))
}

/// Runs a kernel that is compiled for AVX-512 (F, BW, DQ, VL, BF16).
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
pub(crate) fn run_avx512bf16<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512Bf16(()))
}

/// Runs a kernel that is compiled for AVX-512 with `bf16`, on a processor that has AMX too.
///
/// # Safety
/// [`amx::is_available`] must be true.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
#[allow(unsafe_code)]
pub(crate) unsafe fn run_amx<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Amx(()))
}

/// Defines methods of [`Simd`] by intrinsics.
macro_rules! intrinsics {
    ($($name:ident($($argument:ident: $type:ty),*) -> $output:ty = $body:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($argument: $type),*) -> $output {
            // SAFETY: the intrinsics need processor features, and those that load or store need 16 values, which the
            // array types guarantee. Only a `run_…` function, which enables the features, creates a value of this type.
            #[allow(unsafe_code)]
            unsafe { $body }
        }
    )*};
}

/// AVX2 with FMA: a vector is two registers of 256 bits.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

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
        dot_f32(acc: Self::F, a: Self::W, b: Self::W) -> Self::F = {
            let first = _mm256_fmadd_ps(_mm256_castsi256_ps(a[0]), _mm256_castsi256_ps(b[0]), acc[0]);
            let second = _mm256_fmadd_ps(_mm256_castsi256_ps(a[1]), _mm256_castsi256_ps(b[1]), acc[1]);
            [first, second]
        };
        dot_bf16(acc: Self::F, a: Self::W, b: Self::W) -> Self::F = {
            let mask = _mm256_set1_epi32(0xffff_0000_u32.cast_signed());
            let upper_a = [_mm256_and_si256(a[0], mask), _mm256_and_si256(a[1], mask)];
            let upper_b = [_mm256_and_si256(b[0], mask), _mm256_and_si256(b[1], mask)];
            let lower_a = [_mm256_slli_epi32::<16>(a[0]), _mm256_slli_epi32::<16>(a[1])];
            let lower_b = [_mm256_slli_epi32::<16>(b[0]), _mm256_slli_epi32::<16>(b[1])];
            Avx2(()).dot_f32(Avx2(()).dot_f32(acc, upper_a, upper_b), lower_a, lower_b)
        };
    }
}

/// Everything that the two AVX-512 implementations have in common.
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
            dot_f32(acc: Self::F, a: Self::W, b: Self::W) -> Self::F =
                _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), acc);
            reduce_sum(x: Self::F) -> f32 = {
                // The same order of additions as in `Simd::reduce_sum`.
                let x = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps::<1>(x));
                let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
                let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
                _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
            };
            reduce_max(x: Self::F) -> f32 = _mm512_reduce_max_ps(x);
        }
    };
}

/// AVX-512: a vector is one register of 512 bits.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

impl Simd for Avx512 {
    avx512!();

    intrinsics! {
        dot_bf16(acc: Self::F, a: Self::W, b: Self::W) -> Self::F = {
            let mask = _mm512_set1_epi32(0xffff_0000_u32.cast_signed());
            let acc = Avx512(()).dot_f32(acc, _mm512_and_si512(a, mask), _mm512_and_si512(b, mask));
            Avx512(()).dot_f32(acc, _mm512_slli_epi32::<16>(a), _mm512_slli_epi32::<16>(b))
        };
    }
}

/// The instructions for `bf16` that AVX-512 can have.
macro_rules! avx512bf16 {
    () => {
        intrinsics! {
            dot_bf16(acc: Self::F, a: Self::W, b: Self::W) -> Self::F = {
                // Both types have 64 bytes, and every bit pattern is valid.
                let bf16 = |x| std::mem::transmute::<__m512i, __m512bh>(x);
                _mm512_dpbf16_ps(acc, bf16(a), bf16(b))
            };
            to_bf16(x: Self::F) -> [u32; LANES / 2] =
                std::mem::transmute::<__m256bh, [u32; LANES / 2]>(_mm512_cvtneps_pbh(x));
        }
    };
}

/// AVX-512 with dot products of `bf16` (`vdpbf16ps`).
#[derive(Clone, Copy)]
pub(crate) struct Avx512Bf16(());

impl Simd for Avx512Bf16 {
    avx512!();
    avx512bf16!();
}

/// AVX-512 with dot products of `bf16`, and blocks of them in the tile registers of AMX.
#[derive(Clone, Copy)]
pub(crate) struct Amx(());

impl Simd for Amx {
    avx512!();
    avx512bf16!();

    const HAS_BLOCKS: bool = true;

    #[inline(always)]
    #[allow(unsafe_code)]
    unsafe fn block(self, configured: &mut usize, sums: *mut f32, operands: BlockOperands) {
        // SAFETY: the contract of this method. Only `run_amx` creates a value of this type.
        unsafe { amx::block(configured, sums, operands) };
    }

    #[inline(always)]
    fn end_blocks(self) {
        // SAFETY: only `run_amx` creates a value of this type.
        #[allow(unsafe_code)]
        unsafe {
            amx::release();
        }
    }
}
