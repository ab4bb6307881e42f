//! A boundary that the selection samples pick, judged by the held-out ones.

use super::choice::{Choice, Options, Part, Validation, Verdict};
use super::judge::{CutKind, Judgement, judge};
use super::rules;
use super::scores::{ChooseProblem, Scores, check_boundaries, check_curve};

/// Picks a boundary on the selection samples, and judges it on the held-out ones.
pub fn choose(input: &Input, options: &Options) -> Choice {
    let Input { selection, holdout, curve, whole } = input;
    let one_se = selection.pick();
    let [base, full, cut] =
        [0, input.layers(), one_se].map(|boundary| holdout.nll(boundary).expect("checked when the input was made"));
    let judgement = judge(&base, &full, &cut, CutKind::of(one_se, *whole), options);
    Choice::of(selection, &judgement, curve, Validation::Holdout, options)
}

impl Choice {
    /// Puts together what picked and what judged.
    pub(super) fn of(
        selection: &Scores,
        judgement: &Judgement,
        curve: &[f64],
        validation: Validation,
        options: &Options,
    ) -> Self {
        let layers = curve.len();
        let rules::Pick { best, one_se } = rules::pick(selection, &selection.everyone());
        let &Judgement { verdict, reason, abstains, gain, adapter_gain, base_gain, retained, power } = judgement;
        Self {
            verdict,
            reason,
            layers_kept: match verdict {
                Verdict::Trim => one_se,
                Verdict::KeepFull => layers,
                Verdict::UseBase => 0,
            },
            best,
            one_se,
            curve: rules::change_point(curve),
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
    /// The same rules' picks, with the judgement on a candidate that is not one of them and keeps LoRA in so many layers.
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

/// What there is to choose from: at least one layer, two samples in each part, and only finite numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    selection: Scores,
    holdout: Scores,
    curve: Vec<f64>, // (layers)
    whole: usize,
}

impl Input {
    /// Takes the mean NLL (nats per answer token) of every sample at every boundary k = 0..=L, one row for each sample,
    /// in two parts, and the `full` ground-truth probability after each of the L layers.
    ///
    /// # Errors
    /// An empty curve, fewer than two samples in a part, a row whose length is not L + 1, or a number that is not
    /// finite.
    pub fn new<R: AsRef<[f64]>>(selection: &[R], holdout: &[R], curve: &[f64]) -> Result<Self, ChooseProblem> {
        check_curve(curve)?;
        let boundaries: Vec<usize> = (0..=curve.len()).collect();
        let selection = Scores::new(Part::Selection, &boundaries, selection);
        Self::of(selection?, Scores::new(Part::Holdout, &boundaries, holdout)?, curve)
    }

    /// The same where not every boundary was scored: only those of `selection` can be picked.
    ///
    /// # Errors
    /// An empty curve, a boundary above the number of layers, or held-out scores without those of the base, of the full
    /// adapter or of what is picked.
    pub fn of(selection: Scores, holdout: Scores, curve: &[f64]) -> Result<Self, ChooseProblem> {
        check_curve(curve)?;
        let layers = curve.len();
        check_boundaries(&selection, layers)?;
        check_boundaries(&holdout, layers)?;
        for boundary in [0, layers, selection.pick()] {
            if holdout.column(boundary).is_none() {
                return Err(ChooseProblem::NotScored { part: Part::Holdout, boundary });
            }
        }
        Ok(Self { selection, holdout, curve: curve.to_vec(), whole: layers })
    }

    /// Says that a boundary of `whole` layers drops nothing, because there is no LoRA above it. L where it is not said.
    #[must_use]
    pub fn with_whole(self, whole: usize) -> Self {
        Self { whole, ..self }
    }

    /// L, the number of decoder layers.
    pub fn layers(&self) -> usize {
        self.curve.len()
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
        let reason = |input: &Input| choose(input, &Options::default()).reason;
        assert_eq!(reason(&input), Reason::NotWorse);
        assert_eq!(reason(&input.with_whole(2)), Reason::NoCut);
    }
}
