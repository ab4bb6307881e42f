//! Metrics of generated text, each with the same values as its usual implementation.
//!
//! | `kind` | implementation | scale | mean over samples |
//! |---|---|---|---|
//! | `exact-match` | lm-evaluation-harness 0.4.13 | 0 to 1 | yes |
//! | `numeric` | this project: equal within a tolerance (`numeric.rs`) | 0 to 1 | yes |
//! | `squad-exact`, `squad-f1` | transformers 4, after the SQuAD 2.0 script | 0 to 1 | yes |
//! | `rouge-1`, `rouge-2`, `rouge-l`, `rouge-lsum` | rouge-score 0.1.2, F measure | 0 to 1 | yes |
//! | `bleu`, `chrf` | sacreBLEU 2.6.0, its defaults | 0 to 100 | no |
//! | `perplexity` | `e^(NLL per token)` of a reference, over all samples | from 1, lower is better | no |
//!
//! A metric consists of a list of numbers for each sample, its *sufficient statistics*, and a function of their sums. A
//! metric that is a mean over samples has one statistic, the sample's score. The statistics of BLEU and chrF are the
//! counts from which precision and recall are computed. So samples can be resampled, or swapped between two systems,
//! without their texts, in the same way for all metrics ([`compare`]).
//!
//! Each metric keeps its usual scale, so that values can be compared with published ones. Of several references the
//! best one is used by metrics that are means; the modules of BLEU and chrF state what they do. Without references
//! nothing matches; for SQuAD the question then has no answer.
//!
//! Pure functions of strings and `f64`: they do not depend on a model, an engine or a file. BLEU takes logarithms from
//! the platform's mathematics library; all other results are the same to the last bit on every platform.
//!
//! # Example
//!
//! SQuAD's F1 of one answer: one of two words is right, and articles are ignored.
//!
//! ```
//! use plimsoll_stats::metrics::{Measure, Metric};
//!
//! let metric = Metric { measure: Measure::SquadF1, extract: None };
//! let statistics = metric.statistics("a grey ship", &["the ship".to_owned()]);
//! let f1 = metric.value(&statistics, 1);
//! assert!((f1 - 2.0 / 3.0).abs() < 1e-12); // precision 1/2, recall 1
//! ```

mod answers;
mod bleu;
mod chrf;
pub mod compare;
mod metric;
mod numeric;
mod pattern;
mod porter;
mod rouge;
mod text;

pub use answers::ExactMatch;
pub use metric::{Measure, Metric};
pub use numeric::Tolerance;
pub use pattern::{Extract, Pattern, PatternProblem, Take};
pub use porter::stem;
pub use rouge::{RougeKind, Stemming};
