//! One search, told four ways: `result.json`, a table for the terminal, Markdown, and one self-contained HTML file; and
//! several searches side by side ([`compare`]).
//!
//! All render the same [`SearchResult`]; nothing is computed here that the struct does not hold, but differences
//! of its means. Figures are SVG drawn by `svg`, the page is a template with escaping on, and both stand without a
//! network or a script. Numbers and sentences come from `words`, and what stands below the boundaries from `sections`,
//! so that the terminal, Markdown and the page say the same. What was written is read back by [`read`](read()), with
//! limits: a result may come from a stranger.

mod compare;
mod effects;
mod evaluation;
mod evidence;
mod figures;
mod grid;
mod html;
mod inspection;
mod markdown;
mod page;
mod read;
mod samples;
mod sections;
mod svg;
mod table;
mod terminal;
mod variants;
mod words;

pub use compare::{Sort, compare, comparison, comparison_html, unique_names};
pub use evaluation::evaluation;
pub use grid::Form;
pub use html::html;
pub use inspection::{inspection, trimmed};
pub use markdown::markdown;
pub use read::{ReportProblem, picked_gates, read, read_tokens};
pub use table::table;
pub use terminal::Style;
pub use words::{forewarning, sentence};

use plimsoll_stats::choose::Verdict;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::lora::Family;
use crate::result::{Candidate, SearchResult, VariantSummary};

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

/// What was judged, where that is no boundary.
fn beyond(result: &SearchResult) -> Option<&Candidate> {
    result.candidate.as_ref().filter(|candidate| candidate.family != Family::BottomK)
}

/// The boundary that the answer comes to, if it comes to one.
fn chosen(result: &SearchResult) -> Option<usize> {
    let is_boundary = result.choice.verdict != Verdict::Trim || beyond(result).is_none();
    is_boundary.then_some(result.choice.layers_kept)
}

/// Which rules picked the boundary `k`: of `best`, `one-SE`, `curve` and `chosen`.
fn marks(result: &SearchResult, k: usize) -> Vec<&'static str> {
    let choice = &result.choice;
    let rules = [("best", choice.best), ("one-SE", choice.one_se), ("curve", choice.curve)];
    let chosen = chosen(result).map(|k| (CHOSEN, k));
    rules.into_iter().chain(chosen).filter_map(|(name, picked)| (picked == k).then_some(name)).collect()
}

/// Every boundary that some rule picked, once each, ascending.
fn picked(result: &SearchResult) -> Vec<usize> {
    let choice = &result.choice;
    let mut picked = vec![choice.best, choice.one_se, choice.curve];
    picked.extend(chosen(result));
    picked.sort_unstable();
    picked.dedup();
    picked
}
