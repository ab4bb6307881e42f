//! What is in a search's journal: scores of samples under some gates, a row each, as `scores.jsonl` has them.

use std::collections::{BTreeMap, HashMap};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::choose::Part;
use crate::data::Sample;
use crate::engine::{LensCurve, SampleScores, VariantScore};

/// Which file a sample is from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Source {
    /// The samples that the adapter is for.
    #[default]
    Data,
    /// The samples on which it must not be worse.
    Guard,
}

/// A set of samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Set {
    pub(super) source: Source,
    pub(super) part: Part,
}

impl Set {
    /// Samples that the adapter is for.
    pub(super) fn data(part: Part) -> Self {
        Self { source: Source::Data, part }
    }

    /// Samples on which it must not be worse.
    pub(super) fn guard(part: Part) -> Self {
        Self { source: Source::Guard, part }
    }
}

/// One line of the journal and of `scores.jsonl`: scores of one sample under some gates.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct Row {
    #[serde(default, skip_serializing_if = "is_data")]
    pub(super) source: Source,
    pub(super) part: Part,
    /// What the entries of `variants` are, in their order.
    pub(super) gates: Vec<String>,
    #[serde(flatten)]
    pub(super) scores: SampleScores,
}

fn is_data(source: &Source) -> bool {
    *source == Source::Data
}

/// All that is known of one sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Known {
    pub(super) line: usize,
    pub(super) tokens: usize,
    /// By gates.
    pub(super) scores: BTreeMap<String, VariantScore>,
    /// Of the base model and of the full adapter, or empty.
    pub(super) lens: Vec<LensCurve>,
    /// NLL of every answer token, by gates.
    pub(super) token_nll: BTreeMap<String, Vec<f32>>,
}

impl Known {
    pub(super) fn new(sample: &Sample) -> Self {
        Self { line: sample.line, tokens: sample.answer.len(), ..Self::default() }
    }

    /// Takes in scores under some gates.
    pub(super) fn take(&mut self, gates: &[String], scores: SampleScores) {
        self.token_nll.extend(gates.iter().cloned().zip(scores.token_nll));
        self.scores.extend(gates.iter().cloned().zip(scores.variants));
        if !scores.lens.is_empty() {
            self.lens = scores.lens;
        }
    }

    /// Mean negative log-likelihood under some gates, in nats per answer token.
    pub(super) fn mean_nll(&self, gates: &str) -> Option<f64> {
        self.scores.get(gates).map(|score| score.nll / self.tokens as f64)
    }

    /// Its scores, without those of single tokens.
    pub(super) fn row(&self, set: Set) -> Row {
        let (line, tokens, lens) = (self.line, self.tokens, self.lens.clone());
        let (gates, variants) = self.scores.iter().map(|(gates, &score)| (gates.clone(), score)).unzip();
        let Set { source, part } = set;
        Row { source, part, gates, scores: SampleScores { line, tokens, variants, lens, token_nll: Vec::new() } }
    }

    /// Rows that say all of it: those of single tokens apart.
    pub(super) fn rows(&self, set: Set) -> impl Iterator<Item = Row> {
        let of_tokens = (!self.token_nll.is_empty()).then(|| {
            let known = self.token_nll.iter().filter_map(|(gates, nll)| Some((gates, nll, *self.scores.get(gates)?)));
            let mut row = Self { scores: BTreeMap::new(), lens: Vec::new(), ..self.clone() }.row(set);
            for (gates, nll, score) in known {
                row.gates.push(gates.clone());
                row.scores.variants.push(score);
                row.scores.token_nll.push(nll.clone());
            }
            row
        });
        std::iter::once(self.row(set)).chain(of_tokens)
    }
}

/// What earlier runs of the same search knew.
#[derive(Debug, Default)]
pub(super) struct Memory(HashMap<(Set, usize), Vec<Row>>);

impl Memory {
    /// Of a journal's rows.
    pub(super) fn of(rows: Vec<Row>) -> Self {
        let mut by_sample: HashMap<_, Vec<Row>> = HashMap::new();
        for row in rows {
            let set = Set { source: row.source, part: row.part };
            by_sample.entry((set, row.scores.line)).or_default().push(row);
        }
        Self(by_sample)
    }

    /// What an earlier run knew of one sample of a model with so many layers, as far as it is sound.
    pub(super) fn known(&self, set: Set, sample: &Sample, layers: usize) -> Known {
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
        for Row { gates, scores, .. } in self.0.get(&(set, sample.line)).into_iter().flatten() {
            let fits = scores.tokens == tokens
                && scores.variants.len() == gates.len()
                && [0, 2].contains(&scores.lens.len())
                && [0, gates.len()].contains(&scores.token_nll.len())
                && scores.token_nll.iter().all(|nll| nll.len() == tokens && nll.iter().all(|nll| nll.is_finite()));
            if fits && scores.variants.iter().all(is_sound) && scores.lens.iter().all(is_curve) {
                known.take(gates, scores.clone());
            }
        }
        known
    }
}
