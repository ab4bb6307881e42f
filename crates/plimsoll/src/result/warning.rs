//! Warnings of a search.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What to do about [`Warning::OtherBase`]; the evaluation's warning has the same text.
pub(crate) const OTHER_BASE_ADVICE: &str = "Check that this is the base model that the adapter was trained on.";

/// A warning of a search: a reason to trust its result less.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "kind")]
#[non_exhaustive]
pub enum Warning {
    /// Few samples: the intervals are rough.
    FewSamples {
        /// Number of selection samples.
        selection: usize,
        /// Number of judging samples.
        holdout: usize,
    },
    /// Too few judging samples: the tests cannot show anything, whatever the scores are.
    CannotShow {
        /// Number of judging samples.
        judging: usize,
        /// Smallest number of judging samples with which the tests can show a difference.
        needed: usize,
        /// Smallest number of samples in all, with the same validation.
        samples: usize,
    },
    /// Racing was requested, but drops nothing on so few samples: the search was exact.
    NotRaced {
        /// Number of selection samples that a race would have.
        selection: usize,
        /// Smallest number of selection samples with which a race can drop a boundary.
        needed: usize,
    },
    /// Samples that are too long were left out.
    Skipped {
        /// Number of samples.
        samples: usize,
        /// Longest sample that is scored, in tokens.
        context: usize,
    },
    /// Samples that are too long lost the end of their answer.
    Cut {
        /// Number of samples.
        samples: usize,
        /// Longest sample that is scored, in tokens.
        max_length: usize,
    },
    /// Answers end without a token that ends generation.
    OpenEnding {
        /// Number of samples.
        samples: usize,
    },
    /// One token makes up a large share of the adapter's gain.
    TokenShare {
        /// The token, as text.
        token: String,
        /// Its id.
        id: u32,
        /// Its share of the gain.
        share: f64,
        /// How often it occurs in these answers.
        count: usize,
        /// Number of samples that the share was measured on.
        samples: usize,
    },
    /// The bootstrap resamples do not agree on one boundary.
    Unstable {
        /// Share of resamples that picked the reported boundary.
        share: f64,
    },
    /// The candidate was not compared with controls, because of `--no-controls`.
    ControlsOmitted,
    /// The base model has another name than the one that the adapter was trained on.
    OtherBase {
        /// The base model that the adapter names.
        adapter: String,
        /// The name of the base model of this search.
        model: String,
    },
    /// The metric does not separate the full adapter from the base model, so the NLL chose.
    MetricUndecided,
    /// The held-out samples do not show that the adapter is better than the base model.
    AdapterUnproven {
        /// p-value of the adapter's gain over the base model.
        p: f64,
    },
}
