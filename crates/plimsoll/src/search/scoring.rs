//! Scoring with a memory: what an earlier run left is not scored again, and what is finished is journalled at once.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use plimsoll_stats::choose::Part;
use plimsoll_stats::choose::race::{Race, Step};

use super::journal::{Known, Memory, Set};
use super::progress::{PlannedStage, Progress, Stages};
use crate::data::Sample;
use crate::engine::{Request, ScoreEvent, Scorer, layer_passes};
use crate::error::{Error, Result};
use crate::journal::Journal;
use crate::lora::{Variant, VariantId, VariantTable};
use crate::result::{ScoreRow, Source};

/// More variants than this are scored in several passes: hidden states of all of them are held at once.
const GROUP: usize = 128;

/// Called with the progress of a search; the search stops where it breaks.
pub(super) type Observer<'a> = &'a mut dyn FnMut(Progress) -> ControlFlow<()>;

/// What is wanted beside the NLL of answers, of the samples that it is wanted of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Nothing.
    Scores,
    /// The NLL of every answer token.
    Tokens,
    /// That, and curves of the base model and of the full adapter.
    TokensAndLens,
}

/// Whether a stage counts its samples: in rounds samples come by again, and how many are finished says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    /// Every sample once.
    Samples,
    /// One of several rounds.
    Rounds,
}

/// Lines of the samples of which more is wanted than scores.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    /// Whose curves are drawn.
    pub(super) lens: HashSet<usize>,
    /// Whose answer tokens are kept.
    pub(super) tokens: HashSet<usize>,
}

/// Some variants to be scored on some samples.
#[derive(Clone, Copy)]
pub(super) struct Task<'a> {
    pub(super) set: Set,
    pub(super) samples: &'a [&'a Sample],
    pub(super) variants: &'a [Variant],
    pub(super) wanted: Wanted,
}

impl<'a> Task<'a> {
    /// Of scores alone.
    pub(super) fn scores(set: Set, samples: &'a [&'a Sample], variants: &'a [Variant]) -> Self {
        Self { set, samples, variants, wanted: Wanted::Scores }
    }

    /// Of scores and more.
    pub(super) fn wanting(self, wanted: Wanted) -> Self {
        Self { wanted, ..self }
    }
}

/// The scores of a search while they come in.
pub(super) struct Scoring<'a> {
    scorer: &'a dyn Scorer,
    journal: Option<Journal>,
    shown: Shown,
    known: HashMap<(Set, usize), Known>,
    table: VariantTable,
    stages: Stages,
    /// Variants that stand in `passes`, with the first of their samples.
    counted: HashSet<(Set, VariantId, usize)>,
    /// Layers computed, summed over samples; and how many they would be with one run for each variant.
    pub(super) passes: (usize, usize),
    /// Samples of which an earlier run had left scores.
    pub(super) resumed: usize,
}

/// Some variants to be scored on some samples, in one call of the engine.
struct Job {
    samples: Vec<Sample>,
    variants: Vec<VariantId>,
    request: Request,
}

impl<'a> Scoring<'a> {
    /// Begins with what the journal holds of the samples, where there is one.
    pub(super) fn new(
        scorer: &'a dyn Scorer,
        journal: Option<(Journal, Memory)>,
        shown: Shown,
        sets: &[(Set, &[&Sample])],
    ) -> Result<Self> {
        let (mut journal, memory) = journal.map_or((None, Memory::default()), |(a, b)| (Some(a), b));
        let mut table = VariantTable::default();
        let mut known = HashMap::new();
        for (set, samples) in sets {
            for sample in *samples {
                known.insert((*set, sample.line), memory.known(*set, sample, scorer.layers(), &mut table));
            }
        }
        let resumed: Vec<_> = known.iter().filter(|(_, known): &(_, &Known)| !known.scores.is_empty()).collect();
        let count = resumed.len();
        if let Some(journal) = journal.as_mut().filter(|_| count > 0) {
            journal.begin(resumed.into_iter().flat_map(|((set, _), known)| known.rows(*set, &table)))?;
        }
        let (stages, counted) = (Stages::default(), HashSet::new());
        Ok(Self { scorer, journal, shown, known, table, stages, counted, passes: (0, 0), resumed: count })
    }

    /// Plans all stages, and reports them before the first one begins.
    pub(super) fn plan(&mut self, planned: Vec<PlannedStage>, rate: f64, observe: Observer<'_>) -> Result<()> {
        self.stages = Stages::new(planned, rate);
        if observe(self.stages.at()).is_break() { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// The variants that were scored.
    pub(super) fn table(&self) -> &VariantTable {
        &self.table
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

    /// The mean NLL of samples under a variant, in the order of the samples.
    ///
    /// # Errors
    /// A sample that was not scored under it.
    pub(super) fn nll(&self, set: Set, samples: &[&Sample], variant: &Variant) -> Result<Vec<f64>> {
        let id = self.table.get(variant);
        let nll = |sample: &&Sample| {
            let missing = || Error::Internal(format!("line {} was not scored under `{}`", sample.line, variant.spec()));
            id.and_then(|id| self.known(set, sample).mean_nll(id)).ok_or_else(missing)
        };
        samples.iter().map(nll).collect()
    }

    /// Whether the answer tokens of a sample are kept.
    pub(super) fn keeps_tokens(&self, sample: &Sample) -> bool {
        self.shown.tokens.contains(&sample.line)
    }

    /// Work that a task would still cost.
    pub(super) fn work(&mut self, task: Task<'_>) -> u64 {
        let jobs = self.jobs(task);
        jobs.iter().map(|job| self.scorer.work(&job.samples, &job.request)).sum()
    }

    /// Work of one variant alone, the full adapter, on some samples.
    pub(super) fn work_alone(&self, samples: &[&Sample]) -> u64 {
        let samples: Vec<Sample> = samples.iter().map(|&sample| sample.clone()).collect();
        let variants = vec![Variant::uniform(self.scorer.layers(), 1.0)];
        self.scorer.work(&samples, &Request { variants, ..Request::default() })
    }

    /// Scores some variants on some samples, as far as they are not known.
    pub(super) fn evaluate(&mut self, task: Task<'_>, counted: Counted, observe: Observer<'_>) -> Result<()> {
        let Task { set, samples, variants, .. } = task;
        let jobs = self.jobs(task);
        self.count_passes(set, samples, variants);
        let mut progress = SampleProgress::new(&jobs, samples);
        let of = if counted == Counted::Samples { samples.len() } else { 0 };
        self.stages.count_samples(progress.known(samples).min(of), of);
        let Self { scorer, journal, table, stages, known, .. } = self;
        for Job { samples, variants, request } in jobs {
            let gates: Vec<String> = variants.iter().map(|id| table.spec(*id).to_owned()).collect();
            let mut journal_error = None;
            let scored = scorer.score(&samples, &request, &mut |event| {
                match event {
                    ScoreEvent::Work(work) => stages.spend(work),
                    ScoreEvent::Scored(scores) => {
                        (0..progress.finish(scores.iter().map(|scores| scores.line)))
                            .for_each(|_| stages.finish_sample());
                        let Set { source, part } = set;
                        let row = |scores| ScoreRow { source, part, gates: gates.clone(), scores };
                        let rows = scores.iter().cloned().map(row);
                        if let Some(Err(error)) = journal.as_mut().map(|journal| journal.append(rows)) {
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
            for scores in scored? {
                let known = known.get_mut(&(set, scores.line));
                known.ok_or_else(|| Error::Internal("scores of an unknown sample".into()))?.take(&variants, scores);
            }
        }
        Ok(())
    }

    /// Counts the layers that new variants of a set of samples cost.
    fn count_passes(&mut self, set: Set, samples: &[&Sample], variants: &[Variant]) {
        let first = samples.first().map_or(0, |sample| sample.line);
        let mut new = Vec::new();
        for variant in variants {
            if self.counted.insert((set, self.table.insert(variant), first)) {
                new.push(variant.clone());
            }
        }
        for group in new.chunks(GROUP) {
            let (passes, naive) = layer_passes(group, self.scorer.adapted());
            self.passes.0 += samples.len() * passes;
            self.passes.1 += samples.len() * naive;
        }
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
        let mut race = Race::new(layers, samples.len(), error_rate);
        while let Step::Score { samples: range, boundaries } = race.step() {
            let some = &samples[range.clone()];
            let variants: Vec<Variant> = boundaries.iter().map(|&k| Variant::bottom_k(layers, k)).collect();
            let task = Task::scores(set, some, &variants).wanting(Wanted::TokensAndLens);
            self.evaluate(task, Counted::Rounds, observe)?;
            let columns = variants.iter().map(|variant| self.nll(set, some, variant)).collect::<Result<Vec<_>>>()?;
            let rows: Vec<Vec<f64>> =
                (0..some.len()).map(|sample| columns.iter().map(|column| column[sample]).collect()).collect();
            race.record(range, &boundaries, &rows);
        }
        Ok(race)
    }

    /// What is to be scored: groups of variants, each on the samples that lack one of them, apart where more is wanted.
    fn jobs(&mut self, task: Task<'_>) -> Vec<Job> {
        let Task { set, samples, variants, wanted } = task;
        let ends = [0.0, 1.0].map(|strength| Variant::uniform(self.scorer.layers(), strength));
        let mut seen = HashSet::new();
        let numbered = variants.iter().map(|variant| (self.table.insert(variant), variant));
        let numbered: Vec<(VariantId, &Variant)> = numbered.filter(|(id, _)| seen.insert(*id)).collect();
        let is_shown =
            |lines: &HashSet<usize>, sample: &Sample| set.source == Source::Data && lines.contains(&sample.line);
        let keeps = |sample: &Sample| wanted != Wanted::Scores && is_shown(&self.shown.tokens, sample);
        let draws = |sample: &Sample| {
            let is_drawn = wanted == Wanted::TokensAndLens && is_shown(&self.shown.lens, sample);
            is_drawn && self.known(set, sample).lens.is_empty()
        };
        let lacks = |sample: &Sample, id: &VariantId| {
            let known = self.known(set, sample);
            !known.scores.contains_key(id) || (keeps(sample) && !known.token_nll.contains_key(id))
        };
        let is_needed = |(id, variant): &&(VariantId, &Variant)| {
            samples.iter().any(|sample| lacks(sample, id) || (ends.contains(variant) && draws(sample)))
        };
        let mut needed: Vec<&(VariantId, &Variant)> = numbered.iter().filter(is_needed).collect();
        // Curves are of both ends at once: they have to be in one group.
        needed.sort_by_key(|(_, variant)| !ends.contains(variant));
        let mut jobs = Vec::new();
        for group in needed.chunks(GROUP) {
            let ids: Vec<VariantId> = group.iter().map(|(id, _)| *id).collect();
            let variants: Vec<Variant> = group.iter().map(|(_, variant)| (*variant).clone()).collect();
            let place = |end: &Variant| variants.iter().position(|variant| variant == end);
            let curves: Vec<usize> = ends.iter().filter_map(place).collect();
            let can_draw = curves.len() == ends.len();
            for (with_lens, token_nll) in [(true, true), (true, false), (false, true), (false, false)] {
                let is_todo = |sample: &&&Sample| {
                    let draws = can_draw && draws(sample);
                    (draws, keeps(sample)) == (with_lens, token_nll)
                        && (draws || ids.iter().any(|id| lacks(sample, id)))
                };
                let samples: Vec<Sample> = samples.iter().filter(is_todo).map(|&sample| sample.clone()).collect();
                if !samples.is_empty() {
                    let lens = if with_lens { curves.clone() } else { Vec::new() };
                    let request = Request { variants: variants.clone(), lens, token_nll };
                    jobs.push(Job { samples, variants: ids.clone(), request });
                }
            }
        }
        jobs
    }
}

/// Which samples of a task are finished: a sample of several jobs is, with the last of them.
struct SampleProgress {
    /// How many jobs each line has left.
    left: HashMap<usize, usize>,
}

impl SampleProgress {
    fn new(jobs: &[Job], samples: &[&Sample]) -> Self {
        let mut left: HashMap<usize, usize> = samples.iter().map(|sample| (sample.line, 0)).collect();
        for sample in jobs.iter().flat_map(|job| &job.samples) {
            *left.entry(sample.line).or_default() += 1;
        }
        Self { left }
    }

    /// How many samples need no job.
    fn known(&self, samples: &[&Sample]) -> usize {
        let lines: HashSet<usize> = samples.iter().map(|sample| sample.line).collect();
        lines.iter().filter(|line| self.left.get(line) == Some(&0)).count()
    }

    /// One job of each of these lines is done; how many of the lines are finished by it.
    fn finish(&mut self, lines: impl Iterator<Item = usize>) -> usize {
        let mut finished = 0;
        for line in lines {
            if let Some(left) = self.left.get_mut(&line) {
                *left = left.saturating_sub(1);
                finished += usize::from(*left == 0);
            }
        }
        finished
    }
}
