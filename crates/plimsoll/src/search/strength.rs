//! One LoRA strength for the whole adapter, tuned by cross-validation, and boundaries at this strength.
//!
//! Every search by sufficient layers tries other strengths. If one is shown to be better than the adapter as trained,
//! the boundaries at this strength are scored from the full depth downward. The candidate has the fewest layers that
//! hold the margin, here a share of the gain at this strength, and that are still shown to be better than the adapter
//! as trained. The family `boundary-strength` has its own list of sufficient layers, in shares of the gain as trained,
//! so that all lists have one unit.

use std::collections::HashSet;

use plimsoll_stats as stats;
use plimsoll_stats::choose::strength::StrengthTuning;
use plimsoll_stats::choose::sufficient::{Cut, Sequence, Sufficient};
use plimsoll_stats::choose::{Choice, ChooseOptions, CutKind, JudgingSamples, Margin, Reason, judge, paired_gain};

use super::plan;
use super::scoring::{Observer, Scoring};
use super::settings::Strategy;
use super::study::{COMPETITION_FOLDS, Parts, Study};
use super::sufficient::{Descent, list, losses, margins, score_all};
use crate::error::Result;
use crate::lora::{Family, Member, Position, Variant};
use crate::result::{StrengthScore, SufficientLayers, TunedStrength};

/// The tuned strength of a search.
pub(super) struct Strength {
    pub(super) summary: TunedStrength,
    /// Every variant that was scored, as members of families.
    pub(super) members: Vec<Member>,
    layers: usize,
    /// The number of layers up to the highest with LoRA.
    whole: usize,
    tuning: StrengthTuning,
    /// The cuts at the strength, the whole adapter first; none if it is not shown to be better.
    cuts: Vec<Cut>,
}

/// What the strength shows.
pub(super) struct StrengthAnswer {
    pub(super) choice: Choice,
    pub(super) candidate: Member,
    /// The losses of the candidate that were judged: each sample at the strength of its fold.
    pub(super) losses: Vec<f64>,
    /// The sufficient layers at the strength, if the full adapter is shown to gain.
    pub(super) list: Option<SufficientLayers>,
    /// The fewest layers that hold the margin, as a share of the gain at the strength.
    pub(super) held: Option<Sufficient>,
}

/// Options for one of several claims of *better*.
pub(super) fn of_claim(options: &ChooseOptions, claims: usize) -> ChooseOptions {
    ChooseOptions { alpha: options.alpha / claims as f64, ..options.clone() }
}

/// Tunes the strength, and scores boundaries at it if it is shown to be better than 1.
pub(super) fn tune(
    study: &Study,
    parts: &Parts<'_>,
    scoring: &mut Scoring<'_>,
    observe: Observer<'_>,
) -> Result<Option<Strength>> {
    if !study.tunes_strength(scoring.has_strengths()) {
        return Ok(None);
    }
    let (layers, options) = (study.layers(), study.choose_options());
    let [base, full] = study.base_and_full();
    let (base, full) = (losses(parts, scoring, &base)?, losses(parts, scoring, &full)?);
    let folds = stats::folds(full.len(), study.folds.unwrap_or(COMPETITION_FOLDS), study.settings.seed);
    let mut tuning = StrengthTuning::new(base.clone(), full.clone(), folds);
    scoring.begin(plan::STRENGTH);
    loop {
        let wanted = tuning.wanted();
        if wanted.is_empty() {
            break;
        }
        let variants: Vec<Variant> = wanted.iter().map(|&strength| at(layers, layers, strength)).collect();
        score_all(parts, &variants, scoring, observe)?;
        for (strength, variant) in wanted.into_iter().zip(&variants) {
            tuning.record(strength, losses(parts, scoring, variant)?);
        }
    }
    let judged = tuning.unseen(|strength| losses(parts, scoring, &at(layers, layers, strength)))?;
    let for_claim = of_claim(&options, study.claims(true));
    let reason = judge(&base, &full, &judged, CutKind::Changed, &for_claim).reason;
    let summary = TunedStrength {
        strength: tuning.tuned(),
        tried: tuning.tried().into_iter().map(|(strength, mean_nll)| StrengthScore { strength, mean_nll }).collect(),
        folds: tuning.by_fold().len(),
        gain: paired_gain(&full, &judged, &options),
        is_better: matches!(reason, Reason::Better | Reason::BetterThanBase),
        sufficient: None,
    };
    let tried = summary.tried.iter().filter(|tried| tried.strength != 1.0);
    let members = tried.map(|tried| of_global_alpha(layers, tried.strength)).collect();
    let whole = study.table.layers_up_to_highest();
    let mut strength = Strength { summary, members, layers, whole, tuning, cuts: Vec::new() };
    // Shares of a gain that is not shown mean nothing.
    let gains = judge(&base, &full, &full, CutKind::Whole, &options).reason == Reason::NoCut;
    if reason == Reason::Better && gains {
        strength.descend(study, parts, scoring, observe)?;
    }
    Ok(Some(strength))
}

impl Strength {
    /// Scores boundaries at the strength, as far as the list of sufficient layers needs.
    fn descend(
        &mut self,
        study: &Study,
        parts: &Parts<'_>,
        scoring: &mut Scoring<'_>,
        observe: Observer<'_>,
    ) -> Result<()> {
        let tuning = &self.tuning;
        let mut strengths = tuning.by_fold();
        strengths.push(tuning.tuned());
        strengths.sort_by(f64::total_cmp);
        strengths.dedup();
        let is_allowed = |&k: &usize| study.is_allowed(&HashSet::new(), &self.at(k, tuning.tuned()));
        let margins = margins(study.settings.margin);
        let asked = study.settings.margin;
        let descent = Descent {
            layers_kept: (1..=self.whole).rev().filter(is_allowed).collect(),
            variants: &|k| strengths.iter().map(|&strength| self.at(k, strength)).collect(),
            loss: &|scoring, k| self.unseen(parts, scoring, k).ok(),
            margin: if study.settings.strategy == Strategy::Sequential {
                asked
            } else {
                *margins.last().unwrap_or(&asked)
            },
            among: study.claims(true),
        };
        let alone = scoring.work_alone(&parts.selection) + scoring.work_alone(&parts.holdout);
        let most = descent.layers_kept.len() * strengths.len();
        scoring.stages().insert((plan::AT_STRENGTH, alone * most as u64));
        scoring.begin(plan::AT_STRENGTH);
        self.cuts = descent.run(study, parts, &[], scoring, observe)?;
        let scored = self.cuts.iter().filter(|cut| cut.loss.is_some());
        self.members.extend(scored.map(|cut| self.member(cut.layers_kept)).collect::<Vec<Member>>());
        Ok(())
    }

    /// What the strength shows; `None` if it is not shown to be better. `picked` has the picks of the rules.
    pub(super) fn answer(
        &self,
        study: &Study,
        parts: &Parts<'_>,
        scoring: &Scoring<'_>,
        picked: &Choice,
    ) -> Result<Option<StrengthAnswer>> {
        if !self.summary.is_better {
            return Ok(None);
        }
        let (layers, options) = (study.layers(), study.choose_options());
        let [base, full] = study.base_and_full();
        let (base, full) = (losses(parts, scoring, &base)?, losses(parts, scoring, &full)?);
        let validation = JudgingSamples::Nested { folds: self.summary.folds };
        let judged = |k: usize| self.unseen(parts, scoring, k);
        if self.cuts.is_empty() {
            // The full adapter is not shown to gain.
            let (losses, candidate) = (judged(layers)?, self.member(layers));
            let claim = of_claim(&options, study.claims(true));
            let judgement = judge(&base, &full, &losses, CutKind::Changed, &claim);
            let choice = Choice { validation, ..picked.clone() }.with(&judgement, layers);
            let is_allowed = study.is_allowed(&HashSet::new(), &candidate.variant);
            return Ok(is_allowed.then_some(StrengthAnswer { choice, candidate, losses, list: None, held: None }));
        }
        let sequence = Sequence::new(&base, &full, self.whole, &self.cuts, &options).among(study.claims(true));
        let cuts: Vec<Member> = self.cuts.iter().map(|cut| self.member(cut.layers_kept)).collect();
        // At another strength a cut can retain more than the whole adapter as trained.
        let margins = std::iter::once(Margin::Share(1.0)).chain(margins(options.margin)).collect();
        let list = list(study, Family::BoundaryStrength, &cuts, &sequence, margins);
        let held = self.held(&base, &judged(self.layers)?, &options);
        let chosen = sequence.choose_better(picked, validation, held.layers_kept);
        let Some((choice, kept)) = chosen else { return Ok(None) };
        let (losses, candidate) = (judged(kept)?, self.member(kept));
        Ok(Some(StrengthAnswer { choice, candidate, losses, list: Some(list), held: Some(held) }))
    }

    /// The fewest layers that hold the margin at the strength: a share of the gain of the whole adapter at it.
    fn held(&self, base: &[f64], tuned: &[f64], options: &ChooseOptions) -> Sufficient {
        let is_cut = |cut: &&Cut| cut.layers_kept < self.whole;
        let cuts: Vec<Cut> = self.cuts.iter().filter(is_cut).cloned().collect();
        Sequence::new(base, tuned, self.whole, &cuts, options).sufficient(options.margin)
    }

    /// The layers below a boundary at a strength. A boundary above all LoRA drops nothing.
    fn at(&self, layers_kept: usize, strength: f64) -> Variant {
        at(self.layers, if layers_kept < self.whole { layers_kept } else { self.layers }, strength)
    }

    /// The losses of all samples under a boundary, each at the strength of its fold.
    fn unseen(&self, parts: &Parts<'_>, scoring: &Scoring<'_>, layers_kept: usize) -> Result<Vec<f64>> {
        self.tuning.unseen(|strength| losses(parts, scoring, &self.at(layers_kept, strength)))
    }

    /// The cut of this number of layers, at the strength that is best on all samples.
    fn member(&self, layers_kept: usize) -> Member {
        let strength = self.summary.strength;
        let label = match layers_kept {
            kept if kept >= self.whole => format!("strength {strength}"),
            1 => format!("layer 0 at strength {strength}"),
            kept => format!("layers 0–{} at strength {strength}", kept - 1),
        };
        let variant = self.at(layers_kept, strength);
        Member { family: Family::BoundaryStrength, position: Position::LayersKept(layers_kept), label, variant }
    }
}

/// The whole adapter at a strength.
fn of_global_alpha(layers: usize, strength: f64) -> Member {
    let (position, label) = (Position::Strength(strength as f32), format!("strength {strength}"));
    Member { family: Family::GlobalAlpha, position, label, variant: at(layers, layers, strength) }
}

/// The layers below a boundary at a strength, the others dropped.
fn at(layers: usize, layers_kept: usize, strength: f64) -> Variant {
    let uniform = Variant::uniform(layers, strength as f32);
    (layers_kept..layers).fold(uniform, |variant, layer| variant.with(layer, None, 0.0))
}
