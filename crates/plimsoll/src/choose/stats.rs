//! Means, resampling and the randomisation test: the statistics under [`choose`](super::choose) and the lens.
//!
//! Everything is drawn from [`ChaCha8Rng`] with the seed as its key, so that a seed gives the same numbers on every
//! platform. Each use has a [`Stream`] of its own: a new use never changes the numbers of the others. Sums run in the
//! order of the samples and nothing here calls a function of the platform's mathematics library.

use std::num::NonZeroUsize;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

/// Ends of a 95 % percentile interval, as shares of the sorted resamples.
const TAILS: [f64; 2] = [0.025, 0.975];

/// Up to this many pairs the randomisation test goes through all `2^n` sign patterns: 16,384 of them.
const EXACT_PAIRS: usize = 14;

/// What random numbers are for. The values are part of what a seed means: never renumber them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Resamples of the selection samples, for the stability of the choice.
    Choice = 1,
    /// Resamples of the held-out samples. All intervals on them share their resamples, so that they agree.
    Holdout = 2,
    /// Sign patterns of the randomisation test.
    Signs = 3,
    /// Resamples of the samples that the logit lens was drawn on.
    Lens = 4,
}

/// Mean, and the standard error of the mean: `s / √n` with `s² = Σ(x − mean)² / (n − 1)`.
///
/// One value tells nothing of the spread and JSON has no NaN: the error of fewer than two values is given as 0, and so
/// is the mean of none.
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

/// Draws samples with replacement: the resamples of the bootstrap (Efron, Annals of Statistics 7:1, 1979).
#[derive(Clone, Debug)]
pub struct Resampler {
    rng: ChaCha8Rng,
    drawn: Vec<usize>,
}

impl Resampler {
    /// Resamples of `samples` samples, from the start of a stream.
    pub fn new(seed: u64, stream: Stream, samples: usize) -> Self {
        Self { rng: generator(seed, stream), drawn: vec![0; samples] }
    }

    /// The next resample: as many indices as there are samples, each below their number, repeats allowed.
    ///
    /// An index is the high word of `u·n` for a 64-bit `u` (Lemire, arXiv:1805.10941, without its rejection step): some
    /// indices are likelier than others by at most 2⁻⁶⁴.
    pub fn draw(&mut self) -> &[usize] {
        let samples = self.drawn.len() as u128;
        for index in &mut self.drawn {
            *index = ((u128::from(self.rng.next_u64()) * samples) >> 64) as usize;
        }
        &self.drawn
    }
}

/// The 95 % percentile bootstrap interval of the mean of `values`, resampled by value.
///
/// Efron & Tibshirani, "An Introduction to the Bootstrap", chapter 13 (1993). For skewed data and few samples it is
/// somewhat too narrow; it needs no assumption on the distribution, and it moves with the data when they are shifted.
pub fn bootstrap_mean(values: &[f64], resamples: NonZeroUsize, mut resampler: Resampler) -> (f64, f64) {
    let n = values.len() as f64;
    let mut means: Vec<f64> =
        (0..resamples.get()).map(|_| resampler.draw().iter().map(|&sample| values[sample]).sum::<f64>() / n).collect();
    percentile_interval(&mut means)
}

/// The ends of a 95 % percentile interval over resampled statistics, which are sorted on the way.
///
/// Quantiles interpolate linearly between order statistics at `q·(n − 1)`: type 7 of Hyndman & Fan (The American
/// Statistician 50:4, 1996), as `numpy.quantile` and `scipy.stats.bootstrap` do. No statistics give (0, 0).
pub fn percentile_interval(statistics: &mut [f64]) -> (f64, f64) {
    let Some(last) = statistics.len().checked_sub(1) else { return (0.0, 0.0) };
    statistics.sort_unstable_by(f64::total_cmp);
    let [low, high] = TAILS.map(|share| {
        let position = share * last as f64;
        let below = position as usize;
        let (a, b) = (statistics[below], statistics[(below + 1).min(last)]);
        // Equal neighbours need no interpolation, and infinite ones would give NaN.
        if a == b { a } else { a + (b - a) * (position - below as f64) }
    });
    (low, high)
}

/// Two-sided p-value of the paired randomisation test that the mean of `differences` is 0.
///
/// Under the null hypothesis each difference could as well have had the other sign; the p-value is the share of sign
/// patterns whose |mean| is at least the one seen. Up to 14 pairs all `2^n` patterns are counted. Above that `patterns`
/// random ones are, and the pattern seen counts as one more, `(hits + 1) / (patterns + 1)`, without which the test
/// would be invalid (Noreen, "Computer-Intensive Methods for Testing Hypotheses", 1989; Phipson & Smyth,
/// arXiv:1603.05766). Differences that are all 0 give 1.
pub fn sign_flip_p(differences: &[f64], patterns: NonZeroUsize, seed: u64) -> f64 {
    let size: f64 = differences.iter().map(|difference| difference.abs()).sum();
    // Two patterns with the same sum in exact arithmetic may differ by the rounding of that many additions.
    let rounding = differences.len() as f64 * f64::EPSILON * size;
    let seen = differences.iter().sum::<f64>().abs() - rounding;
    let is_hit = |sum: f64| sum.abs() >= seen;

    if differences.len() <= EXACT_PAIRS {
        let all = 1_u64 << differences.len();
        let hits = (0..all).filter(|&signs| is_hit(flipped_sum(differences, signs))).count();
        return hits as f64 / all as f64;
    }
    let mut rng = generator(seed, Stream::Signs);
    let hits = (0..patterns.get())
        .filter(|_| is_hit(differences.chunks(64).map(|chunk| flipped_sum(chunk, rng.next_u64())).sum()))
        .count();
    (hits + 1) as f64 / (patterns.get() + 1) as f64
}

/// The mean of at least one value.
pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The sum of at most 64 values, of which those whose bit is set in `signs` (lowest bit first) change their sign.
fn flipped_sum(values: &[f64], signs: u64) -> f64 {
    values.iter().enumerate().map(|(bit, value)| if signs >> bit & 1 == 1 { -value } else { *value }).sum()
}

/// One stream of [`ChaCha8Rng`], keyed with the seed in its first eight bytes.
fn generator(seed: u64, stream: Stream) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let mut rng = ChaCha8Rng::from_seed(key);
    rng.set_stream(stream as u64);
    rng
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESAMPLES: NonZeroUsize = NonZeroUsize::new(2_000).unwrap();

    #[test]
    fn few_values_have_no_error_rather_than_nan() {
        assert_eq!(mean_and_se(&[]), (0.0, 0.0));
        assert_eq!(mean_and_se(&[3.0]), (3.0, 0.0));
        assert_eq!(mean_and_se(&[1.0, 3.0]), (2.0, 1.0));
    }

    #[test]
    fn streams_of_one_seed_differ_and_repeat() {
        let draw = |stream| Resampler::new(7, stream, 50).draw().to_vec();
        assert_eq!(draw(Stream::Choice), draw(Stream::Choice));
        assert_ne!(draw(Stream::Choice), draw(Stream::Holdout));
        assert!(draw(Stream::Lens).iter().all(|&index| index < 50));
    }

    #[test]
    fn quantiles_interpolate_between_neighbours() {
        // 41 values 0..=40: position 0.025 · 40 = 1, and 0.975 · 40 = 39; doubled up, 2.025 of 81 and so on.
        let mut values: Vec<f64> = (0..=40).rev().map(f64::from).collect();
        assert_eq!(percentile_interval(&mut values), (1.0, 39.0));
        let (low, high) = percentile_interval(&mut [0.0, 1.0]);
        assert!((low - 0.025).abs() < 1e-15 && (high - 0.975).abs() < 1e-15);
        assert_eq!(percentile_interval(&mut [f64::NEG_INFINITY; 3]), (f64::NEG_INFINITY, f64::NEG_INFINITY));
    }

    #[test]
    fn no_difference_is_no_evidence() {
        assert_eq!(sign_flip_p(&[0.0; 5], RESAMPLES, 1), 1.0);
        assert_eq!(sign_flip_p(&[0.0; 50], RESAMPLES, 1), 1.0);
    }

    #[test]
    fn sums_that_differ_by_rounding_are_equal() {
        // Seen is 0.1 + 0.2 + 0.3 − 0.1, rounded up. −0.1 + 0.2 + 0.3 + 0.1 is as large, rounded down; 0.7 is larger;
        // and the same with all signs changed: 6 of 16.
        assert_eq!(sign_flip_p(&[0.1, 0.2, 0.3, -0.1], RESAMPLES, 1), 6.0 / 16.0);
    }

    #[test]
    fn equal_signs_are_the_rarest_pattern() {
        // Only +++++ and −−−−− reach the sum seen: 2 of 32.
        assert_eq!(sign_flip_p(&[0.1, 0.2, 0.3, 0.7, 0.9], RESAMPLES, 1), 2.0 / 32.0);
        // Beyond exact counting the p-value is never 0.
        assert_eq!(sign_flip_p(&[1.0; 200], RESAMPLES, 1), 1.0 / 2001.0);
    }
}
