//! Scoring with a memory: what an earlier run left is not scored again, and what is finished is journalled at once.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use super::Progress;
use super::journal::{Known, Memory, rows};
use crate::choose::Part;
use crate::choose::race::{Race, Step};
use crate::data::Sample;
use crate::engine::{Embedded, Engine as _, Event, Request};
use crate::error::{Error, Result};
use crate::gates::Variant;
use crate::journal::Journal;

/// Told how far the work is.
type Observer<'a> = &'a mut dyn FnMut(Progress) -> ControlFlow<()>;

/// The scores of a search while they come in.
pub(super) struct Scoring<'a> {
    engine: &'a Embedded,
    journal: Journal,
    /// Lines of the samples whose curves are drawn.
    lens: HashSet<usize>,
    known: HashMap<(Part, usize), Known>,
    progress: Progress,
    /// Layers computed, summed over samples.
    pub(super) passes: usize,
    /// Samples of which an earlier run had left scores.
    pub(super) resumed: usize,
}

impl<'a> Scoring<'a> {
    /// Begins with what the journal holds of the samples.
    pub(super) fn new(
        engine: &'a Embedded,
        (mut journal, memory): (Journal, Memory),
        lens: HashSet<usize>,
        selection: &[&Sample],
        holdout: &[&Sample],
    ) -> Result<Self> {
        let samples = || {
            let selection = selection.iter().map(|&sample| (Part::Selection, sample));
            selection.chain(holdout.iter().map(|&sample| (Part::Holdout, sample)))
        };
        let known: HashMap<_, _> = samples()
            .map(|(part, sample)| ((part, sample.line), memory.known(part, sample, engine.layers())))
            .collect();
        let resumed: Vec<_> = known.iter().filter(|(_, known)| !known.scores.is_empty()).collect();
        let count = resumed.len();
        if count > 0 {
            journal.begin(resumed.into_iter().map(|((part, _), known)| known.row(*part)))?;
        }
        let progress = Progress { done: 0, total: 0, samples: 0, answers: None };
        Ok(Self { engine, journal, lens, known, progress, passes: 0, resumed: count })
    }

    /// How far it is.
    pub(super) fn progress(&self) -> Progress {
        self.progress
    }

    /// What is known of a sample.
    pub(super) fn known(&self, part: Part, sample: &Sample) -> &Known {
        &self.known[&(part, sample.line)]
    }

    /// Multiply-adds that some boundaries would still cost on some samples.
    pub(super) fn work(&self, part: Part, samples: &[&Sample], boundaries: &[usize]) -> u64 {
        self.jobs(part, samples, boundaries).iter().map(|(samples, request)| self.engine.work(samples, request)).sum()
    }

    /// Scores some boundaries on some samples, as far as they are not known; `later` is the work that will follow.
    pub(super) fn evaluate(
        &mut self,
        part: Part,
        samples: &[&Sample],
        boundaries: &[usize],
        later: u64,
        observe: Observer<'_>,
    ) -> Result<()> {
        let jobs = self.jobs(part, samples, boundaries);
        let todo: usize = jobs.iter().map(|(samples, _)| samples.len()).sum();
        let work: u64 = jobs.iter().map(|(samples, request)| self.engine.work(samples, request)).sum();
        let (passes, _) = self.engine.layer_passes(&request(self.engine.layers(), boundaries, false));
        self.passes += samples.len() * passes;
        self.progress.total = self.progress.done + work + later;
        self.progress.samples += samples.len() - todo;
        let (journal, progress) = (&mut self.journal, &mut self.progress);
        let mut finished = Vec::new();
        for (samples, request) in &jobs {
            let mut journal_error = None;
            let scored = self.engine.score(samples, request, &mut |event| {
                match event {
                    Event::Work(work) => progress.done += work,
                    Event::Scored(scores) => {
                        progress.samples += scores.len();
                        if let Err(error) = journal.append(rows(part, boundaries, scores)) {
                            journal_error = Some(error);
                            return ControlFlow::Break(());
                        }
                    }
                }
                observe(*progress)
            });
            if let Some(error) = journal_error {
                return Err(error);
            }
            finished.extend(scored?);
        }
        for scores in finished {
            let known = self.known.get_mut(&(part, scores.line));
            known.ok_or_else(|| Error::Internal("scores of an unknown sample".into()))?.take(boundaries, scores);
        }
        Ok(())
    }

    /// Races all boundaries on samples in the order given. The work of the rest is estimated from what is left in the race.
    pub(super) fn race(
        &mut self,
        samples: &[&Sample],
        holdout: &[&Sample],
        layers: usize,
        error_rate: f64,
        observe: Observer<'_>,
    ) -> Result<Race> {
        let mut race = Race::new(layers, samples.len(), error_rate);
        let before = self.progress.samples;
        while let Step::Score { samples: range, boundaries } = race.step() {
            let rest = self.work(Part::Selection, &samples[range.end..], &race.left());
            let later = rest + self.work(Part::Holdout, holdout, &[0, layers]);
            // A sample that comes by again, with other boundaries, is one sample all the same.
            self.progress.samples = before + range.start;
            let some = &samples[range.clone()];
            self.evaluate(Part::Selection, some, &boundaries, later, observe)?;
            let row = |sample: &&Sample| {
                let known = self.known(Part::Selection, sample);
                boundaries.iter().filter_map(|&k| known.mean_nll(k)).collect::<Vec<f64>>()
            };
            race.record(range, &boundaries, &some.iter().map(row).collect::<Vec<_>>());
        }
        self.progress.samples = before + samples.len();
        Ok(race)
    }

    /// What is to be scored, in one job with curves and one without.
    fn jobs(&self, part: Part, samples: &[&Sample], boundaries: &[usize]) -> Vec<(Vec<Sample>, Request)> {
        let layers = self.engine.layers();
        let draws = part == Part::Selection && boundaries.contains(&0) && boundaries.contains(&layers);
        let jobs = [true, false].map(|with_lens| {
            let is_todo = |sample: &&&Sample| {
                let known = self.known(part, sample);
                let wants_lens = draws && self.lens.contains(&sample.line);
                let is_known = boundaries.iter().all(|k| known.scores.contains_key(k));
                wants_lens == with_lens && !(is_known && (!wants_lens || !known.lens.is_empty()))
            };
            let todo: Vec<Sample> = samples.iter().filter(is_todo).map(|&sample| sample.clone()).collect();
            (todo, request(layers, boundaries, with_lens))
        });
        jobs.into_iter().filter(|(samples, _)| !samples.is_empty()).collect()
    }
}

/// Some boundaries, with curves of the first and the last of them or without.
fn request(layers: usize, boundaries: &[usize], with_lens: bool) -> Request {
    let variants = boundaries.iter().map(|&k| Variant::bottom_k(layers, k)).collect();
    Request { variants, lens: if with_lens { vec![0, boundaries.len() - 1] } else { Vec::new() } }
}
