//! What a search found, and what can be done with it.

use std::path::Path;

use plimsoll_formats::files;
use plimsoll_stats::choose::Verdict;

use super::provenance::provenance;
use crate::error::Result;
use crate::lora::Variant;
use crate::lora::adapter::{self, Adapter};
use crate::report;
use crate::result::{SampleTokens, ScoreRow, SearchResult};

/// What a search found. Nothing of it is written unless it is asked for.
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

    /// The answer in a sentence.
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

    /// The adapter without what inference does not need, where the answer is to trim.
    pub fn trimmed(&self) -> Option<TrimmedAdapter<'_>> {
        (self.result.choice.verdict == Verdict::Trim).then_some(TrimmedAdapter { found: self })
    }

    /// The report as one HTML page that needs no network.
    pub fn html(&self) -> String {
        report::html(&self.result, &self.tokens)
    }

    /// Writes the report.
    ///
    /// # Errors
    /// The operating system's reason.
    pub fn write_html(&self, path: impl AsRef<Path>) -> Result<()> {
        Ok(files::write_file(path.as_ref(), self.html().as_bytes())?)
    }
}

/// An adapter to be written without the layers that inference does not need.
#[derive(Clone, Copy, Debug)]
pub struct TrimmedAdapter<'a> {
    found: &'a Found<'a>,
}

impl TrimmedAdapter<'_> {
    /// What is kept of the adapter.
    pub fn variant(&self) -> &Variant {
        &self.found.variant
    }

    /// Writes it to a new folder, in the adapter's own layout, with a model card.
    ///
    /// # Errors
    /// The folder exists already, or cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<adapter::Written> {
        let Found { result, variant, adapter, .. } = self.found;
        adapter::write_trimmed(adapter, variant, &provenance(result), folder.as_ref())
    }
}
