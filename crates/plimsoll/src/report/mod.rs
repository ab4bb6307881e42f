//! Reports of a search as a table for the terminal, Markdown, JSON and a self-contained HTML page; comparisons of
//! several searches ([`compare`]); tables of evaluations ([`evaluation`](evaluation())) and of adapters
//! ([`inspection`](inspection())).
//!
//! All forms render the same [`SearchResult`] and compute only differences of its means. The HTML page needs no
//! network; its figures are SVG and need no script. Texts and formats of numbers are in `words`, and the tables after
//! the boundaries in `sections`, so that all forms agree. [`read`](read()) reads results back; it treats them as
//! untrusted files, with limits on sizes and counts.
//!
//! ```
//! use std::path::Path;
//!
//! use plimsoll::report::{self, Style};
//!
//! let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures"));
//! let (file, result) = report::read(&folder.join("result.json"))?;
//! let table = report::table(&result, Style::Plain);
//! let page = report::html(&result, &report::read_tokens(&file)?);
//! assert!(table.contains("picked by") && page.starts_with("<!DOCTYPE html>"));
//! # Ok::<(), plimsoll::Error>(())
//! ```

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
mod retained;
mod samples;
mod sections;
mod sufficient;
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
pub use read::{Asked, ReportProblem, picked_gates, read, read_tokens};
pub use table::table;
pub use terminal::Style;
pub use words::{forewarning, sentence};

use plimsoll_stats::choose::Verdict;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::lora::Family;
use crate::result::{Candidate, SearchResult, VariantSummary};

/// A result as indented JSON, in the format of `result.json`. Ends with a line feed.
///
/// # Errors
/// A result that serde cannot serialise.
pub fn json(result: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(result).map_err(|error| Error::Internal(error.to_string()))?;
    Ok(text + "\n")
}

/// The mark of the boundary that the verdict keeps.
const CHOSEN: &str = "chosen";

/// The boundaries (`bottom-k`) in the order of the result: the ablation curve.
fn boundaries(result: &SearchResult) -> impl Iterator<Item = &VariantSummary> {
    result.variants.iter().filter(|variant| variant.family == Family::BottomK)
}

/// Why a boundary was not scored on all samples: `dropped after 8` samples of the race, or `not scored`.
fn race_status(result: &SearchResult, k: usize) -> Option<String> {
    let race = result.race.as_ref()?;
    let dropped = race.dropped.iter().find(|dropped| dropped.layers_kept == k);
    match dropped {
        Some(dropped) => Some(format!("dropped after {}", dropped.samples)),
        None => race.skipped.contains(&k).then(|| "not scored".to_owned()),
    }
}

/// The full adapter's scores, if it was scored.
fn full(result: &SearchResult) -> Option<&VariantSummary> {
    boundaries(result).find(|variant| variant.layers_kept == result.model.layers)
}

/// The candidate, if it is not a boundary.
fn other_candidate(result: &SearchResult) -> Option<&Candidate> {
    result.candidate.as_ref().filter(|candidate| candidate.family != Family::BottomK)
}

/// The candidate, if it is a boundary: its number of layers. Results without a candidate name the pick of the
/// one-standard-error rule.
fn candidate_boundary(result: &SearchResult) -> usize {
    result.candidate.as_ref().map_or(result.choice.one_se, |candidate| candidate.layers_kept)
}

/// The boundary that the verdict keeps, if it keeps one.
fn chosen(result: &SearchResult) -> Option<usize> {
    let is_boundary = result.choice.verdict != Verdict::Trim || other_candidate(result).is_none();
    is_boundary.then_some(result.choice.layers_kept)
}

/// The rules that picked the boundary `k`: `best`, `one-SE`, `curve` and `chosen`.
fn marks(result: &SearchResult, k: usize) -> Vec<&'static str> {
    let choice = &result.choice;
    let rules = [("best", Some(choice.best)), ("one-SE", Some(choice.one_se)), ("curve", choice.curve)];
    let rules = rules.into_iter().chain([(CHOSEN, chosen(result))]);
    rules
        .filter_map(|(name, picked)| Some((name, picked?)))
        .filter_map(|(name, picked)| (picked == k).then_some(name))
        .collect()
}

/// The boundaries that any rule picked, ascending, without duplicates.
fn picked(result: &SearchResult) -> Vec<usize> {
    let choice = &result.choice;
    let mut picked = vec![choice.best, choice.one_se];
    picked.extend(choice.curve.into_iter().chain(chosen(result)));
    picked.sort_unstable();
    picked.dedup();
    picked
}

/// Whether a variant is the candidate.
fn is_candidate(result: &SearchResult, family: Family, gates: &str) -> bool {
    result.candidate.as_ref().is_some_and(|candidate| candidate.family == family && candidate.gates == gates)
}
