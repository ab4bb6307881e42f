//! Racing: boundaries that are significantly worse on the samples so far are dropped, so that most boundaries are not
//! scored on most samples.
//!
//! The samples come in random order, and the race tests after 8, 16, 32, … of them. At each of these looks, every
//! boundary is compared with the leader, the boundary with the lowest mean NLL, by a one-sided paired t-test of the
//! differences by sample (Maron and Moore, "Hoeffding Races", 1994; the t-test instead of Hoeffding's bound is from
//! Birattari et al., "A racing algorithm for configuring metaheuristics", 2002: the bound would need hundreds of
//! samples).
//!
//! *Error rate.* The best boundary is lost only if another one is better at some look, by a test with a false result.
//! Each boundary is tested once at each look, so a boundary is dropped if its p-value is below the error rate divided
//! by L times the number of looks (Bonferroni). Then the best boundary of the race is lost with at most the given
//! probability, if the means of differences follow the t distribution. They do so only approximately, because the first
//! samples are few and their differences are skewed.
//!
//! *Refinement.* The race starts with a grid of about eight boundaries, both ends included. When three of them are
//! left, or at the last look, the boundaries between a remaining boundary of the grid and its neighbours are added.
//! Boundaries between two dropped ones are never scored ([`Fate::Skipped`]): this assumes that the curve has no narrow
//! dip there.
//!
//! The caller does the scoring: [`Race::step`] returns what to score next, [`Race::record`] takes the scores.
//!
//! ```
//! use plimsoll_stats::choose::race::{Fate, Race, RaceStep};
//!
//! // 32 samples at the boundaries 0 to 8. Each layer lowers the NLL by about 0.1.
//! let nll = |sample: usize, k: usize| 2.0 - k as f64 * (0.1 + 0.001 * (sample % 5) as f64);
//! let mut race = Race::new(8, 32, 0.05);
//! while let RaceStep::Score { samples, boundaries } = race.step() {
//!     let row = |sample| boundaries.iter().map(|&k| nll(sample, k)).collect::<Vec<f64>>();
//!     let rows: Vec<Vec<f64>> = samples.clone().map(row).collect();
//!     race.record(samples, &boundaries, &rows);
//! }
//! assert_eq!(race.left(), [8]);
//! assert!(matches!(race.fates().next(), Some(Fate::Dropped { samples: 8, leader: 8, .. })));
//! ```

use std::ops::Range;

use crate::{mean_and_se, student_t_above};

/// Number of boundaries of the first grid, without the last one.
const GRID: usize = 8;

/// Number of samples at the first look.
const FIRST_LOOK: usize = 8;

/// Minimum number of samples for a race. With fewer, the first look is the last one, and nothing is dropped.
pub const FEWEST: usize = FIRST_LOOK + 1;

/// Number of remaining boundaries at which those between them are added.
const FEW: usize = 3;

/// A deficit below this share of the mean counts as 0.
const ROUNDING: f64 = 1e-12;

/// The next step of a race.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RaceStep {
    /// Score these samples, counted in the order of the race, under these boundaries.
    Score {
        /// The samples.
        samples: Range<usize>,
        /// The boundaries, ascending.
        boundaries: Vec<usize>,
    },
    /// The remaining boundaries are scored on every sample.
    Done,
}

/// The state of a boundary in a race.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fate {
    /// In the race: scored on every sample at the end.
    Raced,
    /// Dropped: significantly worse than the leader.
    Dropped {
        /// Number of samples at that look.
        samples: usize,
        /// The leader at that look.
        leader: usize,
        /// Mean deficit to the leader, in nats per token.
        deficit: f64,
        /// p-value of the test.
        p: f64,
    },
    /// Never scored: both neighbours on the grid were dropped.
    Skipped,
}

/// A race between the boundaries 0..=L.
#[derive(Clone, Debug)]
pub struct Race {
    samples: usize,
    /// A boundary with a p-value below this is dropped.
    level: f64,
    /// Number of samples at each look; at the last one all samples.
    looks: Vec<usize>,
    look: usize,
    grid: usize,
    entries: Vec<Entry>,
}

/// One boundary in the race.
#[derive(Clone, Debug)]
struct Entry {
    fate: Fate,
    /// Mean NLL of each sample so far, in the order of the race.
    nll: Vec<f64>,
    /// Number of samples at the last test of this boundary.
    tested: usize,
    /// Whether the boundary was significantly worse in that test.
    has_lost: bool,
}

impl Race {
    /// A race between `layers + 1` boundaries on a number of samples, which loses the best with at most this
    /// probability.
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

    /// The next step: what to score.
    pub fn step(&mut self) -> RaceStep {
        loop {
            let end = self.looks[self.look];
            let is_due = |entry: &Entry| entry.fate == Fate::Raced && entry.nll.len() < end;
            if let Some(start) = self.entries.iter().filter(|entry| is_due(entry)).map(|entry| entry.nll.len()).min() {
                let is_next = |k: &usize| is_due(&self.entries[*k]) && self.entries[*k].nll.len() == start;
                let boundaries = (0..self.entries.len()).filter(is_next).collect();
                return RaceStep::Score { samples: start..end, boundaries };
            }
            if end >= FIRST_LOOK {
                self.test(end);
            }
            let may_refine = end == self.samples || self.left().len() <= FEW;
            if may_refine && self.refine() {
                continue;
            }
            if end == self.samples {
                return RaceStep::Done;
            }
            self.look += 1;
        }
    }

    /// Records the mean NLL of the samples of a step: one row per sample, one column per boundary.
    ///
    /// # Panics
    /// If the samples do not follow those that a boundary has scores of.
    pub fn record<R: AsRef<[f64]>>(&mut self, samples: Range<usize>, boundaries: &[usize], rows: &[R]) {
        assert_eq!(rows.len(), samples.len(), "one row for each sample");
        for (column, &k) in boundaries.iter().enumerate() {
            let entry = &mut self.entries[k];
            assert_eq!(entry.nll.len(), samples.start, "scores out of order");
            entry.nll.extend(rows.iter().map(|row| row.as_ref()[column]));
        }
    }

    /// The state of each boundary.
    pub fn fates(&self) -> impl Iterator<Item = Fate> {
        self.entries.iter().map(|entry| entry.fate)
    }

    /// The boundaries that are in the race, ascending.
    pub fn left(&self) -> Vec<usize> {
        (0..self.entries.len()).filter(|&k| self.entries[k].fate == Fate::Raced).collect()
    }

    /// Tests the boundaries that were not tested at this look, and drops those that are significantly worse than the
    /// leader. At the last look nothing is dropped, because all scores are known.
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
            // Sums of equal numbers may differ in their last digits, and then all differences are equal.
            let is_rounding = deficit <= ROUNDING * sum_of_best.abs() / samples as f64;
            let p = if is_rounding { 1.0 } else { student_t_above(deficit / se, samples - 1) };
            entry.has_lost = p < self.level;
            if entry.has_lost && !is_last {
                entry.fate = Fate::Dropped { samples, leader, deficit, p };
            }
        }
    }

    /// Adds the boundaries next to a remaining boundary of the grid that was not significantly worse. Returns whether
    /// there were any.
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

    /// Scores whose mean over samples is `curve`, with noise that all boundaries of a sample share, and independent
    /// noise.
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

    /// Runs a race to its end. Also returns the number of scores.
    fn run(scores: &[Vec<f64>], error_rate: f64) -> (Race, usize) {
        let mut race = Race::new(scores[0].len() - 1, scores.len(), error_rate);
        let mut taken = 0;
        while let RaceStep::Score { samples, boundaries } = race.step() {
            taken += samples.len() * boundaries.len();
            let row = |row: &Vec<f64>| boundaries.iter().map(|&k| row[k]).collect::<Vec<_>>();
            let rows: Vec<Vec<f64>> = scores[samples.clone()].iter().map(row).collect();
            race.record(samples, &boundaries, &rows);
        }
        (race, taken)
    }

    #[test]
    fn clearly_worse_boundaries_are_dropped_early() {
        let curve: Vec<f64> = (0..=30).map(|k| 2.0 - f64::from(k) * 0.02).collect();
        let (race, taken) = run(&scores(&curve, 32, 0.02, 1), 0.05);
        assert!(race.left().contains(&30) && race.left().len() < 6, "{:?}", race.left());
        assert!(taken * 5 < 31 * 32, "{taken} scores");
        let fates: Vec<Fate> = race.fates().collect();
        assert!(matches!(fates[0], Fate::Dropped { samples: 8, deficit, p, .. } if deficit > 0.4 && p < 1e-3));
        assert_eq!(fates[1], Fate::Skipped);
        // The remaining boundaries have all scores.
        assert!(race.left().iter().all(|&k| race.entries[k].nll.len() == 32));
    }

    #[test]
    fn equal_boundaries_are_raced_to_the_end() {
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
    fn rounding_drops_no_equal_scores() {
        let rows = vec![vec![0.1 + 0.2, 0.3, 0.3]; 64];
        assert_eq!(run(&rows, 0.05).0.left(), [0, 1, 2]);
    }

    /// The best boundary is lost in at most the given share of races. With normal noise this is exact, apart from the
    /// Bonferroni correction.
    #[test]
    fn the_best_is_rarely_lost() {
        let curve: Vec<f64> = (0..=16).map(|k: i32| 1.0 + f64::from((k - 11).abs()) * 0.004).collect();
        let races = 400;
        let lost = (0..races).filter(|&seed| {
            let (race, _) = run(&scores(&curve, 64, 0.05, seed), 0.05);
            // k = 11 is between two boundaries of the grid, at least one of which remains.
            !race.left().contains(&11)
        });
        // 5 % of 400 are 20, with a standard deviation of 4.4: three standard deviations above.
        assert!(lost.count() <= 33);
    }
}
