//! Progress on stderr: a bar with the time left on a terminal, otherwise a plain line every 30 seconds.

use std::collections::VecDeque;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use plimsoll::lora::adapter::OtherBase;

/// Without a terminal: time before the first progress line, and between two lines.
const FIRST: Duration = Duration::from_secs(10);
const EVERY: Duration = Duration::from_secs(30);

/// The speed is measured over this time, with a measuring point at most every `BETWEEN`.
const RECENT: Duration = Duration::from_secs(30);
const BETWEEN: Duration = Duration::from_millis(100);

/// Shortest time over which a speed is measured.
const SHORTEST: Duration = Duration::from_secs(2);

/// Writes a line on stderr. An error is ignored: there is no other place for messages, and the exit code is kept.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Writes a prompt on stderr, without a line feed.
pub(crate) fn ask(prompt: &str) {
    let _ = write!(std::io::stderr(), "{prompt}");
}

/// Warns that the base model has another name than the one that the adapter was trained on; also with `--quiet`.
pub(crate) fn warn_of_base(other: Option<OtherBase>) {
    if let Some(other) = other {
        say(&format!("plimsoll: warning: {other}; check that this is the base model that the adapter was trained on"));
    }
}

/// A spinner with a message, for work of unknown length.
pub(crate) fn spinner(message: impl Into<std::borrow::Cow<'static, str>>, quiet: bool) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, target(quiet));
    bar.set_style(style("{spinner} {msg}"));
    bar.set_message(message);
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// A progress bar in bytes, for the download of a file.
pub(crate) fn download(name: &str, quiet: bool) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(0), target(quiet));
    bar.set_style(style("{msg} {wide_bar:.cyan/dim} {binary_bytes} of {binary_total_bytes}, {eta} left"));
    bar.set_message(name.to_owned());
    if !quiet && !std::io::stderr().is_terminal() {
        say(&format!("downloading {name}"));
    }
    bar
}

/// The speed of recent work, from which the time left is estimated.
#[derive(Debug, Default)]
struct Pace {
    /// Measuring points: time since the job began, and the work done by then.
    points: VecDeque<(Duration, u64)>,
    /// Work per second until a speed is measured; 0 if unknown.
    assumed: f64,
}

impl Pace {
    /// Adds a measuring point: the work `done` by `now`.
    fn record(&mut self, now: Duration, done: u64) {
        if self.points.back().is_some_and(|(last, _)| now < *last + BETWEEN) {
            return;
        }
        self.points.push_back((now, done));
        while self.points.get(1).is_some_and(|(second, _)| *second + RECENT <= now) {
            self.points.pop_front();
        }
    }

    /// The estimated time for an amount of work; `None` if the speed is unknown.
    fn left(&self, work: u64) -> Option<Duration> {
        let measured = self.points.front().zip(self.points.back()).and_then(|((from, before), (to, after))| {
            let is_enough = *to >= *from + SHORTEST && after > before;
            is_enough.then(|| (after - before) as f64 / (*to - *from).as_secs_f64())
        });
        let rate = measured.unwrap_or(self.assumed);
        Duration::try_from_secs_f64(work as f64 / rate).ok()
    }
}

/// Whether the total work of a job is exact or an upper bound.
#[derive(Clone, Copy, Debug)]
enum Total {
    /// The exact amount.
    Exact,
    /// An upper bound.
    Bound,
}

/// The progress display of a long job: a bar on a terminal, otherwise lines.
struct Meter {
    bar: ProgressBar,
    total: Total,
    begun: Instant,
    pace: Pace,
    /// When the next line is due; `None` if no lines are printed.
    due: Option<Instant>,
}

impl Meter {
    fn new(total: Total, quiet: bool) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), target(quiet));
        bar.set_style(style("{msg} {wide_bar:.cyan/dim} {prefix}, {elapsed} elapsed"));
        bar.enable_steady_tick(Duration::from_millis(250));
        let begun = Instant::now();
        let due = (!quiet && !std::io::stderr().is_terminal()).then_some(begun + FIRST);
        Self { bar, total, begun, pace: Pace::default(), due }
    }

    /// Restarts the measurement of speed: a new phase of the job has another speed.
    fn begin(&mut self) {
        self.begun = Instant::now();
        self.pace = Pace::default();
        self.due = self.due.map(|_| self.begun + FIRST);
    }

    /// Shows that `done` of `total` work is done, with a message. `spent` is the part of `done` that took time.
    fn report(&mut self, done: u64, total: u64, spent: u64, message: String) {
        self.pace.record(self.begun.elapsed(), spent);
        let left = self.pace.left(total.saturating_sub(done)).filter(|_| done < total);
        let share = share(done, total, left.map(|left| about(left, self.total)));
        let now = Instant::now();
        if self.due.is_some_and(|due| due <= now) {
            self.due = Some(now + EVERY);
            say(&line(&message, &share));
        }
        self.bar.set_length(total);
        self.bar.set_position(done);
        self.bar.set_prefix(share);
        self.bar.set_message(message);
    }

    /// `count` per second since the phase began.
    fn rate(&self, count: usize) -> f64 {
        count as f64 / self.begun.elapsed().as_secs_f64().max(1e-3)
    }
}

/// The progress display of a search.
pub(crate) struct Scoring {
    meter: Meter,
    samples: usize,
    quiet: bool,
    finished: usize,
    is_begun: bool,
}

impl Scoring {
    /// Starts the display.
    pub(crate) fn new(samples: usize, quiet: bool) -> Self {
        let meter = Meter::new(Total::Bound, quiet);
        meter.bar.set_message(format!("scoring {samples} samples"));
        Self { meter, samples, quiet, finished: 0, is_begun: false }
    }

    /// Shows a report of the search.
    pub(crate) fn update(&mut self, progress: plimsoll::search::Progress) {
        let plimsoll::search::Progress { done, total, spent, .. } = progress;
        self.finished = progress.finished;
        if !std::mem::replace(&mut self.is_begun, true) {
            self.meter.begin();
            self.meter.pace.assumed = progress.rate;
            if !self.quiet {
                let estimate = estimate(self.samples, self.meter.pace.left(total - done));
                self.meter.bar.suspend(|| say(&estimate));
            }
        }
        let message = match (progress.answers, progress.of) {
            (Some((answers, of)), _) => format!("generating: {answers} of {of} answers"),
            (None, 0) => progress.stage.to_owned(),
            (None, of) => format!("{}: {} of {of} samples", progress.stage, progress.samples),
        };
        self.meter.report(done, total, spent, message);
    }

    /// Removes the bar. Returns how many samples are finished.
    pub(crate) fn finish(self) -> usize {
        self.meter.bar.finish_and_clear();
        self.finished
    }
}

/// The progress display of a generation.
pub(crate) struct Tokens {
    meter: Meter,
    answers: usize,
    finished: usize,
    tokens: usize,
}

impl Tokens {
    /// Starts the display.
    pub(crate) fn new(answers: usize, quiet: bool) -> Self {
        Self { meter: Meter::new(Total::Exact, quiet), answers, finished: 0, tokens: 0 }
    }

    /// Counts tokens that were generated.
    pub(crate) fn picked(&mut self, tokens: usize) {
        self.tokens += tokens;
        let message = generating(self.finished, self.answers, self.meter.rate(self.tokens));
        self.meter.report(self.finished as u64, self.answers as u64, self.finished as u64, message);
    }

    /// Counts a finished answer.
    pub(crate) fn finished(&mut self) {
        self.finished += 1;
    }

    /// Runs work that writes to the terminal, with the bar hidden.
    pub(crate) fn suspend<T>(&self, work: impl FnOnce() -> T) -> T {
        self.meter.bar.suspend(work)
    }

    /// Removes the bar.
    pub(crate) fn finish(self) {
        self.meter.bar.finish_and_clear();
    }
}

/// The progress display of an evaluation.
pub(crate) struct Evaluating {
    meter: Meter,
    phase: Option<std::mem::Discriminant<plimsoll::eval::EvalProgress>>,
}

impl Evaluating {
    /// Starts the display.
    pub(crate) fn new(quiet: bool) -> Self {
        Self { meter: Meter::new(Total::Exact, quiet), phase: None }
    }

    /// Shows a report of the evaluation.
    pub(crate) fn update(&mut self, progress: plimsoll::eval::EvalProgress) {
        use plimsoll::eval::EvalProgress;
        let phase = Some(std::mem::discriminant(&progress));
        if self.phase != phase {
            self.phase = phase;
            self.meter.begin();
        }
        match progress {
            EvalProgress::Scoring(done, total) => self.meter.report(done, total, done, "scoring references".to_owned()),
            EvalProgress::Generating { answers, of, tokens } => {
                let message = generating(answers, of, self.meter.rate(tokens));
                self.meter.report(answers as u64, of as u64, answers as u64, message);
            }
            EvalProgress::Timing => self.meter.report(0, 0, 0, "measuring speeds".to_owned()),
        }
    }

    /// Removes the bar.
    pub(crate) fn finish(self) {
        self.meter.bar.finish_and_clear();
    }
}

fn generating(answers: usize, of: usize, rate: f64) -> String {
    format!("generating: {answers} of {of} answers, {rate:.0} tokens/s")
}

/// `plimsoll: scoring 48 samples, at most about 4 minutes`.
fn estimate(samples: usize, left: Option<Duration>) -> String {
    let time = left.map_or_else(String::new, |left| format!(", {}", about(left, Total::Bound)));
    format!("plimsoll: scoring {samples} sample{}{time}", if samples == 1 { "" } else { "s" })
}

/// `plimsoll: choosing: 16 of 48 samples (35 %, at most about 2 minutes left)`.
fn line(message: &str, share: &str) -> String {
    if share.is_empty() { format!("plimsoll: {message}") } else { format!("plimsoll: {message} ({share})") }
}

/// `35 %, about 2 minutes left`. Never 100 % while any work is left.
fn share(done: u64, total: u64, left: Option<String>) -> String {
    if total == 0 {
        return String::new();
    }
    let percent = u128::from(done) * 100 / u128::from(total);
    format!("{percent} %{}", left.map_or_else(String::new, |left| format!(", {left} left")))
}

/// `about 2 minutes`: the measured speed is approximate.
fn about(time: Duration, total: Total) -> String {
    let time = HumanDuration(time.max(Duration::from_secs(1)));
    match total {
        Total::Exact => format!("about {time}"),
        Total::Bound => format!("at most about {time}"),
    }
}

fn target(quiet: bool) -> ProgressDrawTarget {
    if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants of this file. With a mistake in one, the default style is used.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line_of(done: u64, total: u64, seconds: Option<u64>) -> String {
        line("choosing", &share(done, total, seconds.map(|seconds| about(Duration::from_secs(seconds), Total::Bound))))
    }

    #[test]
    fn a_line_has_the_share_and_the_time_left() {
        assert_eq!(line_of(25, 100, Some(180)), "plimsoll: choosing (25 %, at most about 3 minutes left)");
        assert_eq!(line_of(0, 100, None), "plimsoll: choosing (0 %)");
        assert_eq!(line_of(0, 0, None), "plimsoll: choosing");
        assert_eq!(line_of(100, 100, None), "plimsoll: choosing (100 %)");
        assert_eq!(about(Duration::from_secs(180), Total::Exact), "about 3 minutes");
    }

    #[test]
    fn the_first_line_is_due_from_the_beginning_of_the_work() {
        let mut meter = Meter::new(Total::Exact, true);
        meter.begin();
        assert_eq!(meter.due, None);
        // The phase before took longer than `FIRST`.
        meter.due = Some(meter.begun);
        meter.begin();
        assert_eq!(meter.due, Some(meter.begun + FIRST));
    }

    #[test]
    fn nothing_is_100_percent_while_work_is_left() {
        assert_eq!(line_of(999_999, 1_000_000, Some(0)), "plimsoll: choosing (99 %, at most about 1 second left)");
        assert_eq!(line_of(u64::MAX - 1, u64::MAX, None), "plimsoll: choosing (99 %)");
    }

    #[test]
    fn the_estimate_comes_with_the_number_of_samples() {
        assert_eq!(
            estimate(24, Some(Duration::from_secs(240))),
            "plimsoll: scoring 24 samples, at most about 4 minutes"
        );
        assert_eq!(estimate(1, None), "plimsoll: scoring 1 sample");
    }

    #[test]
    fn the_time_left_follows_from_recent_work() {
        let seconds = |seconds: f64| Duration::from_secs_f64(seconds);
        let mut pace = Pace { assumed: 50.0, ..Pace::default() };
        // The assumed speed is used until there is enough to measure.
        assert_eq!(pace.left(500), Some(seconds(10.0)));
        for second in 0..=60 {
            pace.record(Duration::from_secs(second), second * 100);
        }
        assert_eq!(pace.left(500), Some(seconds(5.0)));
        // The next stage is ten times slower: after half a minute only its speed counts.
        for second in 61..=91 {
            pace.record(Duration::from_secs(second), 6_000 + (second - 60) * 10);
        }
        assert_eq!(pace.left(500), Some(seconds(50.0)));
        assert!(pace.points.len() <= 32);
        // Without a speed there is no estimate.
        assert_eq!(Pace::default().left(1), None);
    }
}
