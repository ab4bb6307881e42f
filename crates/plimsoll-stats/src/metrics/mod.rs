//! How good generated text is, by the metrics of the field, as their owners define them.
//!
//! | `kind` | owner | scale | a mean |
//! |---|---|---|---|
//! | `exact-match` | lm-evaluation-harness 0.4.13 | 0 to 1 | yes |
//! | `numeric` | this project: equal within a tolerance (`numeric.rs`) | 0 to 1 | yes |
//! | `squad-exact`, `squad-f1` | transformers 4, after the SQuAD 2.0 script | 0 to 1 | yes |
//! | `rouge-1`, `rouge-2`, `rouge-l`, `rouge-lsum` | rouge-score 0.1.2, F measure | 0 to 1 | yes |
//! | `bleu`, `chrf` | sacreBLEU 2.6.0, its defaults | 0 to 100 | no |
//! | `perplexity` | `e^(NLL per token)` of a reference, of all samples together | 1 and up, lower is better | no |
//!
//! A metric is a list of numbers for each sample, its *sufficient statistics*, and a function of their sums. For a
//! metric that is a mean over samples that is one number, the sample's score; for BLEU and chrF it is the counts that
//! precisions and recalls are made of. So samples can be drawn again, or swapped between two systems, without a look at
//! the text, in the same way for all ([`compare`]).
//!
//! Each owner's scale is kept, since numbers are read beside published ones. With several references the best one
//! counts for a mean; BLEU and chrF say themselves what they do. Without any reference nothing matches; for SQuAD the
//! question then has no answer.
//!
//! Pure functions of strings and `f64`: nothing here knows a model, an engine or a file. BLEU takes logarithms from the
//! platform's mathematics library; everything else is the same to the last bit everywhere.

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
