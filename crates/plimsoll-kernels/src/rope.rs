//! Rotary position embedding (Su et al., arXiv:2104.09864), in the half-split form of GPT-NeoX and Hugging Face.

use std::ops::Range;

use crate::isa::{Isa, Kernel, Simd};

/// Cosines and sines of every position up to a length.
#[derive(Clone, Debug)]
pub struct RopeTable {
    /// `(positions, pairs)`
    cosines: Vec<f32>,
    /// `(positions, pairs)`
    sines: Vec<f32>,
    pairs: usize,
}

impl RopeTable {
    /// Angles `position · frequencies[i]` for positions `0..positions`, one frequency for each pair of dimensions. What is
    /// rotated is multiplied by `factor`, too: 1, but for models whose context was stretched so (YaRN, arXiv:2309.00071).
    ///
    /// The product is taken in `f32`, as transformers does: at position 4,000 a product in `f64` would differ from it
    /// by 1e-4 radian.
    pub fn new(frequencies: &[f32], factor: f32, positions: usize) -> Self {
        let angles = || (0..positions).flat_map(|position| frequencies.iter().map(move |f| position as f32 * f));
        Self {
            cosines: angles().map(|angle| factor * angle.cos()).collect(),
            sines: angles().map(|angle| factor * angle.sin()).collect(),
            pairs: frequencies.len(),
        }
    }

    /// How many positions it holds.
    pub fn positions(&self) -> usize {
        self.cosines.len() / self.pairs.max(1)
    }
}

/// Rotates `heads` heads of `head_dim` numbers at the beginning of each row, in place; `positions` are those of the rows,
/// in order. Where the table has fewer pairs than a head, the rest of the head is left alone.
///
/// Of `n` pairs, dimension `i` is paired with `i + n`: `(a, b) → (a·cos − b·sin, b·cos + a·sin)`.
///
/// # Panics
/// If the lengths do not fit together, or the table is too short.
pub fn rotate(isa: Isa, x: &mut [f32], heads: usize, head_dim: usize, table: &RopeTable, positions: Range<usize>) {
    let width = x.len() / positions.len().max(1);
    assert!(x.len() == width * positions.len() && heads * head_dim <= width, "lengths do not fit");
    assert!(table.pairs > 0 && table.pairs * 2 <= head_dim, "more pairs than a head has");
    assert!(positions.end <= table.positions(), "a position beyond the table");
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
    fn position_zero_is_only_scaled_and_a_quarter_turn_swaps() {
        let table = RopeTable::new(&[std::f32::consts::FRAC_PI_2], 0.5, 2);
        // The third number of a row belongs to the head's rest, the fourth to no head that is rotated.
        let mut x = [1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0];
        rotate(Isa::best(), &mut x, 1, 3, &table, 0..2);
        assert_close(&x, &[0.5, 1.0, 3.0, 4.0, -1.0, 0.5, 3.0, 4.0], 1e-6);
    }

    proptest! {
        /// What makes the embedding relative: the product of a rotated query and key depends on their distance only.
        #[test]
        fn products_depend_on_the_distance_only(q in values(8), k in values(8), a in 0_usize..20, b in 0_usize..20, shift in 0_usize..20) {
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
