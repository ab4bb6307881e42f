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
use crate::data::Sample;
use crate::engine::{LensCurve, Request, SampleScores, VariantScore};
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

/// An open journal. Its file begins with the first finished sample.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    header: String,
    file: Option<File>,
    known: HashMap<(Part, usize), SampleScores>,
}

impl Journal {
    /// Reads a folder's journal, where there is one. Nothing is written.
    ///
    /// # Errors
    /// Rows of another search, unless they may be replaced; an unreadable file.
    pub(super) fn open(path: &Path, fingerprint: &Fingerprint, existing: Existing) -> Result<Self> {
        let header = serde_json::to_string(fingerprint).map_err(|error| Error::Internal(error.to_string()))?;
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read.map_err(Error::read(path))?,
        };
        // What a crash left of a line is dropped, whatever its bytes.
        let text = String::from_utf8_lossy(&bytes);
        let mut lines = text.lines();
        let ours = lines.next().and_then(|line| serde_json::from_str(line).ok()).as_ref() == Some(fingerprint);
        let rows: Vec<Row> = lines.filter_map(|line| serde_json::from_str(line).ok()).collect();
        if !ours && !rows.is_empty() && existing == Existing::Refuse {
            return Err(Error::Usage(format!(
                "{} belongs to an interrupted search of other inputs: give another --out, or --force to start over",
                path.display()
            )));
        }
        let rows = rows.into_iter().filter(|_| ours);
        let known = rows.map(|row| ((row.part, row.scores.line), row.scores)).collect();
        Ok(Self { path: path.to_owned(), header, file: None, known })
    }

    /// The scores of one sample, where they are known, complete and sound.
    pub(super) fn take(&mut self, part: Part, sample: &Sample, request: &Request) -> Option<SampleScores> {
        let scores = self.known.remove(&(part, sample.line))?;
        let tokens = sample.answer.len();
        let layers = request.variants.first().map_or(0, |variant| variant.gates.len());
        let share = 0.0..=1.0;
        let is_sound = |score: &VariantScore| {
            score.nll.is_finite() && share.contains(&score.probability) && score.correct <= tokens
        };
        let is_curve = |curve: &LensCurve| {
            let LensCurve { probability, top1, rank } = curve;
            [probability, top1, rank].iter().all(|values| values.len() == layers)
                && probability.iter().chain(top1).all(|value| share.contains(value))
                && rank.iter().all(|rank| rank.is_finite())
        };
        let complete = scores.tokens == tokens
            && scores.variants.len() == request.variants.len()
            && scores.lens.len() == request.lens.len();
        (complete && scores.variants.iter().all(is_sound) && scores.lens.iter().all(is_curve)).then_some(scores)
    }

    /// Begins the file, with the samples of an earlier run that are used, so that nothing torn is left in it.
    ///
    /// # Errors
    /// The operating system's reason.
    pub(super) fn begin(&mut self, rows: impl Iterator<Item = Row>) -> Result<()> {
        files::write_file(&self.path, format!("{}\n{}", self.header, lines(rows)?).as_bytes())?;
        let file = OpenOptions::new().append(true).open(&self.path).map_err(Error::write(&self.path))?;
        self.file = Some(file);
        Ok(())
    }

    /// Adds finished samples.
    ///
    /// # Errors
    /// The operating system's reason.
    pub(super) fn append(&mut self, part: Part, scores: &[SampleScores]) -> Result<()> {
        if self.file.is_none() {
            self.begin(std::iter::empty())?;
        }
        let rows = lines(scores.iter().map(|scores| Row { part, scores: scores.clone() }))?;
        let write = self.file.as_mut().map_or(Ok(()), |file| file.write_all(rows.as_bytes()));
        write.map_err(Error::write(&self.path))
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
