//! Language-model head: log-probability and rank of target tokens, without storing logits.

use crate::dtype::Dtype;
use crate::isa::Isa;
use crate::packed::{PANEL, Packed};
use crate::product::{Epilogue, Product};
use crate::simd::{Kernel, LANES, Simd, exp, softcap};
use crate::tile::{Bf16, Block, Dot, F32, Operand, multiply};
use crate::words::Rows;

/// Panels after which a row's running sum is moved from `f32` to `f64`: `f32` sums have at most 512 terms.
const PANELS_PER_SUM: usize = 16;

/// Log-probability and rank of a target token under one row of logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenScore {
    /// `log softmax(logits)[token]`, in nats.
    pub log_probability: f64,
    /// Number of tokens ranked before the target: those with a higher logit, and those with an equal logit and a lower
    /// id, as in `argmax`. 0 for the most probable token.
    pub rank: usize,
}

/// Computes log-probability and rank of `tokens[i]` under the logits `x[i] · wᵀ`.
///
/// `x` has one row for each token, `w` one column for each entry of the vocabulary and no bias. `cap` is an optional
/// soft cap c: logits are then `c · tanh(logit / c)` (Gemma 2, arXiv:2408.00118).
///
/// The log-sum-exp is accumulated from the registers of the product, so the logits are not stored. Runs on the calling
/// thread.
///
/// ```
/// use plimsoll_kernels::{Dtype, Isa, Packed, Rows, score_tokens};
///
/// let isa = Isa::best();
/// let w = Packed::from_rows(Dtype::F32, &[0.0, 3.0_f32.ln()], 1); // (vocabulary of 2, 1 input)
/// let mut x = Rows::new(Dtype::F32);
/// x.resize(2, 1);
/// x.write(isa, 0, &[1.0, 1.0]);
/// let scores = score_tokens(isa, &x, &w, &[0, 1], None);
/// assert!((scores[0].log_probability.exp() - 0.25).abs() < 1e-6);
/// assert_eq!((scores[0].rank, scores[1].rank), (1, 0));
/// ```
///
/// # Panics
/// If dimensions or dtypes do not match, or a token is not in the vocabulary.
pub fn score_tokens(isa: Isa, x: &Rows, w: &Packed, tokens: &[u32], cap: Option<f32>) -> Vec<TokenScore> {
    assert_eq!(x.rows(), tokens.len(), "shape mismatch: rows of x and number of tokens");
    assert_eq!(x.width(), w.inputs(), "shape mismatch: width of x and inputs of w");
    assert_eq!(x.dtype, w.dtype, "dtype mismatch: x and w");
    for &token in tokens {
        assert!((token as usize) < w.columns(), "token {token} is not in the vocabulary of {}", w.columns());
    }
    let targets = isa.run(TargetLogits { x, w, tokens, cap });
    let rows = tokens.iter().zip(targets).map(|(&token, target)| RowState::new(token, target)).collect();
    let log_sum_exp = LogSumExp { rows, columns: w.columns(), cap };
    let log_sum_exp = isa.run(Product::new(x, 0..x.rows(), w, 0..w.panels(), None, log_sum_exp));
    log_sum_exp.rows.iter().map(RowState::finish).collect()
}

/// Applies a soft cap to logits in place: `c · tanh(logit / c)`, as [`score_tokens`] does.
///
/// ```
/// use plimsoll_kernels::{Isa, cap_logits};
///
/// let mut logits = [0.0, 1e6];
/// cap_logits(Isa::best(), &mut logits, 30.0);
/// assert_eq!(logits, [0.0, 30.0]);
/// ```
pub fn cap_logits(isa: Isa, logits: &mut [f32], cap: f32) {
    isa.run(Cap { logits, cap });
}

struct Cap<'a> {
    logits: &'a mut [f32],
    cap: f32,
}

impl Kernel for Cap<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (vectors, rest) = self.logits.as_chunks_mut::<LANES>();
        for vector in vectors {
            let capped = softcap(s, self.cap, s.load(vector));
            s.store(vector, capped);
        }
        let mut last = [0.0; LANES];
        last[..rest.len()].copy_from_slice(rest);
        let capped = softcap(s, self.cap, s.load(&last));
        s.store(&mut last, capped);
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

/// Logit of each row's target token: the same bits as in the product with the whole vocabulary.
struct TargetLogits<'a> {
    x: &'a Rows,
    w: &'a Packed,
    tokens: &'a [u32],
    cap: Option<f32>,
}

impl TargetLogits<'_> {
    #[inline(always)]
    fn run_dtype<S: Simd, D: Dot>(&self, s: S) -> Vec<f32> {
        let mut logits = Vec::with_capacity(self.tokens.len());
        let mut block = Block::new();
        for (row, &token) in self.tokens.iter().enumerate() {
            let mut sums = [[s.splat(0.0); 2]];
            let words = self.x.words.as_slice()[row * self.x.stride..].as_ptr();
            // SAFETY: `score_tokens` checked that `x` has this row, and that `x` and `w` have the same dtype and number
            // of inputs, so that the row has as many words as the panel has pairs of lines.
            #[allow(unsafe_code)]
            unsafe {
                let (a, panel) = (Operand { words, stride: self.x.stride }, self.w.panel(token as usize / PANEL));
                // The same bits as in the product of all columns: a token must not be ranked before itself.
                if Block::is_used::<S, D>() {
                    block.multiply(s, a, 1, panel);
                    sums = block.sums::<S, D, 1>(s, 0, a, panel);
                } else {
                    multiply::<S, D, 1>(s, &mut sums, a, panel);
                }
            }
            let mut lanes = [0.0; LANES];
            s.store(&mut lanes, capped(s, self.cap, sums[0][token as usize % PANEL / LANES]));
            logits.push(lanes[token as usize % LANES]);
        }
        s.end_blocks();
        logits
    }
}

impl Kernel for TargetLogits<'_> {
    type Output = Vec<f32>;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Vec<f32> {
        match self.x.dtype {
            Dtype::F32 => self.run_dtype::<S, F32>(s),
            Dtype::Bf16 => self.run_dtype::<S, Bf16>(s),
        }
    }
}

/// Online log-sum-exp and rank of one row, over the panels processed so far.
struct RowState {
    token: usize,
    /// Logit of the target token.
    target: f32,
    /// Number of tokens ranked before the target.
    rank: u32,
    /// Largest logit so far. It is subtracted from the logits before `exp`.
    max: f32,
    /// Sums of `e^(logit − max)` for each lane, since they were last added to `sum`.
    lanes: [f32; LANES],
    /// Sum of `e^(logit − max)` of the panels before these.
    sum: f64,
}

impl RowState {
    fn new(token: u32, target: f32) -> Self {
        Self { token: token as usize, target, rank: 0, max: f32::NEG_INFINITY, lanes: [0.0; LANES], sum: 0.0 }
    }

    fn finish(&self) -> TokenScore {
        let sum = self.sum + self.lanes.iter().map(|&lane| f64::from(lane)).sum::<f64>();
        let log_probability = f64::from(self.target) - f64::from(self.max) - sum.ln();
        TokenScore { log_probability, rank: self.rank as usize }
    }

    /// Adds the logits of one panel.
    #[inline(always)]
    fn update<S: Simd>(&mut self, s: S, panel: usize, logits: [S::F; 2]) {
        let target = s.splat(self.target);
        if panel == self.token / PANEL {
            let mut lanes = [0.0; PANEL];
            let (left, right) = lanes.split_at_mut(LANES);
            if let (Ok(left), Ok(right)) = (left.try_into(), right.try_into()) {
                s.store(left, logits[0]);
                s.store(right, logits[1]);
            }
            for (lane, &logit) in lanes.iter().enumerate() {
                let is_equal_and_lower = logit == self.target && lane < self.token % PANEL;
                self.rank += u32::from(logit > self.target || is_equal_and_lower);
            }
        } else if panel < self.token / PANEL {
            self.rank += s.count_at_least(logits[0], target) + s.count_at_least(logits[1], target);
        } else {
            self.rank += s.count_greater(logits[0], target) + s.count_greater(logits[1], target);
        }

        let larger = s.max(logits[0], logits[1]);
        let mut sums = s.load(&self.lanes);
        if s.count_greater(larger, s.splat(self.max)) > 0 {
            let max = s.reduce_max(larger);
            let shrink = (f64::from(self.max) - f64::from(max)).exp();
            self.sum *= shrink;
            sums = s.mul(sums, s.splat(shrink as f32));
            self.max = max;
        }
        let shift = s.splat(self.max);
        sums = s.add(sums, s.add(exp(s, s.sub(logits[0], shift)), exp(s, s.sub(logits[1], shift))));
        if panel % PANELS_PER_SUM == PANELS_PER_SUM - 1 {
            self.sum += f64::from(s.reduce_sum(sums));
            sums = s.splat(0.0);
        }
        s.store(&mut self.lanes, sums);
    }
}

/// Epilogue of [`score_tokens`]: adds the logits of each row to its [`RowState`].
struct LogSumExp {
    rows: Vec<RowState>,
    columns: usize,
    cap: Option<f32>,
}

/// Applies the soft cap, if there is one.
#[inline(always)]
fn capped<S: Simd>(s: S, cap: Option<f32>, logits: S::F) -> S::F {
    match cap {
        Some(cap) => softcap(s, cap, logits),
        None => logits,
    }
}

impl Epilogue for LogSumExp {
    #[inline(always)]
    fn apply<S: Simd, const R: usize>(&mut self, s: S, row: usize, panel: usize, sums: &[[S::F; 2]; R]) {
        let columns = self.columns - panel * PANEL;
        for (row, &logits) in self.rows[row..row + R].iter_mut().zip(sums) {
            let logits = [capped(s, self.cap, logits[0]), capped(s, self.cap, logits[1])];
            let logits = if columns < PANEL { mask_padding(s, logits, columns) } else { logits };
            row.update(s, panel, logits);
        }
    }
}

/// Sets the logits of the columns that pad the last panel to −∞, so that their probability is 0.
#[inline(always)]
fn mask_padding<S: Simd>(s: S, mut logits: [S::F; 2], columns: usize) -> [S::F; 2] {
    for (vector, logits) in logits.iter_mut().enumerate() {
        let mut lanes = [0.0; LANES];
        s.store(&mut lanes, *logits);
        let end = columns.saturating_sub(vector * LANES).min(LANES);
        lanes[end..].fill(f32::NEG_INFINITY);
        *logits = s.load(&lanes);
    }
    logits
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{assert_close, each_isa, rounded, rows_of, values};

    fn score(isa: Isa, dtype: Dtype, x: &[f32], w: &[f32], tokens: &[u32], cap: Option<f32>) -> Vec<TokenScore> {
        let width = x.len().checked_div(tokens.len()).unwrap_or(w.len());
        let rows = rows_of(isa, dtype, x, tokens.len(), width);
        score_tokens(isa, &rows, &Packed::from_rows(dtype, w, width), tokens, cap)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(30))]
        #[test]
        fn score_tokens_agrees_with_the_definition(
            (x, w, tokens) in (0_usize..40, 1_usize..5, 1_usize..1200).prop_flat_map(|(rows, width, vocabulary)| {
                let tokens = proptest::collection::vec(0..vocabulary as u32, rows);
                (values(rows * width), values(vocabulary * width), tokens)
            }),
            cap in proptest::option::of(0.5_f32..10.0),
        ) {
            each_isa(|isa, dtype| {
                let width = x.len().checked_div(tokens.len()).unwrap_or(1);
                let found = score(isa, dtype, &x, &w, &tokens, cap);
                assert_eq!(found.len(), tokens.len());
                for ((found, &token), x) in found.iter().zip(&tokens).zip(x.chunks(width)) {
                    let logits: Vec<f64> = w
                        .chunks(width)
                        .map(|w| x.iter().zip(w).map(|(&x, &w)| rounded(dtype, x) * rounded(dtype, w)).sum())
                        .map(|logit: f64| cap.map_or(logit, |cap| f64::from(cap) * (logit / f64::from(cap)).tanh()))
                        .collect();
                    let mut capped: Vec<f32> = logits.iter().map(|&logit| logit as f32).collect();
                    if let Some(cap) = cap {
                        cap_logits(isa, &mut capped, cap);
                        let twice = |logit: &f64| f64::from(cap) * (logit / f64::from(cap)).tanh();
                        assert_close(&capped, &logits.iter().map(twice).collect::<Vec<_>>(), 1e-5);
                    }
                    let target = logits[token as usize];
                    let expected = target - logits.iter().map(|logit| logit.exp()).sum::<f64>().ln();
                    assert!((found.log_probability - expected).abs() < 1e-5, "{isa}: {found:?}, expected {expected}");
                    // Logits that differ by less than the rounding error of f32 may rank either way.
                    let (least, most) = logits.iter().fold((0, 0), |(least, most), &logit| {
                        (least + usize::from(logit > target + 1e-5), most + usize::from(logit > target - 1e-5))
                    });
                    assert!((least..=most).contains(&found.rank), "{isa}: {found:?}, expected {least} to {most}");
                }
            });
        }
    }

    #[test]
    fn the_lowest_of_equal_tokens_is_the_most_probable() {
        each_isa(|isa, dtype| {
            let rank = |token: usize| {
                // Equal logits in the panel of the token, in the panel before it and in the one after it.
                let mut w = vec![0.5; 100];
                for at in [10, 11, 50, 90] {
                    w[at] = 2.0;
                }
                score(isa, dtype, &[1.0], &w, &[token as u32], None)[0].rank
            };
            assert_eq!([10, 11, 50, 90, 0, 99].map(rank), [0, 1, 2, 3, 4, 99], "{isa}");
        });
    }

    #[test]
    fn large_logits_do_not_overflow() {
        each_isa(|isa, dtype| {
            let found = score(isa, dtype, &[100.0], &[10.0, -10.0], &[1], None)[0];
            assert_eq!(found, TokenScore { log_probability: -2000.0, rank: 1 }, "{isa}");
        });
    }
}
