//! Causal attention with grouped queries.

use pulp::Arch;

use crate::elementwise::{exp_and_sum, maximum};
use crate::matmul::{Matrix, MatrixMut, Update, product};

/// Queries that are taken together: the scores of a block fit into the second-level cache up to some thousand keys.
const QUERIES: usize = 64;

/// The dimensions of one attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; `heads` is a multiple of it (Ainslie et al., arXiv:2305.13245).
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
}

/// `softmax(q · kᵀ / √head_dim) · v` for one sequence, each position seeing itself and what lies before it.
///
/// `out` and `q` are `(positions, heads, head_dim)`, `k` and `v` are `(positions, kv_heads, head_dim)`. `scratch` is
/// grown as needed, to 64 rows of scores: no buffer of size positions² exists.
///
/// # Panics
/// If the lengths do not fit together.
pub fn attend(out: &mut [f32], q: &[f32], k: &[f32], v: &[f32], shape: AttentionShape, scratch: &mut Vec<f32>) {
    let AttentionShape { heads, kv_heads, head_dim } = shape;
    let (q_width, kv_width) = (heads * head_dim, kv_heads * head_dim);
    assert!(q_width > 0 && kv_heads > 0 && heads.is_multiple_of(kv_heads), "heads do not fit");
    let positions = q.len() / q_width;
    assert!(q.len() == positions * q_width && out.len() == q.len(), "lengths do not fit");
    assert!(k.len() == positions * kv_width && v.len() == k.len(), "lengths do not fit");
    let scale = 1.0 / (head_dim as f32).sqrt();
    scratch.resize(QUERIES * positions, 0.0);
    for start in (0..positions).step_by(QUERIES) {
        let end = positions.min(start + QUERIES);
        for head in 0..heads {
            let at_q = start * q_width + head * head_dim;
            let at_kv = head / (heads / kv_heads) * head_dim;
            let scores = &mut scratch[..(end - start) * end]; // (queries, keys)
            product(
                MatrixMut { data: scores, rows: end - start, columns: end, row_stride: end },
                Matrix {
                    data: &q[at_q..],
                    rows: end - start,
                    columns: head_dim,
                    row_stride: q_width,
                    column_stride: 1,
                },
                Matrix { data: &k[at_kv..], rows: head_dim, columns: end, row_stride: 1, column_stride: kv_width },
                Update::Set,
            );
            Arch::new().dispatch(|| {
                for (query, row) in scores.chunks_exact_mut(end).enumerate() {
                    let (seen, future) = row.split_at_mut(start + query + 1);
                    for score in seen.iter_mut() {
                        *score *= scale;
                    }
                    let largest = maximum(seen);
                    let normaliser = 1.0 / exp_and_sum(seen, largest);
                    for weight in seen {
                        *weight *= normaliser;
                    }
                    future.fill(0.0);
                }
            });
            product(
                MatrixMut { data: &mut out[at_q..], rows: end - start, columns: head_dim, row_stride: q_width },
                Matrix { data: scores, rows: end - start, columns: end, row_stride: end, column_stride: 1 },
                Matrix { data: &v[at_kv..], rows: end, columns: head_dim, row_stride: kv_width, column_stride: 1 },
                Update::Set,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{assert_close, values};

    fn plain(q: &[f32], k: &[f32], v: &[f32], shape: AttentionShape) -> Vec<f64> {
        let AttentionShape { heads, kv_heads, head_dim } = shape;
        let mut out = vec![0.0; q.len()];
        for (row, out) in out.chunks_mut(head_dim).enumerate() {
            let (position, head) = (row / heads, row % heads);
            let q = &q[row * head_dim..][..head_dim];
            let at = |position: usize| (position * kv_heads + head * kv_heads / heads) * head_dim;
            let weights: Vec<f64> = (0..=position)
                .map(|key| {
                    let k = &k[at(key)..][..head_dim];
                    let dot: f64 = q.iter().zip(k).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum();
                    (dot / (head_dim as f64).sqrt()).exp()
                })
                .collect();
            let total: f64 = weights.iter().sum();
            for (key, weight) in weights.iter().enumerate() {
                for (out, &v) in out.iter_mut().zip(&v[at(key)..]) {
                    *out += weight / total * f64::from(v);
                }
            }
        }
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn agrees_with_the_definition(
            (shape, q, k, v) in (1_usize..4, 1_usize..4, 1_usize..9, 0_usize..150).prop_flat_map(|(kv_heads, group, head_dim, positions)| {
                let shape = AttentionShape { heads: kv_heads * group, kv_heads, head_dim };
                let kv = positions * kv_heads * head_dim;
                (Just(shape), values(kv * group), values(kv), values(kv))
            })
        ) {
            let mut out = vec![f32::NAN; q.len()];
            attend(&mut out, &q, &k, &v, shape, &mut Vec::new());
            assert_close(&out, &plain(&q, &k, &v, shape), 1e-5);
        }
    }
}
