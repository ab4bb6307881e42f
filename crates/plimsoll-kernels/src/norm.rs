//! Root mean square norm.

use crate::isa::{Isa, Kernel, LANES, Simd};
use crate::words::{Rows, encode};

/// Root mean square norm of every row: `y = x / √(mean(x²) + epsilon) · weight` (Zhang and Sennrich, arXiv:1910.07467).
///
/// `x` is `(rows, weight.len())`; `y` becomes that, in its own type of number.
///
/// # Panics
/// If `x` is not whole rows.
pub fn rms_norm(isa: Isa, y: &mut Rows, x: &[f32], weight: &[f32], epsilon: f32) {
    let width = weight.len();
    assert!(width > 0 && x.len().is_multiple_of(width), "lengths do not fit");
    y.resize(x.len() / width, width);
    isa.run(Norm { y, x, weight, epsilon });
}

/// The same, added to something else: `y += x / √(mean(x²) + epsilon) · weight`, all `(rows, weight.len())`.
///
/// # Panics
/// If `x` is not whole rows, or `y` is not as long.
pub fn add_rms_norm(isa: Isa, y: &mut [f32], x: &[f32], weight: &[f32], epsilon: f32) {
    let width = weight.len();
    assert!(width > 0 && x.len().is_multiple_of(width) && y.len() == x.len(), "lengths do not fit");
    let rows = y.chunks_exact_mut(width).zip(x.chunks_exact(width));
    rows.for_each(|(y, x)| isa.run(Add { y, x, weight, epsilon }));
}

/// The same of every head, in place: `heads` heads of `weight.len()` numbers, beginning with number `start` of each row
/// of `width` numbers.
///
/// # Panics
/// If `x` is not whole rows, or a row has not so many heads.
pub fn norm_heads(isa: Isa, x: &mut [f32], width: usize, start: usize, heads: usize, weight: &[f32], epsilon: f32) {
    let head_dim = weight.len();
    assert!(width > 0 && x.len().is_multiple_of(width) && start + heads * head_dim <= width, "lengths do not fit");
    for row in x.chunks_exact_mut(width) {
        for head in row[start..start + heads * head_dim].chunks_exact_mut(head_dim) {
            isa.run(InPlace { x: head, weight, epsilon });
        }
    }
}

struct Add<'a> {
    y: &'a mut [f32],
    x: &'a [f32],
    weight: &'a [f32],
    epsilon: f32,
}

impl Kernel for Add<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { y, x, weight, epsilon } = self;
        let scale = scale(s, x, epsilon);
        y.iter_mut().zip(x).zip(weight).for_each(|((y, x), weight)| *y += x * scale * weight);
    }
}

struct InPlace<'a> {
    x: &'a mut [f32],
    weight: &'a [f32],
    epsilon: f32,
}

impl Kernel for InPlace<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { x, weight, epsilon } = self;
        let scale = scale(s, x, epsilon);
        x.iter_mut().zip(weight).for_each(|(x, weight)| *x *= scale * weight);
    }
}

/// `1 / √(mean(x²) + epsilon)`
#[inline(always)]
fn scale<S: Simd>(s: S, x: &[f32], epsilon: f32) -> f32 {
    1.0 / (sum_of_squares(s, x) / x.len() as f32 + epsilon).sqrt()
}

struct Norm<'a> {
    y: &'a mut Rows,
    x: &'a [f32],
    weight: &'a [f32],
    epsilon: f32,
}

impl Kernel for Norm<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { y, x, weight, epsilon } = self;
        let width = weight.len();
        let dtype = y.dtype;
        for (row, x) in x.chunks_exact(width).enumerate() {
            let y = y.row_mut(row);
            let scale = scale(s, x, epsilon);
            // One vector at a time, through an array that stays in registers.
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
    s.sum(sums) + rest.iter().map(|x| x * x).sum::<f32>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{assert_close, decode, each_isa, values};
    use crate::words::Dtype;

    proptest! {
        #[test]
        fn agrees_with_the_definition(
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
            each_isa(|isa, dtype| {
                let mut found = Rows::new(dtype);
                rms_norm(isa, &mut found, &x, &weight, 1e-5);
                // A bf16 has 8 bits, hence is within 2⁻⁹ of what it stands for.
                assert_close(&decode(&found), &expected, if dtype == Dtype::F32 { 1e-5 } else { 2.0_f64.powi(-8) });

                let mut added: Vec<f32> = x.iter().rev().copied().collect();
                let sum: Vec<f64> = added.iter().zip(&expected).map(|(&y, x)| f64::from(y) + x).collect();
                add_rms_norm(isa, &mut added, &x, &weight, 1e-5);
                assert_close(&added, &sum, 1e-5);

                // Rows as heads: all of them in one row, behind a number that is left alone.
                let mut row = [&[7.0], x.as_slice()].concat();
                let len = row.len();
                norm_heads(isa, &mut row, len, 1, x.len() / width, &weight, 1e-5);
                assert_eq!(row[0], 7.0);
                assert_close(&row[1..], &expected, 1e-5);
            });
        }
    }
}
