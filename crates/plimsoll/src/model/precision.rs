//! What a model is computed in: the dtype and the instruction set.

use plimsoll_kernels::{Dtype, Isa};

/// What a model is computed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Precision {
    /// The instruction set.
    pub isa: Isa,
    /// What weights, and what is multiplied with them, are held as. Sums are `f32`.
    pub dtype: Dtype,
}

impl Precision {
    /// One type of number on the best instruction set of this processor.
    pub fn new(dtype: Dtype) -> Self {
        Self { isa: Isa::best(), dtype }
    }
}

impl Default for Precision {
    /// `bf16` where the processor multiplies such numbers, `f32` elsewhere.
    fn default() -> Self {
        Self::new(if Isa::best().has_bf16_products() { Dtype::Bf16 } else { Dtype::F32 })
    }
}
