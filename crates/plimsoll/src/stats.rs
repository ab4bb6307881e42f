//! Means, resampling, tests and correlations: the statistics under [`choose`](crate::choose), the lens and
//! [`metrics`](crate::metrics).
//!
//! Everything is drawn from [`ChaCha8Rng`] with the seed as its key, so that a seed gives the same numbers on every
//! platform. Each use has a [`Stream`] of its own: a new use never changes the numbers of the others. Sums run in the
//! order of the samples. Only the tails of the normal and the t distribution call the platform's mathematics library,
//! for a logarithm, and may differ between platforms in their last digits.

use std::num::NonZeroUsize;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

/// Ends of a 95 % percentile interval, as shares of the sorted resamples.
const TAILS: [f64; 2] = [0.025, 0.975];

/// Up to this many pairs the randomisation test goes through all `2^n` sign patterns: 16,384 of them.
const EXACT_PAIRS: usize = 14;

/// Up to this many values a permutation test goes through all `n!` orders: 40,320 of them.
const EXACT_ORDERS: usize = 8;

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
    /// Which samples make up a fold of a cross-validation.
    Folds = 7,
    /// Orders of the permutation test of a rank correlation.
    Orders = 8,
    /// Orders of layers.
    Layers = 9,
    /// Resamples of the samples that effects are measured on. All places share them.
    Effects = 10,
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

/// The 95 % Wilson score interval of a rate: `ones` of `samples` values are 1, the others 0.
///
/// With p the rate and z the 97.5 % quantile of the normal distribution, its ends are
/// `(p + z²/2n ± z·√(p(1−p)/n + z²/4n²)) / (1 + z²/n)` (Wilson, Journal of the American Statistical Association 22:158,
/// 1927). The bootstrap has no spread where all values are alike, and gives 0 of 40 the interval 0 to 0; this one gives
/// it 0 to 0.088. Recommended for 40 samples and fewer by Brown and others, "Interval Estimation for a Binomial
/// Proportion", Statistical Science 16:2 (2001). No samples give (0, 0).
pub fn wilson_interval(ones: usize, samples: usize) -> (f64, f64) {
    if samples == 0 {
        return (0.0, 0.0);
    }
    let (n, p, z) = (samples as f64, ones as f64 / samples as f64, normal_quantile(TAILS[1]));
    let square = z * z / n;
    let centre = p + square / 2.0;
    let half = z * (p * (1.0 - p) / n + square / (4.0 * n)).sqrt();
    // At a rate of 0 or 1 the two terms are equal, but for rounding.
    let low = if ones == 0 { 0.0 } else { (centre - half) / (1.0 + square) };
    let high = if ones == samples { 1.0 } else { (centre + half) / (1.0 + square) };
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
    let seen = differences.iter().sum::<f64>().abs() - rounding(differences);
    share_of_patterns(differences.len(), patterns, (seed, Stream::Signs), |signs| {
        sum_under(differences, signs).abs() >= seen
    })
}

/// One-sided p-value of the paired randomisation test that the mean of `differences` is 0 or less: the share of sign
/// patterns whose mean is at least the one seen, counted as [`sign_flip_p`] does.
///
/// Dividing each mean by its standard error would change nothing: signs leave the sum of squares alone, so that the
/// t statistic of a pattern rises with its mean.
pub fn sign_flip_above(differences: &[f64], patterns: NonZeroUsize, seed: u64) -> f64 {
    let seen = differences.iter().sum::<f64>() - rounding(differences);
    share_of_patterns(differences.len(), patterns, (seed, Stream::Signs), |signs| sum_under(differences, signs) >= seen)
}

/// By how much two patterns with the same sum in exact arithmetic may differ: the rounding of that many additions.
fn rounding(differences: &[f64]) -> f64 {
    let size: f64 = differences.iter().map(|difference| difference.abs()).sum();
    differences.len() as f64 * f64::EPSILON * size
}

/// One-sided p-value of the t-test that the mean of `values` is 0 or less, corrected for skewness.
///
/// With `t = mean / (s/√n)` and `G` the skewness, `t + G·(1 + 2t²)/(6√n) + G²·t³/(27n)` is held against the t
/// distribution with n − 1 degrees of freedom: Hall, "On the removal of skewness by transformation", Journal of the
/// Royal Statistical Society B 54:1 (1992), which is Johnson's modified t (Journal of the American Statistical
/// Association 73:363, 1978) with a term that keeps it rising in t. Where the long tail is on the side of the null
/// hypothesis, a few samples seldom hold its far end, so that their mean is too high and their spread too small; neither
/// the t-test nor the randomisation test, which takes the two sides for mirror images, allows for that.
///
/// It departs from Hall in `G`. His is `mean((x − mean)³)/s³`; here it is the bias-corrected one, `n²/((n−1)(n−2))`
/// times that, and a negative one is enlarged by `1 + 3/√n` more. What the far end of the tail would add is missing from
/// the sample's skewness too, which falls the shorter the fewer samples there are. The factor has no theory behind it:
/// it was chosen by simulation, so that among 12 values and more of a log-normal distribution (skewness 6) the error at
/// a level of 2.5 % is less than 5 %, where the t-test's is 16 %. Fewer than three values have no skewness.
pub fn skewed_t_above(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    if values.len() < 2 {
        return 1.0;
    }
    let (mean, se) = mean_and_se(values);
    let t = mean / se;
    let s = se * n.sqrt();
    if values.len() == 2 || s == 0.0 {
        return student_t_above(t, values.len() - 1);
    }
    let cubes: f64 = values.iter().map(|value| (value - mean) / s).map(|z| z * z * z).sum();
    let g = cubes * n / ((n - 1.0) * (n - 2.0));
    let g = if g < 0.0 { g * (1.0 + 3.0 / n.sqrt()) } else { g };
    let corrected = t + g * (1.0 + 2.0 * t * t) / (6.0 * n.sqrt()) + g * g * t * t * t / (27.0 * n);
    student_t_above(corrected, values.len() - 1)
}

/// Spearman's rank correlation of two lists, with the two-sided p-value of its permutation test.
///
/// The correlation (Pearson's) of the ranks, equal values sharing the mean of theirs (Spearman, American Journal of
/// Psychology 15:1, 1904). The p-value is the share of orders of `y` whose |ρ| is at least the one seen: of all orders up
/// to 8 values, of so many `orders` drawn above that, where the order seen counts as one more (Phipson & Smyth,
/// arXiv:1603.05766). A list without two different values has no order: ρ is 0, and p is 1.
///
/// # Panics
/// If the lists differ in length.
pub fn spearman(x: &[f64], y: &[f64], orders: NonZeroUsize, seed: u64) -> (f64, f64) {
    assert_eq!(x.len(), y.len(), "two lists of other lengths");
    let (x, mut y) = (centred_ranks(x), centred_ranks(y));
    // Twice the ranks less their mean are whole numbers, and so are their products: sums are exact, and equal is equal.
    let product = |y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let size = |ranks: &[f64]| ranks.iter().map(|rank| rank * rank).sum::<f64>().sqrt();
    let scale = size(&x) * size(&y);
    let seen = product(&y);
    if scale == 0.0 {
        return (0.0, 1.0);
    }
    let is_hit = |y: &[f64]| product(y).abs() >= seen.abs();
    let p = if y.len() <= EXACT_ORDERS {
        let (mut hits, mut all) = (0_usize, 0_usize);
        every_order(&mut y, &mut |y| {
            all += 1;
            hits += usize::from(is_hit(y));
        });
        hits as f64 / all as f64
    } else {
        let mut rng = generator(seed, Stream::Orders);
        let mut hits = 0;
        for _ in 0..orders.get() {
            shuffle(&mut y, &mut rng);
            hits += usize::from(is_hit(&y));
        }
        (hits + 1) as f64 / (orders.get() + 1) as f64
    };
    ((seen / scale).clamp(-1.0, 1.0), p)
}

/// Twice the rank of each value less the mean rank, the mean of their ranks for equal ones.
fn centred_ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut first = 0;
    for equal in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let last = first + equal.len() - 1;
        // Ranks from 0: the mean of first..=last, doubled, less the doubled mean of all.
        equal.iter().for_each(|&index| ranks[index] = (first + last) as f64 - (values.len() as f64 - 1.0));
        first = last + 1;
    }
    ranks
}

/// Calls `visit` with every order of the values (Heap, The Computer Journal 6:3, 1963).
fn every_order(values: &mut [f64], visit: &mut impl FnMut(&[f64])) {
    fn heap(values: &mut [f64], free: usize, visit: &mut impl FnMut(&[f64])) {
        if free <= 1 {
            return visit(values);
        }
        for i in 0..free {
            heap(values, free - 1, visit);
            if i + 1 < free {
                values.swap(if free.is_multiple_of(2) { i } else { 0 }, free - 1);
            }
        }
    }
    heap(values, values.len(), visit);
}

/// Which points are not dominated: no other is at most as large everywhere and smaller somewhere. Every coordinate is to
/// be small; of equal points all stay.
///
/// # Panics
/// If the points differ in their number of coordinates.
pub fn pareto(points: &[Vec<f64>]) -> Vec<bool> {
    let dominates = |a: &[f64], b: &[f64]| {
        assert_eq!(a.len(), b.len(), "points of other dimensions");
        let pairs = || a.iter().zip(b);
        pairs().all(|(a, b)| a <= b) && pairs().any(|(a, b)| a < b)
    };
    points.iter().map(|point| !points.iter().any(|other| dominates(other, point))).collect()
}

/// In which of `folds` folds each sample is: drawn at random, the folds' sizes equal or one apart.
///
/// Never more folds than samples, nor fewer than two.
pub fn folds(samples: usize, folds: usize, seed: u64) -> Vec<usize> {
    let folds = folds.min(samples).max(2);
    let mut fold_of: Vec<usize> = (0..samples).map(|sample| sample % folds).collect();
    shuffle(&mut fold_of, &mut generator(seed, Stream::Folds));
    fold_of
}

/// Fisher and Yates's shuffle (Durstenfeld, Communications of the ACM 7:7, 1964), bounded numbers as in
/// [`Resampler::draw`].
pub(crate) fn shuffle<T>(values: &mut [T], rng: &mut ChaCha8Rng) {
    for last in (1..values.len()).rev() {
        values.swap(last, ((u128::from(rng.next_u64()) * (last as u128 + 1)) >> 64) as usize);
    }
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

/// The number that a standard normal number is below with probability `p`.
///
/// Wichura, "Algorithm AS 241: The percentage points of the normal distribution", Applied Statistics 37:3 (1988), routine
/// PPND16: about 16 digits. 0 and 1 give the infinities; what is no probability gives NaN.
pub fn normal_quantile(p: f64) -> f64 {
    const CENTRE: [[f64; 8]; 2] = [
        [
            3.387_132_872_796_366_5,
            133.141_667_891_784_38,
            1_971.590_950_306_551_3,
            13_731.693_765_509_46,
            45_921.953_931_549_87,
            67_265.770_927_008_7,
            33_430.575_583_588_13,
            2_509.080_928_730_122_7,
        ],
        [
            1.0,
            42.313_330_701_600_91,
            687.187_007_492_057_9,
            5_394.196_021_424_751,
            21_213.794_301_586_597,
            39_307.895_800_092_71,
            28_729.085_735_721_943,
            5_226.495_278_852_545,
        ],
    ];
    const NEAR: [[f64; 8]; 2] = [
        [
            1.423_437_110_749_683_5,
            4.630_337_846_156_546,
            5.769_497_221_460_691,
            3.647_848_324_763_204_5,
            1.270_458_252_452_368_4,
            0.241_780_725_177_450_6,
            0.022_723_844_989_269_184,
            7.745_450_142_783_414e-4,
        ],
        [
            1.0,
            2.053_191_626_637_759,
            1.676_384_830_183_803_8,
            0.689_767_334_985_1,
            0.148_103_976_427_480_08,
            0.015_198_666_563_616_457,
            5.475_938_084_995_345e-4,
            1.050_750_071_644_416_9e-9,
        ],
    ];
    const FAR: [[f64; 8]; 2] = [
        [
            6.657_904_643_501_103,
            5.463_784_911_164_114,
            1.784_826_539_917_291_3,
            0.296_560_571_828_504_87,
            0.026_532_189_526_576_124,
            0.001_242_660_947_388_078_4,
            2.711_555_568_743_487_6e-5,
            2.010_334_399_292_288_1e-7,
        ],
        [
            1.0,
            0.599_832_206_555_888,
            0.136_929_880_922_735_8,
            0.014_875_361_290_850_615,
            7.868_691_311_456_133e-4,
            1.846_318_317_510_054_8e-5,
            1.421_511_758_316_446e-7,
            2.044_263_103_389_939_8e-15,
        ],
    ];
    let ratio = |[above, below]: [[f64; 8]; 2], x: f64| {
        let polynomial = |of: [f64; 8]| of.iter().rev().fold(0.0, |sum, factor| sum * x + factor);
        polynomial(above) / polynomial(below)
    };
    if !(0.0..=1.0).contains(&p) {
        return f64::NAN;
    }
    let q = p - 0.5;
    if q.abs() <= 0.425 {
        return q * ratio(CENTRE, 0.180_625 - q * q);
    }
    let tail = if q < 0.0 { p } else { 1.0 - p };
    if tail == 0.0 {
        return q.signum() * f64::INFINITY;
    }
    let r = (-tail.ln()).sqrt();
    q.signum() * if r <= 5.0 { ratio(NEAR, r - 1.6) } else { ratio(FAR, r - 5.0) }
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

/// The sum of the values when those whose bit is set in `signs` change their sign.
fn sum_under(values: &[f64], signs: &[u64]) -> f64 {
    values.chunks(64).zip(signs).map(|(chunk, &signs)| flipped_sum(chunk, signs)).sum()
}

/// The sum of at most 64 values, of which those whose bit is set in `signs` (lowest bit first) change their sign.
fn flipped_sum(values: &[f64], signs: u64) -> f64 {
    values.iter().enumerate().map(|(bit, value)| if signs >> bit & 1 == 1 { -value } else { *value }).sum()
}

/// One stream of [`ChaCha8Rng`], keyed with the seed in its first eight bytes.
pub(crate) fn generator(seed: u64, stream: Stream) -> ChaCha8Rng {
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
