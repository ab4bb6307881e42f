//! Numbers and sentences, the same in the terminal and on the page.
//!
//! Estimates are rounded by their interval: more digits than the uncertainty supports would claim what was not
//! measured. What is not finite is written as `–`, never as a number.

use plimsoll_stats::choose::{Gain, Interval, Power, Reason, Validation, Verdict, fewest_to_show, level};

use super::beyond;
use crate::result::{Candidate, RaceSummary, SearchResult, Warning};

/// What stands for a number that is not there.
pub(super) const NONE: &str = "–";

/// The answer in a few plain sentences: what to do, and what was tested to say so.
pub fn sentence(result: &SearchResult) -> String {
    let Answer { headline, grounds } = answer(result);
    format!("{headline} {grounds}")
}

/// The answer, its first sentence apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// What to do.
    pub(super) headline: String,
    /// What was tested, on how many samples, and what came out.
    pub(super) grounds: String,
}

/// Says what to do and why.
pub(super) fn answer(result: &SearchResult) -> Answer {
    let choice = &result.choice;
    let layers = result.model.layers;
    let headline = match choice.verdict {
        Verdict::Trim => match beyond(result) {
            None => format!("Trim: keep LoRA in {}.", layers_kept(choice.layers_kept, layers)),
            Some(candidate) if candidate.bytes < result.adapter.bytes => format!("Trim: {}.", beyond_words(candidate)),
            Some(candidate) => format!("Change its strengths: {}.", beyond_words(candidate)),
        },
        Verdict::KeepFull if choice.abstains => "Keep the full adapter: the samples do not settle it.".to_owned(),
        Verdict::KeepFull => "Keep the full adapter.".to_owned(),
        Verdict::UseBase => "Use the base model, without the adapter.".to_owned(),
    };
    let headline = match gain_of_adapter(result) {
        Some(finding) => format!("{finding} {headline}"),
        None => headline,
    };
    Answer { headline, grounds: grounds(result) }
}

/// That the adapter as a whole gains nothing, where it does not: nothing else of the answer matters as much.
fn gain_of_adapter(result: &SearchResult) -> Option<&'static str> {
    let gain = &result.choice.adapter_gain;
    let is_shown = gain.mean > 0.0 && gain.low > 0.0 && gain.p < level(gain.samples, result.rules.alpha);
    Some(match result.choice.reason {
        _ if is_worse(gain, result) => "The full adapter is worse than the base model.",
        _ if [gain.mean, gain.low, gain.high] == [0.0; 3] => "The full adapter gains nothing over the base model.",
        Reason::AdapterNotBetter => "The full adapter gains too little over the base model to matter.",
        _ if !is_shown => "The full adapter is not shown to gain anything over the base model.",
        _ => return None,
    })
}

/// The share of the adapter's gain that the candidate retains.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Retained {
    /// That share.
    Share(Interval),
    /// The adapter's own gain is too small, or too uncertain, to take shares of: only the lower end means something.
    GainTooSmall {
        /// The lower end of the share's interval.
        low: f64,
    },
}

impl Retained {
    /// The share of this gain of the adapter, where there is one.
    pub(super) fn of(share: Option<Interval>, adapter_gain: &Gain) -> Option<Self> {
        let share = share?;
        let low = share.low;
        Some(if adapter_gain.has_shares() { Self::Share(share) } else { Self::GainTooSmall { low } })
    }
}

/// What stands in place of a share of the adapter's gain where that gain is too small to take shares of.
pub(super) const NO_SHARE: &str = "the adapter's gain is too small and uncertain to take shares of";

fn grounds(result: &SearchResult) -> String {
    let SearchResult { choice, rules, data, .. } = result;
    let layers = result.model.layers;
    let on = match choice.validation {
        Validation::Holdout => format!("On {}", counted(choice.gain.samples, "held-out sample")),
        Validation::Nested { folds } => {
            format!("On {}, each held out in turn ({folds} folds),", counted(choice.gain.samples, "sample"))
        }
    };
    let unit = unit(result);
    let numbers = |gain: &Gain| numbers(gain, &unit, result);
    let gain = numbers(&choice.gain);
    let retained = |before: &str, note: &str| match Retained::of(choice.retained, &choice.adapter_gain) {
        None => String::new(),
        Some(Retained::Share(share)) => {
            let [value, low, high] = estimate(&share, 100.0, 2, Sign::Minus);
            let interval = format!("95 % interval {low} to {high} %{note}");
            format!("{before} it retains {value} % of the adapter's gain over the base model ({interval})")
        }
        Some(Retained::GainTooSmall { low }) if !note.is_empty() => {
            let low = percent(low);
            format!(
                "{before} it retains {low} of the adapter's gain over the base model or more (95 % interval{note}; {NO_SHARE})"
            )
        }
        Some(Retained::GainTooSmall { .. }) => format!("{before} {NO_SHARE}"),
    };
    let candidate = match beyond(result) {
        None => format!("LoRA in {}", layers_kept(choice.one_se, layers)),
        Some(candidate) => beyond_words(candidate),
    };
    match choice.reason {
        Reason::Better => {
            format!("{on} the cut is better than the full adapter by {gain}{}.", retained(";", ""))
        }
        Reason::NotWorse => {
            let retained = match rules.margin_nats {
                None => {
                    let note = format!("; the lower end has to be above {} %", plain(rules.margin * 100.0));
                    retained(":", &note)
                }
                Some(nats) => {
                    let least = format!(": it surely loses less than {} {unit}", plain(nats));
                    format!("{least}{}", retained(", and", ""))
                }
            };
            format!(
                "{on} the cut counts as not worse than the full adapter, and it is smaller{retained}. It is not shown to be \
                 better: its gain is {gain}."
            )
        }
        Reason::BetterThanBase => format!(
            "{on} the full adapter {} the base model: its gain is {}. The cut is better than the base model by {}, and than \
             the full adapter by {gain}.",
            against_base(result),
            numbers(&choice.adapter_gain),
            numbers(&choice.base_gain),
        ),
        Reason::NoCut => format!(
            "No smaller boundary came within one standard error of the best on {}, so there was no cut to test.",
            match choice.validation {
                Validation::Holdout => counted(data.selection, "selection sample"),
                Validation::Nested { .. } => counted(choice.gain.samples, "sample"),
            }
        ),
        Reason::Worse => {
            format!(
                "{on} the candidate, {candidate}, is worse than the full adapter: its gain is {gain}{}.",
                retained(";", "")
            )
        }
        Reason::GuardNotHeld => format!(
            "{on} the candidate, {candidate}, gains {gain} over the full adapter, but it is not shown to keep the guard's samples \
             from getting worse."
        ),
        // The picks of the folds lose, and the reported boundary need not: see `choose::choose_nested`.
        Reason::NotShown if choice.gain.high < 0.0 => format!(
            "{on} what the rule picked on the others was worse than the full adapter: its gain is {gain}{}. Of the candidate \
             itself, {candidate}, that shows nothing. Keeping everything is what is safe, not what is shown.{}",
            retained(";", ""),
            power(result)
        ),
        Reason::NotShown => format!(
            "{on} it is not shown whether the candidate, {candidate}, is better than the full adapter, as good, or worse: its \
             gain is {gain}{}. Keeping everything is what is safe, not what is shown.{}",
            retained(";", ""),
            power(result)
        ),
        Reason::AdapterNotShown => format!(
            "{on} it is not shown whether the full adapter is better than the base model: its gain is {}. It is kept because \
             nothing is shown against it.{}",
            numbers(&choice.adapter_gain),
            power(result)
        ),
        Reason::AdapterNotBetter => {
            let is_cut = 0 < choice.one_se && choice.one_se < layers;
            let cut = if is_cut {
                let gain = numbers(&choice.base_gain);
                format!(" Nor is a cut shown to be better than both: {candidate} gains {gain} over the base model.")
            } else {
                String::new()
            };
            let finding = if is_worse(&choice.adapter_gain, result) {
                "is worse than the base model".to_owned()
            } else {
                format!("gains less over the base model than the {} {unit} that would matter", plain(rules.negligible))
            };
            format!("{on} the full adapter {finding}: its gain is {}.{cut}", numbers(&choice.adapter_gain))
        }
    }
}

/// `without layer 7 (leave-one-out)`.
fn beyond_words(candidate: &Candidate) -> String {
    format!("{} ({})", tame(&candidate.label), candidate.family)
}

/// What the samples could have shown, and how many would show what was seen: sentences behind an abstention.
fn power(result: &SearchResult) -> String {
    let SearchResult { choice, .. } = result;
    let Some(Power { detectable, samples }) = choice.power else { return String::new() };
    let kind = match choice.validation {
        Validation::Holdout => "held-out sample",
        Validation::Nested { .. } => "sample",
    };
    let with = counted(choice.gain.samples, kind);
    let fewest = fewest_to_show(result.rules.alpha);
    if choice.gain.samples < fewest {
        return format!(" {with} can show nothing by these tests: that takes {fewest} at least.");
    }
    let shown = fixed(detectable, decimals(detectable, 2), Sign::Minus);
    let unit = unit(result);
    let wanted = samples.map_or_else(String::new, |samples| {
        format!("; to show one of the size seen takes about {}", count(round_up(samples)))
    });
    format!(" With {with} a gain of {shown} {unit} or more would be shown in 8 of 10 cases{wanted}.")
}

/// The next number with two significant digits, for a count that is no better known than that.
fn round_up(value: u64) -> u64 {
    let mut unit = 1;
    while value / unit >= 100 {
        unit *= 10;
    }
    value.div_ceil(unit) * unit
}

/// What the held-out samples say of an adapter whose mean is not better than the base model's.
fn against_base(result: &SearchResult) -> &'static str {
    if is_worse(&result.choice.adapter_gain, result) { "is worse than" } else { "is not shown to be better than" }
}

/// Whether a gain is shown to be a loss.
fn is_worse(gain: &Gain, result: &SearchResult) -> bool {
    gain.mean < 0.0 && gain.high < 0.0 && gain.p < level(gain.samples, result.rules.alpha)
}

/// `0.0123 nats per answer token (95 % interval 0.0041 to 0.0207, p = 0.003)`, and why, where the two do not agree.
fn numbers(gain: &Gain, unit: &str, result: &SearchResult) -> String {
    let [value, low, high] = gain_digits(gain, Sign::Minus);
    let why = disagreement(gain, gain.p, result.rules.alpha).map_or_else(String::new, |why| format!("; {why}"));
    format!("{value} {unit} (95 % interval {low} to {high}, {}{why})", p_value(gain.p))
}

/// Why an interval and a p-value, which may be adjusted for several comparisons, do not say the same of 0.
pub(super) fn disagreement(gain: &Gain, p: f64, alpha: f64) -> Option<String> {
    let level = level(gain.samples, alpha);
    match (gain.low > 0.0 || gain.high < 0.0, p < level) {
        (true, false) => Some(format!(
            "the interval is the bootstrap's and excludes 0; the tests allow for few and skewed samples, and p is not below {}",
            plain(level)
        )),
        (false, true) => {
            Some(format!("the tests give a p below {}; the bootstrap's interval includes 0", plain(level)))
        }
        _ => None,
    }
}

/// When a gain of so many samples counts as shown.
pub(super) fn counts_as_shown(samples: usize, alpha: f64) -> String {
    format!(
        "a gain is shown where p is below {} and the interval excludes 0; these can differ, since the interval is the \
         bootstrap's and the tests allow for few and skewed samples",
        plain(level(samples, alpha))
    )
}

/// `48.4 s`, and that it is not all, where an interrupted run had scored some of the samples.
pub(super) fn scoring_seconds(seconds: f64, resumed: usize) -> String {
    match resumed {
        0 => format!("{} s", number(seconds)),
        resumed => format!(
            "{} s after an interruption, without {} scored before it",
            number(seconds),
            counted(resumed, "sample")
        ),
    }
}

/// What gains are given in.
pub(super) fn unit(result: &SearchResult) -> String {
    match result.metric.as_ref().filter(|metric| metric.decided) {
        Some(metric) => format!("in {}", tame(&metric.name)),
        None => "nats per answer token".to_owned(),
    }
}

/// A gain and the ends of its interval, rounded alike.
pub(super) fn gain_digits(gain: &Gain, sign: Sign) -> [String; 3] {
    let interval = Interval { value: gain.mean, low: gain.low, high: gain.high };
    estimate(&interval, 1.0, 3, sign)
}

/// `layers 0–17 (18 of 30)`.
pub(super) fn layers_kept(kept: usize, layers: usize) -> String {
    match kept {
        0 => format!("no layer (0 of {layers})"),
        1 => format!("layer 0 (1 of {layers})"),
        _ => format!("layers 0–{} ({kept} of {layers})", kept - 1),
    }
}

/// A warning, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Advice {
    /// What is the matter.
    pub(super) matter: String,
    /// What the reader can do.
    pub(super) remedy: &'static str,
}

/// A warning that is known before anything is scored, in words; none of one that is not.
pub fn forewarning(warning: &Warning) -> Option<String> {
    let Advice { matter, remedy } = match *warning {
        Warning::CannotShow { judging, needed, samples } => cannot_show(judging, needed, samples),
        Warning::NotRaced { selection, needed } => not_raced(selection, needed),
        _ => return None,
    };
    Some(format!("{matter} {remedy}"))
}

fn cannot_show(judging: usize, needed: usize, samples: usize) -> Advice {
    Advice {
        matter: format!(
            "Too few samples to show anything: {} to judge by, and the tests need at least {} ({} in all).",
            counted(judging, "sample"),
            count(needed as u64),
            counted(samples, "sample"),
        ),
        // Where a part is held out, more samples are needed than judge.
        remedy: if samples > needed {
            "Add samples: with so few the verdict can only be to keep the full adapter. An exact search of the boundaries, \
             without --holdout, lets all samples judge."
        } else {
            "Add samples: with so few the verdict can only be to keep the full adapter."
        },
    }
}

fn not_raced(selection: usize, needed: usize) -> Advice {
    Advice {
        matter: format!(
            "Exact search in place of racing: a race on {} drops nothing, it needs at least {} to choose on.",
            counted(selection, "sample"),
            count(needed as u64),
        ),
        remedy: "All boundaries are scored on all samples.",
    }
}

/// Puts a warning of a result into words.
pub(super) fn advice(warning: &Warning, result: &SearchResult) -> Advice {
    match *warning {
        Warning::CannotShow { judging, needed, samples } => cannot_show(judging, needed, samples),
        Warning::NotRaced { selection, needed } => not_raced(selection, needed),
        Warning::Cut { samples, max_length } => Advice {
            matter: format!(
                "{} longer than {} tokens: the end of the answer was cut.",
                counted(samples, "sample"),
                count(max_length as u64)
            ),
            remedy: "Allow more with --max-length, or leave such samples out with --long-samples skip.",
        },
        Warning::OpenEnding { samples } => Advice {
            matter: format!(
                "{} with no token that ends generation: the chat template writes none behind the answer.",
                if samples == 1 {
                    "1 answer ends".to_owned()
                } else {
                    format!("{} answers end", count(samples as u64))
                }
            ),
            remedy: "Whether the adapter learnt to stop is not measured. Check that the template is the one of its training.",
        },
        Warning::TokenShare { ref token, id, share, count: times, samples, .. } => Advice {
            matter: format!(
                "One token, `{}` (id {id}), makes up {} of what the adapter gains ({} times in {}).",
                tame(&token.escape_debug().to_string()),
                percent(share),
                count(times as u64),
                counted(samples, "sample")
            ),
            remedy: "The base model may never have learnt this token, such as an end of turn: the gain then says little about \
                     the text. Look at the samples, token by token.",
        },
        Warning::FewSamples { selection, holdout } => Advice {
            matter: match result.choice.validation {
                Validation::Holdout => format!(
                    "Few samples: {} chose the boundary, {} measured the gain.",
                    count(selection as u64),
                    count(holdout as u64)
                ),
                Validation::Nested { .. } => {
                    format!("Few samples: {}, each of which chose and was held out in turn.", count(selection as u64))
                }
            },
            remedy: "Read the intervals as rough, and add samples: intervals narrow with the square root of their \
                     number.",
        },
        Warning::Skipped { samples, context } => Advice {
            matter: format!("{} left out: longer than {} tokens.", counted(samples, "sample"), count(context as u64)),
            remedy: "The answer says nothing about samples of that length. Shorten them, or cut their answers with \
                     --long-samples cut.",
        },
        Warning::ControlsOmitted => Advice {
            matter: "The cut was not compared with controls (--no-controls).".to_owned(),
            remedy: "Whether it matters which layers are kept is not known: search again without --no-controls to see.",
        },
        Warning::OtherBase { ref adapter, ref model } => Advice {
            matter: format!("The adapter names {} as its base model, and this one is {}.", tame(adapter), tame(model)),
            remedy: "Check that this is the base model of its training: on another one the answer says little.",
        },
        Warning::MetricUndecided => Advice {
            matter:
                "By this metric the full adapter and the base model cannot be told apart on the held-out samples, so \
                     the NLL chose."
                    .to_owned(),
            remedy: "Hold out more samples, or choose by a metric that is finer than right or wrong.",
        },
        Warning::Unstable { share } => Advice {
            matter: format!("Unstable: {} of the bootstrap resamples chose this boundary.", percent(share)),
            remedy: "Read the boundary as a range, the one that the resamples span; more selection samples narrow it.",
        },
        Warning::AdapterUnproven { p } if is_worse(&result.choice.adapter_gain, result) => Advice {
            matter: format!("On the held-out samples the adapter is worse than the base model ({}).", p_value(p)),
            remedy: "Check that base model, template and data are those of its training.",
        },
        Warning::AdapterUnproven { p } => Advice {
            matter: format!("The held-out samples do not show that the adapter beats the base model ({}).", p_value(p)),
            remedy: "Check that base model, template and data are those of its training, or hold out more samples.",
        },
    }
}

/// Whether a positive number carries its sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// Only where it is negative.
    Minus,
    /// Always, but for 0.
    Both,
}

/// An estimate and the ends of its interval times `scale`, with as many decimals as give the interval's width `digits`
/// significant digits.
pub(super) fn estimate(interval: &Interval, scale: f64, digits: i32, sign: Sign) -> [String; 3] {
    let ends = [interval.value, interval.low, interval.high].map(|end| end * scale);
    let width = (ends[2] - ends[1]).abs();
    let decimals = if width > 0.0 { decimals(width, digits) } else { decimals(ends[0], 4) };
    ends.map(|end| fixed(end, decimals, sign))
}

/// Decimals that give `value` so many significant digits: from 0 to 9.
pub(super) fn decimals(value: f64, digits: i32) -> usize {
    if value == 0.0 || !value.is_finite() {
        return digits.clamp(1, 9) as usize - 1;
    }
    // The logarithm is a small number, and the clamp makes the conversion exact.
    (f64::from(digits - 1) - value.abs().log10().floor()).clamp(0.0, 9.0) as usize
}

/// A number with so many decimals and a true minus sign; scientific where it would be longer than a table's column.
pub(super) fn fixed(value: f64, decimals: usize, sign: Sign) -> String {
    if !value.is_finite() {
        return NONE.to_owned();
    }
    let size = value.abs();
    let digits = if size < 1e7 { format!("{size:.decimals$}") } else { format!("{size:.1e}") };
    // What rounds to 0 has no sign.
    let is_zero = digits.bytes().all(|byte| matches!(byte, b'0' | b'.'));
    match sign {
        _ if is_zero => digits,
        _ if value < 0.0 => format!("−{digits}"),
        Sign::Both => format!("+{digits}"),
        Sign::Minus => digits,
    }
}

/// A number with four significant digits.
pub(super) fn number(value: f64) -> String {
    fixed(value, decimals(value, 4), Sign::Minus)
}

/// A number that somebody set, without the zeros that would claim a measurement: `98`, `0.05`.
pub(super) fn plain(value: f64) -> String {
    let digits = number(value);
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.').to_owned() } else { digits }
}

/// A share as `45.1 %`.
pub(super) fn percent(share: f64) -> String {
    if !share.is_finite() {
        return NONE.to_owned();
    }
    format!("{} %", fixed(share * 100.0, 1, Sign::Minus))
}

/// `1.31 ± 0.02`, and one dash where there is no number.
pub(super) fn plus_minus(value: String, error: &str) -> String {
    if value == NONE { value } else { format!("{value} ± {error}") }
}

/// What racing left out, where there was a race.
pub(super) fn race(result: &SearchResult) -> Option<String> {
    let RaceSummary { error_rate, dropped, skipped } = result.race.as_ref()?;
    let lost = format!("paired; the best boundary is lost with a probability of at most {}", percent(*error_rate));
    let worse = "significantly worse than the leader on the samples so far";
    let mut text = match dropped.len() {
        0 => "Raced: no boundary left before all samples were scored.".to_owned(),
        1 => format!("Raced: 1 boundary left early, {worse} ({lost}). Resamples pick among those that are left."),
        many => format!(
            "Raced: {many} boundaries left early, each {worse} ({lost}). Resamples pick among those that are left."
        ),
    };
    if !skipped.is_empty() {
        text.push_str(&format!(
            " Not scored, since both neighbours on the first grid were significantly worse than the leader: k = {}. \
             --search exact scores all.",
            skipped.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
        ));
    }
    Some(text)
}

/// `p = 0.003`, or `p < 0.001`.
pub(super) fn p_value(p: f64) -> String {
    match p {
        p if !p.is_finite() => format!("p = {NONE}"),
        p if p < 0.001 => "p < 0.001".to_owned(),
        p if p < 0.1 => format!("p = {p:.3}"),
        p => format!("p = {p:.2}"),
    }
}

/// A count with its thousands set apart.
pub(super) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `1 sample`, `32 samples`.
pub(super) fn counted(value: usize, noun: &str) -> String {
    format!("{} {noun}{}", count(value as u64), if value == 1 { "" } else { "s" })
}

/// A size in decimal units, as file managers and model hubs give it.
pub(super) fn bytes(value: u64) -> String {
    let units = ["kB", "MB", "GB", "TB"];
    let mut size = value as f64;
    if value < 1000 {
        return format!("{value} B");
    }
    let mut unit = "B";
    for next in units {
        if size < 1000.0 {
            break;
        }
        size /= 1000.0;
        unit = next;
    }
    format!("{} {unit}", fixed(size, decimals(size, 3), Sign::Minus))
}

/// Text whose percent signs and equations do not part from their numbers at the end of a line.
pub(super) fn glued(text: &str) -> String {
    text.replace(" %", "\u{a0}%").replace(" = ", "\u{a0}=\u{a0}").replace(" < ", "\u{a0}<\u{a0}")
}

/// A stranger's text on one line: control characters, which could steer a terminal or reorder the text, become
/// `\u{FFFD}`.
pub(super) fn tame(text: &str) -> String {
    text.chars().map(|c| if is_unruly(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Whether a character could steer a terminal or reorder text.
pub(super) fn is_unruly(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_four_significant_digits() {
        let cases = [
            (1.23456, "1.235"),
            (0.0123456, "0.01235"),
            (123.456, "123.5"),
            (98765.4, "98765"),
            (-0.5, "−0.5000"),
            (0.0, "0.000"),
            (1e-12, "0.000000000"),
            (1.5e300, "1.5e300"),
            (f64::NAN, NONE),
            (f64::NEG_INFINITY, NONE),
        ];
        for (value, expected) in cases {
            assert_eq!(number(value), expected);
        }
    }

    #[test]
    fn an_estimate_is_rounded_by_its_interval() {
        let interval = Interval { value: 0.012_345_6, low: 0.004_07, high: 0.020_66 };
        assert_eq!(estimate(&interval, 1.0, 3, Sign::Minus), ["0.0123", "0.0041", "0.0207"]);
        let interval = Interval { value: 1.0123, low: -0.2, high: 1.31 };
        assert_eq!(estimate(&interval, 100.0, 2, Sign::Both), ["+101", "−20", "+131"]);
        let point = Interval { value: 0.5, low: 0.5, high: 0.5 };
        assert_eq!(estimate(&point, 1.0, 3, Sign::Minus), ["0.5000", "0.5000", "0.5000"]);
    }

    #[test]
    fn settings_are_written_as_they_were_set() {
        assert_eq!([0.98 * 100.0, 0.05, 0.0, 1000.0, 97.5].map(plain), ["98", "0.05", "0", "1000", "97.5"]);
    }

    #[test]
    fn what_rounds_to_zero_has_no_sign() {
        assert_eq!(fixed(-0.000_01, 3, Sign::Both), "0.000");
        assert_eq!(fixed(0.0, 1, Sign::Both), "0.0");
    }

    #[test]
    fn counts_and_sizes_are_grouped_and_scaled() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([999, 1000, 9_830_400, u64::MAX].map(bytes), ["999 B", "1.00 kB", "9.83 MB", "1.8e7 TB"]);
        assert_eq!(counted(1, "sample"), "1 sample");
    }

    #[test]
    fn a_p_value_is_never_written_as_zero() {
        assert_eq!([0.0, 0.000_999, 0.0031, 0.25].map(p_value), ["p < 0.001", "p < 0.001", "p = 0.003", "p = 0.25"]);
    }

    #[test]
    fn escapes_and_reversals_are_tamed() {
        assert_eq!(tame("a\u{1b}[31mb\nc\u{202e}d é"), "a\u{fffd}[31mb\u{fffd}c\u{fffd}d é");
    }
}
