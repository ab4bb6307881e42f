//! What is searched, and how: settings with their defaults.

use std::num::NonZero;

use plimsoll_stats::choose::Margin;

use crate::lora::{Family, Places};

/// The share that is held out by default, where samples are held out.
pub const HOLDOUT: f64 = 0.33;

/// What is searched, and how. The defaults suit most searches.
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
    /// Families whose members are scored and compete; `bottom-k` is always among them.
    pub families: Vec<Family>,
    /// Gates of the user's own that compete too, as [`Variant::parse_for`](crate::lora::Variant::parse_for) reads them.
    pub gates: Vec<String>,
    /// Whether a cut is compared with controls.
    pub controls: ControlScoring,
    /// Effects of layers that are measured.
    pub effects: EffectSettings,
    /// What counts as not worse on the guard's samples: a loss of less than this, in nats per answer token.
    pub guard_margin: f64,
    /// What counts as not worse than the full adapter.
    pub margin: Margin,
    /// Share of the adapter's bytes that the candidate may keep at most; any, where it is `None`.
    pub budget: Option<f64>,
    /// With a metric, at most so many boundaries answer the selection samples.
    pub metric_candidates: usize,
    /// The scores of every answer token are kept of at most so many samples.
    pub token_samples: usize,
    /// Probability curves are drawn from at most so many selection samples.
    pub lens_samples: NonZero<usize>,
    /// Seed of the split and of all resampling.
    pub seed: u64,
}

impl Default for SearchSettings {
    fn default() -> Self {
        const LENS_SAMPLES: NonZero<usize> = NonZero::new(16).unwrap();
        Self {
            validation: Validation::Auto,
            strategy: Strategy::Exact,
            families: Vec::new(),
            gates: Vec::new(),
            controls: ControlScoring::Scored,
            effects: EffectSettings::default(),
            guard_margin: 0.01,
            margin: Margin::Share(0.98),
            budget: None,
            metric_candidates: 5,
            token_samples: 64,
            lens_samples: LENS_SAMPLES,
            seed: 0,
        }
    }
}

/// Which samples judge the candidate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Validation {
    /// A third of 100 samples and more; of fewer all of them, in 10 folds, where nothing but boundaries is searched.
    Auto,
    /// This share of them, held out.
    HeldOut(f64),
    /// All of them, in so many folds (nested cross-validation).
    Folds(usize),
}

/// Whether a cut is compared with controls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlScoring {
    /// It is.
    Scored,
    /// It is not.
    Omitted,
}

/// Which boundaries are scored on which samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Strategy {
    /// All on all.
    Exact,
    /// Boundaries leave once they are significantly worse (see [`plimsoll_stats::choose::race`]).
    Racing {
        /// Largest probability that the best of the boundaries that are raced is dropped.
        error_rate: f64,
    },
}

impl Strategy {
    /// A race with its default error rate, 5 %.
    pub const RACING: Self = Self::Racing { error_rate: 0.05 };
}

/// Effects of layers and modules that are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EffectSettings {
    /// Of what effects are measured that need runs of their own; none, where it is `None`.
    pub places: Option<Places>,
    /// Effects are measured on at most so many selection samples.
    pub samples: NonZero<usize>,
    /// Pairs of orders behind the Shapley values; none are estimated where it is 0.
    pub order_pairs: usize,
}

impl Default for EffectSettings {
    fn default() -> Self {
        const SAMPLES: NonZero<usize> = NonZero::new(16).unwrap();
        Self { places: None, samples: SAMPLES, order_pairs: 2 }
    }
}
