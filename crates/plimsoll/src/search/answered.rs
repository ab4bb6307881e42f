//! Sufficient layers by a metric of generated answers.

use std::collections::BTreeMap;

use plimsoll_stats::choose::sufficient::{Cut, Sequence, Stop};
use plimsoll_stats::choose::{ChooseOptions, Part, Scores};

use super::metric::{Answering, Valued};
use super::scoring::{Observer, Scoring};
use super::study::Study;
use super::{metric, plan};
use crate::data::Sample;
use crate::error::Result;

/// Answers of all samples under the base model, the full adapter, and cuts from the one that drops least.
pub(super) struct Answered {
    /// The values of the metric at the boundaries that answered.
    pub(super) values: Valued,
    base: Vec<f64>,
    full: Vec<f64>,
    cuts: Vec<Cut>,
    whole: usize,
}

impl Answered {
    /// Generates answers under one boundary after the other, from the full adapter downward, until the tests for the
    /// margin need no more.
    pub(super) fn descend(
        study: &Study,
        samples: &[&Sample],
        answering: &mut Answering<'_>,
        scoring: &mut Scoring<'_>,
        observe: Observer<'_>,
    ) -> Result<Self> {
        let (layers, whole, options) = (study.layers(), study.table.layers_up_to_highest(), study.metric_options());
        let stages = scoring.stages();
        stages.begin(plan::ANSWERS);
        let first: Vec<usize> = if whole > 1 { vec![0, whole - 1, layers] } else { vec![0, layers] };
        let mut values = answering.values(Part::Selection, samples, &first, stages, observe)?;
        let none = |layers_kept| Cut { layers_kept, loss: None };
        let [base, full] = [0, layers].map(|boundary| losses(&values, boundary));
        let mut answered = Self {
            values: Valued { candidates: first, selection: Vec::new(), holdout: Vec::new() },
            base,
            full,
            cuts: (1..whole).rev().map(none).collect(),
            whole,
        };
        for index in 0..answered.cuts.len() {
            if !matches!(answered.sequence(&options).sufficient(options.margin).stop, Stop::NotScored { .. }) {
                break;
            }
            let boundary = answered.cuts[index].layers_kept;
            if index > 0 {
                stages.insert((plan::ANSWERS, answering.work(samples)));
                stages.begin(plan::ANSWERS);
                let more = answering.values(Part::Selection, samples, &[boundary], stages, observe)?;
                values.iter_mut().zip(more).for_each(|(values, more)| values.extend(more));
                answered.values.candidates.push(boundary);
            }
            answered.cuts[index].loss = Some(losses(&values, boundary));
        }
        answered.values.candidates.sort_unstable();
        answered.values.selection = values;
        Ok(answered)
    }

    /// The tests of the cuts.
    pub(super) fn sequence<'a>(&'a self, options: &'a ChooseOptions) -> Sequence<'a> {
        Sequence::new(&self.base, &self.full, self.whole, &self.cuts, options)
    }

    /// The losses at the boundaries that answered.
    pub(super) fn scores(&self) -> Result<Scores> {
        self.values.scores(Part::Selection, &self.values.candidates)
    }
}

fn losses(values: &[BTreeMap<usize, f64>], boundary: usize) -> Vec<f64> {
    values.iter().map(|values| metric::loss(values[&boundary])).collect()
}
