//! The journal of a search: what is scored so far, so that an interrupted search goes on where it stopped.
//!
//! The first line says which search it belongs to, each further line holds one sample's scores at some boundaries, as
//! `scores.jsonl` has them. Lines are appended as samples finish; a line that was cut off by a crash is dropped.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Existing;
use crate::choose::Part;
use crate::data::Sample;
use crate::engine::{LensCurve, SampleScores, VariantScore};
use crate::error::{Error, Result};
use crate::files;

/// One line of the journal and of `scores.jsonl`: scores of one sample at some boundaries.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) part: Part,
    /// What the entries of `variants` are, in their order.
    pub(super) boundaries: Vec<usize>,
    #[serde(flatten)]
    pub(super) scores: SampleScores,
}

/// All that is known of one sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Known {
    pub(super) line: usize,
    pub(super) tokens: usize,
    /// By boundary.
    pub(super) scores: BTreeMap<usize, VariantScore>,
    /// Of the base model and of the full adapter, or empty.
    pub(super) lens: Vec<LensCurve>,
}

impl Known {
    pub(super) fn new(sample: &Sample) -> Self {
        Self { line: sample.line, tokens: sample.answer.len(), ..Self::default() }
    }

    /// Takes in scores at some boundaries.
    pub(super) fn take(&mut self, boundaries: &[usize], scores: SampleScores) {
        self.scores.extend(boundaries.iter().copied().zip(scores.variants));
        if !scores.lens.is_empty() {
            self.lens = scores.lens;
        }
    }

    /// Mean negative log-likelihood at one boundary, in nats per answer token.
    pub(super) fn mean_nll(&self, boundary: usize) -> Option<f64> {
        self.scores.get(&boundary).map(|score| score.nll / self.tokens as f64)
    }

    pub(super) fn row(&self, part: Part) -> Row {
        let (line, tokens, lens) = (self.line, self.tokens, self.lens.clone());
        let (boundaries, variants) = self.scores.iter().map(|(&boundary, &score)| (boundary, score)).unzip();
        Row { part, boundaries, scores: SampleScores { line, tokens, variants, lens } }
    }
}

/// What makes two searches the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fingerprint {
    pub(super) tool: String,
    pub(super) model: String,
    pub(super) adapter: String,
    /// What weights and their factors are held as: scores differ by it.
    pub(super) dtype: String,
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
    rows: HashMap<(Part, usize), Vec<Row>>,
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
        let mut by_sample: HashMap<_, Vec<Row>> = HashMap::new();
        for row in rows.into_iter().filter(|_| ours) {
            by_sample.entry((row.part, row.scores.line)).or_default().push(row);
        }
        Ok(Self { path: path.to_owned(), header, file: None, rows: by_sample })
    }

    /// What an earlier run knew of one sample of a model with so many layers, as far as it is sound.
    pub(super) fn known(&self, part: Part, sample: &Sample, layers: usize) -> Known {
        let mut known = Known::new(sample);
        let tokens = sample.answer.len();
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
        for Row { boundaries, scores, .. } in self.rows.get(&(part, sample.line)).into_iter().flatten() {
            let fits = scores.tokens == tokens
                && scores.variants.len() == boundaries.len()
                && boundaries.iter().all(|&boundary| boundary <= layers)
                && [0, 2].contains(&scores.lens.len());
            if fits && scores.variants.iter().all(is_sound) && scores.lens.iter().all(is_curve) {
                known.take(boundaries, scores.clone());
            }
        }
        known
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
    pub(super) fn append(&mut self, part: Part, boundaries: &[usize], scores: &[SampleScores]) -> Result<()> {
        if self.file.is_none() {
            self.begin(std::iter::empty())?;
        }
        let row = |scores: &SampleScores| Row { part, boundaries: boundaries.to_vec(), scores: scores.clone() };
        let rows = lines(scores.iter().map(row))?;
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
