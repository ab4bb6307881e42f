//! The tuned LoRA strength in sentences.

use plimsoll_stats::choose::sufficient::Stop;
use plimsoll_stats::choose::{Margin, Verdict, level};

use super::gains::{numbers, unit};
use super::numbers::{p_value, plain};
use crate::lora::Family;
use crate::result::{SearchResult, TunedStrength};

/// Whether the candidate has a tuned strength.
pub(in crate::report) fn is_at_strength(result: &SearchResult) -> bool {
    result.candidate.as_ref().is_some_and(|candidate| candidate.family == Family::BoundaryStrength)
}

/// What to do, if the candidate has a tuned strength. `layers` are the layers that keep LoRA.
pub(super) fn headline(layers: &str, result: &SearchResult) -> Option<String> {
    let TunedStrength { strength, .. } = result.strength.as_ref()?;
    let candidate = result.candidate.as_ref().filter(|_| is_at_strength(result))?;
    (result.choice.verdict == Verdict::Trim).then(|| {
        if candidate.bytes < result.adapter.bytes {
            format!("Trim: keep LoRA in {layers}, at strength {}.", plain(*strength))
        } else {
            format!("Change the LoRA strength: use the whole adapter at strength {}.", plain(*strength))
        }
    })
}

/// Why the candidate at a tuned strength keeps no fewer layers, as a sentence.
pub(super) fn why_not_fewer(result: &SearchResult) -> Option<String> {
    let held = result.strength.as_ref()?.sufficient.filter(|_| is_at_strength(result))?;
    let bound = match held.margin {
        Margin::Share(share) => format!("keep more than {} % of the gain at this strength", plain(share * 100.0)),
        Margin::Nats(nats) => format!("lose less than {} {}", plain(nats), unit(result)),
    };
    match held.stop {
        Stop::NotShown { layers_kept, p } => {
            Some(format!("Fewer layers are not shown to {bound} ({layers_kept} layers: {}).", p_value(p)))
        }
        Stop::LosesMore { layers_kept, .. } => {
            Some(format!("Fewer layers are shown not to {bound}: {layers_kept} layers do not."))
        }
        _ => None,
    }
}

/// What the strengths that were tried show, in a sentence.
pub(in crate::report) fn tuned_strength(result: &SearchResult) -> Option<String> {
    let TunedStrength { strength, tried, gain, is_better, .. } = result.strength.as_ref()?;
    let others = tried.iter().filter(|tried| tried.strength != 1.0).map(|tried| plain(tried.strength));
    let others = others.collect::<Vec<String>>().join(", ");
    let measured = || numbers(gain, &unit(result), result);
    let found = if *is_better {
        format!("at strength {} the whole adapter is shown to be better, by {}", plain(*strength), measured())
    } else if gain.low > 0.0 && gain.p < level(gain.samples, result.rules.alpha) / 2.0 {
        format!(
            "strength {} is better than 1, but not shown to be better than the base model: {}",
            plain(*strength),
            measured()
        )
    } else if *strength == 1.0 {
        "none has a lower NLL".to_owned()
    } else {
        format!("strength {} is not shown to be better: its gain is {}", plain(*strength), measured())
    };
    let shares = if *is_better { " Shares at this strength are of the gain of the adapter as trained." } else { "" };
    Some(format!("Other LoRA strengths of the whole adapter ({others}): {found}.{shares}"))
}
