//! Scores of a search: known scores are not computed again, and new ones are journalled at once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;

use plimsoll_stats::choose::Part;
use plimsoll_stats::choose::race::{Race, RaceStep};

use super::journal::{Known, Memory, Set};
use super::progress::{PlannedStage, Progress, Stages};
use crate::data::Sample;
use crate::engine::{Request, ScoreEvent, Scorer};
use crate::error::{Error, Result};
use crate::journal::Journal;
use crate::lora::{Variant, VariantId, VariantTable};
use crate::result::{DataSource, SampleScores, ScoreRow};

/// Receives the progress of a search. The search stops if it breaks.
pub(super) type Observer<'a> = &'a mut dyn FnMut(Progress) -> ControlFlow<()>;

/// What to compute besides the NLL of answers, for the samples in [`Shown`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Nothing else.
    Scores,
    /// The NLL of every answer token.
    Tokens,
    /// The NLL of every answer token, and probability curves of the base model and the full adapter.
    TokensAndLens,
}

/// Whether the progress counts the samples of a task. With several rounds a sample is scored several times, so the
/// number of finished samples has no meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    /// Every sample is scored once: count them.
    Samples,
    /// One of several rounds: do not count samples.
    Rounds,
}

/// Lines of the samples for which more than scores is computed.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    /// Samples with probability curves.
    pub(super) lens: HashSet<usize>,
    /// Samples with scores of answer tokens.
    pub(super) tokens: HashSet<usize>,
}

/// A task: variants to score on samples.
#[derive(Clone, Copy)]
pub(super) struct Task<'a> {
    pub(super) set: Set,
    pub(super) samples: &'a [&'a Sample],
    pub(super) variants: &'a [Variant],
    pub(super) wanted: Wanted,
}

impl<'a> Task<'a> {
    /// A task for scores only.
    pub(super) fn scores(set: Set, samples: &'a [&'a Sample], variants: &'a [Variant]) -> Self {
        Self { set, samples, variants, wanted: Wanted::Scores }
    }

    /// The same task, with more to compute.
    pub(super) fn wanting(self, wanted: Wanted) -> Self {
        Self { wanted, ..self }
    }
}

/// All scores of a search so far, with the engine that computes them and the journal.
pub(super) struct Scoring<'a> {
    scorer: &'a dyn Scorer,
    journal: Option<Journal>,
    shown: Shown,
    known: HashMap<(Set, usize), Known>,
    table: VariantTable,
    stages: Stages,
    /// Variants that are counted in `passes`, by the line of the sample.
    counted: HashSet<(Set, VariantId, usize)>,
    /// Layer passes, summed over samples: computed, and with one run per variant.
    pub(super) passes: (usize, usize),
    /// Number of samples with scores of an earlier run.
    pub(super) resumed: usize,
}

/// A call of the engine: variants to score on samples.
struct Job {
    samples: Vec<Sample>,
    variants: Vec<VariantId>,
    request: Request,
}

impl<'a> Scoring<'a> {
    /// Starts with the scores of the journal, if there is one.
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

    /// Plans all stages, and reports the progress before the first one begins.
    pub(super) fn plan(&mut self, planned: Vec<PlannedStage>, rate: f64, observe: Observer<'_>) -> Result<()> {
        self.stages = Stages::new(planned, rate);
        if observe(self.stages.progress()).is_break() { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// The numbers of all variants so far.
    pub(super) fn table(&self) -> &VariantTable {
        &self.table
    }

    /// The stages, for work that is done outside.
    pub(super) fn stages(&mut self) -> &mut Stages {
        &mut self.stages
    }

    /// Begins a stage.
    pub(super) fn begin(&mut self, stage: &'static str) {
        self.stages.begin(stage);
    }

    /// The known scores of a sample.
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

    /// The work of a task, without known scores.
    pub(super) fn work(&mut self, task: Task<'_>) -> u64 {
        let jobs = self.jobs(task);
        jobs.iter().map(|job| self.scorer.work(&job.samples, &job.request)).sum()
    }

    /// The work of one variant, the full adapter, on samples.
    pub(super) fn work_alone(&self, samples: &[&Sample]) -> u64 {
        let samples: Vec<Sample> = samples.iter().map(|&sample| sample.clone()).collect();
        let variants = vec![Variant::uniform(self.scorer.layers(), 1.0)];
        self.scorer.work(&samples, &Request { variants, ..Request::default() })
    }

    /// Maximum number of variants of one call of the engine.
    pub(super) fn group(&self) -> usize {
        self.scorer.max_variants().max(1)
    }

    /// Whether the engine can scale LoRA by strengths other than 0 and 1.
    pub(super) fn has_strengths(&self) -> bool {
        self.scorer.capabilities().strengths
    }

    /// Computes the scores of a task that are not known.
    ///
    /// # Errors
    /// As [`Scorer::score`]; a score that is not finite, which is not journalled; a journal that cannot be written.
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
            let mut failure = None;
            let scored = scorer.score(&samples, &request, &mut |event| {
                match event {
                    ScoreEvent::Work(work) => stages.spend(work),
                    ScoreEvent::Scored(scores) => {
                        if let Some((line, variant)) = not_finite(scores) {
                            let gates = gates.get(variant).map_or("", String::as_str);
                            failure =
                                Some(Error::Engine(format!("line {line}: the NLL under `{gates}` is not finite")));
                            return ControlFlow::Break(());
                        }
                        (0..progress.finish(scores.iter().map(|scores| scores.line)))
                            .for_each(|_| stages.finish_sample());
                        let Set { source, part } = set;
                        let row = |scores| ScoreRow { source, part, gates: gates.clone(), scores };
                        let rows = scores.iter().cloned().map(row);
                        if let Some(Err(error)) = journal.as_mut().map(|journal| journal.append(rows)) {
                            failure = Some(error);
                            return ControlFlow::Break(());
                        }
                    }
                }
                observe(stages.progress())
            });
            if let Some(error) = failure {
                return Err(error);
            }
            for scores in scored? {
                let known = known.get_mut(&(set, scores.line));
                known.ok_or_else(|| Error::Internal("scores of an unknown sample".into()))?.take(&variants, scores);
            }
        }
        Ok(())
    }

    /// Adds the layer passes of variants that are new for these samples.
    fn count_passes(&mut self, set: Set, samples: &[&Sample], variants: &[Variant]) {
        let ids: Vec<VariantId> = variants.iter().map(|variant| self.table.insert(variant)).collect();
        // Samples by the variants that are new for them, as indices.
        let mut by_new: BTreeMap<Vec<usize>, usize> = BTreeMap::new();
        for sample in samples {
            let is_new = |&index: &usize| self.counted.insert((set, ids[index], sample.line));
            *by_new.entry((0..variants.len()).filter(is_new).collect()).or_default() += 1;
        }
        for (new, samples) in by_new {
            let new: Vec<Variant> = new.into_iter().map(|index| variants[index].clone()).collect();
            for group in new.chunks(self.group()) {
                self.passes.0 += samples * self.scorer.layer_passes(group);
                self.passes.1 += samples * group.len() * self.scorer.layers();
            }
        }
    }

    /// Races all boundaries on samples, in the given order.
    pub(super) fn race(
        &mut self,
        samples: &[&Sample],
        layers: usize,
        error_rate: f64,
        observe: Observer<'_>,
    ) -> Result<Race> {
        let set = Set::data(Part::Selection);
        let mut race = Race::new(layers, samples.len(), error_rate);
        while let RaceStep::Score { samples: range, boundaries } = race.step() {
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

    /// The calls of the engine for a task: groups of variants, each on the samples that lack a score. Samples for which
    /// more than scores is computed are in separate calls.
    fn jobs(&mut self, task: Task<'_>) -> Vec<Job> {
        let Task { set, samples, variants, wanted } = task;
        let base_and_full = [0.0, 1.0].map(|strength| Variant::uniform(self.scorer.layers(), strength));
        let mut seen = HashSet::new();
        let numbered = variants.iter().map(|variant| (self.table.insert(variant), variant));
        let numbered: Vec<(VariantId, &Variant)> = numbered.filter(|(id, _)| seen.insert(*id)).collect();
        let is_shown =
            |lines: &HashSet<usize>, sample: &Sample| set.source == DataSource::Data && lines.contains(&sample.line);
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
            samples.iter().any(|sample| lacks(sample, id) || (base_and_full.contains(variant) && draws(sample)))
        };
        let mut needed: Vec<&(VariantId, &Variant)> = numbered.iter().filter(is_needed).collect();
        // Curves need the base model and the full adapter in one group.
        needed.sort_by_key(|(_, variant)| !base_and_full.contains(variant));
        let mut jobs = Vec::new();
        for group in needed.chunks(self.group()) {
            let ids: Vec<VariantId> = group.iter().map(|(id, _)| *id).collect();
            let variants: Vec<Variant> = group.iter().map(|(_, variant)| (*variant).clone()).collect();
            let index = |wanted: &Variant| variants.iter().position(|variant| variant == wanted);
            let curves: Vec<usize> = base_and_full.iter().filter_map(index).collect();
            let can_draw = curves.len() == base_and_full.len();
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

/// Counts the finished samples of a task. A sample is finished when its last job is.
struct SampleProgress {
    /// Number of unfinished jobs of each line.
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

    /// The number of samples that need no job.
    fn known(&self, samples: &[&Sample]) -> usize {
        let lines: HashSet<usize> = samples.iter().map(|sample| sample.line).collect();
        lines.iter().filter(|line| self.left.get(line) == Some(&0)).count()
    }

    /// Marks one job of each line as done. Returns the number of lines that are finished by it.
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

/// The line and the index of the variant of a score that is not finite.
fn not_finite(scores: &[SampleScores]) -> Option<(usize, usize)> {
    scores.iter().find_map(|sample| {
        let variant = sample.variants.iter().position(|score| !score.nll.is_finite())?;
        Some((sample.line, variant))
    })
}
