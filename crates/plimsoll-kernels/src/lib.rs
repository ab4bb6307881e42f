//! CPU kernels of plimsoll: slices in, slices out.
//!
//! Nothing here knows what a language model is. Weights are packed once ([`Packed`]); what is multiplied with them comes
//! as [`Rows`] of the same type of number, `f32` or `bf16`; sums, and everything between products, are `f32`. Wrong
//! dimensions are a bug of the caller, never a property of somebody's file, and end in a panic.
//!
//! A kernel is written once and compiled for each instruction set ([`Isa`]); which one runs is a value that the caller
//! hands over. A row's result depends on the row, the weights and the instruction set alone, to the last bit: not on
//! what other rows it is computed with, nor on the number of threads.
//!
//! All `unsafe` of the workspace but one memory map is in this crate.

mod attention;
mod head;
mod isa;
mod norm;
mod packed;
mod product;
mod rope;
mod words;

pub use attention::{Attention, AttentionRule, AttentionScratch, AttentionShape, KeyValues, MAX_HEAD_DIM, attend};
pub use head::{TokenScore, cap_logits, score_tokens};
pub use isa::Isa;
pub use norm::{add_rms_norm, norm_heads, rms_norm};
pub use packed::{Packed, PackedUpdate, UpdateModule};
pub use product::{Activation, Mode, Threads, Update, gated, linear, linear_rows, peak};
pub use rope::{RopeTable, rotate};
pub use words::{Dtype, Rows};

/// What the crate's property tests share.
#[cfg(test)]
mod testing {
    use proptest::prelude::*;

    use super::*;
    use crate::isa::bf16_bits;

    /// A vector of `len` numbers between −2 and 2.
    pub(crate) fn values(len: usize) -> impl Strategy<Value = Vec<f32>> {
        proptest::collection::vec(-2.0_f32..2.0, len)
    }

    /// Runs a test on every instruction set of this processor, with both types of number.
    pub(crate) fn each_isa(mut test: impl FnMut(Isa, Dtype)) {
        for isa in Isa::available() {
            test(isa, Dtype::F32);
            test(isa, Dtype::Bf16);
        }
    }

    /// What a number is as a factor of a product.
    pub(crate) fn rounded(dtype: Dtype, x: f32) -> f64 {
        f64::from(match dtype {
            Dtype::F32 => x,
            Dtype::Bf16 => f32::from_bits(bf16_bits(x) << 16),
        })
    }

    /// The numbers of all rows.
    pub(crate) fn decode(rows: &Rows) -> Vec<f32> {
        let words = rows.words.as_slice();
        let number = |row: usize, i: usize| match rows.dtype {
            Dtype::F32 => f32::from_bits(words[row * rows.stride + i]),
            Dtype::Bf16 => f32::from_bits(words[row * rows.stride + i / 2] >> (16 * (i % 2)) << 16),
        };
        (0..rows.rows()).flat_map(|row| (0..rows.width()).map(move |i| number(row, i))).collect()
    }

    /// Asserts that two slices agree to `tolerance`, relative to the larger of 1 and the expected magnitude.
    pub(crate) fn assert_close(found: &[f32], expected: &[f64], tolerance: f64) {
        assert_eq!(found.len(), expected.len());
        for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
            let allowed = tolerance * expected.abs().max(1.0);
            assert!((f64::from(found) - expected).abs() <= allowed, "at {index}: {found}, expected {expected}");
        }
    }
}
