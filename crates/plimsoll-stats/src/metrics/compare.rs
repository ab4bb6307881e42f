//! Confidence intervals of a metric's value, and a test whether two systems differ.
//!
//! - *Intervals* of one system's rate (a metric that is 0 or 1 for each sample) are 95 % Wilson score intervals
//!   ([`wilson_interval`]), because the bootstrap interval of a rate of 0 is 0 to 0. All other intervals, and those of
//!   differences, are 95 % percentile bootstrap intervals (Efron & Tibshirani 1993): samples are drawn with
//!   replacement, their statistics are summed, and the metric is computed from the sums. So a corpus metric is
//!   resampled in the same way as a mean (Koehn, "Statistical Significance Tests for Machine Translation Evaluation",
//!   EMNLP 2004). Both systems of a difference, and all metrics with the same seed, use the same resamples.
//! - *P-values* are those of the two-sided paired randomisation test: if the systems are the same, the two outputs of
//!   each sample can be swapped. The p-value is the share of the ways to swap outputs that have a difference at least
//!   as large as the observed one: of all ways for up to 14 samples, of random ones and the observed one for more
//!   (Noreen, "Computer-Intensive Methods for Testing Hypotheses", 1989). It is preferred to a bootstrap test, which
//!   Riezler & Maxwell, "On Some Pitfalls in Automatic Evaluation and Significance Testing for MT" (2005), found to
//!   report differences too often where there are none.
//!
//! *Departure* from sacreBLEU's paired tests: a swap with exactly the observed difference is counted, as in Noreen.
//! sacreBLEU does not count it, which makes p-values of few samples too small.
//!
//! Correct several comparisons with [`holm`](crate::holm).
//!
//! # Example
//!
//! Two systems on the same ten questions, of which they answer four and eight correctly:
//!
//! ```
//! use plimsoll_stats::metrics::compare::{CompareOptions, compare};
//! use plimsoll_stats::metrics::{Measure, Metric};
//!
//! let metric = Metric { measure: Measure::SquadExact, extract: None };
//! let rows = |correct: usize| -> Vec<Vec<f64>> {
//!     (0..10).map(|sample| vec![if sample < correct { 1.0 } else { 0.0 }]).collect()
//! };
//! let found = compare(&metric, &rows(4), &rows(8), CompareOptions::default());
//! assert!((found.difference - 0.4).abs() < 1e-12);
//! // Four samples differ, all in the same direction: 2 of 2⁴ ways to swap them.
//! assert!((found.p - 0.125).abs() < 1e-12);
//! ```

use std::num::NonZeroUsize;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Metric;
use crate::{Resampler, Stream, percentile_interval, share_of_patterns, wilson_interval};

/// Seed and number of resamples of [`estimate`] and [`compare`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompareOptions {
    /// Seed of the random streams.
    pub seed: u64,
    /// Bootstrap resamples of an interval, and random swaps of a test.
    pub resamples: NonZeroUsize,
}

impl Default for CompareOptions {
    fn default() -> Self {
        const RESAMPLES: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();
        Self { seed: 0, resamples: RESAMPLES }
    }
}

/// A metric's value for one system, with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Estimate {
    /// The value, on the metric's own scale.
    pub value: f64,
    /// Lower end of the 95 % interval: Wilson's for a rate such as exact match, else the bootstrap's.
    pub low: f64,
    /// Upper end of the 95 % interval.
    pub high: f64,
    /// Number of samples.
    pub samples: usize,
}

/// The difference of a metric between two systems on the same samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Value of the second system minus that of the first, on the metric's own scale.
    pub difference: f64,
    /// Lower end of the 95 % bootstrap interval.
    pub low: f64,
    /// Upper end of the 95 % bootstrap interval.
    pub high: f64,
    /// Two-sided p-value of the paired randomisation test.
    pub p: f64,
    /// Number of samples.
    pub samples: usize,
}

/// Computes the metric's value and its interval from the statistics of each sample.
///
/// # Panics
/// If a row is not as wide as the metric's statistics.
pub fn estimate(metric: &Metric, rows: &[Vec<f64>], options: CompareOptions) -> Estimate {
    let samples = rows.len();
    if metric.is_rate() {
        let ones = rows.iter().filter(|row| row[0] == 1.0).count();
        let (low, high) = wilson_interval(ones, samples);
        return Estimate { value: value_of(metric, rows), low, high, samples };
    }
    let mut resampler = Resampler::new(options.seed, Stream::Metrics, samples);
    let mut values: Vec<f64> =
        (0..options.resamples.get()).map(|_| value_of(metric, resampler.draw().iter().map(|&i| &rows[i]))).collect();
    let (low, high) = percentile_interval(&mut values);
    Estimate { value: value_of(metric, rows), low, high, samples }
}

/// Computes the metric's value for system `b` minus that for system `a`, from their statistics on the same samples.
///
/// # Panics
/// If the systems have different numbers of rows, or a row is not as wide as the metric's statistics.
pub fn compare(metric: &Metric, a: &[Vec<f64>], b: &[Vec<f64>], options: CompareOptions) -> Difference {
    assert_eq!(a.len(), b.len(), "systems on different samples");
    let samples = a.len();
    let mut resampler = Resampler::new(options.seed, Stream::Metrics, samples);
    let mut differences: Vec<f64> = Vec::with_capacity(options.resamples.get());
    for _ in 0..options.resamples.get() {
        let drawn = resampler.draw();
        let value = |rows: &[Vec<f64>]| value_of(metric, drawn.iter().map(|&i| &rows[i]));
        differences.push(value(b) - value(a));
    }
    let (low, high) = percentile_interval(&mut differences);

    let (of_a, of_b) = (value_of(metric, a), value_of(metric, b));
    let difference = of_b - of_a;
    // Two ways of swapping that are equal in exact arithmetic may differ by the rounding of that many additions.
    let rounding = samples as f64 * f64::EPSILON * of_a.abs().max(of_b.abs());
    let p = share_of_patterns(samples, options.resamples, (options.seed, Stream::Swaps), |swaps| {
        let is_swapped = |sample: usize| swaps[sample / 64] >> (sample % 64) & 1 == 1;
        let mixed = |own: &[Vec<f64>], other: &[Vec<f64>]| {
            value_of(metric, (0..samples).map(|i| if is_swapped(i) { &other[i] } else { &own[i] }))
        };
        (mixed(b, a) - mixed(a, b)).abs() >= difference.abs() - rounding
    });
    Difference { difference, low, high, p, samples }
}

/// The metric's value for some samples.
fn value_of<'a>(metric: &Metric, rows: impl IntoIterator<Item = &'a Vec<f64>>) -> f64 {
    let mut sums = vec![0.0; metric.width()];
    let mut samples = 0;
    for row in rows {
        assert_eq!(row.len(), sums.len(), "statistics of another metric");
        sums.iter_mut().zip(row).for_each(|(sum, number)| *sum += number);
        samples += 1;
    }
    metric.value(&sums, samples)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Measure;
    use crate::{bootstrap_mean, sign_flip_p};

    const OPTIONS: CompareOptions = CompareOptions { seed: 3, resamples: NonZeroUsize::new(1_000).unwrap() };

    fn metric(measure: Measure) -> Metric {
        Metric { measure, extract: None }
    }

    fn rows(values: &[f64]) -> Vec<Vec<f64>> {
        values.iter().map(|&value| vec![value]).collect()
    }

    #[test]
    fn a_mean_has_the_interval_of_a_mean() {
        let values: Vec<f64> = (0..37).map(|i| f64::from(i * i % 11) / 10.0).collect();
        let found = estimate(&metric(Measure::SquadF1), &rows(&values), OPTIONS);
        let resampler = Resampler::new(OPTIONS.seed, Stream::Metrics, values.len());
        assert_eq!((found.low, found.high), bootstrap_mean(&values, OPTIONS.resamples, resampler));
        assert!(found.low < found.value && found.value < found.high);
    }

    #[test]
    fn the_interval_of_a_rate_is_never_a_point() {
        for measure in [Measure::ExactMatch(Default::default()), Measure::SquadExact] {
            let of_rate = |value: f64| estimate(&metric(measure.clone()), &rows(&[value; 40]), OPTIONS);
            let (none, all) = (of_rate(0.0), of_rate(1.0));
            assert!((none.high - 0.0876).abs() < 1e-4 && none.low == 0.0, "{none:?}");
            assert!(all.high == 1.0 && (all.low + none.high - 1.0).abs() < 1e-12, "{all:?}");
        }
    }

    #[test]
    fn a_difference_of_means_has_the_p_value_of_sign_flips() {
        let a = [0.0, 0.25, 0.5, 1.0, 0.25, 0.0, 0.5, 0.75];
        let b = [0.5, 0.25, 0.75, 1.0, 0.5, 0.5, 0.25, 1.0];
        let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| b - a).collect();
        let found = compare(&metric(Measure::SquadF1), &rows(&a), &rows(&b), OPTIONS);
        assert_eq!(found.p, sign_flip_p(&differences, OPTIONS.resamples, OPTIONS.seed));
        assert_eq!(found.difference, 0.1875);
    }

    #[test]
    fn a_system_does_not_differ_from_itself() {
        let metric = metric(Measure::Bleu);
        for samples in [0, 1, 5, 20] {
            let references = ["the cat sat on the mat".to_owned()];
            let rows: Vec<_> = (0..samples).map(|_| metric.statistics("the cat sat on a mat", &references)).collect();
            let found = compare(&metric, &rows, &rows, OPTIONS);
            assert_eq!(found, Difference { difference: 0.0, low: 0.0, high: 0.0, p: 1.0, samples });
        }
    }

    #[test]
    fn swapped_systems_differ_the_other_way() {
        let (a, b) = (rows(&[0.0, 1.0, 0.5, 0.25, 0.0]), rows(&[1.0, 1.0, 0.25, 1.0, 0.5]));
        let metric = metric(Measure::SquadF1);
        let (found, swapped) = (compare(&metric, &a, &b, OPTIONS), compare(&metric, &b, &a, OPTIONS));
        assert_eq!((found.difference, found.p), (-swapped.difference, swapped.p));
        assert!((found.low + swapped.high).abs() < 1e-15 && (found.high + swapped.low).abs() < 1e-15);
    }
}
