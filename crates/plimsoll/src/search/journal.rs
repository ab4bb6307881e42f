//! What is in a search's journal: scores of samples at some boundaries, a row each, as `scores.jsonl` has them.

use std::collections::{BTreeMap, HashMap};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::choose::Part;
use crate::data::Sample;
use crate::engine::{LensCurve, SampleScores, VariantScore};

/// One line of the journal and of `scores.jsonl`: scores of one sample at some boundaries.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct Row {
    /// The part that the sample belongs to.
    pub(super) part: Part,
    /// What the entries of `variants` are, in their order.
    pub(super) boundaries: Vec<usize>,
    #[serde(flatten)]
    pub(super) scores: SampleScores,
}

/// All that is known of one sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Known {
    pub(super) line: usize,
    pub(super) tokens: usize,
    /// By boundary.
    pub(super) scores: BTreeMap<usize, VariantScore>,
    /// Of the base model and of the full adapter, or empty.
    pub(super) lens: Vec<LensCurve>,
}

impl Known {
    pub(super) fn new(sample: &Sample) -> Self {
        Self { line: sample.line, tokens: sample.answer.len(), ..Self::default() }
    }

    /// Takes in scores at some boundaries.
    pub(super) fn take(&mut self, boundaries: &[usize], scores: SampleScores) {
        self.scores.extend(boundaries.iter().copied().zip(scores.variants));
        if !scores.lens.is_empty() {
            self.lens = scores.lens;
        }
    }

    /// Mean negative log-likelihood at one boundary, in nats per answer token.
    pub(super) fn mean_nll(&self, boundary: usize) -> Option<f64> {
        self.scores.get(&boundary).map(|score| score.nll / self.tokens as f64)
    }

    pub(super) fn row(&self, part: Part) -> Row {
        let (line, tokens, lens) = (self.line, self.tokens, self.lens.clone());
        let (boundaries, variants) = self.scores.iter().map(|(&boundary, &score)| (boundary, score)).unzip();
        Row { part, boundaries, scores: SampleScores { line, tokens, variants, lens } }
    }
}

/// What earlier runs of the same search knew.
#[derive(Debug, Default)]
pub(super) struct Memory(HashMap<(Part, usize), Vec<Row>>);

impl Memory {
    /// Of a journal's rows.
    pub(super) fn of(rows: Vec<Row>) -> Self {
        let mut by_sample: HashMap<_, Vec<Row>> = HashMap::new();
        for row in rows {
            by_sample.entry((row.part, row.scores.line)).or_default().push(row);
        }
        Self(by_sample)
    }

    /// What an earlier run knew of one sample of a model with so many layers, as far as it is sound.
    pub(super) fn known(&self, part: Part, sample: &Sample, layers: usize) -> Known {
        let mut known = Known::new(sample);
        let tokens = sample.answer.len();
        let share = 0.0..=1.0;
        let is_sound = |score: &VariantScore| {
            score.nll.is_finite() && share.contains(&score.probability) && score.correct <= tokens
        };
        let is_curve = |curve: &LensCurve| {
            let LensCurve { probability, top1, rank } = curve;
            [probability, top1, rank].iter().all(|values| values.len() == layers)
                && probability.iter().chain(top1).all(|value| share.contains(value))
                && rank.iter().all(|rank| rank.is_finite())
        };
        for Row { boundaries, scores, .. } in self.0.get(&(part, sample.line)).into_iter().flatten() {
            let fits = scores.tokens == tokens
                && scores.variants.len() == boundaries.len()
                && boundaries.iter().all(|&boundary| boundary <= layers)
                && [0, 2].contains(&scores.lens.len());
            if fits && scores.variants.iter().all(is_sound) && scores.lens.iter().all(is_curve) {
                known.take(boundaries, scores.clone());
            }
        }
        known
    }
}

/// Rows of some samples at some boundaries.
pub(super) fn rows(part: Part, boundaries: &[usize], scores: &[SampleScores]) -> impl Iterator<Item = Row> {
    scores.iter().map(move |scores| Row { part, boundaries: boundaries.to_vec(), scores: scores.clone() })
}
