//! Known scores of samples by variant, and the journal's rows for them.

use std::collections::{BTreeMap, HashMap};

use plimsoll_stats::choose::Part;

use crate::data::Sample;
use crate::lora::{VariantId, VariantTable};
use crate::result::{DataSource, LensCurve, SampleScores, ScoreRow, VariantScore};

/// A set of samples: a part of the data, or of the guard's samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Set {
    pub(super) source: DataSource,
    pub(super) part: Part,
}

impl Set {
    /// A part of the data.
    pub(super) fn data(part: Part) -> Self {
        Self { source: DataSource::Data, part }
    }

    /// A part of the guard's samples.
    pub(super) fn guard(part: Part) -> Self {
        Self { source: DataSource::Guard, part }
    }
}

/// The known scores of one sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Known {
    pub(super) line: usize,
    pub(super) tokens: usize,
    pub(super) scores: BTreeMap<VariantId, VariantScore>,
    /// The curves of the base model and of the full adapter, or none.
    pub(super) lens: Vec<LensCurve>,
    /// NLL of every answer token.
    pub(super) token_nll: BTreeMap<VariantId, Vec<f32>>,
}

impl Known {
    pub(super) fn new(sample: &Sample) -> Self {
        Self { line: sample.line, tokens: sample.answer.len(), ..Self::default() }
    }

    /// Adds scores under some variants.
    pub(super) fn take(&mut self, variants: &[VariantId], scores: SampleScores) {
        self.token_nll.extend(variants.iter().copied().zip(scores.token_nll));
        self.scores.extend(variants.iter().copied().zip(scores.variants));
        if !scores.lens.is_empty() {
            self.lens = scores.lens;
        }
    }

    /// Mean negative log-likelihood under a variant, in nats per answer token.
    pub(super) fn mean_nll(&self, variant: VariantId) -> Option<f64> {
        self.scores.get(&variant).map(|score| score.nll / self.tokens as f64)
    }

    /// A row with the scores, without those of tokens, ordered by the variants' texts.
    pub(super) fn row(&self, set: Set, table: &VariantTable) -> ScoreRow {
        let (line, tokens, lens) = (self.line, self.tokens, self.lens.clone());
        let by_gates: BTreeMap<&str, VariantScore> =
            self.scores.iter().map(|(id, score)| (table.spec(*id), *score)).collect();
        let (gates, variants) = by_gates.into_iter().map(|(gates, score)| (gates.to_owned(), score)).unzip();
        let Set { source, part } = set;
        ScoreRow { source, part, gates, scores: SampleScores { line, tokens, variants, lens, token_nll: Vec::new() } }
    }

    /// The rows with all scores; those of tokens are in a separate row.
    pub(super) fn rows(&self, set: Set, table: &VariantTable) -> Vec<ScoreRow> {
        let mut rows = vec![self.row(set, table)];
        if !self.token_nll.is_empty() {
            let mut row = Self { scores: BTreeMap::new(), lens: Vec::new(), ..self.clone() }.row(set, table);
            for (id, nll) in &self.token_nll {
                if let Some(score) = self.scores.get(id) {
                    row.gates.push(table.spec(*id).to_owned());
                    row.scores.variants.push(*score);
                    row.scores.token_nll.push(nll.clone());
                }
            }
            rows.push(row);
        }
        rows
    }
}

/// The rows of earlier runs of the same search, by sample.
#[derive(Debug, Default)]
pub(super) struct Memory(HashMap<(Set, usize), Vec<ScoreRow>>);

impl Memory {
    /// Groups the rows of a journal by sample.
    pub(super) fn of(rows: Vec<ScoreRow>) -> Self {
        let mut by_sample: HashMap<_, Vec<ScoreRow>> = HashMap::new();
        for row in rows {
            let set = Set { source: row.source, part: row.part };
            by_sample.entry((set, row.scores.line)).or_default().push(row);
        }
        Self(by_sample)
    }

    /// The scores of one sample from earlier runs, for a model with a number of `layers`. Invalid rows are skipped.
    pub(super) fn known(&self, set: Set, sample: &Sample, layers: usize, table: &mut VariantTable) -> Known {
        let mut known = Known::new(sample);
        let tokens = sample.answer.len();
        let share = 0.0..=1.0;
        let is_valid = |score: &VariantScore| {
            score.nll.is_finite() && share.contains(&score.probability) && score.correct <= tokens
        };
        let is_curve = |curve: &LensCurve| {
            let LensCurve { probability, top1, rank } = curve;
            [probability, top1, rank].iter().all(|values| values.len() == layers)
                && probability.iter().chain(top1).all(|value| share.contains(value))
                && rank.iter().all(|rank| rank.is_finite())
        };
        for ScoreRow { gates, scores, .. } in self.0.get(&(set, sample.line)).into_iter().flatten() {
            let fits = scores.tokens == tokens
                && scores.variants.len() == gates.len()
                && [0, 2].contains(&scores.lens.len())
                && [0, gates.len()].contains(&scores.token_nll.len())
                && scores.token_nll.iter().all(|nll| nll.len() == tokens && nll.iter().all(|nll| nll.is_finite()));
            if fits && scores.variants.iter().all(is_valid) && scores.lens.iter().all(is_curve) {
                let ids: Vec<VariantId> = gates.iter().map(|gates| table.insert_spec(gates.clone())).collect();
                known.take(&ids, scores.clone());
            }
        }
        known
    }
}
