//! The stages of a search with upper bounds of their work, before any score is known.

use plimsoll_stats::choose::race::Race;
use plimsoll_stats::choose::strength::StrengthTuning;
use plimsoll_stats::choose::{Part, Rule};

use super::competition::Adaptive;
use super::journal::Set;
use super::metric::DECODING;
use super::progress::PlannedStage;
use super::scoring::{Scoring, Task, Wanted};
use super::settings::Strategy;
use super::study::{Parts, Study};
use super::sufficient::groups;
use super::{controls, effects};
use crate::data::Sample;
use crate::engine::{Engines, Generator, layer_passes};
use crate::lora::{Facts, Family, Member, Variant, VariantSet};

pub(super) const OUTPUTS: &str = "outputs of layers";
pub(super) const CHOOSING: &str = "choosing";
pub(super) const GUARD: &str = "guard";
pub(super) const FAMILIES: &str = "families";
pub(super) const ANSWERS: &str = "answers";
pub(super) const CONTROLS: &str = "controls";
pub(super) const JUDGING: &str = "judging";
pub(super) const STRENGTH: &str = "strength";
pub(super) const AT_STRENGTH: &str = "layers at the strength";
pub(super) const JUDGING_CONTROLS: &str = "judging controls";
pub(super) const JUDGING_GUARD: &str = "judging on the guard";
pub(super) const EFFECTS: &str = "effects";
pub(super) const TOKENS: &str = "tokens";
pub(super) const EFFICIENCY: &str = "efficiency";

/// Tokens of all sequences of a variant when efficiency is measured: of prompts, and of answers.
const EFFICIENCY_TOKENS: (u64, u64) = (8 * 128, 7 * 8 * 4);

/// Variants whose efficiency is measured: the base model, the candidate, the pick of the NLL, the full adapter.
const EFFICIENCY_VARIANTS: u64 = 4;

/// Reports for each of them: one after the prompts, one after each round, one after loading.
const EFFICIENCY_REPORTS: u64 = 9;

/// The variants that a search will score on each selection sample, and their cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchPlan {
    /// Families with their numbers of members; members of adaptive families are not known in advance.
    pub families: Vec<(Family, usize)>,
    /// Number of distinct variants.
    pub variants: usize,
    /// Layer passes for each sample.
    pub passes: usize,
    /// Layer passes for each sample with one run per variant.
    pub naive: usize,
}

/// The variants of a search that do not depend on scores, before the energies of updates are measured.
struct PlannedVariants {
    /// The members whose order is known.
    known: VariantSet,
    /// The members of output-k, for some order of the layers. They are nested sets of layers, which have the same
    /// number of distinct prefixes at each layer whatever the order, and so the same cost.
    by_energy: Vec<Variant>,
}

impl PlannedVariants {
    /// An upper bound of the work on samples. Members of output-k may be other members too, but this is not known yet.
    fn work(&self, scoring: &mut Scoring<'_>, set: Set, samples: &[&Sample], wanted: Wanted) -> u64 {
        let known = self.known.variants();
        let task = Task::scores(set, samples, known).wanting(wanted);
        let work = scoring.work(task) + scoring.work(Task::scores(set, samples, &self.by_energy).wanting(wanted));
        // If there are several groups, each cut of the sequence of nested sets adds at most one pass.
        let is_cut = !self.by_energy.is_empty() && known.len() + self.by_energy.len() > scoring.group();
        let cuts = if is_cut { 1 + self.by_energy.len() / scoring.group() } else { 0 };
        work + scoring.work_alone(samples) * cuts as u64
    }
}

/// Work between two progress reports while efficiency is measured.
pub(super) fn efficiency_step(generator: &dyn Generator) -> u64 {
    let (read, grown) = EFFICIENCY_TOKENS;
    (read + DECODING * grown) * generator.token_work() / EFFICIENCY_REPORTS
}

impl Study {
    /// The variants that will be scored on each selection sample, without those that depend on scores.
    pub fn plan(&self) -> SearchPlan {
        let (norms, mut reversed) = (effects::joint_norms(&self.table.norms), Vec::new());
        let set = VariantSet::new(self.members(&self.facts_before(&norms, &mut reversed)));
        let families = self.families().into_iter().map(|family| (family, set.of(family).count())).collect();
        let (passes, naive) = layer_passes(set.variants(), &self.table.adapted);
        SearchPlan { families, variants: set.variants().len(), passes, naive }
    }

    /// Facts for planning. The energies of updates are not measured yet: the reverse order of norms stands for theirs.
    fn facts_before<'a>(&'a self, norms: &'a [f64], reversed: &'a mut Vec<f64>) -> Facts<'a> {
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
        let (by_energy, known): (Vec<Member>, Vec<Member>) =
            self.members(&facts).into_iter().partition(|member| member.family == Family::OutputK);
        let by_energy = by_energy.into_iter().map(|member| member.variant);
        let by_energy = by_energy.filter(|variant| !self.base_and_full().contains(variant)).collect();
        let variants = PlannedVariants { known: VariantSet::new(known), by_energy };
        let not_known = |others: Vec<Variant>| -> Vec<Variant> {
            others.into_iter().filter(|variant| !variants.known.variants().contains(variant)).collect()
        };
        let alone =
            |scoring: &Scoring<'_>, samples: &[&Sample], variants: usize| scoring.work_alone(samples) * variants as u64;

        let for_energies: Vec<Sample> = some.iter().map(|&sample| sample.clone()).collect();
        let mut stages = vec![(OUTPUTS, engines.probe.map_or(0, |probe| probe.energy_work(&for_energies)))];
        let [first, families] = self.stages_of_choosing(scoring, selection, &variants);
        let on_guard = variants.work(scoring, Set::guard(Part::Selection), guard, Wanted::Scores);
        stages.extend([first, (GUARD, on_guard), families]);
        let mut rescored = usize::from(matches!(self.settings.strategy, Strategy::Racing { .. })) * 3;
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
        let is_sufficient = self.settings.rule() == Rule::Sufficient;
        // Sufficient layers ask for answers after the judging, boundary by boundary; only those of the base model, the
        // full adapter and the first cut are planned.
        stages.extend(answers(selection, self.metric_boundaries()).filter(|_| !is_sufficient));
        let of_orders = variants.known.members().iter().filter(|member| member.family.is_prespecified());
        let of_orders: Vec<Variant> = of_orders.map(|member| member.variant.clone()).collect();
        stages.push((JUDGING, self.work_of_judging(scoring, holdout, of_orders)));
        stages.extend(if is_sufficient { answers(selection, 3) } else { answers(holdout, 3) });
        if self.tunes_strength(scoring.has_strengths()) {
            let strengths = StrengthTuning::most();
            stages.push((STRENGTH, alone(scoring, selection, strengths) + alone(scoring, holdout, strengths)));
        }
        if self.wants_controls() {
            let alphas = Family::GlobalAlpha.members(&facts).into_iter().map(|member| member.variant).collect();
            let tuned = scoring.work(Task::scores(choosing, selection, &not_known(alphas)));
            let drawn = if self.folds.is_some() { alone(scoring, selection, controls::MOST) } else { 0 };
            stages.push((CONTROLS, tuned + drawn));
            stages.push((JUDGING_CONTROLS, alone(scoring, holdout, 1 + controls::MOST)));
        }
        stages.push((JUDGING_GUARD, alone(scoring, guard_after, 3)));
        let of_effects = not_known(self.variants_of_effects(&facts));
        stages.push((EFFECTS, scoring.work(Task::scores(choosing, some, &of_effects))));
        let kept: Vec<&Sample> = selection.iter().copied().filter(|sample| scoring.keeps_tokens(sample)).collect();
        stages.push((TOKENS, alone(scoring, &kept, rescored)));
        let step = engines.generator.map_or(0, efficiency_step);
        stages.push((EFFICIENCY, EFFICIENCY_VARIANTS * EFFICIENCY_REPORTS * step));
        stages
    }

    /// Work of scoring the candidate on the judging samples, with all boundaries and the cuts of other fixed orders.
    fn work_of_judging(&self, scoring: &mut Scoring<'_>, holdout: &[&Sample], of_orders: Vec<Variant>) -> u64 {
        let alone = |scoring: &Scoring<'_>, variants: usize| scoring.work_alone(holdout) * variants as u64;
        let boundaries = match self.settings.strategy {
            Strategy::Auto | Strategy::Exact => {
                let mut all = Variant::every_boundary(self.layers());
                all.extend(of_orders);
                let all = Variant::distinct(&all);
                scoring.work(Task::scores(Set::data(Part::Holdout), holdout, &all).wanting(Wanted::Tokens))
            }
            Strategy::Sequential => 0,
            // Base, full, the candidate, and with a metric the pick of the NLL.
            Strategy::Racing { .. } => alone(scoring, 3 + usize::from(self.metric.is_some())),
        };
        boundaries + alone(scoring, usize::from(self.families().len() > 1))
    }

    /// Scoring of variants that do not depend on scores, on the selection samples.
    fn stages_of_choosing(
        &self,
        scoring: &mut Scoring<'_>,
        selection: &[&Sample],
        variants: &PlannedVariants,
    ) -> [PlannedStage; 2] {
        let set = Set::data(Part::Selection);
        match self.settings.strategy {
            Strategy::Auto | Strategy::Exact => {
                [(CHOOSING, variants.work(scoring, set, selection, Wanted::TokensAndLens)), (FAMILIES, 0)]
            }
            Strategy::Sequential => {
                let mut bound = 0;
                let mut wanted = self.base_and_full().to_vec();
                let boundaries: Vec<usize> = (1..self.table.layers_up_to_highest()).rev().collect();
                for group in groups(&boundaries) {
                    wanted.extend(group.into_iter().map(|k| Variant::bottom_k(self.layers(), k)));
                    bound += scoring.work(Task::scores(set, selection, &wanted).wanting(Wanted::Tokens));
                    wanted.clear();
                }
                // Without a cut, base and full are scored alone.
                bound += scoring.work(Task::scores(set, selection, &wanted).wanting(Wanted::Tokens));
                [(CHOOSING, bound), (FAMILIES, 0)]
            }
            Strategy::Racing { error_rate } => {
                let layers = self.layers();
                // A race scores a grid of boundaries first, and the boundaries between them later.
                let grid = Race::new(layers, selection.len(), error_rate).left();
                let (first, later): (Vec<usize>, Vec<usize>) = (0..=layers).partition(|k| grid.contains(k));
                let of = |boundaries: Vec<usize>| -> Vec<Variant> {
                    boundaries.into_iter().map(|k| Variant::bottom_k(layers, k)).collect()
                };
                let [first, later] = [of(first), of(later)].map(|variants| {
                    scoring.work(Task::scores(set, selection, &variants).wanting(Wanted::TokensAndLens))
                });
                let others = variants.known.members().iter().filter(|member| member.family != Family::BottomK);
                let others = VariantSet::new(others.cloned().collect());
                let others = PlannedVariants { known: others, by_energy: variants.by_energy.clone() };
                let others = others.work(scoring, set, selection, Wanted::TokensAndLens);
                // Other families are compared with base and full, which the race may have dropped.
                let base_and_full = if self.families().len() > 1 { 2 * scoring.work_alone(selection) } else { 0 };
                [(CHOOSING, first + later), (FAMILIES, others + base_and_full)]
            }
        }
    }

    /// The variants whose scores are needed for effects.
    pub(super) fn variants_of_effects(&self, facts: &Facts<'_>) -> Vec<Variant> {
        match self.settings.effects.places {
            Some(places) => effects::variants(facts, places, self.settings.effects.order_pairs),
            None => Vec::new(),
        }
    }

    /// Maximum number of boundaries that answer the selection samples.
    fn metric_boundaries(&self) -> usize {
        // At least four: the best, the pick of the NLL, the full adapter, and one near the best.
        self.settings.metric_candidates.max(4).min(self.layers() + 1)
    }
}
