//! Checked scores of samples at boundaries: ascending boundaries, at least two samples, finite numbers only.

use super::choice::Part;

/// Minimum number of samples of a part: one sample has no standard deviation.
pub(super) const MIN_SAMPLES: usize = 2;

/// Maximum magnitude of an input, so that sums of squares are finite.
const MAX_MAGNITUDE: f64 = 1e100;

/// The mean NLL of every sample of one part at some boundaries.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    pub(super) boundaries: Vec<usize>, // ascending
    pub(super) nll: Vec<f64>,          // (samples, boundaries)
}

impl Scores {
    /// Scores from one row per sample, with one number per boundary. Boundaries are ascending.
    ///
    /// # Errors
    /// No boundaries or some out of order, fewer than two samples, a row of another length, or a number that is not
    /// finite.
    pub fn new<R: AsRef<[f64]>>(part: Part, boundaries: &[usize], rows: &[R]) -> Result<Self, ChooseProblem> {
        if boundaries.is_empty() || !boundaries.is_sorted_by(|a, b| a < b) {
            return Err(ChooseProblem::Boundaries { part });
        }
        if rows.len() < MIN_SAMPLES {
            return Err(ChooseProblem::TooFewSamples { part, found: rows.len() });
        }
        let mut nll = Vec::new();
        for (sample, row) in rows.iter().enumerate() {
            let row = row.as_ref();
            if row.len() != boundaries.len() {
                return Err(ChooseProblem::Length { part, sample, expected: boundaries.len(), found: row.len() });
            }
            if let Some((column, &found)) = row.iter().enumerate().find(|(_, value)| !is_usable(**value)) {
                return Err(ChooseProblem::Nll { part, sample, boundary: boundaries[column], found });
            }
            nll.extend_from_slice(row);
        }
        Ok(Self { boundaries: boundaries.to_vec(), nll })
    }

    /// The number of samples.
    pub fn samples(&self) -> usize {
        self.nll.len() / self.boundaries.len()
    }

    /// The NLL of every sample at a boundary; `None` if the boundary was not scored.
    pub fn nll(&self, boundary: usize) -> Option<Vec<f64>> {
        let column = self.column(boundary)?;
        Some(self.nll.chunks_exact(self.boundaries.len()).map(|row| row[column]).collect())
    }

    pub(super) fn everyone(&self) -> Vec<usize> {
        (0..self.samples()).collect()
    }

    /// The NLL of a sample at a boundary of these scores.
    pub(super) fn at(&self, sample: usize, boundary: usize) -> f64 {
        self.row(sample)[self.column(boundary).expect("a boundary of these scores")]
    }

    pub(super) fn row(&self, sample: usize) -> &[f64] {
        &self.nll[sample * self.boundaries.len()..][..self.boundaries.len()]
    }

    pub(super) fn column(&self, boundary: usize) -> Option<usize> {
        self.boundaries.binary_search(&boundary).ok()
    }
}

/// What is wrong with the input of the rules.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ChooseProblem {
    /// A model without layers.
    #[error("the number of layers is 0: expected at least 1")]
    NoLayers,
    /// A part with too few samples.
    #[error("the {part} part has {found} samples: expected at least {MIN_SAMPLES}")]
    TooFewSamples {
        /// The part.
        part: Part,
        /// Its number of samples.
        found: usize,
    },
    /// A sample with a wrong number of scores.
    #[error("{part} sample {sample} (from 0) has {found} scores: expected {expected}, one for each boundary")]
    Length {
        /// The part.
        part: Part,
        /// Index of the sample in the part.
        sample: usize,
        /// Number of boundaries.
        expected: usize,
        /// Number of scores.
        found: usize,
    },
    /// No boundaries, or boundaries that are not ascending.
    #[error("the boundaries of the {part} part are empty or not ascending: expected an ascending list")]
    Boundaries {
        /// The part.
        part: Part,
    },
    /// A boundary that the model does not have.
    #[error("boundary {boundary}: expected at most {layers}, the number of layers")]
    Boundary {
        /// The boundary k.
        boundary: usize,
        /// Number of layers.
        layers: usize,
    },
    /// A boundary that must be scored, and was not.
    #[error("boundary {boundary} was not scored on the {part} part: expected a score for every sample")]
    NotScored {
        /// The part.
        part: Part,
        /// The boundary k.
        boundary: usize,
    },
    /// A score that is NaN, infinite or too large.
    #[error("{part} sample {sample} (from 0) has an NLL of {found} at boundary {boundary}: expected a finite number")]
    Nll {
        /// The part.
        part: Part,
        /// Index of the sample in the part.
        sample: usize,
        /// The boundary k.
        boundary: usize,
        /// The value: NaN, infinite or beyond ±1e100.
        found: f64,
    },
    /// The rule of the curve with folds.
    #[error("the rule of the curve has no picks by fold: expected held-out samples")]
    CurveInFolds,
    /// A curve with another number of points than layers.
    #[error("the ground-truth probability curve has {found} points: expected {layers}, one for each layer")]
    CurveLength {
        /// The number of points.
        found: usize,
        /// The number of layers.
        layers: usize,
    },
    /// A point of the curve that is NaN, infinite or too large.
    #[error("the ground-truth probability after layer {layer} is {found}: expected a finite number")]
    Curve {
        /// The layer, from 0.
        layer: usize,
        /// The value: NaN, infinite or beyond ±1e100.
        found: f64,
    },
}

/// Checks a curve of a model with this number of layers. An empty curve is one that was not computed.
pub(super) fn check_curve(curve: &[f64], layers: usize) -> Result<(), ChooseProblem> {
    if layers == 0 {
        return Err(ChooseProblem::NoLayers);
    }
    if !curve.is_empty() && curve.len() != layers {
        return Err(ChooseProblem::CurveLength { found: curve.len(), layers });
    }
    match curve.iter().enumerate().find(|(_, value)| !is_usable(**value)) {
        Some((layer, &found)) => Err(ChooseProblem::Curve { layer, found }),
        None => Ok(()),
    }
}

pub(super) fn check_boundaries(scores: &Scores, layers: usize) -> Result<(), ChooseProblem> {
    match scores.boundaries.last() {
        Some(&boundary) if boundary > layers => Err(ChooseProblem::Boundary { boundary, layers }),
        _ => Ok(()),
    }
}

fn is_usable(value: f64) -> bool {
    value.abs() <= MAX_MAGNITUDE
}
