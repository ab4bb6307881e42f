//! The main job: which of an adapter's layers does inference need?
//!
//! [`search()`] begins a search of a model, an adapter and samples; [`PreparedSearch`] is one whose inputs are checked;
//! [`Found`] is its answer, which is written only where that is asked for. In between, a [`Study`] knows the samples and
//! the adapter's table but no files, and runs on any engine, in stages:
//!
//! 1. `plan`: the stages and upper bounds of their work, before any score is known;
//! 2. `score`: variants that do not depend on scores, on the samples that choose; exact, or as a race;
//! 3. `select`: each family's rule picks one of its members, and the families compete; or a metric chooses;
//! 4. `judge`: the pick on samples that had no part in picking it, beside its controls;
//! 5. `explain`: effects of layers, scores of tokens, and what a cut saves.
//!
//! Each stage is a function of the study, the scores so far and what the stages before it returned. Scores come in
//! through `scoring`, which journals them and asks the engine only for what is not known yet.

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
mod study;
mod write;

pub use found::{Found, TrimmedAdapter};
pub use outcome::Findings;
pub use plan::SearchPlan;
pub use progress::Progress;
pub use run::{PreparedSearch, Search, search};
pub use settings::{ControlScoring, EffectSettings, HOLDOUT, SearchSettings, Strategy, Validation};
pub use study::Study;
pub use write::{OutputFolder, Written};
