//! Rotary position embedding (Su et al., arXiv:2104.09864), in the half-split form of GPT-NeoX and Hugging Face.

use std::ops::Range;

use crate::isa::Isa;
use crate::simd::{Kernel, Simd};

/// Precomputed cosines and sines of a rotary embedding, for positions up to a maximum.
///
/// ```
/// use std::f32::consts::FRAC_PI_2;
///
/// use plimsoll_kernels::{Isa, RopeTable, rotate};
///
/// let table = RopeTable::new(&[FRAC_PI_2], 1.0, 8); // one pair of dimensions, 8 positions
/// let mut x = [1.0, 2.0]; // one row: one head of two dimensions
/// rotate(Isa::best(), &mut x, 1, 2, &table, 1..2); // by 90 degrees at position 1
/// assert!((x[0] + 2.0).abs() < 1e-6 && (x[1] - 1.0).abs() < 1e-6);
/// ```
#[derive(Clone, Debug)]
pub struct RopeTable {
    /// `(positions, pairs)`
    cosines: Vec<f32>,
    /// `(positions, pairs)`
    sines: Vec<f32>,
    pairs: usize,
}

impl RopeTable {
    /// Computes cosine and sine of the angles `position · frequencies[i]`, in radians, for positions `0..positions` and
    /// one frequency for each pair of dimensions.
    ///
    /// `factor` multiplies what is rotated. It is 1, except for models with an extended context (YaRN,
    /// arXiv:2309.00071).
    ///
    /// The angles are computed in `f32`, as in transformers. At position 4,000 angles in `f64` would differ by 1e-4
    /// radian.
    pub fn new(frequencies: &[f32], factor: f32, positions: usize) -> Self {
        let angles = || (0..positions).flat_map(|position| frequencies.iter().map(move |f| position as f32 * f));
        Self {
            cosines: angles().map(|angle| factor * angle.cos()).collect(),
            sines: angles().map(|angle| factor * angle.sin()).collect(),
            pairs: frequencies.len(),
        }
    }

    /// Number of positions.
    pub fn positions(&self) -> usize {
        self.cosines.len() / self.pairs.max(1)
    }
}

/// Applies a rotary embedding in place to the first `heads` heads of each row of `x (positions.len(), width)`.
///
/// Row i has the position `positions.start + i`. With `n` pairs in the table, dimension `i` of a head is paired with
/// `i + n`: `(a, b) → (a·cos − b·sin, b·cos + a·sin)`. Dimensions from `2n` on are not changed.
///
/// # Panics
/// If dimensions do not match, the table has no pairs or more pairs than a head, or a position is not in the table.
pub fn rotate(isa: Isa, x: &mut [f32], heads: usize, head_dim: usize, table: &RopeTable, positions: Range<usize>) {
    let width = x.len() / positions.len().max(1);
    assert_eq!(x.len(), width * positions.len(), "shape mismatch: x is not whole rows for positions {positions:?}");
    assert!(heads * head_dim <= width, "shape mismatch: {heads} heads of {head_dim} in rows of width {width}");
    assert!(
        table.pairs > 0 && table.pairs * 2 <= head_dim,
        "shape mismatch: {} pairs of dimensions for heads of {head_dim}",
        table.pairs
    );
    assert!(
        positions.end <= table.positions(),
        "positions {positions:?} out of bounds: the table has {}",
        table.positions()
    );
    isa.run(Rotate { x, width, heads, head_dim, table, positions });
}

struct Rotate<'a> {
    x: &'a mut [f32],
    width: usize,
    heads: usize,
    head_dim: usize,
    table: &'a RopeTable,
    positions: Range<usize>,
}

impl Kernel for Rotate<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self { x, width, heads, head_dim, table, positions } = self;
        let pairs = table.pairs;
        let angles = positions.start * pairs..positions.end * pairs;
        let (cosines, sines) = (&table.cosines[angles.clone()], &table.sines[angles]);
        let rows = x.chunks_exact_mut(width.max(1)).zip(cosines.chunks_exact(pairs).zip(sines.chunks_exact(pairs)));
        for (row, (cosines, sines)) in rows {
            for head in row[..heads * head_dim].chunks_exact_mut(head_dim) {
                let (lower, upper) = head[..pairs * 2].split_at_mut(pairs);
                for (((a, b), cosine), sine) in lower.iter_mut().zip(upper).zip(cosines).zip(sines) {
                    (*a, *b) = (*a * cosine - *b * sine, *b * cosine + *a * sine);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{assert_close, values};

    #[test]
    fn rotates_by_the_angle_of_the_position() {
        let table = RopeTable::new(&[std::f32::consts::FRAC_PI_2], 0.5, 2);
        // The third value of a row is a dimension without a pair. The fourth belongs to no rotated head.
        let mut x = [1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0];
        rotate(Isa::best(), &mut x, 1, 3, &table, 0..2);
        assert_close(&x, &[0.5, 1.0, 3.0, 4.0, -1.0, 0.5, 3.0, 4.0], 1e-6);
    }

    proptest! {
        /// The embedding is relative: the product of a rotated query and key depends only on their distance.
        #[test]
        fn products_depend_on_the_distance_only(
            q in values(8),
            k in values(8),
            a in 0_usize..20,
            b in 0_usize..20,
            shift in 0_usize..20,
        ) {
            let table = RopeTable::new(&[1.0, 0.1, 0.01, 0.001], 1.0, 40);
            for isa in Isa::available() {
                let dot = |at_q: usize, at_k: usize| {
                    let (mut q, mut k) = (q.clone(), k.clone());
                    rotate(isa, &mut q, 1, 8, &table, at_q..at_q + 1);
                    rotate(isa, &mut k, 1, 8, &table, at_k..at_k + 1);
                    q.iter().zip(&k).map(|(q, k)| q * k).sum::<f32>()
                };
                assert_close(&[dot(a + shift, b + shift)], &[f64::from(dot(a, b))], 1e-4);
            }
        }
    }
}
