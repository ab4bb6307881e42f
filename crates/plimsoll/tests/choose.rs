//! `choose` against `scipy`, `statsmodels` and `numpy` (`reference/choose_golden.py`), against simulated truths, and its
//! invariants.

// A failed unwrap is a failed test.
#![allow(clippy::unwrap_used)]

use std::num::NonZeroUsize;

use plimsoll::choose::{
    Choice, ChooseProblem, Gain, Input, Interval, Options, Part, Reason, Scores, Validation, Verdict, choose,
    choose_nested, cross_validate, folds,
};
use plimsoll::stats::{
    Resampler, Stream, bootstrap_mean, holm, mean_and_se, normal_quantile, sign_flip_above, sign_flip_p,
    skewed_t_above, spearman,
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

/// Where SciPy counts all patterns and we draw some, ours is a binomial share: five standard errors.
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

const SIMULATIONS: usize = 300;

/// What came out of [`SIMULATIONS`] searches in a world whose layers have a known effect.
struct Outcomes {
    choices: Vec<Choice>,
}

impl Outcomes {
    /// 60 selection and 60 held-out samples. Layer l lowers a sample's NLL by `effects[l]` on average, with a standard
    /// deviation of `noise` between samples; the samples themselves differ by 0.6 nats.
    fn simulate(seed: u64, effects: &[f64], noise: f64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut part = || -> Vec<Vec<f64>> {
            (0..60)
                .map(|_| {
                    let mut nll = 2.0 + 0.6 * normal(&mut rng);
                    let mut row = vec![nll];
                    for effect in effects {
                        nll -= effect + noise * normal(&mut rng);
                        row.push(nll);
                    }
                    row
                })
                .collect()
        };
        let curve: Vec<f64> = (0..effects.len()).map(|layer| layer as f64).collect();
        let choices = (0..SIMULATIONS)
            .map(|simulation| choose(&Input::new(&part(), &part(), &curve).unwrap(), &quick(simulation as u64)))
            .collect();
        Self { choices }
    }

    fn share(&self, holds: impl Fn(&Choice) -> bool) -> f64 {
        self.choices.iter().filter(|choice| holds(choice)).count() as f64 / self.choices.len() as f64
    }
}

/// Standard normal up to its tails: twelve uniform numbers less six (Irwin–Hall). No function of the platform in it.
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    (0..12).map(|_| (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64).sum::<f64>() - 6.0
}

fn quick(seed: u64) -> Options {
    Options { seed, choice_resamples: count(20), resamples: count(500), ..Options::default() }
}

#[test]
fn an_adapter_useful_below_a_layer_is_cut_there() {
    // Six useful layers, six that do nothing but move samples about a little.
    let effects: Vec<f64> = (0..12).map(|layer| if layer < 6 { 0.1 } else { 0.0 }).collect();
    let outcomes = Outcomes::simulate(1, &effects, 0.01);
    // The rule is never fooled downwards. Upwards it is whenever the noise that the layers above add up to favours one
    // of them by a standard error: a single one does by chance 16 % of the time, and there are six. Measured: 65 % at
    // 6.
    let at = outcomes.share(|choice| choice.one_se == 6);
    let below = outcomes.share(|choice| choice.one_se < 6);
    assert_eq!(below, 0.0);
    assert!(at > 0.55, "{at}");
    // Of the cuts (a few searches keep all 12 layers), how many are shown not to be worse is a matter of power: 2 % of
    // the adapter's 0.6 nats are 0.012, the standard error of the difference is at most 0.01·√6/√60 = 0.0032, so the
    // lower end clears the margin with P(z > 1.96 − 3.8) = 97 % at least. Less two binomial errors, of 1 % each.
    let cuts = outcomes.share(|choice| choice.one_se < 12);
    let trim = outcomes.share(|choice| choice.verdict == Verdict::Trim);
    assert!(trim / cuts > 0.95, "{trim} of {cuts}");
    // With three times the noise z has to pass 1.96 − 1.26, and most cuts that are right are not shown to be.
    let noisy = Outcomes::simulate(1, &effects, 0.03);
    let kept = noisy.share(|choice| choice.verdict == Verdict::KeepFull && choice.one_se < 12);
    assert!(kept > 0.5 && noisy.share(|choice| choice.one_se < 6) == 0.0, "{kept}");
}

#[test]
fn a_top_that_does_slight_harm_is_cut_off_exactly() {
    // Each upper layer costs 0.01 nats, 2.6 standard errors of a single difference.
    let effects: Vec<f64> = (0..12).map(|layer| if layer < 6 { 0.1 } else { -0.01 }).collect();
    let at = Outcomes::simulate(2, &effects, 0.03).share(|choice| choice.one_se == 6);
    assert!(at > 0.98, "{at}");
}

#[test]
fn an_adapter_useful_everywhere_is_kept() {
    let outcomes = Outcomes::simulate(3, &[0.1; 12], 0.1);
    let kept = outcomes.share(|choice| choice.verdict == Verdict::KeepFull && choice.reason == Reason::NoCut);
    assert!(kept > 0.99, "{kept}");
}

#[test]
fn an_adapter_that_does_harm_everywhere_is_dropped() {
    let outcomes = Outcomes::simulate(4, &[-0.03; 12], 0.1);
    let dropped = outcomes.share(|choice| choice.verdict == Verdict::UseBase && choice.layers_kept == 0);
    assert!(dropped > 0.99, "{dropped}");
}

#[test]
fn an_adapter_that_does_nothing_is_hardly_ever_trimmed() {
    // Whether the mean is above 0 is a coin's toss, hence `use-base` half of the time and `keep-full` the other half. A
    // verdict of `trim` would claim something: by 2.5 % tests it does so seldom.
    let outcomes = Outcomes::simulate(5, &[0.0; 12], 0.1);
    let [trim, base] =
        [Verdict::Trim, Verdict::UseBase].map(|verdict| outcomes.share(|choice| choice.verdict == verdict));
    assert!(trim < 0.05, "{trim}");
    assert!((0.35..0.65).contains(&base), "{base}");
}

#[test]
fn an_overscaled_top_is_cut_with_a_gain() {
    let effects: Vec<f64> = (0..12).map(|layer| if layer < 8 { 0.1 } else { -0.1 }).collect();
    let outcomes = Outcomes::simulate(6, &effects, 0.05);
    let better = outcomes
        .share(|choice| choice.verdict == Verdict::Trim && choice.reason == Reason::Better && choice.layers_kept == 8);
    // The truth is a gain of 0.4 nats; the interval should hold it 95 % of the time, a little less for percentiles.
    let holds = outcomes.share(|choice| choice.gain.low <= 0.4 && 0.4 <= choice.gain.high);
    assert!(better > 0.99, "{better}");
    assert!((0.88..0.99).contains(&holds), "{holds}");
}

#[test]
fn a_harmful_adapter_with_a_helpful_bottom_is_trimmed() {
    let effects: Vec<f64> = (0..12).map(|layer| if layer < 3 { 0.1 } else { -0.1 }).collect();
    let outcomes = Outcomes::simulate(7, &effects, 0.05);
    let trimmed = outcomes.share(|choice| choice.reason == Reason::BetterThanBase && choice.layers_kept == 3);
    assert!(trimmed > 0.99, "{trimmed}");
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

        // Finite, or JSON would turn it into null and not read back.
        let json = serde_json::to_string(&choice).unwrap();
        prop_assert_eq!(serde_json::from_str::<Choice>(&json).unwrap(), choice);
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
