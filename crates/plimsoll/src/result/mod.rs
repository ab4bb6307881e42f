//! Types of the files that plimsoll writes: `result.json`, `scores.jsonl`, `tokens.jsonl`, comparisons and evaluations.
//!
//! The types hold no logic: `search` and `eval` fill them, `report` renders them. New versions may add fields; `schema`
//! counts breaking changes. [`schema()`] gives the JSON Schema of each document.
//!
//! ```
//! use plimsoll::result::{Document, schema};
//!
//! let schema: serde_json::Value = serde_json::from_str(&schema(Document::Result)).unwrap();
//! assert!(schema["properties"]["choice"].is_object());
//! ```

mod answers;
mod comparison;
mod efficiency;
mod eval;
mod evidence;
mod schema;
mod scores;
mod search;
mod sufficient;
mod tokens;
mod variants;
mod warning;

/// Version of the layout of `result.json`. It counts breaking changes: fields that were renamed or removed.
pub const SCHEMA: u32 = 2;

pub use answers::{Finish, Generated, Sampling};
pub use comparison::{ComparedRun, Comparison, CurvePoint, Same};
pub use efficiency::{Efficiency, Speed, VariantEfficiency};
pub use eval::{
    Better, EvalComparison, EvalCost, EvalData, EvalResult, EvalVariant, EvalWarning, Generation, MetricResult,
    TaskFacts,
};
pub use evidence::{
    Agreement, Control, Controls, Depth, EffectKind, EffectMeasure, EffectValue, Effects, GuardSummary, LensPoint,
    LensSummary,
};
pub use schema::{Document, schema};
pub use scores::{DataSource, LensCurve, SampleScores, ScoreRow, VariantScore};
pub use search::{AdapterFacts, AnswerEnding, Cost, DataFacts, ModelFacts, Rules, SearchKind, SearchResult};
pub use sufficient::{StrengthScore, SufficientLayers, SufficientRow, TunedStrength};
pub use tokens::{SampleTokens, Token};
pub use variants::{
    Arbitration, Candidate, DroppedBoundary, FamilySummary, FrontPoint, MetricSummary, MetricVariant, RaceSummary,
    ScoreSummary, VariantSummary,
};
pub use warning::Warning;

pub(crate) use warning::OTHER_BASE_ADVICE;
