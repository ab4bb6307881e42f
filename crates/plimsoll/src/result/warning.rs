//! Warnings of a search.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Something the reader should know before trusting the answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Warning {
    /// Too few samples for intervals to mean much.
    FewSamples {
        /// On which the boundary was chosen.
        selection: usize,
        /// On which the gain was measured.
        holdout: usize,
    },
    /// So few samples judge that the tests can show nothing, whatever the scores are.
    CannotShow {
        /// Samples that judge.
        judging: usize,
        /// Samples that have to judge, at least.
        needed: usize,
        /// How many samples that takes in all, judged in the same way.
        samples: usize,
    },
    /// A race was asked for, but drops nothing on so few samples: the search was exact.
    NotRaced {
        /// Samples that a race would have chosen on.
        selection: usize,
        /// Samples to choose on that a race needs, at least.
        needed: usize,
    },
    /// Samples that are too long, and were left out.
    Skipped {
        /// How many.
        samples: usize,
        /// The longest that is scored, in tokens.
        context: usize,
    },
    /// Samples that are too long, and whose answer was cut.
    Cut {
        /// How many.
        samples: usize,
        /// The longest that is scored, in tokens.
        max_length: usize,
    },
    /// Answers that end with no token that ends generation.
    OpenEnding {
        /// How many.
        samples: usize,
    },
    /// One token makes up much of what the adapter gains.
    TokenShare {
        /// The token, as text.
        token: String,
        /// Its id.
        id: u32,
        /// Its share of the gain.
        share: f64,
        /// How often it stands in the answers that this was measured on.
        count: usize,
        /// On how many samples it was measured.
        samples: usize,
    },
    /// The bootstrap does not agree on one boundary.
    Unstable {
        /// Share of resamples that chose the reported boundary.
        share: f64,
    },
    /// The cut was not compared with controls, because that was asked for.
    ControlsOmitted,
    /// The base model has another name than the one that the adapter was trained on.
    OtherBase {
        /// The base model that the adapter names.
        adapter: String,
        /// What the base model of this search is called.
        model: String,
    },
    /// The metric cannot tell the full adapter from the base model on the held-out samples, so the NLL chose.
    MetricUndecided,
    /// The held-out samples do not show that the adapter beats the base.
    AdapterUnproven {
        /// p-value of the adapter's own gain.
        p: f64,
    },
}
