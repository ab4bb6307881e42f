//! Root mean square norm (RMSNorm): of rows, added to a residual, and of attention heads.

use crate::isa::Isa;
use crate::simd::{Kernel, LANES, Simd};
use crate::words::{Rows, encode};

/// Root mean square norm of each row: `y = x / √(mean(x²) + epsilon) · weight` (Zhang and Sennrich, arXiv:1910.07467).
///
/// `x` is `(rows, weight.len())`. `y` is resized to the same shape and keeps its dtype.
///
/// ```
/// use plimsoll_kernels::{Dtype, Isa, Mode, Packed, Rows, Threads, linear, rms_norm};
///
/// let isa = Isa::best();
/// let mut normed = Rows::new(Dtype::F32);
/// rms_norm(isa, &mut normed, &[1.0, 7.0], &[1.0, 2.0], 0.0); // mean square 25
/// assert_eq!((normed.rows(), normed.width()), (1, 2));
///
/// let w = Packed::from_rows(Dtype::F32, &[1.0, 1.0], 2); // (1 output, 2 inputs)
/// let mut y = [0.0];
/// linear(isa, &mut y, &normed, &w, None, Mode::Set, Threads::One);
/// assert!((y[0] - (1.0 / 5.0 + 7.0 / 5.0 * 2.0)).abs() < 1e-6);
/// ```
///
/// # Panics
/// If `weight` is empty, or the length of `x` is not a multiple of its length.
pub fn rms_norm(isa: Isa, y: &mut Rows, x: &[f32], weight: &[f32], epsilon: f32) {
    let width = weight.len();
    check_rows(x, width);
    y.resize(x.len() / width, width);
    isa.run(RmsNorm { y, x, weight, epsilon });
}

/// Root mean square norm of each row, added to a residual: `y += x / √(mean(x²) + epsilon) · weight`.
///
/// `x` and `y` are `(rows, weight.len())`.
///
/// ```
/// use plimsoll_kernels::{Isa, add_rms_norm};
///
/// let mut y = [10.0, 20.0];
/// add_rms_norm(Isa::best(), &mut y, &[1.0, 7.0], &[5.0, 5.0], 0.0); // mean square 25
/// assert!((y[0] - 11.0).abs() < 1e-5 && (y[1] - 27.0).abs() < 1e-5);
/// ```
///
/// # Panics
/// If `weight` is empty, the length of `x` is not a multiple of its length, or `y` has another length than `x`.
pub fn add_rms_norm(isa: Isa, y: &mut [f32], x: &[f32], weight: &[f32], epsilon: f32) {
    let width = weight.len();
    check_rows(x, width);
    assert_eq!(y.len(), x.len(), "shape mismatch: y and x");
    let rows = y.chunks_exact_mut(width).zip(x.chunks_exact(width));
    rows.for_each(|(y, x)| isa.run(AddRmsNorm { y, x, weight, epsilon }));
}

/// Root mean square norm of each attention head, in place (QK norm).
///
/// `x` is `(rows, width)`. The heads of a row are values `start..start + heads · weight.len()`; the others are not
/// changed.
///
/// ```
/// use plimsoll_kernels::{Isa, norm_heads};
///
/// let mut x = [9.0, 1.0, 7.0]; // one row of width 3, whose head of 2 dimensions begins at 1
/// norm_heads(Isa::best(), &mut x, 3, 1, 1, &[5.0, 5.0], 0.0); // mean square 25
/// assert!(x[0] == 9.0 && (x[1] - 1.0).abs() < 1e-5 && (x[2] - 7.0).abs() < 1e-5);
/// ```
///
/// # Panics
/// If `width` is 0, the length of `x` is not a multiple of it, or the heads do not fit in a row.
pub fn norm_heads(isa: Isa, x: &mut [f32], width: usize, start: usize, heads: usize, weight: &[f32], epsilon: f32) {
    let head_dim = weight.len();
    check_rows(x, width);
    assert!(
        start + heads * head_dim <= width,
        "shape mismatch: {heads} heads of {head_dim} from {start} on in rows of width {width}"
    );
    for row in x.chunks_exact_mut(width) {
        for head in row[start..start + heads * head_dim].chunks_exact_mut(head_dim) {
            isa.run(NormHead { x: head, weight, epsilon });
        }
    }
}

/// Checks that `x` is whole rows of a width.
///
/// # Panics
/// If it is not, or the width is 0.
fn check_rows(x: &[f32], width: usize) {
    assert!(
        width > 0 && x.len().is_multiple_of(width),
        "shape mismatch: {} values are not whole rows of width {width}",
        x.len()
    );
}

struct AddRmsNorm<'a> {
    y: &'a mut [f32],
    x: &'a [f32],
    weight: &'a [f32],
    epsilon: f32,
}

impl Kernel for AddRmsNorm<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { y, x, weight, epsilon } = self;
        let scale = scale(s, x, epsilon);
        y.iter_mut().zip(x).zip(weight).for_each(|((y, x), weight)| *y += x * scale * weight);
    }
}

struct NormHead<'a> {
    x: &'a mut [f32],
    weight: &'a [f32],
    epsilon: f32,
}

impl Kernel for NormHead<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { x, weight, epsilon } = self;
        let scale = scale(s, x, epsilon);
        x.iter_mut().zip(weight).for_each(|(x, weight)| *x *= scale * weight);
    }
}

/// Reciprocal root mean square of a row: `1 / √(mean(x²) + epsilon)`.
#[inline(always)]
fn scale<S: Simd>(s: S, x: &[f32], epsilon: f32) -> f32 {
    1.0 / (sum_of_squares(s, x) / x.len() as f32 + epsilon).sqrt()
}

struct RmsNorm<'a> {
    y: &'a mut Rows,
    x: &'a [f32],
    weight: &'a [f32],
    epsilon: f32,
}

impl Kernel for RmsNorm<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { y, x, weight, epsilon } = self;
        let width = weight.len();
        let dtype = y.dtype;
        for (row, x) in x.chunks_exact(width).enumerate() {
            let y = y.row_mut(row);
            let scale = scale(s, x, epsilon);
            // One vector at a time: the array stays in registers.
            let words = dtype.words(LANES);
            for ((x, weight), y) in x.chunks(LANES).zip(weight.chunks(LANES)).zip(y.chunks_mut(words)) {
                let mut normed = [0.0; LANES];
                for ((normed, x), weight) in normed.iter_mut().zip(x).zip(weight) {
                    *normed = x * scale * weight;
                }
                encode(s, dtype, &mut y[..dtype.words(x.len())], &normed[..x.len()]);
            }
        }
    }
}

#[inline(always)]
fn sum_of_squares<S: Simd>(s: S, x: &[f32]) -> f32 {
    let (blocks, rest) = x.as_chunks::<LANES>();
    let mut sums = s.splat(0.0);
    for block in blocks {
        let x = s.load(block);
        sums = s.fma(x, x, sums);
    }
    s.reduce_sum(sums) + rest.iter().map(|x| x * x).sum::<f32>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dtype::Dtype;
    use crate::testing::{assert_close, decode, each_isa, values};

    proptest! {
        #[test]
        fn agrees_with_the_definition(
            (x, weight) in (0_usize..5, 1_usize..70)
                .prop_flat_map(|(rows, width)| (values(rows * width), values(width)))
        ) {
            let width = weight.len();
            let expected: Vec<f64> = x
                .chunks(width)
                .flat_map(|row| {
                    let mean = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() / width as f64;
                    let rms = (mean + 1e-5).sqrt();
                    row.iter().zip(&weight).map(move |(&x, &weight)| f64::from(x) / rms * f64::from(weight))
                })
                .collect();
            each_isa(|isa, dtype| {
                let mut found = Rows::new(dtype);
                rms_norm(isa, &mut found, &x, &weight, 1e-5);
                // Rounding to bf16 has a relative error of up to 2⁻⁹.
                assert_close(&decode(&found), &expected, if dtype == Dtype::F32 { 1e-5 } else { 2.0_f64.powi(-8) });

                let mut added: Vec<f32> = x.iter().rev().copied().collect();
                let sum: Vec<f64> = added.iter().zip(&expected).map(|(&y, x)| f64::from(y) + x).collect();
                add_rms_norm(isa, &mut added, &x, &weight, 1e-5);
                assert_close(&added, &sum, 1e-5);

                // The rows as heads of one row, after a value that is not changed.
                let mut row = [&[7.0], x.as_slice()].concat();
                let len = row.len();
                norm_heads(isa, &mut row, len, 1, x.len() / width, &weight, 1e-5);
                assert_eq!(row[0], 7.0);
                assert_close(&row[1..], &expected, 1e-5);
            });
        }
    }
}
