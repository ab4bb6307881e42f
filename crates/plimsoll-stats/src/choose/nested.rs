//! Nested cross-validation: every sample judges, but only picks in which it had no part.
//!
//! With few samples, a held-out third is too small to judge. Instead the samples are split into folds. The
//! one-standard-error rule picks on all folds except one, and the pick is scored on the fold left out; this is repeated
//! for each fold. The scores of all folds together judge (Varma and Simon, "Bias in error estimation when using
//! cross-validation for model selection", BMC Bioinformatics 7:91, 2006; Cawley and Talbot, Journal of Machine Learning
//! Research 11, 2010: a score from samples that took part in the choice is too good).
//!
//! The rule is judged, whose picks may differ between folds. The reported boundary is the rule's pick on all samples.
//! The picks of the folds rest on nearly the same samples, so their scores are not independent, which the tests assume:
//! there is no unbiased estimate of the variance (Bengio and Grandvalet, Journal of Machine Learning Research 5, 2004).
//! `docs/choosing-evidence.md` has error rates from simulations. For this reason folds never give the reason that a cut
//! is worse. A low boundary is picked if the samples outside a fold favour it. Then those inside do not (a mean that is
//! too high in one part is too low in the rest), and such folds lower the mean. In simulated searches, a cut without a
//! loss was called worse in one of ten; here the reason is that nothing is shown.

use super::choice::{Choice, ChooseOptions, JudgingSamples, Part, Reason, Rule};
use super::judge::{CutKind, differences, judge, power};
use super::scores::{ChooseProblem, Scores, check_boundaries, check_curve};
use crate as stats;

/// Number of samples from which a held-out third is large enough to judge.
const MANY: usize = 100;

/// Default number of folds.
const FOLDS: usize = 10;

/// The number of folds by default, for a number of samples; `None` if a third is to be held out.
///
/// With fewer than 100 samples all of them judge, by nested cross-validation with 10 folds (or one fold per sample). A
/// third of 48 would be 16; on 16 samples a true difference must be 0.8 standard deviations to be shown in 8 of 10
/// cases, on 48 it must be 0.4. From 100 samples a third is held out: 33 or more samples show 0.5 standard deviations,
/// and they judge the reported boundary, independently of the pick.
pub fn folds_for(samples: usize) -> Option<usize> {
    (samples < MANY).then(|| FOLDS.min(samples))
}

/// The cross-validated scores of a family's rule, one per sample: the score under the pick of the other folds.
///
/// The members are the boundaries of `scores`, the most preferred first. For each fold, the pick is the smallest within
/// one paired standard error of the best on all other folds.
///
/// # Panics
/// If there is not one fold for each sample.
pub fn cross_validate(scores: &Scores, folds: &[usize]) -> Vec<f64> {
    cross_validate_by(Rule::OneSe, scores, folds)
}

/// The same for another rule: one whose picks depend on the scores alone, which those of the curve do not.
///
/// # Panics
/// As [`cross_validate`].
pub fn cross_validate_by(rule: Rule, scores: &Scores, folds: &[usize]) -> Vec<f64> {
    let picks = picks(rule, scores, folds);
    let score = |(sample, &fold): (usize, &usize)| scores.at(sample, picks[fold]);
    folds.iter().enumerate().map(score).collect()
}

/// The rule's pick for each fold, on the samples of all other folds. A fold without samples has the pick on all
/// samples.
fn picks(rule: Rule, scores: &Scores, folds: &[usize]) -> Vec<usize> {
    assert_eq!(scores.samples(), folds.len(), "one fold for each sample");
    let others = |fold: usize| -> Vec<usize> { (0..folds.len()).filter(|&sample| folds[sample] != fold).collect() };
    let last = folds.iter().max().map_or(0, |&last| last + 1);
    (0..last).map(|fold| scores.pick_on(&others(fold), rule, &[])).collect()
}

/// Picks a boundary on all samples, and judges the rule that picked it by nested cross-validation.
///
/// `curve` and `whole` are as in [`Input`](super::Input). If the rule picks no layer or all layers on all samples,
/// there is no cut to judge. Then the adapter is compared with the base model, which need no pick.
///
/// # Errors
/// No layers, a curve of another length, a boundary above the number of layers, no scores of the base model or the full
/// adapter, or the rule of the curve: it has no picks by fold.
pub fn choose_nested(
    samples: &Scores,
    layers: usize,
    curve: &[f64],
    whole: usize,
    folds: usize,
    options: &ChooseOptions,
) -> Result<Choice, ChooseProblem> {
    check_curve(curve, layers)?;
    check_boundaries(samples, layers)?;
    if options.rule == Rule::Curve {
        return Err(ChooseProblem::CurveInFolds);
    }
    let score =
        |boundary: usize| samples.nll(boundary).ok_or(ChooseProblem::NotScored { part: Part::Selection, boundary });
    let (base, full) = (score(0)?, score(layers)?);
    let pick = samples.pick_by(options.rule, curve);
    let fold_of = stats::folds(samples.samples(), folds, options.seed);
    let kind = CutKind::of(pick, whole);
    let cut = match kind {
        CutKind::Cut | CutKind::Changed => cross_validate_by(options.rule, samples, &fold_of),
        CutKind::Whole => full.clone(),
        CutKind::Nothing => base.clone(),
    };
    let mut judgement = judge(&base, &full, &cut, kind, options);
    if kind == CutKind::Cut && judgement.reason == Reason::Worse {
        judgement.reason = Reason::NotShown;
        judgement.abstains = true;
        judgement.power = Some(power(&differences(&full, &cut), options));
    }
    let folds = fold_of.iter().max().map_or(0, |&last| last + 1);
    Ok(Choice::of(samples, &judgement, layers, curve, JudgingSamples::Nested { folds }, options))
}
