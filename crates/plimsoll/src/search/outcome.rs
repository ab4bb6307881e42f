//! The findings of a search, without facts about files: scores of all variants, the verdict and the evidence.

use std::collections::HashSet;

use plimsoll_stats::choose::race::Fate;
use plimsoll_stats::choose::{self, Choice, JudgingSamples, Part, Verdict};
use plimsoll_stats::{mean_and_se, pareto};

use super::explain::{Explained, token_share};
use super::journal::{Known, Set};
use super::judge::{GuardJudgement, Judged, is_about_cut};
use super::score::Scored;
use super::scoring::Scoring;
use super::settings::{ControlScoring, Strategy};
use super::study::{Parts, Study};
use super::{competition, controls};
use crate::data::Sample;
use crate::lora::adapter::OtherBase;
use crate::lora::{Family, Member, Variant, VariantId};
use crate::result::{
    Arbitration, Candidate, Controls, Cost, DroppedBoundary, Effects, Efficiency, FrontPoint, LensSummary,
    MetricSummary, RaceSummary, Rules, SampleTokens, ScoreRow, ScoreSummary, SufficientLayers, TunedStrength,
    VariantScore, VariantSummary, Warning,
};

/// With fewer samples than these there is a warning: the intervals are too narrow.
const FEW_SELECTION: usize = 20;
const FEW_HOLDOUT: usize = 10;

/// If a smaller share of resamples agrees, there is a warning.
const STABLE_SHARE: f64 = 0.5;

/// The findings of a search, without facts about files.
#[derive(Clone, Debug)]
pub struct Findings {
    /// Every variant that was scored.
    pub variants: Vec<VariantSummary>,
    /// All of them by NLL, NLL of the guard's samples and bytes, with the Pareto front.
    pub front: Vec<FrontPoint>,
    /// Boundaries that the race dropped or skipped.
    pub race: Option<RaceSummary>,
    /// Probability curves.
    pub lens: LensSummary,
    /// The verdict, with its comparisons.
    pub choice: Choice,
    /// The candidate that was judged.
    pub candidate: Candidate,
    /// The candidate's variant.
    pub variant: Variant,
    /// How many layers keep a given share of the adapter's gain, by family.
    pub sufficient: Vec<SufficientLayers>,
    /// The LoRA strength of the whole adapter, if it was tuned.
    pub strength: Option<TunedStrength>,
    /// The competition of families.
    pub arbitration: Option<Arbitration>,
    /// The comparison with controls.
    pub controls: Option<Controls>,
    /// Effects of layers.
    pub effects: Effects,
    /// The candidate on the guard's samples.
    pub guard: Option<GuardJudgement>,
    /// Number of variants that the guard excludes.
    pub excluded: usize,
    /// The values of the metric.
    pub metric: Option<MetricSummary>,
    /// Speed and size of variants on this machine.
    pub efficiency: Option<Efficiency>,
    /// Number of samples that were not needed, because a look at the others settled the answer.
    pub unused: usize,
    /// The settings of the rules.
    pub rules: Rules,
    /// Warnings.
    pub warnings: Vec<Warning>,
    /// Scores of all samples, one row each, as in `scores.jsonl`.
    pub scores: Vec<ScoreRow>,
    /// Scores of the answer tokens of some samples, as in `tokens.jsonl`.
    pub tokens: Vec<SampleTokens>,
    /// The cost of the search.
    pub cost: Cost,
}

impl Findings {
    /// The variant that the verdict recommends.
    pub(super) fn kept(&self) -> Variant {
        let layers = self.variant.gates.len();
        match self.choice.verdict {
            Verdict::Trim => self.variant.clone(),
            Verdict::KeepFull => Variant::uniform(layers, 1.0),
            Verdict::UseBase => Variant::uniform(layers, 0.0),
        }
    }
}

/// Facts about the data and the base model that lead to warnings.
#[derive(Clone, Debug, Default)]
pub(super) struct DataNotes {
    /// Number of samples that were skipped because they are too long.
    pub(super) skipped: usize,
    /// Number of samples whose answer was cut.
    pub(super) cut: usize,
    /// Maximum length of a sample, in tokens.
    pub(super) max_length: usize,
    /// Number of samples whose answer does not end with a token that ends generation.
    pub(super) open_endings: Option<usize>,
    /// The names of both models, if the base model has another name than the one that the adapter was trained on.
    pub(super) other_base: Option<OtherBase>,
}

/// The results of all stages of a search.
pub(super) struct StageResults<'a> {
    pub(super) scored: &'a Scored,
    pub(super) arbitration: Option<Arbitration>,
    /// Number of variants that the guard excludes.
    pub(super) excluded: usize,
    pub(super) judged: Judged,
    pub(super) explained: Explained,
    pub(super) cost: Cost,
}

/// Gathers the findings from the results of the stages.
pub(super) fn gather(
    study: &Study,
    parts: &Parts<'_>,
    results: StageResults<'_>,
    scoring: &Scoring<'_>,
    notes: &DataNotes,
) -> Findings {
    let StageResults { scored, arbitration, excluded, judged, explained, cost } = results;
    let variants = variants(study, parts, scored, &judged.members, scoring);
    let warnings = warnings(study, &judged, &explained.tokens, notes);
    Findings {
        front: front(&variants),
        variants,
        race: race_summary(study, scored),
        candidate: competition::candidate(&judged.candidate, &study.table),
        lens: judged.lens,
        choice: judged.choice,
        variant: judged.candidate.variant,
        sufficient: judged.sufficient,
        strength: judged.strength,
        arbitration,
        controls: judged.controls,
        effects: explained.effects,
        guard: judged.guard,
        excluded,
        metric: judged.metric,
        efficiency: explained.efficiency,
        unused: 0,
        rules: Rules { search: Some(study.settings.strategy.kind()), ..Rules::from(&study.choose_options()) },
        warnings,
        scores: rows(parts, scoring),
        tokens: explained.tokens,
        cost,
    }
}

/// All scores: of the selection samples, of the held-out samples, and of the guard's samples.
fn rows(parts: &Parts<'_>, scoring: &Scoring<'_>) -> Vec<ScoreRow> {
    let sets = [
        (Set::data(Part::Selection), &parts.selection),
        (Set::data(Part::Holdout), &parts.holdout),
        (Set::guard(Part::Selection), &parts.guard[0]),
        (Set::guard(Part::Holdout), &parts.guard[1]),
    ];
    let row = |set: Set, sample: &&Sample| scoring.known(set, sample).row(set, scoring.table());
    sets.into_iter().flat_map(|(set, samples)| samples.iter().map(move |sample| row(set, sample))).collect()
}

/// Mean scores of the members of all families.
fn variants(
    study: &Study,
    parts: &Parts<'_>,
    scored: &Scored,
    members: &[Member],
    scoring: &Scoring<'_>,
) -> Vec<VariantSummary> {
    let known = |set: Set, samples: &[&Sample]| -> Vec<Known> {
        samples.iter().map(|sample| scoring.known(set, sample).clone()).collect()
    };
    let selection = known(Set::data(Part::Selection), &parts.selection);
    let holdout = known(Set::data(Part::Holdout), &parts.holdout);
    let guard = known(Set::guard(Part::Selection), &parts.guard[0]);
    let complete = |samples: &[Known], id: Option<VariantId>| {
        let id = id?;
        let is_complete = !samples.is_empty() && samples.iter().all(|sample| sample.scores.contains_key(&id));
        is_complete.then(|| summary(&samples.iter().collect::<Vec<_>>(), id))
    };
    let row = |member: &Member| {
        let id = scoring.table().get(&member.variant);
        let fate = (member.family == Family::BottomK)
            .then(|| scored.fates.as_ref()?.get(member.variant.boundary()?).copied())
            .flatten();
        let was_raced = fate.is_some_and(|fate| fate != Fate::Skipped);
        let is_dropped = fate.is_some_and(|fate| fate != Fate::Raced);
        let selection = complete(&selection, id).filter(|_| !is_dropped);
        let holdout = complete(&holdout, id);
        let guard = complete(&guard, id);
        (selection.is_some() || holdout.is_some() || was_raced).then(|| VariantSummary {
            family: member.family,
            label: member.label.clone(),
            at: member.position.number(),
            layers_kept: member.variant.layers_kept(),
            bytes: study.table.bytes_kept(&member.variant),
            gates: member.variant.spec(),
            selection,
            holdout,
            guard,
        })
    };
    members.iter().filter_map(row).collect()
}

fn race_summary(study: &Study, scored: &Scored) -> Option<RaceSummary> {
    let (Strategy::Racing { error_rate }, Some(fates)) = (study.settings.strategy, &scored.fates) else {
        return None;
    };
    let fates = || fates.iter().enumerate();
    let dropped = fates().filter_map(|(layers_kept, &fate)| match fate {
        Fate::Dropped { samples, leader, deficit, p } => {
            Some(DroppedBoundary { layers_kept, samples, leader, deficit, p })
        }
        Fate::Raced | Fate::Skipped => None,
    });
    let skipped = fates().filter(|(_, fate)| **fate == Fate::Skipped).map(|(k, _)| k);
    Some(RaceSummary { error_rate, dropped: dropped.collect(), skipped: skipped.collect() })
}

/// Warnings, the most important first.
fn warnings(study: &Study, judged: &Judged, tokens: &[SampleTokens], notes: &DataNotes) -> Vec<Warning> {
    let choice = &judged.choice;
    let (selection, holdout) = (study.split.selection.len(), choice.gain.samples);
    let share = choice.bootstrap[choice.one_se];
    // With a metric there are no controls.
    let is_uncontrolled = study.settings.controls == ControlScoring::Omitted
        && study.metric.is_none()
        && is_about_cut(choice)
        && controls::is_cut(&study.facts(&[], &[]), &judged.candidate.variant);
    let is_proven = choice.adapter_gain.mean > 0.0
        && choice.adapter_gain.p < choose::level(choice.adapter_gain.samples, choose::ChooseOptions::default().alpha);
    // The resamples pick boundaries only, and not by sufficient layers.
    let is_resampled = judged.candidate.family == Family::BottomK && choice.validation != JudgingSamples::All;
    let is_few = selection < FEW_SELECTION || holdout < FEW_HOLDOUT;
    let is_known_before = study.forewarnings.iter().any(|warning| matches!(warning, Warning::CannotShow { .. }));
    let DataNotes { skipped, cut, max_length, open_endings, other_base } = notes.clone();
    let warnings = [
        (is_few && !is_known_before).then_some(Warning::FewSamples { selection, holdout }),
        (skipped > 0).then_some(Warning::Skipped { samples: skipped, context: max_length }),
        (cut > 0).then_some(Warning::Cut { samples: cut, max_length }),
        open_endings.map(|samples| Warning::OpenEnding { samples }),
        token_share(tokens),
        other_base.map(|OtherBase { adapter, model }| Warning::OtherBase { adapter, model }),
        is_uncontrolled.then_some(Warning::ControlsOmitted),
        judged.metric.as_ref().is_some_and(|metric| !metric.decided).then_some(Warning::MetricUndecided),
        (share < STABLE_SHARE && is_resampled).then_some(Warning::Unstable { share }),
        (!is_proven).then_some(Warning::AdapterUnproven { p: choice.adapter_gain.p }),
    ];
    study.forewarnings.iter().cloned().chain(warnings.into_iter().flatten()).collect()
}

/// All scored variants, with the Pareto front.
fn front(variants: &[VariantSummary]) -> Vec<FrontPoint> {
    let mut seen = HashSet::new();
    // With a guard, variants without scores on its samples cannot be compared.
    let has_guard = variants.iter().any(|variant| variant.guard.is_some());
    let is_comparable = |variant: &&VariantSummary| {
        variant.selection.is_some() && variant.guard.is_some() == has_guard && seen.insert(variant.gates.clone())
    };
    let scored: Vec<&VariantSummary> = variants.iter().filter(is_comparable).collect();
    let objectives = |variant: &&VariantSummary| {
        let mut objectives = vec![variant.selection().mean_nll, variant.bytes as f64];
        objectives.extend(variant.guard.map(|guard| guard.mean_nll));
        objectives
    };
    let points: Vec<Vec<f64>> = scored.iter().map(objectives).collect();
    let is_best = pareto(&points);
    let point = |(variant, is_on_front): (&&VariantSummary, bool)| FrontPoint {
        family: variant.family,
        label: variant.label.clone(),
        gates: variant.gates.clone(),
        nll: variant.selection().mean_nll,
        guard: variant.guard.map(|guard| guard.mean_nll),
        bytes: variant.bytes,
        is_on_front,
    };
    scored.iter().zip(is_best).map(point).collect()
}

/// Mean scores under a variant, over samples that all have a score.
fn summary(samples: &[&Known], id: VariantId) -> ScoreSummary {
    let of = |value: &dyn Fn(&Known, &VariantScore) -> f64| -> (f64, f64) {
        let values = samples.iter().filter_map(|sample| Some(value(sample, sample.scores.get(&id)?)));
        mean_and_se(&values.collect::<Vec<f64>>())
    };
    let (mean_nll, se) = of(&|sample, score| score.nll / sample.tokens as f64);
    let (mean_probability, _) = of(&|_, score| score.probability);
    let (token_accuracy, _) = of(&|sample, score| score.correct as f64 / sample.tokens as f64);
    ScoreSummary { mean_nll, se, mean_probability, token_accuracy }
}
