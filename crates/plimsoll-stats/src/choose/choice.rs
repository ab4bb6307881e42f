//! The choice with its verdict, reason and comparisons, and the options of the rules.

use std::fmt;
use std::num::NonZeroUsize;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The verdict: what to do with the adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Use the candidate, such as LoRA in the lower layers only.
    Trim,
    /// Keep the full adapter, either because this is shown to be right, or because nothing is shown
    /// ([`Choice::abstains`]).
    KeepFull,
    /// Use the base model: the adapter is shown to be worse, or to gain less than [`ChooseOptions::negligible`].
    UseBase,
}

/// The reason of the verdict. "Shown" means shown by the judging samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// `trim`: the cut is shown to be better than the full adapter.
    Better,
    /// `trim`: the cut is shown not to be worse than the full adapter by the [`Margin`].
    NotWorse,
    /// `trim`: the full adapter's mean is no better than the base model's, and the cut is shown to be better than both.
    BetterThanBase,
    /// `keep-full`: the rule picked all layers.
    NoCut,
    /// `keep-full`: the cut that drops least is shown to lose more than the [`Margin`].
    AllNeeded,
    /// `keep-full`: the cut (the base model, if `one_se` is 0) is shown to be worse than the full adapter.
    Worse,
    /// `keep-full`, abstaining: the cut is shown to be neither better, nor not worse, nor worse. Nested
    /// cross-validation never calls a cut worse.
    NotShown,
    /// `keep-full`, abstaining: the full adapter is not shown to be better than the base model.
    AdapterNotShown,
    /// `keep-full`: the verdict would be to trim, but the cut is not shown to hold the margin on the guard's samples.
    GuardNotHeld,
    /// `use-base`: the full adapter is shown to be worse than the base model, or to gain less than
    /// [`ChooseOptions::negligible`]; and no cut is shown to be better than both.
    AdapterNotBetter,
}

/// The choice: verdict, reason, and the comparisons behind them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Choice {
    /// The verdict.
    pub verdict: Verdict,
    /// The reason of the verdict.
    pub reason: Reason,
    /// Layers that keep LoRA under the verdict: all of them for `keep-full`, none for `use-base`.
    pub layers_kept: usize,
    /// The boundary with the lowest mean NLL on the selection samples.
    pub best: usize,
    /// The smallest boundary within one standard error of `best`, paired by sample.
    pub one_se: usize,
    /// The rule that picked the candidate.
    #[serde(default = "former_rule")]
    pub rule: Rule,
    /// The change point of the `full` ground-truth probability curve; absent if the curve was not computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub curve: Option<usize>,
    /// Share of bootstrap resamples in which the one-standard-error rule picks each boundary: k = 0..L.
    pub bootstrap: Vec<f64>,
    /// The gain of the candidate over the full adapter on the held-out samples. Positive is better.
    pub gain: Gain,
    /// The gain of the full adapter over the base model on the held-out samples. Positive is better.
    pub adapter_gain: Gain,
    /// The gain of the candidate over the base model on the held-out samples. Positive is better.
    pub base_gain: Gain,
    /// The retained share, `(NLL(base) − NLL(candidate)) / (NLL(base) − NLL(full))`, on the held-out samples. `None` if
    /// the interval of the full adapter's gain over the base model is not above 0, because the share is then undefined.
    /// Reports also leave it out if that gain is uncertain ([`Gain::has_shares`]).
    pub retained: Option<Interval>,
    /// Which samples judged.
    #[serde(default)]
    pub validation: JudgingSamples,
    /// Whether the samples do not decide. The verdict is then the safe choice, to keep the full adapter.
    #[serde(default)]
    pub abstains: bool,
    /// The power of the test, if the samples do not decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<Power>,
}

/// The rule of results that name none.
fn former_rule() -> Rule {
    Rule::OneSe
}

/// The samples that judge a candidate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum JudgingSamples {
    /// Held-out samples, which had no part in picking it.
    #[default]
    Holdout,
    /// Nested cross-validation, in which every sample judges once: the rule picks on the other folds, and its pick is
    /// judged on the fold left out. The picks of the rule are judged, not one boundary.
    Nested {
        /// The number of folds.
        folds: usize,
    },
    /// All samples: no sample picked the candidate, because the order of the tests was fixed before.
    All,
}

/// The rule that picks the candidate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// The fewest layers that are shown to hold the margin ([`sufficient`](super::sufficient)), unless the pick of the
    /// one-standard-error rule is shown to be better than the full adapter.
    #[default]
    Sufficient,
    /// The smallest boundary within one standard error of the lowest mean NLL, paired by sample.
    OneSe,
    /// The boundary with the lowest mean NLL.
    Best,
    /// The change point of the full adapter's ground-truth probability curve.
    Curve,
}

impl Rule {
    /// The name in options and results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sufficient => "sufficient",
            Self::OneSe => "one-se",
            Self::Best => "best",
            Self::Curve => "curve",
        }
    }
}

/// The power of a test.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Power {
    /// The true gain that this number of samples shows in 8 of 10 cases.
    pub detectable: f64,
    /// The number of samples that shows a gain of the observed size in 8 of 10 cases; null if the observed gain is not
    /// above 0.
    pub samples: Option<u64>,
}

/// A paired difference on the judging samples, of mean NLL (in nats per answer token) or of a task's metric.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Gain {
    /// Mean difference.
    pub mean: f64,
    /// Lower end of the 95 % bootstrap interval.
    pub low: f64,
    /// Upper end of the 95 % bootstrap interval.
    pub high: f64,
    /// Two-sided p-value, the larger of two paired tests: the randomisation test, and the t-test corrected for
    /// skewness.
    pub p: f64,
    /// Number of held-out samples.
    pub samples: usize,
}

impl Gain {
    /// Whether shares of this gain are meaningful: the lower end of its interval is at least a third of it. Otherwise
    /// the upper end of a share is more than three times the share, and only shows how uncertain this gain is.
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

/// Options of the rules.
#[derive(Clone, Debug, PartialEq)]
pub struct ChooseOptions {
    /// Seed of all resampling.
    pub seed: u64,
    /// Number of bootstrap resamples for the stability of the choice.
    pub choice_resamples: NonZeroUsize,
    /// Number of bootstrap resamples of each interval, and of sign patterns of each randomisation test.
    pub resamples: NonZeroUsize,
    /// A p-value below this shows a difference; with fewer than 20 samples, below half of it.
    pub alpha: f64,
    /// The rule that picks the candidate.
    pub rule: Rule,
    /// What a cut may lose and still count as not worse.
    pub margin: Margin,
    /// If the adapter is shown to gain less than this over the base model, the verdict is to use the base model. In
    /// nats per answer token, or in points of the metric; at 0 or less only a loss counts.
    pub negligible: f64,
}

/// What a cut may lose and still count as not worse than the full adapter.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Margin {
    /// It keeps more than this share of the full adapter's gain over the base model (95 % CI of the retained share
    /// above it).
    Share(f64),
    /// It loses less than this, in nats per answer token (95 % CI of the loss below it).
    Nats(f64),
}

impl Default for ChooseOptions {
    fn default() -> Self {
        const CHOICE_RESAMPLES: NonZeroUsize = NonZeroUsize::new(1_000).unwrap();
        const RESAMPLES: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();
        Self {
            seed: 0,
            choice_resamples: CHOICE_RESAMPLES,
            resamples: RESAMPLES,
            alpha: 0.05,
            rule: Rule::Sufficient,
            margin: Margin::Share(0.98),
            negligible: 0.01,
        }
    }
}

/// A part of the samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// The selection samples, which pick the candidate.
    Selection,
    /// The held-out samples, which judge it.
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
    fn verdicts_and_reasons_are_written_in_kebab_case() {
        assert_eq!(serde_json::to_string(&Verdict::UseBase).unwrap(), "\"use-base\"");
        assert_eq!(serde_json::to_string(&Reason::BetterThanBase).unwrap(), "\"better-than-base\"");
        assert_eq!(serde_json::to_string(&Reason::NotShown).unwrap(), "\"not-shown\"");
    }
}
