//! Which boundary to choose, and how sure that is.
//!
//! A boundary k keeps LoRA in layers `0..k` (arXiv:2503.23360): k = L is the full adapter, k = 0 the base model. Three
//! rules pick one from the *selection* samples ([`Choice::best`], [`Choice::one_se`], [`Choice::curve`]); the
//! one-standard-error rule's is the candidate, and the *held-out* samples, which had no part in picking it, decide what
//! to do with it ([`judge`], [`Verdict`]); where samples are few, each is held out in turn ([`choose_nested`]). The unit is
//! nats per answer token, the mean over samples of the sample's mean; every comparison is paired and every resampling is
//! by sample. A task's metric can take the place of the NLL, as the highest value that it can have less the value of the
//! sample: what is said of nats then holds for its points.
//!
//! The paper looks for the boundary and cuts there. Here "keep the full adapter" and "use the base model" are answers
//! too, "the samples do not tell" is said where they do not ([`Choice::abstains`]), and no gain is quoted from the samples
//! that chose k. The rules, their sources, and how often they err in simulated searches stand in `docs/choosing.md`.
//!
//! Pure `f64`: nothing here knows a model, an engine or a file. The same input, options and seed give the same numbers
//! on every platform, but for the last digits of p-values from the t distribution.

mod arbitrate;
mod controls;
pub mod greedy;
mod judge;
mod nested;
pub mod race;
mod rules;

use std::fmt;
use std::num::NonZeroUsize;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::arbitrate::{Standing, arbitrate};
pub use self::controls::{ControlGains, controls};
pub use self::judge::{CutKind, Judgement, fewest_to_show, judge, level, paired_gain, power};
pub use self::nested::{choose_nested, cross_validate, folds, validation_for};
use crate::stats::{Resampler, Stream};

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
    /// Keep the whole adapter: because that is shown to be right, or because nothing is shown ([`Choice::abstains`]).
    KeepFull,
    /// The adapter is shown not to beat the base model by anything that matters: drop it.
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
    /// `trim`: the full adapter's mean is no better than the base model's, and the cut is shown to be better than both.
    BetterThanBase,
    /// `keep-full`: the rule picked all layers.
    NoCut,
    /// `keep-full`: the cut (to no layers at all, if `one_se` is 0) is shown to be worse than the full adapter.
    Worse,
    /// `keep-full`, abstaining: the cut is shown to be neither better, nor as good, nor worse. By nested cross-validation
    /// no cut is called worse.
    NotShown,
    /// `keep-full`, abstaining: the samples do not show whether the full adapter beats the base model.
    AdapterNotShown,
    /// `keep-full`: the cut would be made, but is not shown to keep samples of another kind from getting worse.
    GuardNotHeld,
    /// `use-base`: the full adapter is shown to be worse than the base model, or to gain less than
    /// [`Options::negligible`]; and no cut is shown to be better than both.
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
    /// gain over the base is not clear of 0 (its interval holds 0 or less): a share of nothing means nothing. Reports leave
    /// it out where that gain is clear of 0 by little ([`Gain::has_shares`]).
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
    /// Two-sided p-value, the larger of two paired tests: randomisation, and the t-test corrected for skewness.
    pub p: f64,
    /// Number of held-out samples.
    pub samples: usize,
}

impl Gain {
    /// Whether a share of this gain says something: not where the lower end of its interval is less than a third of it. A
    /// share's upper end then is beyond three times the share, which says how uncertain this gain is and nothing else.
    pub fn has_shares(&self) -> bool {
        self.mean > 0.0 && self.low * 3.0 >= self.mean
    }
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
    /// A p-value below this shows a difference; with fewer than 20 samples, one below half of it.
    pub alpha: f64,
    /// What a cut may lose and still not count as worse.
    pub margin: Margin,
    /// An adapter that is shown to gain less than this over the base model gains nothing that matters. In nats per answer
    /// token, or in the points of the metric whose values are judged; at 0 or less only a loss counts.
    pub negligible: f64,
}

/// What a cut may lose and still not count as worse than the full adapter.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Margin {
    /// It surely keeps more than this share of the full adapter's gain over the base model: R(k) is above it.
    Share(f64),
    /// It surely loses less than this, in nats per answer token.
    Nats(f64),
}

impl Default for Options {
    fn default() -> Self {
        const CHOICE_RESAMPLES: NonZeroUsize = NonZeroUsize::new(1_000).unwrap();
        const RESAMPLES: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();
        Self {
            seed: 0,
            choice_resamples: CHOICE_RESAMPLES,
            resamples: RESAMPLES,
            alpha: 0.05,
            margin: Margin::Share(0.98),
            negligible: 0.01,
        }
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
    #[error("boundary {boundary} was not scored on the {part} part")]
    NotScored {
        /// The part.
        part: Part,
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
        check_boundaries(&selection, layers)?;
        check_boundaries(&holdout, layers)?;
        for boundary in [0, layers, selection.pick()] {
            if holdout.column(boundary).is_none() {
                return Err(ChooseProblem::NotScored { part: Part::Holdout, boundary });
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

fn check_boundaries(scores: &Scores, layers: usize) -> Result<(), ChooseProblem> {
    match scores.boundaries.last() {
        Some(&boundary) if boundary > layers => Err(ChooseProblem::Boundary { boundary, layers }),
        _ => Ok(()),
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
        rules::pick(self, &self.everyone()).one_se
    }

    /// How many samples there are.
    pub fn samples(&self) -> usize {
        self.nll.len() / self.boundaries.len()
    }

    /// The NLL of every sample at a boundary, where that was scored.
    pub fn nll(&self, boundary: usize) -> Option<Vec<f64>> {
        let column = self.column(boundary)?;
        Some(self.nll.chunks_exact(self.boundaries.len()).map(|row| row[column]).collect())
    }

    fn everyone(&self) -> Vec<usize> {
        (0..self.samples()).collect()
    }

    /// The NLL of a sample at a boundary that is known to be there.
    fn at(&self, sample: usize, boundary: usize) -> f64 {
        self.row(sample)[self.column(boundary).expect("a boundary of these scores")]
    }

    fn row(&self, sample: usize) -> &[f64] {
        &self.nll[sample * self.boundaries.len()..][..self.boundaries.len()]
    }

    fn column(&self, boundary: usize) -> Option<usize> {
        self.boundaries.binary_search(&boundary).ok()
    }
}

/// Picks a boundary on the selection samples, and judges it on the held-out ones.
pub fn choose(input: &Input, options: &Options) -> Choice {
    let Input { selection, holdout, curve, whole } = input;
    let one_se = selection.pick();
    let [base, full, cut] =
        [0, input.layers(), one_se].map(|boundary| holdout.nll(boundary).expect("checked when the input was made"));
    let judgement = judge(&base, &full, &cut, CutKind::of(one_se, *whole), options);
    Choice::of(selection, &judgement, curve, Validation::Holdout, options)
}

impl Choice {
    /// Puts together what picked and what judged.
    fn of(selection: &Scores, judgement: &Judgement, curve: &[f64], validation: Validation, options: &Options) -> Self {
        let layers = curve.len();
        let rules::Pick { best, one_se } = rules::pick(selection, &selection.everyone());
        let &Judgement { verdict, reason, abstains, gain, adapter_gain, base_gain, retained, power } = judgement;
        Self {
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
            validation,
            abstains,
            power,
        }
    }
}

impl Choice {
    /// The same rules' picks, with the judgement on a candidate that is not one of them and keeps LoRA in so many layers.
    #[must_use]
    pub fn with(self, judgement: &Judgement, layers_kept: usize) -> Self {
        let Judgement { verdict, reason, abstains, gain, adapter_gain, base_gain, retained, power } = *judgement;
        let layers_kept = match verdict {
            Verdict::Trim => layers_kept,
            Verdict::KeepFull => self.bootstrap.len() - 1,
            Verdict::UseBase => 0,
        };
        Self { verdict, reason, layers_kept, abstains, gain, adapter_gain, base_gain, retained, power, ..self }
    }
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

    #[test]
    fn a_boundary_above_all_lora_is_no_cut() {
        let rows = vec![vec![2.0, 1.5, 1.0, 1.0, 1.0]; 12];
        let input = Input::new(&rows, &rows, &[0.1, 0.2, 0.5, 0.9]).unwrap();
        let reason = |input: &Input| choose(input, &Options::default()).reason;
        assert_eq!(reason(&input), Reason::NotWorse);
        assert_eq!(reason(&input.with_whole(2)), Reason::NoCut);
    }

    #[test]
    fn reports_name_verdicts_and_reasons_in_kebab_case() {
        assert_eq!(serde_json::to_string(&Verdict::UseBase).unwrap(), "\"use-base\"");
        assert_eq!(serde_json::to_string(&Reason::BetterThanBase).unwrap(), "\"better-than-base\"");
        assert_eq!(serde_json::to_string(&Reason::NotShown).unwrap(), "\"not-shown\"");
    }
}
