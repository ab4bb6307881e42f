//! Which boundary to choose, and how sure that is.
//!
//! A boundary k keeps LoRA in layers `0..k` (arXiv:2503.23360): k = L is the full adapter, k = 0 the base model. Three
//! rules pick one from the *selection* samples ([`Choice::best`], [`Choice::one_se`], [`Choice::curve`]); the
//! one-standard-error rule's is the candidate, and the *held-out* samples, which had no part in picking it, decide what
//! to do with it ([`Verdict`]). The unit is nats per answer token, the mean over samples of the sample's mean; every
//! comparison is paired and every resampling is by sample. A task's metric can take the place of the NLL, as the highest
//! value that it can have less the value of the sample: what is said of nats then holds for its points.
//!
//! The paper looks for the boundary and cuts there. Here "keep the full adapter" and "use the base model" are answers
//! too, and no gain is quoted from the samples that chose k.
//!
//! Pure `f64`: nothing here knows a model, an engine or a file. The same input, options and seed give the same numbers
//! on every platform.

pub mod race;
mod rules;

use std::fmt;
use std::num::NonZeroUsize;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::stats::{self, Resampler, Stream};

/// Fewest samples of a part: with one there is no spread to compare a difference with.
const MIN_SAMPLES: usize = 2;

/// Largest magnitude of an input: its square summed over any number of samples is still finite.
const MAX_MAGNITUDE: f64 = 1e100;

/// What to do with the adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Keep LoRA in the lower layers only.
    Trim,
    /// Keep the whole adapter.
    KeepFull,
    /// The adapter does not beat the base model: drop it.
    UseBase,
}

/// Why the verdict is what it is. "Shown" is by the held-out samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// `trim`: the cut is shown to be better than the full adapter.
    Better,
    /// `trim`: the cut is shown to keep at least the margin of the full adapter's gain over the base model.
    NotWorse,
    /// `trim`: the full adapter is no better than the base model on the held-out mean, and the cut is shown to be.
    BetterThanBase,
    /// `keep-full`: the rule picked all layers.
    NoCut,
    /// `keep-full`: the cut (to no layers at all, if `one_se` is 0) is shown to be neither better nor as good.
    NotShown,
    /// `use-base`: the full adapter is no better than the base model on the held-out mean, and no cut is shown to be.
    AdapterNotBetter,
}

/// The answer, and what it rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Choice {
    /// What to do.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// Layers that keep LoRA under the verdict: all of them for `keep-full`, none for `use-base`.
    pub layers_kept: usize,
    /// The boundary with the lowest mean NLL on the selection samples.
    pub best: usize,
    /// The smallest boundary within one standard error of `best`, paired by sample.
    pub one_se: usize,
    /// The change point of the `full` ground-truth probability curve.
    pub curve: usize,
    /// Share of bootstrap resamples in which the one-standard-error rule chose each boundary: k = 0..L.
    pub bootstrap: Vec<f64>,
    /// What `one_se` gains over the full adapter on the held-out samples. Positive is better.
    pub gain: Gain,
    /// What the full adapter gains over the base model on the held-out samples. Positive is better.
    pub adapter_gain: Gain,
    /// What `one_se` gains over the base model on the held-out samples. Positive is better.
    pub base_gain: Gain,
    /// `(NLL(base) − NLL(one_se)) / (NLL(base) − NLL(full))` on the held-out samples. `None` where the full adapter's
    /// gain over the base is not clear of 0 (its interval holds 0 or less): a share of nothing means nothing.
    pub retained: Option<Interval>,
    /// Which samples judged.
    #[serde(default)]
    pub validation: Validation,
    /// Whether the samples settle nothing, and the verdict is what is safe and not what is shown.
    #[serde(default)]
    pub abstains: bool,
    /// What the held-out samples could show, and how many it would take; none where the verdict is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<Power>,
}

/// Which samples judge a candidate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Validation {
    /// Samples that had no part in picking it.
    #[default]
    Holdout,
    /// Every sample, once each: the rule picks on the other folds, and its pick is judged on the fold left out. What is
    /// judged is the rule's picks, not one boundary.
    Nested {
        /// How many folds.
        folds: usize,
    },
}

/// What a test could have shown.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Power {
    /// A true gain of this size would be shown in 8 of 10 cases on as many samples as there were.
    pub detectable: f64,
    /// So many samples would show a gain of the size that was seen in 8 of 10 cases; null where none was seen.
    pub samples: Option<u64>,
}

/// A paired difference on held-out samples, of mean NLL (in nats per answer token) or of a task's metric.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Gain {
    /// Mean difference.
    pub mean: f64,
    /// Lower end of the 95 % bootstrap interval.
    pub low: f64,
    /// Upper end of the 95 % bootstrap interval.
    pub high: f64,
    /// Two-sided p-value of the paired randomisation test.
    pub p: f64,
    /// Number of held-out samples.
    pub samples: usize,
}

/// An estimate with its 95 % bootstrap interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Interval {
    /// The estimate.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// How to choose.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Seed of all resampling.
    pub seed: u64,
    /// Bootstrap resamples of the choice.
    pub choice_resamples: NonZeroUsize,
    /// Bootstrap resamples of each interval, and sign patterns of each randomisation test.
    pub resamples: NonZeroUsize,
    /// A p-value below this shows a difference.
    pub alpha: f64,
    /// A cut is not worse when it surely keeps more than this share of the full adapter's gain over the base model.
    pub margin: f64,
}

impl Default for Options {
    fn default() -> Self {
        const CHOICE_RESAMPLES: NonZeroUsize = NonZeroUsize::new(1_000).unwrap();
        const RESAMPLES: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();
        Self { seed: 0, choice_resamples: CHOICE_RESAMPLES, resamples: RESAMPLES, alpha: 0.05, margin: 0.98 }
    }
}

/// One part of the samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// The samples that pick the boundary.
    Selection,
    /// The samples that judge it.
    Holdout,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Selection => "selection",
            Self::Holdout => "held-out",
        })
    }
}

/// Why scores cannot be chosen from.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ChooseProblem {
    /// No layer, no boundary.
    #[error("the ground-truth probability curve is empty: expected one value for each layer")]
    NoLayers,
    /// A part that is too small.
    #[error("the {part} part has {found} samples: expected at least {MIN_SAMPLES}")]
    TooFewSamples {
        /// The part.
        part: Part,
        /// Its number of samples.
        found: usize,
    },
    /// A sample without exactly one score for each boundary.
    #[error("{part} sample {sample} (from 0) has {found} scores: expected {expected}, one for each boundary")]
    Length {
        /// The part.
        part: Part,
        /// Index of the sample in it.
        sample: usize,
        /// Number of layers and one.
        expected: usize,
        /// Number of scores.
        found: usize,
    },
    /// Boundaries that are not a list in order.
    #[error("the {part} part has no boundaries, or they do not ascend")]
    Boundaries {
        /// The part.
        part: Part,
    },
    /// A boundary that the model does not have.
    #[error("boundary {boundary}: expected at most {layers}, the number of layers")]
    Boundary {
        /// The boundary k.
        boundary: usize,
        /// Number of layers.
        layers: usize,
    },
    /// A boundary without which nothing can be judged.
    #[error("boundary {boundary} was not scored on the held-out part")]
    NotScored {
        /// The boundary k.
        boundary: usize,
    },
    /// A score that is not a usable number.
    #[error("{part} sample {sample} (from 0) has an NLL of {found} at boundary {boundary}: expected a finite number")]
    Nll {
        /// The part.
        part: Part,
        /// Index of the sample in it.
        sample: usize,
        /// The boundary k.
        boundary: usize,
        /// The value: NaN, infinite or beyond ±1e100.
        found: f64,
    },
    /// A point of the curve that is not a usable number.
    #[error("the ground-truth probability after layer {layer} is {found}: expected a finite number")]
    Curve {
        /// The layer, from 0.
        layer: usize,
        /// The value: NaN, infinite or beyond ±1e100.
        found: f64,
    },
}

/// What there is to choose from: at least one layer, two samples in each part, and only finite numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    selection: Scores,
    holdout: Scores,
    curve: Vec<f64>, // (layers)
    whole: usize,
}

impl Input {
    /// Takes the mean NLL (nats per answer token) of every sample at every boundary k = 0..=L, one row for each sample,
    /// in two parts, and the `full` ground-truth probability after each of the L layers.
    ///
    /// # Errors
    /// An empty curve, fewer than two samples in a part, a row whose length is not L + 1, or a number that is not
    /// finite.
    pub fn new<R: AsRef<[f64]>>(selection: &[R], holdout: &[R], curve: &[f64]) -> Result<Self, ChooseProblem> {
        check_curve(curve)?;
        let boundaries: Vec<usize> = (0..=curve.len()).collect();
        let selection = Scores::new(Part::Selection, &boundaries, selection);
        Self::of(selection?, Scores::new(Part::Holdout, &boundaries, holdout)?, curve)
    }

    /// The same where not every boundary was scored: only those of `selection` can be picked.
    ///
    /// # Errors
    /// An empty curve, a boundary above the number of layers, or held-out scores without those of the base, of the full
    /// adapter or of what is picked.
    pub fn of(selection: Scores, holdout: Scores, curve: &[f64]) -> Result<Self, ChooseProblem> {
        check_curve(curve)?;
        let layers = curve.len();
        if let Some(&boundary) = selection.boundaries.iter().chain(&holdout.boundaries).find(|&&k| k > layers) {
            return Err(ChooseProblem::Boundary { boundary, layers });
        }
        for boundary in [0, layers, selection.pick()] {
            if holdout.column(boundary).is_none() {
                return Err(ChooseProblem::NotScored { boundary });
            }
        }
        Ok(Self { selection, holdout, curve: curve.to_vec(), whole: layers })
    }

    /// Says that a boundary of `whole` layers drops nothing, because there is no LoRA above it. L where it is not said.
    #[must_use]
    pub fn with_whole(self, whole: usize) -> Self {
        Self { whole, ..self }
    }

    /// L, the number of decoder layers.
    pub fn layers(&self) -> usize {
        self.curve.len()
    }
}

fn check_curve(curve: &[f64]) -> Result<(), ChooseProblem> {
    if curve.is_empty() {
        return Err(ChooseProblem::NoLayers);
    }
    match curve.iter().enumerate().find(|(_, value)| !is_usable(**value)) {
        Some((layer, &found)) => Err(ChooseProblem::Curve { layer, found }),
        None => Ok(()),
    }
}

/// The mean NLL of every sample of one part at some boundaries.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    boundaries: Vec<usize>, // ascending
    nll: Vec<f64>,          // (samples, boundaries)
}

impl Scores {
    /// Takes one row for each sample, with one number for each of the boundaries, which ascend.
    ///
    /// # Errors
    /// No boundaries or some out of order, fewer than two samples, a row of another length, or a number that is not
    /// finite.
    pub fn new<R: AsRef<[f64]>>(part: Part, boundaries: &[usize], rows: &[R]) -> Result<Self, ChooseProblem> {
        if boundaries.is_empty() || !boundaries.is_sorted_by(|a, b| a < b) {
            return Err(ChooseProblem::Boundaries { part });
        }
        if rows.len() < MIN_SAMPLES {
            return Err(ChooseProblem::TooFewSamples { part, found: rows.len() });
        }
        let mut nll = Vec::new();
        for (sample, row) in rows.iter().enumerate() {
            let row = row.as_ref();
            if row.len() != boundaries.len() {
                return Err(ChooseProblem::Length { part, sample, expected: boundaries.len(), found: row.len() });
            }
            if let Some((column, &found)) = row.iter().enumerate().find(|(_, value)| !is_usable(**value)) {
                return Err(ChooseProblem::Nll { part, sample, boundary: boundaries[column], found });
            }
            nll.extend_from_slice(row);
        }
        Ok(Self { boundaries: boundaries.to_vec(), nll })
    }

    /// What the one-standard-error rule picks: the boundary that the held-out samples are to judge.
    pub fn pick(&self) -> usize {
        let everyone: Vec<usize> = (0..self.samples()).collect();
        rules::pick(self, &everyone).one_se
    }

    fn samples(&self) -> usize {
        self.nll.len() / self.boundaries.len()
    }

    fn row(&self, sample: usize) -> &[f64] {
        &self.nll[sample * self.boundaries.len()..][..self.boundaries.len()]
    }

    fn column(&self, boundary: usize) -> Option<usize> {
        self.boundaries.binary_search(&boundary).ok()
    }

    /// `NLL(from) − NLL(to)` of every sample: what `to` gains over `from`. Empty where one of them was not scored.
    fn gains(&self, from: usize, to: usize) -> Vec<f64> {
        let (Some(from), Some(to)) = (self.column(from), self.column(to)) else { return Vec::new() };
        self.nll.chunks_exact(self.boundaries.len()).map(|row| row[from] - row[to]).collect()
    }
}

/// Picks a boundary on the selection samples, and judges it on the held-out ones.
pub fn choose(input: &Input, options: &Options) -> Choice {
    let Input { selection, holdout, curve, whole } = input;
    let layers = input.layers();
    let everyone: Vec<usize> = (0..selection.samples()).collect();
    let rules::Pick { best, one_se } = rules::pick(selection, &everyone);

    let gain = measure(&holdout.gains(layers, one_se), options);
    let adapter_gain = measure(&holdout.gains(0, layers), options);
    let base_gain = measure(&holdout.gains(0, one_se), options);
    let retained = (adapter_gain.low > 0.0)
        .then(|| retained(&holdout.gains(0, one_se), &holdout.gains(0, layers), options))
        .flatten();

    let held_out = HeldOut { gain, adapter_gain, base_gain, retained };
    let (verdict, reason) = judge(*whole, one_se, &held_out, options);
    Choice {
        verdict,
        reason,
        layers_kept: match verdict {
            Verdict::Trim => one_se,
            Verdict::KeepFull => layers,
            Verdict::UseBase => 0,
        },
        best,
        one_se,
        curve: rules::change_point(curve),
        bootstrap: rules::stability(selection, layers, options.choice_resamples, options.seed),
        gain,
        adapter_gain,
        base_gain,
        retained,
        validation: Validation::Holdout,
        abstains: false,
        power: None,
    }
}

/// What the held-out samples say of the candidate.
struct HeldOut {
    gain: Gain,
    adapter_gain: Gain,
    base_gain: Gain,
    retained: Option<Interval>,
}

/// Compares the candidate with whichever of `full` and `base` has the better held-out mean; a tie goes to `base`, which
/// costs nothing.
///
/// Against `full` the cut has to be better by the test, or not worse by the margin. Against `base` it has to be better
/// by the test: a cut of a harmful adapter beats the full one merely by being nearer to the base model. For k = 0 and for
/// k = L the candidate is itself one of the two, and there is no third to keep.
fn judge(whole: usize, one_se: usize, held_out: &HeldOut, options: &Options) -> (Verdict, Reason) {
    let HeldOut { gain, adapter_gain, base_gain, retained } = held_out;
    let is_shown = |gain: &Gain| gain.mean > 0.0 && gain.p < options.alpha;
    let is_cut = 0 < one_se && one_se < whole;

    if adapter_gain.mean <= 0.0 {
        return if is_cut && is_shown(base_gain) {
            (Verdict::Trim, Reason::BetterThanBase)
        } else {
            (Verdict::UseBase, Reason::AdapterNotBetter)
        };
    }
    if one_se >= whole {
        return (Verdict::KeepFull, Reason::NoCut);
    }
    // A margin of 0 or less must not let a cut through that is worse than the base model.
    let is_candidate = is_cut && base_gain.mean > 0.0;
    if is_candidate && is_shown(gain) {
        return (Verdict::Trim, Reason::Better);
    }
    // A share of the adapter's gain means something only where that gain is itself shown.
    let is_kept = |retained: &Interval| is_shown(adapter_gain) && retained.low > options.margin;
    if is_candidate && retained.as_ref().is_some_and(is_kept) {
        return (Verdict::Trim, Reason::NotWorse);
    }
    (Verdict::KeepFull, Reason::NotShown)
}

/// The mean of paired gains with its interval and its test.
fn measure(gains: &[f64], options: &Options) -> Gain {
    let (low, high) = stats::bootstrap_mean(gains, options.resamples, holdout_resampler(gains, options));
    Gain {
        mean: stats::mean(gains),
        low,
        high,
        p: stats::sign_flip_p(gains, options.resamples, options.seed),
        samples: gains.len(),
    }
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

fn is_usable(value: f64) -> bool {
    value.abs() <= MAX_MAGNITUDE
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYERS: usize = 10;

    fn measured(mean: f64, p: f64) -> Gain {
        Gain { mean, low: mean - 0.1, high: mean + 0.1, p, samples: 50 }
    }

    fn judged(one_se: usize, gain: Gain, adapter_gain: Gain, base_gain: Gain, low: Option<f64>) -> (Verdict, Reason) {
        let retained = low.map(|low| Interval { value: low + 0.01, low, high: low + 0.02 });
        judge(LAYERS, one_se, &HeldOut { gain, adapter_gain, base_gain, retained }, &Options::default())
    }

    #[test]
    fn a_useful_adapter_is_cut_only_for_a_shown_reason() {
        let (useful, none) = (measured(0.5, 0.001), measured(0.0, 1.0));
        let cut = |gain, low| judged(4, gain, useful, measured(0.5, 0.001), low);
        assert_eq!(cut(measured(0.1, 0.01), Some(1.05)), (Verdict::Trim, Reason::Better));
        assert_eq!(cut(measured(-0.001, 0.01), Some(0.981)), (Verdict::Trim, Reason::NotWorse));
        assert_eq!(cut(measured(0.1, 0.06), None), (Verdict::KeepFull, Reason::NotShown));
        assert_eq!(cut(measured(-0.1, 0.01), Some(0.98)), (Verdict::KeepFull, Reason::NotShown));
        assert_eq!(judged(LAYERS, none, useful, useful, Some(1.0)), (Verdict::KeepFull, Reason::NoCut));
        // Three samples can show nothing: the exact test's least p is 0.25, however narrow their interval.
        let unproven = measured(0.5, 0.25);
        assert_eq!(judged(4, none, unproven, useful, Some(0.99)), (Verdict::KeepFull, Reason::NotShown));
        assert_eq!(judged(0, measured(-0.5, 0.001), useful, none, Some(0.0)), (Verdict::KeepFull, Reason::NotShown));
    }

    #[test]
    fn a_useless_adapter_is_dropped_unless_its_cut_is_shown_to_help() {
        let useless = measured(-0.3, 0.001);
        let cut = |base_gain| judged(4, measured(0.4, 0.001), useless, base_gain, None);
        assert_eq!(cut(measured(0.1, 0.2)), (Verdict::UseBase, Reason::AdapterNotBetter));
        assert_eq!(cut(measured(0.1, 0.01)), (Verdict::Trim, Reason::BetterThanBase));
        let none = measured(0.0, 1.0);
        assert_eq!(judged(LAYERS, none, useless, useless, None), (Verdict::UseBase, Reason::AdapterNotBetter));
        assert_eq!(judged(0, measured(0.3, 0.001), useless, none, None), (Verdict::UseBase, Reason::AdapterNotBetter));
        // An adapter that changes nothing.
        assert_eq!(judged(0, none, none, none, None), (Verdict::UseBase, Reason::AdapterNotBetter));
    }

    #[test]
    fn a_boundary_above_all_lora_is_no_cut() {
        let rows = vec![vec![2.0, 1.5, 1.0, 1.0, 1.0]; 12];
        let input = Input::new(&rows, &rows, &[0.1, 0.2, 0.5, 0.9]).unwrap();
        let reason = |input: &Input| choose(input, &Options::default()).reason;
        assert_eq!(reason(&input), Reason::NotWorse);
        assert_eq!(reason(&input.with_whole(2)), Reason::NoCut);
    }

    #[test]
    fn no_margin_lets_a_cut_through_that_is_worse_than_the_base() {
        let options = Options { margin: -1.0, ..Options::default() };
        let held_out = HeldOut {
            gain: measured(-0.6, 0.001),
            adapter_gain: measured(0.5, 0.001),
            base_gain: measured(-0.1, 0.5),
            retained: Some(Interval { value: -0.2, low: -0.3, high: -0.1 }),
        };
        assert_eq!(judge(LAYERS, 4, &held_out, &options), (Verdict::KeepFull, Reason::NotShown));
    }

    #[test]
    fn a_ratio_to_almost_nothing_has_no_interval() {
        let options = Options::default();
        let whole = [1.0, -0.9, 0.8, -0.7, 0.6, -0.5];
        assert_eq!(retained(&[1.0; 6], &whole, &options), None);
        let kept = retained(&[0.5; 6], &[1.0; 6], &options);
        assert_eq!(kept, Some(Interval { value: 0.5, low: 0.5, high: 0.5 }));
    }

    #[test]
    fn reports_name_verdicts_and_reasons_in_kebab_case() {
        assert_eq!(serde_json::to_string(&Verdict::UseBase).unwrap(), "\"use-base\"");
        assert_eq!(serde_json::to_string(&Reason::BetterThanBase).unwrap(), "\"better-than-base\"");
        assert_eq!(serde_json::to_string(&Reason::NotShown).unwrap(), "\"not-shown\"");
    }
}
