//! The second stage: picks the candidate on the selection samples.

use std::collections::HashSet;

use plimsoll_stats::choose::{Part, Rule};

use super::competition::{self, Adaptive, Class};
use super::journal::Set;
use super::metric::{self, Answering, Valued};
use super::plan;
use super::score::{Scored, is_worse_on_guard};
use super::scoring::{Counted, Observer, Scoring, Task};
use super::study::{Parts, Study};
use crate::error::{Error, Result};
use crate::lora::{Facts, Family, Member, Variant};
use crate::result::Arbitration;

/// The result of the second stage.
#[derive(Debug)]
pub(super) struct Selected {
    /// All members that were scored, family by family.
    pub(super) members: Vec<Member>,
    /// The candidate, which will be judged.
    pub(super) candidate: Member,
    /// The competition of families, if there are several.
    pub(super) arbitration: Option<Arbitration>,
    /// The variants that the guard excludes, as [`Variant::spec`] writes them.
    pub(super) excluded: HashSet<String>,
    /// The boundary that the rule picks by the NLL.
    pub(super) boundary: usize,
    /// With a metric: its values on the selection samples, and the boundary that they pick.
    pub(super) by_metric: Option<(Valued, usize)>,
}

/// Picks the candidate: the families compete, or the metric chooses.
pub(super) fn select(
    study: &Study,
    parts: &Parts<'_>,
    scored: &Scored,
    scoring: &mut Scoring<'_>,
    answering: Option<&mut Answering<'_>>,
    observe: Observer<'_>,
) -> Result<Selected> {
    let mut selected = compete(study, parts, scored, scoring, observe)?;
    if let Some(answering) = answering.filter(|_| study.settings.rule() != Rule::Sufficient) {
        let allowed = study.allowed_boundaries(scored.fates.as_deref(), &scored.excluded);
        let (valued, pick) = choose_by_metric(study, parts, &allowed, selected.boundary, scoring, answering, observe)?;
        selected.candidate = Member::boundary(study.layers(), pick);
        selected.by_metric = Some((valued, pick));
    }
    Ok(selected)
}

/// Picks the candidate by the NLL: each family's rule picks a member, and the families compete.
fn compete(
    study: &Study,
    parts: &Parts<'_>,
    scored: &Scored,
    scoring: &mut Scoring<'_>,
    observe: Observer<'_>,
) -> Result<Selected> {
    let (layers, set, selection) = (study.layers(), Set::data(Part::Selection), parts.selection.as_slice());
    let facts = scored.facts(study);
    let allowed = study.allowed_boundaries(scored.fates.as_deref(), &scored.excluded);
    let folds = study.competition_folds();
    let (mut members, mut excluded) = (scored.set.members().to_vec(), scored.excluded.clone());
    let mut classes = Vec::new();
    for family in study.families().into_iter().filter(|family| family.competes()) {
        if family.is_adaptive() {
            let adaptive = adapt(study, parts, family, &facts, &folds, scoring, observe)?;
            members.extend(adaptive.members());
            let nll = |variant: &Variant| scoring.nll(set, selection, variant).ok();
            let Some(class) = adaptive.class(&nll)? else { continue };
            let pick = class.pick().variant.clone();
            let guard = parts.guard[0].as_slice();
            let task = Task::scores(Set::guard(Part::Selection), guard, std::slice::from_ref(&pick));
            scoring.evaluate(task, Counted::Samples, observe)?;
            if is_worse_on_guard(study, scoring, guard, &pick)? {
                excluded.insert(pick.spec());
            } else {
                classes.push(class);
            }
        } else {
            let of_family = scored.set.of(family).cloned();
            let competing: Vec<Member> = match family {
                // A boundary that the race dropped may be scored as a member of another family.
                Family::BottomK => of_family
                    .filter(|member| member.variant.boundary().is_some_and(|boundary| allowed.contains(&boundary)))
                    .collect(),
                _ => {
                    let is_allowed = |variant: &Variant| study.is_allowed(&excluded, variant);
                    competition::allowed(family, of_family, &study.table, layers, &is_allowed)
                }
            };
            let nll = |variant: &Variant| scoring.nll(set, selection, variant).ok();
            classes.extend(Class::new(family, competing, &nll, &folds)?);
        }
    }
    if classes.is_empty() {
        return Err(Error::Usage(
            "the guard samples and the --budget exclude all variants: give a larger --guard-margin or --budget".into(),
        ));
    }
    let number_of_folds = folds.iter().max().map_or(0, |last| last + 1);
    let (winner, arbitration) = competition::decide(&classes, number_of_folds, &study.table);
    let of_boundaries = classes.iter().map(Class::pick).find(|member| member.family == Family::BottomK);
    Ok(Selected {
        members,
        candidate: classes[winner].pick().clone(),
        arbitration: (classes.len() > 1).then_some(arbitration),
        excluded,
        boundary: of_boundaries.and_then(|member| member.variant.boundary()).unwrap_or(layers),
        by_metric: None,
    })
}

/// Runs an adaptive family to its end: scores the variants that it asks for.
fn adapt(
    study: &Study,
    parts: &Parts<'_>,
    family: Family,
    facts: &Facts<'_>,
    folds: &[usize],
    scoring: &mut Scoring<'_>,
    observe: Observer<'_>,
) -> Result<Adaptive> {
    let (set, selection) = (Set::data(Part::Selection), parts.selection.as_slice());
    scoring.begin(family.name());
    let mut adaptive = Adaptive::new(family, facts, folds);
    let alone = scoring.work_alone(selection);
    debug_assert_eq!(folds.len(), study.split.selection.len());
    while let Some((sets, variants)) = adaptive.step() {
        scoring.stages().need_at_most(adaptive.most_left() as u64 * alone);
        scoring.evaluate(Task::scores(set, selection, &variants), Counted::Rounds, observe)?;
        let rows = variants.iter().map(|variant| scoring.nll(set, selection, variant)).collect::<Result<Vec<_>>>()?;
        adaptive.record(&sets, &rows);
    }
    Ok(adaptive)
}

/// Picks a boundary by the metric, among those with an NLL near the best, which answer the selection samples.
fn choose_by_metric(
    study: &Study,
    parts: &Parts<'_>,
    allowed: &[usize],
    by_nll: usize,
    scoring: &mut Scoring<'_>,
    answering: &mut Answering<'_>,
    observe: Observer<'_>,
) -> Result<(Valued, usize)> {
    let (layers, selection) = (study.layers(), parts.selection.as_slice());
    let column = |k: &usize| scoring.nll(Set::data(Part::Selection), selection, &Variant::bottom_k(layers, *k));
    let columns = allowed.iter().map(column).collect::<Result<Vec<_>>>()?;
    let row = |sample: usize| columns.iter().map(|column| column[sample]).collect::<Vec<f64>>();
    let nll: Vec<Vec<f64>> = (0..selection.len()).map(row).collect();
    let candidates = metric::candidates(&nll, allowed, by_nll, layers, study.settings.metric_candidates);
    scoring.begin(plan::ANSWERS);
    let values = answering.values(Part::Selection, selection, &candidates, scoring.stages(), observe)?;
    let valued = Valued { candidates, selection: values, holdout: Vec::new() };
    let pick = valued.scores(Part::Selection, &valued.candidates)?.pick();
    Ok((valued, pick))
}
