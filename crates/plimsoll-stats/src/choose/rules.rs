//! The rules that pick a boundary from the selection samples, and how stable the pick is.

use std::num::NonZeroUsize;

use super::scores::Scores;
use crate::{Resampler, Stream, mean};

/// Fewest points that make a segment of the curve: a line through fewer is no line.
const SEGMENT: usize = 2;

/// How far above one standard error a deficit still counts as equal to it. Where one sample alone makes the difference
/// the two are equal exactly, and the order of the samples must not decide through the last digit.
pub(super) const ROUNDING: f64 = 1e-9;

/// What the rules on the scores pick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pick {
    /// The boundary with the lowest mean NLL, the smallest of them where several are equal.
    pub(super) best: usize,
    /// The smallest boundary within one standard error of `best`. Never above it: `best` is within 0 of itself.
    pub(super) one_se: usize,
}

impl Scores {
    /// What the one-standard-error rule picks: the boundary that the held-out samples are to judge.
    pub fn pick(&self) -> usize {
        pick(self, &self.everyone()).one_se
    }
}

/// Applies the rules to the samples with the given indices, repeats allowed.
///
/// *Best* minimises the mean NLL. The *paired one-standard-error rule* takes the smallest k with `mean(d) ≤ se(d)`,
/// where `d = NLL(k) − NLL(best)` by sample and `se(d) = s(d)/√n`: the simplest model that is not clearly worse
/// (Breiman, Friedman, Olshen & Stone, "Classification and Regression Trees", 3.4.3, 1984). There the error is that of
/// the best model's own score; it is paired here, since all k are scored on the same samples and most of their spread
/// is how hard a sample is.
pub(super) fn pick(scores: &Scores, samples: &[usize]) -> Pick {
    let n = samples.len() as f64;
    let columns = scores.boundaries.len();
    let mut sums = vec![0.0; columns];
    for &sample in samples {
        for (sum, nll) in sums.iter_mut().zip(scores.row(sample)) {
            *sum += nll;
        }
    }
    let best = (1..sums.len()).fold(0, |best, k| if sums[k] < sums[best] { k } else { best });

    let mut deficits = vec![0.0; columns];
    for &sample in samples {
        let row = scores.row(sample);
        for (deficit, nll) in deficits.iter_mut().zip(row) {
            *deficit += nll - row[best];
        }
    }
    deficits.iter_mut().for_each(|deficit| *deficit /= n);
    let mut squares = vec![0.0; columns];
    for &sample in samples {
        let row = scores.row(sample);
        for ((square, deficit), nll) in squares.iter_mut().zip(&deficits).zip(row) {
            let residual = nll - row[best] - deficit;
            *square += residual * residual;
        }
    }
    let se = |k: usize| (squares[k] / (n - 1.0) / n).sqrt();
    let one_se = (0..best).find(|&k| deficits[k] <= se(k) * (1.0 + ROUNDING)).unwrap_or(best);
    Pick { best: scores.boundaries[best], one_se: scores.boundaries[one_se] }
}

/// How often the one-standard-error rule picks each boundary k = 0..=L, of those that were scored, when the samples are drawn again with
/// replacement: the share of resamples, summing to 1.
pub(super) fn stability(scores: &Scores, layers: usize, resamples: NonZeroUsize, seed: u64) -> Vec<f64> {
    let mut resampler = Resampler::new(seed, Stream::Choice, scores.samples());
    let mut counts = vec![0_usize; layers + 1];
    for _ in 0..resamples.get() {
        counts[pick(scores, resampler.draw()).one_se] += 1;
    }
    counts.into_iter().map(|count| count as f64 / resamples.get() as f64).collect()
}

/// The change point of a curve: the length of the lower segment when two lines, each with its own slope and intercept
/// and at least two points, are fitted by least squares and their residual sum of squares is least. The smallest of
/// equals.
///
/// Quandt, Journal of the American Statistical Association 53:284 (1958). It makes the paper's reading of the curve by
/// eye (arXiv:2503.23360) repeatable; that this is the rule a reader's eye follows is not claimed. A segment of two
/// points fits exactly, which favours the ends of short curves.
///
/// A curve of fewer than four layers has no room for two segments, and one that is a single straight line to about
/// eight digits has no change point: both give the curve's length, that is, no cut.
pub(super) fn change_point(curve: &[f64]) -> usize {
    let layers = curve.len();
    let size: f64 = curve.iter().map(|value| value * value).sum();
    if layers < 2 * SEGMENT || line_residual(curve) <= size * f64::EPSILON {
        return layers;
    }
    let residual = |split: usize| line_residual(&curve[..split]) + line_residual(&curve[split..]);
    (SEGMENT..=layers - SEGMENT)
        .map(|split| (residual(split), split))
        .fold((f64::INFINITY, layers), |least, next| if next.0 < least.0 { next } else { least })
        .1
}

/// Residual sum of squares of the least-squares line through `(0, y0), (1, y1), …`: `Syy − Sxy²/Sxx`, taken as the sum
/// of squared residuals, which cannot cancel below 0.
fn line_residual(values: &[f64]) -> f64 {
    let mean = mean(values);
    let middle = (values.len() as f64 - 1.0) / 2.0;
    let (mut sxx, mut sxy) = (0.0, 0.0);
    for (x, value) in values.iter().enumerate() {
        let x = x as f64 - middle;
        sxx += x * x;
        sxy += x * (value - mean);
    }
    let slope = if sxx > 0.0 { sxy / sxx } else { 0.0 };
    let residual = |(x, value): (usize, &f64)| value - mean - slope * (x as f64 - middle);
    values.iter().enumerate().map(residual).map(|residual| residual * residual).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bend_is_found_where_it_is() {
        let curve: Vec<f64> = (0..12).map(f64::from).map(|l| if l < 7.0 { 0.01 * l } else { 0.4 + 0.05 * l }).collect();
        assert_eq!(change_point(&curve), 7);
    }

    #[test]
    fn nothing_to_split_is_no_cut() {
        assert_eq!(change_point(&[0.1]), 1);
        assert_eq!(change_point(&[0.1, 0.9, 0.2]), 3);
        assert_eq!(change_point(&[0.3; 9]), 9);
        let straight: Vec<f64> = (0..30).map(|l| 0.1 + 0.03 * f64::from(l)).collect();
        assert_eq!(change_point(&straight), 30);
    }

    #[test]
    fn equal_splits_go_to_the_lower_one() {
        // The same read backwards, so that splits 2 and 3 leave the same residual.
        assert_eq!(change_point(&[0.0, 1.0, 0.0, 1.0, 0.0]), 2);
    }

    #[test]
    fn one_sample_alone_is_one_standard_error_whatever_its_place() {
        // Only one of n samples prefers k = 1, by x: mean x/n, standard error x/n too, but for rounding.
        for samples in 2..40 {
            for place in 0..samples {
                let nll: Vec<f64> = (0..samples).flat_map(|i| [if i == place { 0.7 } else { 0.0 }, 0.0]).collect();
                let everyone: Vec<usize> = (0..samples).collect();
                let picked = pick(&Scores { nll, boundaries: vec![0, 1] }, &everyone);
                assert_eq!(picked, Pick { best: 1, one_se: 0 }, "{place} of {samples}");
            }
        }
    }

    #[test]
    fn four_layers_can_only_split_in_the_middle() {
        assert_eq!(change_point(&[0.0, 0.1, 0.9, 0.2]), 2);
    }
}
