//! Scores of samples at some boundaries, checked: ascending boundaries, two samples or more, finite numbers only.

use super::choice::Part;

/// Fewest samples of a part: with one there is no spread to compare a difference with.
pub(super) const MIN_SAMPLES: usize = 2;

/// Largest magnitude of an input: its square summed over any number of samples is still finite.
const MAX_MAGNITUDE: f64 = 1e100;

/// The mean NLL of every sample of one part at some boundaries.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    pub(super) boundaries: Vec<usize>, // ascending
    pub(super) nll: Vec<f64>,          // (samples, boundaries)
}

impl Scores {
    /// Takes one row for each sample, with one number for each of the boundaries, which ascend.
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

    /// How many samples there are.
    pub fn samples(&self) -> usize {
        self.nll.len() / self.boundaries.len()
    }

    /// The NLL of every sample at a boundary, where that was scored.
    pub fn nll(&self, boundary: usize) -> Option<Vec<f64>> {
        let column = self.column(boundary)?;
        Some(self.nll.chunks_exact(self.boundaries.len()).map(|row| row[column]).collect())
    }

    pub(super) fn everyone(&self) -> Vec<usize> {
        (0..self.samples()).collect()
    }

    /// The NLL of a sample at a boundary that is known to be there.
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

/// Why scores cannot be chosen from.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ChooseProblem {
    /// No layer, no boundary.
    #[error("the ground-truth probability curve is empty: expected one value for each layer")]
    NoLayers,
    /// A part that is too small.
    #[error("the {part} part has {found} samples: expected at least {MIN_SAMPLES}")]
    TooFewSamples {
        /// The part.
        part: Part,
        /// Its number of samples.
        found: usize,
    },
    /// A sample without exactly one score for each boundary.
    #[error("{part} sample {sample} (from 0) has {found} scores: expected {expected}, one for each boundary")]
    Length {
        /// The part.
        part: Part,
        /// Index of the sample in it.
        sample: usize,
        /// Number of layers and one.
        expected: usize,
        /// Number of scores.
        found: usize,
    },
    /// Boundaries that are not a list in order.
    #[error("the {part} part has no boundaries, or they do not ascend")]
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
    /// A boundary without which nothing can be judged.
    #[error("boundary {boundary} was not scored on the {part} part")]
    NotScored {
        /// The part.
        part: Part,
        /// The boundary k.
        boundary: usize,
    },
    /// A score that is not a usable number.
    #[error("{part} sample {sample} (from 0) has an NLL of {found} at boundary {boundary}: expected a finite number")]
    Nll {
        /// The part.
        part: Part,
        /// Index of the sample in it.
        sample: usize,
        /// The boundary k.
        boundary: usize,
        /// The value: NaN, infinite or beyond ±1e100.
        found: f64,
    },
    /// A point of the curve that is not a usable number.
    #[error("the ground-truth probability after layer {layer} is {found}: expected a finite number")]
    Curve {
        /// The layer, from 0.
        layer: usize,
        /// The value: NaN, infinite or beyond ±1e100.
        found: f64,
    },
}

pub(super) fn check_curve(curve: &[f64]) -> Result<(), ChooseProblem> {
    if curve.is_empty() {
        return Err(ChooseProblem::NoLayers);
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
