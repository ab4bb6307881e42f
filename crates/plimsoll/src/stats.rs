//! Means, resampling and the randomisation test: the statistics under [`choose`](crate::choose), the lens and
//! [`metrics`](crate::metrics).
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
    /// Resamples of the samples that generated text is measured on. All metrics and systems share them.
    Metrics = 5,
    /// Which samples two systems swap in the randomisation test of a metric.
    Swaps = 6,
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
    share_of_patterns(differences.len(), patterns, (seed, Stream::Signs), |signs| {
        let sum: f64 = differences.chunks(64).zip(signs).map(|(chunk, &signs)| flipped_sum(chunk, signs)).sum();
        sum.abs() >= seen
    })
}

/// The p-value of a paired randomisation test: the share of patterns of exchanged pairs that are hits, which means at
/// least as far from the null hypothesis as the pattern seen, of no exchange.
///
/// A pattern has a bit for each pair, lowest first, 64 to a word. Which patterns are gone through, and what is counted,
/// is as [`sign_flip_p`] says.
pub(crate) fn share_of_patterns(
    pairs: usize,
    patterns: NonZeroUsize,
    (seed, stream): (u64, Stream),
    mut is_hit: impl FnMut(&[u64]) -> bool,
) -> f64 {
    if pairs <= EXACT_PAIRS {
        let all = 1_u64 << pairs;
        let hits = (0..all).filter(|&pattern| is_hit(&[pattern])).count();
        return hits as f64 / all as f64;
    }
    let mut rng = generator(seed, stream);
    let mut pattern = vec![0; pairs.div_ceil(64)];
    let mut hits = 0;
    for _ in 0..patterns.get() {
        pattern.fill_with(|| rng.next_u64());
        hits += usize::from(is_hit(&pattern));
    }
    (hits + 1) as f64 / (patterns.get() + 1) as f64
}

/// P-values adjusted for their number: with those below α taken for shown, the chance that any is shown falsely is at
/// most α, however the tests depend on each other.
///
/// Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6:2 (1979): the
/// i-th smallest of m is multiplied by `m − i + 1`; none becomes less than a smaller one, or more than 1.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let mut adjusted = vec![0.0; p.len()];
    let mut largest = 0.0_f64;
    for (rank, index) in order.into_iter().enumerate() {
        largest = largest.max(p[index] * (p.len() - rank) as f64).min(1.0);
        adjusted[index] = largest;
    }
    adjusted
}

/// The probability that a t-distributed number with so many degrees of freedom is above `t`: the one-sided p-value.
///
/// `½ · I_x(ν/2, ½)` with `x = ν / (ν + t²)` for `t ≥ 0` (DLMF 8.17; Abramowitz and Stegun 26.7.1), and 1 less that of
/// `−t` below 0. An infinite `t` gives 0 or 1; a `t` that is not a number says nothing, and gives 1.
///
/// # Panics
/// If there are no degrees of freedom.
pub fn student_t_above(t: f64, degrees: usize) -> f64 {
    assert!(degrees > 0, "no degrees of freedom");
    if t.is_nan() {
        return 1.0;
    }
    let degrees = degrees as f64;
    let tail =
        if t.is_infinite() { 0.0 } else { 0.5 * incomplete_beta(degrees / (degrees + t * t), degrees / 2.0, 0.5) };
    if t >= 0.0 { tail } else { 1.0 - tail }
}

/// The regularised incomplete beta function `I_x(a, b)`, by its continued fraction (DLMF 8.17.22), evaluated from the
/// front by Lentz's method. The fraction converges fast for `x < (a + 1) / (a + b + 2)`; beyond, `1 − I_{1−x}(b, a)` is
/// taken.
fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(1.0 - x, b, a);
    }
    let away_from_zero = |value: f64| if value.abs() < 1e-300 { 1e-300 } else { value };
    let (mut c, mut d) = (1.0, 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0)));
    let mut fraction = d;
    for m in 1..10_000 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut change = 1.0;
        for coefficient in [even, odd] {
            d = 1.0 / away_from_zero(1.0 + coefficient * d);
            c = away_from_zero(1.0 + coefficient / c);
            change = c * d;
            fraction *= change;
        }
        if (change - 1.0).abs() < 1e-15 {
            break;
        }
    }
    (a * x.ln() + b * (1.0 - x).ln() - ln_beta(a, b)).exp() * fraction / a
}

/// `ln B(a, b)` for the halves of whole numbers that degrees of freedom give: by `Γ(x + 1) = x·Γ(x)` down to `Γ(½) = √π`
/// or `Γ(1) = 1`, with the logarithms summed.
fn ln_beta(a: f64, b: f64) -> f64 {
    let ln_gamma = |mut x: f64| {
        let mut sum = 0.0;
        while x > 1.0 {
            x -= 1.0;
            sum += x.ln();
        }
        if x < 1.0 { sum + 0.5 * std::f64::consts::PI.ln() } else { sum }
    };
    ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b)
}

/// The mean of at least one value.
pub(crate) fn mean(values: &[f64]) -> f64 {
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

    const SCIPY_TAILS: [(f64, usize, f64); 35] = [
        (0.0, 1, 0.5),
        (0.0, 2, 0.5),
        (0.0, 7, 0.5),
        (0.0, 31, 0.5),
        (0.0, 254, 0.5),
        (0.3, 1, 0.4072264209222577),
        (0.3, 2, 0.3962428304200888),
        (0.3, 7, 0.3864450252010671),
        (0.3, 31, 0.3830898375055144),
        (0.3, 254, 0.38221126261267185),
        (1.0, 1, 0.25000000000000006),
        (1.0, 2, 0.2113248654051871),
        (1.0, 7, 0.1753083314101037),
        (1.0, 31, 0.1625263663617667),
        (1.0, 254, 0.1591311051287624),
        (-1.7, 1, 0.8307469726696672),
        (-1.7, 2, 0.8843832868992144),
        (-1.7, 7, 0.9335355516087224),
        (-1.7, 31, 0.9504275708604767),
        (-1.7, 254, 0.9548224806100732),
        (2.5, 1, 0.12111894159084341),
        (2.5, 2, 0.06480586011075541),
        (2.5, 7, 0.020496109292876444),
        (2.5, 31, 0.008960113406693103),
        (2.5, 254, 0.006525342548928025),
        (6.9, 1, 0.045812893413714056),
        (6.9, 2, 0.010182292258462794),
        (6.9, 7, 0.00011566447390242339),
        (6.9, 31, 4.8821603743490754e-08),
        (6.9, 254, 2.0634221645394013e-11),
        (40.0, 1, 0.007956089912025812),
        (40.0, 2, 0.0003122073360923703),
        (40.0, 7, 7.951089992425182e-10),
        (40.0, 31, 1.5090709622210297e-28),
        (40.0, 254, 6.21925051742889e-112),
    ];

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

    /// Expected values are `scipy.stats.t.sf(t, degrees)` of version 1.17.1.
    #[test]
    fn tails_of_the_t_distribution_are_those_of_scipy() {
        for (t, degrees, expected) in SCIPY_TAILS {
            let found = student_t_above(t, degrees);
            assert!((found - expected).abs() <= 1e-12 * expected, "t = {t}, {degrees}: {found}, expected {expected}");
        }
        assert_eq!(student_t_above(f64::INFINITY, 3), 0.0);
        assert_eq!(student_t_above(f64::NEG_INFINITY, 3), 1.0);
        assert_eq!(student_t_above(f64::NAN, 3), 1.0);
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
    fn adjusted_p_values_keep_their_order() {
        assert_eq!(holm(&[0.25, 0.01, 0.0625, 0.06]), [0.25, 0.04, 0.18, 0.18]);
        assert_eq!(holm(&[0.75, 0.5]), [1.0, 1.0]);
        assert_eq!(holm(&[]), [0.0; 0]);
    }

    #[test]
    fn equal_signs_are_the_rarest_pattern() {
        // Only +++++ and −−−−− reach the sum seen: 2 of 32.
        assert_eq!(sign_flip_p(&[0.1, 0.2, 0.3, 0.7, 0.9], RESAMPLES, 1), 2.0 / 32.0);
        // Beyond exact counting the p-value is never 0.
        assert_eq!(sign_flip_p(&[1.0; 200], RESAMPLES, 1), 1.0 / 2001.0);
    }
}
