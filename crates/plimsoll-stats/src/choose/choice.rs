//! The answer, what it rests on, and the options that decide it.

use std::fmt;
use std::num::NonZeroUsize;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_name_verdicts_and_reasons_in_kebab_case() {
        assert_eq!(serde_json::to_string(&Verdict::UseBase).unwrap(), "\"use-base\"");
        assert_eq!(serde_json::to_string(&Reason::BetterThanBase).unwrap(), "\"better-than-base\"");
        assert_eq!(serde_json::to_string(&Reason::NotShown).unwrap(), "\"not-shown\"");
    }
}
