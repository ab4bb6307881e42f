//! Settings of a search, with their defaults.

use std::num::NonZero;

use plimsoll_stats::choose::{Margin, Rule};

use crate::lora::{Family, Places};
use crate::result::SearchKind;

/// Default share of the samples that is held out, if samples are held out.
pub const HOLDOUT: f64 = 0.33;

/// Settings of a search. The defaults suit most searches.
///
/// ```
/// use plimsoll::search::{SearchSettings, Strategy};
///
/// let settings = SearchSettings { strategy: Strategy::RACING, ..SearchSettings::default() };
/// assert!(settings.families.is_empty() && settings.seed == 0);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct SearchSettings {
    /// Which samples judge the candidate.
    pub validation: Validation,
    /// Which boundaries are scored on which samples.
    pub strategy: Strategy,
    /// Families that compete with the boundaries (`bottom-k`).
    pub families: Vec<Family>,
    /// Variants of the user that compete too: LoRA strengths as [`Variant::parse_for`](crate::lora::Variant::parse_for)
    /// reads them.
    pub gates: Vec<String>,
    /// Whether the candidate is compared with controls.
    pub controls: ControlScoring,
    /// Whether other LoRA strengths of the whole adapter are tried.
    pub strength: StrengthSearch,
    /// Which effects of layers are measured.
    pub effects: EffectSettings,
    /// A loss on the guard's samples below this counts as not worse, in nats per answer token.
    pub guard_margin: f64,
    /// The rule that picks the candidate; `None` for the default of the strategy ([`rule`](Self::rule)).
    pub rule: Option<Rule>,
    /// What a cut may lose against the full adapter.
    pub margin: Margin,
    /// Maximum share of the adapter's bytes that the candidate keeps; `None` for no limit.
    pub budget: Option<f64>,
    /// With a metric and the one-standard-error rule: maximum number of boundaries that answer the selection samples;
    /// fewer than 4 count as 4.
    pub metric_candidates: usize,
    /// Maximum number of samples whose answer-token scores are kept.
    pub token_samples: usize,
    /// Maximum number of selection samples for the probability curves.
    pub lens_samples: NonZero<usize>,
    /// Seed of the split and of all resampling.
    pub seed: u64,
}

impl Default for SearchSettings {
    fn default() -> Self {
        const LENS_SAMPLES: NonZero<usize> = NonZero::new(16).unwrap();
        Self {
            validation: Validation::Auto,
            strategy: Strategy::Auto,
            families: Vec::new(),
            gates: Vec::new(),
            controls: ControlScoring::Scored,
            strength: StrengthSearch::Tuned,
            effects: EffectSettings::default(),
            guard_margin: 0.01,
            rule: None,
            margin: Margin::Share(0.98),
            budget: None,
            metric_candidates: 5,
            token_samples: 64,
            lens_samples: LENS_SAMPLES,
            seed: 0,
        }
    }
}

impl SearchSettings {
    /// The rule that picks the candidate. By default it is the rule of sufficient layers, and in a race, which does not
    /// score all samples, the one-standard-error rule.
    pub fn rule(&self) -> Rule {
        let default = match self.strategy {
            Strategy::Auto | Strategy::Exact | Strategy::Sequential => Rule::Sufficient,
            Strategy::Racing { .. } => Rule::OneSe,
        };
        self.rule.unwrap_or(default)
    }
}

/// Which samples judge the candidate.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Validation {
    /// With fewer than 100 samples, and if only boundaries are searched: all samples, in 10 folds. Otherwise a third is
    /// held out.
    Auto,
    /// This share of the samples is held out.
    HeldOut(f64),
    /// All samples, in this number of folds (nested cross-validation).
    Folds(usize),
}

/// Whether the candidate is compared with controls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlScoring {
    /// Controls are scored and compared.
    Scored,
    /// Controls are left out.
    Omitted,
}

/// Whether other LoRA strengths of the whole adapter are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StrengthSearch {
    /// With the rule of sufficient layers, the strength is tuned by cross-validation
    /// ([`plimsoll_stats::choose::strength`]). If it is shown to be better than 1, boundaries at this strength are
    /// scored too.
    Tuned,
    /// The strength is that of the adapter as trained.
    AsTrained,
}

/// Which boundaries are scored on which samples.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Strategy {
    /// Exact if that takes at most 10¹⁴ multiply-adds: some minutes on a desktop computer. Otherwise sequential, unless
    /// the other settings need all boundaries. A [`Study`](super::Study) alone, which knows no model, is exact.
    Auto,
    /// All boundaries on all samples.
    Exact,
    /// Boundaries from the full adapter downward, a few at a time, and only as far as the margin needs: no more than
    /// the rule of sufficient layers asks for. Whether a cut is better than the full adapter is not tested.
    Sequential,
    /// Boundaries that are significantly worse are dropped (see [`plimsoll_stats::choose::race`]).
    Racing {
        /// Largest probability that the best boundary of the race is dropped.
        error_rate: f64,
    },
}

impl Strategy {
    /// A race with its default error rate, 5 %.
    pub const RACING: Self = Self::Racing { error_rate: 0.05 };

    /// The kind in results. A strategy that is not decided is exact.
    pub(super) fn kind(self) -> SearchKind {
        match self {
            Self::Auto | Self::Exact => SearchKind::Exact,
            Self::Sequential => SearchKind::Sequential,
            Self::Racing { .. } => SearchKind::Racing,
        }
    }
}

/// Which effects of layers and modules are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EffectSettings {
    /// Whether effects that need additional runs are measured for layers, or also for modules; `None` for neither.
    pub places: Option<Places>,
    /// Maximum number of selection samples for effects.
    pub samples: NonZero<usize>,
    /// Pairs of layer orders for the Shapley values; 0 for no Shapley values.
    pub order_pairs: usize,
}

impl Default for EffectSettings {
    fn default() -> Self {
        const SAMPLES: NonZero<usize> = NonZero::new(16).unwrap();
        Self { places: None, samples: SAMPLES, order_pairs: 2 }
    }
}
