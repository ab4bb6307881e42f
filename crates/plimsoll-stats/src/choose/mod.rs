//! Rules that choose a boundary from scores, and judge it.
//!
//! A boundary k keeps LoRA in layers `0..k` (arXiv:2503.23360): k = L is the full adapter, k = 0 is the base model.
//! Three rules pick a boundary from the *selection* samples ([`Choice::best`], [`Choice::one_se`], [`Choice::curve`]).
//! The *held-out* samples, which had no part in picking it, judge a pick ([`judge`], [`Verdict`]); with few samples,
//! each of them is held out in turn ([`choose_nested`]). The rule of sufficient layers ([`sufficient`]) picks by tests
//! in an order that is fixed before, on all samples; [`two_looks`] has the levels of its tests if it first looks at
//! some of them. [`strength`] tunes one LoRA strength for the whole adapter. Scores are NLL in nats per answer token,
//! and a mean is over samples. Every comparison is paired by sample, and all resampling is by sample. A task's metric
//! can replace the NLL: its loss is the highest possible value minus the sample's value, and its unit is points of the
//! metric.
//!
//! In the paper the candidate is always used. Here the verdict can also be to keep the full adapter or to use the base
//! model, it can be that the samples do not decide ([`Choice::abstains`]), and no gain is reported from the samples
//! that picked k. `docs/choosing-evidence.md` has the rules with their sources, and their error rates in simulated
//! searches.
//!
//! The functions take `f64` only and depend on no model, engine or file. The same input, options and seed give the same
//! numbers on every platform, except for the last digits of p-values from the t distribution.
//!
//! ```
//! use plimsoll_stats::choose::{Input, ChooseOptions, Reason, choose};
//!
//! // NLL of 12 samples at the boundaries 0 to 4: the upper two layers change nothing.
//! let rows = vec![vec![2.0, 1.5, 1.0, 1.0, 1.0]; 12];
//! // The ground-truth probability after each of the 4 layers.
//! let curve = [0.1, 0.2, 0.5, 0.9];
//! let choice = choose(&Input::new(&rows, &rows, &curve).unwrap(), &ChooseOptions::default()).unwrap();
//! assert_eq!((choice.reason, choice.layers_kept), (Reason::NotWorse, 2));
//! ```

mod arbitrate;
mod choice;
mod controls;
pub mod greedy;
mod holdout;
mod judge;
mod looks;
mod nested;
pub mod race;
mod retained;
mod rules;
mod scores;
pub mod strength;
pub mod sufficient;

pub use arbitrate::{Standing, arbitrate};
pub use choice::{Choice, ChooseOptions, Gain, Interval, JudgingSamples, Margin, Part, Power, Reason, Rule, Verdict};
pub use controls::{ControlGains, controls};
pub use holdout::{Input, choose};
pub use judge::{CutKind, Judgement, fewest_to_show, judge, level, paired_gain, power};
pub use looks::two_looks;
pub use nested::{choose_nested, cross_validate, cross_validate_by, folds_for};
pub use scores::{ChooseProblem, Scores};
