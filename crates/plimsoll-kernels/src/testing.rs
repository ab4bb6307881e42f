//! Helpers for the tests of several modules.

use proptest::prelude::*;

use crate::dtype::{Dtype, bf16_bits};
use crate::isa::Isa;
use crate::words::Rows;

/// A vector of `len` values between −2 and 2.
pub(crate) fn values(len: usize) -> impl Strategy<Value = Vec<f32>> {
    proptest::collection::vec(-2.0_f32..2.0, len)
}

/// Runs a test for every instruction set of this processor and every dtype.
pub(crate) fn each_isa(mut test: impl FnMut(Isa, Dtype)) {
    for isa in Isa::available() {
        test(isa, Dtype::F32);
        test(isa, Dtype::Bf16);
    }
}

/// The value that `x` has as an operand of a product.
pub(crate) fn rounded(dtype: Dtype, x: f32) -> f64 {
    f64::from(match dtype {
        Dtype::F32 => x,
        Dtype::Bf16 => f32::from_bits(bf16_bits(x) << 16),
    })
}

/// A buffer that holds `x (rows, width)`.
pub(crate) fn rows_of(isa: Isa, dtype: Dtype, x: &[f32], rows: usize, width: usize) -> Rows {
    let mut out = Rows::new(dtype);
    out.resize(rows, width);
    out.write(isa, 0, x);
    out
}

/// The values of all rows, `(rows, width)`.
pub(crate) fn decode(rows: &Rows) -> Vec<f32> {
    let words = rows.words.as_slice();
    let value = |row: usize, i: usize| match rows.dtype {
        Dtype::F32 => f32::from_bits(words[row * rows.stride + i]),
        Dtype::Bf16 => f32::from_bits(words[row * rows.stride + i / 2] >> (16 * (i % 2)) << 16),
    };
    (0..rows.rows()).flat_map(|row| (0..rows.width()).map(move |i| value(row, i))).collect()
}

/// Asserts that two slices agree to `tolerance`, relative to the larger of 1 and the expected magnitude.
pub(crate) fn assert_close(found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let allowed = tolerance * expected.abs().max(1.0);
        assert!((f64::from(found) - expected).abs() <= allowed, "at {index}: {found}, expected {expected}");
    }
}
