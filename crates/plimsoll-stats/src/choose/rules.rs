//! The rules that pick a boundary on the selection samples, and the stability of the pick.

use std::num::NonZeroUsize;

use super::choice::Rule;
use super::scores::Scores;
use crate::{Resampler, Stream, mean};

/// Minimum number of points of a segment of the curve, so that a line is determined.
const SEGMENT: usize = 2;

/// Relative tolerance for a deficit that equals one standard error. If only one sample differs, the two are exactly
/// equal, and rounding in the order of the samples must not decide.
pub(super) const ROUNDING: f64 = 1e-9;

/// The picks of the rules on the scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pick {
    /// The boundary with the lowest mean NLL, the smallest of equals.
    pub(super) best: usize,
    /// The smallest boundary within one standard error of `best`, and at most `best`.
    pub(super) one_se: usize,
}

impl Scores {
    /// The pick of the one-standard-error rule.
    pub fn pick(&self) -> usize {
        self.pick_by(Rule::OneSe, &[])
    }

    /// The pick of a rule. `curve` is the full adapter's ground-truth probability after each layer; if its change point
    /// was not scored, the pick is the next higher boundary. The rule of sufficient layers has the pick of the
    /// one-standard-error rule judged first.
    pub fn pick_by(&self, rule: Rule, curve: &[f64]) -> usize {
        self.pick_on(&self.everyone(), rule, curve)
    }

    /// The pick on the samples with the given indices, repeats allowed.
    pub(super) fn pick_on(&self, samples: &[usize], rule: Rule, curve: &[f64]) -> usize {
        match rule {
            Rule::Sufficient | Rule::OneSe => pick(self, samples).one_se,
            Rule::Best => pick(self, samples).best,
            Rule::Curve => {
                let bend = change_point(curve);
                let next = self.boundaries.iter().find(|&&boundary| boundary >= bend);
                next.or(self.boundaries.last()).copied().unwrap_or(bend)
            }
        }
    }
}

/// Applies the rules to the samples with the given indices, repeats allowed.
///
/// *Best* minimises the mean NLL. The *paired one-standard-error rule* picks the smallest k with `mean(d) ≤ se(d)`,
/// where `d = NLL(k) − NLL(best)` by sample and `se(d) = s(d)/√n`: the simplest model that is not clearly worse
/// (Breiman, Friedman, Olshen & Stone, "Classification and Regression Trees", 3.4.3, 1984). There the standard error is
/// that of the best model's score. Here it is paired, because all k are scored on the same samples, and most of the
/// spread is how hard a sample is.
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

/// The share of bootstrap resamples in which the one-standard-error rule picks each boundary k = 0..=L; the sum is 1.
pub(super) fn stability(scores: &Scores, layers: usize, resamples: NonZeroUsize, seed: u64) -> Vec<f64> {
    let mut resampler = Resampler::new(seed, Stream::Choice, scores.samples());
    let mut counts = vec![0_usize; layers + 1];
    for _ in 0..resamples.get() {
        counts[pick(scores, resampler.draw()).one_se] += 1;
    }
    counts.into_iter().map(|count| count as f64 / resamples.get() as f64).collect()
}

/// The change point of a curve: two lines, each with at least two points, are fitted by least squares, and the change
/// point is the length of the lower segment with the smallest residual sum of squares; the smallest of equals.
///
/// Quandt, Journal of the American Statistical Association 53:284 (1958). In the paper (arXiv:2503.23360) the boundary
/// is read from the curve by eye; this is a repeatable rule, but not necessarily the same. A segment of two points fits
/// exactly, which favours the ends of short curves.
///
/// A curve of fewer than four layers is too short for two segments, and a curve that is a straight line to about eight
/// digits has no change point. For both the result is the curve's length, which means no cut.
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

/// Residual sum of squares of the least-squares line through `(0, y0), (1, y1), …`: `Syy − Sxy²/Sxx`, computed as the
/// sum of squared residuals, which cannot become negative.
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
    fn a_bend_is_found() {
        let curve: Vec<f64> = (0..12).map(f64::from).map(|l| if l < 7.0 { 0.01 * l } else { 0.4 + 0.05 * l }).collect();
        assert_eq!(change_point(&curve), 7);
    }

    #[test]
    fn curves_without_two_segments_have_no_cut() {
        assert_eq!(change_point(&[0.1]), 1);
        assert_eq!(change_point(&[0.1, 0.9, 0.2]), 3);
        assert_eq!(change_point(&[0.3; 9]), 9);
        let straight: Vec<f64> = (0..30).map(|l| 0.1 + 0.03 * f64::from(l)).collect();
        assert_eq!(change_point(&straight), 30);
    }

    #[test]
    fn equal_splits_go_to_the_lower_one() {
        // A symmetric curve: splits 2 and 3 have the same residual.
        assert_eq!(change_point(&[0.0, 1.0, 0.0, 1.0, 0.0]), 2);
    }

    #[test]
    fn one_sample_alone_is_one_standard_error_whatever_its_place() {
        // Only one of n samples prefers k = 1, by x: both mean and standard error are x/n, up to rounding.
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
