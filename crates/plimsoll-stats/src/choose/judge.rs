//! What samples that had no part in picking a candidate say of it.
//!
//! Three means are compared, two at a time, always paired by sample: the base model, the full adapter and the cut. A
//! difference is *shown* if its p-value is below α and its 95 % bootstrap interval lies on one side of 0; the p-value is
//! the larger of the randomisation test's ([`stats::sign_flip_p`]) and of the t-test's corrected for skewness
//! ([`stats::skewed_t_above`]), for each errs where the other does not. Below 20 samples p has to be below α/2, because
//! there neither knows the tails that it needs to know. What a verdict claims of two comparisons has to be
//! shown in both, which needs no correction for their number (an intersection-union test: Berger, Technometrics 24:4,
//! 1982). In this order:
//!
//! 1. `trim`, [`Reason::Better`]: the cut is shown to be better than the full adapter, whose mean is better than the base
//!    model's.
//! 2. `trim`, [`Reason::BetterThanBase`]: the cut is shown to be better than the full adapter and than the base model.
//! 3. `use-base`: the adapter is shown to be worse than the base model, or to gain less than [`Options::negligible`].
//! 4. `keep-full`, abstaining: the adapter is not shown to be better than the base model. As little can be said of its cuts:
//!    a comparison that cannot tell the adapter from nothing finds any cut "not worse" (assay sensitivity; Piaggio and
//!    others, "Reporting of Noninferiority and Equivalence Randomized Trials", JAMA 308:24, 2012).
//! 5. `trim`, [`Reason::NotWorse`]: the cut is shown not to be worse by the [`Margin`].
//! 6. `keep-full`: the cut is shown to be worse, or there is none; abstaining, where neither is shown.
//!
//! *Not worse* is one comparison with 0, of a contrast of each sample. For a share m of the adapter's gain it is
//! `(base − cut) − m·(base − full)`, whose mean is above 0 just where R(k) is above m, if the adapter gains at all
//! (Fieller's way with ratios, Journal of the Royal Statistical Society B 16:2, 1954). For a loss of δ nats it is
//! `full − cut + δ`. The test is one-sided at α/2, as the lower end of a 95 % interval is; the interval has to agree.

use serde::{Deserialize, Serialize};

use super::choice::{Gain, Interval, Margin, Options, Power, Reason, Verdict};
use crate::{self as stats, Resampler, Stream};

/// With fewer samples than this a difference is shown at half of α.
const FEW: usize = 20;

/// What the rule picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CutKind {
    /// A part of the adapter.
    Cut,
    /// The whole adapter with other strengths: nothing is saved, so that it has to be better.
    Changed,
    /// The whole adapter: there is nothing to cut. The cut's scores are the full adapter's.
    Whole,
    /// Nothing of it. The cut's scores are the base model's.
    Nothing,
}

impl CutKind {
    /// The kind of a boundary: one of `whole` layers or more drops nothing.
    pub fn of(boundary: usize, whole: usize) -> Self {
        match boundary {
            0 => Self::Nothing,
            _ if boundary >= whole => Self::Whole,
            _ => Self::Cut,
        }
    }
}

/// What to do, and the comparisons that say so. The fields are those of [`Choice`](super::Choice).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// What to do.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// Whether the samples settle nothing, and the verdict is what is safe and not what is shown.
    pub abstains: bool,
    /// What the cut gains over the full adapter.
    pub gain: Gain,
    /// What the full adapter gains over the base model.
    pub adapter_gain: Gain,
    /// What the cut gains over the base model.
    pub base_gain: Gain,
    /// The share of the adapter's gain that the cut retains, where that gain's interval is above 0.
    pub retained: Option<Interval>,
    /// What the samples could have shown, where they settle nothing.
    pub power: Option<Power>,
}

/// Judges a cut by the NLL of samples that had no part in picking it: one number for each sample with the base model, with
/// the full adapter and with the cut.
///
/// # Panics
/// If the three differ in length, or there are fewer than two samples.
pub fn judge(base: &[f64], full: &[f64], cut: &[f64], kind: CutKind, options: &Options) -> Judgement {
    assert!(base.len() == full.len() && base.len() == cut.len(), "three lists of other lengths");
    assert!(base.len() >= super::scores::MIN_SAMPLES, "{} samples to judge by", base.len());
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
        // A margin must not let a cut through that is worse than the base model.
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

    let (verdict, reason, unsettled) = if is_better && adapter_gain.mean > 0.0 {
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
        abstains: unsettled.is_some(),
        gain,
        adapter_gain,
        base_gain,
        retained,
        power: unsettled.map(|differences| power(differences, options)),
    }
}

/// What paired differences could have shown, by the normal approximation.
///
/// A test at level α (two-sided) shows a true mean of `(z_{1−α/2} + z_{0.8}) · s/√n` with a probability of 8 in 10, where
/// α is the level that so many samples are tested at and s is the standard deviation of the differences; solved for n, it takes `((z_{1−α/2} + z_{0.8}) · s / mean)²` samples
/// to show a mean of the size seen (Lachin, Controlled Clinical Trials 2:2, 1981). s is an estimate, and for a few
/// samples the t distribution asks for a little more: both numbers are rough.
pub fn power(differences: &[f64], options: &Options) -> Power {
    const WANTED: f64 = 0.8;
    let (mean, se) = stats::mean_and_se(differences);
    let z =
        stats::normal_quantile(1.0 - level(differences.len(), options.alpha) / 2.0) + stats::normal_quantile(WANTED);
    let detectable = z * se;
    let ratio = detectable / mean;
    let samples = (differences.len() as f64 * ratio * ratio).ceil();
    // Beyond this, JSON readers lose digits, and nobody has so many.
    let is_count = mean > 0.0 && samples <= 1e15;
    Power { detectable, samples: is_count.then_some((samples as u64).max(fewest_to_show(options.alpha) as u64)) }
}

/// Fewer samples than this show nothing, whatever they are: the exact randomisation test of n pairs has no p-value below
/// `2 / 2ⁿ`.
pub fn fewest_to_show(alpha: f64) -> usize {
    // Below α/2, as few samples ask; a test at 2⁻⁶⁴ is none.
    (1..64).find(|&pairs| 2_f64.powi(1 - pairs) < alpha / 2.0).map_or(64, |pairs| pairs as usize)
}

/// What `to` gains over `from` on samples that picked neither, by the NLL of each.
///
/// # Panics
/// If the two differ in length.
pub fn paired_gain(from: &[f64], to: &[f64], options: &Options) -> Gain {
    assert_eq!(from.len(), to.len(), "two lists of other lengths");
    measure(&differences(from, to), options)
}

/// What `to` gains over `from`, sample by sample.
pub(super) fn differences(from: &[f64], to: &[f64]) -> Vec<f64> {
    from.iter().zip(to).map(|(from, to)| from - to).collect()
}

/// The two-sided level at which so many samples show something: α, or half of it where they are few.
pub fn level(samples: usize, alpha: f64) -> f64 {
    if samples < FEW { alpha / 2.0 } else { alpha }
}

/// Whether a gain is shown to be above 0.
pub(super) fn is_shown(gain: &Gain, options: &Options) -> bool {
    gain.mean > 0.0 && gain.low > 0.0 && gain.p < level(gain.samples, options.alpha)
}

/// Whether a gain is shown to be below 0.
fn is_shown_worse(gain: &Gain, options: &Options) -> bool {
    gain.mean < 0.0 && gain.high < 0.0 && gain.p < level(gain.samples, options.alpha)
}

/// Whether the mean is above 0 by both tests, one-sided at α/2.
fn is_above(values: &[f64], options: &Options) -> bool {
    let level = level(values.len(), options.alpha) / 2.0;
    stats::skewed_t_above(values) < level && stats::sign_flip_above(values, options.resamples, options.seed) < level
}

/// The mean of paired gains with its interval and its tests.
pub(super) fn measure(gains: &[f64], options: &Options) -> Gain {
    let (low, high) = stats::bootstrap_mean(gains, options.resamples, holdout_resampler(gains, options));
    let mean = stats::mean(gains);
    let by_signs = stats::sign_flip_p(gains, options.resamples, options.seed);
    // The t-test on the side that the mean is on.
    let side = if mean < 0.0 { -1.0 } else { 1.0 };
    let by_t = 2.0 * stats::skewed_t_above(&gains.iter().map(|gain| side * gain).collect::<Vec<_>>());
    Gain { mean, low, high, p: by_signs.max(by_t).min(1.0), samples: gains.len() }
}

/// The retained gain `R = Σ part / Σ whole` with the percentile interval of the ratio of sums, resampled by sample.
///
/// A resample whose whole is not above 0 has no ratio. It counts as the worst at both ends, −∞ for the lower and +∞ for
/// the upper, so that the interval is never narrower for leaving it out; `None` where that reaches an end.
fn retained(part: &[f64], whole: &[f64], options: &Options) -> Option<Interval> {
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

fn holdout_resampler(samples: &[f64], options: &Options) -> Resampler {
    Resampler::new(options.seed, Stream::Holdout, samples.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quick() -> Options {
        Options { resamples: std::num::NonZeroUsize::new(1_000).unwrap(), ..Options::default() }
    }

    /// Differences with this mean and this standard error, symmetric, of 40 samples.
    fn around(mean: f64, se: f64) -> Vec<f64> {
        let spread = se * 39.0_f64.sqrt();
        (0..40).map(|i| mean + if i % 2 == 0 { spread } else { -spread }).collect()
    }

    /// The verdict on samples whose gains over the base have these means and standard errors, independent of each other.
    fn told(kind: CutKind, full: (f64, f64), cut: (f64, f64)) -> (Verdict, Reason, bool) {
        told_with(kind, full, cut, &quick())
    }

    fn told_with(kind: CutKind, full: (f64, f64), cut: (f64, f64), options: &Options) -> (Verdict, Reason, bool) {
        let base = vec![3.0; 40];
        let gain = |(mean, se): (f64, f64)| around(mean, se);
        let full: Vec<f64> = base.iter().zip(gain(full)).map(|(base, gain)| base - gain).collect();
        // Of the cut what it adds to the full adapter, in pairs, so that its noise is not the adapter's.
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
        let cut = |added| told(CutKind::Cut, useful, added);
        assert_eq!(cut((0.1, 0.02)), (Verdict::Trim, Reason::Better, false));
        assert_eq!(cut((-0.004, 0.001)), (Verdict::Trim, Reason::NotWorse, false));
        assert_eq!(cut((0.02, 0.02)), (Verdict::KeepFull, Reason::NotShown, true));
        assert_eq!(cut((-0.1, 0.02)), (Verdict::KeepFull, Reason::Worse, false));
        assert_eq!(told(CutKind::Whole, useful, (0.0, 0.0)), (Verdict::KeepFull, Reason::NoCut, false));
        assert_eq!(told(CutKind::Nothing, useful, (-0.5, 0.02)), (Verdict::KeepFull, Reason::Worse, false));
    }

    #[test]
    fn the_base_model_is_for_what_is_shown_to_be_useless() {
        for kind in [CutKind::Cut, CutKind::Whole, CutKind::Nothing] {
            let told = |full| told(kind, full, (0.0, 0.0));
            assert_eq!(told((-0.3, 0.02)), (Verdict::UseBase, Reason::AdapterNotBetter, false), "worse");
            assert_eq!(told((0.0, 0.0)), (Verdict::UseBase, Reason::AdapterNotBetter, false), "nothing");
            assert_eq!(told((0.003, 0.001)), (Verdict::UseBase, Reason::AdapterNotBetter, false), "little");
            assert_eq!(told((0.003, 0.01)), (Verdict::KeepFull, Reason::AdapterNotShown, true), "open");
            assert_eq!(told((-0.003, 0.01)), (Verdict::KeepFull, Reason::AdapterNotShown, true), "open");
        }
    }

    #[test]
    fn a_cut_of_a_harmful_adapter_has_to_beat_both() {
        let harmful = (-0.1, 0.1);
        assert_eq!(told(CutKind::Cut, harmful, (0.6, 0.05)), (Verdict::Trim, Reason::BetterThanBase, false));
        // Better than the full adapter because it is nearer to the base model.
        assert_eq!(told(CutKind::Cut, harmful, (0.15, 0.02)), (Verdict::KeepFull, Reason::AdapterNotShown, true));
        assert_eq!(told(CutKind::Cut, (-0.4, 0.1), (0.3, 0.02)), (Verdict::UseBase, Reason::AdapterNotBetter, false));
    }

    #[test]
    fn a_margin_in_nats_is_a_loss() {
        let nats = |nats| Options { margin: Margin::Nats(nats), ..quick() };
        let lossy = |margin| told_with(CutKind::Cut, (0.5, 0.02), (-0.02, 0.003), &nats(margin));
        assert_eq!(lossy(0.03), (Verdict::Trim, Reason::NotWorse, false));
        assert_eq!(lossy(0.02), (Verdict::KeepFull, Reason::Worse, false));
    }

    #[test]
    fn no_margin_lets_a_cut_through_that_is_worse_than_the_base() {
        for margin in [Margin::Share(-1.0), Margin::Nats(10.0)] {
            let options = Options { margin, ..quick() };
            let told = told_with(CutKind::Cut, (0.5, 0.02), (-0.6, 0.02), &options);
            assert_eq!(told, (Verdict::KeepFull, Reason::Worse, false));
        }
    }

    #[test]
    fn three_samples_show_nothing() {
        // The exact test's least p is 0.25, however narrow the interval.
        let judged = judge(&[3.0, 3.1, 3.2], &[2.0, 2.1, 2.2], &[1.0, 1.1, 1.2], CutKind::Cut, &Options::default());
        assert_eq!((judged.reason, judged.abstains), (Reason::AdapterNotShown, true));
    }

    #[test]
    fn power_is_the_normal_approximation() {
        // 2.8016 standard errors of 0.1; for a mean of half of that, four times the samples.
        let Power { detectable, samples } = power(&around(0.1401, 0.1), &Options::default());
        assert!((detectable - 0.280_158).abs() < 1e-5, "{detectable}");
        assert_eq!(samples, Some(160));
        assert_eq!(power(&around(-0.1, 0.1), &Options::default()).samples, None);
        assert_eq!(power(&[0.0; 5], &Options::default()), Power { detectable: 0.0, samples: None });
        assert_eq!(power(&[1e-300, 2e100, -2e100], &Options::default()).samples, None);
        // However clear a gain is, six pairs cannot show it at 2.5 %: 2 / 2⁶ is 3.1 %.
        assert_eq!(power(&[1.0, 1.01, 1.02], &Options::default()).samples, Some(7));
        assert_eq!((fewest_to_show(0.05), fewest_to_show(1e-30)), (7, 64));
    }

    #[test]
    fn a_ratio_to_almost_nothing_has_no_interval() {
        let options = Options::default();
        let whole = [1.0, -0.9, 0.8, -0.7, 0.6, -0.5];
        assert_eq!(retained(&[1.0; 6], &whole, &options), None);
        let kept = retained(&[0.5; 6], &[1.0; 6], &options);
        assert_eq!(kept, Some(Interval { value: 0.5, low: 0.5, high: 0.5 }));
    }
}
