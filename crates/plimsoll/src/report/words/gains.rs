//! Gains in words: their unit, their digits, and when they count as shown.

use plimsoll_stats::choose::{Gain, Interval, level};

use super::numbers::{Sign, estimate, p_value, plain, printable};
use crate::result::SearchResult;

/// The next number with two significant digits, for a count that is not known more precisely.
pub(super) fn round_up(value: u64) -> u64 {
    let mut unit = 1;
    while value / unit >= 100 {
        unit *= 10;
    }
    value.div_ceil(unit) * unit
}

/// `0.0123 nats per answer token (95 % interval 0.0041 to 0.0207, p = 0.003)`, with an explanation if interval and p
/// disagree.
pub(super) fn numbers(gain: &Gain, unit: &str, result: &SearchResult) -> String {
    let [value, low, high] = gain_digits(gain, Sign::Minus);
    let why = disagreement(gain, gain.p, result.rules.alpha).map_or_else(String::new, |why| format!("; {why}"));
    format!("{value} {unit} (95 % interval {low} to {high}, {}{why})", p_value(gain.p))
}

/// An explanation if an interval and a p-value, which may be adjusted for several comparisons, disagree about 0.
pub(in crate::report) fn disagreement(gain: &Gain, p: f64, alpha: f64) -> Option<String> {
    let level = level(gain.samples, alpha);
    match (gain.low > 0.0 || gain.high < 0.0, p < level) {
        (true, false) => Some(format!(
            "the bootstrap interval excludes 0, but the tests, which correct for few and skewed samples, give a p not \
             below {}",
            plain(level)
        )),
        (false, true) => {
            Some(format!("the tests give a p below {}, but the bootstrap interval includes 0", plain(level)))
        }
        _ => None,
    }
}

/// When a gain on this number of samples counts as shown.
pub(in crate::report) fn counts_as_shown(samples: usize, alpha: f64) -> String {
    format!(
        "A gain is shown if p is below {} and the interval excludes 0. The two can disagree, because only the tests \
         correct for few and skewed samples",
        plain(level(samples, alpha))
    )
}

/// Unit of the gains.
pub(in crate::report) fn unit(result: &SearchResult) -> String {
    match result.metric.as_ref().filter(|metric| metric.decided) {
        Some(metric) => format!("points of {}", printable(&metric.name)),
        None => "nats per answer token".to_owned(),
    }
}

/// A gain and the ends of its interval, with equally many decimals.
pub(in crate::report) fn gain_digits(gain: &Gain, sign: Sign) -> [String; 3] {
    let interval = Interval { value: gain.mean, low: gain.low, high: gain.high };
    estimate(&interval, 1.0, 3, sign)
}
