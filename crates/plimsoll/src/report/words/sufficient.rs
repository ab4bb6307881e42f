//! Sufficient layers in sentences.

use plimsoll_stats::choose::sufficient::{RetainedShare, Stop};
use plimsoll_stats::choose::{Interval, JudgingSamples, Margin, Power, Reason};

use super::gains::{numbers, round_up, unit};
use super::numbers::{Sign, count, counted, estimate, p_value, percent, plain};
use crate::result::{SearchResult, SufficientLayers, SufficientRow};

/// The grounds of an answer by sufficient layers; `None` for another answer.
pub(super) fn grounds(result: &SearchResult) -> Option<String> {
    let choice = &result.choice;
    if choice.validation != JudgingSamples::All {
        return None;
    }
    let candidate = result.candidate.as_ref()?;
    let list = result.sufficient.iter().find(|list| list.family == candidate.family)?;
    let row = list.row(result.rules.asked_margin())?;
    let samples = samples(result);
    let retained = choice.retained.as_ref().map(share)?;
    let layers = layers_of(candidate.layers_kept, result);
    let bound = margin_in_words(row.answer.margin, result);
    Some(match choice.reason {
        Reason::NotWorse => format!(
            "On {samples}, {layers} retain {retained} of the adapter's gain over the base model, which is shown to be \
             {bound}{}. {} The gain over the full adapter is {}.",
            row.answer.p.map(|p| format!(" ({})", p_value(p))).unwrap_or_default(),
            stop(row, list, result),
            numbers(&choice.gain, &unit(result), result),
        ),
        Reason::AllNeeded => format!(
            "On {samples}, {layers} retain {retained} of the adapter's gain over the base model, which is shown not to \
             be {bound}.{}",
            weaker(list, result)
        ),
        Reason::NotShown => format!(
            "On {samples}, {layers} retain {retained} of the adapter's gain over the base model. Whether this is \
             {bound} is not shown. The full adapter is the safe choice.{}{}",
            power(result),
            weaker(list, result)
        ),
        _ => return None,
    })
}

/// `48 samples`, and whether they are a part of those that were given.
fn samples(result: &SearchResult) -> String {
    let used = result.choice.gain.samples;
    match result.data.unused {
        0 => counted(used, "sample"),
        unused => format!("{} of {}, which settle the answer", count(used as u64), counted(used + unused, "sample")),
    }
}

/// `more than 98 %`, or `a loss below 0.01 nats per answer token`.
pub(in crate::report) fn margin_in_words(margin: Margin, result: &SearchResult) -> String {
    match margin {
        Margin::Share(share) => format!("more than {} %", plain(share * 100.0)),
        Margin::Nats(nats) => format!("a loss below {} {}", plain(nats), unit(result)),
    }
}

/// `92.9 % (95 % interval 90.6 to 95.1 %)`.
fn share(retained: &Interval) -> String {
    let [value, low, high] = estimate(retained, 100.0, 2, Sign::Minus);
    format!("{value} % (95 % interval {low} to {high} %)")
}

fn layers_of(kept: usize, result: &SearchResult) -> String {
    format!("{kept} of {} layers", result.model.layers)
}

/// Why fewer layers are not the answer, as a sentence.
fn stop(row: &SufficientRow, list: &SufficientLayers, result: &SearchResult) -> String {
    let retained = |layers_kept: usize| {
        list.share(layers_kept)
            .map(|RetainedShare { retained, .. }| format!(" {}", share(retained)))
            .unwrap_or_default()
    };
    match row.answer.stop {
        Stop::NotShown { layers_kept, p } => {
            format!(
                "For fewer this is not shown: {} retain{} ({}).",
                layers_of(layers_kept, result),
                retained(layers_kept),
                p_value(p)
            )
        }
        Stop::LosesMore { layers_kept, .. } => {
            format!(
                "Fewer are shown to retain less: {} retain{}.",
                layers_of(layers_kept, result),
                retained(layers_kept)
            )
        }
        Stop::NotScored { layers_kept } => {
            format!("Fewer were not tested: {} were not scored.", layers_of(layers_kept, result))
        }
        Stop::NoMoreCuts => "No cut drops more.".to_owned(),
        Stop::AdapterNotShown => "The adapter is not shown to gain over the base model.".to_owned(),
        _ => String::new(),
    }
}

/// The strictest margin for which fewer layers are enough, if the one that was asked for needs all.
fn weaker(list: &SufficientLayers, result: &SearchResult) -> String {
    let is_cut = |row: &&SufficientRow| row.answer.p.is_some();
    match list.rows.iter().find(is_cut) {
        Some(SufficientRow { answer, .. }) => format!(
            " For {}, {} are enough.",
            margin_in_words(answer.margin, result),
            layers_of(answer.layers_kept, result)
        ),
        None => String::new(),
    }
}

/// The power of the test of the margin, for an abstention.
fn power(result: &SearchResult) -> String {
    let choice = &result.choice;
    let (Some(Power { detectable, samples }), Margin::Share(margin)) = (choice.power, result.rules.asked_margin())
    else {
        return String::new();
    };
    let shown = margin + detectable / choice.adapter_gain.mean;
    let wanted = samples.map_or_else(String::new, |samples| {
        format!("; to show the observed share takes about {} samples", count(round_up(samples)))
    });
    let with = counted(choice.gain.samples, "sample");
    format!(" With {with}, a true share of {} or more would be shown in 8 of 10 cases{wanted}.", percent(shown))
}
