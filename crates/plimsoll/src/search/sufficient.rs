//! Sufficient layers of every family whose order is fixed before any score is known.

use std::collections::HashSet;

use plimsoll_stats::choose::sufficient::{Cut, SHARES, Sequence, Stop};
use plimsoll_stats::choose::{Choice, ChooseOptions, Margin, Part, Verdict};

use super::journal::Set;
use super::scoring::{Counted, Observer, Scoring, Task, Wanted};
use super::study::{Parts, Study};
use crate::error::{Error, Result};
use crate::lora::{Family, Member, Position, Variant, VariantSet};
use crate::result::{SufficientLayers, SufficientRow};

/// Cuts that are scored from the one that drops least, group by group, until the tests for a margin need no more.
pub(super) struct Descent<'a> {
    /// The numbers of layers kept, descending. The cuts of the first group may be scored before.
    pub(super) layers_kept: Vec<usize>,
    /// The variants that a cut needs.
    pub(super) variants: &'a dyn Fn(usize) -> Vec<Variant>,
    /// The losses of all samples under a cut; `None` if it was not scored.
    pub(super) loss: &'a dyn Fn(&Scoring<'_>, usize) -> Option<Vec<f64>>,
    /// The lowest margin.
    pub(super) margin: Margin,
    /// The number of sequences that share the error rate.
    pub(super) among: usize,
}

impl Descent<'_> {
    /// Scores the cuts, the first ones together with the variants `also`. Returns all cuts.
    pub(super) fn run(
        &self,
        study: &Study,
        parts: &Parts<'_>,
        also: &[Variant],
        scoring: &mut Scoring<'_>,
        observe: Observer<'_>,
    ) -> Result<Vec<Cut>> {
        let (whole, options) = (study.table.layers_up_to_highest(), study.choose_options());
        let [base, full] = study.base_and_full();
        let mut wanted = also.to_vec();
        let mut groups = groups(&self.layers_kept).into_iter();
        loop {
            let group = groups.next();
            wanted.extend(group.iter().flatten().flat_map(|&k| (self.variants)(k)));
            score_all(parts, &wanted, scoring, observe)?;
            let cut = |&layers_kept: &usize| Cut { layers_kept, loss: (self.loss)(scoring, layers_kept) };
            let cuts: Vec<Cut> = self.layers_kept.iter().map(cut).collect();
            let (base, full) = (losses(parts, scoring, &base)?, losses(parts, scoring, &full)?);
            let sequence = Sequence::new(&base, &full, whole, &cuts, &options).among(self.among);
            let is_open = matches!(sequence.sufficient(self.margin).stop, Stop::NotScored { .. });
            if group.is_none() || !is_open {
                return Ok(cuts);
            }
            wanted.clear();
        }
    }
}

/// The groups of a descent. The first is small, because many searches need no more; each group computes the layers
/// below it once again, so later ones are larger.
pub(super) fn groups(layers_kept: &[usize]) -> Vec<Vec<usize>> {
    const FIRST: usize = 4;
    let mut left = layers_kept;
    let mut groups = Vec::new();
    let mut size = FIRST;
    while !left.is_empty() {
        let (group, rest) = left.split_at(size.min(left.len()));
        groups.push(group.to_vec());
        (left, size) = (rest, size * 2);
    }
    groups
}

/// Scores variants, and the NLL of answer tokens, on all samples.
pub(super) fn score_all(
    parts: &Parts<'_>,
    variants: &[Variant],
    scoring: &mut Scoring<'_>,
    observe: Observer<'_>,
) -> Result<()> {
    for (part, samples) in [(Part::Selection, &parts.selection), (Part::Holdout, &parts.holdout)] {
        let task = Task::scores(Set::data(part), samples, variants).wanting(Wanted::Tokens);
        scoring.evaluate(task, Counted::Samples, observe)?;
    }
    Ok(())
}

/// The losses of all samples under a variant: of the selection samples, then of those held out.
///
/// # Errors
/// A sample that was not scored under it.
pub(super) fn losses(parts: &Parts<'_>, scoring: &Scoring<'_>, variant: &Variant) -> Result<Vec<f64>> {
    let of = |part, samples: &[&_]| scoring.nll(Set::data(part), samples, variant);
    Ok([of(Part::Selection, &parts.selection)?, of(Part::Holdout, &parts.holdout)?].concat())
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

/// The choice by a sequence, and the number of layers of the cut that it is about.
pub(super) type ChooseBy<'a> = &'a dyn Fn(&Sequence<'_>) -> (Choice, Option<usize>);

/// Finds the sufficient layers of the families, and chooses by them.
///
/// If there are several families, the one that needs the fewest bytes is chosen, and each has its part of the error
/// rate (Bonferroni).
pub(super) fn decide(
    study: &Study,
    parts: &Parts<'_>,
    scoring: &Scoring<'_>,
    families: &[Ordered],
    options: &ChooseOptions,
    choose: ChooseBy<'_>,
) -> Result<Decision> {
    let [base, full] = study.base_and_full();
    let (base, full) = (losses(parts, scoring, &base)?, losses(parts, scoring, &full)?);
    let of = |variant: &Variant| losses(parts, scoring, variant).ok();
    let whole = study.table.layers_up_to_highest();
    let mut lists = Vec::new();
    let mut chosen: Option<(u64, Choice, Option<Member>)> = None;
    for Ordered { family, cuts } in families {
        let scored: Vec<Cut> = cuts
            .iter()
            .map(|member| Cut { layers_kept: member.variant.layers_kept(), loss: of(&member.variant) })
            .collect();
        let sequence = Sequence::new(&base, &full, whole, &scored, options).among(families.len());
        lists.push(list(study, *family, cuts, &sequence, margins(options.margin)));
        let (choice, about) = choose(&sequence);
        let candidate = about.and_then(|layers_kept| member(cuts, layers_kept)).cloned();
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

/// The sufficient layers of a family for some margins. `cuts` are those of the sequence.
pub(super) fn list(
    study: &Study,
    family: Family,
    cuts: &[Member],
    sequence: &Sequence<'_>,
    margins: Vec<Margin>,
) -> SufficientLayers {
    let row = |margin: Margin| {
        let answer = sequence.sufficient(margin);
        let variant = match member(cuts, answer.layers_kept).filter(|_| answer.p.is_some()) {
            Some(member) => member.variant.clone(),
            None => Variant::uniform(study.layers(), 1.0),
        };
        SufficientRow { answer, bytes: study.table.bytes_kept(&variant), gates: variant.spec() }
    };
    let (rows, samples) = (margins.into_iter().map(row).collect(), sequence.samples());
    SufficientLayers { family, metric: None, samples, rows, shares: sequence.shares() }
}

fn member(cuts: &[Member], layers_kept: usize) -> Option<&Member> {
    cuts.iter().find(|member| member.position == Position::LayersKept(layers_kept))
}

/// The margins of the list: the usual shares, and the margin that was asked for in its place.
pub(super) fn margins(asked: Margin) -> Vec<Margin> {
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
