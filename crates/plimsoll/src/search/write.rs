//! The output folder of a search: its journal, and its results.

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

/// The output folder of a search.
#[derive(Clone, Debug)]
pub struct OutputFolder {
    path: PathBuf,
    existing: Existing,
}

/// The paths of what was written.
#[derive(Clone, Debug)]
pub struct WrittenFiles {
    /// The HTML report.
    pub report: PathBuf,
    /// The trimmed adapter, where the verdict is to trim.
    pub adapter: Option<PathBuf>,
}

impl OutputFolder {
    /// Checks, before any work, that results can be written and that no files of the user would be replaced.
    ///
    /// # Errors
    /// Results that may not be replaced, the folder of the searched adapter, or a folder that cannot be written.
    pub fn new(path: impl Into<PathBuf>, existing: Existing, adapter: &Path) -> Result<Self> {
        let path = path.into();
        let out = path.as_path();
        let refuse = |reason: &str| Err(Error::Usage(format!("--out {}: {reason}", out.display())));
        let target = out.join(ADAPTER);
        // A folder that does not exist yet is compared by its nearest ancestor.
        let parent = out.ancestors().find_map(|ancestor| ancestor.canonicalize().ok());
        if let (Ok(adapter), Some(parent)) = (adapter.canonicalize(), parent)
            && (parent.starts_with(&adapter) || target.canonicalize().is_ok_and(|target| target == adapter))
        {
            refuse("results would replace the adapter that is searched: give another folder")?;
        }
        if target.exists() && !target.join(adapter::PROVENANCE_FILE).exists() {
            refuse("its folder `adapter` was not written by plimsoll: give another folder")?;
        }
        let has = |names: &[&str]| names.iter().any(|name| out.join(name).exists());
        // The result is written last: with a journal, the other files are from a run that did not finish.
        let is_done = has(&[RESULT]) || (has(&[REPORT, SCORES, TOKENS, ADAPTER]) && !has(&[JOURNAL]));
        if is_done && existing == Existing::Refuse {
            refuse("holds results already: give another folder, or --force to replace them")?;
        }
        files::check_writable(out).or_else(|reason| refuse(&format!("cannot write: {reason}")))?;
        Ok(Self { path: out.to_owned(), existing })
    }

    /// The folder's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn existing(&self) -> Existing {
        self.existing
    }

    pub(super) fn journal(&self) -> PathBuf {
        self.path.join(JOURNAL)
    }

    /// The path of the journal of answers.
    pub(super) fn answers(&self) -> PathBuf {
        self.path.join(ANSWERS)
    }

    fn write(&self, found: &Found<'_>) -> Result<WrittenFiles> {
        let out = &self.path;
        let adapter_out = out.join(ADAPTER);
        // The adapter of an earlier run, as `new` has checked.
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
        Ok(WrittenFiles { report, adapter: trimmed.map(|_| adapter_out) })
    }
}

impl Found<'_> {
    /// Writes the result, the report and the scores, and the adapter if the verdict is to trim. Removes the journal.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, output: &OutputFolder) -> Result<WrittenFiles> {
        output.write(self)
    }
}
