//! The language-model head, for the tokens that are wanted and no others.

use crate::isa::{Isa, Kernel, LANES, Simd, exp, softcap};
use crate::packed::{PANEL, Packed};
use crate::product::{Epilogue, Factor, Half, Product, Single, Step, multiply};
use crate::words::{Dtype, Rows};

/// Panels between two transfers of a row's running sum from `f32` to `f64`: sums of at most 512 terms are single.
const PANELS_PER_SUM: usize = 16;

/// How a row of logits judges one token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenScore {
    /// `log softmax(logits)[token]`, in nats.
    pub log_probability: f64,
    /// Number of tokens that come before it: those with a higher logit, and those with an equal one and a lower id, as
    /// `argmax` has it. 0 where the token is the most probable one.
    pub rank: usize,
}

/// Scores `tokens[i]` under the logits `x[i] · wᵀ`, with one row of `x` for each token and one column of `w` for each
/// entry of the vocabulary. With a bound c they are softly bounded first: `c · tanh(logit / c)`.
///
/// The log-sum-exp is folded from the products' registers, so logits are never stored. On one thread.
///
/// # Panics
/// If the dimensions do not fit together, or a token is not in the vocabulary.
pub fn score_tokens(isa: Isa, x: &Rows, w: &Packed, tokens: &[u32], cap: Option<f32>) -> Vec<TokenScore> {
    assert_eq!(x.rows(), tokens.len(), "lengths do not fit");
    assert!(x.width() == w.inputs() && x.dtype == w.dtype, "factors do not fit");
    assert!(tokens.iter().all(|&token| (token as usize) < w.columns()), "a token outside of the vocabulary");
    let wanted = isa.run(Wanted { x, w, tokens, cap });
    let rows = tokens.iter().zip(wanted).map(|(&token, wanted)| Row::new(token, wanted)).collect();
    let fold = Fold { rows, columns: w.columns(), cap };
    let fold = isa.run(Product::new(x, 0..x.rows(), w, 0..w.panels(), None, fold));
    fold.rows.iter().map(Row::finish).collect()
}

/// Softly bounds logits in place, as [`score_tokens`] does.
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

/// The logit of each row's own token, as the product with the whole vocabulary gives it to the last bit.
struct Wanted<'a> {
    x: &'a Rows,
    w: &'a Packed,
    tokens: &'a [u32],
    cap: Option<f32>,
}

impl Wanted<'_> {
    #[inline(always)]
    fn with<S: Simd, D: Step>(&self, s: S) -> Vec<f32> {
        let mut logits = Vec::with_capacity(self.tokens.len());
        for (row, &token) in self.tokens.iter().enumerate() {
            let mut sums = [[s.splat(0.0); 2]];
            let words = self.x.words.as_slice()[row * self.x.stride..].as_ptr();
            // SAFETY: there is such a row, with as many words as the panel has pairs of lines, since `score_tokens`
            // checked that the two have as many numbers of one type.
            #[allow(unsafe_code)]
            unsafe {
                let a = Factor { words, stride: self.x.stride };
                multiply::<S, D, 1>(s, &mut sums, a, self.w.panel(token as usize / PANEL));
            }
            let mut lanes = [0.0; LANES];
            s.store(&mut lanes, capped(s, self.cap, sums[0][token as usize % PANEL / LANES]));
            logits.push(lanes[token as usize % LANES]);
        }
        logits
    }
}

impl Kernel for Wanted<'_> {
    type Output = Vec<f32>;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Vec<f32> {
        match self.x.dtype {
            Dtype::F32 => self.with::<S, Single>(s),
            Dtype::Bf16 => self.with::<S, Half>(s),
        }
    }
}

/// What is known of one row after some panels.
struct Row {
    token: usize,
    wanted: f32,
    /// Tokens that come before the wanted one.
    above: u32,
    /// Largest logit so far: the shift of the sums.
    largest: f32,
    /// Sums of `e^(logit − largest)` since the last transfer, a lane each.
    lanes: [f32; LANES],
    /// The same before that.
    sum: f64,
}

impl Row {
    fn new(token: u32, wanted: f32) -> Self {
        Self { token: token as usize, wanted, above: 0, largest: f32::NEG_INFINITY, lanes: [0.0; LANES], sum: 0.0 }
    }

    fn finish(&self) -> TokenScore {
        let sum = self.sum + self.lanes.iter().map(|&lane| f64::from(lane)).sum::<f64>();
        let log_probability = f64::from(self.wanted) - f64::from(self.largest) - sum.ln();
        TokenScore { log_probability, rank: self.above as usize }
    }

    #[inline(always)]
    fn take<S: Simd>(&mut self, s: S, panel: usize, logits: [S::F; 2]) {
        let wanted = s.splat(self.wanted);
        if panel == self.token / PANEL {
            let mut lanes = [0.0; PANEL];
            let (left, right) = lanes.split_at_mut(LANES);
            if let (Ok(left), Ok(right)) = (left.try_into(), right.try_into()) {
                s.store(left, logits[0]);
                s.store(right, logits[1]);
            }
            for (lane, &logit) in lanes.iter().enumerate() {
                let is_equal_and_lower = logit == self.wanted && lane < self.token % PANEL;
                self.above += u32::from(logit > self.wanted || is_equal_and_lower);
            }
        } else if panel < self.token / PANEL {
            self.above += s.count_at_least(logits[0], wanted) + s.count_at_least(logits[1], wanted);
        } else {
            self.above += s.count_greater(logits[0], wanted) + s.count_greater(logits[1], wanted);
        }

        let larger = s.max(logits[0], logits[1]);
        let mut sums = s.load(&self.lanes);
        if s.count_greater(larger, s.splat(self.largest)) > 0 {
            let largest = s.largest(larger);
            let shrink = (f64::from(self.largest) - f64::from(largest)).exp();
            self.sum *= shrink;
            sums = s.mul(sums, s.splat(shrink as f32));
            self.largest = largest;
        }
        let shift = s.splat(self.largest);
        sums = s.add(sums, s.add(exp(s, s.sub(logits[0], shift)), exp(s, s.sub(logits[1], shift))));
        if panel % PANELS_PER_SUM == PANELS_PER_SUM - 1 {
            self.sum += f64::from(s.sum(sums));
            sums = s.splat(0.0);
        }
        s.store(&mut self.lanes, sums);
    }
}

/// Folds logits into rows.
struct Fold {
    rows: Vec<Row>,
    columns: usize,
    cap: Option<f32>,
}

#[inline(always)]
fn capped<S: Simd>(s: S, cap: Option<f32>, logits: S::F) -> S::F {
    match cap {
        Some(cap) => softcap(s, cap, logits),
        None => logits,
    }
}

impl Epilogue for Fold {
    #[inline(always)]
    fn take<S: Simd, const R: usize>(&mut self, s: S, row: usize, panel: usize, sums: &[[S::F; 2]; R]) {
        let columns = self.columns - panel * PANEL;
        for (row, &logits) in self.rows[row..row + R].iter_mut().zip(sums) {
            let logits = [capped(s, self.cap, logits[0]), capped(s, self.cap, logits[1])];
            let logits = if columns < PANEL { without_padding(s, logits, columns) } else { logits };
            row.take(s, panel, logits);
        }
    }
}

/// Columns that only fill up a panel are no tokens: they get a probability of 0.
#[inline(always)]
fn without_padding<S: Simd>(s: S, mut logits: [S::F; 2], columns: usize) -> [S::F; 2] {
    for (half, logits) in logits.iter_mut().enumerate() {
        let mut lanes = [0.0; LANES];
        s.store(&mut lanes, *logits);
        let end = columns.saturating_sub(half * LANES).min(LANES);
        lanes[end..].fill(f32::NEG_INFINITY);
        *logits = s.load(&lanes);
    }
    logits
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{assert_close, each_isa, rounded, values};

    fn score(isa: Isa, dtype: Dtype, x: &[f32], w: &[f32], tokens: &[u32], cap: Option<f32>) -> Vec<TokenScore> {
        let width = x.len().checked_div(tokens.len()).unwrap_or(w.len());
        let mut rows = Rows::new(dtype);
        rows.resize(tokens.len(), width);
        rows.write(isa, 0, x);
        score_tokens(isa, &rows, &Packed::from_rows(dtype, w, width), tokens, cap)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(30))]
        #[test]
        fn agrees_with_the_definition(
            (x, w, tokens) in (0_usize..40, 1_usize..5, 1_usize..1200).prop_flat_map(|(rows, width, vocabulary)| {
                (values(rows * width), values(vocabulary * width), proptest::collection::vec(0..vocabulary as u32, rows))
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
                    let mut bounded: Vec<f32> = logits.iter().map(|&logit| logit as f32).collect();
                    if let Some(cap) = cap {
                        cap_logits(isa, &mut bounded, cap);
                        let twice = |logit: &f64| f64::from(cap) * (logit / f64::from(cap)).tanh();
                        assert_close(&bounded, &logits.iter().map(twice).collect::<Vec<_>>(), 1e-5);
                    }
                    let wanted = logits[token as usize];
                    let expected = wanted - logits.iter().map(|logit| logit.exp()).sum::<f64>().ln();
                    assert!((found.log_probability - expected).abs() < 1e-5, "{isa}: {found:?}, expected {expected}");
                    // Logits nearer than the rounding of f32 may rank either way.
                    let (least, most) = logits.iter().fold((0, 0), |(least, most), &logit| {
                        (least + usize::from(logit > wanted + 1e-5), most + usize::from(logit > wanted - 1e-5))
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
                // Equal logits in the same panel as the token, in one before and in one after it.
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
