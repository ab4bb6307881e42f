//! Element-wise kernels and the exponential they share.

use pulp::Arch;

/// `x += y`
///
/// # Panics
/// If the lengths differ.
pub fn add(x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len(), "lengths differ");
    Arch::new().dispatch(|| {
        for (x, y) in x.iter_mut().zip(y) {
            *x += y;
        }
    });
}

/// Root mean square norm of every row: `y = x / √(mean(x²) + epsilon) · weight` (Zhang and Sennrich, arXiv:1910.07467).
///
/// The row length is `weight`'s.
///
/// # Panics
/// If the lengths do not fit together.
pub fn rms_norm(y: &mut [f32], x: &[f32], weight: &[f32], epsilon: f32) {
    let width = weight.len();
    assert!(width > 0 && y.len() == x.len() && x.len().is_multiple_of(width), "lengths do not fit");
    Arch::new().dispatch(|| {
        for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            let scale = 1.0 / (sum_of_squares(x) / width as f32 + epsilon).sqrt();
            for ((y, x), weight) in y.iter_mut().zip(x).zip(weight) {
                *y = x * scale * weight;
            }
        }
    });
}

/// SwiGLU: `gate = silu(gate) · up` with `silu(z) = z / (1 + e⁻ᶻ)` (Shazeer, arXiv:2002.05202).
///
/// # Panics
/// If the lengths differ.
pub fn swiglu(gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len(), "lengths differ");
    Arch::new().dispatch(|| {
        for (gate, up) in gate.iter_mut().zip(up) {
            *gate = *gate / (1.0 + exp(-*gate)) * up;
        }
    });
}

const LANES: usize = 16;

#[inline(always)]
fn sum_of_squares(x: &[f32]) -> f32 {
    let (blocks, rest) = x.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for block in blocks {
        for (sum, x) in sums.iter_mut().zip(block) {
            *sum += x * x;
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|x| x * x).sum::<f32>()
}

/// The largest number of a slice; −∞ for an empty one.
#[inline(always)]
pub(crate) fn maximum(x: &[f32]) -> f32 {
    let (blocks, rest) = x.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for block in blocks {
        for (lane, &x) in lanes.iter_mut().zip(block) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |largest, &x| if x > largest { x } else { largest })
}

/// `x = e^(x − shift)`, and the sum of the results.
#[inline(always)]
pub(crate) fn exp_and_sum(x: &mut [f32], shift: f32) -> f32 {
    let (blocks, rest) = x.as_chunks_mut::<LANES>();
    let mut sums = [0.0; LANES];
    for block in blocks {
        for (sum, x) in sums.iter_mut().zip(block) {
            *x = exp(*x - shift);
            *sum += *x;
        }
    }
    let mut total = sums.iter().sum::<f32>();
    for x in rest {
        *x = exp(*x - shift);
        total += *x;
    }
    total
}

/// `eˣ` without a branch or a call, so that loops over it vectorise; within 2 ulp for −87 ≤ x ≤ 88, clamped outside.
///
/// `eˣ = 2ⁿ·eʳ` with `n = round(x / ln 2)`; `r = x − n·ln 2` is taken in two parts, so that it is exact to the last
/// bit (Cody and Waite, 1980), and `eʳ` on |r| ≤ ln 2 / 2 is the Taylor polynomial of degree 7, whose remainder
/// there, r⁸/8! ≈ 5e-9, lies below half an ulp.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    /// 1.5 · 2²³: adding it leaves the rounded integer in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 = HIGH + LOW, where HIGH has trailing zeros enough for `n · HIGH` to be exact.
    const LN2_HIGH: f32 = 355.0 / 512.0;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    let mut polynomial = 1.0 / 5040.0;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        polynomial = polynomial * r + coefficient;
    }
    let power_of_two = f32::from_bits((rounded.to_bits() << 23).wrapping_add(1.0_f32.to_bits()));
    polynomial * power_of_two
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{assert_close, values};

    #[test]
    fn exp_is_within_two_ulp() {
        for step in -87_000..=88_000 {
            let x = step as f32 / 1000.0;
            let expected = f64::from(x).exp();
            let ulp = f64::from(f32::EPSILON) * expected;
            assert!((f64::from(exp(x)) - expected).abs() <= 2.0 * ulp, "e^{x}: {}, expected {expected}", exp(x));
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NEG_INFINITY) < 1.7e-38);
        assert!(exp(f32::NAN).is_nan());
    }

    proptest! {
        #[test]
        fn rms_norm_agrees_with_the_definition(
            (x, weight) in (0_usize..5, 1_usize..70).prop_flat_map(|(rows, width)| (values(rows * width), values(width)))
        ) {
            let width = weight.len();
            let expected: Vec<f64> = x
                .chunks(width)
                .flat_map(|row| {
                    let mean = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() / width as f64;
                    let weight = &weight;
                    row.iter().enumerate().map(move |(i, &x)| f64::from(x) / (mean + 1e-5).sqrt() * f64::from(weight[i]))
                })
                .collect();
            let mut found = vec![0.0; x.len()];
            rms_norm(&mut found, &x, &weight, 1e-5);
            assert_close(&found, &expected, 1e-5);
        }

        #[test]
        fn swiglu_agrees_with_the_definition(pairs in proptest::collection::vec((-90.0_f32..90.0, -2.0_f32..2.0), 0..60)) {
            let (mut gate, up): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            let expected: Vec<f64> = gate
                .iter()
                .zip(&up)
                .map(|(&gate, &up)| f64::from(gate) / (1.0 + (-f64::from(gate)).exp()) * f64::from(up))
                .collect();
            swiglu(&mut gate, &up);
            assert_close(&gate, &expected, 1e-5);
        }

        #[test]
        fn softmax_parts_agree_with_the_definition(x in values(37)) {
            let largest = maximum(&x);
            assert_eq!(largest, x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            let expected: Vec<f64> = x.iter().map(|&x| (f64::from(x) - f64::from(largest)).exp()).collect();
            let mut found = x.clone();
            let sum = exp_and_sum(&mut found, largest);
            assert_close(&found, &expected, 1e-6);
            assert_close(&[sum], &[expected.iter().sum()], 1e-5);
        }
    }
}
