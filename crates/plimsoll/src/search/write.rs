//! The folder of a search: its journal, and its results.

use std::fs;
use std::path::{Path, PathBuf};

use plimsoll_formats::files;

use super::found::Found;
use crate::error::{Error, Result};
use crate::journal::{self as journals, Existing, Journal};
use crate::lora::adapter;
use crate::report;

const RESULT: &str = "result.json";
const REPORT: &str = "report.html";
const SCORES: &str = "scores.jsonl";
const TOKENS: &str = "tokens.jsonl";
const ADAPTER: &str = "adapter";
const JOURNAL: &str = "journal.jsonl";
const ANSWERS: &str = "answers.journal.jsonl";

/// A folder that results can be written to.
#[derive(Clone, Debug)]
pub struct OutputFolder {
    path: PathBuf,
    existing: Existing,
}

/// What was written, and where.
#[derive(Clone, Debug)]
pub struct Written {
    /// The HTML report.
    pub report: PathBuf,
    /// The trimmed adapter, where the verdict is to trim.
    pub adapter: Option<PathBuf>,
}

impl OutputFolder {
    /// Makes sure, before any work, that results can be written and that nothing of the user's is in their place.
    ///
    /// # Errors
    /// Results that may not be replaced, the searched adapter itself, or a folder that cannot be written.
    pub fn new(path: impl Into<PathBuf>, existing: Existing, adapter: &Path) -> Result<Self> {
        let path = path.into();
        let out = path.as_path();
        let refuse = |reason: &str| Err(Error::Usage(format!("--out {}: {reason}", out.display())));
        let target = out.join(ADAPTER);
        // What is not there yet lies where its nearest ancestor does.
        let parent = out.ancestors().find_map(|ancestor| ancestor.canonicalize().ok());
        if let (Ok(adapter), Some(parent)) = (adapter.canonicalize(), parent)
            && (parent.starts_with(&adapter) || target.canonicalize().is_ok_and(|target| target == adapter))
        {
            refuse("results would take the place of the adapter that is searched: give another folder")?;
        }
        if target.exists() && !target.join(adapter::PROVENANCE_FILE).exists() {
            refuse("its folder `adapter` was not written by plimsoll: give another folder")?;
        }
        let holds = |names: &[&str]| names.iter().any(|name| out.join(name).exists());
        // The result is written last: what lies beside a journal is the rest of a run that could not finish.
        let is_done = holds(&[RESULT]) || (holds(&[REPORT, SCORES, TOKENS, ADAPTER]) && !holds(&[JOURNAL]));
        if is_done && existing == Existing::Refuse {
            refuse("holds results already: give another folder, or --force to replace them")?;
        }
        files::check_writable(out).or_else(|reason| refuse(&format!("cannot write there: {reason}")))?;
        Ok(Self { path: out.to_owned(), existing })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn existing(&self) -> Existing {
        self.existing
    }

    pub(super) fn journal(&self) -> PathBuf {
        self.path.join(JOURNAL)
    }

    /// The journal of answers.
    pub(super) fn answers(&self) -> PathBuf {
        self.path.join(ANSWERS)
    }

    fn write(&self, found: &Found<'_>) -> Result<Written> {
        let out = &self.path;
        let adapter_out = out.join(ADAPTER);
        // An adapter of an earlier run; `new` made sure that it is one.
        if adapter_out.exists() {
            fs::remove_dir_all(&adapter_out).map_err(Error::write(&adapter_out))?;
        }
        let trimmed = found.trimmed();
        if let Some(trimmed) = &trimmed {
            trimmed.save(&adapter_out)?;
        }
        files::write_file(&out.join(SCORES), journals::lines(found.scores().iter())?.as_bytes())?;
        files::write_file(&out.join(TOKENS), journals::lines(found.tokens().iter())?.as_bytes())?;
        let report = out.join(REPORT);
        found.write_html(&report)?;
        files::write_file(&out.join(RESULT), report::json(found.result())?.as_bytes())?;
        Journal::remove(&self.journal())?;
        Journal::remove(&self.answers())?;
        Ok(Written { report, adapter: trimmed.map(|_| adapter_out) })
    }
}

impl Found<'_> {
    /// Writes the result, the report, the scores and, where the answer is to trim, the adapter; and removes the journal.
    ///
    /// # Errors
    /// The operating system's reason.
    pub fn write(&self, output: &OutputFolder) -> Result<Written> {
        output.write(self)
    }
}
