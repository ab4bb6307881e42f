//! Progress on stderr: a bar with the time left on a terminal, a plain line now and then elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a log gets a line.
const EVERY: Duration = Duration::from_secs(30);

/// Writes a line on stderr. Where stderr is closed or full, nobody is left to tell, and the exit code still counts.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Writes on stderr what is to be typed behind.
pub(crate) fn ask(prompt: &str) {
    let _ = write!(std::io::stderr(), "{prompt}");
}

/// A spinner with a message, for work whose length is not known.
pub(crate) fn spinner(message: impl Into<std::borrow::Cow<'static, str>>, quiet: bool) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, target(quiet));
    bar.set_style(style("{spinner} {msg}"));
    bar.set_message(message);
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// A bar that counts the bytes of a file.
pub(crate) fn download(name: &str, quiet: bool) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(0), target(quiet));
    bar.set_style(style("{msg} {wide_bar:.cyan/dim} {binary_bytes} of {binary_total_bytes}, {eta} left"));
    bar.set_message(name.to_owned());
    if !quiet && !std::io::stderr().is_terminal() {
        say(&format!("downloading {name}"));
    }
    bar
}

/// How far a long job is: a bar on a terminal, lines elsewhere.
struct Meter {
    bar: ProgressBar,
    /// Of the phase.
    begun: Instant,
    /// When the last line was written; none where lines are not wanted.
    told: Option<Instant>,
}

impl Meter {
    fn new(quiet: bool) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), target(quiet));
        bar.set_style(style("{msg} {wide_bar:.cyan/dim} {percent:>3} %  {elapsed} elapsed, {eta} left"));
        bar.enable_steady_tick(Duration::from_millis(250));
        let begun = Instant::now();
        Self { bar, begun, told: (!quiet && !std::io::stderr().is_terminal()).then_some(begun) }
    }

    /// Begins to count anew: what went before says nothing of the time that is left.
    fn begin(&mut self) {
        self.bar.reset_eta();
        self.begun = Instant::now();
    }

    /// So much of so much is done, and this is what is being done.
    fn tell(&mut self, done: u64, total: u64, message: String) {
        self.bar.set_length(total);
        self.bar.set_position(done);
        if self.told.is_some_and(|told| told.elapsed() >= EVERY) {
            self.told = Some(Instant::now());
            say(&line(done, total, &message, self.begun.elapsed()));
        }
        self.bar.set_message(message);
    }

    /// So many a second since the phase began.
    fn rate(&self, count: usize) -> f64 {
        count as f64 / self.begun.elapsed().as_secs_f64().max(1e-3)
    }
}

/// The progress of a search.
pub(crate) struct Scoring {
    meter: Meter,
    finished: usize,
    answers: bool,
}

impl Scoring {
    /// Begins to tell.
    pub(crate) fn new(samples: usize, quiet: bool) -> Self {
        let meter = Meter::new(quiet);
        meter.bar.set_message(format!("scoring {samples} samples"));
        if meter.told.is_some() {
            say(&format!("plimsoll: scoring {samples} samples"));
        }
        Self { meter, finished: 0, answers: false }
    }

    /// Tells how far it is.
    pub(crate) fn update(&mut self, progress: plimsoll::search::Progress) {
        self.finished = progress.finished;
        if self.answers != progress.answers.is_some() {
            self.answers = progress.answers.is_some();
            self.meter.begin();
        }
        match progress.answers {
            Some((answers, of)) => {
                self.meter.tell(answers as u64, of as u64, format!("generating: {answers} of {of} answers"));
            }
            None => {
                let message = match progress.of {
                    0 => progress.stage.to_owned(),
                    of => format!("{}: {} of {of} samples", progress.stage, progress.samples),
                };
                self.meter.tell(progress.done, progress.total, message);
            }
        }
    }

    /// Takes the bar away. Returns how many samples are finished.
    pub(crate) fn finish(self) -> usize {
        self.meter.bar.finish_and_clear();
        self.finished
    }
}

/// The progress of a generation.
pub(crate) struct Tokens {
    meter: Meter,
    answers: usize,
    finished: usize,
    tokens: usize,
}

impl Tokens {
    /// Begins to tell.
    pub(crate) fn new(answers: usize, quiet: bool) -> Self {
        Self { meter: Meter::new(quiet), answers, finished: 0, tokens: 0 }
    }

    /// Some tokens of answers were picked.
    pub(crate) fn picked(&mut self, tokens: usize) {
        self.tokens += tokens;
        let message = generating(self.finished, self.answers, self.meter.rate(self.tokens));
        self.meter.tell(self.finished as u64, self.answers as u64, message);
    }

    /// One more answer is finished.
    pub(crate) fn finished(&mut self) {
        self.finished += 1;
    }

    /// Does something that writes where the bar is.
    pub(crate) fn suspend<T>(&self, work: impl FnOnce() -> T) -> T {
        self.meter.bar.suspend(work)
    }

    /// Takes the bar away.
    pub(crate) fn finish(self) {
        self.meter.bar.finish_and_clear();
    }
}

/// The progress of an evaluation.
pub(crate) struct Evaluating {
    meter: Meter,
    phase: Option<std::mem::Discriminant<plimsoll::eval::Progress>>,
}

impl Evaluating {
    /// Begins to tell.
    pub(crate) fn new(quiet: bool) -> Self {
        Self { meter: Meter::new(quiet), phase: None }
    }

    /// Tells how far it is.
    pub(crate) fn update(&mut self, progress: plimsoll::eval::Progress) {
        use plimsoll::eval::Progress;
        let phase = Some(std::mem::discriminant(&progress));
        if self.phase != phase {
            self.phase = phase;
            self.meter.begin();
        }
        match progress {
            Progress::Scoring(done, total) => self.meter.tell(done, total, "scoring references".to_owned()),
            Progress::Generating { answers, of, tokens } => {
                let message = generating(answers, of, self.meter.rate(tokens));
                self.meter.tell(answers as u64, of as u64, message);
            }
            Progress::Timing => self.meter.tell(0, 0, "measuring speeds".to_owned()),
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(self) {
        self.meter.bar.finish_and_clear();
    }
}

fn generating(answers: usize, of: usize, rate: f64) -> String {
    format!("generating: {answers} of {of} answers, {rate:.0} tokens/s")
}

/// `plimsoll: scoring: 16 of 48 samples (35 %), about 2 minutes left`.
fn line(done: u64, total: u64, message: &str, elapsed: Duration) -> String {
    if total == 0 {
        return format!("plimsoll: {message}");
    }
    let share = done as f64 / total as f64;
    if done >= total {
        // What follows may be long, and its work is not known yet.
        return format!("plimsoll: {message} (100 %)");
    }
    let seconds = elapsed.as_secs_f64() * (1.0 - share) / share;
    let left = Duration::try_from_secs_f64(seconds)
        .map_or_else(|_| String::new(), |left| format!(", about {} left", HumanDuration(left)));
    format!("plimsoll: {message} ({:.0} %){left}", share * 100.0)
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
        let line = |done, total| line(done, total, "scoring", Duration::from_secs(60));
        assert_eq!(line(25, 100), "plimsoll: scoring (25 %), about 3 minutes left");
        assert_eq!(line(0, 100), "plimsoll: scoring (0 %)");
        assert_eq!(line(0, 0), "plimsoll: scoring");
        assert_eq!(line(100, 100), "plimsoll: scoring (100 %)");
    }
}
