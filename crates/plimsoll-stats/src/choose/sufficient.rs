//! Sufficient layers: how many layers keep a given share of the adapter's gain?
//!
//! The cuts of a family come in an order that is fixed before any score is known: the cut that drops least comes first.
//! Each is tested on all samples: is its loss within the [`Margin`]? The first cut for which this is not shown ends
//! the tests, and the last one for which it is shown is the answer. In such a *fixed sequence* a true hypothesis is
//! tested only if all earlier ones were rejected, so the chance that any cut is called sufficient that is not is at
//! most the level of one test. No sample is held out, and no p-value is corrected for the number of cuts (Maurer,
//! Hothorn and Lehmacher, "Multiple comparisons in drug clinical trials and preclinical assays: a-priori ordered
//! hypotheses", 1995; Dmitrienko and Tamhane, Pharmaceutical Statistics 6:3, 2007).
//!
//! The first test of all is that the adapter gains over the base model. A margin as a share means nothing otherwise.
//!
//! A cut further down can be sufficient although an earlier one is not. It is not found: to look for it would be
//! another search, with another error rate.
//!
//! The order must not depend on the samples. Orders by depth or by the norms of weights do not.

use std::cell::OnceCell;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::choice::{Choice, ChooseOptions, Interval, JudgingSamples, Margin, Reason, Verdict};
use super::judge::{CutKind, Judgement, is_shown, judge, paired_gain, power};
use super::retained::{Contrast, Side, one_sided_level};
use super::scores::Scores;

/// The margins of the list of sufficient layers, as shares of the adapter's gain.
pub const SHARES: [f64; 6] = [0.99, 0.98, 0.95, 0.9, 0.8, 0.5];

/// A cut with its scores.
#[derive(Clone, Debug, PartialEq)]
pub struct Cut {
    /// Number of layers that keep LoRA.
    pub layers_kept: usize,
    /// The loss of every sample; `None` if some of the samples were not scored.
    pub loss: Option<Vec<f64>>,
}

/// The share of the adapter's gain that a cut retains.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RetainedShare {
    /// Number of layers that keep LoRA.
    pub layers_kept: usize,
    /// The share with its 95 % interval, by inversion of the tests: its lower end is the largest share that the cut is
    /// shown to retain.
    pub retained: Interval,
}

/// The sufficient layers for one margin.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sufficient {
    /// The margin.
    pub margin: Margin,
    /// The smallest number of layers that is shown to hold the margin; all layers if there is none.
    pub layers_kept: usize,
    /// The one-sided p-value of its test; absent if all layers are needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p: Option<f64>,
    /// Why fewer layers are not the answer.
    pub stop: Stop,
}

/// Why a sequence of tests ended.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "reason")]
#[non_exhaustive]
pub enum Stop {
    /// The adapter is not shown to gain over the base model. No cut was tested.
    AdapterNotShown,
    /// The next cut is not shown to hold the margin.
    NotShown {
        /// Its number of layers.
        layers_kept: usize,
        /// The one-sided p-value of its test.
        p: f64,
    },
    /// The next cut is shown to lose more than the margin.
    LosesMore {
        /// Its number of layers.
        layers_kept: usize,
        /// The one-sided p-value of its test.
        p: f64,
    },
    /// The next cut was not scored on all samples.
    NotScored {
        /// Its number of layers.
        layers_kept: usize,
    },
    /// All cuts hold the margin.
    NoMoreCuts,
}

/// The tests of one family's cuts, on samples that are all scored under the base model and the full adapter.
#[derive(Clone, Debug)]
pub struct Sequence<'a> {
    base: &'a [f64],
    full: &'a [f64],
    whole: usize,
    cuts: &'a [Cut],
    options: &'a ChooseOptions,
    /// The one-sided level of a test.
    level: f64,
    is_gain_shown: bool,
    /// By cut, computed when it is first asked for.
    shares: Vec<OnceCell<Contrast>>,
}

impl<'a> Sequence<'a> {
    /// The tests of `cuts`, which come in a fixed order, the one with most layers first. `whole` is the number of
    /// layers that the full adapter has. `base` and `full` have the loss of every sample under the base model and the
    /// full adapter.
    ///
    /// # Panics
    /// If lists differ in length.
    pub fn new(base: &'a [f64], full: &'a [f64], whole: usize, cuts: &'a [Cut], options: &'a ChooseOptions) -> Self {
        let is_alike = |cut: &Cut| cut.loss.as_ref().is_none_or(|loss| loss.len() == full.len());
        assert!(cuts.iter().all(is_alike), "lists of different lengths");
        let is_gain_shown = is_shown(&paired_gain(base, full, options), options);
        let level = one_sided_level(base.len(), options);
        Self { base, full, whole, cuts, options, level, is_gain_shown, shares: vec![OnceCell::new(); cuts.len()] }
    }

    /// The same tests as one of several sequences, of which any may be chosen: each has its part of the error rate.
    #[must_use]
    pub fn among(self, sequences: usize) -> Self {
        Self { level: self.level / sequences.max(1) as f64, ..self }
    }

    /// The number of samples.
    pub fn samples(&self) -> usize {
        self.full.len()
    }

    /// The sufficient layers for a margin.
    pub fn sufficient(&self, margin: Margin) -> Sufficient {
        let mut found = Sufficient { margin, layers_kept: self.whole, p: None, stop: Stop::NoMoreCuts };
        if !self.is_gain_shown {
            return Sufficient { stop: Stop::AdapterNotShown, ..found };
        }
        for (index, cut) in self.cuts.iter().enumerate() {
            let layers_kept = cut.layers_kept;
            let Some(loss) = &cut.loss else {
                return Sufficient { stop: Stop::NotScored { layers_kept }, ..found };
            };
            let share = self.share(index, loss);
            let [p, worse] = match margin {
                Margin::Share(m) => [share.p(m, Side::Above), share.p(m, Side::Below)],
                Margin::Nats(m) => {
                    let lost = Contrast::of_loss(self.full, loss, self.options);
                    // No margin may accept a cut that does not gain over the base model.
                    [lost.p(m, Side::Above).max(share.p(0.0, Side::Above)), lost.p(m, Side::Below)]
                }
            };
            if p >= self.level {
                let is_worse = worse < self.level;
                let stop =
                    if is_worse { Stop::LosesMore { layers_kept, p } } else { Stop::NotShown { layers_kept, p } };
                return Sufficient { stop, ..found };
            }
            found = Sufficient { layers_kept, p: Some(p), ..found };
        }
        found
    }

    /// The choice by the rule of sufficient layers alone: no cut is picked that may be better. `scores` are those of
    /// the boundaries that were scored. The second value is as in [`choose`](Self::choose).
    pub fn choose_alone(&self, scores: &Scores, layers: usize) -> (Choice, Option<usize>) {
        let adapter = judge(self.base, self.full, self.full, CutKind::Whole, self.options);
        self.choose(Choice::of(scores, &adapter, layers, &[], JudgingSamples::All, self.options))
    }

    /// The choice of a cut that is shown to be better than the full adapter, for cuts that differ from the full adapter
    /// in more than what they drop: the smallest that keeps `at_least` so many layers, or the largest if all keep
    /// fewer. `None` if the first cut is not shown to be better. `validation` says how the losses came about; `picked`
    /// has the picks of the rules. The second value is the number of layers.
    pub fn choose_better(
        &self,
        picked: &Choice,
        validation: JudgingSamples,
        at_least: usize,
    ) -> Option<(Choice, usize)> {
        let found = self.sufficient(Margin::Share(1.0));
        found.p?;
        let least = found.layers_kept.max(at_least);
        let index = self.cuts.iter().rposition(|cut| cut.layers_kept >= least).unwrap_or(0);
        let Cut { layers_kept, loss } = &self.cuts[index];
        let (layers_kept, loss) = (*layers_kept, loss.as_ref()?);
        let judgement = Judgement {
            verdict: Verdict::Trim,
            reason: Reason::Better,
            abstains: false,
            gain: paired_gain(self.full, loss, self.options),
            base_gain: paired_gain(self.base, loss, self.options),
            retained: self.share(index, loss).interval(self.level),
            power: None,
            ..judge(self.base, self.full, self.full, CutKind::Whole, self.options)
        };
        Some((Choice { validation, ..picked.clone() }.with(&judgement, layers_kept), layers_kept))
    }

    /// The choice by the rule of sufficient layers. `picked` is the choice by the one-standard-error rule, judged by
    /// samples that had no part in picking it: if it shows a cut to be better, it stays. Otherwise the sufficient
    /// layers for the margin of the options are the candidate, judged by all samples.
    ///
    /// The second value is the number of layers of the cut that the choice is about; `None` if it is not about a cut of
    /// this sequence.
    pub fn choose(&self, picked: Choice) -> (Choice, Option<usize>) {
        let Self { base, full, whole, options, .. } = *self;
        if matches!(picked.reason, Reason::Better | Reason::BetterThanBase) {
            return (picked, None);
        }
        let picked = Choice { validation: JudgingSamples::All, ..picked };
        let adapter = judge(base, full, full, CutKind::Whole, options);
        if adapter.verdict == Verdict::UseBase {
            // The answer is about the base model.
            return (picked.with(&judge(base, full, base, CutKind::Nothing, options), 0), None);
        }
        if adapter.reason != Reason::NoCut {
            return (picked.with(&adapter, whole), None);
        }
        let found = self.sufficient(options.margin);
        let (reason, layers_kept) = match found.stop {
            _ if found.layers_kept < whole => (Reason::NotWorse, found.layers_kept),
            Stop::LosesMore { layers_kept, .. } => (Reason::AllNeeded, layers_kept),
            Stop::NotShown { layers_kept, .. } => (Reason::NotShown, layers_kept),
            Stop::AdapterNotShown | Stop::NotScored { .. } | Stop::NoMoreCuts => {
                return (picked.with(&adapter, whole), None);
            }
        };
        let position = self.cuts.iter().position(|cut| cut.layers_kept == layers_kept);
        let Some((index, loss)) = position.and_then(|index| Some((index, self.cuts[index].loss.as_ref()?))) else {
            return (picked.with(&adapter, whole), None);
        };
        let share = self.share(index, loss);
        let is_open = reason == Reason::NotShown;
        let power = is_open.then(|| match options.margin {
            Margin::Share(m) => power(&share.at(m), options),
            Margin::Nats(m) => power(&Contrast::of_loss(full, loss, options).at(m), options),
        });
        let judgement = Judgement {
            verdict: if reason == Reason::NotWorse { Verdict::Trim } else { Verdict::KeepFull },
            reason,
            abstains: is_open,
            gain: paired_gain(full, loss, options),
            base_gain: paired_gain(base, loss, options),
            retained: share.interval(self.level),
            power,
            ..adapter
        };
        (picked.with(&judgement, layers_kept), Some(layers_kept))
    }

    /// The retained share of every cut that was scored, if the adapter is shown to gain.
    pub fn shares(&self) -> Vec<RetainedShare> {
        let share = |(index, cut): (usize, &Cut)| {
            let retained = self.share(index, cut.loss.as_ref()?).interval(self.level)?;
            Some(RetainedShare { layers_kept: cut.layers_kept, retained })
        };
        self.cuts.iter().enumerate().filter(|_| self.is_gain_shown).filter_map(share).collect()
    }

    fn share(&self, index: usize, loss: &[f64]) -> &Contrast {
        self.shares[index].get_or_init(|| Contrast::of_share(self.base, self.full, loss, self.options))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYERS: usize = 4;

    fn options() -> ChooseOptions {
        ChooseOptions { resamples: std::num::NonZeroUsize::new(500).unwrap(), ..ChooseOptions::default() }
    }

    /// Losses of 40 samples that fall by 1 with the adapter, of which a cut with k layers retains `shares[k − 1]`.
    fn losses(shares: [f64; LAYERS - 1]) -> (Vec<f64>, Vec<f64>, Vec<Cut>) {
        let gain = |sample: usize| 1.0 + 0.1 * (sample % 7) as f64;
        let column = |share: f64| (0..40).map(|sample| 3.0 - share * gain(sample)).collect::<Vec<f64>>();
        let cut = |k: usize| Cut { layers_kept: k, loss: Some(column(shares[k - 1])) };
        (column(0.0), column(1.0), (1..LAYERS).rev().map(cut).collect())
    }

    fn judged() -> Choice {
        use super::super::{Input, choose};
        let rows = vec![vec![2.0, 1.9, 1.8, 1.7, 1.0]; 12];
        choose(&Input::new(&rows, &rows, &[]).unwrap(), &options()).unwrap()
    }

    #[test]
    fn the_tests_stop_at_the_first_cut_that_is_not_shown() {
        let (base, full, cuts) = losses([0.97, 0.5, 0.99]);
        let options = options();
        let sequence = Sequence::new(&base, &full, LAYERS, &cuts, &options);
        let found = sequence.sufficient(Margin::Share(0.95));
        // One layer would hold the margin, but two do not.
        assert_eq!(found.layers_kept, 3);
        assert!(matches!(found.stop, Stop::LosesMore { layers_kept: 2, p } if p > 0.9));
        let found = sequence.sufficient(Margin::Share(0.4));
        assert_eq!((found.layers_kept, found.stop), (1, Stop::NoMoreCuts));
        assert!(found.p.unwrap() < 0.025);
        let shares: Vec<f64> = sequence.shares().iter().map(|share| share.retained.value).collect();
        assert!(shares.iter().zip([0.99, 0.5, 0.97]).all(|(ours, share)| (ours - share).abs() < 1e-12));
    }

    #[test]
    fn a_cut_that_was_not_scored_ends_the_tests() {
        let (base, full, mut cuts) = losses([0.9; LAYERS - 1]);
        cuts[1].loss = None;
        let options = options();
        let sequence = Sequence::new(&base, &full, LAYERS, &cuts, &options);
        let found = sequence.sufficient(Margin::Share(0.8));
        assert_eq!((found.layers_kept, found.stop), (3, Stop::NotScored { layers_kept: 2 }));
        assert_eq!(sequence.shares().len(), LAYERS - 2);
    }

    #[test]
    fn one_of_several_sequences_has_a_part_of_the_level() {
        let (base, full, mut cuts) = losses([0.5, 0.5, 0.95]);
        for (sample, loss) in cuts[0].loss.as_mut().unwrap().iter_mut().enumerate() {
            *loss += 0.38 * ((sample * 13 % 40) as f64 - 19.5) / 20.0;
        }
        // With 500 sign patterns no p-value is below 0.002.
        let options = ChooseOptions::default();
        let kept = |sequences| {
            let sequence = Sequence::new(&base, &full, LAYERS, &cuts, &options).among(sequences);
            let found = sequence.sufficient(Margin::Share(0.88));
            (found.layers_kept, sequence.shares()[0].retained)
        };
        let ((alone, narrow), (among, wide)) = (kept(1), kept(20));
        assert_eq!((alone, among), (3, 4), "{narrow:?} {wide:?}");
        assert!(wide.low < 0.88 && 0.88 < narrow.low && wide.high > narrow.high);
    }

    #[test]
    fn the_choice_has_the_reason_of_the_tests() {
        let choose = |shares, margin| {
            let (base, full, cuts) = losses(shares);
            let options = ChooseOptions { margin, ..options() };
            let (choice, about) = Sequence::new(&base, &full, LAYERS, &cuts, &options).choose(judged());
            assert_eq!(choice.validation, JudgingSamples::All);
            (choice.verdict, choice.reason, choice.layers_kept, about)
        };
        let half = Margin::Share(0.5);
        assert_eq!(choose([0.6, 0.8, 0.9], half), (Verdict::Trim, Reason::NotWorse, 1, Some(1)));
        assert_eq!(choose([0.1, 0.2, 0.3], half), (Verdict::KeepFull, Reason::AllNeeded, 4, Some(3)));
        assert_eq!(choose([0.1, 0.2, 0.8], Margin::Nats(0.4)), (Verdict::Trim, Reason::NotWorse, 3, Some(3)));
        // However wide the margin, a cut must gain over the base model.
        assert_eq!(choose([-0.1, 0.2, 0.8], Margin::Nats(9.0)), (Verdict::Trim, Reason::NotWorse, 2, Some(2)));

        let (base, _, cuts) = losses([0.5; LAYERS - 1]);
        let options = options();
        let sequence = Sequence::new(&base, &base, LAYERS, &cuts, &options);
        let (choice, about) = sequence.choose(judged());
        assert_eq!((choice.reason, about), (Reason::AdapterNotBetter, None));
        assert_eq!(sequence.sufficient(half).stop, Stop::AdapterNotShown);
        assert!(sequence.shares().is_empty());
    }

    #[test]
    fn a_cut_that_is_shown_to_be_better_stays() {
        let (base, full, cuts) = losses([0.6, 0.8, 0.9]);
        let picked = Choice { reason: Reason::Better, verdict: Verdict::Trim, ..judged() };
        let options = options();
        let (choice, about) = Sequence::new(&base, &full, LAYERS, &cuts, &options).choose(picked.clone());
        assert_eq!((choice, about), (picked, None));
    }
}
