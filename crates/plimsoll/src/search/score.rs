//! The first stage: scores of variants that do not depend on scores, on the selection samples.

use std::collections::HashSet;

use plimsoll_stats::choose::Part;
use plimsoll_stats::choose::race::Fate;
use plimsoll_stats::{mean_and_se, student_t_above};

use super::journal::Set;
use super::scoring::{Counted, Observer, Scoring, Task, Wanted};
use super::settings::Strategy;
use super::study::{Parts, Study};
use super::sufficient::{Descent, losses};
use super::{effects, plan};
use crate::data::Sample;
use crate::engine::Probe;
use crate::error::Result;
use crate::lora::{Facts, Family, Member, Projection, Variant, VariantSet};

/// The guard excludes a variant whose p-value of being worse is below this.
const GUARD_LEVEL: f64 = 0.05;

/// The result of the first stage. The scores are in the [`Scoring`].
#[derive(Debug)]
pub(super) struct Scored {
    /// Frobenius norms of each layer's updates.
    pub(super) norms: Vec<f64>,
    /// Energies of the updates on samples, by layer and module; empty without a probe.
    pub(super) energies: Vec<[f64; Projection::COUNT]>,
    /// Energies of each layer's updates; empty without a probe.
    pub(super) output: Vec<f64>,
    /// All members of families that do not depend on scores.
    pub(super) set: VariantSet,
    /// The fate of each boundary in a race; `None` without a race.
    pub(super) fates: Option<Vec<Fate>>,
    /// The variants that the guard excludes, as [`Variant::spec`] writes them.
    pub(super) excluded: HashSet<String>,
}

impl Scored {
    /// The facts that the members of families depend on.
    pub(super) fn facts<'a>(&'a self, study: &'a Study) -> Facts<'a> {
        study.facts(&self.norms, &self.output)
    }
}

/// Scores the members of all families on the selection samples and on the guard's samples.
pub(super) fn score(
    study: &Study,
    parts: &Parts<'_>,
    scoring: &mut Scoring<'_>,
    probe: Option<&dyn Probe>,
    observe: Observer<'_>,
) -> Result<Scored> {
    let (choosing, guarding) = (Set::data(Part::Selection), Set::guard(Part::Selection));
    let (selection, [guard, _]) = (parts.selection.as_slice(), &parts.guard);
    scoring.begin(plan::OUTPUTS);
    let norms = effects::joint_norms(&study.table.norms);
    let energies = match probe.filter(|_| study.settings.strategy != Strategy::Sequential) {
        Some(probe) => energies(probe, &parts.effects, scoring, observe)?,
        None => Vec::new(),
    };
    let output = effects::joint_energies(&energies);
    let set = VariantSet::new(study.members(&study.facts(&norms, &output)));
    let variants = in_order_of_plan(set.members());

    scoring.begin(plan::CHOOSING);
    let fates = match study.settings.strategy {
        Strategy::Auto | Strategy::Exact => {
            scoring.evaluate(all(choosing, selection, &variants), Counted::Samples, observe)?;
            None
        }
        Strategy::Sequential => Some(downward(study, parts, scoring, observe)?),
        Strategy::Racing { error_rate } => {
            let race = scoring.race(&parts.raced, study.layers(), error_rate, observe)?;
            Some(race.fates().collect::<Vec<Fate>>())
        }
    };
    scoring.begin(plan::GUARD);
    scoring.evaluate(Task::scores(guarding, guard, &variants), Counted::Samples, observe)?;
    let mut excluded = HashSet::new();
    for variant in set.variants() {
        if is_worse_on_guard(study, scoring, guard, variant)? {
            excluded.insert(variant.spec());
        }
    }
    scoring.begin(plan::FAMILIES);
    if matches!(study.settings.strategy, Strategy::Racing { .. }) {
        let others = set.members().iter().filter(|member| member.family != Family::BottomK);
        scoring.evaluate(all(choosing, selection, &in_order_of_plan(others)), Counted::Samples, observe)?;
    }
    if study.families().len() > 1 {
        // Other families are compared with base and full, which the race may have dropped.
        scoring.evaluate(all(choosing, selection, &study.base_and_full()), Counted::Samples, observe)?;
    }
    Ok(Scored { norms, energies, output, set, fates, excluded })
}

/// Scores boundaries from the full adapter downward, until the margin needs no more.
fn downward(study: &Study, parts: &Parts<'_>, scoring: &mut Scoring<'_>, observe: Observer<'_>) -> Result<Vec<Fate>> {
    let layers = study.layers();
    let boundary = |k: usize| Variant::bottom_k(layers, k);
    let descent = Descent {
        layers_kept: (1..study.table.layers_up_to_highest()).rev().collect(),
        variants: &|k| vec![boundary(k)],
        loss: &|scoring, k| losses(parts, scoring, &boundary(k)).ok(),
        margin: study.settings.margin,
        among: 1,
    };
    let cuts = descent.run(study, parts, &study.base_and_full(), scoring, observe)?;
    let scored = cuts.iter().filter(|cut| cut.loss.is_some()).map(|cut| cut.layers_kept);
    let mut fates = vec![Fate::Skipped; layers + 1];
    scored.chain([0, layers]).for_each(|k| fates[k] = Fate::Raced);
    Ok(fates)
}

/// The distinct variants of members, those that only output-k has last: the plan bounds the work of this order.
fn in_order_of_plan<'a>(members: impl IntoIterator<Item = &'a Member>) -> Vec<Variant> {
    let (by_energy, known): (Vec<&Member>, Vec<&Member>) =
        members.into_iter().partition(|member| member.family == Family::OutputK);
    VariantSet::new(known.into_iter().chain(by_energy).cloned().collect()).variants().to_vec()
}

/// A task for scores, answer tokens and probability curves.
fn all<'a>(set: Set, samples: &'a [&'a Sample], variants: &'a [Variant]) -> Task<'a> {
    Task::scores(set, samples, variants).wanting(Wanted::TokensAndLens)
}

/// Energies of all updates on samples, per token.
fn energies(
    probe: &dyn Probe,
    samples: &[&Sample],
    scoring: &mut Scoring<'_>,
    observe: Observer<'_>,
) -> Result<Vec<[f64; Projection::COUNT]>> {
    let samples: Vec<Sample> = samples.iter().map(|&sample| sample.clone()).collect();
    let tokens: usize = samples.iter().map(|sample| sample.tokens.len()).sum();
    let mut energies = probe.output_energy(&samples, &mut |work| {
        scoring.stages().spend(work);
        observe(scoring.stages().progress())
    })?;
    energies.iter_mut().flatten().for_each(|energy| *energy /= tokens.max(1) as f64);
    Ok(energies)
}

/// Whether the guard's samples show that a variant loses more than the margin, by a one-sided paired t-test.
pub(super) fn is_worse_on_guard(
    study: &Study,
    scoring: &Scoring<'_>,
    guard: &[&Sample],
    variant: &Variant,
) -> Result<bool> {
    if guard.is_empty() {
        return Ok(false);
    }
    let set = Set::guard(Part::Selection);
    let [_, full] = study.base_and_full();
    let (full, nll) = (scoring.nll(set, guard, &full)?, scoring.nll(set, guard, variant)?);
    let losses: Vec<f64> = nll.iter().zip(&full).map(|(nll, full)| nll - full).collect();
    let (mean, se) = mean_and_se(&losses);
    let above = mean - study.settings.guard_margin;
    // A loss that is the same on all samples has no standard error.
    let p = if se > 0.0 { student_t_above(above / se, losses.len() - 1) } else { 1.0 - f64::from(above > 0.0) };
    Ok(p < GUARD_LEVEL)
}
