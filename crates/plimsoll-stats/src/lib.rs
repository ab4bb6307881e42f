//! Statistics of paired scores: means, resampling, intervals and tests; the rules that choose a variant from scores
//! ([`choose`]); and metrics of generated text ([`metrics`]).
//!
//! All functions take slices of `f64` or strings; nothing here depends on a model, an engine or a file. The same input
//! and seed give the same numbers on every platform, except for the last digits of p-values from the t distribution.
//!
//! ```
//! use std::num::NonZeroUsize;
//!
//! use plimsoll_stats::{mean_and_se, sign_flip_p};
//!
//! // Gains of five samples, in nats per token.
//! let gains = [0.1, 0.2, 0.3, 0.7, 0.9];
//! let (mean, se) = mean_and_se(&gains);
//! assert!((mean - 0.44).abs() < 1e-12 && se > 0.0);
//! // Two of 32 sign patterns have a sum of this size.
//! assert_eq!(sign_flip_p(&gains, NonZeroUsize::MIN, 0), 2.0 / 32.0);
//! ```

pub mod choose;
mod distributions;
mod estimates;
mod hypotheses;
pub mod metrics;
mod random;
mod ranks;

pub use distributions::{normal_above, normal_quantile, student_t_above};
pub use estimates::{bootstrap_mean, mean, mean_and_se, percentile_interval, wilson_interval};
pub use hypotheses::{holm, sign_flip_above, sign_flip_p, skewed_t_above};
pub use random::{Resampler, Stream, folds, generator, shuffle};
pub use ranks::{pareto, spearman};

pub(crate) use hypotheses::{Seen, share_of_patterns, sums_of_flipped};
