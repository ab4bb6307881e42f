//! Instruction sets: detection, and dispatch of kernels at run time.

use std::fmt;

#[cfg(target_arch = "x86_64")]
use crate::amx;
use crate::simd::{Kernel, Portable};
#[cfg(target_arch = "x86_64")]
use crate::x86::{run_amx, run_avx2, run_avx512, run_avx512bf16};

/// CPU instruction set that kernels run on, detected at run time.
///
/// A value exists only for an instruction set that this processor has. That makes the kernels safe to call.
///
/// ```
/// use plimsoll_kernels::Isa;
///
/// assert!(Isa::available().contains(&Isa::best()));
/// assert_eq!(Isa::available()[0].to_string(), "portable");
/// ```
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
    #[cfg(target_arch = "x86_64")]
    Amx,
}

impl Isa {
    /// All instruction sets of this processor, the slowest first.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut, reason = "other architectures have only the portable implementation")]
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
            sets.extend((avx512 && amx::is_available()).then_some(Set::Amx));
        }
        sets.into_iter().map(Self).collect()
    }

    /// The fastest instruction set of this processor.
    pub fn best() -> Self {
        Self::available().pop().unwrap_or(Self(Set::Portable))
    }

    /// Whether the instruction set has dot products of `bf16`. Without them `bf16` is multiplied as `f32`, which saves
    /// memory but no time.
    pub fn has_bf16_products(self) -> bool {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Set::Avx512Bf16 | Set::Amx => true,
            _ => false,
        }
    }

    /// Runs the kernel compiled for this instruction set.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            Set::Portable => kernel.run(Portable),
            // SAFETY: only `available` creates this value, after it detected the features.
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
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            Set::Amx => unsafe { run_amx(kernel) },
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
            #[cfg(target_arch = "x86_64")]
            Set::Amx => "amx",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dtype::{bf16_bits, bf16_pair};
    use crate::simd::{LANES, Simd, exp};

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

    struct Dots {
        acc: f32,
        a: [u32; LANES],
        b: [u32; LANES],
    }

    impl Kernel for Dots {
        type Output = [[f32; LANES]; 2];
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> [[f32; LANES]; 2] {
            let (acc, a, b) = (s.splat(self.acc), s.load_words(&self.a), s.load_words(&self.b));
            let values = self.a.map(f32::from_bits);
            let (mut sum, mut half) = (values, LANES / 2);
            while half > 0 {
                sum = std::array::from_fn(|i| if i < half { sum[i] + sum[i + half] } else { 0.0 });
                half /= 2;
            }
            assert_eq!(s.reduce_sum(s.load(&values)), sum[0], "lanes are summed in another order");
            assert_eq!(s.reduce_max(s.load(&values)), values.into_iter().fold(f32::NEG_INFINITY, f32::max));
            let mut out = [[0.0; LANES]; 2];
            s.store(&mut out[0], s.dot_f32(acc, a, b));
            s.store(&mut out[1], s.dot_bf16(acc, a, b));
            out
        }
    }

    proptest! {
        #[test]
        fn every_isa_rounds_to_bf16_alike(x in proptest::array::uniform16(-1e30_f32..1e30)) {
            for isa in Isa::available() {
                assert_eq!(isa.run(Round(x)), Portable.to_bf16(x), "{isa}");
            }
        }

        /// The `bf16` instruction and its emulations agree to the rounding of `f32`.
        #[test]
        fn every_isa_multiplies_alike(
            acc in -2.0_f32..2.0,
            a in proptest::array::uniform16(-2.0_f32..2.0),
            b in proptest::array::uniform16(-2.0_f32..2.0),
        ) {
            let words = |x: [f32; LANES]| x.map(|x| bf16_bits(x) | bf16_bits(x * 0.3) << 16);
            for isa in Isa::available() {
                let [dot_f32, _] = isa.run(Dots { acc, a: a.map(f32::to_bits), b: b.map(f32::to_bits) });
                let [_, dot_bf16] = isa.run(Dots { acc, a: words(a), b: words(b) });
                for i in 0..LANES {
                    let expected = f64::from(a[i]) * f64::from(b[i]) + f64::from(acc);
                    assert!((f64::from(dot_f32[i]) - expected).abs() < 1e-6, "{isa}");
                    let ((a0, a1), (b0, b1)) = (bf16_pair(words(a)[i]), bf16_pair(words(b)[i]));
                    let expected = f64::from(a0) * f64::from(b0) + f64::from(a1) * f64::from(b1) + f64::from(acc);
                    assert!((f64::from(dot_bf16[i]) - expected).abs() < 2e-6, "{isa}");
                }
            }
        }
    }

    #[test]
    fn nan_is_rounded_to_nan() {
        for isa in Isa::available() {
            for nan in [f32::NAN, f32::from_bits(0x7fff_ffff), f32::from_bits(0xff80_0001)] {
                let [word, ..] = isa.run(Round([nan; LANES]));
                assert!(f32::from_bits(word << 16).is_nan() && f32::from_bits(word & 0xffff_0000).is_nan(), "{isa}");
            }
        }
    }
}
