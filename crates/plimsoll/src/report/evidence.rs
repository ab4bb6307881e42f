//! The evidence beside the cut in words: families, controls, effects, the guard and what the samples could show.

use plimsoll_stats::choose::{Gain, Validation, level};

use super::words::{self, Sign, count, counted, fixed, p_value, tame};
use crate::lora::Family;
use crate::result::{Control, Controls, Depth, EffectKind, GuardSummary, SearchResult};

/// What users call a family.
pub(super) fn family(family: Family) -> &'static str {
    match family {
        Family::BottomK => "bottom-k",
        Family::TopK => "top-k",
        Family::LeaveOneOut => "leave-one-out",
        Family::LeaveOneIn => "leave-one-in",
        Family::Window => "window",
        Family::RandomK => "random-k",
        Family::MagnitudeK => "magnitude-k",
        Family::OutputK => "output-k",
        Family::GlobalAlpha => "global-alpha",
        Family::Ramp => "ramp",
        Family::PerModule => "per-module",
        Family::Greedy => "greedy",
        Family::GreedyModules => "greedy-modules",
        Family::Strengths => "strengths",
        Family::Given => "given",
    }
}

/// What a family is.
pub(super) fn family_note(family: Family) -> &'static str {
    match family {
        Family::BottomK => "LoRA in the lowest k layers, the paper's cut",
        Family::TopK => "LoRA in the highest k layers",
        Family::LeaveOneOut => "LoRA dropped in one layer, or in one module of a layer",
        Family::LeaveOneIn => "LoRA in one layer, or in one module of a layer, alone",
        Family::Window => "LoRA in a run of layers",
        Family::RandomK => "LoRA in k layers that were drawn",
        Family::MagnitudeK => "LoRA in the k layers with the largest update",
        Family::OutputK => "LoRA in the k layers whose update has the most energy on samples",
        Family::GlobalAlpha => "one factor on the whole adapter",
        Family::Ramp => "a factor that rises or falls evenly with depth",
        Family::PerModule => "one kind of module kept or dropped in all layers",
        Family::Greedy => "layers dropped one after the other, the least missed first",
        Family::GreedyModules => "modules dropped one after the other, the least missed first",
        Family::Strengths => "factors of single layers, changed one after the other",
        Family::Given => "what was asked for",
    }
}

/// What users call a measure of effects.
pub(super) fn effect(kind: EffectKind) -> &'static str {
    match kind {
        EffectKind::LeaveOneOut => "leave-one-out",
        EffectKind::LeaveOneIn => "leave-one-in",
        EffectKind::Increment => "increment",
        EffectKind::Shapley => "Shapley",
        EffectKind::Magnitude => "magnitude",
        EffectKind::Output => "output",
        EffectKind::Lens => "lens",
    }
}

/// What a measure of effects says, with its unit.
pub(super) fn effect_note(kind: EffectKind) -> &'static str {
    match kind {
        EffectKind::LeaveOneOut => "what dropping it alone costs, in nats per token",
        EffectKind::LeaveOneIn => "what it alone gains over the base model, in nats per token",
        EffectKind::Increment => "what it adds to the layers below it, a step of the ablation curve, in nats per token",
        EffectKind::Shapley => "what it adds, mean over orders of the layers, in nats per token",
        EffectKind::Magnitude => "Frobenius norm of its update",
        EffectKind::Output => "energy of its update on samples",
        EffectKind::Lens => "rise of the right token's probability over it, full less base",
    }
}

/// Whether a measure has a 0 that parts help from harm.
pub(super) fn is_signed(kind: EffectKind) -> bool {
    !matches!(kind, EffectKind::Magnitude | EffectKind::Output)
}

/// The gates that were judged: `18 layers`, or `k = 18` where the result names none.
pub(super) fn candidate(result: &SearchResult) -> String {
    match &result.candidate {
        Some(candidate) if candidate.family != Family::BottomK => tame(&candidate.label),
        _ => format!("k = {}", result.choice.one_se),
    }
}

/// Which samples judged: `32 held-out samples`, or what took their place.
pub(super) fn judged_on(gain: &Gain, result: &SearchResult) -> String {
    match result.choice.validation {
        Validation::Holdout => counted(gain.samples, "held-out sample"),
        Validation::Nested { folds } => {
            format!("{}, each left out in turn ({} folds)", counted(gain.samples, "sample"), count(folds as u64))
        }
    }
}

/// That depth is not shown to be what helped, where it is not, naming the controls that do as well.
pub(super) fn depth(result: &SearchResult) -> Option<String> {
    let Controls { rows, depth } = result.controls.as_ref()?;
    if *depth == Depth::Shown {
        return None;
    }
    let is_beaten = |control: &&Control| {
        control.p_holm < level(control.cut_over.samples, result.rules.alpha) && control.cut_over.mean > 0.0
    };
    let as_good: Vec<&Control> = rows.iter().filter(|control| !is_beaten(control)).collect();
    let mut text = "It is not shown that depth is what helped. ".to_owned();
    for control in &as_good {
        let [gain, low, high] = words::gain_digits(&control.cut_over, Sign::Minus);
        text.push_str(&format!(
            "The cut is not shown to be better than the control {} ({}): its gain over that is {gain} nats per answer \
             token (95 % interval {low} to {high}, {} after correction for all controls). ",
            family(control.family),
            tame(&control.label),
            p_value(control.p_holm),
        ));
    }
    text.push_str("Which layers are kept may matter less than how much of the adapter is.");
    Some(text)
}

/// That depth is shown to be what helped, where it is.
pub(super) fn depth_shown(controls: &Controls) -> &'static str {
    match controls.depth {
        Depth::Shown => "The cut is shown to be better than every control, so it does matter which layers are kept.",
        Depth::NotShown => {
            "Some control is not shown to be worse than the cut, so depth is not shown to be what helped."
        }
    }
}

/// What the held-out samples could have shown, and how many would settle it.
pub(super) fn power(result: &SearchResult) -> Option<String> {
    let power = result.choice.power?;
    let unit = words::unit(result);
    let settle = match power.samples {
        Some(samples) => format!(
            "To show a gain of the size that was seen, about {} would be needed.",
            counted(usize::try_from(samples).unwrap_or(usize::MAX), "such sample"),
        ),
        None => "No gain was seen that more samples could confirm.".to_owned(),
    };
    Some(format!(
        "{} would show a true gain of {} {unit} or more in 8 of 10 cases. {settle}",
        judged_on(&result.choice.gain, result),
        fixed(power.detectable, words::decimals(power.detectable, 2), Sign::Minus),
    ))
}

/// Which cheap measure predicts the measured effects here, if any does.
pub(super) fn agreement(result: &SearchResult) -> Option<String> {
    let effects = result.effects.as_ref().filter(|effects| !effects.agreement.is_empty())?;
    let usable = effects.agreement.iter().filter(|row| row.rho.is_finite() && row.p < result.rules.alpha);
    let best = usable.filter(|row| row.rho > 0.0).max_by(|a, b| a.rho.total_cmp(&b.rho));
    Some(match best {
        Some(best) => format!(
            "Of the cheap measures, {} agrees best with a measured effect here: it orders the layers much as {} does (ρ = \
             {}, {}). Trust it for this adapter and data only; a ρ of 1 is the same order, 0 is no relation.",
            effect(best.proxy),
            effect(best.truth),
            fixed(best.rho, 2, Sign::Minus),
            p_value(best.p),
        ),
        None => {
            "No cheap measure is shown to order the layers as a measured effect does: here none of them can stand in \
                 for it."
                .to_owned()
        }
    })
}

/// What the guard's samples say of the candidate.
pub(super) fn guard(guard: &GuardSummary) -> String {
    let held = if guard.is_held {
        "the candidate is shown not to be worse than the full adapter by more than the margin"
    } else {
        "the candidate is not shown to be within the margin of the full adapter"
    };
    let excluded = match guard.excluded {
        0 => "No variant was shown to be worse than that on the samples that guard the pick.".to_owned(),
        excluded => format!(
            "{} shown to be worse than that on the samples that guard the pick, and could not be picked.",
            if excluded == 1 {
                "1 variant was".to_owned()
            } else {
                format!("{} variants were", count(excluded as u64))
            },
        ),
    };
    format!(
        "Samples of another kind watch over what the cut might break. On {} of them {held} ({} nats per answer token). \
         {excluded}",
        counted(guard.holdout, "held-out sample"),
        words::plain(guard.margin),
    )
}
