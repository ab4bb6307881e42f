//! Journals: the finished work of a long job, from which an interrupted job continues.
//!
//! The first line identifies the job; each further line has one piece of finished work. Lines are appended when work is
//! finished. A line that is incomplete after a crash is ignored.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use plimsoll_formats::files;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Name and version of the program, as in results.
pub const TOOL: &str = concat!("plimsoll ", env!("CARGO_PKG_VERSION"));

/// What to do with existing results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Refuse to replace them.
    Refuse,
    /// Replace them.
    Replace,
}

/// The identity of a job: two jobs with equal fingerprints have the same results.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fingerprint {
    tool: String,
    /// SHA-256 of the model.
    model: String,
    /// SHA-256 of the adapter, if there is one.
    adapter: Option<String>,
    /// The engine's dtype, which results depend on.
    dtype: String,
    /// The engine's instruction set or version, which results depend on.
    instructions: String,
    /// SHA-256 of the samples and settings.
    work: String,
}

impl Fingerprint {
    /// The fingerprint of a job from the hashes of the model and the adapter, and the engine's dtype and instruction
    /// set or version. `work` is everything else that changes a result: samples and settings.
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

    /// The fingerprint of a job that depends on this one and on more.
    pub(crate) fn with(&self, more: &str) -> Self {
        Self { work: files::sha256(format!("{} {more}", self.work).as_bytes()), ..self.clone() }
    }
}

/// An open journal. Its file is created with the first piece of work.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    header: String,
    file: Option<File>,
}

impl Journal {
    /// Opens the journal of a job, and reads its rows if it exists. Nothing is written. `job` is a name for errors,
    /// such as `search`.
    ///
    /// # Errors
    /// Rows of another job that may not be replaced; an unreadable file.
    pub(crate) fn open<R: DeserializeOwned>(
        path: &Path,
        header: &Fingerprint,
        job: &str,
        existing: Existing,
    ) -> Result<(Self, Vec<R>)> {
        // Reading a device or a pipe might never end.
        if path.exists() && !path.is_file() {
            return Err(Error::Usage(format!("{}: expected a file: give another --out", path.display())));
        }
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read.map_err(Error::read(path))?,
        };
        // An incomplete last line may have any bytes; it is ignored.
        let text = String::from_utf8_lossy(&bytes);
        let mut lines = text.lines();
        let is_ours = lines.next().and_then(|line| serde_json::from_str(line).ok()).as_ref() == Some(header);
        let has_rows = lines.clone().any(|line| !line.trim().is_empty());
        if !is_ours && has_rows && existing == Existing::Refuse {
            return Err(Error::Usage(format!(
                "{} is the journal of an interrupted {job} with other inputs: give another --out, or --force to start \
                 over",
                path.display()
            )));
        }
        let rows =
            if is_ours { lines.filter_map(|line| serde_json::from_str(line).ok()).collect() } else { Vec::new() };
        let header = serde_json::to_string(header).map_err(|error| Error::Internal(error.to_string()))?;
        Ok((Self { path: path.to_owned(), header, file: None }, rows))
    }

    /// Writes the file with the rows of an earlier run that are used, without incomplete lines.
    ///
    /// # Errors
    /// The operating system's reason.
    pub(crate) fn begin<R: Serialize>(&mut self, rows: impl Iterator<Item = R>) -> Result<()> {
        files::write_file(&self.path, format!("{}\n{}", self.header, lines(rows)?).as_bytes())?;
        let file = OpenOptions::new().append(true).open(&self.path).map_err(Error::write(&self.path))?;
        self.file = Some(file);
        Ok(())
    }

    /// Appends finished work.
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

    /// Removes the journal of a job whose results are written.
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
