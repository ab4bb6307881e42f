//! `choose` against `scipy`, `statsmodels` and `numpy` (`reference/choose_golden.py`), against simulated truths, and its
//! invariants.

// A failed unwrap is a failed test.
#![allow(clippy::unwrap_used)]

use std::num::NonZeroUsize;

use plimsoll_stats::choose::{
    Choice, ChooseProblem, Gain, Input, Interval, Options, Part, Reason, Scores, Validation, Verdict, choose,
    choose_nested, cross_validate, validation_for,
};
use plimsoll_stats::{
    Resampler, Stream, bootstrap_mean, folds, holm, mean_and_se, normal_quantile, pareto, sign_flip_above, sign_flip_p,
    skewed_t_above, spearman, wilson_interval,
};
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    mean_and_se: MeanAndSe,
    bootstrap: Bootstrap,
    sign_flip: Vec<SignFlip>,
    change_points: Vec<ChangePoint>,
    resamples: Vec<Resamples>,
    choices: Vec<Case>,
    skewed_t: Vec<SkewedT>,
    normal_quantiles: Vec<[f64; 2]>,
    holm: Vec<Holm>,
    spearman: Vec<Spearman>,
    proportions: Vec<Proportion>,
    nested: Vec<NestedCase>,
}

#[derive(Deserialize)]
struct MeanAndSe {
    values: Vec<f64>,
    mean: f64,
    se_scipy: f64,
    se_statsmodels: f64,
}

#[derive(Deserialize)]
struct Bootstrap {
    values: Vec<f64>,
    low: f64,
    high: f64,
}

#[derive(Deserialize)]
struct SignFlip {
    differences: Vec<f64>,
    p: f64,
    above: f64,
}

#[derive(Deserialize)]
struct SkewedT {
    values: Vec<f64>,
    p: f64,
}

#[derive(Deserialize)]
struct Holm {
    p: Vec<f64>,
    adjusted: Vec<f64>,
}

#[derive(Deserialize)]
struct Spearman {
    x: Vec<f64>,
    y: Vec<f64>,
    rho: f64,
    p: f64,
}

#[derive(Deserialize)]
struct Proportion {
    ones: usize,
    samples: usize,
    interval: [f64; 2],
}

#[derive(Deserialize)]
struct NestedCase {
    name: String,
    scores: Vec<Vec<f64>>,
    curve: Vec<f64>,
    seed: u64,
    folds: usize,
    resamples: NonZeroUsize,
    fold_of: Vec<usize>,
    picks: Vec<usize>,
    best: usize,
    one_se: usize,
    gain: Gain,
    adapter_gain: Gain,
    base_gain: Gain,
}

#[derive(Deserialize)]
struct ChangePoint {
    curve: Vec<f64>,
    change_point: usize,
}

#[derive(Deserialize)]
struct Resamples {
    seed: u64,
    stream: String,
    samples: usize,
    indices: Vec<Vec<usize>>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    selection: Vec<Vec<f64>>,
    holdout: Vec<Vec<f64>>,
    curve: Vec<f64>,
    seed: u64,
    choice_resamples: NonZeroUsize,
    resamples: NonZeroUsize,
    best: usize,
    one_se: usize,
    change_point: usize,
    bootstrap: Vec<f64>,
    gain: Gain,
    adapter_gain: Gain,
    base_gain: Gain,
    retained: Option<Interval>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("fixtures/choose.json")).unwrap()
}

/// Equal up to the rounding of sums in another order: values are of the order of 1, a few hundred at most are added.
fn assert_same(what: &str, ours: f64, theirs: f64) {
    assert!((ours - theirs).abs() <= 1e-12 * (1.0 + theirs.abs()), "{what}: {ours}, reference {theirs}");
}

fn count(resamples: usize) -> NonZeroUsize {
    NonZeroUsize::new(resamples).unwrap()
}

// --- golden ---

#[test]
fn mean_and_error_are_those_of_scipy_and_statsmodels() {
    let golden = golden().mean_and_se;
    let (mean, se) = mean_and_se(&golden.values);
    assert_same("mean", mean, golden.mean);
    assert_same("scipy.stats.sem", se, golden.se_scipy);
    assert_same("DescrStatsW.std_mean", se, golden.se_statsmodels);
}

#[test]
fn resamples_are_those_of_a_second_chacha() {
    for golden in golden().resamples {
        let stream = match golden.stream.as_str() {
            "choice" => Stream::Choice,
            "holdout" => Stream::Holdout,
            "lens" => Stream::Lens,
            other => panic!("stream {other}"),
        };
        let mut resampler = Resampler::new(golden.seed, stream, golden.samples);
        for indices in golden.indices {
            assert_eq!(resampler.draw(), indices, "seed {}, {}", golden.seed, golden.stream);
        }
    }
}

#[test]
fn sign_flips_are_those_of_scipy() {
    const PATTERNS: usize = 100_000;
    let golden = golden().sign_flip;
    assert!(golden.iter().any(|case| case.differences.len() > 14), "no case beyond exact counting");
    for SignFlip { differences, p, above } in golden {
        let is_exact = differences.len() <= 14;
        assert_p(is_exact, sign_flip_p(&differences, count(PATTERNS), 11), p, PATTERNS);
        assert_p(is_exact, sign_flip_above(&differences, count(PATTERNS), 11), above, PATTERNS);
    }
}

/// Where `scipy` counts all patterns and we draw some, ours is a binomial share: five standard errors.
fn assert_p(is_exact: bool, ours: f64, theirs: f64, draws: usize) {
    if is_exact {
        return assert_same("exact p", ours, theirs);
    }
    let tolerance = 5.0 * (theirs * (1.0 - theirs) / draws as f64).sqrt();
    assert!((ours - theirs).abs() < tolerance, "{ours}, SciPy {theirs} ± {tolerance}");
}

#[test]
fn skewed_means_are_tested_as_by_scipy() {
    for SkewedT { values, p } in golden().skewed_t {
        let ours = skewed_t_above(&values);
        // The tail at 19 standard errors is 1e-8: relative, with the rounding of t in the exponent.
        assert!((ours - p).abs() <= 1e-10 * p, "{values:?}: {ours}, SciPy {p}");
    }
}

#[test]
fn normal_quantiles_are_those_of_scipy() {
    for [p, expected] in golden().normal_quantiles {
        let ours = normal_quantile(p);
        assert!((ours - expected).abs() <= 1e-14 * expected.abs(), "{p}: {ours}, SciPy {expected}");
    }
    assert_eq!([0.0, 1.0].map(normal_quantile), [f64::NEG_INFINITY, f64::INFINITY]);
    assert!([-0.1, 1.1, f64::NAN].map(normal_quantile).iter().all(|x| x.is_nan()));
}

#[test]
fn intervals_of_rates_are_statsmodels() {
    for Proportion { ones, samples, interval: [low, high] } in golden().proportions {
        let ours = wilson_interval(ones, samples);
        // statsmodels leaves the rounding of an end at 0 or 1 as it is.
        assert_same("lower end", ours.0, low);
        assert_same("upper end", ours.1, high);
        assert!((0.0..=1.0).contains(&ours.0) && (0.0..=1.0).contains(&ours.1), "{ones} of {samples}");
    }
    assert_eq!(wilson_interval(0, 40).0, 0.0);
    assert_eq!(wilson_interval(40, 40).1, 1.0);
    assert_eq!(wilson_interval(0, 0), (0.0, 0.0));
}

#[test]
fn adjusted_p_values_are_those_of_statsmodels() {
    for Holm { p, adjusted } in golden().holm {
        for (ours, theirs) in holm(&p).into_iter().zip(adjusted) {
            assert_same("holm", ours, theirs);
        }
    }
}

#[test]
fn rank_correlations_are_those_of_scipy() {
    const ORDERS: usize = 50_000;
    let golden = golden().spearman;
    assert!(golden.iter().any(|case| case.x.len() <= 8) && golden.iter().any(|case| case.x.len() > 8));
    for Spearman { x, y, rho, p } in golden {
        let (ours, our_p) = spearman(&x, &y, count(ORDERS), 5);
        assert_same("rho", ours, rho);
        if x.len() <= 8 {
            assert_same("exact p", our_p, p);
        } else {
            // Both are shares of 50,000 drawn orders, so twice the variance of one: five standard errors.
            let tolerance = 5.0 * (2.0 * p * (1.0 - p) / ORDERS as f64).sqrt();
            assert!((our_p - p).abs() < tolerance, "{our_p}, SciPy {p} ± {tolerance}");
        }
    }
    assert_eq!(spearman(&[1.0; 4], &[1.0, 2.0, 3.0, 4.0], count(10), 1), (0.0, 1.0));
    assert_eq!(spearman(&[], &[], count(10), 1), (0.0, 1.0));
}

#[test]
fn nested_choices_are_those_of_numpy_on_the_same_random_numbers() {
    for case in golden().nested {
        let name = &case.name;
        let boundaries: Vec<usize> = (0..=case.curve.len()).collect();
        let scores = Scores::new(Part::Selection, &boundaries, &case.scores).unwrap();
        let fold_of = folds(scores.samples(), case.folds, case.seed);
        assert_eq!(fold_of, case.fold_of, "{name}");
        let expected = fold_of.iter().enumerate().map(|(sample, &fold)| case.scores[sample][case.picks[fold]]);
        assert_eq!(cross_validate(&scores, &fold_of), expected.collect::<Vec<_>>(), "{name}");
        let options = Options { resamples: case.resamples, ..quick(case.seed) };
        let ours = choose_nested(&scores, &case.curve, case.curve.len(), case.folds, &options).unwrap();
        assert_eq!((ours.best, ours.one_se), (case.best, case.one_se), "{name}");
        assert_eq!(ours.validation, Validation::Nested { folds: case.folds.min(case.scores.len()) }, "{name}");
        assert_gain(&format!("{name}: gain"), ours.gain, case.gain);
        assert_gain(&format!("{name}: adapter gain"), ours.adapter_gain, case.adapter_gain);
        assert_gain(&format!("{name}: base gain"), ours.base_gain, case.base_gain);
    }
}

fn assert_gain(what: &str, ours: Gain, theirs: Gain) {
    assert_same(what, ours.mean, theirs.mean);
    assert_same(what, ours.low, theirs.low);
    assert_same(what, ours.high, theirs.high);
    assert_same(what, ours.p, theirs.p);
    assert_eq!(ours.samples, theirs.samples, "{what}");
}

#[test]
fn percentile_intervals_are_those_of_scipy() {
    let golden = golden().bootstrap;
    let resampler = Resampler::new(3, Stream::Holdout, golden.values.len());
    let (low, high) = bootstrap_mean(&golden.values, count(10_000), resampler);
    // Both are Monte-Carlo estimates. The standard error of the q-quantile of B draws is √(q(1−q)/B)/f; for a normal f
    // at q = 2.5 % that is 0.027 se for our 10,000 and 0.008 se for SciPy's 100,000, together 0.028 se. Five of those.
    let tolerance = 5.0 * 0.028 * mean_and_se(&golden.values).1;
    assert!((low - golden.low).abs() < tolerance, "{low}, SciPy {} ± {tolerance}", golden.low);
    assert!((high - golden.high).abs() < tolerance, "{high}, SciPy {} ± {tolerance}", golden.high);
}

#[test]
fn change_points_are_those_of_lstsq() {
    for golden in golden().change_points {
        let rows = [vec![1.0; golden.curve.len() + 1], vec![2.0; golden.curve.len() + 1]];
        let input = Input::new(&rows, &rows, &golden.curve).unwrap();
        assert_eq!(choose(&input, &quick(1)).curve, golden.change_point, "{:?}", golden.curve);
    }
}

#[test]
fn choices_are_those_of_numpy_on_the_same_random_numbers() {
    for case in golden().choices {
        let input = Input::new(&case.selection, &case.holdout, &case.curve).unwrap();
        let options = Options {
            seed: case.seed,
            choice_resamples: case.choice_resamples,
            resamples: case.resamples,
            ..Options::default()
        };
        let ours = choose(&input, &options);
        let name = &case.name;
        assert_eq!((ours.best, ours.one_se, ours.curve), (case.best, case.one_se, case.change_point), "{name}");
        assert_eq!(ours.bootstrap, case.bootstrap, "{name}");
        assert_gain(&format!("{name}: gain"), ours.gain, case.gain);
        assert_gain(&format!("{name}: adapter gain"), ours.adapter_gain, case.adapter_gain);
        assert_gain(&format!("{name}: base gain"), ours.base_gain, case.base_gain);
        match (ours.retained, case.retained) {
            (Some(ours), Some(theirs)) => {
                assert_same(name, ours.value, theirs.value);
                assert_same(name, ours.low, theirs.low);
                assert_same(name, ours.high, theirs.high);
            }
            (ours, theirs) => assert_eq!(ours, theirs, "{name}"),
        }
    }
}

// --- simulated truths ---
//
// A small part of what `examples/simulate.rs` measures: enough to see a rule break. Bounds are three binomial standard
// deviations of 200 runs away from the rate that is stated beside them.

const RUNS: usize = 200;

/// How the effects of layers vary between samples: independent of each other, with standard deviation 1.
#[derive(Clone, Copy)]
enum Noise {
    Normal,
    /// Most samples lose a little by a layer, and a few gain much: a skewness of 6. One number for all layers.
    RareGains,
}

/// Layer l lowers a sample's NLL by `effects[l]` on average, with a standard deviation of `noise` between samples; the
/// samples themselves differ by 0.6 nats.
fn sample(rng: &mut ChaCha8Rng, effects: &[f64], noise: f64, kind: Noise) -> Vec<f64> {
    let mut nll = 2.0 + 0.6 * normal(rng);
    let mut row = vec![nll];
    // Standard log-normal less its mean, over its standard deviation.
    let shared = (normal(rng).exp() - 0.5_f64.exp()) / (1.0_f64.exp() * 1.0_f64.exp_m1()).sqrt();
    for effect in effects {
        nll -= effect
            + noise
                * match kind {
                    Noise::Normal => normal(rng),
                    Noise::RareGains => shared,
                };
        row.push(nll);
    }
    row
}

/// What came out of so many searches in a world whose layers have a known effect, divided as the product does.
struct Outcomes {
    choices: Vec<Choice>,
}

impl Outcomes {
    fn simulate(seed: u64, samples: usize, effects: &[f64], noise: f64, kind: Noise) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let curve: Vec<f64> = (0..effects.len()).map(|layer| layer as f64).collect();
        let boundaries: Vec<usize> = (0..=effects.len()).collect();
        let mut choose_once = |seed: usize| {
            let rows: Vec<Vec<f64>> = (0..samples).map(|_| sample(&mut rng, effects, noise, kind)).collect();
            let options = Options { resamples: count(99), choice_resamples: count(1), ..quick(seed as u64) };
            match validation_for(samples) {
                Validation::Nested { folds } => {
                    let scores = Scores::new(Part::Selection, &boundaries, &rows).unwrap();
                    choose_nested(&scores, &curve, effects.len(), folds, &options).unwrap()
                }
                Validation::Holdout => {
                    let (holdout, selection) = rows.split_at(samples / 3);
                    choose(&Input::new(selection, holdout, &curve).unwrap(), &options)
                }
            }
        };
        Self { choices: (0..RUNS).map(&mut choose_once).collect() }
    }

    fn share(&self, holds: impl Fn(&Choice) -> bool) -> f64 {
        self.choices.iter().filter(|choice| holds(choice)).count() as f64 / self.choices.len() as f64
    }

    fn share_of(&self, reason: Reason) -> f64 {
        self.share(|choice| choice.reason == reason)
    }
}

/// The most that a share of [`RUNS`] runs with this rate may be by chance: three standard deviations above it.
fn at_most(rate: f64) -> f64 {
    rate + 3.0 * (rate * (1.0 - rate) / RUNS as f64).sqrt()
}

/// Standard normal up to its tails: twelve uniform numbers less six (Irwin–Hall). No function of the platform in it. Four
/// of 16 bits to a word, which is fine enough and quick without optimisation; half a step each makes up for rounding down.
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let quarter = |word: u64| (word & 0xffff) + (word >> 16 & 0xffff) + (word >> 32 & 0xffff) + (word >> 48);
    let sum = quarter(rng.next_u64()) + quarter(rng.next_u64()) + quarter(rng.next_u64());
    (sum as f64 + 6.0) / 65_536.0 - 6.0
}

fn quick(seed: u64) -> Options {
    Options { seed, choice_resamples: count(20), resamples: count(500), ..Options::default() }
}

/// Six useful layers of twelve, the others with this effect.
fn below(above: f64) -> Vec<f64> {
    (0..12).map(|layer| if layer < 6 { 0.1 } else { above }).collect()
}

#[test]
fn an_adapter_useful_below_a_layer_is_cut_there() {
    // Six layers that do nothing but move samples about a little. The rule is never fooled downwards. Upwards it is
    // whenever the noise that the layers above add up to favours one of them by a standard error: a single one does by
    // chance 16 % of the time, and there are six. Measured: 65 % at 6.
    for samples in [60, 180] {
        let outcomes = Outcomes::simulate(1, samples, &below(0.0), 0.01, Noise::Normal);
        assert_eq!(outcomes.share(|choice| choice.one_se < 6), 0.0);
        let at = outcomes.share(|choice| choice.one_se == 6);
        assert!(at > 0.65 - 3.0 * 0.034, "{at}");
        // Of the cuts (a few searches keep all 12 layers), how many are shown not to be worse is a matter of power: 2 % of
        // the adapter's 0.6 nats are 0.012, the standard error of the difference is at most 0.01·√6/√60 = 0.0032, so the
        // lower end clears the margin with P(z > 1.96 − 3.8) = 97 % at least. Less three standard deviations of 1.2 %.
        let cuts = outcomes.share(|choice| choice.one_se < 12);
        let trim = outcomes.share(|choice| choice.verdict == Verdict::Trim);
        assert!(trim / cuts > 0.93, "{trim} of {cuts} with {samples}");
    }
    // With three times the noise z has to pass 1.96 − 1.26, and most cuts that are right are not shown to be: said so.
    let noisy = Outcomes::simulate(1, 180, &below(0.0), 0.03, Noise::Normal);
    let open = noisy.share_of(Reason::NotShown);
    assert!(open > 0.5 && noisy.share(|choice| choice.one_se < 6) == 0.0, "{open}");
    assert!(noisy.share(|choice| choice.abstains && choice.reason != Reason::NotShown) == 0.0);
}

#[test]
fn a_top_that_does_slight_harm_is_cut_off_exactly() {
    // Each upper layer costs 0.01 nats, 3.7 standard errors of a single difference.
    let at = Outcomes::simulate(2, 180, &below(-0.01), 0.03, Noise::Normal).share(|choice| choice.one_se == 6);
    assert!(at > 0.98, "{at}");
}

#[test]
fn an_adapter_useful_everywhere_is_kept() {
    for samples in [36, 120] {
        let outcomes = Outcomes::simulate(3, samples, &[0.1; 12], 0.1, Noise::Normal);
        // The last layer is worth 0.1 nats, six standard errors or more.
        let kept = outcomes.share_of(Reason::NoCut);
        assert!(kept > 0.98, "{kept}");
    }
}

#[test]
fn an_adapter_that_does_harm_everywhere_is_dropped() {
    for samples in [36, 120] {
        // All layers together cost 0.36 nats, five standard errors or more.
        let outcomes = Outcomes::simulate(4, samples, &[-0.03; 12], 0.1, Noise::Normal);
        let dropped = outcomes.share(|choice| choice.verdict == Verdict::UseBase && choice.layers_kept == 0);
        assert!(dropped > 0.98, "{dropped}");
    }
}

#[test]
fn an_adapter_that_does_nothing_is_left_open_until_that_is_shown() {
    for (samples, noise) in [(36, Noise::Normal), (120, Noise::Normal), (36, Noise::RareGains), (120, Noise::RareGains)]
    {
        let outcomes = Outcomes::simulate(5, samples, &[0.0; 12], 0.1, noise);
        // `trim` would claim something: 2.5 % at most for symmetric noise, and 5 % is what skewed noise is allowed.
        let trim = outcomes.share(|choice| choice.verdict == Verdict::Trim);
        assert!(trim <= at_most(0.05), "{trim}");
        if matches!(noise, Noise::Normal) {
            // A 5 % test finds it better or worse that often, and all else is open.
            let open = outcomes.share_of(Reason::AdapterNotShown);
            assert!(open >= 1.0 - at_most(0.05), "{open}");
        }
    }
    // Where samples hardly differ, that it does nothing is shown: 0.01 nats are nine standard errors.
    let quiet = Outcomes::simulate(5, 120, &[0.0; 12], 0.002, Noise::Normal);
    assert_eq!(quiet.share(|choice| choice.verdict == Verdict::UseBase), 1.0);
}

#[test]
fn skewed_samples_seldom_show_what_is_not_so() {
    // The upper layers do nothing on the mean; most samples are a little better without them, and a few much worse.
    for samples in [12, 36, 120] {
        let outcomes = Outcomes::simulate(8, samples, &below(0.0), 0.1, Noise::RareGains);
        let better = outcomes.share(|choice| choice.reason == Reason::Better && choice.one_se >= 6);
        assert!(better <= at_most(0.05), "{better} with {samples}");
    }
}

#[test]
fn an_overscaled_top_is_cut_with_a_gain() {
    let effects: Vec<f64> = (0..12).map(|layer| if layer < 8 { 0.1 } else { -0.1 }).collect();
    let outcomes = Outcomes::simulate(6, 180, &effects, 0.05, Noise::Normal);
    let better = outcomes.share(|choice| choice.reason == Reason::Better && choice.layers_kept == 8);
    assert!(better > 0.98, "{better}");
    // The truth is a gain of 0.4 nats; the interval should hold it 95 % of the time, a little less for percentiles.
    let holds = outcomes.share(|choice| choice.gain.low <= 0.4 && 0.4 <= choice.gain.high);
    assert!((0.88..0.99).contains(&holds), "{holds}");
}

#[test]
fn a_harmful_adapter_with_a_helpful_bottom_is_trimmed() {
    let effects: Vec<f64> = (0..12).map(|layer| if layer < 3 { 0.1 } else { -0.1 }).collect();
    for samples in [36, 180] {
        let outcomes = Outcomes::simulate(7, samples, &effects, 0.05, Noise::Normal);
        let trimmed = outcomes.share(|choice| choice.reason == Reason::BetterThanBase && choice.layers_kept == 3);
        assert!(trimmed > 0.98, "{trimmed}");
    }
}

// --- invariants ---

/// Multiples of 2⁻¹⁰ whose sums and differences are exact, so that equal means equal.
fn exact() -> impl Strategy<Value = f64> {
    (-4096..4096_i32).prop_map(|value| f64::from(value) / 1024.0)
}

fn rows(boundaries: usize) -> impl Strategy<Value = Vec<Vec<f64>>> {
    prop::collection::vec(prop::collection::vec(exact(), boundaries), 2..20)
}

/// Selection, held-out part and curve of an adapter with 1 to 7 layers.
fn parts() -> impl Strategy<Value = (Vec<Vec<f64>>, Vec<Vec<f64>>, Vec<f64>)> {
    (1..8_usize).prop_flat_map(|layers| (rows(layers + 1), rows(layers + 1), prop::collection::vec(exact(), layers)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn how_hard_a_sample_is_changes_nothing(
        (selection, holdout, curve) in parts(),
        shifts in prop::collection::vec(exact(), 20),
    ) {
        let shifted = |rows: &[Vec<f64>]| -> Vec<Vec<f64>> {
            let shift = |(row, by): (&Vec<f64>, &f64)| row.iter().map(|nll| nll + by).collect();
            rows.iter().zip(&shifts).map(shift).collect()
        };
        let before = choose(&Input::new(&selection, &holdout, &curve).unwrap(), &quick(1));
        let after = choose(&Input::new(&shifted(&selection), &shifted(&holdout), &curve).unwrap(), &quick(1));
        prop_assert_eq!(before, after);
    }

    #[test]
    fn the_order_of_samples_changes_no_pick(
        ((selection, holdout, curve), order) in parts().prop_flat_map(|parts| {
            let order: Vec<usize> = (0..parts.0.len()).collect();
            (Just(parts), Just(order).prop_shuffle())
        })
    ) {
        let permuted: Vec<&Vec<f64>> = order.iter().map(|&sample| &selection[sample]).collect();
        let before = choose(&Input::new(&selection, &holdout, &curve).unwrap(), &quick(1));
        let holdout: Vec<&Vec<f64>> = holdout.iter().collect();
        let after = choose(&Input::new(&permuted, &holdout, &curve).unwrap(), &quick(1));
        prop_assert_eq!((before.best, before.one_se), (after.best, after.one_se));
    }

    #[test]
    fn a_choice_agrees_with_itself((selection, holdout, curve) in parts(), seed: u64) {
        let layers = curve.len();
        let input = Input::new(&selection, &holdout, &curve).unwrap();
        let choice = choose(&input, &quick(seed));
        prop_assert_eq!(&choice, &choose(&input, &quick(seed)));

        prop_assert!(choice.one_se <= choice.best && choice.best <= layers);
        prop_assert!((1..=layers).contains(&choice.curve));
        prop_assert_eq!(choice.bootstrap.len(), layers + 1);
        prop_assert!((choice.bootstrap.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        let kept_fits = match choice.verdict {
            Verdict::Trim => 0 < choice.layers_kept && choice.layers_kept < layers,
            Verdict::KeepFull => choice.layers_kept == layers,
            Verdict::UseBase => choice.layers_kept == 0,
        };
        prop_assert!(kept_fits, "{:?}", choice);
        for gain in [choice.gain, choice.adapter_gain, choice.base_gain] {
            prop_assert!(gain.low <= gain.high && 0.0 < gain.p && gain.p <= 1.0, "{:?}", gain);
        }
        // Over the base by way of the full adapter: exact on these values but for three divisions.
        let sum = choice.gain.mean + choice.adapter_gain.mean;
        prop_assert!((sum - choice.base_gain.mean).abs() < 1e-12);
        prop_assert!(choice.retained.is_none() || choice.adapter_gain.low > 0.0);
        prop_assert_eq!(choice.abstains, choice.power.is_some());
        prop_assert!(!choice.abstains || choice.verdict == Verdict::KeepFull);

        // Finite, or JSON would turn it into null and not read back.
        let json = serde_json::to_string(&choice).unwrap();
        prop_assert_eq!(serde_json::from_str::<Choice>(&json).unwrap(), choice);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn folds_are_even_and_every_sample_is_left_out_once(samples in 2..60_usize, wanted in 0..12_usize, seed: u64) {
        let fold_of = folds(samples, wanted, seed);
        prop_assert_eq!(&fold_of, &folds(samples, wanted, seed));
        let last = fold_of.iter().max().unwrap();
        prop_assert_eq!(last + 1, wanted.clamp(2, samples));
        let sizes: Vec<usize> = (0..=*last).map(|fold| fold_of.iter().filter(|&&of| of == fold).count()).collect();
        prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
    }

    #[test]
    fn a_nested_choice_agrees_with_itself((rows, _, curve) in parts(), seed: u64, folds in 2..12_usize) {
        let layers = curve.len();
        let boundaries: Vec<usize> = (0..=layers).collect();
        let scores = Scores::new(Part::Selection, &boundaries, &rows).unwrap();
        let choice = choose_nested(&scores, &curve, layers, folds, &quick(seed)).unwrap();
        prop_assert_eq!(&choice, &choose_nested(&scores, &curve, layers, folds, &quick(seed)).unwrap());
        prop_assert_eq!(choice.one_se, scores.pick());
        prop_assert_eq!(choice.gain.samples, rows.len());
        prop_assert_eq!(choice.abstains, choice.power.is_some());
        // What samples of the other folds did not pick is never scored: with equal scores everywhere nothing is gained.
        if choice.one_se == layers {
            prop_assert_eq!(choice.gain.mean, 0.0);
        }
        let json = serde_json::to_string(&choice).unwrap();
        prop_assert_eq!(serde_json::from_str::<Choice>(&json).unwrap(), choice);
    }

    #[test]
    fn a_front_is_what_nothing_dominates(points in prop::collection::vec(prop::collection::vec(0..4_i32, 3), 0..12)) {
        let points: Vec<Vec<f64>> =
            points.iter().map(|point| point.iter().map(|&x| f64::from(x)).collect()).collect();
        let front = pareto(&points);
        prop_assert_eq!(points.is_empty(), !front.contains(&true));
        for (point, is_on_front) in points.iter().zip(&front) {
            // Of equal points all stay, or none.
            let twin = points.iter().position(|other| other == point).unwrap();
            prop_assert_eq!(front[twin], *is_on_front);
            let below = |other: &Vec<f64>| other != point && other.iter().zip(point).all(|(a, b)| a <= b);
            // What is off the front has something on the front below it.
            let beaten = points.iter().zip(&front).any(|(other, on)| *on && below(other));
            prop_assert_eq!(beaten, !*is_on_front);
        }
    }

    #[test]
    fn a_correlation_knows_order_only(values in prop::collection::vec((exact(), exact()), 2..20), seed: u64) {
        let (x, y): (Vec<f64>, Vec<f64>) = values.into_iter().unzip();
        let (rho, p) = spearman(&x, &y, count(200), seed);
        prop_assert!((-1.0..=1.0).contains(&rho) && 0.0 < p && p <= 1.0);
        prop_assert_eq!(spearman(&y, &x, count(200), seed).0, rho);
        let cubed: Vec<f64> = x.iter().map(|x| x * x * x).collect();
        prop_assert_eq!(spearman(&cubed, &y, count(200), seed), (rho, p));
        let turned: Vec<f64> = x.iter().map(|x| -x).collect();
        prop_assert_eq!(spearman(&turned, &y, count(200), seed), (-rho, p));
    }
}

#[test]
fn one_use_of_the_seed_does_not_change_another() {
    let case = golden().choices.swap_remove(5);
    let input = Input::new(&case.selection, &case.holdout, &case.curve).unwrap();
    let few = choose(&input, &quick(1));
    let many = choose(&input, &Options { choice_resamples: count(400), ..quick(1) });
    assert_ne!(few.bootstrap, many.bootstrap);
    assert_eq!(Choice { bootstrap: Vec::new(), ..few }, Choice { bootstrap: Vec::new(), ..many });
}

// --- what is refused ---

#[test]
fn unusable_input_is_refused_with_its_place() {
    let good = [vec![1.0, 2.0], vec![1.0, 3.0]];
    let problem = |selection: &[Vec<f64>], holdout: &[Vec<f64>], curve: &[f64]| {
        Input::new(selection, holdout, curve).expect_err("refused")
    };
    assert_eq!(problem(&good, &good, &[]), ChooseProblem::NoLayers);
    assert_eq!(problem(&good, &good[..1], &[0.5]), ChooseProblem::TooFewSamples { part: Part::Holdout, found: 1 });
    assert_eq!(
        problem(&[vec![1.0, 2.0], vec![1.0]], &good, &[0.5]),
        ChooseProblem::Length { part: Part::Selection, sample: 1, expected: 2, found: 1 }
    );
    assert_eq!(
        problem(&good, &[vec![1.0, 2.0], vec![f64::INFINITY, 1.0]], &[0.5]).to_string(),
        "held-out sample 1 (from 0) has an NLL of inf at boundary 0: expected a finite number"
    );
    assert!(matches!(problem(&good, &[vec![1.0, f64::NAN], vec![1.0, 1.0]], &[0.5]), ChooseProblem::Nll { .. }));
    assert!(matches!(problem(&good, &good, &[f64::NAN]), ChooseProblem::Curve { layer: 0, .. }));
    assert!(Input::new(&good, &good, &[0.5]).is_ok());
}

#[test]
fn the_largest_numbers_still_give_finite_answers() {
    let rows = [vec![1e100, -1e100, 0.0], vec![-1e100, 1e100, 1e-300], vec![1e100, 1e100, -1e100]];
    let choice = choose(&Input::new(&rows, &rows, &[1e100, -1e100]).unwrap(), &quick(1));
    let json = serde_json::to_string(&choice).unwrap();
    assert_eq!(serde_json::from_str::<Choice>(&json).unwrap(), choice);
}
