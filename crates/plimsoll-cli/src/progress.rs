//! Progress on stderr: a bar with the time left on a terminal, a plain line now and then elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use plimsoll::search::Progress;

/// How often a log gets a line.
const EVERY: Duration = Duration::from_secs(30);

/// Writes a line on stderr. Where stderr is closed or full, nobody is left to tell, and the exit code still counts.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A spinner with a message, for work whose length is not known.
pub(crate) fn spinner(message: impl Into<std::borrow::Cow<'static, str>>, quiet: bool) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, target(quiet));
    bar.set_style(style("{spinner} {msg}"));
    bar.set_message(message);
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// The progress of scoring.
pub(crate) struct Scoring {
    bar: ProgressBar,
    samples: usize,
    finished: usize,
    begun: Instant,
    /// When the last line was written; none where lines are not wanted.
    told: Option<Instant>,
}

impl Scoring {
    /// Begins to tell.
    pub(crate) fn new(samples: usize, quiet: bool) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), target(quiet));
        bar.set_style(style("{msg} {wide_bar:.cyan/dim} {percent:>3} %  {elapsed} elapsed, {eta} left"));
        bar.enable_steady_tick(Duration::from_millis(250));
        bar.set_message(format!("scoring {samples} samples"));
        let begun = Instant::now();
        let told = (!quiet && !std::io::stderr().is_terminal()).then_some(begun);
        if told.is_some() {
            say(&format!("plimsoll: scoring {samples} samples"));
        }
        Self { bar, samples, finished: 0, begun, told }
    }

    /// Tells how far it is.
    pub(crate) fn update(&mut self, progress: Progress) {
        self.finished = progress.samples;
        if let Some((answers, of)) = progress.answers {
            self.bar.set_length(of as u64);
            self.bar.set_position(answers as u64);
            self.bar.set_message(format!("generating: {answers} of {of} answers"));
        } else {
            self.bar.set_length(progress.total);
            self.bar.set_position(progress.done);
            self.bar.set_message(format!("scoring: {} of {} samples", progress.samples, self.samples));
        }
        if self.told.is_some_and(|told| told.elapsed() >= EVERY) {
            self.told = Some(Instant::now());
            say(&line(progress, self.samples, self.begun.elapsed()));
        }
    }

    /// Takes the bar away. Returns how many samples are finished.
    pub(crate) fn finish(self) -> usize {
        self.bar.finish_and_clear();
        self.finished
    }
}

/// The progress of a generation.
pub(crate) struct Tokens {
    bar: ProgressBar,
    answers: usize,
    finished: usize,
    tokens: usize,
    begun: Instant,
    told: Option<Instant>,
}

impl Tokens {
    /// Begins to tell.
    pub(crate) fn new(answers: usize, quiet: bool) -> Self {
        let bar = ProgressBar::with_draw_target(Some(answers as u64), target(quiet));
        bar.set_style(style("{msg} {wide_bar:.cyan/dim} {percent:>3} %  {elapsed} elapsed, {eta} left"));
        bar.enable_steady_tick(Duration::from_millis(250));
        let begun = Instant::now();
        let told = (!quiet && !std::io::stderr().is_terminal()).then_some(begun);
        let tokens = Self { bar, answers, finished: 0, tokens: 0, begun, told };
        tokens.bar.set_message(tokens.message());
        tokens
    }

    /// Some tokens of prompts and of answers were computed.
    pub(crate) fn computed(&mut self, _prompt: usize, answer: usize) {
        self.tokens += answer;
        self.bar.set_message(self.message());
        if self.told.is_some_and(|told| told.elapsed() >= EVERY) {
            self.told = Some(Instant::now());
            say(&format!("plimsoll: {}", self.message()));
        }
    }

    /// One more answer is finished.
    pub(crate) fn finished(&mut self) {
        self.finished += 1;
        self.bar.set_position(self.finished as u64);
    }

    /// Does something that writes where the bar is.
    pub(crate) fn suspend<T>(&self, work: impl FnOnce() -> T) -> T {
        self.bar.suspend(work)
    }

    /// Takes the bar away.
    pub(crate) fn finish(self) {
        self.bar.finish_and_clear();
    }

    fn message(&self) -> String {
        let rate = self.tokens as f64 / self.begun.elapsed().as_secs_f64().max(1e-3);
        format!("generating: {} of {} answers, {rate:.0} tokens/s", self.finished, self.answers)
    }
}

/// The progress of an evaluation.
pub(crate) struct Evaluating {
    bar: ProgressBar,
    begun: Instant,
    told: Option<Instant>,
}

impl Evaluating {
    /// Begins to tell.
    pub(crate) fn new(quiet: bool) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), target(quiet));
        bar.set_style(style("{msg} {wide_bar:.cyan/dim} {percent:>3} %  {elapsed} elapsed, {eta} left"));
        bar.enable_steady_tick(Duration::from_millis(250));
        let begun = Instant::now();
        Self { bar, begun, told: (!quiet && !std::io::stderr().is_terminal()).then_some(begun) }
    }

    /// Tells how far it is.
    pub(crate) fn update(&mut self, progress: plimsoll::eval::Progress) {
        use plimsoll::eval::Progress;
        let (done, total, message) = match progress {
            Progress::Scoring(done, total) => (done, total, "scoring references".to_owned()),
            Progress::Generating { answers, of, tokens } => {
                let rate = tokens as f64 / self.begun.elapsed().as_secs_f64().max(1e-3);
                (answers as u64, of as u64, format!("generating: {answers} of {of} answers, {rate:.0} tokens/s"))
            }
            Progress::Timing => (0, 0, "measuring speeds".to_owned()),
        };
        if self.bar.length() != Some(total) {
            self.bar.set_length(total);
            self.bar.reset_eta();
            self.begun = Instant::now();
        }
        self.bar.set_position(done);
        if self.told.is_some_and(|told| told.elapsed() >= EVERY) {
            self.told = Some(Instant::now());
            say(&format!("plimsoll: {message}"));
        }
        self.bar.set_message(message);
    }

    /// Takes the bar away.
    pub(crate) fn finish(self) {
        self.bar.finish_and_clear();
    }
}

/// `plimsoll: 35 %, 16 of 48 samples, about 2 minutes left`.
fn line(progress: Progress, samples: usize, elapsed: Duration) -> String {
    if let Some((answers, of)) = progress.answers {
        return format!("plimsoll: generating, {answers} of {of} answers");
    }
    let share = progress.done as f64 / progress.total.max(1) as f64;
    let seconds = elapsed.as_secs_f64() * (1.0 - share) / share;
    let left = Duration::try_from_secs_f64(seconds)
        .map_or_else(|_| String::new(), |left| format!(", about {} left", HumanDuration(left)));
    format!("plimsoll: {:.0} %, {} of {samples} samples{left}", share * 100.0, progress.samples)
}

fn target(quiet: bool) -> ProgressDrawTarget {
    if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants of this file; a mistake in one costs its looks, not the work.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_the_share_and_the_time_left() {
        let progress = |done| Progress { done, total: 100, samples: 16, answers: None };
        let minute = Duration::from_secs(60);
        assert_eq!(line(progress(25), 48, minute), "plimsoll: 25 %, 16 of 48 samples, about 3 minutes left");
        assert_eq!(line(progress(0), 48, minute), "plimsoll: 0 %, 16 of 48 samples");
    }
}
