//! How far a search is: one total that is known before the first stage begins.
//!
//! Work is counted in multiply-adds. Every stage has an upper bound of its work, and the total is the sum of the bounds. What
//! a stage does not need of its bound (a race drops boundaries, a greedy family stops early, nothing is cut and there are no
//! controls) is credited when a later stage begins. So progress never goes back, the total never changes, and all of it is
//! done only at the end. Credited work took no time: [`Progress::spent`] leaves it out, so that a speed can be measured.

use std::fmt;

/// How far scoring is. `done` never goes back, `total` is known from the first report on and never changes, and `done` reaches
/// it only at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Progress {
    /// Multiply-adds that are done, or that were planned and turned out not to be needed.
    pub done: u64,
    /// Multiply-adds in all: an upper bound.
    pub total: u64,
    /// Multiply-adds that were computed, for a speed.
    pub spent: u64,
    /// Multiply-adds a second, measured for a moment before the work.
    pub rate: f64,
    /// What is being done.
    pub stage: &'static str,
    /// Samples that are finished in this stage, of how many.
    pub samples: usize,
    /// How many there are.
    pub of: usize,
    /// Samples that were finished in all stages and are journalled.
    pub finished: usize,
    /// While answers are generated: how many there are, of how many.
    pub answers: Option<(usize, usize)>,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stage, samples, of, answers, .. } = *self;
        match answers {
            Some((answers, of)) => write!(f, "{stage}: {answers} of {of} answers")?,
            None if of > 0 => write!(f, "{stage}: {samples} of {of} samples")?,
            None => f.write_str(if stage.is_empty() { "planning" } else { stage })?,
        }
        write!(f, " ({:.0} %)", 100.0 * self.done as f64 / self.total.max(1) as f64)
    }
}

/// A stage of a search, and an upper bound of its work.
pub(super) type PlannedStage = (&'static str, u64);

/// The stages of a search, in their order, and how far it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Stages {
    planned: Vec<PlannedStage>,
    /// How many of them have begun.
    begun: usize,
    /// What is done or credited of the last of these.
    used: u64,
    at: Progress,
}

impl Stages {
    /// Of these stages, none of which has begun; `rate` is as in [`Progress`].
    pub(super) fn new(planned: Vec<PlannedStage>, rate: f64) -> Self {
        // A search in which nothing is left to compute is not done before its end either.
        let total = sum(&planned).max(1);
        Self { planned, begun: 0, used: 0, at: Progress { total, rate, ..Progress::default() } }
    }

    /// Begins the next stage of this name: those before it have ended. A stage that was not planned is part of the last one.
    pub(super) fn begin(&mut self, name: &'static str) {
        if let Some(skipped) = self.planned[self.begun..].iter().position(|(planned, _)| *planned == name) {
            self.begun += skipped + 1;
            self.used = 0;
        }
        (self.at.stage, self.at.samples, self.at.of, self.at.answers) = (name, 0, 0, None);
        self.update();
    }

    /// So much more of the stage is done.
    pub(super) fn spend(&mut self, work: u64) {
        self.at.spent += work;
        self.credit(work);
    }

    /// So much more of the stage's bound is not needed.
    pub(super) fn credit(&mut self, work: u64) {
        self.used = self.used.saturating_add(work);
        self.update();
    }

    /// The stage needs no more than this from here on.
    pub(super) fn need_at_most(&mut self, work: u64) {
        let bound = self.planned[..self.begun].last().map_or(0, |last| last.1);
        self.used = self.used.max(bound.saturating_sub(work));
        self.update();
    }

    /// All stages have ended.
    pub(super) fn end(&mut self) {
        self.at.done = self.at.total;
    }

    /// How far it is.
    pub(super) fn at(&self) -> Progress {
        self.at
    }

    /// So many samples of so many are finished in this stage.
    pub(super) fn count_samples(&mut self, samples: usize, of: usize) {
        (self.at.samples, self.at.of) = (samples, of);
    }

    /// One more sample is finished, and journalled.
    pub(super) fn finish_sample(&mut self) {
        self.at.samples = self.at.of.min(self.at.samples + 1);
        self.at.finished += 1;
    }

    /// So many answers of so many are generated.
    pub(super) fn count_answers(&mut self, answers: usize, of: usize) {
        self.at.answers = Some((answers, of));
    }

    /// What is done: never more than the bounds of what has begun, and never all before the end.
    fn update(&mut self) {
        let (present, ended) =
            self.planned[..self.begun].split_last().map_or((0, 0), |(last, ended)| (last.1, sum(ended)));
        let done = ended.saturating_add(self.used.min(present));
        self.at.done = self.at.done.max(done.min(self.at.total - 1));
    }
}

fn sum(planned: &[PlannedStage]) -> u64 {
    planned.iter().fold(0, |sum, (_, work)| sum.saturating_add(*work))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stages() -> Stages {
        Stages::new(vec![("choosing", 100), ("controls", 60), ("judging", 40)], 1.0)
    }

    fn done(stages: &Stages) -> (u64, u64) {
        (stages.at().done, stages.at().total)
    }

    #[test]
    fn what_a_stage_does_not_need_is_credited_when_the_next_begins() {
        let mut stages = stages();
        assert_eq!(done(&stages), (0, 200));
        stages.begin("choosing");
        stages.spend(30);
        assert_eq!(done(&stages), (30, 200));
        // There are no controls.
        stages.begin("judging");
        assert_eq!((done(&stages), stages.at().spent, stages.at().stage), ((160, 200), 30, "judging"));
        stages.credit(10);
        assert_eq!((done(&stages), stages.at().spent), ((170, 200), 30));
    }

    #[test]
    fn what_a_stage_cannot_need_any_more_is_credited_at_once() {
        let mut stages = stages();
        stages.need_at_most(10);
        assert_eq!(done(&stages), (0, 200));
        stages.begin("choosing");
        stages.spend(30);
        stages.need_at_most(80);
        assert_eq!(done(&stages), (30, 200));
        stages.need_at_most(25);
        assert_eq!((done(&stages), stages.at().spent), ((75, 200), 30));
    }

    #[test]
    fn a_stage_stays_within_its_bound() {
        let mut stages = stages();
        stages.begin("choosing");
        stages.spend(130);
        assert_eq!((done(&stages), stages.at().spent), ((100, 200), 130));
        // What was not planned changes nothing.
        stages.begin("something else");
        stages.spend(u64::MAX - 130);
        assert_eq!(done(&stages), (100, 200));
        stages.begin("controls");
        assert_eq!(done(&stages), (100, 200));
    }

    #[test]
    fn all_is_done_only_at_the_end() {
        let mut all = stages();
        all.begin("judging");
        all.spend(40);
        assert_eq!(done(&all), (199, 200));
        all.end();
        assert_eq!(done(&all), (200, 200));
        let mut nothing = Stages::new(Vec::new(), 1.0);
        nothing.begin("choosing");
        assert_eq!(done(&nothing), (0, 1));
        nothing.end();
        assert_eq!(done(&nothing), (1, 1));
    }

    #[test]
    fn stages_of_one_name_follow_each_other() {
        let mut stages = Stages::new(vec![("answers", 10), ("judging", 10), ("answers", 10)], 1.0);
        stages.begin("answers");
        stages.begin("judging");
        stages.begin("answers");
        assert_eq!(done(&stages), (20, 30));
    }
}
