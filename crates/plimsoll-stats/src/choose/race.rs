//! Racing: boundaries leave once they are significantly worse on the samples so far, so that most of them are never
//! scored on most samples.
//!
//! The samples come in a random order and are looked at after 8, 16, 32, … of them. At each look every boundary is
//! compared with the leader, the one with the lowest mean NLL, by a one-sided paired t-test of their differences, sample
//! by sample (Maron and Moore, "Hoeffding Races", 1994; the t-test in place of Hoeffding's bound is Birattari et al.,
//! "A racing algorithm for configuring metaheuristics", 2002: the bound would need hundreds of samples).
//!
//! *Error rate.* The best boundary is lost only if some other, at some look, is better than it by a test that is wrong.
//! There are fewer than L others and each boundary is tested once at a look, so the p-value that drops one is the error
//! rate over L times the number of looks (Bonferroni). The best of the boundaries that are raced is then lost with at most
//! the stated probability, as far as means of differences follow the t distribution, which they do not exactly: samples
//! are few at first and their differences skewed.
//!
//! *Refinement.* The race begins with a grid of boundaries, about eight and both ends. Once three of them are left, or at
//! the last look, what lies between a boundary of the grid that is left and its neighbours comes in. What lies between
//! two that were dropped is never scored: that the curve has no narrow dip there is an assumption, not a result, and
//! [`Fate::Skipped`] says so.
//!
//! The caller does the scoring: [`Race::step`] says what to score next, [`Race::record`] takes the scores.

use std::ops::Range;

use crate::{mean_and_se, student_t_above};

/// Boundaries of the first grid, without the last.
const GRID: usize = 8;

/// Samples before the first look.
const FIRST_LOOK: usize = 8;

/// On fewer samples than this a race drops nothing: its first look is its last.
pub const FEWEST: usize = FIRST_LOOK + 1;

/// Once no more are left, what lies between them comes in.
const FEW: usize = 3;

/// A deficit of less than this share of the mean is no deficit.
const ROUNDING: f64 = 1e-12;

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Score these samples, counted in the order of the race, under these boundaries.
    Score {
        /// The samples.
        samples: Range<usize>,
        /// The boundaries, ascending.
        boundaries: Vec<usize>,
    },
    /// What is left has been scored on every sample.
    Done,
}

/// What became of a boundary.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fate {
    /// It is scored on every sample (or may still be).
    Raced,
    /// It was significantly worse than the leader.
    Dropped {
        /// On so many samples.
        samples: usize,
        /// The boundary that led.
        leader: usize,
        /// By so many nats per token on the mean of them.
        deficit: f64,
        /// p-value of the test.
        p: f64,
    },
    /// It was never scored: its neighbours on the grid were both dropped.
    Skipped,
}

/// A race between the boundaries 0..=L.
#[derive(Clone, Debug)]
pub struct Race {
    samples: usize,
    /// p-values below this drop a boundary.
    level: f64,
    /// Samples at the end of which there is a look; the last is all of them.
    looks: Vec<usize>,
    look: usize,
    grid: usize,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    fate: Fate,
    /// Mean NLL of each sample so far, in the order of the race.
    nll: Vec<f64>,
    /// Samples that it was last tested on.
    tested: usize,
    /// Whether it was significantly worse in that test.
    has_lost: bool,
}

impl Race {
    /// Between `layers + 1` boundaries on so many samples, with at most this probability of losing the best.
    pub fn new(layers: usize, samples: usize, error_rate: f64) -> Self {
        let mut looks = Vec::new();
        let mut look = FIRST_LOOK;
        while look < samples {
            looks.push(look);
            look *= 2;
        }
        looks.push(samples);
        let grid = layers.div_ceil(GRID).max(1);
        let entry = |k: usize| {
            let fate = if k.is_multiple_of(grid) || k == layers { Fate::Raced } else { Fate::Skipped };
            Entry { fate, nll: Vec::new(), tested: 0, has_lost: false }
        };
        let tests = looks.len() * layers.max(1);
        Self {
            samples,
            level: error_rate / tests as f64,
            looks,
            look: 0,
            grid,
            entries: (0..=layers).map(entry).collect(),
        }
    }

    /// What to score next.
    pub fn step(&mut self) -> Step {
        loop {
            let end = self.looks[self.look];
            let behind = |entry: &Entry| entry.fate == Fate::Raced && entry.nll.len() < end;
            if let Some(start) = self.entries.iter().filter(|entry| behind(entry)).map(|entry| entry.nll.len()).min() {
                let is_next = |k: &usize| behind(&self.entries[*k]) && self.entries[*k].nll.len() == start;
                let boundaries = (0..self.entries.len()).filter(is_next).collect();
                return Step::Score { samples: start..end, boundaries };
            }
            if end >= FIRST_LOOK {
                self.test(end);
            }
            let may_refine = end == self.samples || self.left().len() <= FEW;
            if may_refine && self.refine() {
                continue;
            }
            if end == self.samples {
                return Step::Done;
            }
            self.look += 1;
        }
    }

    /// Takes the mean NLL of the samples that a step asked for: one row for each, one column for each of its boundaries.
    ///
    /// # Panics
    /// If a boundary already has some of these scores, or lacks some before them.
    pub fn record<R: AsRef<[f64]>>(&mut self, samples: Range<usize>, boundaries: &[usize], rows: &[R]) {
        assert_eq!(rows.len(), samples.len(), "scores of other samples");
        for (column, &k) in boundaries.iter().enumerate() {
            let entry = &mut self.entries[k];
            assert_eq!(entry.nll.len(), samples.start, "scores out of order");
            entry.nll.extend(rows.iter().map(|row| row.as_ref()[column]));
        }
    }

    /// What became of each boundary.
    pub fn fates(&self) -> impl Iterator<Item = Fate> {
        self.entries.iter().map(|entry| entry.fate)
    }

    /// Boundaries that are still in it, ascending.
    pub fn left(&self) -> Vec<usize> {
        (0..self.entries.len()).filter(|&k| self.entries[k].fate == Fate::Raced).collect()
    }

    /// Tests those that were not tested at this look yet, and drops what is significantly worse than the leader. At the last
    /// look nothing is dropped: it has all its scores, and goes to the rules.
    fn test(&mut self, samples: usize) {
        let left = self.left();
        let sum = |k: usize| self.entries[k].nll.iter().sum::<f64>();
        let Some(leader) = left.iter().copied().min_by(|&a, &b| sum(a).total_cmp(&sum(b))) else { return };
        let best = self.entries[leader].nll.clone();
        let sum_of_best = sum(leader);
        let is_last = samples == self.samples;
        for k in left {
            let entry = &mut self.entries[k];
            if entry.tested == samples {
                continue;
            }
            entry.tested = samples;
            let differences: Vec<f64> = entry.nll.iter().zip(&best).map(|(nll, best)| nll - best).collect();
            let (deficit, se) = mean_and_se(&differences);
            // Sums of equal numbers may differ in their last digits, and all differences be alike.
            let is_rounding = deficit <= ROUNDING * sum_of_best.abs() / samples as f64;
            let p = if is_rounding { 1.0 } else { student_t_above(deficit / se, samples - 1) };
            entry.has_lost = p < self.level;
            if entry.has_lost && !is_last {
                entry.fate = Fate::Dropped { samples, leader, deficit, p };
            }
        }
    }

    /// Lets in what lies beside a boundary of the grid that is left and has not lost; whether there was anything.
    fn refine(&mut self) -> bool {
        let last = self.entries.len() - 1;
        let mut any = false;
        for k in 0..last {
            let below = k / self.grid * self.grid;
            let above = (below + self.grid).min(last);
            let is_good = |k: usize| self.entries[k].fate == Fate::Raced && !self.entries[k].has_lost;
            if self.entries[k].fate == Fate::Skipped && (is_good(below) || is_good(above)) {
                self.entries[k].fate = Fate::Raced;
                any = true;
            }
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Scores whose mean over samples is `curve`, with a noise of each sample that all boundaries share and one of its
    /// own.
    fn scores(curve: &[f64], samples: usize, own: f64, seed: u64) -> Vec<Vec<f64>> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut noise = || (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
        (0..samples)
            .map(|_| {
                let shared = noise();
                curve.iter().map(|mean| mean + shared + own * noise()).collect()
            })
            .collect()
    }

    /// Runs a race to its end; also how many scores it took.
    fn run(scores: &[Vec<f64>], error_rate: f64) -> (Race, usize) {
        let mut race = Race::new(scores[0].len() - 1, scores.len(), error_rate);
        let mut taken = 0;
        while let Step::Score { samples, boundaries } = race.step() {
            taken += samples.len() * boundaries.len();
            let row = |row: &Vec<f64>| boundaries.iter().map(|&k| row[k]).collect::<Vec<_>>();
            let rows: Vec<Vec<f64>> = scores[samples.clone()].iter().map(row).collect();
            race.record(samples, &boundaries, &rows);
        }
        (race, taken)
    }

    #[test]
    fn a_clear_slope_is_left_behind_early() {
        let curve: Vec<f64> = (0..=30).map(|k| 2.0 - f64::from(k) * 0.02).collect();
        let (race, taken) = run(&scores(&curve, 32, 0.02, 1), 0.05);
        assert!(race.left().contains(&30) && race.left().len() < 6, "{:?}", race.left());
        assert!(taken * 5 < 31 * 32, "{taken} scores");
        let fates: Vec<Fate> = race.fates().collect();
        assert!(matches!(fates[0], Fate::Dropped { samples: 8, deficit, p, .. } if deficit > 0.4 && p < 1e-3));
        assert_eq!(fates[1], Fate::Skipped);
        // Whatever is left has every score.
        assert!(race.left().iter().all(|&k| race.entries[k].nll.len() == 32));
    }

    #[test]
    fn what_is_equal_is_raced_to_the_end() {
        let (race, taken) = run(&scores(&[1.0; 31], 40, 0.1, 2), 0.05);
        assert!(race.left().len() >= 30 && taken >= 30 * 40, "{taken} scores");
    }

    #[test]
    fn the_fewest_samples_can_drop_something_and_fewer_cannot() {
        let slope: Vec<f64> = (0..=30).map(|k| 2.0 - f64::from(k) * 0.02).collect();
        let dropped = |samples| {
            let (race, _) = run(&scores(&slope, samples, 1e-3, 1), 0.05);
            race.fates().filter(|fate| matches!(fate, Fate::Dropped { .. })).count()
        };
        assert_eq!(dropped(FEWEST - 1), 0);
        assert!(dropped(FEWEST) > 0);
    }

    #[test]
    fn few_samples_and_few_layers_are_exact() {
        let (race, taken) = run(&scores(&[3.0, 2.0, 1.0], 8, 0.1, 3), 0.05);
        assert_eq!((race.left(), taken), (vec![0, 1, 2], 24));
        let (race, _) = run(&scores(&[3.0, 2.0, 1.0, 2.0], 2, 0.1, 3), 0.05);
        assert_eq!(race.left(), [0, 1, 2, 3]);
    }

    #[test]
    fn equal_scores_are_never_dropped_for_a_rounding() {
        let rows = vec![vec![0.1 + 0.2, 0.3, 0.3]; 64];
        assert_eq!(run(&rows, 0.05).0.left(), [0, 1, 2]);
    }

    /// The best of the boundaries is lost in at most the stated share of races; with normal noise, that is exact up to
    /// what Bonferroni gives away.
    #[test]
    fn the_best_is_rarely_lost() {
        let curve: Vec<f64> = (0..=16).map(|k: i32| 1.0 + f64::from((k - 11).abs()) * 0.004).collect();
        let races = 400;
        let lost = (0..races).filter(|&seed| {
            let (race, _) = run(&scores(&curve, 64, 0.05, seed), 0.05);
            // Raced or not: k = 11 lies between two of the grid, of which one at least is there.
            !race.left().contains(&11)
        });
        // 5 % of 400 are 20, with a standard deviation of 4.4; three of those above.
        assert!(lost.count() <= 33);
    }
}
