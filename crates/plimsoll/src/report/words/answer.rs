//! The answer of a search in sentences.

use plimsoll_stats::choose::{Gain, Interval, JudgingSamples, Power, Reason, Verdict, fewest_to_show, level};

use super::gains::{numbers, round_up, unit};
use super::numbers::{Sign, count, counted, decimals, estimate, fixed, number, percent, plain, printable};
use super::{strength, sufficient};
use crate::report::{candidate_boundary, other_candidate};
use crate::result::{Candidate, RaceSummary, SearchResult};

/// The answer of a search in a few sentences: what to do, and the tests behind it.
///
/// ```
/// use std::path::Path;
///
/// use plimsoll::report;
///
/// let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures"));
/// let (_, result) = report::read(&folder.join("result.json"))?;
/// assert!(report::sentence(&result).starts_with("Trim: keep LoRA in layers 0–19 (20 of 30)."));
/// # Ok::<(), plimsoll::Error>(())
/// ```
pub fn sentence(result: &SearchResult) -> String {
    let Answer { headline, grounds } = answer(result);
    format!("{headline} {grounds}")
}

/// The answer of a search, with its first sentences apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::report) struct Answer {
    /// What to do.
    pub(in crate::report) headline: String,
    /// What was tested, on how many samples, and the result.
    pub(in crate::report) grounds: String,
}

/// Puts the verdict and its reason into sentences.
pub(in crate::report) fn answer(result: &SearchResult) -> Answer {
    let choice = &result.choice;
    let layers = result.model.layers;
    let at_strength = strength::headline(&layers_kept(choice.layers_kept, layers), result);
    let headline = match choice.verdict {
        Verdict::Trim if at_strength.is_some() => at_strength.unwrap_or_default(),
        Verdict::Trim => match other_candidate(result) {
            None => format!("Trim: keep LoRA in {}.", layers_kept(choice.layers_kept, layers)),
            Some(candidate) if candidate.bytes < result.adapter.bytes => format!("Trim: {}.", label(candidate)),
            Some(candidate) => format!("Change the LoRA strengths: {}.", label(candidate)),
        },
        Verdict::KeepFull if choice.abstains => "Keep the full adapter: the samples do not decide.".to_owned(),
        Verdict::KeepFull => "Keep the full adapter.".to_owned(),
        Verdict::UseBase => "Use the base model, without the adapter.".to_owned(),
    };
    let headline = match no_gain_of_adapter(result) {
        Some(finding) => format!("{finding} {headline}"),
        None => headline,
    };
    Answer { headline, grounds: grounds(result) }
}

/// A sentence if the adapter as a whole does not gain. It comes before the verdict, because it explains it.
fn no_gain_of_adapter(result: &SearchResult) -> Option<&'static str> {
    let gain = &result.choice.adapter_gain;
    let is_shown = gain.mean > 0.0 && gain.low > 0.0 && gain.p < level(gain.samples, result.rules.alpha);
    Some(match result.choice.reason {
        _ if is_worse(gain, result) => "The full adapter is worse than the base model.",
        _ if [gain.mean, gain.low, gain.high] == [0.0; 3] => "The full adapter gains nothing over the base model.",
        Reason::AdapterNotBetter => "The gain of the full adapter over the base model is negligible.",
        _ if !is_shown => "The full adapter is not shown to be better than the base model.",
        _ => return None,
    })
}

/// The share of the adapter's gain that the candidate retains.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::report) enum Retained {
    /// The share with its interval.
    Share(Interval),
    /// The adapter's own gain is too small or too uncertain to compute a share; only the lower end has a meaning.
    GainTooSmall {
        /// The lower end of the share's interval.
        low: f64,
    },
}

impl Retained {
    /// Classifies a share of this gain of the adapter.
    pub(in crate::report) fn of(share: Option<Interval>, adapter_gain: &Gain) -> Option<Self> {
        let share = share?;
        let low = share.low;
        Some(if adapter_gain.has_shares() { Self::Share(share) } else { Self::GainTooSmall { low } })
    }
}

/// Printed in place of a share of the adapter's gain if that gain is too small.
pub(in crate::report) const NO_SHARE: &str = "the adapter's gain is too small or too uncertain to compute a share";

fn grounds(result: &SearchResult) -> String {
    let SearchResult { choice, data, .. } = result;
    let layers = result.model.layers;
    let on = format!("On {},", judging_samples(choice.gain.samples, choice.validation));
    let unit = unit(result);
    let numbers = |gain: &Gain| numbers(gain, &unit, result);
    let gain = numbers(&choice.gain);
    let retained = |before: &str| retained_text(before, "", result);
    let candidate = match other_candidate(result) {
        None => format!("LoRA in {}", layers_kept(candidate_boundary(result), layers)),
        Some(candidate) => label(candidate),
    };
    if let Some(grounds) = sufficient::grounds(result) {
        return grounds;
    }
    match choice.reason {
        Reason::Better => {
            let fewer = strength::why_not_fewer(result).map_or_else(String::new, |text| format!(" {text}"));
            format!("{on} the candidate is better than the full adapter by {gain}{}.{fewer}", retained(";"))
        }
        Reason::NotWorse => format!(
            "{on} the candidate is smaller than the full adapter and counts as not worse{}. It is not shown to be \
             better: its gain is {gain}.",
            within_margin(result)
        ),
        Reason::BetterThanBase => format!(
            "{on} the full adapter {} the base model: its gain is {}. The candidate is better than the base model by \
             {}, and better than the full adapter by {gain}.",
            against_base(result),
            numbers(&choice.adapter_gain),
            numbers(&choice.base_gain),
        ),
        Reason::NoCut => format!(
            "No smaller boundary is within one standard error of the best on {}, so no candidate was tested.",
            match choice.validation {
                JudgingSamples::Holdout => counted(data.selection, "selection sample"),
                JudgingSamples::Nested { .. } | JudgingSamples::All => counted(choice.gain.samples, "sample"),
            }
        ),
        Reason::Worse | Reason::AllNeeded => format!(
            "{on} the candidate, {candidate}, is worse than the full adapter: its gain is {gain}{}.",
            retained(";")
        ),
        Reason::GuardNotHeld => format!(
            "{on} the candidate, {candidate}, gains {gain} over the full adapter, but it is not shown to lose less \
             than the margin on the guard samples."
        ),
        // The picks of the folds are worse; the reported boundary need not be: see `choose::choose_nested`.
        Reason::NotShown if choice.gain.high < 0.0 => format!(
            "{on} the rule's pick on the other folds was worse on average than the full adapter: its gain is \
             {gain}{}. This does not show that the candidate itself, {candidate}, is worse. The full adapter is the \
             safe choice.{}",
            retained(";"),
            power(result)
        ),
        Reason::NotShown => format!(
            "{on} the candidate, {candidate}, is not shown to be better than the full adapter, as good, or worse: its \
             gain is {gain}{}. The full adapter is the safe choice.{}",
            retained(";"),
            power(result)
        ),
        Reason::AdapterNotShown => format!(
            "{on} the full adapter is not shown to be better than the base model: its gain is {}. The full adapter is \
             the safe choice.{}",
            numbers(&choice.adapter_gain),
            power(result)
        ),
        Reason::AdapterNotBetter => adapter_not_better(&on, &candidate, result),
    }
}

/// The finding that the full adapter gains nothing that matters, on the samples `on`.
fn adapter_not_better(on: &str, candidate: &str, result: &SearchResult) -> String {
    let SearchResult { choice, model, rules, .. } = result;
    let unit = unit(result);
    let numbers = |gain: &Gain| numbers(gain, &unit, result);
    let is_cut = (1..model.layers).contains(&candidate_boundary(result));
    let not_both = if is_cut {
        let gain = numbers(&choice.base_gain);
        format!(" The candidate is not shown to be better than both: {candidate} gains {gain} over the base model.")
    } else {
        String::new()
    };
    let finding = if is_worse(&choice.adapter_gain, result) {
        "is worse than the base model".to_owned()
    } else {
        format!("gains less than {} {unit} over the base model", plain(rules.negligible))
    };
    format!("{on} the full adapter {finding}: its gain is {}.{not_both}", numbers(&choice.adapter_gain))
}

/// The share of the adapter's gain that the candidate retains, as a clause after `before`; `note` follows the interval.
fn retained_text(before: &str, note: &str, result: &SearchResult) -> String {
    const OF_GAIN: &str = "of the adapter's gain over the base model";
    match Retained::of(result.choice.retained, &result.choice.adapter_gain) {
        None => String::new(),
        Some(Retained::Share(share)) => {
            let [value, low, high] = estimate(&share, 100.0, 2, Sign::Minus);
            format!("{before} it retains {value} % {OF_GAIN} (95 % interval {low} to {high} %{note})")
        }
        Some(Retained::GainTooSmall { low }) if !note.is_empty() => {
            format!("{before} it retains at least {} {OF_GAIN} (95 % interval{note}; {NO_SHARE})", percent(low))
        }
        Some(Retained::GainTooSmall { .. }) => format!("{before} {NO_SHARE}"),
    }
}

/// The comparison with the margin that a candidate has passed, as a clause.
fn within_margin(result: &SearchResult) -> String {
    match result.rules.margin_nats {
        None => {
            let note = format!("; the lower end must be above {} %", plain(result.rules.margin * 100.0));
            retained_text(":", &note, result)
        }
        Some(nats) => {
            let loss = format!(": it loses less than {} {} (95 % interval)", plain(nats), unit(result));
            format!("{loss}{}", retained_text(", and", "", result))
        }
    }
}

/// `without layer 7 (leave-one-out)`.
fn label(candidate: &Candidate) -> String {
    format!("{} ({})", printable(&candidate.label), candidate.family)
}

/// Which samples judge: `32 held-out samples`, or `48 samples (nested cross-validation, 10 folds)`.
pub(in crate::report) fn judging_samples(samples: usize, validation: JudgingSamples) -> String {
    match validation {
        JudgingSamples::Holdout => counted(samples, "held-out sample"),
        JudgingSamples::All => counted(samples, "sample"),
        JudgingSamples::Nested { folds } => {
            format!("{} (nested cross-validation, {})", counted(samples, "sample"), counted(folds, "fold"))
        }
    }
}

/// The power of the tests, for an abstention: the gain that the samples could show, and how many samples would show the
/// observed gain.
fn power(result: &SearchResult) -> String {
    let SearchResult { choice, .. } = result;
    let Some(Power { detectable, samples }) = choice.power else { return String::new() };
    let kind = match choice.validation {
        JudgingSamples::Holdout => "held-out sample",
        JudgingSamples::Nested { .. } | JudgingSamples::All => "sample",
    };
    let with = counted(choice.gain.samples, kind);
    let fewest = fewest_to_show(result.rules.alpha);
    if choice.gain.samples < fewest {
        return format!(" The tests cannot show anything with {with}: they need at least {fewest}.");
    }
    let shown = fixed(detectable, decimals(detectable, 2), Sign::Minus);
    let unit = unit(result);
    let wanted = samples.map_or_else(String::new, |samples| {
        format!("; to show a gain of the observed size takes about {} {kind}s", count(round_up(samples)))
    });
    format!(" With {with}, a gain of {shown} {unit} or more would be shown in 8 of 10 cases{wanted}.")
}

/// How an adapter compares with the base model if its mean is not better.
fn against_base(result: &SearchResult) -> &'static str {
    if is_worse(&result.choice.adapter_gain, result) { "is worse than" } else { "is not shown to be better than" }
}

/// Whether a gain is shown to be a loss.
pub(in crate::report) fn is_worse(gain: &Gain, result: &SearchResult) -> bool {
    gain.mean < 0.0 && gain.high < 0.0 && gain.p < level(gain.samples, result.rules.alpha)
}

/// `48.4 s`; after an interruption, which samples that does not include.
pub(in crate::report) fn scoring_seconds(seconds: f64, resumed: usize) -> String {
    match resumed {
        0 => format!("{} s", number(seconds)),
        resumed => {
            format!("{} s, without {} scored before an interruption", number(seconds), counted(resumed, "sample"))
        }
    }
}

/// `layers 0–17 (18 of 30)`.
fn layers_kept(kept: usize, layers: usize) -> String {
    match kept {
        0 => format!("no layer (0 of {layers})"),
        1 => format!("layer 0 (1 of {layers})"),
        _ => format!("layers 0–{} ({kept} of {layers})", kept - 1),
    }
}

/// What racing dropped and skipped, if there was a race.
pub(in crate::report) fn race(result: &SearchResult) -> Option<String> {
    let RaceSummary { error_rate, dropped, skipped } = result.race.as_ref()?;
    let risk = format!("paired; the best boundary is lost with a probability of at most {}", percent(*error_rate));
    let worse = "significantly worse than the leader on the samples so far";
    let mut text = match dropped.len() {
        0 => "Racing: no boundary was dropped before all samples were scored.".to_owned(),
        1 => format!("Racing: 1 boundary was dropped early. It was {worse} ({risk}). Resamples pick among the others."),
        many => format!(
            "Racing: {many} boundaries were dropped early. Each was {worse} ({risk}). Resamples pick among the others."
        ),
    };
    if !skipped.is_empty() {
        text.push_str(&format!(
            " Not scored, because both neighbours on the first grid were significantly worse than the leader: k = {}. \
             --search exact scores all boundaries.",
            skipped.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
        ));
    }
    Some(text)
}
