//! The journal of a search: what is scored so far, so that an interrupted search goes on where it stopped.
//!
//! The first line says which search it belongs to, each further line holds one sample's scores, as `scores.jsonl` has
//! them. Lines are appended as samples finish; a line that was cut off by a crash is dropped.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Existing;
use crate::choose::Part;
use crate::engine::{Request, SampleScores};
use crate::error::{Error, Result};
use crate::files;

/// One line of the journal and of `scores.jsonl`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) part: Part,
    #[serde(flatten)]
    pub(super) scores: SampleScores,
}

/// What makes two searches the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fingerprint {
    pub(super) tool: String,
    pub(super) model: String,
    pub(super) adapter: String,
    /// Hash of the tokens and answer positions of both parts: it covers the data, the template, the turns, the seed of
    /// the split and its sizes.
    pub(super) samples: String,
}

/// An open journal.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    known: HashMap<(Part, usize), SampleScores>,
}

impl Journal {
    /// Opens a folder's journal, or begins one.
    ///
    /// # Errors
    /// The journal of another search, unless it may be replaced; an unwritable folder.
    pub(super) fn open(path: &Path, fingerprint: &Fingerprint, existing: Existing) -> Result<Self> {
        let known = match (fs::exists(path).map_err(Error::write(path))?, existing) {
            (true, Existing::Refuse) => read(path, fingerprint)?,
            _ => HashMap::new(),
        };
        if known.is_empty() {
            let header = serde_json::to_string(fingerprint).map_err(|error| Error::Internal(error.to_string()))?;
            files::write_file(path, format!("{header}\n").as_bytes())?;
        }
        let file = OpenOptions::new().append(true).open(path).map_err(Error::write(path))?;
        Ok(Self { path: path.to_owned(), file, known })
    }

    /// The scores of one sample, where they are known and complete.
    pub(super) fn take(&mut self, part: Part, line: usize, request: &Request) -> Option<SampleScores> {
        let scores = self.known.remove(&(part, line))?;
        let complete = scores.variants.len() == request.variants.len() && scores.lens.len() == request.lens.len();
        complete.then_some(scores)
    }

    /// Adds finished samples.
    ///
    /// # Errors
    /// The operating system's reason.
    pub(super) fn append(&mut self, part: Part, scores: &[SampleScores]) -> Result<()> {
        let rows = scores.iter().map(|scores| Row { part, scores: scores.clone() });
        self.file.write_all(lines(rows)?.as_bytes()).and_then(|()| self.file.flush()).map_err(Error::write(&self.path))
    }

    /// Removes the journal: the results say all that it said.
    ///
    /// # Errors
    /// The operating system's reason.
    pub(super) fn remove(path: &Path) -> Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::write(path)(error)),
            _ => Ok(()),
        }
    }
}

/// Rows as JSON lines.
pub(super) fn lines(rows: impl Iterator<Item = Row>) -> Result<String> {
    let mut text = String::new();
    for row in rows {
        text.push_str(&serde_json::to_string(&row).map_err(|error| Error::Internal(error.to_string()))?);
        text.push('\n');
    }
    Ok(text)
}

fn read(path: &Path, fingerprint: &Fingerprint) -> Result<HashMap<(Part, usize), SampleScores>> {
    let text = files::read_text(path)?;
    let complete = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
    if complete.len() < text.len() {
        // What is appended next must begin on a line of its own.
        files::write_file(path, complete.as_bytes())?;
    }
    let mut lines = complete.lines();
    let header: Option<Fingerprint> = lines.next().and_then(|line| serde_json::from_str(line).ok());
    match header {
        Some(header) if header == *fingerprint => Ok(lines
            .filter_map(|line| serde_json::from_str::<Row>(line).ok())
            .map(|row| ((row.part, row.scores.line), row.scores))
            .collect()),
        _ => Err(Error::Usage(format!(
            "{} belongs to an interrupted search of other inputs: give another --out, or --force to start over",
            path.display()
        ))),
    }
}
