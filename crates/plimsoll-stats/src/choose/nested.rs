//! Nested cross-validation: every sample judges, and none judges a pick that it had a part in.
//!
//! A third held out leaves few samples to judge by where there are few at all. In its place the samples are dealt into
//! folds; the one-standard-error rule picks on all folds but one, its pick is scored on the fold left out, and so in turn.
//! The scores of all folds together judge (Varma and Simon, "Bias in error estimation when using cross-validation for model
//! selection", BMC Bioinformatics 7:91, 2006; Cawley and Talbot, Journal of Machine Learning Research 11, 2010: a score
//! from samples that took part in choosing flatters the choice).
//!
//! What is judged is the rule, whose picks may differ from fold to fold; the boundary that is reported is the rule's pick on
//! all samples. The folds' picks rest on nearly the same samples, so their scores are not independent, as tests take them
//! to be: there is no unbiased estimate of the variance (Bengio and Grandvalet, Journal of Machine Learning Research 5,
//! 2004). How often that misleads is measured by simulation, in `docs/choosing.md`. One claim is not made on such evidence:
//! that the cut is worse. A pick is low where the samples outside a fold favour it, so those inside do not (what is too
//! high in one part of a sample is too low in the rest), and folds whose picks are too low pull the mean down. In
//! simulated searches a cut that lost nothing was called worse in one of ten; here it is left open.

use super::choice::{Choice, Options, Part, Reason, Validation};
use super::judge::{CutKind, differences, judge, power};
use super::rules;
use super::scores::{ChooseProblem, Scores, check_boundaries, check_curve};
use crate as stats;

/// From so many samples on a third of them is enough to judge by.
const MANY: usize = 100;

/// Folds of a nested cross-validation.
const FOLDS: usize = 10;

/// Which samples should judge, by how many there are.
///
/// Below 100 samples all of them, by nested cross-validation with 10 folds (one for each sample, if there are fewer): a
/// third of 48 would be 16, on which a comparison needs a difference of 0.8 standard deviations to be shown in 8 of 10
/// cases; 48 show one of 0.4. From 100 on a third is held out: 33 samples or more show 0.5, and what they judge is the
/// one boundary that is reported, by samples that are independent of it.
pub fn validation_for(samples: usize) -> Validation {
    if samples < MANY { Validation::Nested { folds: FOLDS.min(samples) } } else { Validation::Holdout }
}

/// The scores that a family's rule gets on samples that had no part in its pick, one for each sample.
///
/// The members are the boundaries of `scores`, the most preferred first. For each fold the smallest within one paired
/// standard error of the best on all other folds is taken.
///
/// # Panics
/// If there is not one fold for each sample.
pub fn cross_validate(scores: &Scores, folds: &[usize]) -> Vec<f64> {
    let picks = picks(scores, folds);
    let score = |(sample, &fold): (usize, &usize)| scores.at(sample, picks[fold]);
    folds.iter().enumerate().map(score).collect()
}

/// What the rule picks for each fold, on the samples of all the others. A fold without samples gets the pick on all.
fn picks(scores: &Scores, folds: &[usize]) -> Vec<usize> {
    assert_eq!(scores.samples(), folds.len(), "folds of other samples");
    let others = |fold: usize| -> Vec<usize> { (0..folds.len()).filter(|&sample| folds[sample] != fold).collect() };
    let last = folds.iter().max().map_or(0, |&last| last + 1);
    (0..last).map(|fold| rules::pick(scores, &others(fold)).one_se).collect()
}

/// Picks a boundary on all samples, and judges the rule that picked it by nested cross-validation.
///
/// `curve` and `whole` are as in [`Input`](super::Input). Where the rule picks no layer or all of them on all samples there
/// is no cut to judge: what is left is the adapter against the base model, both scored on every sample and neither picked.
///
/// # Errors
/// An empty curve, a boundary above the number of layers, or no scores of the base model or the full adapter.
pub fn choose_nested(
    samples: &Scores,
    curve: &[f64],
    whole: usize,
    folds: usize,
    options: &Options,
) -> Result<Choice, ChooseProblem> {
    check_curve(curve)?;
    let layers = curve.len();
    check_boundaries(samples, layers)?;
    let score =
        |boundary: usize| samples.nll(boundary).ok_or(ChooseProblem::NotScored { part: Part::Selection, boundary });
    let (base, full) = (score(0)?, score(layers)?);
    let pick = samples.pick();
    let fold_of = stats::folds(samples.samples(), folds, options.seed);
    let kind = CutKind::of(pick, whole);
    let cut = match kind {
        CutKind::Cut | CutKind::Changed => cross_validate(samples, &fold_of),
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
    Ok(Choice::of(samples, &judgement, curve, Validation::Nested { folds }, options))
}
