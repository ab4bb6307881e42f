//! The stages of a search, and upper bounds of their work, before any score is known.

use super::competition::Adaptive;
use super::controls;
use super::effects;
use super::journal::Set;
use super::metric::DECODING;
use super::progress::Planned;
use super::scoring::{Scoring, Wanted};
use super::{COMPETITION_FOLDS, Search, Strategy};
use crate::choose::race::Race;
use crate::choose::{self, Part};
use crate::data::Sample;
use crate::engine::Embedded;
use crate::gates::{Facts, Family, Variant, VariantSet};

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

/// The samples of a search, by what they are for.
#[derive(Clone, Debug)]
pub(super) struct Parts<'a> {
    pub(super) selection: Vec<&'a Sample>,
    pub(super) holdout: Vec<&'a Sample>,
    /// Selection and held out.
    pub(super) guarded: [Vec<&'a Sample>; 2],
    /// Those that effects are measured on.
    pub(super) some: Vec<&'a Sample>,
}

/// Work between two reports while efficiency is measured.
pub(super) fn efficiency_step(engine: &Embedded) -> u64 {
    let (read, grown) = EFFICIENCY_TOKENS;
    (read + DECODING * grown) * engine.token_work() / EFFICIENCY_REPORTS
}

impl Search {
    /// Facts for what does not depend on scores. What activations will say of the order of layers is not known yet: any other
    /// order costs as much, if it is not one that another family goes by.
    pub(super) fn facts_before<'a>(&'a self, norms: &'a [f64], reversed: &'a mut Vec<f64>) -> Facts<'a> {
        *reversed = norms.iter().map(|norm| -norm).collect();
        self.facts(norms, reversed)
    }

    /// All stages in their order, with upper bounds of their work.
    pub(super) fn stages(&self, engine: &Embedded, scoring: &Scoring<'_>, parts: &Parts<'_>) -> Vec<Planned> {
        let Parts { selection, holdout, guarded: [guarded, guarded_after], some } = parts;
        let (choosing, judging) = (Set::data(Part::Selection), Set::data(Part::Holdout));
        let (norms, mut reversed) = (effects::joint_norms(&self.magnitudes), Vec::new());
        let facts = self.facts_before(&norms, &mut reversed);
        let set = VariantSet::new(self.members(&facts));
        let not_in_set = |variants: Vec<Variant>| -> Vec<Variant> {
            variants.into_iter().filter(|variant| !set.variants().contains(variant)).collect()
        };
        let alone = |samples: &[&Sample], variants: usize| scoring.work_alone(samples) * variants as u64;

        let energies: Vec<Sample> = some.iter().map(|&sample| sample.clone()).collect();
        let mut stages = vec![(OUTPUTS, engine.energy_work(&energies))];
        stages.extend(self.stages_of_choosing(scoring, selection, &set));
        let on_guard = scoring.work(Set::guard(Part::Selection), guarded, set.variants(), Wanted::Scores);
        // Families come after the guard.
        stages.insert(2, (GUARD, on_guard));
        let mut are_told = usize::from(self.options.strategy != Strategy::Exact) * 3;
        let folds = choose::folds(selection.len(), self.folds.unwrap_or(COMPETITION_FOLDS), self.options.seed);
        for family in self.families().into_iter().filter(|family| family.is_adaptive()) {
            let mut adaptive = Adaptive::new(family, &facts, &folds);
            let first = adaptive.step().map(|(_, variants)| variants).unwrap_or_default();
            let later = adaptive.most().saturating_sub(first.len());
            let work = scoring.work(choosing, selection, &first, Wanted::Scores) + alone(selection, later);
            stages.push((family.name(), work + alone(guarded, 1)));
            are_told = are_told.max(1);
        }
        let answers = |samples: &[&Sample], boundaries: usize| -> Option<Planned> {
            let chooser = self.chooser.as_ref()?;
            let prompt = |sample: &Sample| chooser.work(engine, &sample.tokens[..sample.answer[0]]);
            Some((ANSWERS, samples.iter().map(|sample| prompt(sample)).sum::<u64>() * boundaries as u64))
        };
        stages.extend(answers(selection, self.metric_boundaries()));
        if self.wants_controls() {
            let alphas = Family::GlobalAlpha.members(&facts).into_iter().map(|member| member.variant).collect();
            let tuned = scoring.work(choosing, selection, &not_in_set(alphas), Wanted::Scores);
            let drawn = if self.folds.is_some() { alone(selection, controls::MOST) } else { 0 };
            stages.push((CONTROLS, tuned + drawn));
        }
        let boundaries = match self.options.strategy {
            Strategy::Exact => {
                let all = Variant::every_boundary(facts.layers());
                scoring.work(judging, holdout, &all, Wanted::Tokens)
            }
            // Base, full, the candidate, and what the NLL would have picked where a metric chooses.
            Strategy::Racing { .. } => alone(holdout, 3 + usize::from(self.chooser.is_some())),
        };
        stages.push((JUDGING, boundaries + alone(holdout, usize::from(self.families().len() > 1))));
        if self.wants_controls() {
            stages.push((JUDGING_CONTROLS, alone(holdout, 1 + controls::MOST)));
        }
        stages.push((JUDGING_GUARD, alone(guarded_after, 3)));
        stages.extend(answers(holdout, 3));
        let of_effects = not_in_set(self.variants_of_effects(&facts));
        stages.push((EFFECTS, scoring.work(choosing, some, &of_effects, Wanted::Scores)));
        let told: Vec<&Sample> = selection.iter().copied().filter(|sample| scoring.tells(sample)).collect();
        stages.push((TOKENS, alone(&told, are_told)));
        stages.push((EFFICIENCY, EFFICIENCY_VARIANTS * EFFICIENCY_REPORTS * efficiency_step(engine)));
        stages
    }

    /// Scoring of what does not depend on scores, on the samples that choose.
    fn stages_of_choosing(&self, scoring: &Scoring<'_>, selection: &[&Sample], set: &VariantSet) -> [Planned; 2] {
        let work =
            |variants: &[Variant]| scoring.work(Set::data(Part::Selection), selection, variants, Wanted::TokensAndLens);
        match self.options.strategy {
            Strategy::Exact => [(CHOOSING, work(set.variants())), (FAMILIES, 0)],
            Strategy::Racing { error_rate } => {
                let layers = self.adapted.len();
                // A race scores a grid first, and what lies between the boundaries of the grid later.
                let grid = Race::new(layers, selection.len(), error_rate).left();
                let (first, later): (Vec<usize>, Vec<usize>) = (0..=layers).partition(|k| grid.contains(k));
                let of = |boundaries: Vec<usize>| -> Vec<Variant> {
                    boundaries.into_iter().map(|k| Variant::bottom_k(layers, k)).collect()
                };
                let others = set.members().iter().filter(|member| member.family != Family::BottomK);
                let others: Vec<Variant> = others.map(|member| member.variant.clone()).collect();
                // Other families are compared with base and full, which the race may have dropped.
                let ends = if self.families().len() > 1 { 2 * scoring.work_alone(selection) } else { 0 };
                [(CHOOSING, work(&of(first)) + work(&of(later))), (FAMILIES, work(&others) + ends)]
            }
        }
    }

    /// The variants whose scores effects are made of.
    pub(super) fn variants_of_effects(&self, facts: &Facts<'_>) -> Vec<Variant> {
        match self.options.effects {
            Some(places) => effects::variants(facts, places, self.options.order_pairs),
            None => Vec::new(),
        }
    }

    /// Boundaries that answer the selection samples at most.
    fn metric_boundaries(&self) -> usize {
        // The best, the pick of the NLL and the full adapter, and one of those that are near.
        self.options.metric_candidates.max(4).min(self.adapted.len() + 1)
    }
}
