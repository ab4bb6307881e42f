//! Folding a gate into B: `B' = γ·B`, rounded once to the type that B is stored in.
//!
//! In `y = Wx + γ·s·B(Ax)` the gate could as well go into alpha, from which s is made, and would then cost no rounding.
//! But alpha is one number for all modules, and a gate is one module's; its own alpha would need `alpha_pattern`, which
//! llama.cpp and vLLM do not read, so that the file would mean something else there, without a word. Tensors mean the
//! same everywhere.
//!
//! The product of two `f32` is exact in `f64`. Rounding it moves each value of B by half a unit in the last place at
//! most: a share of 2⁻²⁴ in `F32`, 2⁻¹¹ in `F16`, 2⁻⁸ in `BF16`, more among subnormal numbers. A gate that is a power of
//! two costs nothing but there.

use half::{bf16, f16};
use safetensors::Dtype;

use super::problem::AdapterProblem;

/// The bytes of the tensor `name`, whose values are `values`, times `gate`, in the type `dtype`: `F32`, `F16` or
/// `BF16`.
///
/// # Errors
/// A value that the type cannot hold.
pub(super) fn fold(name: &str, values: &[f32], gate: f32, dtype: Dtype) -> Result<Vec<u8>, AdapterProblem> {
    let product = |value: &f32| f64::from(*value) * f64::from(gate);
    let (dtype_name, limit) = match dtype {
        Dtype::F16 => ("F16", f16::MAX.to_f64()),
        Dtype::BF16 => ("BF16", bf16::MAX.to_f64()),
        _ => ("F32", f64::from(f32::MAX)),
    };
    let mut bytes = Vec::with_capacity(values.len() * dtype.bitsize() / 8);
    let mut is_finite = true;
    for exact in values.iter().map(product) {
        // `half` looks at the upper half of an `f64` only: what it is given is rounded already.
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
    Err(AdapterProblem::Overflow { tensor, value, gate, product, dtype: dtype_name, limit })
}

/// The nearest number of a binary type, of two that are equally near the one that ends in an even digit. `digits` and
/// `least` are as Rust's `MANTISSA_DIGITS` and `MIN_EXP`. What is too large for the type is rounded as if it were not.
fn rounded(exact: f64, digits: u32, least: i32) -> f64 {
    let exponent = (exact.to_bits() >> 52 & 0x7ff) as i32 - 1023;
    // `MIN_EXP` is one more than the exponent of the smallest normal number.
    let last_place = 2_f64.powi(exponent.max(least - 1) - (digits as i32 - 1));
    // A power of two: neither the division nor the product rounds.
    (exact / last_place).round_ties_even() * last_place
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every finite number of 16 bits, ascending.
    fn all_f16() -> Vec<f64> {
        let mut all: Vec<f64> =
            (0..=u16::MAX).map(|bits| f16::from_bits(bits).to_f64()).filter(|x| x.is_finite()).collect();
        all.sort_by(f64::total_cmp);
        all
    }

    #[test]
    fn halves_are_rounded_once_and_to_the_nearest() {
        let all = all_f16();
        for pair in all.windows(2).filter(|pair| pair[0] != pair[1]) {
            let [low, high] = [pair[0], pair[1]];
            let middle = low + (high - low) / 2.0;
            let even = if f16::from_f64(low).to_bits() & 1 == 0 { low } else { high };
            // So near the middle that an `f32` between would hide on which side.
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
    fn what_a_type_cannot_hold_is_refused_with_its_largest_value() {
        let values = [1.0, -40_000.0, 3.0];
        let message = |dtype, gate| fold("b", &values, gate, dtype).map(|bytes| bytes.len()).map_err(|e| e.to_string());
        // 65,519 rounds to the largest, 65,504; 65,520 is half way to what would be the next number, and does not.
        assert_eq!(message(Dtype::F16, 65_519.0 / 40_000.0), Ok(6));
        let refusal = message(Dtype::F16, 1.638).unwrap_err();
        assert!(refusal.starts_with("b: its largest value, -40000.0, times the gate 1.638 is -655"), "{refusal}");
        assert!(refusal.contains("F16 holds 65504.0 at most"), "{refusal}");
        assert!(message(Dtype::BF16, 1e34).unwrap_err().contains("BF16 holds 3.38"));
        assert!(message(Dtype::F32, -1e34).unwrap_err().contains("F32 holds 3.40"));
        assert_eq!(message(Dtype::F32, 1e33), Ok(12));
    }
}
