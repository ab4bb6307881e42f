//! Greedy selection of moves: each round takes the move after which the mean NLL is lowest.
//!
//! A *move* changes one place of a variant: it drops LoRA there, or gives it another strength. Its meaning is known to
//! the caller only; here it is an index, and a set of moves stands for a variant. Each round tries every further move
//! in addition to those taken, at most one per place. After the first round only the most promising moves by its scores
//! are tried. The path ends after a number of rounds, or when the best further move makes the mean worse than that of
//! the best set by more than one paired standard error. With drops this is backward elimination (Marill and Green, "On
//! the effectiveness of receptors in recognition systems", IEEE Transactions on Information Theory 9:1, 1963). It does
//! not find pairs of moves that only help together.
//!
//! Of the sets on the path, the best has the lowest mean. The pick is the most preferred set within one paired standard
//! error of the best.
//!
//! *Cross-validation.* There is one path on all samples, and one for each fold on the samples outside it, whose pick is
//! scored on the samples inside. A score from samples that took part in choosing among hundreds of sets would be too
//! good; these samples had no part in it. The caller scores a set on all samples at once, so a set that several paths
//! need is evaluated once.
//!
//! The caller does the scoring: [`Greedy::step`] returns the sets to score next, [`Greedy::record`] takes the scores.
//!
//! ```
//! use plimsoll_stats::choose::greedy::{Greedy, GreedyOptions, Preference, GreedyStep};
//!
//! // Move 0 raises the NLL of every sample by 0.5, move 1 lowers it by 0.5.
//! let nll = |set: &Vec<usize>| vec![2.0 + set.iter().map(|&taken| [0.5, -0.5][taken]).sum::<f64>(); 4];
//! let options = GreedyOptions { rounds: 2, breadth: 2, preference: Preference::MostMoves };
//! let mut greedy = Greedy::new(&[0, 1], &[0, 1, 0, 1], options);
//! while let GreedyStep::Score(sets) = greedy.step() {
//!     let rows: Vec<Vec<f64>> = sets.iter().map(nll).collect();
//!     greedy.record(&sets, &rows);
//! }
//! assert_eq!(greedy.picked(), [1]);
//! ```

use std::collections::{BTreeMap, BTreeSet};

use super::rules::ROUNDING;
use crate::mean_and_se;

/// The next step of a selection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GreedyStep {
    /// Score every sample under these sets of moves; each set is ascending.
    Score(Vec<Vec<usize>>),
    /// All paths have ended.
    Done,
}

/// Which of the sets within one standard error of the best is picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preference {
    /// The set with the most moves, if moves drop LoRA.
    MostMoves,
    /// The set with the fewest moves, which is nearest to the adapter as trained.
    FewestMoves,
}

/// Options of a greedy selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GreedyOptions {
    /// Maximum number of rounds, which is the maximum number of moves.
    pub rounds: usize,
    /// Maximum number of moves that are tried in each round after the first: the best ones of the first round.
    pub breadth: usize,
    /// Which of nearly equal sets is picked.
    pub preference: Preference,
}

/// A set of moves on a path.
#[derive(Clone, Debug, PartialEq)]
pub struct Stop {
    /// The moves, ascending.
    pub moves: Vec<usize>,
    /// Mean NLL under them, over the samples of the path.
    pub mean: f64,
}

/// A greedy selection on all samples, and on the samples outside each fold.
#[derive(Clone, Debug)]
pub struct Greedy {
    options: GreedyOptions,
    /// The place that each move changes.
    places: Vec<usize>,
    /// The fold of each sample.
    folds: Vec<usize>,
    /// The NLL of each sample, by set of moves.
    known: BTreeMap<Vec<usize>, Vec<f64>>,
    /// The path on all samples, then one for each fold.
    paths: Vec<Path>,
}

/// A path of the selection on some samples.
#[derive(Clone, Debug)]
struct Path {
    /// The samples whose mean decides.
    samples: Vec<usize>,
    /// All moves, the most promising first; empty before the first round.
    promising: Vec<usize>,
    stops: Vec<Stop>,
    is_at_end: bool,
}

impl Greedy {
    /// A selection with the place that each move changes (a set has at most one move per place) and the fold of each
    /// sample.
    ///
    /// # Panics
    /// If fewer than two samples are outside a fold.
    pub fn new(places: &[usize], folds: &[usize], options: GreedyOptions) -> Self {
        let path = |samples: Vec<usize>| {
            assert!(samples.len() >= super::scores::MIN_SAMPLES, "{} samples to choose by", samples.len());
            Path { samples, promising: Vec::new(), stops: Vec::new(), is_at_end: false }
        };
        let count = folds.iter().max().map_or(0, |&last| last + 1);
        let outside = |fold: usize| (0..folds.len()).filter(|&sample| folds[sample] != fold).collect();
        let paths = std::iter::once((0..folds.len()).collect()).chain((0..count).map(outside)).map(path).collect();
        Self { options, places: places.to_vec(), folds: folds.to_vec(), known: BTreeMap::new(), paths }
    }

    /// The next step: the sets that a path needs to continue and that have no scores yet.
    pub fn step(&mut self) -> GreedyStep {
        let Self { options, places, known, paths, .. } = self;
        let mut wanted = BTreeSet::new();
        for path in paths {
            wanted.extend(path.advance(places, known, *options));
        }
        if wanted.is_empty() { GreedyStep::Done } else { GreedyStep::Score(wanted.into_iter().collect()) }
    }

    /// Records the NLL of every sample under the sets of a step: one row per set, in the same order.
    ///
    /// # Panics
    /// If there is not one row per set, or a row does not have one number per sample.
    pub fn record<R: AsRef<[f64]>>(&mut self, sets: &[Vec<usize>], rows: &[R]) {
        assert_eq!(sets.len(), rows.len(), "one row for each set");
        for (set, row) in sets.iter().zip(rows) {
            assert_eq!(row.as_ref().len(), self.folds.len(), "one score for each sample");
            self.known.insert(set.clone(), row.as_ref().to_vec());
        }
    }

    /// The number of sets that have been scored.
    pub fn scored(&self) -> usize {
        self.known.len()
    }

    /// The maximum number of sets that are scored.
    pub fn most(&self) -> usize {
        let GreedyOptions { rounds, breadth, .. } = self.options;
        let moves = self.places.len();
        let rounds = rounds.min(self.places.iter().collect::<BTreeSet<_>>().len());
        // All paths share their first round.
        let first = if rounds > 0 { moves } else { 0 };
        1 + first + self.paths.len() * rounds.saturating_sub(1) * breadth.min(moves)
    }

    /// The maximum number of sets that are still scored, including those of the last step.
    pub fn most_left(&self) -> usize {
        let GreedyOptions { rounds, breadth, .. } = self.options;
        if self.known.is_empty() {
            return self.most();
        }
        let left = |path: &Path| rounds.saturating_sub(path.stops.len().saturating_sub(1));
        let open = self.paths.iter().filter(|path| !path.is_at_end);
        open.map(left).sum::<usize>() * breadth.min(self.places.len())
    }

    /// The path on all samples so far, which starts with no move.
    pub fn path(&self) -> &[Stop] {
        &self.paths[0].stops
    }

    /// The set that is picked from the path on all samples.
    ///
    /// # Panics
    /// Before the first scores.
    pub fn picked(&self) -> &[usize] {
        self.paths[0].pick(&self.known, self.options.preference)
    }

    /// The NLL of each sample under the set that is picked on the samples outside its fold.
    ///
    /// # Panics
    /// Before the first scores.
    pub fn cross_validated(&self) -> Vec<f64> {
        let pick = |path: &Path| &self.known[path.pick(&self.known, self.options.preference)];
        let picks: Vec<&Vec<f64>> = self.paths[1..].iter().map(pick).collect();
        self.folds.iter().enumerate().map(|(sample, &fold)| picks[fold][sample]).collect()
    }
}

impl Path {
    /// Advances the path as far as scores are known. Returns the sets whose scores are missing; none at the end.
    fn advance(
        &mut self,
        places: &[usize],
        known: &BTreeMap<Vec<usize>, Vec<f64>>,
        options: GreedyOptions,
    ) -> Vec<Vec<usize>> {
        while !self.is_at_end {
            let taken = self.stops.last().map_or_else(Vec::new, |stop| stop.moves.clone());
            let next =
                if taken.len() < options.rounds { self.further(&taken, places, options.breadth) } else { Vec::new() };
            // The path starts with the set without moves, which is scored together with the first round.
            let start = self.stops.is_empty().then(Vec::new);
            let missing: Vec<Vec<usize>> =
                start.into_iter().chain(next.iter().cloned()).filter(|set| !known.contains_key(set)).collect();
            if !missing.is_empty() {
                return missing;
            }
            if self.stops.is_empty() {
                self.stops.push(Stop { moves: Vec::new(), mean: self.mean(&known[&Vec::new()]) });
            }
            self.take(next, known);
        }
        Vec::new()
    }

    /// The sets with one further move.
    fn further(&self, taken: &[usize], places: &[usize], breadth: usize) -> Vec<Vec<usize>> {
        let is_free = |&further: &usize| taken.iter().all(|&other| places[other] != places[further]);
        let with = |further: usize| {
            let mut set = taken.to_vec();
            set.insert(set.partition_point(|&other| other < further), further);
            set
        };
        if taken.is_empty() {
            return (0..places.len()).map(with).collect();
        }
        self.promising.iter().copied().filter(is_free).take(breadth).map(with).collect()
    }

    /// Takes the best of these sets, unless it is more than one standard error worse than the best so far.
    fn take(&mut self, sets: Vec<Vec<usize>>, known: &BTreeMap<Vec<usize>, Vec<f64>>) {
        let mut stops: Vec<Stop> =
            sets.into_iter().map(|moves| Stop { mean: self.mean(&known[&moves]), moves }).collect();
        // The sort is stable: of equal sets the most promising move is taken.
        stops.sort_by(|a, b| a.mean.total_cmp(&b.mean));
        if self.promising.is_empty() {
            self.promising = stops.iter().map(|stop| stop.moves[0]).collect();
        }
        let best = &self.stops[self.best()].moves;
        match stops.into_iter().next() {
            Some(next) if self.is_within_one_se(&next.moves, best, known) => self.stops.push(next),
            _ => self.is_at_end = true,
        }
    }

    /// The index of the stop with the lowest mean, the first of equals.
    fn best(&self) -> usize {
        (1..self.stops.len())
            .fold(0, |best, stop| if self.stops[stop].mean < self.stops[best].mean { stop } else { best })
    }

    fn pick(&self, known: &BTreeMap<Vec<usize>, Vec<f64>>, preference: Preference) -> &[usize] {
        assert!(!self.stops.is_empty(), "a set must be scored first");
        let best = &self.stops[self.best()].moves;
        let mut close = self.stops.iter().map(|stop| &stop.moves).filter(|set| self.is_within_one_se(set, best, known));
        match preference {
            Preference::FewestMoves => close.next(),
            Preference::MostMoves => close.next_back(),
        }
        .unwrap_or(best)
    }

    fn is_within_one_se(&self, set: &Vec<usize>, best: &Vec<usize>, known: &BTreeMap<Vec<usize>, Vec<f64>>) -> bool {
        let (set, best) = (&known[set], &known[best]);
        let differences: Vec<f64> = self.samples.iter().map(|&sample| set[sample] - best[sample]).collect();
        let (deficit, se) = mean_and_se(&differences);
        deficit <= se * (1.0 + ROUNDING)
    }

    fn mean(&self, nll: &[f64]) -> f64 {
        self.samples.iter().map(|&sample| nll[sample]).sum::<f64>() / self.samples.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    const DROPS: GreedyOptions = GreedyOptions { rounds: 20, breadth: 20, preference: Preference::MostMoves };

    /// Runs a selection to its end, where each move adds an effect to a sample's NLL. Also returns the number of steps.
    fn run(effects: &[Vec<f64>], places: &[usize], folds: &[usize], options: GreedyOptions) -> (Greedy, usize) {
        let mut greedy = Greedy::new(places, folds, options);
        let mut steps = 0;
        let mut asked = BTreeSet::new();
        while let GreedyStep::Score(sets) = greedy.step() {
            assert!(sets.len() <= greedy.most_left());
            steps += 1;
            assert!(sets.iter().all(|set| set.is_sorted() && asked.insert(set.clone())), "scored twice: {sets:?}");
            let score = |set: &Vec<usize>| -> Vec<f64> {
                effects.iter().map(|of_sample| 2.0 + set.iter().map(|&taken| of_sample[taken]).sum::<f64>()).collect()
            };
            let rows: Vec<Vec<f64>> = sets.iter().map(score).collect();
            greedy.record(&sets, &rows);
        }
        assert_eq!(asked.len(), greedy.scored());
        (greedy, steps)
    }

    /// Effects of each move on each sample.
    fn effects(means: &[f64], samples: usize, noise: f64, seed: u64) -> Vec<Vec<f64>> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut noise = || noise * ((0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0);
        (0..samples).map(|_| means.iter().map(|mean| mean + noise()).collect()).collect()
    }

    fn folds(samples: usize) -> Vec<usize> {
        (0..samples).map(|sample| sample % 5).collect()
    }

    #[test]
    fn harmful_places_are_dropped_first_and_useful_ones_kept() {
        let means = [0.3, -0.2, 0.2, -0.4, 0.0, 0.5];
        let places: Vec<usize> = (0..6).collect();
        let (greedy, _) = run(&effects(&means, 40, 0.001, 1), &places, &folds(40), DROPS);
        let path: Vec<&[usize]> = greedy.path().iter().map(|stop| &stop.moves[..]).collect();
        assert_eq!(path[..3], [&[][..], &[3], &[1, 3]]);
        // Place 4 has no effect, so it may be dropped or kept. Useful places are not on the path.
        assert!(path.len() <= 4 && path[path.len() - 1].iter().all(|drop| [1, 3, 4].contains(drop)), "{path:?}");
        assert!(greedy.picked().starts_with(&[1, 3]));
        assert!((greedy.path()[2].mean - 1.4).abs() < 0.01);
        let mean = greedy.cross_validated().iter().sum::<f64>() / 40.0;
        assert!((mean - 1.4).abs() < 0.01, "{mean}");
    }

    #[test]
    fn moves_without_effect_are_picked_by_preference() {
        let places: Vec<usize> = (0..4).collect();
        let nothing = vec![vec![0.0; 4]; 10];
        let (greedy, _) = run(&nothing, &places, &folds(10), DROPS);
        assert_eq!(greedy.picked(), [0, 1, 2, 3]);
        let careful = GreedyOptions { preference: Preference::FewestMoves, ..DROPS };
        assert_eq!(run(&nothing, &places, &folds(10), careful).0.picked(), [0; 0]);
    }

    #[test]
    fn there_is_one_move_at_a_place() {
        // Two strengths for each of two places; the second one is better at each.
        let means = [-0.1, -0.2, -0.1, -0.3];
        let (greedy, _) = run(&effects(&means, 20, 0.001, 2), &[0, 0, 1, 1], &folds(20), DROPS);
        assert_eq!(greedy.path().last().unwrap().moves, [1, 3]);
    }

    #[test]
    fn rounds_and_breadth_bound_what_is_scored() {
        let means: Vec<f64> = (0..30).map(|place| -0.01 * f64::from(place)).collect();
        let places: Vec<usize> = (0..30).collect();
        let options = GreedyOptions { rounds: 5, breadth: 4, ..DROPS };
        // Without noise all paths are equal: the start, 30 moves, then 4 for each of four rounds.
        let (greedy, steps) = run(&effects(&means, 20, 0.0, 3), &places, &folds(20), options);
        assert_eq!((greedy.scored(), steps, greedy.path().len()), (1 + 30 + 4 * 4, 5, 6));
        assert_eq!((greedy.paths.len(), greedy.most()), (6, 1 + 30 + 6 * 4 * 4));
        assert_eq!(greedy.picked(), [25, 26, 27, 28, 29]);
        let none = GreedyOptions { rounds: 0, ..DROPS };
        let (greedy, _) = run(&effects(&means, 20, 0.0, 3), &places, &folds(20), none);
        assert_eq!((greedy.scored(), greedy.most()), (1, 1));
    }

    #[test]
    fn noise_alone_has_no_gain_on_samples_that_did_not_choose() {
        let places: Vec<usize> = (0..12).collect();
        let careful = GreedyOptions { rounds: 4, breadth: 6, preference: Preference::FewestMoves };
        let mut on_choosing = 0.0;
        let mut on_others = 0.0;
        for seed in 0..40 {
            let (greedy, _) = run(&effects(&[0.0; 12], 30, 0.1, seed), &places, &folds(30), careful);
            let picked = greedy.picked();
            on_choosing += greedy.path().iter().find(|stop| stop.moves == picked).unwrap().mean - 2.0;
            on_others += greedy.cross_validated().iter().sum::<f64>() / 30.0 - 2.0;
        }
        // On the choosing samples, a pick of four of twelve moves, each with a standard error of 0.018, seems to gain
        // about 0.1. On other samples its expectation is 0, with a standard error of √4·0.018/√40 = 0.006 over these
        // runs.
        assert!(on_choosing / 40.0 < -0.04, "{}", on_choosing / 40.0);
        assert!((on_others / 40.0).abs() < 4.0 * 0.006, "{}", on_others / 40.0);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_path_grows_by_one_move_and_ends_where_it_must(
            means in prop::collection::vec(-0.2..0.2_f64, 0..8),
            seed: u64,
            rounds in 0..6_usize,
            breadth in 0..5_usize,
        ) {
            let places: Vec<usize> = (0..means.len()).map(|step| step / 2).collect();
            let options = GreedyOptions { rounds, breadth, preference: Preference::MostMoves };
            let effects = effects(&means, 12, 0.2, seed);
            let (greedy, _) = run(&effects, &places, &folds(12), options);
            let path = greedy.path();
            prop_assert!(path[0].moves.is_empty() && path.len() <= rounds + 1);
            prop_assert!(greedy.scored() <= greedy.most());
            for pair in path.windows(2) {
                prop_assert_eq!(pair[1].moves.len(), pair[0].moves.len() + 1);
                prop_assert!(pair[0].moves.iter().all(|taken| pair[1].moves.contains(taken)));
                let mut taken: Vec<usize> = pair[1].moves.iter().map(|&step| places[step]).collect();
                taken.dedup();
                prop_assert_eq!(taken.len(), pair[1].moves.len());
            }
            prop_assert!(path.iter().any(|stop| stop.moves == greedy.picked()));
            // A second run has the same picks.
            let (again, _) = run(&effects, &places, &folds(12), options);
            prop_assert_eq!(again.cross_validated(), greedy.cross_validated());
            prop_assert_eq!(again.picked(), greedy.picked());
        }
    }
}
