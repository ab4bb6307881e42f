//! The third stage: judges the candidate by samples that had no part in picking it, and compares it with controls.

use std::collections::{BTreeMap, HashSet};

use plimsoll_stats as stats;
use plimsoll_stats::choose::sufficient::{Sequence, Stop};
use plimsoll_stats::choose::{
    self, Choice, ChooseProblem, ControlGains, CutKind, Gain, Input, JudgingSamples, Part, Reason, Rule, Scores,
    Verdict, choose, choose_nested, cross_validate_by, judge,
};
use plimsoll_stats::metrics::compare;

use super::answered::Answered;
use super::controls::{self, PlannedControl};
use super::journal::{Known, Set};
use super::metric::{Answering, Chooser, Valued};
use super::score::Scored;
use super::scoring::{Counted, Observer, Scoring, Task, Wanted};
use super::select::Selected;
use super::settings::Strategy;
use super::strength::{self, Strength, StrengthAnswer, of_claim};
use super::study::{Parts, Study};
use super::sufficient::{Decision, Ordered, decide, list, margins, ordered};
use super::{lens, plan};
use crate::data::Sample;
use crate::error::{Error, Result};
use crate::lora::{Family, Member, Place, Places, Variant};
use crate::result::{
    Control, Controls, Depth, LensSummary, MetricSummary, MetricVariant, SufficientLayers, TunedStrength,
};

/// The result of the third stage: the candidate and the verdict.
#[derive(Debug)]
pub(super) struct Judged {
    /// All members that were scored, family by family.
    pub(super) members: Vec<Member>,
    /// The candidate that was judged: the pick of the NLL if the metric could not decide.
    pub(super) candidate: Member,
    /// The verdict with its comparisons, and the picks of the rules.
    pub(super) choice: Choice,
    /// The values of the metric, if there is one.
    pub(super) metric: Option<MetricSummary>,
    /// The sufficient layers of each family whose order is fixed.
    pub(super) sufficient: Vec<SufficientLayers>,
    /// The strength of the whole adapter, if it was tuned.
    pub(super) strength: Option<TunedStrength>,
    pub(super) controls: Option<Controls>,
    pub(super) guard: Option<GuardJudgement>,
    /// Probability curves on the selection samples.
    pub(super) lens: LensSummary,
    /// The main variants: the base model, the pick of the NLL, the candidate as it was selected, and the full adapter.
    pub(super) main: [Variant; 4],
}

/// The candidate on the guard's samples.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct GuardJudgement {
    /// The gain of the candidate over the full adapter, in nats per answer token.
    pub gain: Gain,
    /// The gain of the full adapter over the base model.
    pub adapter_gain: Gain,
    /// Whether the candidate is shown to lose less than the margin.
    pub is_held: bool,
}

/// Scores the boundaries on the judging samples, chooses, and compares the candidate with its controls.
pub(super) fn judge_candidate(
    study: &Study,
    parts: &Parts<'_>,
    scored: &Scored,
    selected: Selected,
    scoring: &mut Scoring<'_>,
    mut answering: Option<&mut Answering<'_>>,
    observe: Observer<'_>,
) -> Result<Judged> {
    let (layers, judging) = (study.layers(), Set::data(Part::Holdout));
    let [base, full] = study.base_and_full();
    let is_raced = matches!(study.settings.strategy, Strategy::Racing { .. });
    let orders = if is_raced { Vec::new() } else { ordered(study, &scored.set, &selected.excluded) };
    // The boundary that the rule picks is judged too, whichever family won.
    let by_nll = Variant::bottom_k(layers, selected.boundary);
    let mut variants = if scored.fates.is_none() { Variant::every_boundary(layers) } else { Vec::new() };
    variants.extend([base.clone(), by_nll.clone(), selected.candidate.variant.clone(), full.clone()]);
    variants.extend(orders.iter().flat_map(|order| &order.cuts).map(|member| member.variant.clone()));
    let variants = Variant::distinct(&variants);
    scoring.begin(plan::JUDGING);
    let task = Task::scores(judging, &parts.holdout, &variants).wanting(Wanted::Tokens);
    scoring.evaluate(task, Counted::Samples, observe)?;
    let mut valued = None;
    if let (Some(answering), Some((found, pick))) = (&mut answering, &selected.by_metric) {
        let mut boundaries = vec![0, *pick, layers];
        boundaries.dedup();
        scoring.begin(plan::ANSWERS);
        let holdout = answering.values(Part::Holdout, &parts.holdout, &boundaries, scoring.stages(), observe)?;
        valued = Some(Valued { holdout, ..found.clone() });
    }

    let strength = strength::tune(study, parts, scoring, observe)?;
    let answering = answering.filter(|_| selected.by_metric.is_none());
    let answered = answering.map(|answering| Answered::descend(study, &parts.selection, answering, scoring, observe));
    let answered = answered.transpose()?;

    let options = study.choose_options();
    let judge = Judge { study, parts, scoring, scored };
    let lens = judge.lens(&options);
    let curve: Vec<f64> = lens.full.iter().map(|point| point.probability).collect();
    let chosen = judge.choose(&selected, valued.as_ref(), &orders, &curve, &options)?;
    let chosen = judge.with_strength(chosen, strength.as_ref())?;
    let chosen = judge.with_answers(chosen, answered.as_ref())?;
    let Chosen { mut choice, candidate, judged, metric, sufficient, strength: tuned } = chosen;

    let mut members = selected.members;
    add_members(&mut members, strength.iter().flat_map(|strength| &strength.members));
    let planned = if study.wants_controls() && is_about_cut(&choice) {
        score_controls(study, parts, scored, &candidate, &mut members, scoring, observe)?
    } else {
        Vec::new()
    };
    let of_controls: Vec<Variant> = planned.iter().flat_map(|control| control.variants.clone()).collect();
    scoring.begin(plan::JUDGING_CONTROLS);
    scoring.evaluate(Task::scores(judging, &parts.holdout, &of_controls), Counted::Samples, observe)?;
    scoring.begin(plan::JUDGING_GUARD);
    let shown = Variant::distinct(&[base.clone(), candidate.variant.clone(), full.clone()]);
    let task = Task::scores(Set::guard(Part::Holdout), &parts.guard[1], &shown);
    scoring.evaluate(task, Counted::Samples, observe)?;

    let judge = Judge { study, parts, scoring, scored };
    let guard = judge.guard(&candidate.variant, &options)?;
    if choice.verdict == Verdict::Trim && guard.is_some_and(|guard| !guard.is_held) {
        (choice.verdict, choice.reason, choice.layers_kept) = (Verdict::KeepFull, Reason::GuardNotHeld, layers);
    }
    let controls = judge.controls(&planned, &candidate.variant, judged, &choice, &options)?;
    let main = [base, by_nll, candidate.variant.clone(), full];
    Ok(Judged { members, candidate, choice, metric, sufficient, strength: tuned, controls, guard, lens, main })
}

impl Judged {
    /// Whether more samples would hardly change the answer for the margin: the next cut is shown to lose more, or there
    /// is none, and no other strength is open.
    pub(super) fn is_settled(&self, options: &choose::ChooseOptions) -> bool {
        let row = self.sufficient.first().and_then(|list| list.row(options.margin));
        let is_margin_settled =
            row.is_some_and(|row| matches!(row.answer.stop, Stop::LosesMore { .. } | Stop::NoMoreCuts));
        let is_open = |strength: &TunedStrength| strength.strength != 1.0 && !strength.is_better;
        is_margin_settled && !self.strength.as_ref().is_some_and(is_open)
    }
}

/// Adds the members that are not there yet.
fn add_members<'a>(members: &mut Vec<Member>, added: impl Iterator<Item = &'a Member>) {
    for member in added {
        if !members.iter().any(|other| other.family == member.family && other.variant == member.variant) {
            members.push(member.clone());
        }
    }
}

/// Whether the choice is about a cut that controls can be compared with. A cut that does not hold its margin needs
/// none.
pub(super) fn is_about_cut(choice: &Choice) -> bool {
    choice.validation != JudgingSamples::All || choice.verdict == Verdict::Trim
}

/// Plans the controls of a cut, and scores the tuned ones on the selection samples.
fn score_controls(
    study: &Study,
    parts: &Parts<'_>,
    scored: &Scored,
    candidate: &Member,
    members: &mut Vec<Member>,
    scoring: &mut Scoring<'_>,
    observe: Observer<'_>,
) -> Result<Vec<PlannedControl>> {
    let facts = scored.facts(study);
    if !controls::is_cut(&facts, &candidate.variant) {
        return Ok(Vec::new());
    }
    let (set, selection) = (Set::data(Part::Selection), parts.selection.as_slice());
    scoring.begin(plan::CONTROLS);
    // Without strengths, only controls that need no tuning are possible.
    let alphas = if scoring.has_strengths() { Family::GlobalAlpha.members(&facts) } else { Vec::new() };
    let variants: Vec<Variant> = alphas.iter().map(|member| member.variant.clone()).collect();
    let untuned = controls::planned(&facts, &candidate.variant);
    // With folds all samples judge, so untuned controls are scored in the same pass.
    let judging_too = untuned.iter().filter(|_| study.folds.is_some()).flat_map(|control| &control.variants);
    let all: Vec<Variant> = variants.iter().chain(judging_too).cloned().collect();
    scoring.evaluate(Task::scores(set, selection, &all), Counted::Samples, observe)?;
    add_members(members, alphas.iter());
    if alphas.is_empty() {
        return Ok(untuned);
    }
    let everyone: Vec<usize> = (0..selection.len()).collect();
    let nll = variants.iter().map(|variant| scoring.nll(set, selection, variant));
    let best = controls::best(&nll.collect::<Result<Vec<_>>>()?, &everyone);
    let tuned = PlannedControl {
        family: Family::GlobalAlpha,
        label: alphas[best].label.clone(),
        // With folds, the strength is tuned in each fold.
        variants: if study.folds.is_some() { variants } else { vec![variants[best].clone()] },
    };
    Ok(std::iter::once(tuned).chain(untuned).collect())
}

/// The choice and what it is about.
struct Chosen {
    choice: Choice,
    candidate: Member,
    /// The losses of all samples that were judged, if they are not those of one variant.
    judged: Option<Vec<f64>>,
    metric: Option<MetricSummary>,
    sufficient: Vec<SufficientLayers>,
    strength: Option<TunedStrength>,
}

impl Chosen {
    /// A choice by the NLL.
    fn new(choice: Choice, candidate: Member, sufficient: Vec<SufficientLayers>) -> Self {
        Self { choice, candidate, judged: None, metric: None, sufficient, strength: None }
    }
}

/// Applies the rules that judge to the scores.
struct Judge<'a> {
    study: &'a Study,
    parts: &'a Parts<'a>,
    scoring: &'a Scoring<'a>,
    scored: &'a Scored,
}

impl Judge<'_> {
    fn known(&self, part: Part) -> Vec<&Known> {
        let samples = match part {
            Part::Selection => &self.parts.selection,
            Part::Holdout => &self.parts.holdout,
        };
        samples.iter().map(|sample| self.scoring.known(Set::data(part), sample)).collect()
    }

    fn samples(&self, part: Part) -> &[&Sample] {
        match part {
            Part::Selection => &self.parts.selection,
            Part::Holdout => &self.parts.holdout,
        }
    }

    fn nll(&self, part: Part, variant: &Variant) -> Result<Vec<f64>> {
        self.scoring.nll(Set::data(part), self.samples(part), variant)
    }

    /// The probability curves of the base model and of the full adapter.
    fn lens(&self, options: &choose::ChooseOptions) -> LensSummary {
        let known = self.known(Part::Selection);
        let curve = |which: usize| {
            let curves: Vec<_> = known.iter().filter_map(|sample| sample.lens.get(which)).collect();
            (lens::summarise(&curves, options.seed, options.resamples), curves.len())
        };
        let ((base, _), (full, samples)) = (curve(0), curve(1));
        LensSummary { base, full, samples }
    }

    /// The NLL of every sample of a part at some boundaries.
    fn scores(&self, part: Part, boundaries: &[usize]) -> Result<Scores> {
        let layers = self.study.layers();
        let column = |&k: &usize| self.nll(part, &Variant::bottom_k(layers, k));
        let columns = boundaries.iter().map(column).collect::<Result<Vec<_>>>()?;
        let samples = self.samples(part).len();
        let rows: Vec<Vec<f64>> =
            (0..samples).map(|sample| columns.iter().map(|column| column[sample]).collect()).collect();
        Scores::new(part, boundaries, &rows).map_err(internal)
    }

    /// The boundaries at which every sample of a part was scored.
    fn complete(&self, part: Part) -> Vec<usize> {
        let layers = self.study.layers();
        (0..=layers).filter(|&k| self.nll(part, &Variant::bottom_k(layers, k)).is_ok()).collect()
    }

    /// The choice by the settings' rule, and its candidate.
    fn choose(
        &self,
        selected: &Selected,
        valued: Option<&Valued>,
        orders: &[Ordered],
        curve: &[f64],
        options: &choose::ChooseOptions,
    ) -> Result<Chosen> {
        let layers = self.study.layers();
        if self.study.settings.strategy == Strategy::Sequential {
            return self.choose_alone(orders, options);
        }
        // The pick and the strength are two claims that something is better.
        let claim = of_claim(options, self.study.claims(self.scoring.has_strengths()));
        let (picked, by_boundary) = self.choose_boundary(curve, &selected.excluded, &claim)?;
        if let Some(valued) = valued {
            let (choice, metric) = self.choose_by_metric(valued, by_boundary, curve, options)?;
            // If the metric could not decide, the pick of the NLL is the candidate.
            let undecided = metric.as_ref().filter(|metric| !metric.decided);
            let candidate = undecided.map_or(selected.candidate.clone(), |_| Member::boundary(layers, picked));
            return Ok(Chosen { metric, ..Chosen::new(choice, candidate, Vec::new()) });
        }
        let candidate = match options.rule {
            Rule::Sufficient | Rule::OneSe => selected.candidate.clone(),
            Rule::Best | Rule::Curve => Member::boundary(layers, picked),
        };
        let choice = match candidate.variant.boundary() {
            Some(k) if k == picked => by_boundary,
            _ => self.judge(&candidate.variant, by_boundary, &claim)?,
        };
        if orders.is_empty() {
            return Ok(Chosen::new(choice, candidate, Vec::new()));
        }
        let by_sequence = |sequence: &Sequence<'_>| sequence.choose(choice.clone());
        let decision = decide(self.study, self.parts, self.scoring, orders, options, &by_sequence)?;
        if options.rule != Rule::Sufficient {
            return Ok(Chosen::new(choice, candidate, decision.lists));
        }
        let candidate = decision.candidate.unwrap_or_else(|| match decision.choice.verdict {
            _ if decision.choice.validation != JudgingSamples::All => candidate,
            Verdict::UseBase => Member::boundary(layers, 0),
            // No cut was tested.
            Verdict::KeepFull | Verdict::Trim => Member::boundary(layers, layers),
        });
        Ok(Chosen::new(decision.choice, candidate, decision.lists))
    }

    /// The choice of a sequential search: sufficient layers, without a pick.
    fn choose_alone(&self, orders: &[Ordered], options: &choose::ChooseOptions) -> Result<Chosen> {
        let (layers, part) = (self.study.layers(), Part::Selection);
        let scores = self.scores(part, &self.complete(part))?;
        let alone = |sequence: &Sequence<'_>| sequence.choose_alone(&scores, layers);
        let Decision { lists, choice, candidate } =
            decide(self.study, self.parts, self.scoring, orders, options, &alone)?;
        let untested = if choice.verdict == Verdict::UseBase { 0 } else { layers };
        Ok(Chosen::new(choice, candidate.unwrap_or_else(|| Member::boundary(layers, untested)), lists))
    }

    /// The choice with the list of the tuned strength. If the strength is shown to be better, that answer comes first,
    /// unless a cut is shown to gain more.
    fn with_strength(&self, mut chosen: Chosen, strength: Option<&Strength>) -> Result<Chosen> {
        let Some(strength) = strength else { return Ok(chosen) };
        let answer = strength.answer(self.study, self.parts, self.scoring, &chosen.choice)?;
        let summary = chosen.strength.insert(strength.summary.clone());
        let Some(StrengthAnswer { choice, candidate, losses, list, held }) = answer else { return Ok(chosen) };
        summary.sufficient = held;
        chosen.sufficient.extend(list);
        let is_cut_better = matches!(chosen.choice.reason, Reason::Better | Reason::BetterThanBase);
        if is_cut_better && chosen.choice.gain.mean >= choice.gain.mean {
            return Ok(chosen);
        }
        Ok(Chosen { choice, candidate, judged: Some(losses), ..chosen })
    }

    /// The choice by the metric's sufficient layers, which comes before that of the NLL if the metric can separate the
    /// full adapter from the base model.
    fn with_answers(&self, mut chosen: Chosen, answered: Option<&Answered>) -> Result<Chosen> {
        let Some(answered) = answered else { return Ok(chosen) };
        let (study, layers, options) = (self.study, self.study.layers(), self.study.metric_options());
        let sequence = answered.sequence(&options);
        let (choice, about) = sequence.choose_alone(&answered.scores()?, layers);
        let cuts: Vec<Member> = (1..layers).map(|k| Member::boundary(layers, k)).collect();
        let list = list(study, Family::BottomK, &cuts, &sequence, margins(options.margin));
        let metric = study.metric.as_ref().map(Chooser::name);
        let list = SufficientLayers { metric, ..list };
        let decided = is_decided(&choice);
        let by_nll = chosen.choice.clone();
        chosen.metric = self.metric_summary(&answered.values, by_nll, decided);
        // The list that the choice is from comes first.
        chosen.sufficient.insert(if decided { 0 } else { chosen.sufficient.len() }, list);
        if !decided {
            return Ok(chosen);
        }
        let untested = if choice.verdict == Verdict::UseBase { 0 } else { layers };
        Ok(Chosen { choice, candidate: Member::boundary(layers, about.unwrap_or(untested)), judged: None, ..chosen })
    }

    /// The choice among the boundaries, without other families, and the boundary that the rule picked.
    fn choose_boundary(
        &self,
        curve: &[f64],
        excluded: &HashSet<String>,
        options: &choose::ChooseOptions,
    ) -> Result<(usize, Choice)> {
        let (layers, whole) = (self.study.layers(), self.study.table.layers_up_to_highest());
        let mut picks = self.study.allowed_boundaries(self.scored.fates.as_deref(), excluded);
        if let Some(folds) = self.study.folds {
            let scores = self.scores(Part::Selection, &picks)?;
            let choice = choose_nested(&scores, layers, curve, whole, folds, options).map_err(internal)?;
            return Ok((scores.pick_by(options.rule, curve), choice));
        }
        if picks.is_empty() {
            picks.push(layers);
        }
        let selection = self.scores(Part::Selection, &picks)?;
        let picked = selection.pick_by(options.rule, curve);
        let holdout = self.scores(Part::Holdout, &self.complete(Part::Holdout))?;
        let input = Input::of(selection, holdout, layers, curve).map_err(internal)?;
        Ok((picked, choose(&input.with_whole(whole), options).map_err(internal)?))
    }

    /// The choice with the judgement on a candidate that is not the boundary that was judged.
    fn judge(&self, candidate: &Variant, by_boundary: Choice, options: &choose::ChooseOptions) -> Result<Choice> {
        let study = self.study;
        let facts = study.facts(&[], &[]);
        let gate = |place: &Place| place.module.map(|module| candidate.gates[place.layer].get(module));
        let kind = if facts.places(Places::Modules).all(|place| gate(&place) == Some(1.0)) {
            CutKind::Whole
        } else if facts.places(Places::Modules).all(|place| gate(&place) == Some(0.0)) {
            CutKind::Nothing
        } else if study.table.bytes_kept(candidate) == study.table.total_bytes() {
            CutKind::Changed
        } else {
            CutKind::Cut
        };
        let [base, full] = study.base_and_full();
        let [base, full, cut] = [&base, &full, candidate].map(|variant| self.nll(Part::Holdout, variant));
        let judgement = judge(&base?, &full?, &cut?, kind, options);
        Ok(by_boundary.with(&judgement, candidate.layers_kept()))
    }

    /// The choice by the metric, or by the NLL if the metric cannot separate the full adapter from the base model.
    fn choose_by_metric(
        &self,
        valued: &Valued,
        by_nll: Choice,
        curve: &[f64],
        options: &choose::ChooseOptions,
    ) -> Result<(Choice, Option<MetricSummary>)> {
        let selection = valued.scores(Part::Selection, &valued.candidates)?;
        let holdout = valued.scores(Part::Holdout, &valued.judged())?;
        let input = Input::of(selection, holdout, self.study.layers(), curve).map_err(internal)?;
        let by_metric =
            choose(&input.with_whole(self.study.table.layers_up_to_highest()), options).map_err(internal)?;
        let decided = is_decided(&by_metric);
        let choice = if decided { by_metric } else { by_nll.clone() };
        Ok((choice, self.metric_summary(valued, by_nll, decided)))
    }

    /// The values of the metric, and the choice by the NLL.
    fn metric_summary(&self, valued: &Valued, by_nll: Choice, decided: bool) -> Option<MetricSummary> {
        let chooser = self.study.metric.as_ref()?;
        let options = compare::CompareOptions { seed: self.study.settings.seed, ..compare::CompareOptions::default() };
        let metric = &chooser.measured.metric;
        let estimate = |samples: &[BTreeMap<usize, f64>], k: usize| {
            let rows: Vec<Vec<f64>> = samples.iter().filter_map(|values| Some(vec![*values.get(&k)?])).collect();
            (!rows.is_empty()).then(|| compare::estimate(metric, &rows, options))
        };
        let mut boundaries: Vec<usize> = valued.candidates.iter().copied().chain(valued.judged()).collect();
        boundaries.sort_unstable();
        boundaries.dedup();
        let variants = boundaries.into_iter().map(|k| MetricVariant {
            layers_kept: k,
            selection: estimate(&valued.selection, k),
            holdout: estimate(&valued.holdout, k),
        });
        Some(MetricSummary {
            name: chooser.name(),
            signature: metric.signature(Some(1)),
            variants: variants.collect(),
            decided,
            choice_by_nll: by_nll,
        })
    }

    /// The candidate on the guard's samples.
    fn guard(&self, candidate: &Variant, options: &choose::ChooseOptions) -> Result<Option<GuardJudgement>> {
        if self.study.guard.is_none() {
            return Ok(None);
        }
        let [base, full] = self.study.base_and_full();
        let nll = |variant| self.scoring.nll(Set::guard(Part::Holdout), &self.parts.guard[1], variant);
        let (base, full, cut) = (nll(&base)?, nll(&full)?, nll(candidate)?);
        let gain = choose::paired_gain(&full, &cut, options);
        let adapter_gain = choose::paired_gain(&base, &full, options);
        Ok(Some(GuardJudgement { gain, adapter_gain, is_held: gain.low > -self.study.settings.guard_margin }))
    }

    /// Compares the cut with its controls, on samples that picked neither. With folds, each fold has its own pick as
    /// the cut and its own tuned strength; the number of random layers is that of the pick on all samples.
    fn controls(
        &self,
        planned: &[PlannedControl],
        candidate: &Variant,
        judged: Option<Vec<f64>>,
        choice: &Choice,
        options: &choose::ChooseOptions,
    ) -> Result<Option<Controls>> {
        if planned.is_empty() {
            return Ok(None);
        }
        let [_, full] = self.study.base_and_full();
        let part = if self.study.folds.is_some() { Part::Selection } else { Part::Holdout };
        let folds = self.study.folds.map(|folds| stats::folds(self.samples(part).len(), folds, options.seed));
        let first = if part == Part::Holdout { self.parts.selection.len() } else { 0 };
        let cut = match (judged, &folds) {
            (Some(losses), _) => losses[first..].to_vec(),
            (None, Some(folds)) if choice.validation != JudgingSamples::All => {
                let boundaries: Vec<usize> = (0..=self.study.layers()).collect();
                cross_validate_by(options.rule, &self.scores(part, &boundaries)?, folds)
            }
            _ => self.nll(part, candidate)?,
        };
        let column = |control: &PlannedControl| {
            let columns = control.variants.iter().map(|variant| self.nll(part, variant));
            let columns = columns.collect::<Result<Vec<_>>>()?;
            Ok(match &folds {
                Some(folds) if control.family == Family::GlobalAlpha => controls::tuned_elsewhere(&columns, folds),
                _ => controls::mean_columns(&columns),
            })
        };
        let columns = planned.iter().map(column).collect::<Result<Vec<Vec<f64>>>>()?;
        let (gains, is_depth) = choose::controls(&self.nll(part, &full)?, &cut, &columns, options);
        let row = |(control, gains): (&PlannedControl, ControlGains)| {
            let ControlGains { over_full, cut_over, p_holm } = gains;
            let gates = control.variants.iter().map(Variant::spec).collect();
            Control { family: control.family, label: control.label.clone(), gates, over_full, cut_over, p_holm }
        };
        let rows = planned.iter().zip(gains).map(row).collect();
        Ok(Some(Controls { rows, depth: if is_depth { Depth::Shown } else { Depth::NotShown } }))
    }
}

/// Whether a metric separates the full adapter from the base model. Otherwise it cannot choose between cuts either.
fn is_decided(choice: &Choice) -> bool {
    let Gain { low, high, .. } = choice.adapter_gain;
    low > 0.0 || high < 0.0
}

#[allow(clippy::needless_pass_by_value, reason = "map_err passes a value")]
fn internal(problem: ChooseProblem) -> Error {
    Error::Internal(problem.to_string())
}
