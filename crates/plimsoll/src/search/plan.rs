//! The stages of a search, and upper bounds of their work, before any score is known.

use plimsoll_stats::choose::Part;
use plimsoll_stats::choose::race::Race;

use super::competition::Adaptive;
use super::journal::Set;
use super::metric::DECODING;
use super::progress::PlannedStage;
use super::scoring::{Scoring, Task, Wanted};
use super::settings::Strategy;
use super::study::{Parts, Study};
use super::{controls, effects};
use crate::data::Sample;
use crate::engine::{Engines, Generator, layer_passes};
use crate::lora::{Facts, Family, Variant, VariantSet};

pub(super) const OUTPUTS: &str = "outputs of layers";
pub(super) const CHOOSING: &str = "choosing";
pub(super) const GUARD: &str = "guard";
pub(super) const FAMILIES: &str = "families";
pub(super) const ANSWERS: &str = "answers";
pub(super) const CONTROLS: &str = "controls";
pub(super) const JUDGING: &str = "judging";
pub(super) const JUDGING_CONTROLS: &str = "judging controls";
pub(super) const JUDGING_GUARD: &str = "judging on the guard";
pub(super) const EFFECTS: &str = "effects";
pub(super) const TOKENS: &str = "tokens";
pub(super) const EFFICIENCY: &str = "efficiency";

/// What efficiency is measured on, in tokens of all sequences of one variant: prompts that are read, answers that grow.
const EFFICIENCY_TOKENS: (u64, u64) = (8 * 128, 7 * 8 * 12);

/// Variants whose efficiency is measured: the base model, the pick, the pick of the NLL, the full adapter.
const EFFICIENCY_VARIANTS: u64 = 4;

/// How often each of them reports: once when prompts are read, once a round, once when it is loaded.
const EFFICIENCY_REPORTS: u64 = 9;

/// What will be scored of each sample that chooses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchPlan {
    /// Families, with the number of their members; an adaptive one's are not known beforehand.
    pub families: Vec<(Family, usize)>,
    /// Different variants among them.
    pub variants: usize,
    /// Layers that are computed.
    pub passes: usize,
    /// Layers with one run for each variant.
    pub naive: usize,
}

/// Work between two reports while efficiency is measured.
pub(super) fn efficiency_step(generator: &dyn Generator) -> u64 {
    let (read, grown) = EFFICIENCY_TOKENS;
    (read + DECODING * grown) * generator.token_work() / EFFICIENCY_REPORTS
}

impl Study {
    /// What will be scored of each sample that chooses, as far as it does not depend on scores.
    pub fn plan(&self) -> SearchPlan {
        let (norms, mut reversed) = (effects::joint_norms(&self.table.norms), Vec::new());
        let set = VariantSet::new(self.members(&self.facts_before(&norms, &mut reversed)));
        let families = self.families().into_iter().map(|family| (family, set.of(family).count())).collect();
        let (passes, naive) = layer_passes(set.variants(), &self.table.adapted);
        SearchPlan { families, variants: set.variants().len(), passes, naive }
    }

    /// Facts for what does not depend on scores. What activations will say of the order of layers is not known yet: any other
    /// order costs as much, if it is not one that another family goes by.
    pub(super) fn facts_before<'a>(&'a self, norms: &'a [f64], reversed: &'a mut Vec<f64>) -> Facts<'a> {
        *reversed = norms.iter().map(|norm| -norm).collect();
        self.facts(norms, reversed)
    }

    /// All stages in their order, with upper bounds of their work.
    pub(super) fn stages(
        &self,
        engines: &Engines<'_>,
        scoring: &mut Scoring<'_>,
        parts: &Parts<'_>,
    ) -> Vec<PlannedStage> {
        let Parts { selection, holdout, guard: [guard, guard_after], effects: some, .. } = parts;
        let choosing = Set::data(Part::Selection);
        let (norms, mut reversed) = (effects::joint_norms(&self.table.norms), Vec::new());
        let facts = self.facts_before(&norms, &mut reversed);
        let set = VariantSet::new(self.members(&facts));
        let not_in_set = |variants: Vec<Variant>| -> Vec<Variant> {
            variants.into_iter().filter(|variant| !set.variants().contains(variant)).collect()
        };
        let alone =
            |scoring: &Scoring<'_>, samples: &[&Sample], variants: usize| scoring.work_alone(samples) * variants as u64;

        let for_energies: Vec<Sample> = some.iter().map(|&sample| sample.clone()).collect();
        let mut stages = vec![(OUTPUTS, engines.probe.map_or(0, |probe| probe.energy_work(&for_energies)))];
        let [first, families] = self.stages_of_choosing(scoring, selection, &set);
        let on_guard = scoring.work(Task::scores(Set::guard(Part::Selection), guard, set.variants()));
        stages.extend([first, (GUARD, on_guard), families]);
        let mut rescored = usize::from(self.settings.strategy != Strategy::Exact) * 3;
        let folds = self.competition_folds();
        for family in self.families().into_iter().filter(|family| family.is_adaptive()) {
            let mut adaptive = Adaptive::new(family, &facts, &folds);
            let first = adaptive.step().map(|(_, variants)| variants).unwrap_or_default();
            let later = adaptive.most().saturating_sub(first.len());
            let work = scoring.work(Task::scores(choosing, selection, &first)) + alone(scoring, selection, later);
            stages.push((family.name(), work + alone(scoring, guard, 1)));
            rescored = rescored.max(1);
        }
        let answers = |samples: &[&Sample], boundaries: usize| -> Option<PlannedStage> {
            let (metric, generator) = (self.metric.as_ref()?, engines.generator?);
            let prompt = |sample: &Sample| metric.work(generator, &sample.tokens[..sample.answer[0]]);
            Some((ANSWERS, samples.iter().map(|sample| prompt(sample)).sum::<u64>() * boundaries as u64))
        };
        stages.extend(answers(selection, self.metric_boundaries()));
        if self.wants_controls() {
            let alphas = Family::GlobalAlpha.members(&facts).into_iter().map(|member| member.variant).collect();
            let tuned = scoring.work(Task::scores(choosing, selection, &not_in_set(alphas)));
            let drawn = if self.folds.is_some() { alone(scoring, selection, controls::MOST) } else { 0 };
            stages.push((CONTROLS, tuned + drawn));
        }
        stages.extend(self.stages_of_judging(scoring, holdout, guard_after));
        stages.extend(answers(holdout, 3));
        let of_effects = not_in_set(self.variants_of_effects(&facts));
        stages.push((EFFECTS, scoring.work(Task::scores(choosing, some, &of_effects))));
        let kept: Vec<&Sample> = selection.iter().copied().filter(|sample| scoring.keeps_tokens(sample)).collect();
        stages.push((TOKENS, alone(scoring, &kept, rescored)));
        let step = engines.generator.map_or(0, efficiency_step);
        stages.push((EFFICIENCY, EFFICIENCY_VARIANTS * EFFICIENCY_REPORTS * step));
        stages
    }

    /// Scoring of the candidate and its controls, on the samples that judge.
    fn stages_of_judging(
        &self,
        scoring: &mut Scoring<'_>,
        holdout: &[&Sample],
        guard: &[&Sample],
    ) -> Vec<PlannedStage> {
        let alone =
            |scoring: &Scoring<'_>, samples: &[&Sample], variants: usize| scoring.work_alone(samples) * variants as u64;
        let boundaries = match self.settings.strategy {
            Strategy::Exact => {
                let all = Variant::every_boundary(self.layers());
                let task = Task::scores(Set::data(Part::Holdout), holdout, &all).wanting(Wanted::Tokens);
                scoring.work(task)
            }
            // Base, full, the candidate, and what the NLL would have picked where a metric chooses.
            Strategy::Racing { .. } => alone(scoring, holdout, 3 + usize::from(self.metric.is_some())),
        };
        let of_other_families = alone(scoring, holdout, usize::from(self.families().len() > 1));
        let mut stages = vec![(JUDGING, boundaries + of_other_families)];
        if self.wants_controls() {
            stages.push((JUDGING_CONTROLS, alone(scoring, holdout, 1 + controls::MOST)));
        }
        stages.push((JUDGING_GUARD, alone(scoring, guard, 3)));
        stages
    }

    /// Scoring of what does not depend on scores, on the samples that choose.
    fn stages_of_choosing(
        &self,
        scoring: &mut Scoring<'_>,
        selection: &[&Sample],
        set: &VariantSet,
    ) -> [PlannedStage; 2] {
        let mut work = |variants: &[Variant]| {
            let task = Task::scores(Set::data(Part::Selection), selection, variants);
            scoring.work(task.wanting(Wanted::TokensAndLens))
        };
        match self.settings.strategy {
            Strategy::Exact => [(CHOOSING, work(set.variants())), (FAMILIES, 0)],
            Strategy::Racing { error_rate } => {
                let layers = self.layers();
                // A race scores a grid first, and what lies between the boundaries of the grid later.
                let grid = Race::new(layers, selection.len(), error_rate).left();
                let (first, later): (Vec<usize>, Vec<usize>) = (0..=layers).partition(|k| grid.contains(k));
                let of = |boundaries: Vec<usize>| -> Vec<Variant> {
                    boundaries.into_iter().map(|k| Variant::bottom_k(layers, k)).collect()
                };
                let others = set.members().iter().filter(|member| member.family != Family::BottomK);
                let others: Vec<Variant> = others.map(|member| member.variant.clone()).collect();
                // Other families are compared with base and full, which the race may have dropped.
                let (choosing, others) = (work(&of(first)) + work(&of(later)), work(&others));
                let ends = if self.families().len() > 1 { 2 * scoring.work_alone(selection) } else { 0 };
                [(CHOOSING, choosing), (FAMILIES, others + ends)]
            }
        }
    }

    /// The variants whose scores effects are made of.
    pub(super) fn variants_of_effects(&self, facts: &Facts<'_>) -> Vec<Variant> {
        match self.settings.effects.places {
            Some(places) => effects::variants(facts, places, self.settings.effects.order_pairs),
            None => Vec::new(),
        }
    }

    /// Boundaries that answer the selection samples at most.
    fn metric_boundaries(&self) -> usize {
        // The best, the pick of the NLL and the full adapter, and one of those that are near.
        self.settings.metric_candidates.max(4).min(self.layers() + 1)
    }
}
