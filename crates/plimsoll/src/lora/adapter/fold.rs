//! Folding a LoRA strength into B: `B' = γ·B`, rounded once to the dtype that B is stored in.
//!
//! In `y = Wx + γ·s·B(Ax)` the strength could also be folded into alpha, which determines s, without rounding. But
//! alpha is one number for all modules, and a strength belongs to one module. A strength in `alpha_pattern` would be
//! ignored by llama.cpp and vLLM, which do not read it. A folded tensor has the same result in every runtime.
//!
//! The product of two `f32` is exact in `f64`. Rounding changes each value of B by at most half a unit in the last
//! place: a relative error of 2⁻²⁴ in `F32`, 2⁻¹¹ in `F16`, 2⁻⁸ in `BF16`, more for subnormal numbers. A strength that
//! is a power of two is exact, except for subnormal numbers.

use half::{bf16, f16};
use safetensors::Dtype;

use super::problem::AdapterProblem;

/// The bytes of `strength` times the tensor `name` with these values, in a dtype: `F32`, `F16` or `BF16`.
///
/// # Errors
/// [`AdapterProblem::Overflow`]: a product beyond the range of the dtype.
pub(super) fn fold(name: &str, values: &[f32], strength: f32, dtype: Dtype) -> Result<Vec<u8>, AdapterProblem> {
    let product = |value: &f32| f64::from(*value) * f64::from(strength);
    let (dtype_name, limit) = match dtype {
        Dtype::F16 => ("F16", f16::MAX.to_f64()),
        Dtype::BF16 => ("BF16", bf16::MAX.to_f64()),
        _ => ("F32", f64::from(f32::MAX)),
    };
    let mut bytes = Vec::with_capacity(values.len() * dtype.bitsize() / 8);
    let mut is_finite = true;
    for exact in values.iter().map(product) {
        // `half` reads only the upper half of an `f64`, so the value is rounded before.
        match dtype {
            Dtype::F16 => {
                let rounded = f16::from_f64(rounded(exact, f16::MANTISSA_DIGITS, f16::MIN_EXP));
                is_finite &= rounded.is_finite();
                bytes.extend(rounded.to_le_bytes());
            }
            Dtype::BF16 => {
                let rounded = bf16::from_f64(rounded(exact, bf16::MANTISSA_DIGITS, bf16::MIN_EXP));
                is_finite &= rounded.is_finite();
                bytes.extend(rounded.to_le_bytes());
            }
            _ => {
                let rounded = exact as f32;
                is_finite &= rounded.is_finite();
                bytes.extend(rounded.to_le_bytes());
            }
        }
    }
    if is_finite {
        return Ok(bytes);
    }
    let value = values.iter().copied().max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap_or(0.0);
    let (tensor, product) = (name.to_owned(), product(&value));
    Err(AdapterProblem::Overflow { tensor, value, strength, product, dtype: dtype_name, limit })
}

/// Rounds to the nearest number of a binary floating-point type, ties to even, without an upper bound on the exponent.
/// `digits` and `min_exp` are the type's `MANTISSA_DIGITS` and `MIN_EXP`.
fn rounded(exact: f64, digits: u32, min_exp: i32) -> f64 {
    let exponent = (exact.to_bits() >> 52 & 0x7ff) as i32 - 1023;
    // `MIN_EXP` is one more than the exponent of the smallest normal number.
    let last_place = 2_f64.powi(exponent.max(min_exp - 1) - (digits as i32 - 1));
    // `last_place` is a power of two: neither the division nor the product rounds.
    (exact / last_place).round_ties_even() * last_place
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All finite `f16` numbers, ascending.
    fn all_f16() -> Vec<f64> {
        let mut all: Vec<f64> =
            (0..=u16::MAX).map(|bits| f16::from_bits(bits).to_f64()).filter(|x| x.is_finite()).collect();
        all.sort_by(f64::total_cmp);
        all
    }

    #[test]
    fn f16_is_rounded_once_and_to_the_nearest() {
        let all = all_f16();
        for pair in all.windows(2).filter(|pair| pair[0] != pair[1]) {
            let [low, high] = [pair[0], pair[1]];
            let middle = low + (high - low) / 2.0;
            let even = if f16::from_f64(low).to_bits() & 1 == 0 { low } else { high };
            // So near the middle that rounding to `f32` first would lose the side.
            let tiny = (high - low) * 2_f64.powi(-30);
            for (exact, nearest) in [(low, low), (middle, even), (middle - tiny, low), (middle + tiny, high)] {
                assert_eq!(rounded(exact, f16::MANTISSA_DIGITS, f16::MIN_EXP), nearest, "{exact:e}");
            }
        }
    }

    #[test]
    fn the_smallest_numbers_of_bf16_are_rounded_to_themselves() {
        for bits in (0..0x0200).chain(0x7f00..0x7f80) {
            let value = bf16::from_bits(bits).to_f64();
            assert_eq!(rounded(value, bf16::MANTISSA_DIGITS, bf16::MIN_EXP), value);
            assert_eq!(rounded(-value, bf16::MANTISSA_DIGITS, bf16::MIN_EXP), -value);
        }
    }

    #[test]
    fn overflow_is_refused_with_the_largest_value() {
        let values = [1.0, -40_000.0, 3.0];
        let message =
            |dtype, strength| fold("b", &values, strength, dtype).map(|bytes| bytes.len()).map_err(|e| e.to_string());
        // 65,519 rounds to the largest number, 65,504; 65,520 is half way to the next power of two, and overflows.
        assert_eq!(message(Dtype::F16, 65_519.0 / 40_000.0), Ok(6));
        let refusal = message(Dtype::F16, 1.638).unwrap_err();
        assert!(
            refusal.starts_with("b: its largest value, -40000.0, times the LoRA strength 1.638 is -655"),
            "{refusal}"
        );
        assert!(refusal.contains("the largest F16 number is 65504.0"), "{refusal}");
        assert!(message(Dtype::BF16, 1e34).unwrap_err().contains("the largest BF16 number is 3.38"));
        assert!(message(Dtype::F32, -1e34).unwrap_err().contains("the largest F32 number is 3.40"));
        assert_eq!(message(Dtype::F32, 1e33), Ok(12));
    }
}
