//! `choose` compared with `scipy`, `statsmodels` and `numpy` (`reference/choose_golden.py`) and with simulated
//! adapters; and its invariants.

// A failed unwrap is a failed test.
#![allow(clippy::unwrap_used)]

use std::num::NonZeroUsize;

use plimsoll_stats::choose::sufficient::{Cut, Sequence, Stop};
use plimsoll_stats::choose::{
    self, Choice, ChooseOptions, ChooseProblem, Gain, Input, Interval, JudgingSamples, Margin, Part, Reason, Scores,
    Verdict, choose_nested, cross_validate, folds_for,
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
    sufficient: Vec<SufficientCase>,
    looks: Vec<LooksCase>,
}

#[derive(Deserialize)]
struct LooksCase {
    alpha: f64,
    share: f64,
    levels: [f64; 2],
}

#[derive(Deserialize)]
struct SufficientCase {
    name: String,
    scores: Vec<Vec<f64>>,
    seed: u64,
    resamples: NonZeroUsize,
    answers: Vec<SufficientAnswer>,
    lows: Vec<f64>,
}

#[derive(Deserialize)]
struct SufficientAnswer {
    margin: Margin,
    layers_kept: usize,
    p: Option<f64>,
    stopped: Option<f64>,
}

/// The choice on an input in which the pick has held-out scores.
fn choose(input: &Input, options: &ChooseOptions) -> Choice {
    choose::choose(input, options).unwrap()
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

/// Asserts that two values are equal up to the rounding of sums in another order. Values are of the order of 1, and at
/// most a few hundred are added.
fn assert_same(what: &str, ours: f64, theirs: f64) {
    assert!((ours - theirs).abs() <= 1e-12 * (1.0 + theirs.abs()), "{what}: {ours}, reference {theirs}");
}

fn count(resamples: usize) -> NonZeroUsize {
    NonZeroUsize::new(resamples).unwrap()
}

// --- Reference values ---

#[test]
fn mean_and_error_are_those_of_scipy_and_statsmodels() {
    let golden = golden().mean_and_se;
    let (mean, se) = mean_and_se(&golden.values);
    assert_same("mean", mean, golden.mean);
    assert_same("scipy.stats.sem", se, golden.se_scipy);
    assert_same("DescrStatsW.std_mean", se, golden.se_statsmodels);
}

#[test]
fn resamples_are_those_of_another_chacha_implementation() {
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

/// Asserts that a p-value is that of `scipy`, which counts all patterns. Ours is exact, or a binomial share of drawn
/// patterns: then within five standard errors.
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
        // The tail at 19 standard errors is 1e-8: a relative tolerance, with the rounding of t in the exponent.
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
        // statsmodels does not clamp an end at 0 or 1.
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
        let options = ChooseOptions { resamples: case.resamples, ..quick(case.seed) };
        let ours =
            choose_nested(&scores, case.curve.len(), &case.curve, case.curve.len(), case.folds, &options).unwrap();
        assert_eq!((ours.best, ours.one_se), (case.best, case.one_se), "{name}");
        assert_eq!(ours.validation, JudgingSamples::Nested { folds: case.folds.min(case.scores.len()) }, "{name}");
        assert_gain(&format!("{name}: gain"), ours.gain, case.gain);
        assert_gain(&format!("{name}: adapter gain"), ours.adapter_gain, case.adapter_gain);
        assert_gain(&format!("{name}: base gain"), ours.base_gain, case.base_gain);
    }
}

#[test]
fn levels_of_two_looks_are_those_of_scipy() {
    for LooksCase { alpha, share, levels } in golden().looks {
        let ours = choose::two_looks(alpha, share);
        for (ours, expected) in ours.into_iter().zip(levels) {
            // SciPy integrates to about 1e-9.
            assert!((ours - expected).abs() < 1e-8, "{alpha}, {share}: {ours}, expected {expected}");
        }
    }
}

#[test]
fn sufficient_layers_are_those_of_scipy() {
    for case in golden().sufficient {
        let name = &case.name;
        let options = ChooseOptions { resamples: case.resamples, ..quick(case.seed) };
        let whole = case.scores[0].len() - 1;
        let column = |k: usize| case.scores.iter().map(|row| row[k]).collect::<Vec<f64>>();
        let cut = |layers_kept| Cut { layers_kept, loss: Some(column(layers_kept)) };
        let cuts: Vec<Cut> = (1..whole).rev().map(cut).collect();
        let (base, full) = (column(0), column(whole));
        let sequence = Sequence::new(&base, &full, whole, &cuts, &options);
        for expected in &case.answers {
            let ours = sequence.sufficient(expected.margin);
            let what = format!("{name}: {:?}", expected.margin);
            assert_eq!(ours.layers_kept, expected.layers_kept, "{what}");
            let stopped = match ours.stop {
                Stop::NotShown { layers_kept, p } | Stop::LosesMore { layers_kept, p } => Some((layers_kept, p)),
                _ => None,
            };
            for (ours, theirs) in [(ours.p, expected.p), (stopped.map(|(_, p)| p), expected.stopped)] {
                assert_eq!(ours.is_some(), theirs.is_some(), "{what}");
                assert_same(&what, ours.unwrap_or_default(), theirs.unwrap_or_default());
            }
            assert!(stopped.is_none_or(|(next, _)| next < ours.layers_kept), "{what}");
        }
        // The reference looks for the end of the interval in steps of 0.001.
        let lows: Vec<f64> = sequence.shares().iter().map(|share| share.retained.low).collect();
        assert_eq!(lows.len(), case.lows.len(), "{name}");
        for (ours, theirs) in lows.iter().zip(&case.lows) {
            assert!((ours - theirs).abs() < 0.0015, "{name}: {ours}, {theirs}");
        }
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
        assert_eq!(choose(&input, &quick(1)).curve, Some(golden.change_point), "{:?}", golden.curve);
    }
}

#[test]
fn choices_are_those_of_numpy_on_the_same_random_numbers() {
    for case in golden().choices {
        let input = Input::new(&case.selection, &case.holdout, &case.curve).unwrap();
        let options = ChooseOptions {
            seed: case.seed,
            choice_resamples: case.choice_resamples,
            resamples: case.resamples,
            ..ChooseOptions::default()
        };
        let ours = choose(&input, &options);
        let name = &case.name;
        assert_eq!((ours.best, ours.one_se, ours.curve), (case.best, case.one_se, Some(case.change_point)), "{name}");
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

// --- Simulated adapters ---
//
// A small part of what `examples/simulate.rs` measures, enough to detect a broken rule. Bounds are three binomial
// standard deviations of 200 runs away from the stated rate.

const RUNS: usize = 200;

/// Distribution of the effects of layers over samples, with standard deviation 1.
#[derive(Clone, Copy)]
enum Noise {
    /// Normal, independent for each layer.
    Normal,
    /// Most samples lose a little by a layer, and a few gain much: a skewness of 6. One number for all layers.
    RareGains,
}

/// Simulates the NLL of a sample at every boundary. Layer l lowers it by `effects[l]` on average, with a standard
/// deviation of `noise` between samples. The NLL of the base model has a standard deviation of 0.6 nats.
fn sample(rng: &mut ChaCha8Rng, effects: &[f64], noise: f64, kind: Noise) -> Vec<f64> {
    let mut nll = 2.0 + 0.6 * normal(rng);
    let mut row = vec![nll];
    // Standard log-normal minus its mean, divided by its standard deviation.
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

/// Results of [`RUNS`] simulated searches with known effects of layers. Samples are divided as in a search.
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
            let options = ChooseOptions { resamples: count(99), choice_resamples: count(1), ..quick(seed as u64) };
            match folds_for(samples) {
                Some(folds) => {
                    let scores = Scores::new(Part::Selection, &boundaries, &rows).unwrap();
                    choose_nested(&scores, effects.len(), &curve, effects.len(), folds, &options).unwrap()
                }
                None => {
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

/// Three standard deviations above a rate: the largest share of [`RUNS`] runs that is accepted.
fn at_most(rate: f64) -> f64 {
    rate + 3.0 * (rate * (1.0 - rate) / RUNS as f64).sqrt()
}

/// Standard normal except in its tails: the sum of twelve uniform numbers minus six (Irwin–Hall), without functions of
/// the platform. Four numbers of 16 bits per word are fine enough, and fast without optimisation. Half a step each
/// corrects the rounding down.
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let quarter = |word: u64| (word & 0xffff) + (word >> 16 & 0xffff) + (word >> 32 & 0xffff) + (word >> 48);
    let sum = quarter(rng.next_u64()) + quarter(rng.next_u64()) + quarter(rng.next_u64());
    (sum as f64 + 6.0) / 65_536.0 - 6.0
}

fn quick(seed: u64) -> ChooseOptions {
    ChooseOptions { seed, choice_resamples: count(20), resamples: count(500), ..ChooseOptions::default() }
}

/// The effects of twelve layers: 0.1 nats for the lower six, `upper` for the others.
fn lower_half(upper: f64) -> Vec<f64> {
    (0..12).map(|layer| if layer < 6 { 0.1 } else { upper }).collect()
}

#[test]
fn an_adapter_useful_below_a_layer_is_cut_there() {
    // The upper six layers only add noise. The rule never keeps fewer than 6 layers. It keeps more if the summed noise
    // of the upper layers favours one of them by a standard error: for a single layer the chance is 16 %, and there are
    // six. Measured: 65 % at 6.
    for samples in [60, 180] {
        let outcomes = Outcomes::simulate(1, samples, &lower_half(0.0), 0.01, Noise::Normal);
        assert_eq!(outcomes.share(|choice| choice.one_se < 6), 0.0);
        let exact = outcomes.share(|choice| choice.one_se == 6);
        assert!(exact > 0.65 - 3.0 * 0.034, "{exact}");
        // The share of the cuts (a few searches keep all 12 layers) that are shown not to be worse depends on the
        // power: 2 % of the adapter's 0.6 nats are 0.012, the standard error of the difference is at most 0.01·√6/√60 =
        // 0.0032, so the lower end is above the margin with a probability of at least P(z > 1.96 − 3.8) = 97 %. The
        // bound is three standard deviations of 1.2 % below that.
        let cuts = outcomes.share(|choice| choice.one_se < 12);
        let trim = outcomes.share(|choice| choice.verdict == Verdict::Trim);
        assert!(trim / cuts > 0.93, "{trim} of {cuts} with {samples}");
    }
    // With three times the noise z must exceed 1.96 − 1.26: most correct cuts are not shown to be, and the verdict is
    // open.
    let noisy = Outcomes::simulate(1, 180, &lower_half(0.0), 0.03, Noise::Normal);
    let open = noisy.share_of(Reason::NotShown);
    assert!(open > 0.5 && noisy.share(|choice| choice.one_se < 6) == 0.0, "{open}");
    assert!(noisy.share(|choice| choice.abstains && choice.reason != Reason::NotShown) == 0.0);
}

#[test]
fn slightly_harmful_upper_layers_are_dropped_exactly() {
    // Each upper layer costs 0.01 nats, 3.7 standard errors of a single difference.
    let outcomes = Outcomes::simulate(2, 180, &lower_half(-0.01), 0.03, Noise::Normal);
    let exact = outcomes.share(|choice| choice.one_se == 6);
    assert!(exact > 0.98, "{exact}");
}

#[test]
fn an_adapter_useful_everywhere_is_kept() {
    for samples in [36, 120] {
        let outcomes = Outcomes::simulate(3, samples, &[0.1; 12], 0.1, Noise::Normal);
        // The last layer lowers the NLL by 0.1 nats, six standard errors or more.
        let kept = outcomes.share_of(Reason::NoCut);
        assert!(kept > 0.98, "{kept}");
    }
}

#[test]
fn an_adapter_with_only_harmful_layers_is_dropped() {
    for samples in [36, 120] {
        // All layers together cost 0.36 nats, five standard errors or more.
        let outcomes = Outcomes::simulate(4, samples, &[-0.03; 12], 0.1, Noise::Normal);
        let dropped = outcomes.share(|choice| choice.verdict == Verdict::UseBase && choice.layers_kept == 0);
        assert!(dropped > 0.98, "{dropped}");
    }
}

#[test]
fn an_adapter_without_effect_is_dropped_only_if_that_is_shown() {
    for (samples, noise) in [(36, Noise::Normal), (120, Noise::Normal), (36, Noise::RareGains), (120, Noise::RareGains)]
    {
        let outcomes = Outcomes::simulate(5, samples, &[0.0; 12], 0.1, noise);
        // `trim` would be a false claim: at most 2.5 % for symmetric noise; for skewed noise 5 % are accepted.
        let trim = outcomes.share(|choice| choice.verdict == Verdict::Trim);
        assert!(trim <= at_most(0.05), "{trim}");
        if matches!(noise, Noise::Normal) {
            // A 5 % test finds it better or worse in 5 % of the runs; all others are open.
            let open = outcomes.share_of(Reason::AdapterNotShown);
            assert!(open >= 1.0 - at_most(0.05), "{open}");
        }
    }
    // With little noise it is shown to have no effect: 0.01 nats are nine standard errors.
    let precise = Outcomes::simulate(5, 120, &[0.0; 12], 0.002, Noise::Normal);
    assert_eq!(precise.share(|choice| choice.verdict == Verdict::UseBase), 1.0);
}

#[test]
fn skewed_samples_seldom_give_false_claims() {
    // The mean effect of the upper layers is 0; most samples are a little better without them, and a few much worse.
    for samples in [12, 36, 120] {
        let outcomes = Outcomes::simulate(8, samples, &lower_half(0.0), 0.1, Noise::RareGains);
        let better = outcomes.share(|choice| choice.reason == Reason::Better && choice.one_se >= 6);
        assert!(better <= at_most(0.05), "{better} with {samples}");
    }
}

#[test]
fn harmful_upper_layers_are_dropped_with_a_gain() {
    let effects: Vec<f64> = (0..12).map(|layer| if layer < 8 { 0.1 } else { -0.1 }).collect();
    let outcomes = Outcomes::simulate(6, 180, &effects, 0.05, Noise::Normal);
    let better = outcomes.share(|choice| choice.reason == Reason::Better && choice.layers_kept == 8);
    assert!(better > 0.98, "{better}");
    // The true gain is 0.4 nats; the interval should contain it in 95 % of the runs, a percentile interval in a few
    // less.
    let holds = outcomes.share(|choice| choice.gain.low <= 0.4 && 0.4 <= choice.gain.high);
    assert!((0.88..0.99).contains(&holds), "{holds}");
}

#[test]
fn a_harmful_adapter_with_useful_lower_layers_is_trimmed() {
    let effects: Vec<f64> = (0..12).map(|layer| if layer < 3 { 0.1 } else { -0.1 }).collect();
    for samples in [36, 180] {
        let outcomes = Outcomes::simulate(7, samples, &effects, 0.05, Noise::Normal);
        let trimmed = outcomes.share(|choice| choice.reason == Reason::BetterThanBase && choice.layers_kept == 3);
        assert!(trimmed > 0.98, "{trimmed}");
    }
}

// --- Invariants ---

/// Multiples of 2⁻¹⁰: their sums and differences are exact, and can be compared with `==`.
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
    fn a_shift_of_all_scores_of_a_sample_does_not_change_the_choice(
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
    fn the_order_of_samples_does_not_change_the_pick(
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
    fn a_choice_is_reproducible_and_consistent((selection, holdout, curve) in parts(), seed: u64) {
        let layers = curve.len();
        let input = Input::new(&selection, &holdout, &curve).unwrap();
        let choice = choose(&input, &quick(seed));
        prop_assert_eq!(&choice, &choose(&input, &quick(seed)));

        prop_assert!(choice.one_se <= choice.best && choice.best <= layers);
        prop_assert!(choice.curve.is_some_and(|curve| (1..=layers).contains(&curve)));
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
        // The sum of the two gains is the gain over the base model: exact on these values except for three divisions.
        let sum = choice.gain.mean + choice.adapter_gain.mean;
        prop_assert!((sum - choice.base_gain.mean).abs() < 1e-12);
        prop_assert!(choice.retained.is_none() || choice.adapter_gain.low > 0.0);
        prop_assert_eq!(choice.abstains, choice.power.is_some());
        prop_assert!(!choice.abstains || choice.verdict == Verdict::KeepFull);

        // All numbers are finite: JSON would write others as null.
        let json = serde_json::to_string(&choice).unwrap();
        prop_assert_eq!(serde_json::from_str::<Choice>(&json).unwrap(), choice);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn folds_have_equal_sizes_and_every_sample_is_in_one(samples in 2..60_usize, wanted in 0..12_usize, seed: u64) {
        let fold_of = folds(samples, wanted, seed);
        prop_assert_eq!(&fold_of, &folds(samples, wanted, seed));
        let last = fold_of.iter().max().unwrap();
        prop_assert_eq!(last + 1, wanted.clamp(2, samples));
        let sizes: Vec<usize> = (0..=*last).map(|fold| fold_of.iter().filter(|&&of| of == fold).count()).collect();
        prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
    }

    #[test]
    fn a_nested_choice_is_reproducible_and_consistent(
        (rows, _, curve) in parts(),
        seed: u64,
        folds in 2..12_usize,
    ) {
        let layers = curve.len();
        let boundaries: Vec<usize> = (0..=layers).collect();
        let scores = Scores::new(Part::Selection, &boundaries, &rows).unwrap();
        let choice = choose_nested(&scores, layers, &curve, layers, folds, &quick(seed)).unwrap();
        prop_assert_eq!(&choice, &choose_nested(&scores, layers, &curve, layers, folds, &quick(seed)).unwrap());
        prop_assert_eq!(choice.one_se, scores.pick());
        prop_assert_eq!(choice.gain.samples, rows.len());
        prop_assert_eq!(choice.abstains, choice.power.is_some());
        // A fold is scored only under the boundary that the other folds picked: with equal scores there is no gain.
        if choice.one_se == layers {
            prop_assert_eq!(choice.gain.mean, 0.0);
        }
        let json = serde_json::to_string(&choice).unwrap();
        prop_assert_eq!(serde_json::from_str::<Choice>(&json).unwrap(), choice);
    }

    #[test]
    fn a_pareto_front_has_the_points_that_none_dominates(
        points in prop::collection::vec(prop::collection::vec(0..4_i32, 3), 0..12),
    ) {
        let points: Vec<Vec<f64>> =
            points.iter().map(|point| point.iter().map(|&x| f64::from(x)).collect()).collect();
        let front = pareto(&points);
        prop_assert_eq!(points.is_empty(), !front.contains(&true));
        for (point, is_on_front) in points.iter().zip(&front) {
            // Of equal points all are on the front, or none.
            let twin = points.iter().position(|other| other == point).unwrap();
            prop_assert_eq!(front[twin], *is_on_front);
            let below = |other: &Vec<f64>| other != point && other.iter().zip(point).all(|(a, b)| a <= b);
            // A point that is not on the front is dominated by one that is.
            let is_dominated = points.iter().zip(&front).any(|(other, on)| *on && below(other));
            prop_assert_eq!(is_dominated, !*is_on_front);
        }
    }

    #[test]
    fn a_rank_correlation_depends_on_order_only(values in prop::collection::vec((exact(), exact()), 2..20), seed: u64) {
        let (x, y): (Vec<f64>, Vec<f64>) = values.into_iter().unzip();
        let (rho, p) = spearman(&x, &y, count(200), seed);
        prop_assert!((-1.0..=1.0).contains(&rho) && 0.0 < p && p <= 1.0);
        prop_assert_eq!(spearman(&y, &x, count(200), seed).0, rho);
        let cubed: Vec<f64> = x.iter().map(|x| x * x * x).collect();
        prop_assert_eq!(spearman(&cubed, &y, count(200), seed), (rho, p));
        let negated: Vec<f64> = x.iter().map(|x| -x).collect();
        prop_assert_eq!(spearman(&negated, &y, count(200), seed), (-rho, p));
    }
}

#[test]
fn random_streams_are_independent_of_each_other() {
    let case = golden().choices.swap_remove(5);
    let input = Input::new(&case.selection, &case.holdout, &case.curve).unwrap();
    let few = choose(&input, &quick(1));
    let many = choose(&input, &ChooseOptions { choice_resamples: count(400), ..quick(1) });
    assert_ne!(few.bootstrap, many.bootstrap);
    assert_eq!(Choice { bootstrap: Vec::new(), ..few }, Choice { bootstrap: Vec::new(), ..many });
}

// --- Refused input ---

#[test]
fn invalid_input_is_refused_with_its_place() {
    let good = [vec![1.0, 2.0], vec![1.0, 3.0]];
    let problem = |selection: &[Vec<f64>], holdout: &[Vec<f64>], curve: &[f64]| {
        Input::new(selection, holdout, curve).expect_err("refused")
    };
    assert_eq!(problem(&[vec![1.0], vec![1.0]], &good, &[]), ChooseProblem::NoLayers);
    let scores = |part| Scores::new(part, &[0, 1], &good).unwrap();
    assert_eq!(
        Input::of(scores(Part::Selection), scores(Part::Holdout), 1, &[0.5, 0.6]).expect_err("refused"),
        ChooseProblem::CurveLength { found: 2, layers: 1 }
    );
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
    // Without a curve only the change point is missing.
    let [with, without] = [&[0.5][..], &[]].map(|curve| choose(&Input::new(&good, &good, curve).unwrap(), &quick(1)));
    assert_eq!((with.curve, without.curve), (Some(1), None));
    assert_eq!(Choice { curve: None, ..with }, without);
}

#[test]
fn the_largest_numbers_give_finite_results() {
    let rows = [vec![1e100, -1e100, 0.0], vec![-1e100, 1e100, 1e-300], vec![1e100, 1e100, -1e100]];
    let choice = choose(&Input::new(&rows, &rows, &[1e100, -1e100]).unwrap(), &quick(1));
    let json = serde_json::to_string(&choice).unwrap();
    assert_eq!(serde_json::from_str::<Choice>(&json).unwrap(), choice);
}
