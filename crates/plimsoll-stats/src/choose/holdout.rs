//! The choice with held-out samples: the selection samples pick a boundary, and the held-out samples judge it.

use super::choice::{Choice, ChooseOptions, JudgingSamples, Part, Verdict};
use super::judge::{CutKind, Judgement, judge};
use super::rules;
use super::scores::{ChooseProblem, Scores, check_boundaries, check_curve};

/// Picks a boundary on the selection samples, and judges it on the held-out samples.
///
/// # Errors
/// A pick without held-out scores.
pub fn choose(input: &Input, options: &ChooseOptions) -> Result<Choice, ChooseProblem> {
    let Input { selection, holdout, layers, curve, whole } = input;
    let pick = selection.pick_by(options.rule, curve);
    let score = |boundary| holdout.nll(boundary).ok_or(ChooseProblem::NotScored { part: Part::Holdout, boundary });
    let (base, full, cut) = (score(0)?, score(*layers)?, score(pick)?);
    let judgement = judge(&base, &full, &cut, CutKind::of(pick, *whole), options);
    Ok(Choice::of(selection, &judgement, *layers, curve, JudgingSamples::Holdout, options))
}

impl Choice {
    /// The choice from the scores that picked and the judgement.
    pub(super) fn of(
        selection: &Scores,
        judgement: &Judgement,
        layers: usize,
        curve: &[f64],
        validation: JudgingSamples,
        options: &ChooseOptions,
    ) -> Self {
        let rules::Pick { best, one_se } = rules::pick(selection, &selection.everyone());
        let pick = selection.pick_by(options.rule, curve);
        let &Judgement { verdict, reason, abstains, gain, adapter_gain, base_gain, retained, power } = judgement;
        Self {
            verdict,
            reason,
            layers_kept: match verdict {
                Verdict::Trim => pick,
                Verdict::KeepFull => layers,
                Verdict::UseBase => 0,
            },
            best,
            one_se,
            rule: options.rule,
            curve: (!curve.is_empty()).then(|| rules::change_point(curve)),
            bootstrap: rules::stability(selection, layers, options.choice_resamples, options.seed),
            gain,
            adapter_gain,
            base_gain,
            retained,
            validation,
            abstains,
            power,
        }
    }
}

impl Choice {
    /// The same picks with the judgement on another candidate, which keeps LoRA in `layers_kept` layers.
    #[must_use]
    pub fn with(self, judgement: &Judgement, layers_kept: usize) -> Self {
        let Judgement { verdict, reason, abstains, gain, adapter_gain, base_gain, retained, power } = *judgement;
        let layers_kept = match verdict {
            Verdict::Trim => layers_kept,
            Verdict::KeepFull => self.bootstrap.len() - 1,
            Verdict::UseBase => 0,
        };
        Self { verdict, reason, layers_kept, abstains, gain, adapter_gain, base_gain, retained, power, ..self }
    }
}

/// The checked input of [`choose`]: at least one layer, two samples in each part, and finite numbers only.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    selection: Scores,
    holdout: Scores,
    layers: usize,
    /// `(layers)`; empty if it was not computed.
    curve: Vec<f64>,
    whole: usize,
}

impl Input {
    /// An input from the mean NLL (nats per answer token) of every sample at every boundary k = 0..=L, one row per
    /// sample, in two parts, and the ground-truth probability of the full adapter after each of the L layers.
    ///
    /// The curve may be empty: then there is no change point.
    ///
    /// # Errors
    /// No layers, a curve whose length is not L, fewer than two samples in a part, a row whose length is not L + 1, or
    /// a number that is not finite.
    pub fn new<R: AsRef<[f64]>>(selection: &[R], holdout: &[R], curve: &[f64]) -> Result<Self, ChooseProblem> {
        let in_row = selection.first().map_or(0, |row| row.as_ref().len().saturating_sub(1));
        let layers = if curve.is_empty() { in_row } else { curve.len() };
        check_curve(curve, layers)?;
        let boundaries: Vec<usize> = (0..=layers).collect();
        let selection = Scores::new(Part::Selection, &boundaries, selection);
        Self::of(selection?, Scores::new(Part::Holdout, &boundaries, holdout)?, layers, curve)
    }

    /// An input in which not every boundary was scored: only those of `selection` can be picked.
    ///
    /// # Errors
    /// No layers, a curve of another length, a boundary above the number of layers, or held-out scores without those of
    /// the base model or of the full adapter.
    pub fn of(selection: Scores, holdout: Scores, layers: usize, curve: &[f64]) -> Result<Self, ChooseProblem> {
        check_curve(curve, layers)?;
        check_boundaries(&selection, layers)?;
        check_boundaries(&holdout, layers)?;
        for boundary in [0, layers] {
            if holdout.column(boundary).is_none() {
                return Err(ChooseProblem::NotScored { part: Part::Holdout, boundary });
            }
        }
        Ok(Self { selection, holdout, layers, curve: curve.to_vec(), whole: layers })
    }

    /// Sets the boundary that drops nothing, because there is no LoRA above it; L by default.
    #[must_use]
    pub fn with_whole(self, whole: usize) -> Self {
        Self { whole, ..self }
    }

    /// L, the number of decoder layers.
    pub fn layers(&self) -> usize {
        self.layers
    }
}

#[cfg(test)]
mod tests {
    use super::super::choice::Reason;
    use super::*;

    #[test]
    fn a_boundary_above_all_lora_is_no_cut() {
        let rows = vec![vec![2.0, 1.5, 1.0, 1.0, 1.0]; 12];
        let input = Input::new(&rows, &rows, &[0.1, 0.2, 0.5, 0.9]).unwrap();
        let reason = |input: &Input| choose(input, &ChooseOptions::default()).unwrap().reason;
        assert_eq!(reason(&input), Reason::NotWorse);
        assert_eq!(reason(&input.with_whole(2)), Reason::NoCut);
    }
}
