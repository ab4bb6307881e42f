//! Progress of a search: the work done, of a total that is known before the first stage begins.
//!
//! Work is counted in multiply-adds. Every stage has an upper bound of its work, and the total is the sum of the
//! bounds. Work that a stage does not need (a race drops boundaries, a greedy family stops early, there is no cut and
//! so no controls) is credited when a later stage begins. So progress never decreases, and `done` reaches the total
//! only at the end. The total changes only if a search finds that it needs a stage that few searches need: boundaries
//! at another LoRA strength. Credited work took no time: [`Progress::spent`] excludes it, so that a speed can
//! be measured.

use std::fmt;

/// Progress of a search. Neither `done` nor `total` ever decreases, and `done` reaches `total` only at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Progress {
    /// Multiply-adds that are done, or turned out not to be needed.
    pub done: u64,
    /// Upper bound of all multiply-adds.
    pub total: u64,
    /// Multiply-adds that were computed, for measuring a speed.
    pub spent: u64,
    /// Multiply-adds per second, measured briefly before the work.
    pub rate: f64,
    /// Name of the current stage.
    pub stage: &'static str,
    /// Number of samples that are finished in this stage.
    pub samples: usize,
    /// Number of samples of this stage; 0 if they are not counted.
    pub of: usize,
    /// Number of samples that are finished and journalled, in all stages.
    pub finished: usize,
    /// While answers are generated: the number of finished answers, and of all answers.
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

/// Name of a stage, and an upper bound of its work.
pub(super) type PlannedStage = (&'static str, u64);

/// The stages of a search in their order, and the progress.
#[derive(Clone, Debug, Default)]
pub(super) struct Stages {
    planned: Vec<PlannedStage>,
    /// Number of stages that have begun.
    begun: usize,
    /// Work of the current stage that is done or credited.
    used: u64,
    progress: Progress,
}

impl Stages {
    /// Plans stages, none of which has begun. `rate` is as in [`Progress`].
    pub(super) fn new(planned: Vec<PlannedStage>, rate: f64) -> Self {
        // At least 1, so that a search without work is not done before its end.
        let total = sum(&planned).max(1);
        Self { planned, begun: 0, used: 0, progress: Progress { total, rate, ..Progress::default() } }
    }

    /// Begins the next stage of this name, and ends all stages before it. A stage that is not planned counts as part of
    /// the current one.
    pub(super) fn begin(&mut self, name: &'static str) {
        if let Some(skipped) = self.planned[self.begun..].iter().position(|(planned, _)| *planned == name) {
            self.begun += skipped + 1;
            self.used = 0;
        }
        let progress = &mut self.progress;
        (progress.stage, progress.samples, progress.of, progress.answers) = (name, 0, 0, None);
        self.update();
    }

    /// Plans a stage that could not be foreseen, after the current one.
    pub(super) fn insert(&mut self, stage: PlannedStage) {
        self.progress.total = self.progress.total.saturating_add(stage.1);
        self.planned.insert(self.begun, stage);
    }

    /// Adds work that was computed.
    pub(super) fn spend(&mut self, work: u64) {
        self.progress.spent += work;
        self.credit(work);
    }

    /// Adds work of the stage's bound that is not needed.
    pub(super) fn credit(&mut self, work: u64) {
        self.used = self.used.saturating_add(work);
        self.update();
    }

    /// Credits the stage's bound so that at most `work` is left.
    pub(super) fn need_at_most(&mut self, work: u64) {
        let bound = self.planned[..self.begun].last().map_or(0, |last| last.1);
        self.used = self.used.max(bound.saturating_sub(work));
        self.update();
    }

    /// Ends all stages.
    pub(super) fn end(&mut self) {
        self.progress.done = self.progress.total;
    }

    /// The progress so far.
    pub(super) fn progress(&self) -> Progress {
        self.progress
    }

    /// Sets the number of finished samples of this stage, and of all its samples.
    pub(super) fn count_samples(&mut self, samples: usize, of: usize) {
        (self.progress.samples, self.progress.of) = (samples, of);
    }

    /// Counts one more finished sample.
    pub(super) fn finish_sample(&mut self) {
        self.progress.samples = self.progress.of.min(self.progress.samples + 1);
        self.progress.finished += 1;
    }

    /// Sets the number of finished answers, and of all answers.
    pub(super) fn count_answers(&mut self, answers: usize, of: usize) {
        self.progress.answers = Some((answers, of));
    }

    /// Updates `done`: at most the bounds of the stages that have begun, and less than the total before the end.
    fn update(&mut self) {
        let (present, ended) =
            self.planned[..self.begun].split_last().map_or((0, 0), |(last, ended)| (last.1, sum(ended)));
        let done = ended.saturating_add(self.used.min(present));
        self.progress.done = self.progress.done.max(done.min(self.progress.total - 1));
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
        (stages.progress().done, stages.progress().total)
    }

    #[test]
    fn unneeded_work_is_credited_when_the_next_stage_begins() {
        let mut stages = stages();
        assert_eq!(done(&stages), (0, 200));
        stages.begin("choosing");
        stages.spend(30);
        assert_eq!(done(&stages), (30, 200));
        // There are no controls.
        stages.begin("judging");
        let progress = stages.progress();
        assert_eq!((done(&stages), progress.spent, progress.stage), ((160, 200), 30, "judging"));
        stages.credit(10);
        assert_eq!((done(&stages), stages.progress().spent), ((170, 200), 30));
    }

    #[test]
    fn work_that_a_stage_cannot_need_is_credited_at_once() {
        let mut stages = stages();
        stages.need_at_most(10);
        assert_eq!(done(&stages), (0, 200));
        stages.begin("choosing");
        stages.spend(30);
        stages.need_at_most(80);
        assert_eq!(done(&stages), (30, 200));
        stages.need_at_most(25);
        assert_eq!((done(&stages), stages.progress().spent), ((75, 200), 30));
    }

    #[test]
    fn a_stage_that_was_not_foreseen_is_added() {
        let mut stages = stages();
        stages.begin("choosing");
        stages.spend(100);
        stages.insert(("more", 50));
        stages.begin("more");
        stages.spend(20);
        assert_eq!(done(&stages), (120, 250));
        stages.begin("controls");
        assert_eq!(done(&stages), (150, 250));
    }

    #[test]
    fn a_stage_stays_within_its_bound() {
        let mut stages = stages();
        stages.begin("choosing");
        stages.spend(130);
        assert_eq!((done(&stages), stages.progress().spent), ((100, 200), 130));
        // A stage that is not planned changes nothing.
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
