//! Journals: what a long job has done so far, so that it goes on there when it was interrupted.
//!
//! The first line says which job it belongs to, each further line holds one piece of its work. Lines are appended as work
//! is finished; a line that was cut off by a crash is dropped.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use plimsoll_formats::files;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Name and version of the program, as results carry it.
pub const TOOL: &str = concat!("plimsoll ", env!("CARGO_PKG_VERSION"));

/// What to do with results that are there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Refuse to touch them.
    Refuse,
    /// Replace them.
    Replace,
}

/// What makes two jobs the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fingerprint {
    tool: String,
    /// SHA-256 of the model.
    model: String,
    /// SHA-256 of the adapter, where there is one.
    adapter: Option<String>,
    /// What weights and their factors are held as: results differ by it.
    dtype: String,
    /// The instruction set: results differ by it too.
    instructions: String,
    /// Hash of what is worked on, and how.
    work: String,
}

impl Fingerprint {
    /// Of a model and an adapter by their hashes, and of the engine by its dtype and its instruction set or version; `work`
    /// is all else that changes a result: samples and settings.
    pub(crate) fn new(model: &str, adapter: Option<&str>, (dtype, instructions): (&str, &str), work: &[u8]) -> Self {
        Self {
            tool: TOOL.to_owned(),
            model: model.to_owned(),
            adapter: adapter.map(str::to_owned),
            dtype: dtype.to_owned(),
            instructions: instructions.to_owned(),
            work: files::sha256(work),
        }
    }

    /// The same of work that rests on this one's, and on more.
    pub(crate) fn with(&self, more: &str) -> Self {
        Self { work: files::sha256(format!("{} {more}", self.work).as_bytes()), ..self.clone() }
    }
}

/// An open journal. Its file begins with the first piece of work.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    header: String,
    file: Option<File>,
}

impl Journal {
    /// Reads the journal of a job, where there is one, and the rows that are in it. Nothing is written. A `job` is named
    /// in errors, such as `search`.
    ///
    /// # Errors
    /// Rows of another job, unless they may be replaced; an unreadable file.
    pub(crate) fn open<R: DeserializeOwned>(
        path: &Path,
        header: &Fingerprint,
        job: &str,
        existing: Existing,
    ) -> Result<(Self, Vec<R>)> {
        // Anything else might have no end.
        if path.exists() && !path.is_file() {
            return Err(Error::Usage(format!("{}: expected a file: give another --out", path.display())));
        }
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read.map_err(Error::read(path))?,
        };
        // What a crash left of a line is dropped, whatever its bytes.
        let text = String::from_utf8_lossy(&bytes);
        let mut lines = text.lines();
        let is_ours = lines.next().and_then(|line| serde_json::from_str(line).ok()).as_ref() == Some(header);
        let has_rows = lines.clone().any(|line| !line.trim().is_empty());
        if !is_ours && has_rows && existing == Existing::Refuse {
            return Err(Error::Usage(format!(
                "{} is not of this {job}: it belongs to an interrupted run of other inputs; give another --out, or --force \
                 to start over",
                path.display()
            )));
        }
        let rows =
            if is_ours { lines.filter_map(|line| serde_json::from_str(line).ok()).collect() } else { Vec::new() };
        let header = serde_json::to_string(header).map_err(|error| Error::Internal(error.to_string()))?;
        Ok((Self { path: path.to_owned(), header, file: None }, rows))
    }

    /// Begins the file, with the rows of an earlier run that are used, so that nothing torn is left in it.
    ///
    /// # Errors
    /// The operating system's reason.
    pub(crate) fn begin<R: Serialize>(&mut self, rows: impl Iterator<Item = R>) -> Result<()> {
        files::write_file(&self.path, format!("{}\n{}", self.header, lines(rows)?).as_bytes())?;
        let file = OpenOptions::new().append(true).open(&self.path).map_err(Error::write(&self.path))?;
        self.file = Some(file);
        Ok(())
    }

    /// Adds finished work.
    ///
    /// # Errors
    /// The operating system's reason.
    pub(crate) fn append<R: Serialize>(&mut self, rows: impl Iterator<Item = R>) -> Result<()> {
        if self.file.is_none() {
            self.begin(std::iter::empty::<R>())?;
        }
        let rows = lines(rows)?;
        let write = self.file.as_mut().map_or(Ok(()), |file| file.write_all(rows.as_bytes()));
        write.map_err(Error::write(&self.path))
    }

    /// Removes a journal: the results say all that it said.
    ///
    /// # Errors
    /// The operating system's reason.
    pub(crate) fn remove(path: &Path) -> Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::write(path)(error)),
            _ => Ok(()),
        }
    }
}

/// Rows as JSON lines.
pub(crate) fn lines<R: Serialize>(rows: impl Iterator<Item = R>) -> Result<String> {
    let mut text = String::new();
    for row in rows {
        text.push_str(&serde_json::to_string(&row).map_err(|error| Error::Internal(error.to_string()))?);
        text.push('\n');
    }
    Ok(text)
}
