//! Dtypes of matrix operands, and rounding of `f32` to `bf16`.

use std::fmt;

/// Dtype of the operands of a matrix product: `f32` or `bf16`. Sums are always `f32`.
///
/// ```
/// use plimsoll_kernels::Dtype;
///
/// assert_eq!(Dtype::F32.bytes(), 4);
/// assert_eq!(Dtype::Bf16.to_string(), "bf16");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE 754 single precision: 32 bits, of which 24 bits of precision.
    F32,
    /// bfloat16: the upper 16 bits of an `f32`, with 8 bits of precision.
    Bf16,
}

impl Dtype {
    /// Number of 32-bit words that hold `len` values.
    #[inline(always)]
    pub(crate) fn words(self, len: usize) -> usize {
        match self {
            Self::F32 => len,
            Self::Bf16 => len.div_ceil(2),
        }
    }

    /// Size of one value in bytes.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

/// Rounds to `bf16`, to nearest and ties to even, and returns its 16 bits. A NaN stays a NaN.
#[inline(always)]
pub(crate) fn bf16_bits(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    if x.is_nan() { bits >> 16 | 0x40 } else { rounded }
}

/// Rounds one or two values to a word of `bf16`, the first in the lower half. The upper half is 0 if there is no
/// second.
#[inline(always)]
pub(crate) fn bf16_word(pair: &[f32]) -> u32 {
    bf16_bits(pair[0]) | pair.get(1).map_or(0, |x| bf16_bits(*x) << 16)
}

/// The two `bf16` of a word as `f32`: lower half, upper half.
#[inline(always)]
pub(crate) fn bf16_pair(word: u32) -> (f32, f32) {
    (f32::from_bits(word << 16), f32::from_bits(word & 0xffff_0000))
}
