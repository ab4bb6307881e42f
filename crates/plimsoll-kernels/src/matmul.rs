//! Matrix products, by the `gemm` crate.

use gemm::Parallelism;

/// What a product does to its destination.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Update {
    /// `y = x · wᵀ`
    Set,
    /// `y += factor · x · wᵀ`
    Add(f32),
}

/// `y (rows, outputs) = x (rows, inputs) · wᵀ` with `w (outputs, inputs)`: a linear layer without bias.
///
/// `rows` follows from the lengths.
///
/// # Panics
/// If the lengths do not fit together.
pub fn matmul(y: &mut [f32], x: &[f32], w: &[f32], inputs: usize, update: Update) {
    assert!(inputs > 0 && x.len().is_multiple_of(inputs) && w.len().is_multiple_of(inputs), "lengths do not fit");
    let (rows, outputs) = (x.len() / inputs, w.len() / inputs);
    product(
        MatrixMut { data: y, rows, columns: outputs, row_stride: outputs },
        Matrix { data: x, rows, columns: inputs, row_stride: inputs, column_stride: 1 },
        Matrix { data: w, rows: inputs, columns: outputs, row_stride: 1, column_stride: inputs },
        update,
    );
}

/// A matrix inside a slice: element `(i, j)` lies at `i · row_stride + j · column_stride`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) row_stride: usize,
    pub(crate) column_stride: usize,
}

/// A matrix to write: row `i` begins at `i · row_stride`, and its elements lie side by side.
pub(crate) struct MatrixMut<'a> {
    pub(crate) data: &'a mut [f32],
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) row_stride: usize,
}

/// `y = a · b`, or `y += factor · a · b`.
pub(crate) fn product(y: MatrixMut<'_>, a: Matrix<'_>, b: Matrix<'_>, update: Update) {
    let MatrixMut { data: y, rows, columns, row_stride } = y;
    let inner = a.columns;
    assert!(rows == a.rows && columns == b.columns && inner == b.rows, "shapes do not fit");
    if rows == 0 || columns == 0 {
        return;
    }
    // Each element of y must have a place of its own, since the product writes each of them once.
    assert!(row_stride >= columns || rows == 1, "rows of the destination overlap");
    assert!((rows - 1) * row_stride + columns <= y.len(), "a matrix leaves its slice");
    let (read_y, alpha, beta) = match update {
        Update::Set => (false, 0.0, 1.0),
        Update::Add(factor) => (true, 1.0, factor),
    };
    if inner == 0 {
        // An empty sum: nothing to add, zeros to set.
        if update == Update::Set {
            y.chunks_mut(row_stride).take(rows).for_each(|row| row[..columns].fill(0.0));
        }
        return;
    }
    for Matrix { data, rows, columns, row_stride, column_stride } in [a, b] {
        assert!((rows - 1) * row_stride + (columns - 1) * column_stride < data.len(), "a matrix leaves its slice");
    }
    // SAFETY: each of the three matrices was just checked to lie inside its slice (the largest index is that of its
    // last element, strides being non-negative). `y` is borrowed mutably, so it overlaps neither `a` nor `b`, and its
    // rows do not overlap each other. Strides came from `usize` and are below a slice's length, hence fit `isize`; the
    // one exception, a stride of a matrix with a single row or column, is never multiplied by more than 0.
    #[allow(unsafe_code)]
    unsafe {
        gemm::gemm(
            rows,
            columns,
            inner,
            y.as_mut_ptr(),
            1,
            row_stride as isize,
            read_y,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            alpha,
            beta,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{assert_close, values};

    fn plain(y: &[f32], x: &[f32], w: &[f32], inputs: usize, update: Update) -> Vec<f64> {
        let outputs = w.len() / inputs;
        (0..y.len())
            .map(|at| {
                let (row, column) = (at / outputs, at % outputs);
                let sum: f64 =
                    (0..inputs).map(|i| f64::from(x[row * inputs + i]) * f64::from(w[column * inputs + i])).sum();
                match update {
                    Update::Set => sum,
                    Update::Add(factor) => f64::from(y[at]) + f64::from(factor) * sum,
                }
            })
            .collect()
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(
            (inputs, x, w, y, factor) in (0_usize..40, 1_usize..70, 1_usize..50).prop_flat_map(|(m, k, n)| {
                (Just(k), values(m * k), values(n * k), values(m * n), -2.0_f32..2.0)
            })
        ) {
            for update in [Update::Set, Update::Add(factor)] {
                let expected = plain(&y, &x, &w, inputs, update);
                let mut found = y.clone();
                matmul(&mut found, &x, &w, inputs, update);
                // 70 products of numbers below 4: rounding of the sum stays below 1e-5 of it.
                assert_close(&found, &expected, 1e-5);
            }
        }
    }

    #[test]
    #[should_panic(expected = "lengths do not fit")]
    fn refuses_lengths_that_do_not_fit() {
        matmul(&mut [0.0; 2], &[0.0; 3], &[0.0; 4], 2, Update::Set);
    }

    #[test]
    #[should_panic(expected = "leaves its slice")]
    fn refuses_a_destination_that_is_too_short() {
        matmul(&mut [0.0; 3], &[0.0; 4], &[0.0; 4], 2, Update::Set);
    }
}
