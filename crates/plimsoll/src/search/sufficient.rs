//! Sufficient layers of every family whose order is fixed before any score is known.

use std::collections::HashSet;

use plimsoll_stats::choose::sufficient::{Cut, SHARES, Sequence};
use plimsoll_stats::choose::{Choice, ChooseOptions, Margin, Verdict};

use super::score::Scored;
use super::study::Study;
use crate::lora::{Family, Member, Variant};
use crate::result::{SufficientLayers, SufficientRow};

/// A family with its cuts in their order: the one that drops least is the first.
#[derive(Debug)]
pub(super) struct Ordered {
    pub(super) family: Family,
    pub(super) cuts: Vec<Member>,
}

/// The families with an order that does not depend on samples, and their allowed cuts.
pub(super) fn ordered(study: &Study, scored: &Scored, excluded: &HashSet<String>) -> Vec<Ordered> {
    let of_family = |family: Family| {
        let is_cut = |member: &&Member| {
            let bytes = study.table.bytes_kept(&member.variant);
            member.variant.layers_kept() > 0
                && bytes < study.table.total_bytes()
                && study.is_allowed(excluded, &member.variant)
        };
        let mut cuts: Vec<Member> = scored.set.of(family).filter(is_cut).cloned().collect();
        cuts.sort_by_key(|member| std::cmp::Reverse(member.variant.layers_kept()));
        Ordered { family, cuts }
    };
    study.families().into_iter().filter(|family| family.is_prespecified()).map(of_family).collect()
}

/// The sufficient layers of all families, and the choice by them.
pub(super) struct Decision {
    pub(super) lists: Vec<SufficientLayers>,
    pub(super) choice: Choice,
    /// The cut that the choice is about, if the rule picked another candidate.
    pub(super) candidate: Option<Member>,
}

/// The losses of all samples under the base model, the full adapter and any variant.
pub(super) struct Losses<'a> {
    pub(super) base: &'a [f64],
    pub(super) full: &'a [f64],
    /// `None` if some of the samples were not scored.
    pub(super) of: &'a dyn Fn(&Variant) -> Option<Vec<f64>>,
}

/// Finds the sufficient layers of the families, and chooses by them. `picked` is the choice by the
/// one-standard-error rule; it stays if it shows a cut to be better.
///
/// If there are several families, the one that needs the fewest bytes is chosen, and each has its part of the error
/// rate (Bonferroni).
pub(super) fn decide(
    study: &Study,
    families: &[Ordered],
    losses: &Losses<'_>,
    picked: &Choice,
    options: &ChooseOptions,
) -> Decision {
    let Losses { base, full, of } = *losses;
    let whole = study.table.layers_up_to_highest();
    let mut lists = Vec::new();
    let mut chosen: Option<(u64, Choice, Option<Member>)> = None;
    for Ordered { family, cuts } in families {
        let scored: Vec<Cut> = cuts
            .iter()
            .map(|member| Cut { layers_kept: member.variant.layers_kept(), loss: of(&member.variant) })
            .collect();
        let sequence = Sequence::new(base, full, whole, &scored, options).among(families.len());
        let member = |layers_kept: usize| cuts.iter().find(|member| member.variant.layers_kept() == layers_kept);
        let row = |margin: Margin| {
            let answer = sequence.sufficient(margin);
            let variant = match member(answer.layers_kept) {
                Some(member) => member.variant.clone(),
                None => Variant::uniform(study.layers(), 1.0),
            };
            SufficientRow { answer, bytes: study.table.bytes_kept(&variant), gates: variant.spec() }
        };
        let rows = margins(options.margin).into_iter().map(row).collect();
        lists.push(SufficientLayers { family: *family, samples: full.len(), rows, shares: sequence.shares() });

        let (choice, about) = sequence.choose(picked.clone());
        let candidate = about.and_then(member).cloned();
        let bytes = match (&candidate, choice.verdict) {
            (Some(member), Verdict::Trim) => study.table.bytes_kept(&member.variant),
            _ => study.table.total_bytes(),
        };
        if chosen.as_ref().is_none_or(|(least, ..)| bytes < *least) {
            chosen = Some((bytes, choice, candidate));
        }
    }
    let (choice, candidate) = chosen.map_or((picked.clone(), None), |(_, choice, candidate)| (choice, candidate));
    Decision { lists, choice, candidate }
}

/// The margins of the list: the usual shares, and the margin that was asked for in its place.
fn margins(asked: Margin) -> Vec<Margin> {
    let mut margins: Vec<Margin> = SHARES.map(Margin::Share).into();
    match asked {
        Margin::Share(share) if !SHARES.contains(&share) => {
            let place = SHARES.iter().position(|other| *other < share).unwrap_or(SHARES.len());
            margins.insert(place, asked);
        }
        Margin::Share(_) => {}
        Margin::Nats(_) => margins.insert(0, asked),
    }
    margins
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_margin_asked_for_is_in_its_place() {
        assert_eq!(margins(Margin::Share(0.95)).len(), 6);
        assert_eq!(margins(Margin::Share(0.85))[4], Margin::Share(0.85));
        assert_eq!(margins(Margin::Share(0.3))[6], Margin::Share(0.3));
        assert_eq!(margins(Margin::Nats(0.01))[0], Margin::Nats(0.01));
    }
}
