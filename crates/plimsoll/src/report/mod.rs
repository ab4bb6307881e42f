//! One search, told three ways: `result.json`, a table for the terminal, and one self-contained HTML file.
//!
//! All three render the same [`SearchResult`]; nothing is computed here that the struct does not hold, but differences
//! of its means. Figures are SVG drawn by `svg`, the page is a template with escaping on, and both stand without a
//! network or a script. Numbers and sentences come from `words`, so that the terminal and the page say the same.

mod effects;
mod evaluation;
mod evidence;
mod figures;
mod html;
mod inspection;
mod page;
mod result;
mod samples;
mod svg;
mod table;
mod variants;
mod words;

pub use evaluation::{Form, evaluation};
pub use html::html;
pub use inspection::{inspection, trimmed};
pub use result::{
    AdapterFacts, Agreement, Arbitration, Candidate, Control, Controls, Cost, DataFacts, Depth, DroppedBoundary,
    EffectKind, EffectMeasure, EffectValue, Effects, FamilySummary, FrontPoint, GuardSummary, LensPoint, LensSummary,
    MetricSummary, MetricVariant, ModelFacts, RaceSummary, Rules, SampleTokens, ScoreSummary, SearchResult,
    VariantSummary, Warning,
};
pub use table::{Style, table};
pub use words::sentence;

use serde::Serialize;

use crate::choose::Verdict;
use crate::error::{Error, Result};
use crate::gates::Family;

/// A result as `result.json` holds it.
///
/// # Errors
/// A number that is not finite has no form in JSON.
pub fn json(result: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(result).map_err(|error| Error::Internal(error.to_string()))?;
    Ok(text + "\n")
}

/// What the boundary of the answer is called among the marks.
const CHOSEN: &str = "chosen";

/// The bottom-k variants, in the order of the result: the ablation curve.
fn boundaries(result: &SearchResult) -> impl Iterator<Item = &VariantSummary> {
    result.variants.iter().filter(|variant| variant.family == Family::BottomK)
}

/// What became of a boundary in the race, where it did not reach the end of it.
fn lost(result: &SearchResult, k: usize) -> Option<String> {
    let race = result.race.as_ref()?;
    let dropped = race.dropped.iter().find(|dropped| dropped.layers_kept == k);
    match dropped {
        Some(dropped) => Some(format!("worse after {}", dropped.samples)),
        None => race.skipped.contains(&k).then(|| "not raced".to_owned()),
    }
}

/// The full adapter's scores, where it was scored.
fn full(result: &SearchResult) -> Option<&VariantSummary> {
    boundaries(result).find(|variant| variant.layers_kept == result.model.layers)
}

/// Whether the boundary `k` is the answer, and not as many other layers.
fn is_answer(result: &SearchResult, k: usize) -> bool {
    let is_other = result.candidate.as_ref().is_some_and(|candidate| candidate.family != Family::BottomK);
    result.choice.layers_kept == k && !(is_other && result.choice.verdict == Verdict::Trim)
}

/// Which rules picked the boundary `k`: of `best`, `one-SE`, `curve` and `chosen`.
fn marks(result: &SearchResult, k: usize) -> Vec<&'static str> {
    let choice = &result.choice;
    [
        ("best", choice.best == k),
        ("one-SE", choice.one_se == k),
        ("curve", choice.curve == k),
        (CHOSEN, is_answer(result, k)),
    ]
    .into_iter()
    .filter_map(|(name, is_picked)| is_picked.then_some(name))
    .collect()
}

/// Every boundary that some rule picked, once each, ascending.
fn picked(result: &SearchResult) -> Vec<usize> {
    let choice = &result.choice;
    let mut picked = vec![choice.best, choice.one_se, choice.curve];
    picked.extend(Some(choice.layers_kept).filter(|k| is_answer(result, *k)));
    picked.sort_unstable();
    picked.dedup();
    picked
}
