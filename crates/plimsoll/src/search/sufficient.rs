//! Sufficient layers of every family whose order is fixed before any score is known.

use std::collections::HashSet;

use plimsoll_stats::choose::sufficient::{Cut, SHARES, Sequence};
use plimsoll_stats::choose::{Choice, ChooseOptions, Margin, Verdict};

use super::study::Study;
use crate::error::{Error, Result};
use crate::lora::{Family, Member, Variant, VariantSet};
use crate::result::{SufficientLayers, SufficientRow};

/// The boundaries of a sequential search, group by group. The first group is small, because many searches need no more;
/// each group computes the layers below it once again, so later ones are larger.
pub(super) fn groups(whole: usize) -> Vec<Vec<usize>> {
    const FIRST: usize = 4;
    let mut left: Vec<usize> = (1..whole).collect();
    let mut groups = Vec::new();
    let mut size = FIRST;
    while !left.is_empty() {
        groups.push(left.split_off(left.len().saturating_sub(size)));
        size *= 2;
    }
    groups
}

/// A family with its cuts in their order: the one that drops least is the first.
#[derive(Debug)]
pub(super) struct Ordered {
    pub(super) family: Family,
    pub(super) cuts: Vec<Member>,
}

/// The families of `set` whose order does not depend on samples, with their allowed cuts.
pub(super) fn ordered(study: &Study, set: &VariantSet, excluded: &HashSet<String>) -> Vec<Ordered> {
    let of_family = |family: Family| {
        let is_cut = |member: &&Member| {
            let bytes = study.table.bytes_kept(&member.variant);
            member.variant.layers_kept() > 0
                && bytes < study.table.total_bytes()
                && study.is_allowed(excluded, &member.variant)
        };
        let mut cuts: Vec<Member> = set.of(family).filter(is_cut).cloned().collect();
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

/// The choice by a sequence, and the number of layers of the cut that it is about.
pub(super) type ChooseBy<'a> = &'a dyn Fn(&Sequence<'_>) -> (Choice, Option<usize>);

/// Finds the sufficient layers of the families, and chooses by them.
///
/// If there are several families, the one that needs the fewest bytes is chosen, and each has its part of the error
/// rate (Bonferroni).
pub(super) fn decide(
    study: &Study,
    families: &[Ordered],
    losses: &Losses<'_>,
    options: &ChooseOptions,
    choose: ChooseBy<'_>,
) -> Result<Decision> {
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

        let (choice, about) = choose(&sequence);
        let candidate = about.and_then(member).cloned();
        let bytes = match (&candidate, choice.verdict) {
            (Some(member), Verdict::Trim) => study.table.bytes_kept(&member.variant),
            _ => study.table.total_bytes(),
        };
        if chosen.as_ref().is_none_or(|(least, ..)| bytes < *least) {
            chosen = Some((bytes, choice, candidate));
        }
    }
    let (_, choice, candidate) = chosen.ok_or_else(|| Error::Internal("no family of a fixed order".into()))?;
    Ok(Decision { lists, choice, candidate })
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
