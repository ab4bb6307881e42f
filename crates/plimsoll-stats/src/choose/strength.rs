//! One LoRA strength for the whole adapter, tuned by cross-validation.
//!
//! An adapter that was trained too long is often better at a lower strength, one that was trained too briefly at a
//! higher one. The loss is close to a parabola in the strength, so a walk from strength 1, the adapter as trained,
//! finds its lowest point with few variants: downward while the mean loss falls; if it does not fall, upward, but only
//! if the parabola through the strengths 0, 0.75 and 1 falls there.
//!
//! The strength that is best on some samples looks better on them than it is. So each fold has its own walk, on the
//! samples of the other folds, and its samples are judged under the strength that this walk ends at.

use std::collections::BTreeMap;

use crate::mean;

/// The strengths of the walk, ascending.
const GRID: [f64; 6] = [0.25, 0.5, 0.75, 1.0, 1.25, 1.5];

/// The index of strength 1.
const AS_TRAINED: usize = 3;

/// The walks of all folds, and one on all samples.
#[derive(Clone, Debug)]
pub struct StrengthTuning {
    /// The fold of each sample.
    folds: Vec<usize>,
    base: Vec<f64>,
    /// The loss of each sample, by index in the grid.
    losses: BTreeMap<usize, Vec<f64>>,
}

/// Where a walk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Walk {
    /// It needs the losses at this index of the grid.
    Needs(usize),
    /// It ended.
    Ended(usize),
}

impl StrengthTuning {
    /// Starts with the loss of every sample under the base model and the full adapter, and the fold of every sample.
    ///
    /// # Panics
    /// If lists differ in length.
    pub fn new(base: Vec<f64>, full: Vec<f64>, folds: Vec<usize>) -> Self {
        assert!(base.len() == full.len() && full.len() == folds.len(), "lists of different lengths");
        Self { folds, base, losses: BTreeMap::from([(AS_TRAINED, full)]) }
    }

    /// Largest number of strengths that are ever wanted.
    pub const fn most() -> usize {
        GRID.len() - 1
    }

    /// The strengths that some walk needs next; empty at the end.
    pub fn wanted(&self) -> Vec<f64> {
        let mut wanted: Vec<usize> = self
            .walks()
            .filter_map(|walk| match walk {
                Walk::Needs(index) => Some(index),
                Walk::Ended(_) => None,
            })
            .collect();
        wanted.sort_unstable();
        wanted.dedup();
        wanted.into_iter().map(|index| GRID[index]).collect()
    }

    /// Records the loss of every sample at a strength that was wanted.
    ///
    /// # Panics
    /// If the list has another length, or the strength is not one of the walk's.
    pub fn record(&mut self, strength: f64, losses: Vec<f64>) {
        assert_eq!(losses.len(), self.folds.len(), "lists of different lengths");
        let index = GRID.iter().position(|of_grid| *of_grid == strength).expect("a strength of the walk");
        self.losses.insert(index, losses);
    }

    /// The strengths so far with their mean losses, ascending.
    pub fn tried(&self) -> Vec<(f64, f64)> {
        self.losses.iter().map(|(&index, losses)| (GRID[index], mean(losses))).collect()
    }

    /// The strength that is best on all samples.
    pub fn tuned(&self) -> f64 {
        self.walks().next().map_or(1.0, end)
    }

    /// The strength of each fold, which its samples had no part in.
    pub fn by_fold(&self) -> Vec<f64> {
        self.walks().skip(1).map(end).collect()
    }

    /// The loss of every sample under the strength of its fold. `losses` has the loss of every sample at a strength.
    ///
    /// # Errors
    /// Those of `losses`.
    pub fn unseen<E>(&self, mut losses: impl FnMut(f64) -> Result<Vec<f64>, E>) -> Result<Vec<f64>, E> {
        let strengths = self.by_fold();
        let mut unseen = vec![0.0; self.folds.len()];
        for strength in GRID.into_iter().filter(|strength| strengths.contains(strength)) {
            let column = losses(strength)?;
            let of_fold = self.folds.iter().enumerate().filter(|(_, fold)| strengths[**fold] == strength);
            of_fold.for_each(|(sample, _)| unseen[sample] = column[sample]);
        }
        Ok(unseen)
    }

    /// The walk on all samples, then that of each fold.
    fn walks(&self) -> impl Iterator<Item = Walk> {
        let number = self.folds.iter().max().map_or(0, |last| last + 1);
        let without = |fold: usize| -> Vec<usize> {
            (0..self.folds.len()).filter(|&sample| self.folds[sample] != fold).collect()
        };
        std::iter::once((0..self.folds.len()).collect()).chain((0..number).map(without)).map(|who| self.walk(&who))
    }

    /// Walks as far as the known losses allow, on some samples.
    fn walk(&self, who: &[usize]) -> Walk {
        let of = |column: &Vec<f64>| who.iter().map(|&sample| column[sample]).sum::<f64>();
        let loss = |index: usize| self.losses.get(&index).map(of);
        let Some(full) = loss(AS_TRAINED) else { return Walk::Needs(AS_TRAINED) };
        let Some(lower) = loss(AS_TRAINED - 1) else { return Walk::Needs(AS_TRAINED - 1) };
        let gain = of(&self.base) - full;
        let (mut at, mut lowest, step) = if lower < full {
            (AS_TRAINED - 1, lower, -1)
        } else if lower - full > gain / 10.0 {
            // The last quarter of the strength brings more than a tenth of the gain: the parabola falls above 1.
            (AS_TRAINED, full, 1)
        } else {
            return Walk::Ended(AS_TRAINED);
        };
        while let Some(next) = at.checked_add_signed(step).filter(|next| *next < GRID.len()) {
            let Some(loss) = loss(next) else { return Walk::Needs(next) };
            if loss >= lowest {
                break;
            }
            (at, lowest) = (next, loss);
        }
        Walk::Ended(at)
    }
}

/// The strength at the end of a walk. A walk that has not ended counts as being at 1.
fn end(walk: Walk) -> f64 {
    match walk {
        Walk::Ended(index) => GRID[index],
        Walk::Needs(_) => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks to the end over losses that are parabolas with their lowest points at `best`, sample by sample. Returns
    /// the strengths that were wanted, step by step.
    fn walked(best: &[f64]) -> (StrengthTuning, Vec<Vec<f64>>) {
        let column = |strength: f64| best.iter().map(|best| 2.0 + (strength - best).powi(2)).collect::<Vec<f64>>();
        let folds = (0..best.len()).map(|sample| sample % 4).collect();
        let mut tuning = StrengthTuning::new(column(0.0), column(1.0), folds);
        let mut steps = Vec::new();
        loop {
            let wanted = tuning.wanted();
            if wanted.is_empty() {
                return (tuning, steps);
            }
            wanted.iter().for_each(|&strength| tuning.record(strength, column(strength)));
            steps.push(wanted);
        }
    }

    #[test]
    fn walks_end_at_the_lowest_point() {
        for (best, wanted, strength) in [
            (1.0, vec![vec![0.75]], 1.0),
            (0.55, vec![vec![0.75], vec![0.5], vec![0.25]], 0.5),
            (0.1, vec![vec![0.75], vec![0.5], vec![0.25]], 0.25),
            (0.8, vec![vec![0.75], vec![0.5]], 0.75),
            (1.3, vec![vec![0.75], vec![1.25], vec![1.5]], 1.25),
            (1.12, vec![vec![0.75]], 1.0),
        ] {
            let (tuning, steps) = walked(&[best; 8]);
            assert_eq!((steps, tuning.tuned()), (wanted, strength), "lowest at {best}");
            assert_eq!(tuning.by_fold(), [strength; 4]);
            assert!(tuning.tried().len() <= StrengthTuning::most() + 1);
        }
    }

    #[test]
    fn a_sample_has_no_part_in_the_strength_that_it_is_judged_under() {
        // Without the samples of fold 0 the lowest point is at 1, without others it is far below.
        let (tuning, _) = walked(&[-4.0, 1.0, 1.0, 1.0]);
        let by_fold = tuning.by_fold();
        assert_eq!(by_fold[0], 1.0);
        assert!(by_fold[1..].iter().all(|strength| *strength == 0.25), "{by_fold:?}");
        let unseen =
            tuning.unseen(|strength| Ok::<_, ()>((0..4).map(|sample| 10.0 * strength + f64::from(sample)).collect()));
        assert_eq!(unseen.unwrap(), [10.0, 3.5, 4.5, 5.5]);
        assert_eq!(tuning.unseen(|_| Err::<Vec<f64>, _>("missing")), Err("missing"));
    }
}
