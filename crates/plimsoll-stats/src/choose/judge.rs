//! The verdict on a candidate, by samples that had no part in picking it.
//!
//! The base model, the full adapter and the cut are compared in pairs, by sample. A difference is *shown* if its
//! p-value is below α and its 95 % bootstrap interval excludes 0. The p-value is the larger of two: the randomisation
//! test ([`stats::sign_flip_p`]), and the t-test corrected for skewness ([`stats::skewed_t_above`]); each is wrong in
//! cases in which the other is right. With fewer than 20 samples p must be below α/2, because such samples show too
//! little of the tails of the distribution. A verdict that rests on two comparisons needs both to be shown, which needs
//! no correction for their number (an intersection-union test: Berger, Technometrics 24:4, 1982). The first that holds
//! is the verdict:
//!
//! 1. `trim`, [`Reason::Better`]: the cut is shown to be better than the full adapter, whose mean is better than the
//!    base model's.
//! 2. `trim`, [`Reason::BetterThanBase`]: the cut is shown to be better than the full adapter and than the base model.
//! 3. `use-base`: the adapter is shown to be worse than the base model, or to gain less than
//!    [`ChooseOptions::negligible`].
//! 4. `keep-full`, abstaining: the adapter is not shown to be better than the base model. Then its cuts cannot be
//!    judged either: with such samples any cut would be "not worse" (assay sensitivity; Piaggio and others, "Reporting
//!    of Noninferiority and Equivalence Randomized Trials", JAMA 308:24, 2012).
//! 5. `keep-full`, [`Reason::NoCut`]: the candidate is the full adapter.
//! 6. `trim`, [`Reason::NotWorse`]: the cut is shown not to be worse by the [`Margin`].
//! 7. `keep-full`, [`Reason::Worse`]: the cut is shown to be worse.
//! 8. `keep-full`, abstaining, [`Reason::NotShown`]: none of these.
//!
//! *Not worse* is a comparison of one contrast per sample with 0. For a share m of the adapter's gain the contrast is
//! `(base − cut) − m·(base − full)`; if the adapter gains, its mean is above 0 exactly if the retained share is above m
//! (Fieller's method for ratios, Journal of the Royal Statistical Society B 16:2, 1954). For a loss of δ nats it is
//! `full − cut + δ`. The test is one-sided at α/2, like the lower end of a 95 % interval, and the interval must agree.

use serde::{Deserialize, Serialize};

use super::choice::{ChooseOptions, Gain, Interval, Margin, Power, Reason, Verdict};
use crate::{self as stats, Resampler, Stream};

/// With fewer samples than this, the level of a test is α/2.
const FEW: usize = 20;

/// The kind of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CutKind {
    /// A part of the adapter.
    Cut,
    /// The whole adapter with other LoRA strengths. It saves no bytes, so it must be better.
    Changed,
    /// The full adapter: there is no cut. The scores are those of the full adapter.
    Whole,
    /// The base model. The scores are those of the base model.
    Nothing,
}

impl CutKind {
    /// The kind of a boundary. A boundary of `whole` layers or more drops nothing.
    pub fn of(boundary: usize, whole: usize) -> Self {
        match boundary {
            0 => Self::Nothing,
            _ if boundary >= whole => Self::Whole,
            _ => Self::Cut,
        }
    }
}

/// A verdict with its comparisons. The fields have the same meaning as in [`Choice`](super::Choice).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// The reason of the verdict.
    pub reason: Reason,
    /// Whether the samples do not decide.
    pub abstains: bool,
    /// The gain of the cut over the full adapter.
    pub gain: Gain,
    /// The gain of the full adapter over the base model.
    pub adapter_gain: Gain,
    /// The gain of the cut over the base model.
    pub base_gain: Gain,
    /// The share of the adapter's gain that the cut retains, if the interval of that gain is above 0.
    pub retained: Option<Interval>,
    /// The power of the test, if the samples do not decide.
    pub power: Option<Power>,
}

/// Judges a cut by samples that had no part in picking it. Each list has one NLL per sample: under the base model, the
/// full adapter and the cut.
///
/// # Panics
/// If the lists differ in length, or there are fewer than two samples.
pub fn judge(base: &[f64], full: &[f64], cut: &[f64], kind: CutKind, options: &ChooseOptions) -> Judgement {
    assert!(base.len() == full.len() && base.len() == cut.len(), "lists of different lengths");
    assert!(base.len() >= super::scores::MIN_SAMPLES, "{} judging samples", base.len());
    let gains = differences(full, cut);
    let adapter_gains = differences(base, full);
    let base_gains = differences(base, cut);
    let gain = measure(&gains, options);
    let adapter_gain = measure(&adapter_gains, options);
    let base_gain = measure(&base_gains, options);
    let retained = (adapter_gain.low > 0.0).then(|| retained(&base_gains, &adapter_gains, options)).flatten();

    let is_better = matches!(kind, CutKind::Cut | CutKind::Changed) && is_shown(&gain, options);
    let is_adapter_better = is_shown(&adapter_gain, options);
    let is_negligible = || {
        let bound = options.negligible;
        let below: Vec<f64> = adapter_gains.iter().map(|gain| bound - gain).collect();
        adapter_gain.high < bound && is_above(&below, options)
    };
    let is_not_worse = || {
        // No margin may accept a cut that is worse than the base model.
        let is_candidate = kind == CutKind::Cut && base_gain.mean > 0.0;
        let by_interval = match options.margin {
            Margin::Share(share) => retained.is_some_and(|retained| retained.low > share),
            Margin::Nats(nats) => gain.low > -nats,
        };
        let contrast: Vec<f64> = match options.margin {
            Margin::Share(share) => {
                base_gains.iter().zip(&adapter_gains).map(|(cut, full)| cut - share * full).collect()
            }
            Margin::Nats(nats) => gains.iter().map(|gain| gain + nats).collect(),
        };
        is_candidate && by_interval && is_above(&contrast, options)
    };

    let (verdict, reason, undecided) = if is_better && adapter_gain.mean > 0.0 {
        (Verdict::Trim, Reason::Better, None)
    } else if is_better && is_shown(&base_gain, options) {
        (Verdict::Trim, Reason::BetterThanBase, None)
    } else if is_shown_worse(&adapter_gain, options) || is_negligible() {
        (Verdict::UseBase, Reason::AdapterNotBetter, None)
    } else if !is_adapter_better {
        (Verdict::KeepFull, Reason::AdapterNotShown, Some(&adapter_gains))
    } else if kind == CutKind::Whole {
        (Verdict::KeepFull, Reason::NoCut, None)
    } else if is_not_worse() {
        (Verdict::Trim, Reason::NotWorse, None)
    } else if is_shown_worse(&gain, options) {
        (Verdict::KeepFull, Reason::Worse, None)
    } else {
        (Verdict::KeepFull, Reason::NotShown, Some(&gains))
    };
    Judgement {
        verdict,
        reason,
        abstains: undecided.is_some(),
        gain,
        adapter_gain,
        base_gain,
        retained,
        power: undecided.map(|differences| power(differences, options)),
    }
}

/// The power of a test of paired differences, by the normal approximation.
///
/// A two-sided test at level α shows a true mean of `(z_{1−α/2} + z_{0.8}) · s/√n` with a probability of 0.8. Here α is
/// the level for n samples, and s is the standard deviation of the differences. Solved for n, a mean of the observed
/// size needs `((z_{1−α/2} + z_{0.8}) · s / mean)²` samples (Lachin, Controlled Clinical Trials 2:2, 1981). Both
/// numbers are approximate: s is an estimate, and with few samples the t distribution needs slightly more.
pub fn power(differences: &[f64], options: &ChooseOptions) -> Power {
    const WANTED: f64 = 0.8;
    let (mean, se) = stats::mean_and_se(differences);
    let z =
        stats::normal_quantile(1.0 - level(differences.len(), options.alpha) / 2.0) + stats::normal_quantile(WANTED);
    let detectable = z * se;
    let ratio = detectable / mean;
    let samples = (differences.len() as f64 * ratio * ratio).ceil();
    // JSON readers lose digits of larger numbers.
    let is_count = mean > 0.0 && samples <= 1e15;
    Power { detectable, samples: is_count.then_some((samples as u64).max(fewest_to_show(options.alpha) as u64)) }
}

/// The minimum number of samples that can show a difference: the exact randomisation test of n pairs has no p-value
/// below `2 / 2ⁿ`.
pub fn fewest_to_show(alpha: f64) -> usize {
    // The level of few samples is α/2.
    (1..64).find(|&pairs| 2_f64.powi(1 - pairs) < alpha / 2.0).map_or(64, |pairs| pairs as usize)
}

/// The gain of `to` over `from`, given one NLL per sample for each, on samples that picked neither.
///
/// # Panics
/// If the lists differ in length.
pub fn paired_gain(from: &[f64], to: &[f64], options: &ChooseOptions) -> Gain {
    assert_eq!(from.len(), to.len(), "lists of different lengths");
    measure(&differences(from, to), options)
}

/// The gains of `to` over `from`, sample by sample.
pub(super) fn differences(from: &[f64], to: &[f64]) -> Vec<f64> {
    from.iter().zip(to).map(|(from, to)| from - to).collect()
}

/// The two-sided level of a test: α, or α/2 with few samples.
pub fn level(samples: usize, alpha: f64) -> f64 {
    if samples < FEW { alpha / 2.0 } else { alpha }
}

/// Whether a gain is shown to be above 0.
pub(super) fn is_shown(gain: &Gain, options: &ChooseOptions) -> bool {
    gain.mean > 0.0 && gain.low > 0.0 && gain.p < level(gain.samples, options.alpha)
}

/// Whether a gain is shown to be below 0.
fn is_shown_worse(gain: &Gain, options: &ChooseOptions) -> bool {
    gain.mean < 0.0 && gain.high < 0.0 && gain.p < level(gain.samples, options.alpha)
}

/// Whether the mean is shown to be above 0 by both tests, one-sided at α/2.
fn is_above(values: &[f64], options: &ChooseOptions) -> bool {
    let level = level(values.len(), options.alpha) / 2.0;
    stats::skewed_t_above(values) < level && stats::sign_flip_above(values, options.resamples, options.seed) < level
}

/// The mean of paired gains, with its interval and its p-value.
pub(super) fn measure(gains: &[f64], options: &ChooseOptions) -> Gain {
    let (low, high) = stats::bootstrap_mean(gains, options.resamples, holdout_resampler(gains, options));
    let mean = stats::mean(gains);
    let by_signs = stats::sign_flip_p(gains, options.resamples, options.seed);
    // The t-test on the side of the mean.
    let side = if mean < 0.0 { -1.0 } else { 1.0 };
    let by_t = 2.0 * stats::skewed_t_above(&gains.iter().map(|gain| side * gain).collect::<Vec<_>>());
    Gain { mean, low, high, p: by_signs.max(by_t).min(1.0), samples: gains.len() }
}

/// The retained share `Σ part / Σ whole`, with the percentile interval of the ratio of sums, resampled by sample.
///
/// A resample in which the whole is not above 0 has no ratio. It counts as −∞ for the lower end and +∞ for the upper
/// end, so that it never makes the interval narrower. `None` if an end is infinite.
fn retained(part: &[f64], whole: &[f64], options: &ChooseOptions) -> Option<Interval> {
    let mut resampler = holdout_resampler(whole, options);
    let mut lows = Vec::new();
    let mut highs = Vec::new();
    for _ in 0..options.resamples.get() {
        let (mut kept, mut all) = (0.0, 0.0);
        for &sample in resampler.draw() {
            kept += part[sample];
            all += whole[sample];
        }
        let ratio = kept / all;
        let has_ratio = all > 0.0 && ratio.is_finite();
        lows.push(if has_ratio { ratio } else { f64::NEG_INFINITY });
        highs.push(if has_ratio { ratio } else { f64::INFINITY });
    }
    let value = stats::mean(part) / stats::mean(whole);
    let (low, _) = stats::percentile_interval(&mut lows);
    let (_, high) = stats::percentile_interval(&mut highs);
    [value, low, high].iter().all(|end| end.is_finite()).then_some(Interval { value, low, high })
}

fn holdout_resampler(samples: &[f64], options: &ChooseOptions) -> Resampler {
    Resampler::new(options.seed, Stream::Holdout, samples.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quick() -> ChooseOptions {
        ChooseOptions { resamples: std::num::NonZeroUsize::new(1_000).unwrap(), ..ChooseOptions::default() }
    }

    /// Differences with this mean and this standard error, symmetric, of 40 samples.
    fn around(mean: f64, se: f64) -> Vec<f64> {
        let spread = se * 39.0_f64.sqrt();
        (0..40).map(|i| mean + if i % 2 == 0 { spread } else { -spread }).collect()
    }

    /// The verdict on samples with these means and standard errors: of the adapter's gain over the base, and of the
    /// cut's gain over the adapter, independent of each other.
    fn judged(kind: CutKind, full: (f64, f64), cut: (f64, f64)) -> (Verdict, Reason, bool) {
        judged_with(kind, full, cut, &quick())
    }

    fn judged_with(
        kind: CutKind,
        full: (f64, f64),
        cut: (f64, f64),
        options: &ChooseOptions,
    ) -> (Verdict, Reason, bool) {
        let base = vec![3.0; 40];
        let gain = |(mean, se): (f64, f64)| around(mean, se);
        let full: Vec<f64> = base.iter().zip(gain(full)).map(|(base, gain)| base - gain).collect();
        // The cut's gain over the adapter, ordered in pairs so that its noise is independent of the adapter's.
        let mut added = gain(cut);
        added.sort_by(f64::total_cmp);
        let order = (0..40).map(|i| added[(i / 2) % 2 * 20 + i / 4]);
        let cut: Vec<f64> = full.iter().zip(order).map(|(full, gain)| full - gain).collect();
        let Judgement { verdict, reason, abstains, power, .. } = judge(&base, &full, &cut, kind, options);
        assert_eq!(abstains, power.is_some());
        (verdict, reason, abstains)
    }

    #[test]
    fn a_useful_adapter_is_cut_only_for_a_shown_reason() {
        let useful = (0.5, 0.02);
        let cut = |added| judged(CutKind::Cut, useful, added);
        assert_eq!(cut((0.1, 0.02)), (Verdict::Trim, Reason::Better, false));
        assert_eq!(cut((-0.004, 0.001)), (Verdict::Trim, Reason::NotWorse, false));
        assert_eq!(cut((0.02, 0.02)), (Verdict::KeepFull, Reason::NotShown, true));
        assert_eq!(cut((-0.1, 0.02)), (Verdict::KeepFull, Reason::Worse, false));
        assert_eq!(judged(CutKind::Whole, useful, (0.0, 0.0)), (Verdict::KeepFull, Reason::NoCut, false));
        assert_eq!(judged(CutKind::Nothing, useful, (-0.5, 0.02)), (Verdict::KeepFull, Reason::Worse, false));
    }

    #[test]
    fn an_adapter_that_is_shown_to_be_useless_is_dropped() {
        for kind in [CutKind::Cut, CutKind::Whole, CutKind::Nothing] {
            let judged = |full| judged(kind, full, (0.0, 0.0));
            assert_eq!(judged((-0.3, 0.02)), (Verdict::UseBase, Reason::AdapterNotBetter, false), "worse");
            assert_eq!(judged((0.0, 0.0)), (Verdict::UseBase, Reason::AdapterNotBetter, false), "nothing");
            assert_eq!(judged((0.003, 0.001)), (Verdict::UseBase, Reason::AdapterNotBetter, false), "little");
            assert_eq!(judged((0.003, 0.01)), (Verdict::KeepFull, Reason::AdapterNotShown, true), "undecided");
            assert_eq!(judged((-0.003, 0.01)), (Verdict::KeepFull, Reason::AdapterNotShown, true), "undecided");
        }
    }

    #[test]
    fn a_cut_of_a_harmful_adapter_must_be_better_than_both() {
        let harmful = (-0.1, 0.1);
        assert_eq!(judged(CutKind::Cut, harmful, (0.6, 0.05)), (Verdict::Trim, Reason::BetterThanBase, false));
        // Better than the full adapter because it is nearer to the base model.
        assert_eq!(judged(CutKind::Cut, harmful, (0.15, 0.02)), (Verdict::KeepFull, Reason::AdapterNotShown, true));
        assert_eq!(judged(CutKind::Cut, (-0.4, 0.1), (0.3, 0.02)), (Verdict::UseBase, Reason::AdapterNotBetter, false));
    }

    #[test]
    fn a_margin_in_nats_is_a_loss() {
        let nats = |nats| ChooseOptions { margin: Margin::Nats(nats), ..quick() };
        let lossy = |margin| judged_with(CutKind::Cut, (0.5, 0.02), (-0.02, 0.003), &nats(margin));
        assert_eq!(lossy(0.03), (Verdict::Trim, Reason::NotWorse, false));
        assert_eq!(lossy(0.02), (Verdict::KeepFull, Reason::Worse, false));
    }

    #[test]
    fn no_margin_accepts_a_cut_that_is_worse_than_the_base() {
        for margin in [Margin::Share(-1.0), Margin::Nats(10.0)] {
            let options = ChooseOptions { margin, ..quick() };
            let judged = judged_with(CutKind::Cut, (0.5, 0.02), (-0.6, 0.02), &options);
            assert_eq!(judged, (Verdict::KeepFull, Reason::Worse, false));
        }
    }

    #[test]
    fn three_samples_show_nothing() {
        // The smallest p of the exact test is 0.25, however narrow the interval.
        let judged =
            judge(&[3.0, 3.1, 3.2], &[2.0, 2.1, 2.2], &[1.0, 1.1, 1.2], CutKind::Cut, &ChooseOptions::default());
        assert_eq!((judged.reason, judged.abstains), (Reason::AdapterNotShown, true));
    }

    #[test]
    fn power_is_the_normal_approximation() {
        // 2.8016 standard errors of 0.1; a mean of half of that needs four times the samples.
        let Power { detectable, samples } = power(&around(0.1401, 0.1), &ChooseOptions::default());
        assert!((detectable - 0.280_158).abs() < 1e-5, "{detectable}");
        assert_eq!(samples, Some(160));
        assert_eq!(power(&around(-0.1, 0.1), &ChooseOptions::default()).samples, None);
        assert_eq!(power(&[0.0; 5], &ChooseOptions::default()), Power { detectable: 0.0, samples: None });
        assert_eq!(power(&[1e-300, 2e100, -2e100], &ChooseOptions::default()).samples, None);
        // Six pairs cannot show any gain at 2.5 %: 2 / 2⁶ is 3.1 %.
        assert_eq!(power(&[1.0, 1.01, 1.02], &ChooseOptions::default()).samples, Some(7));
        assert_eq!((fewest_to_show(0.05), fewest_to_show(1e-30)), (7, 64));
    }

    #[test]
    fn a_ratio_to_almost_nothing_has_no_interval() {
        let options = ChooseOptions::default();
        let whole = [1.0, -0.9, 0.8, -0.7, 0.6, -0.5];
        assert_eq!(retained(&[1.0; 6], &whole, &options), None);
        let kept = retained(&[0.5; 6], &[1.0; 6], &options);
        assert_eq!(kept, Some(Interval { value: 0.5, low: 0.5, high: 0.5 }));
    }
}
