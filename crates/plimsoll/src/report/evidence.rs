//! Words for the evidence about the candidate: families, controls, effects and the guard.

use plimsoll_stats::choose::{Gain, level};

use super::candidate_boundary;
use super::words::{self, Sign, count, counted, fixed, p_value, printable};
use crate::lora::Family;
use crate::result::{Control, Controls, Depth, EffectKind, GuardSummary, SearchResult};

/// What a family is, in a phrase.
pub(super) fn family_note(family: Family) -> &'static str {
    match family {
        Family::BottomK => "LoRA kept in the lowest k layers: the boundaries",
        Family::TopK => "LoRA kept in the highest k layers",
        Family::LeaveOneOut => "LoRA dropped in one layer, or in one module of a layer",
        Family::LeaveOneIn => "LoRA kept only in one layer, or in one module of a layer",
        Family::Window => "LoRA kept in a range of layers",
        Family::RandomK => "LoRA kept in k random layers",
        Family::MagnitudeK => "LoRA kept in the k layers with the largest norm of the update",
        Family::OutputK => "LoRA kept in the k layers with the most energy of the update on samples",
        Family::GlobalAlpha => "one LoRA strength for the whole adapter",
        Family::BoundaryStrength => "LoRA kept in the lowest k layers, at a tuned strength",
        Family::Ramp => "LoRA strengths that rise or fall linearly with depth",
        Family::PerModule => "LoRA of one kind of module kept or dropped in all layers",
        Family::Greedy => "layers dropped one by one, the one that costs least first",
        Family::GreedyModules => "modules dropped one by one, the one that costs least first",
        Family::Strengths => "LoRA strengths of single layers, changed one by one",
        Family::Given => "variants given with --gates",
    }
}

/// Name of a measure of effects.
pub(super) fn effect(kind: EffectKind) -> &'static str {
    match kind {
        EffectKind::LeaveOneOut => "removed from the full adapter",
        EffectKind::LeaveOneIn => "alone on the base model",
        EffectKind::Increment => "added on top of lower layers",
        EffectKind::Shapley => "Shapley value",
        EffectKind::Magnitude => "norm of the update",
        EffectKind::Output => "activation energy",
        EffectKind::Lens => "probability rise (logit lens)",
    }
}

/// Name of a measured effect as the head of a narrow column; [`effect_note`] explains it below the table.
pub(super) fn effect_column(kind: EffectKind) -> &'static str {
    match kind {
        EffectKind::LeaveOneOut => "removed",
        EffectKind::LeaveOneIn => "alone",
        EffectKind::Increment => "added",
        EffectKind::Shapley => "Shapley",
        EffectKind::Magnitude => "norm",
        EffectKind::Output => "energy",
        EffectKind::Lens => "lens",
    }
}

/// Definition of a measure of effects, with its unit.
pub(super) fn effect_note(kind: EffectKind) -> &'static str {
    match kind {
        EffectKind::LeaveOneOut => {
            "NLL increase when it is removed from the full adapter (leave-one-out), nats per token"
        }
        EffectKind::LeaveOneIn => {
            "NLL decrease when it alone is added to the base model (leave-one-in), nats per token"
        }
        EffectKind::Increment => "NLL decrease when it is added to all lower layers (increment), nats per token",
        EffectKind::Shapley => "mean NLL decrease when it is added, over orders of the layers, nats per token",
        EffectKind::Magnitude => "Frobenius norm of the update, ‖s·B·A‖",
        EffectKind::Output => "energy of the update on samples, mean over tokens of ‖s·B·A·x‖²",
        EffectKind::Lens => "rise of the right token's probability over the layer, full adapter minus base model",
    }
}

/// Whether a measure has a sign: above 0 the layer helps, below 0 it harms.
pub(super) fn is_signed(kind: EffectKind) -> bool {
    !matches!(kind, EffectKind::Magnitude | EffectKind::Output)
}

/// The candidate's name: `k = 18` for a boundary, otherwise its label.
pub(super) fn candidate(result: &SearchResult) -> String {
    match &result.candidate {
        Some(candidate) if candidate.family != Family::BottomK => printable(&candidate.label),
        _ => format!("k = {}", candidate_boundary(result)),
    }
}

/// The samples that a gain was measured on: `32 held-out samples`, or the samples of a cross-validation.
pub(super) fn judged_on(gain: &Gain, result: &SearchResult) -> String {
    words::judging_samples(gain.samples, result.choice.validation)
}

/// If the candidate is not shown to be better than every control: the controls that may do as well.
pub(super) fn depth(result: &SearchResult) -> Option<String> {
    let Controls { rows, depth } = result.controls.as_ref()?;
    if *depth == Depth::Shown {
        return None;
    }
    let is_worse = |control: &&Control| {
        control.p_holm < level(control.cut_over.samples, result.rules.alpha) && control.cut_over.mean > 0.0
    };
    let mut text = "It is not shown that the choice of layers matters. ".to_owned();
    for control in rows.iter().filter(|control| !is_worse(control)) {
        let [gain, low, high] = words::gain_digits(&control.cut_over, Sign::Minus);
        text.push_str(&format!(
            "The candidate is not shown to be better than the control {} ({}): its gain over that control is {gain} \
             nats per answer token (95 % interval {low} to {high}, {} after correction for all controls). ",
            control.family,
            printable(&control.label),
            p_value(control.p_holm),
        ));
    }
    text.push_str("How much of the adapter is kept may matter more than which layers.");
    Some(text)
}

/// The result of the comparison with the controls, in a sentence.
pub(super) fn depth_shown(controls: &Controls) -> &'static str {
    match controls.depth {
        Depth::Shown => "The candidate is shown to be better than every control, so it matters which layers are kept.",
        Depth::NotShown => {
            "At least one control may be as good as the candidate, so it is not shown that the choice of layers \
             matters."
        }
    }
}

/// The cheap measure that agrees best with a measured effect, if any is shown to agree.
pub(super) fn agreement(result: &SearchResult) -> Option<String> {
    let effects = result.effects.as_ref().filter(|effects| !effects.agreement.is_empty())?;
    let usable = effects.agreement.iter().filter(|row| row.rho.is_finite() && row.p < result.rules.alpha);
    let best = usable.filter(|row| row.rho > 0.0).max_by(|a, b| a.rho.total_cmp(&b.rho));
    Some(match best {
        Some(best) => format!(
            "Of the cheap measures, \"{}\" agrees best with a measured effect, \"{}\" (ρ = {}, {}). This holds for \
             this adapter and this data only.",
            effect(best.proxy),
            effect(best.truth),
            fixed(best.rho, 2, Sign::Minus),
            p_value(best.p),
        ),
        None => "No cheap measure is shown to order the layers as a measured effect does, so none can replace it here."
            .to_owned(),
    })
}

/// The result of the guard, in sentences.
pub(super) fn guard(guard: &GuardSummary) -> String {
    let found = if guard.is_held {
        "the candidate is shown to lose less than the margin against the full adapter"
    } else {
        "the candidate is not shown to lose less than the margin against the full adapter"
    };
    let excluded = match guard.excluded {
        0 => "No variant was excluded before the pick.".to_owned(),
        excluded => format!(
            "{} excluded before the pick: a larger loss was shown on the guard's selection samples.",
            if excluded == 1 {
                "1 variant was".to_owned()
            } else {
                format!("{} variants were", count(excluded as u64))
            },
        ),
    };
    format!(
        "The guard samples are other data, on which the candidate must not get worse. On {} of them, {found} ({} nats \
         per answer token). {excluded}",
        counted(guard.holdout, "held-out sample"),
        words::plain(guard.margin),
    )
}
