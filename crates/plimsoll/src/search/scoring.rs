//! Scoring with a memory: what an earlier run left is not scored again, and what is finished is journalled at once.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use super::Progress;
use super::journal::{Known, Memory, Row, Set, Source};
use super::progress::{Planned, Stages};
use crate::choose::Part;
use crate::choose::race::{Race, Step};
use crate::data::Sample;
use crate::engine::{Embedded, Engine as _, Event, Request, layer_passes};
use crate::error::{Error, Result};
use crate::gates::Variant;
use crate::journal::Journal;

/// More variants than this are scored in several passes: hidden states of all of them are held at once.
const GROUP: usize = 128;

/// Told how far the work is.
pub(super) type Observer<'a> = &'a mut dyn FnMut(Progress) -> ControlFlow<()>;

/// What is to be known beside the NLL of answers, of the samples that it is to be known of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Nothing.
    Scores,
    /// The NLL of every answer token.
    Tokens,
    /// That, and curves of the base model and of the full adapter.
    TokensAndLens,
}

/// Lines of the samples of which more is wanted than scores.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    /// Whose curves are drawn.
    pub(super) lens: HashSet<usize>,
    /// Of which every answer token is told.
    pub(super) tokens: HashSet<usize>,
}

/// The scores of a search while they come in.
pub(super) struct Scoring<'a> {
    engine: &'a Embedded,
    journal: Journal,
    shown: Shown,
    known: HashMap<(Set, usize), Known>,
    stages: Stages,
    /// Variants that stand in `passes`, with the first of their samples.
    counted: HashSet<(Set, String, usize)>,
    /// Layers computed, summed over samples; and how many they would be with one run for each variant.
    pub(super) passes: (usize, usize),
    /// Samples of which an earlier run had left scores.
    pub(super) resumed: usize,
}

/// Some variants to be scored on some samples, in one call of the engine.
struct Job {
    samples: Vec<Sample>,
    gates: Vec<String>,
    request: Request,
}

impl<'a> Scoring<'a> {
    /// Begins with what the journal holds of the samples.
    pub(super) fn new(
        engine: &'a Embedded,
        (mut journal, memory): (Journal, Memory),
        shown: Shown,
        sets: &[(Set, &[&Sample])],
    ) -> Result<Self> {
        let samples = sets.iter().flat_map(|(set, samples)| samples.iter().map(|&sample| (*set, sample)));
        let known: HashMap<_, _> =
            samples.map(|(set, sample)| ((set, sample.line), memory.known(set, sample, engine.layers()))).collect();
        let resumed: Vec<_> = known.iter().filter(|(_, known)| !known.scores.is_empty()).collect();
        let count = resumed.len();
        if count > 0 {
            journal.begin(resumed.into_iter().flat_map(|((set, _), known)| known.rows(*set)))?;
        }
        let stages = Stages::default();
        Ok(Self { engine, journal, shown, known, stages, counted: HashSet::new(), passes: (0, 0), resumed: count })
    }

    /// Plans all stages, and reports them before the first one begins.
    pub(super) fn plan(&mut self, planned: Vec<Planned>, rate: f64, observe: Observer<'_>) -> Result<()> {
        self.stages = Stages::new(planned, rate);
        if observe(self.stages.at()).is_break() { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// The stages, where work is done elsewhere.
    pub(super) fn stages(&mut self) -> &mut Stages {
        &mut self.stages
    }

    /// Begins a stage.
    pub(super) fn begin(&mut self, stage: &'static str) {
        self.stages.begin(stage);
    }

    /// What is known of a sample.
    pub(super) fn known(&self, set: Set, sample: &Sample) -> &Known {
        &self.known[&(set, sample.line)]
    }

    /// The mean NLL of samples under some gates, in the order of the samples.
    pub(super) fn nll(&self, set: Set, samples: &[&Sample], gates: &str) -> Result<Vec<f64>> {
        let nll = |sample: &&Sample| {
            let missing = || Error::Internal(format!("line {} was not scored under `{gates}`", sample.line));
            self.known(set, sample).mean_nll(gates).ok_or_else(missing)
        };
        samples.iter().map(nll).collect()
    }

    /// Whether every answer token of a sample is told.
    pub(super) fn tells(&self, sample: &Sample) -> bool {
        self.shown.tokens.contains(&sample.line)
    }

    /// Multiply-adds that some variants would still cost on some samples.
    pub(super) fn work(&self, set: Set, samples: &[&Sample], variants: &[Variant], wanted: Wanted) -> u64 {
        let jobs = self.jobs(set, samples, variants, wanted);
        jobs.iter().map(|job| self.engine.work(&job.samples, &job.request)).sum()
    }

    /// Multiply-adds of one variant alone, the full adapter, on some samples.
    pub(super) fn work_alone(&self, samples: &[&Sample]) -> u64 {
        let samples: Vec<Sample> = samples.iter().map(|&sample| sample.clone()).collect();
        let variants = vec![Variant::uniform(self.engine.layers(), 1.0)];
        self.engine.work(&samples, &Request { variants, ..Request::default() })
    }

    /// Scores some variants on some samples, as far as they are not known.
    pub(super) fn evaluate(
        &mut self,
        set: Set,
        samples: &[&Sample],
        variants: &[Variant],
        wanted: Wanted,
        observe: Observer<'_>,
    ) -> Result<()> {
        self.run(set, samples, variants, wanted, samples.len(), observe)
    }

    /// The same in one of several rounds, in which samples come by again: how many are finished says nothing then.
    pub(super) fn evaluate_round(
        &mut self,
        set: Set,
        samples: &[&Sample],
        variants: &[Variant],
        wanted: Wanted,
        observe: Observer<'_>,
    ) -> Result<()> {
        self.run(set, samples, variants, wanted, 0, observe)
    }

    /// The same, with so many samples in the stage; 0 where they are not counted.
    fn run(
        &mut self,
        set: Set,
        samples: &[&Sample],
        variants: &[Variant],
        wanted: Wanted,
        of: usize,
        observe: Observer<'_>,
    ) -> Result<()> {
        let jobs = self.jobs(set, samples, variants, wanted);
        let first = samples.first().map_or(0, |sample| sample.line);
        let is_new = |variant: &&Variant| self.counted.insert((set, variant.spec(), first));
        let new: Vec<Variant> = variants.iter().filter(is_new).cloned().collect();
        for group in new.chunks(GROUP) {
            let (passes, naive) = layer_passes(group, self.engine.adapted());
            self.passes.0 += samples.len() * passes;
            self.passes.1 += samples.len() * naive;
        }
        let mut finished = Vec::new();
        let mut seen: HashMap<usize, usize> = HashMap::new();
        let jobs_of = |line: usize| jobs.iter().filter(|job| job.samples.iter().any(|s| s.line == line)).count();
        let left: HashMap<usize, usize> = samples.iter().map(|sample| (sample.line, jobs_of(sample.line))).collect();
        let known = left.values().filter(|jobs| **jobs == 0).count();
        self.stages.count_samples(known.min(of), of);
        let (journal, stages) = (&mut self.journal, &mut self.stages);
        for Job { samples, gates, request } in &jobs {
            let mut journal_error = None;
            let scored = self.engine.score(samples, request, &mut |event| {
                match event {
                    Event::Work(work) => stages.spend(work),
                    Event::Scored(scores) => {
                        // A sample that several jobs have is finished with the last of them.
                        for scores in scores {
                            let jobs = seen.entry(scores.line).or_default();
                            *jobs += 1;
                            if left.get(&scores.line) == Some(jobs) {
                                stages.finish_sample();
                            }
                        }
                        let row = |scores| Row { source: set.source, part: set.part, gates: gates.clone(), scores };
                        if let Err(error) = journal.append(scores.iter().cloned().map(row)) {
                            journal_error = Some(error);
                            return ControlFlow::Break(());
                        }
                    }
                }
                observe(stages.at())
            });
            if let Some(error) = journal_error {
                return Err(error);
            }
            finished.extend(scored?.into_iter().map(|scores| (gates.clone(), scores)));
        }
        for (gates, scores) in finished {
            let known = self.known.get_mut(&(set, scores.line));
            known.ok_or_else(|| Error::Internal("scores of an unknown sample".into()))?.take(&gates, scores);
        }
        Ok(())
    }

    /// Races all boundaries on samples in the order given.
    pub(super) fn race(
        &mut self,
        samples: &[&Sample],
        layers: usize,
        error_rate: f64,
        observe: Observer<'_>,
    ) -> Result<Race> {
        let set = Set::data(Part::Selection);
        let variants = |boundaries: &[usize]| -> Vec<Variant> {
            boundaries.iter().map(|&k| Variant::bottom_k(layers, k)).collect()
        };
        let wanted = Wanted::TokensAndLens;
        let mut race = Race::new(layers, samples.len(), error_rate);
        while let Step::Score { samples: range, boundaries } = race.step() {
            let some = &samples[range.clone()];
            let variants = variants(&boundaries);
            self.evaluate_round(set, some, &variants, wanted, observe)?;
            let gates: Vec<String> = variants.iter().map(Variant::spec).collect();
            let row = |sample: &&Sample| {
                let known = self.known(set, sample);
                gates.iter().filter_map(|gates| known.mean_nll(gates)).collect::<Vec<f64>>()
            };
            race.record(range, &boundaries, &some.iter().map(row).collect::<Vec<_>>());
        }
        Ok(race)
    }

    /// What is to be scored: groups of variants, each on the samples that lack one of them, apart where more is wanted.
    fn jobs(&self, set: Set, samples: &[&Sample], variants: &[Variant], wanted: Wanted) -> Vec<Job> {
        let layers = self.engine.layers();
        let ends = [Variant::uniform(layers, 0.0), Variant::uniform(layers, 1.0)];
        let is_shown =
            |lines: &HashSet<usize>, sample: &Sample| set.source == Source::Data && lines.contains(&sample.line);
        let tells = |sample: &Sample| wanted != Wanted::Scores && is_shown(&self.shown.tokens, sample);
        let draws = |sample: &Sample| {
            let is_drawn = wanted == Wanted::TokensAndLens && is_shown(&self.shown.lens, sample);
            is_drawn && self.known(set, sample).lens.is_empty()
        };
        let lacks = |sample: &Sample, gates: &String| {
            let known = self.known(set, sample);
            !known.scores.contains_key(gates) || (tells(sample) && !known.token_nll.contains_key(gates))
        };
        let mut seen = HashSet::new();
        let keyed = variants.iter().map(|variant| (variant.spec(), variant));
        let keyed: Vec<(String, &Variant)> = keyed.filter(|(gates, _)| seen.insert(gates.clone())).collect();
        let is_needed = |(gates, variant): &&(String, &Variant)| {
            samples.iter().any(|sample| lacks(sample, gates) || (ends.contains(variant) && draws(sample)))
        };
        let mut needed: Vec<&(String, &Variant)> = keyed.iter().filter(is_needed).collect();
        // Curves are of both ends at once: they have to be in one group.
        needed.sort_by_key(|(_, variant)| !ends.contains(variant));
        let mut jobs = Vec::new();
        for group in needed.chunks(GROUP) {
            let gates: Vec<String> = group.iter().map(|(gates, _)| gates.clone()).collect();
            let variants: Vec<Variant> = group.iter().map(|(_, variant)| (*variant).clone()).collect();
            let place = |end: &Variant| variants.iter().position(|variant| variant == end);
            let curves: Vec<usize> = ends.iter().filter_map(place).collect();
            let can_draw = curves.len() == ends.len();
            for (with_lens, token_nll) in [(true, true), (true, false), (false, true), (false, false)] {
                let is_todo = |sample: &&&Sample| {
                    let draws = can_draw && draws(sample);
                    (draws, tells(sample)) == (with_lens, token_nll)
                        && (draws || gates.iter().any(|gates| lacks(sample, gates)))
                };
                let samples: Vec<Sample> = samples.iter().filter(is_todo).map(|&sample| sample.clone()).collect();
                if !samples.is_empty() {
                    let lens = if with_lens { curves.clone() } else { Vec::new() };
                    let request = Request { variants: variants.clone(), lens, token_nll };
                    jobs.push(Job { samples, gates: gates.clone(), request });
                }
            }
        }
        jobs
    }
}
