//! Means, standard errors and 95 % intervals. Sums are in the order of the samples.

use std::num::NonZeroUsize;

use super::distributions::normal_quantile;
use super::random::Resampler;

/// The quantiles of a 95 % interval.
const TAILS: [f64; 2] = [0.025, 0.975];

/// The mean of at least one value.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The mean and its standard error: `s / √n` with `s² = Σ(x − mean)² / (n − 1)`.
///
/// JSON has no NaN, so the error of fewer than two values is 0, and so is the mean of no values.
pub fn mean_and_se(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    if values.is_empty() {
        return (0.0, 0.0);
    }
    let mean = mean(values);
    if values.len() == 1 {
        return (mean, 0.0);
    }
    let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
    (mean, (squares / (n - 1.0) / n).sqrt())
}

/// The 95 % percentile bootstrap interval of the mean of `values`, resampled by value.
///
/// Efron & Tibshirani, "An Introduction to the Bootstrap", chapter 13 (1993). It needs no assumption about the
/// distribution, and it shifts with the data. For skewed data and few samples it is somewhat too narrow.
pub fn bootstrap_mean(values: &[f64], resamples: NonZeroUsize, mut resampler: Resampler) -> (f64, f64) {
    let n = values.len() as f64;
    let mut means: Vec<f64> =
        (0..resamples.get()).map(|_| resampler.draw().iter().map(|&sample| values[sample]).sum::<f64>() / n).collect();
    percentile_interval(&mut means)
}

/// The ends of a 95 % percentile interval of resampled statistics. Sorts the slice.
///
/// Quantiles interpolate linearly between order statistics at `q·(n − 1)`: type 7 of Hyndman & Fan (The American
/// Statistician 50:4, 1996), as in `numpy.quantile` and `scipy.stats.bootstrap`. An empty slice gives (0, 0).
pub fn percentile_interval(statistics: &mut [f64]) -> (f64, f64) {
    let Some(last) = statistics.len().checked_sub(1) else { return (0.0, 0.0) };
    statistics.sort_unstable_by(f64::total_cmp);
    let [low, high] = TAILS.map(|share| {
        let position = share * last as f64;
        let below = position as usize;
        let (a, b) = (statistics[below], statistics[(below + 1).min(last)]);
        // Equal neighbours need no interpolation; infinite ones would give NaN.
        if a == b { a } else { a + (b - a) * (position - below as f64) }
    });
    (low, high)
}

/// The 95 % Wilson score interval of a rate: `ones` of `samples` values are 1, the others are 0.
///
/// With the rate p and the 97.5 % quantile z of the normal distribution, its ends are
/// `(p + z²/2n ± z·√(p(1−p)/n + z²/4n²)) / (1 + z²/n)` (Wilson, Journal of the American Statistical Association 22:158,
/// 1927). For 0 of 40 it is 0 to 0.088, while the bootstrap interval is 0 to 0. Recommended for 40 samples or fewer by
/// Brown and others, "Interval Estimation for a Binomial Proportion", Statistical Science 16:2 (2001). Without samples
/// it is (0, 0).
pub fn wilson_interval(ones: usize, samples: usize) -> (f64, f64) {
    if samples == 0 {
        return (0.0, 0.0);
    }
    let (n, p, z) = (samples as f64, ones as f64 / samples as f64, normal_quantile(TAILS[1]));
    let square = z * z / n;
    let centre = p + square / 2.0;
    let half = z * (p * (1.0 - p) / n + square / (4.0 * n)).sqrt();
    // At a rate of 0 or 1 the two terms are equal up to rounding.
    let low = if ones == 0 { 0.0 } else { (centre - half) / (1.0 + square) };
    let high = if ones == samples { 1.0 } else { (centre + half) / (1.0 + square) };
    (low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_values_have_no_error_rather_than_nan() {
        assert_eq!(mean_and_se(&[]), (0.0, 0.0));
        assert_eq!(mean_and_se(&[3.0]), (3.0, 0.0));
        assert_eq!(mean_and_se(&[1.0, 3.0]), (2.0, 1.0));
    }

    #[test]
    fn quantiles_interpolate_between_neighbours() {
        // 41 values 0..=40: positions 0.025 · 40 = 1 and 0.975 · 40 = 39.
        let mut values: Vec<f64> = (0..=40).rev().map(f64::from).collect();
        assert_eq!(percentile_interval(&mut values), (1.0, 39.0));
        let (low, high) = percentile_interval(&mut [0.0, 1.0]);
        assert!((low - 0.025).abs() < 1e-15 && (high - 0.975).abs() < 1e-15);
        assert_eq!(percentile_interval(&mut [f64::NEG_INFINITY; 3]), (f64::NEG_INFINITY, f64::NEG_INFINITY));
    }
}
