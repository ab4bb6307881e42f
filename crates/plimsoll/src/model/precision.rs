//! The dtype and the instruction set of the computation.

use plimsoll_kernels::{Dtype, Isa};

/// The dtype and the instruction set of the computation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Precision {
    /// The instruction set.
    pub isa: Isa,
    /// The dtype of weights and of their inputs. Sums are `f32`.
    pub dtype: Dtype,
}

impl Precision {
    /// A dtype with the best instruction set of this processor.
    pub fn new(dtype: Dtype) -> Self {
        Self { isa: Isa::best(), dtype }
    }
}

impl Default for Precision {
    /// `bf16` if the processor has `bf16` products, else `f32`.
    fn default() -> Self {
        Self::new(if Isa::best().has_bf16_products() { Dtype::Bf16 } else { Dtype::F32 })
    }
}
