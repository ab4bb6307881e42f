//! Which boundary to choose, and how sure that is.
//!
//! A boundary k keeps LoRA in layers `0..k` (arXiv:2503.23360): k = L is the full adapter, k = 0 the base model. Three
//! rules pick one from the *selection* samples ([`Choice::best`], [`Choice::one_se`], [`Choice::curve`]); the
//! one-standard-error rule's is the candidate, and the *held-out* samples, which had no part in picking it, decide what
//! to do with it ([`judge`], [`Verdict`]); where samples are few, each is held out in turn ([`choose_nested`]). The unit is
//! nats per answer token, the mean over samples of the sample's mean; every comparison is paired and every resampling is
//! by sample. A task's metric can take the place of the NLL, as the highest value that it can have less the value of the
//! sample: what is said of nats then holds for its points.
//!
//! The paper looks for the boundary and cuts there. Here "keep the full adapter" and "use the base model" are answers
//! too, "the samples do not tell" is said where they do not ([`Choice::abstains`]), and no gain is quoted from the samples
//! that chose k. The rules, their sources, and how often they err in simulated searches stand in `docs/choosing.md`.
//!
//! Pure `f64`: nothing here knows a model, an engine or a file. The same input, options and seed give the same numbers
//! on every platform, but for the last digits of p-values from the t distribution.

mod arbitrate;
mod choice;
mod controls;
pub mod greedy;
mod holdout;
mod judge;
mod nested;
pub mod race;
mod rules;
mod scores;

pub use arbitrate::{Standing, arbitrate};
pub use choice::{Choice, Gain, Interval, Margin, Options, Part, Power, Reason, Validation, Verdict};
pub use controls::{ControlGains, controls};
pub use holdout::{Input, choose};
pub use judge::{CutKind, Judgement, fewest_to_show, judge, level, paired_gain, power};
pub use nested::{choose_nested, cross_validate, validation_for};
pub use scores::{ChooseProblem, Scores};
