//! The result of a search, which can be rendered and written.

use std::path::Path;

use plimsoll_formats::files;
use plimsoll_stats::choose::Verdict;

use super::provenance::provenance;
use crate::error::Result;
use crate::lora::Variant;
use crate::lora::adapter::{self, Adapter};
use crate::report;
use crate::result::{SampleTokens, ScoreRow, SearchResult};

/// The result of a search. It writes files only on request.
#[derive(Clone, Debug)]
pub struct Found<'a> {
    result: SearchResult,
    variant: Variant,
    scores: Vec<ScoreRow>,
    tokens: Vec<SampleTokens>,
    adapter: &'a Adapter,
}

impl<'a> Found<'a> {
    pub(super) fn new(
        result: SearchResult,
        variant: Variant,
        scores: Vec<ScoreRow>,
        tokens: Vec<SampleTokens>,
        adapter: &'a Adapter,
    ) -> Self {
        Self { result, variant, scores, tokens, adapter }
    }

    /// The verdict in a sentence.
    pub fn summary(&self) -> String {
        report::sentence(&self.result)
    }

    /// The whole result, as `result.json` holds it.
    pub fn result(&self) -> &SearchResult {
        &self.result
    }

    /// Every score of every sample, as `scores.jsonl` holds them.
    pub fn scores(&self) -> &[ScoreRow] {
        &self.scores
    }

    /// Scores of the answer tokens of some samples, as `tokens.jsonl` holds them.
    pub fn tokens(&self) -> &[SampleTokens] {
        &self.tokens
    }

    /// The trimmed adapter, if the verdict is to trim.
    pub fn trimmed(&self) -> Option<TrimmedAdapter<'_>> {
        (self.result.choice.verdict == Verdict::Trim).then_some(TrimmedAdapter { found: self })
    }

    /// The report as a self-contained HTML page.
    pub fn html(&self) -> String {
        report::html(&self.result, &self.tokens)
    }

    /// Writes the HTML report to a file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_html(&self, path: impl AsRef<Path>) -> Result<()> {
        Ok(files::write_file(path.as_ref(), self.html().as_bytes())?)
    }
}

/// A trimmed adapter, ready to be written.
#[derive(Clone, Copy, Debug)]
pub struct TrimmedAdapter<'a> {
    found: &'a Found<'a>,
}

impl TrimmedAdapter<'_> {
    /// The variant that is written.
    pub fn variant(&self) -> &Variant {
        &self.found.variant
    }

    /// Writes the adapter to a new folder, in the layout of the original, with a model card.
    ///
    /// # Errors
    /// The folder exists already, or cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<adapter::TrimSummary> {
        let Found { result, variant, adapter, .. } = self.found;
        adapter::write_trimmed(adapter, variant, &provenance(result), folder.as_ref())
    }
}
