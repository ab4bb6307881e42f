//! The search: which LoRA layers of an adapter does inference need?
//!
//! [`search()`] builds a search from a model, an adapter and samples. [`PreparedSearch`] is a search with checked
//! inputs, and [`Found`] is its result, which writes files only on request. A [`Study`] is a search without files:
//! samples, the adapter's table and settings. It runs on any engine, in stages:
//!
//! 1. `plan`: the stages, with upper bounds of their work, before any score is known;
//! 2. `score`: scores of variants that do not depend on scores, on the selection samples; exact, or as a race;
//! 3. `select`: each family's rule picks a member, and the families compete; or a metric chooses;
//! 4. `judge`: the candidate is judged by samples that had no part in picking it, and compared with controls;
//! 5. `explain`: effects of layers, scores of tokens, and efficiency.
//!
//! Each stage is a function of the study, the scores so far and the results of the earlier stages. All scores go
//! through `scoring`, which journals them and asks the engine only for unknown ones.

mod answered;
mod competition;
mod controls;
mod effects;
mod explain;
mod found;
mod journal;
mod judge;
mod lens;
mod metric;
mod outcome;
mod plan;
mod progress;
mod provenance;
mod run;
mod score;
mod scoring;
mod select;
mod settings;
mod strength;
mod study;
mod sufficient;
mod write;

pub use found::{Found, TrimmedAdapter};
pub use judge::GuardJudgement;
pub use outcome::Findings;
pub use plan::SearchPlan;
pub use progress::Progress;
pub use run::{PreparedSearch, Search, search};
pub use settings::{ControlScoring, EffectSettings, HOLDOUT, SearchSettings, Strategy, StrengthSearch, Validation};
pub use study::Study;
pub use write::{OutputFolder, WrittenFiles};
