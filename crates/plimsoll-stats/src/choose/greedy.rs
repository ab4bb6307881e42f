//! Greedy selection: moves are taken one at a time, always the one after which the mean NLL is lowest.
//!
//! A *move* changes one place of a setting: it drops LoRA there, or gives it another strength. What it is only the caller
//! knows; here it is an index, and a set of moves is a setting. Each round tries every further move on top of those taken,
//! one at a place; after the first round only the most promising by that round's scores are tried. It ends after so many
//! rounds, or when the best further move makes the mean worse than the best set so far by more than one paired standard
//! error. With drops this is backward elimination (Marill and Green, "On the effectiveness of receptors in recognition
//! systems", IEEE Transactions on Information Theory 9:1, 1963); it sees no pair of moves that only help together.
//!
//! From the sets on the path, the one with the lowest mean is the best, and the one that is picked is the most preferred
//! within one paired standard error of it.
//!
//! *Cross-validation.* The path that all samples lead along is followed, and beside it one for each fold by the samples
//! outside it, whose pick is scored on the samples inside. A score from the samples that took part in choosing among
//! hundreds of sets would flatter the procedure; these had no part in it. The caller scores a set on all samples at once,
//! so that sets which several paths ask for cost one evaluation.
//!
//! The caller does the scoring: [`Greedy::step`] says which sets to score next, [`Greedy::record`] takes the scores.

use std::collections::{BTreeMap, BTreeSet};

use super::rules::ROUNDING;
use crate::mean_and_se;

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Score every sample under these sets of moves, each ascending.
    Score(Vec<Vec<usize>>),
    /// All paths have come to their end.
    Done,
}

/// Which of the sets within one standard error of the best is picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preference {
    /// The one with the most moves: each drops something.
    MostMoves,
    /// The one with the fewest moves: each is a departure from what was given.
    FewestMoves,
}

/// How far to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Moves taken at most.
    pub rounds: usize,
    /// Moves tried at most in each round after the first: the best by that round's scores.
    pub breadth: usize,
    /// Which of nearly equal sets is picked.
    pub preference: Preference,
}

/// A set of moves on a path.
#[derive(Clone, Debug, PartialEq)]
pub struct Stop {
    /// The moves, ascending.
    pub moves: Vec<usize>,
    /// Mean NLL under them, of the samples that lead along the path.
    pub mean: f64,
}

/// Greedy selection by all samples, and by those outside each fold.
#[derive(Clone, Debug)]
pub struct Greedy {
    options: Options,
    /// The place that each move changes.
    places: Vec<usize>,
    /// The fold of each sample.
    folds: Vec<usize>,
    /// One NLL for each sample, by set of moves.
    known: BTreeMap<Vec<usize>, Vec<f64>>,
    /// The path by all samples, then one for each fold.
    paths: Vec<Path>,
}

#[derive(Clone, Debug)]
struct Path {
    /// The samples that lead along it.
    samples: Vec<usize>,
    /// All moves, the most promising first; empty before the first round.
    promising: Vec<usize>,
    stops: Vec<Stop>,
    is_at_end: bool,
}

impl Greedy {
    /// Takes the place that each move changes (a set has at most one move at a place), and the fold of each sample.
    ///
    /// # Panics
    /// If fewer than two samples are outside some fold.
    pub fn new(places: &[usize], folds: &[usize], options: Options) -> Self {
        let path = |samples: Vec<usize>| {
            assert!(samples.len() >= super::scores::MIN_SAMPLES, "{} samples to choose by", samples.len());
            Path { samples, promising: Vec::new(), stops: Vec::new(), is_at_end: false }
        };
        let count = folds.iter().max().map_or(0, |&last| last + 1);
        let outside = |fold: usize| (0..folds.len()).filter(|&sample| folds[sample] != fold).collect();
        let paths = std::iter::once((0..folds.len()).collect()).chain((0..count).map(outside)).map(path).collect();
        Self { options, places: places.to_vec(), folds: folds.to_vec(), known: BTreeMap::new(), paths }
    }

    /// What to score next: the sets that some path needs to go on, and that are not known yet.
    pub fn step(&mut self) -> Step {
        let Self { options, places, known, paths, .. } = self;
        let mut wanted = BTreeSet::new();
        for path in paths {
            wanted.extend(path.advance(places, known, *options));
        }
        if wanted.is_empty() { Step::Done } else { Step::Score(wanted.into_iter().collect()) }
    }

    /// Takes the NLL of every sample under the sets that a step asked for: one row for each set, in that order.
    ///
    /// # Panics
    /// If there is not a row for each set, or a row has not one number for each sample.
    pub fn record<R: AsRef<[f64]>>(&mut self, sets: &[Vec<usize>], rows: &[R]) {
        assert_eq!(sets.len(), rows.len(), "scores of other sets");
        for (set, row) in sets.iter().zip(rows) {
            assert_eq!(row.as_ref().len(), self.folds.len(), "scores of other samples");
            self.known.insert(set.clone(), row.as_ref().to_vec());
        }
    }

    /// How many sets have been scored.
    pub fn scored(&self) -> usize {
        self.known.len()
    }

    /// How many sets are scored at most.
    pub fn most(&self) -> usize {
        let Options { rounds, breadth, .. } = self.options;
        let moves = self.places.len();
        let rounds = rounds.min(self.places.iter().collect::<BTreeSet<_>>().len());
        // All paths share their first round.
        let first = if rounds > 0 { moves } else { 0 };
        1 + first + self.paths.len() * rounds.saturating_sub(1) * breadth.min(moves)
    }

    /// How many sets are scored from here on at most, those that the last step asked for among them.
    pub fn most_left(&self) -> usize {
        let Options { rounds, breadth, .. } = self.options;
        if self.known.is_empty() {
            return self.most();
        }
        let left = |path: &Path| rounds.saturating_sub(path.stops.len().saturating_sub(1));
        let open = self.paths.iter().filter(|path| !path.is_at_end);
        open.map(left).sum::<usize>() * breadth.min(self.places.len())
    }

    /// The path that all samples lead along, from no move on: so far as it is known.
    pub fn path(&self) -> &[Stop] {
        &self.paths[0].stops
    }

    /// The set that is picked from it.
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
    /// Goes on as far as the known sets lead; what is missing to go further. Nothing is, at the end.
    fn advance(
        &mut self,
        places: &[usize],
        known: &BTreeMap<Vec<usize>, Vec<f64>>,
        options: Options,
    ) -> Vec<Vec<usize>> {
        while !self.is_at_end {
            let taken = self.stops.last().map_or_else(Vec::new, |stop| stop.moves.clone());
            let next =
                if taken.len() < options.rounds { self.further(&taken, places, options.breadth) } else { Vec::new() };
            // The set without moves is where the path starts, and is asked for together with the first round.
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

    /// The sets that one further move makes.
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

    /// Takes the best of these sets, if it is not clearly worse than the best so far.
    fn take(&mut self, sets: Vec<Vec<usize>>, known: &BTreeMap<Vec<usize>, Vec<f64>>) {
        let mut stops: Vec<Stop> =
            sets.into_iter().map(|moves| Stop { mean: self.mean(&known[&moves]), moves }).collect();
        // Stable: of equals the first move, in the order of promise, is taken.
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

    /// The stop with the lowest mean, the first of equals.
    fn best(&self) -> usize {
        (1..self.stops.len())
            .fold(0, |best, stop| if self.stops[stop].mean < self.stops[best].mean { stop } else { best })
    }

    fn pick(&self, known: &BTreeMap<Vec<usize>, Vec<f64>>, preference: Preference) -> &[usize] {
        assert!(!self.stops.is_empty(), "nothing was scored");
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

    const DROPS: Options = Options { rounds: 20, breadth: 20, preference: Preference::MostMoves };

    /// Runs to the end where each move adds its own amount to a sample's NLL; also how often sets were asked for.
    fn run(effects: &[Vec<f64>], places: &[usize], folds: &[usize], options: Options) -> (Greedy, usize) {
        let mut greedy = Greedy::new(places, folds, options);
        let mut steps = 0;
        let mut asked = BTreeSet::new();
        while let Step::Score(sets) = greedy.step() {
            assert!(sets.len() <= greedy.most_left());
            steps += 1;
            assert!(sets.iter().all(|set| set.is_sorted() && asked.insert(set.clone())), "asked for twice: {sets:?}");
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
    fn harmful_places_go_first_and_useful_ones_stay() {
        let means = [0.3, -0.2, 0.2, -0.4, 0.0, 0.5];
        let places: Vec<usize> = (0..6).collect();
        let (greedy, _) = run(&effects(&means, 40, 0.001, 1), &places, &folds(40), DROPS);
        let path: Vec<&[usize]> = greedy.path().iter().map(|stop| &stop.moves[..]).collect();
        assert_eq!(path[..3], [&[][..], &[3], &[1, 3]]);
        // The fifth does nothing, so it may go or stay; what is useful is worse by far, and is not on the path.
        assert!(path.len() <= 4 && path[path.len() - 1].iter().all(|drop| [1, 3, 4].contains(drop)), "{path:?}");
        assert!(greedy.picked().starts_with(&[1, 3]));
        assert!((greedy.path()[2].mean - 1.4).abs() < 0.01);
        let mean = greedy.cross_validated().iter().sum::<f64>() / 40.0;
        assert!((mean - 1.4).abs() < 0.01, "{mean}");
    }

    #[test]
    fn what_makes_no_difference_goes_by_preference() {
        let places: Vec<usize> = (0..4).collect();
        let nothing = vec![vec![0.0; 4]; 10];
        let (greedy, _) = run(&nothing, &places, &folds(10), DROPS);
        assert_eq!(greedy.picked(), [0, 1, 2, 3]);
        let careful = Options { preference: Preference::FewestMoves, ..DROPS };
        assert_eq!(run(&nothing, &places, &folds(10), careful).0.picked(), [0; 0]);
    }

    #[test]
    fn there_is_one_move_at_a_place() {
        // Two strengths for each of two places; the second of each is the better.
        let means = [-0.1, -0.2, -0.1, -0.3];
        let (greedy, _) = run(&effects(&means, 20, 0.001, 2), &[0, 0, 1, 1], &folds(20), DROPS);
        assert_eq!(greedy.path().last().unwrap().moves, [1, 3]);
    }

    #[test]
    fn rounds_and_breadth_bound_what_is_scored() {
        let means: Vec<f64> = (0..30).map(|place| -0.01 * f64::from(place)).collect();
        let places: Vec<usize> = (0..30).collect();
        let options = Options { rounds: 5, breadth: 4, ..DROPS };
        // Without noise all paths are one: the start, 30 moves, then 4 for each of four rounds.
        let (greedy, steps) = run(&effects(&means, 20, 0.0, 3), &places, &folds(20), options);
        assert_eq!((greedy.scored(), steps, greedy.path().len()), (1 + 30 + 4 * 4, 5, 6));
        assert_eq!((greedy.paths.len(), greedy.most()), (6, 1 + 30 + 6 * 4 * 4));
        assert_eq!(greedy.picked(), [25, 26, 27, 28, 29]);
        let none = Options { rounds: 0, ..DROPS };
        let (greedy, _) = run(&effects(&means, 20, 0.0, 3), &places, &folds(20), none);
        assert_eq!((greedy.scored(), greedy.most()), (1, 1));
    }

    #[test]
    fn noise_alone_gains_nothing_on_samples_that_did_not_choose() {
        let places: Vec<usize> = (0..12).collect();
        let careful = Options { rounds: 4, breadth: 6, preference: Preference::FewestMoves };
        let mut flattered = 0.0;
        let mut honest = 0.0;
        for seed in 0..40 {
            let (greedy, _) = run(&effects(&[0.0; 12], 30, 0.1, seed), &places, &folds(30), careful);
            let picked = greedy.picked();
            flattered += greedy.path().iter().find(|stop| stop.moves == picked).unwrap().mean - 2.0;
            honest += greedy.cross_validated().iter().sum::<f64>() / 30.0 - 2.0;
        }
        // A pick of four of twelve moves, each with a standard error of 0.018, looks better than nothing by about 0.1; its
        // expectation on other samples is 0, with a standard error of √4·0.018/√40 = 0.006 over these runs.
        assert!(flattered / 40.0 < -0.04, "{}", flattered / 40.0);
        assert!((honest / 40.0).abs() < 4.0 * 0.006, "{}", honest / 40.0);
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
            let options = Options { rounds, breadth, preference: Preference::MostMoves };
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
            // A second run asks for the same and says the same.
            let (again, _) = run(&effects, &places, &folds(12), options);
            prop_assert_eq!(again.cross_validated(), greedy.cross_validated());
            prop_assert_eq!(again.picked(), greedy.picked());
        }
    }
}
