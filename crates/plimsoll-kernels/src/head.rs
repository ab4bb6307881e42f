//! The language-model head, for the tokens that are wanted and no others.

use pulp::Arch;

use crate::elementwise::{exp_and_sum, maximum};
use crate::matmul::{Update, matmul};

/// Rows and vocabulary entries of one tile: 256 KiB of logits, half of a usual second-level cache.
const ROWS: usize = 128;
const TILE: usize = 512;

/// How a row of logits judges one token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenScore {
    /// `log softmax(logits)[token]`, in nats.
    pub log_probability: f64,
    /// Number of tokens with a higher logit; 0 where the token is the most probable one.
    pub rank: usize,
}

/// Scores `tokens[i]` under the logits `x[i] · wᵀ`, with `x (rows, width)` and `w (vocabulary, width)`.
///
/// The log-sum-exp runs over tiles of the vocabulary, so `(rows, vocabulary)` is never held. Among equal logits the
/// lowest token counts as the most probable, as `argmax` has it. `scratch` is grown as needed.
///
/// # Panics
/// If the lengths do not fit together, or a token is not in the vocabulary.
pub fn score_tokens(x: &[f32], w: &[f32], tokens: &[u32], scratch: &mut Vec<f32>) -> Vec<TokenScore> {
    if tokens.is_empty() {
        return Vec::new();
    }
    let width = x.len() / tokens.len();
    assert!(width > 0 && x.len() == tokens.len() * width && w.len().is_multiple_of(width), "lengths do not fit");
    let vocabulary = w.len() / width;
    assert!(tokens.iter().all(|&token| (token as usize) < vocabulary), "a token outside of the vocabulary");
    scratch.resize(ROWS * TILE, 0.0);
    let mut scores = Vec::with_capacity(tokens.len());
    for (x, tokens) in x.chunks(ROWS * width).zip(tokens.chunks(ROWS)) {
        let mut rows: Vec<Row> = (x.chunks_exact(width).zip(tokens))
            .map(|(x, &token)| Row::new(dot(x, &w[token as usize * width..][..width])))
            .collect();
        for (tile, w) in w.chunks(TILE * width).enumerate() {
            let columns = w.len() / width;
            let logits = &mut scratch[..rows.len() * columns]; // (rows, columns)
            matmul(logits, x, w, width, Update::Set);
            Arch::new().dispatch(|| {
                for ((row, &token), logits) in rows.iter_mut().zip(tokens).zip(logits.chunks_exact_mut(columns)) {
                    row.take(logits, tile * TILE, token as usize);
                }
            });
        }
        scores.extend(rows.iter().zip(tokens).map(|(row, &token)| row.finish(token as usize)));
    }
    scores
}

/// What is known of one row after some tiles.
struct Row {
    /// Largest logit so far, and the first token that has it.
    maximum: f32,
    argmax: usize,
    /// Sum of `e^(logit − maximum)`.
    sum: f64,
    /// The wanted token's logit: estimated by a plain dot product until its tile comes by.
    wanted: f32,
    /// Tokens with a logit above `wanted_estimate`.
    above: usize,
    wanted_estimate: f32,
}

impl Row {
    fn new(wanted: f32) -> Self {
        Self { maximum: f32::NEG_INFINITY, argmax: 0, sum: 0.0, wanted, above: 0, wanted_estimate: wanted }
    }

    /// Takes in the logits of the tokens from `first` on, and overwrites them.
    #[inline(always)]
    fn take(&mut self, logits: &mut [f32], first: usize, token: usize) {
        let largest = maximum(logits);
        if largest > self.maximum {
            self.sum *= f64::from(self.maximum - largest).exp();
            self.maximum = largest;
            self.argmax = first + logits.iter().position(|&logit| logit == largest).unwrap_or(0);
        }
        let mut above = logits.iter().map(|&logit| u32::from(logit > self.wanted_estimate)).sum::<u32>();
        if let Some(&wanted) = token.checked_sub(first).and_then(|at| logits.get(at)) {
            self.wanted = wanted;
            above -= u32::from(wanted > self.wanted_estimate);
        }
        self.above += above as usize;
        self.sum += f64::from(exp_and_sum(logits, self.maximum));
    }

    fn finish(&self, token: usize) -> TokenScore {
        // The estimate and the tile's logit can differ in their last bits: where the token is the largest, it has
        // rank 0 whatever a near tie says, and where it is not, something ranks above it.
        let rank = if self.argmax == token { 0 } else { self.above.max(1) };
        TokenScore { log_probability: f64::from(self.wanted - self.maximum) - self.sum.ln(), rank }
    }
}

fn dot(x: &[f32], y: &[f32]) -> f32 {
    x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>() as f32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::values;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(30))]
        #[test]
        fn agrees_with_the_definition(
            (x, w, tokens) in (0_usize..200, 1_usize..5, 1_usize..1200).prop_flat_map(|(rows, width, vocabulary)| {
                (values(rows * width), values(vocabulary * width), proptest::collection::vec(0..vocabulary as u32, rows))
            })
        ) {
            let width = x.len().checked_div(tokens.len()).unwrap_or(1);
            let found = score_tokens(&x, &w, &tokens, &mut Vec::new());
            assert_eq!(found.len(), tokens.len());
            for ((found, &token), x) in found.iter().zip(&tokens).zip(x.chunks(width)) {
                let logits: Vec<f64> = w
                    .chunks(width)
                    .map(|w| x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum())
                    .collect();
                let wanted = logits[token as usize];
                let expected = wanted - logits.iter().map(|logit| logit.exp()).sum::<f64>().ln();
                assert!((found.log_probability - expected).abs() < 1e-5, "{found:?}, expected {expected}");
                // Logits nearer than the rounding of f32 may rank either way.
                let (least, most) = logits.iter().fold((0, 0), |(least, most), &logit| {
                    (least + usize::from(logit > wanted + 1e-5), most + usize::from(logit > wanted - 1e-5))
                });
                assert!((least..=most).contains(&found.rank), "{found:?}, expected {least} to {most}");
            }
        }
    }

    #[test]
    fn the_lowest_of_equal_tokens_is_the_most_probable() {
        let score = |token| score_tokens(&[1.0], &[0.5, 2.0, 2.0], &[token], &mut Vec::new())[0].rank;
        assert_eq!((score(0), score(1), score(2)), (2, 0, 1));
    }

    #[test]
    fn large_logits_do_not_overflow() {
        let found = score_tokens(&[100.0], &[10.0, -10.0], &[1], &mut Vec::new())[0];
        assert_eq!(found, TokenScore { log_probability: -2000.0, rank: 1 });
    }
}
