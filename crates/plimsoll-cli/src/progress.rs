//! Progress on stderr: a bar with the time left on a terminal, a plain line now and then elsewhere.

use std::collections::VecDeque;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use plimsoll::lora::adapter::OtherBase;

/// A log gets its first line after this, and then one every so often.
const FIRST: Duration = Duration::from_secs(10);
const EVERY: Duration = Duration::from_secs(30);

/// Speed is that of so much of the recent past, looked at so often.
const RECENT: Duration = Duration::from_secs(30);
const BETWEEN: Duration = Duration::from_millis(100);

/// A speed that was measured over less than this is no speed.
const SHORTEST: Duration = Duration::from_secs(2);

/// Writes a line on stderr. Where stderr is closed or full, nobody is left to tell, and the exit code still counts.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Writes on stderr what is to be typed behind.
pub(crate) fn ask(prompt: &str) {
    let _ = write!(std::io::stderr(), "{prompt}");
}

/// Says that the base model has another name than the adapter's, where it has; also where progress is not wanted.
pub(crate) fn warn_of_base(other: Option<OtherBase>) {
    if let Some(other) = other {
        say(&format!("plimsoll: warning: {other}; check that this is the base model of its training"));
    }
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

/// The speed of recent work, for the time left.
#[derive(Debug, Default)]
struct Pace {
    /// What was done by when, since the job began.
    points: VecDeque<(Duration, u64)>,
    /// Work a second before anything was measured; 0 where nothing is known.
    assumed: f64,
}

impl Pace {
    /// So much is done by now.
    fn record(&mut self, now: Duration, done: u64) {
        if self.points.back().is_some_and(|(last, _)| now < *last + BETWEEN) {
            return;
        }
        self.points.push_back((now, done));
        while self.points.get(1).is_some_and(|(second, _)| *second + RECENT <= now) {
            self.points.pop_front();
        }
    }

    /// How long so much work will take.
    fn left(&self, work: u64) -> Option<Duration> {
        let measured = self.points.front().zip(self.points.back()).and_then(|((from, before), (to, after))| {
            let is_enough = *to >= *from + SHORTEST && after > before;
            is_enough.then(|| (after - before) as f64 / (*to - *from).as_secs_f64())
        });
        let rate = measured.unwrap_or(self.assumed);
        Duration::try_from_secs_f64(work as f64 / rate).ok()
    }
}

/// What is known of the work in all.
#[derive(Clone, Copy, Debug)]
enum Total {
    /// How much it is.
    Exact,
    /// That it is no more.
    Bound,
}

/// How far a long job is: a bar on a terminal, lines elsewhere.
struct Meter {
    bar: ProgressBar,
    total: Total,
    begun: Instant,
    pace: Pace,
    /// When the next line is due; none where lines are not wanted.
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

    /// Begins to count anew: what went before says nothing of the time that is left.
    fn begin(&mut self) {
        self.begun = Instant::now();
        self.pace = Pace::default();
        self.due = self.due.map(|_| self.begun + FIRST);
    }

    /// So much of so much is done, and this is what is being done; `spent` is the work that took time.
    fn tell(&mut self, done: u64, total: u64, spent: u64, message: String) {
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

    /// So many a second since the phase began.
    fn rate(&self, count: usize) -> f64 {
        count as f64 / self.begun.elapsed().as_secs_f64().max(1e-3)
    }
}

/// The progress of a search.
pub(crate) struct Scoring {
    meter: Meter,
    samples: usize,
    quiet: bool,
    finished: usize,
    is_begun: bool,
}

impl Scoring {
    /// Begins to tell.
    pub(crate) fn new(samples: usize, quiet: bool) -> Self {
        let meter = Meter::new(Total::Bound, quiet);
        meter.bar.set_message(format!("scoring {samples} samples"));
        Self { meter, samples, quiet, finished: 0, is_begun: false }
    }

    /// Tells how far it is.
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
        self.meter.tell(done, total, spent, message);
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
        Self { meter: Meter::new(Total::Exact, quiet), answers, finished: 0, tokens: 0 }
    }

    /// Some tokens of answers were picked.
    pub(crate) fn picked(&mut self, tokens: usize) {
        self.tokens += tokens;
        let message = generating(self.finished, self.answers, self.meter.rate(self.tokens));
        self.meter.tell(self.finished as u64, self.answers as u64, self.finished as u64, message);
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
        Self { meter: Meter::new(Total::Exact, quiet), phase: None }
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
            Progress::Scoring(done, total) => self.meter.tell(done, total, done, "scoring references".to_owned()),
            Progress::Generating { answers, of, tokens } => {
                let message = generating(answers, of, self.meter.rate(tokens));
                self.meter.tell(answers as u64, of as u64, answers as u64, message);
            }
            Progress::Timing => self.meter.tell(0, 0, 0, "measuring speeds".to_owned()),
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

/// `about 2 minutes`: what is measured of speed is rough.
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
    // The templates are constants of this file; a mistake in one costs its looks, not the work.
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
        // What went before took longer than `FIRST`.
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
        // What was assumed counts until there is enough to measure.
        assert_eq!(pace.left(500), Some(seconds(10.0)));
        for second in 0..=60 {
            pace.record(Duration::from_secs(second), second * 100);
        }
        assert_eq!(pace.left(500), Some(seconds(5.0)));
        // The next stage is slower by ten: after half a minute nothing else counts.
        for second in 61..=91 {
            pace.record(Duration::from_secs(second), 6_000 + (second - 60) * 10);
        }
        assert_eq!(pace.left(500), Some(seconds(50.0)));
        assert!(pace.points.len() <= 32);
        // Nothing is known, and nothing is said.
        assert_eq!(Pace::default().left(1), None);
    }
}
