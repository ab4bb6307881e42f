//! CPU kernels of plimsoll: slices in, slices out.
//!
//! Nothing here knows what a language model is. Every function works on row-major `f32` slices, runs on the calling
//! thread, keeps no state and checks its dimensions with panics: a wrong dimension is a bug of the caller, never a
//! property of somebody's file. Callers get parallelism by handing different rows to different threads, which is why
//! a result does not depend on the number of threads.
//!
//! Element-wise loops are written plainly and compiled once for each instruction set by `pulp`, which picks the best
//! one at run time. All `unsafe` of the workspace but one memory map is in this crate.

mod attention;
mod elementwise;
mod head;
mod matmul;
mod rope;

pub use attention::{AttentionShape, attend};
pub use elementwise::{add, rms_norm, swiglu};
pub use head::{TokenScore, score_tokens};
pub use matmul::{Update, matmul};
pub use rope::{RopeTable, rotate};

/// What the crate's property tests share.
#[cfg(test)]
mod testing {
    use proptest::prelude::*;

    /// A vector of `len` numbers between −2 and 2.
    pub(crate) fn values(len: usize) -> impl Strategy<Value = Vec<f32>> {
        proptest::collection::vec(-2.0_f32..2.0, len)
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
