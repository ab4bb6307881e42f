//! Choosing by a metric of generated answers instead of the NLL.
//!
//! With the rule of sufficient layers, all samples are answered under the base model, the full adapter and one boundary
//! after the other, only as far as the margin needs (`answered`).
//!
//! With the one-standard-error rule, the NLL selects a few boundaries first, because generation is expensive: those
//! whose mean NLL is within two paired standard errors of the best on the selection samples (an even selection if there
//! are many), and the full adapter. They answer the prompts of the selection samples. The rule of the NLL then picks
//! one of them by the metric's loss, which is its highest value minus the sample's value. The pick, the full adapter
//! and the base model answer the held-out prompts.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::path::Path;

use plimsoll_stats::choose::{Part, Scores};
use plimsoll_stats::mean_and_se;
use serde::{Deserialize, Serialize};

use super::progress::{Progress, Stages};
use crate::data::Sample;
use crate::engine::Generator;
use crate::error::{Error, Result};
use crate::eval::{self, Measured, Task};
use crate::generate::{BATCH, GenerateOptions, GenerationEvent, Prompt};
use crate::journal::{Existing, Fingerprint, Journal};
use crate::lora::Variant;
use crate::result::{Generated, Sampling};
use crate::tokenizer::Tokenizer;

/// A boundary is near the best if its mean NLL is at most this many standard errors above it.
const STANDARD_ERRORS: f64 = 2.0;

/// How many times slower a multiply-add is in generation than in scoring, because all weights are read for a few rows.
/// Approximate, for the time left.
pub(super) const DECODING: u64 = 3;

/// A metric that chooses the boundary.
#[derive(Debug)]
pub(super) struct Chooser {
    pub(super) task: Task,
    pub(super) measured: Measured,
    /// Seed of the answers' random streams.
    seed: u64,
}

impl Chooser {
    /// Parses `TASK` or `TASK:METRIC`. The default is the task's first metric that is a mean over samples.
    pub(super) fn parse(text: &str, seed: u64) -> Result<Self> {
        let (task, name) = match Task::open(text) {
            Ok(task) => (task, None),
            Err(error) => match text.rsplit_once(':') {
                Some((task, name)) => (Task::open(task)?, Some(name)),
                None => return Err(error),
            },
        };
        let means: Vec<&Measured> = task.metrics.iter().filter(|measured| measured.metric.is_mean()).collect();
        let found = match name {
            Some(name) => means.iter().find(|measured| measured.name == name || kind(measured) == name),
            None => means.first(),
        };
        let Some(&measured) = found else {
            let names: Vec<&str> = means.iter().map(|measured| measured.name.as_str()).collect();
            return Err(Error::Usage(format!(
                "--metric {text}: expected a metric of the task that is a mean over samples ({}); others have no value \
                 for each sample",
                if names.is_empty() { "it has none".to_owned() } else { names.join(", ") }
            )));
        };
        let measured = measured.clone();
        Ok(Self { task, measured, seed })
    }

    /// Work of an answer of maximum length to a prompt.
    pub(super) fn work(&self, generator: &dyn Generator, prompt: &[u32]) -> u64 {
        (prompt.len() as u64 + DECODING * self.task.max_tokens as u64) * generator.token_work()
    }

    /// The metric's name in results, such as `gsm8k flexible`.
    pub(super) fn name(&self) -> String {
        format!("{} {}", self.task.name, self.measured.name)
    }
}

/// The metric's kind, as in a task file.
fn kind(measured: &Measured) -> String {
    let value = serde_json::to_value(&measured.metric).unwrap_or_default();
    value["kind"].as_str().unwrap_or_default().to_owned()
}

/// The boundaries that answer: those within two paired standard errors of the best NLL, of many an even selection of
/// about `most`. The best, the `pick` of the rule and the full adapter (`layers`) are always included.
pub(super) fn candidates(
    nll: &[Vec<f64>],
    boundaries: &[usize],
    pick: usize,
    layers: usize,
    most: usize,
) -> Vec<usize> {
    let sum = |column: usize| nll.iter().map(|row| row[column]).sum::<f64>();
    let columns = 0..boundaries.len();
    let Some(best) = columns.clone().min_by(|&a, &b| sum(a).total_cmp(&sum(b))) else { return Vec::new() };
    let is_near = |column: &usize| {
        let deficits: Vec<f64> = nll.iter().map(|row| row[*column] - row[best]).collect();
        let (mean, se) = mean_and_se(&deficits);
        mean <= STANDARD_ERRORS * se
    };
    let near: Vec<usize> = columns.filter(is_near).map(|column| boundaries[column]).collect();
    let mut chosen = vec![boundaries[best], pick, layers];
    let places = most.saturating_sub(chosen.len()).max(1);
    if near.len() <= places {
        chosen.extend(&near);
    } else {
        chosen.extend((0..places).map(|place| near[place * (near.len() - 1) / places.max(2).saturating_sub(1)]));
    }
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

/// The metric's value of every sample, at the boundaries that answered.
#[derive(Clone, Debug)]
pub(super) struct Valued {
    pub(super) candidates: Vec<usize>,
    /// `[sample]`, by boundary.
    pub(super) selection: Vec<BTreeMap<usize, f64>>,
    pub(super) holdout: Vec<BTreeMap<usize, f64>>,
}

impl Valued {
    /// Losses at some boundaries, for the rules.
    pub(super) fn scores(&self, part: Part, boundaries: &[usize]) -> Result<Scores> {
        let samples = match part {
            Part::Selection => &self.selection,
            Part::Holdout => &self.holdout,
        };
        let row = |values: &BTreeMap<usize, f64>| -> Vec<f64> {
            boundaries.iter().filter_map(|k| values.get(k)).map(|&value| loss(value)).collect()
        };
        let rows: Vec<Vec<f64>> = samples.iter().map(row).collect();
        Scores::new(part, boundaries, &rows).map_err(|problem| Error::Internal(problem.to_string()))
    }

    /// Boundaries at which every held-out sample has a value.
    pub(super) fn judged(&self) -> Vec<usize> {
        self.holdout.first().map(|values| values.keys().copied().collect()).unwrap_or_default()
    }
}

/// The loss of a value. Metrics that are means have 1 as their highest value.
pub(super) fn loss(value: f64) -> f64 {
    1.0 - value
}

/// One line of the journal of answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Row {
    part: Part,
    line: usize,
    boundary: usize,
    #[serde(flatten)]
    answer: Generated,
}

/// Generates answers and computes the metric. Known answers are not generated again.
pub(super) struct Answering<'a> {
    chooser: &'a Chooser,
    generator: &'a dyn Generator,
    layers: usize,
    tokenizer: &'a Tokenizer,
    journal: Option<Journal>,
    known: HashMap<(Part, usize, usize), Generated>,
    /// Prompt and reference of each line.
    questions: HashMap<usize, (Vec<u32>, String)>,
}

impl<'a> Answering<'a> {
    /// Starts without answers and without a journal.
    pub(super) fn new(
        chooser: &'a Chooser,
        generator: &'a dyn Generator,
        tokenizer: &'a Tokenizer,
        layers: usize,
        questions: HashMap<usize, (Vec<u32>, String)>,
    ) -> Self {
        Self { chooser, generator, layers, tokenizer, journal: None, known: HashMap::new(), questions }
    }

    /// Starts with the answers of a journal, and journals new ones.
    ///
    /// # Errors
    /// A journal of another search; one that cannot be read or written.
    pub(super) fn with_journal(self, path: &Path, fingerprint: &Fingerprint, existing: Existing) -> Result<Self> {
        let GenerateOptions { sampling, max_tokens, stop, .. } = options(self.chooser);
        let mut prompts: Vec<_> = self.questions.iter().map(|(line, (prompt, _))| (line, prompt)).collect();
        prompts.sort_unstable();
        let work = format!("{sampling:?} {max_tokens} {stop:?} {:?} {prompts:?}", self.tokenizer.end_tokens());
        let fingerprint = fingerprint.with(&work);
        let (mut journal, rows): (_, Vec<Row>) = Journal::open(path, &fingerprint, "search", existing)?;
        if !rows.is_empty() {
            journal.begin(rows.iter())?;
        }
        let key = |row: Row| ((row.part, row.line, row.boundary), row.answer);
        let known = rows.into_iter().map(key).collect();
        Ok(Self { journal: Some(journal), known, ..self })
    }

    /// Work of answers of maximum length to the prompts of samples, under one variant.
    pub(super) fn work(&self, samples: &[&Sample]) -> u64 {
        let prompt = |sample: &&Sample| self.chooser.work(self.generator, &sample.tokens[..sample.answer[0]]);
        samples.iter().map(prompt).sum()
    }

    /// The metric's values of some boundaries on samples of a part. Generates the answers that are missing.
    pub(super) fn values(
        &mut self,
        part: Part,
        samples: &[&Sample],
        boundaries: &[usize],
        stages: &mut Stages,
        observe: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Vec<BTreeMap<usize, f64>>> {
        let variants: Vec<Variant> = boundaries.iter().map(|&k| Variant::bottom_k(self.layers, k)).collect();
        let (mut prompts, mut origins) = (Vec::new(), Vec::new());
        for sample in samples {
            for (variant, &boundary) in boundaries.iter().enumerate() {
                if !self.known.contains_key(&(part, sample.line, boundary)) {
                    let missing = || Error::Internal("a sample without a prompt".into());
                    let (tokens, _) = self.questions.get(&sample.line).cloned().ok_or_else(missing)?;
                    prompts.push(Prompt { tokens, variant, number: sample.line as u64 });
                    origins.push((sample.line, boundary));
                } else {
                    stages.credit(self.chooser.work(self.generator, &sample.tokens[..sample.answer[0]]));
                }
            }
        }
        let of = samples.len() * boundaries.len();
        let mut answers = of - prompts.len();
        stages.count_answers(answers, of);
        let token = DECODING * self.generator.token_work();
        let (journal, known) = (&mut self.journal, &mut self.known);
        let mut failed = None;
        let options = options(self.chooser);
        let (generator, tokenizer) = (self.generator, self.tokenizer);
        let generated = generator.generate(tokenizer, &variants, &prompts, &options, &mut |event| {
            if let GenerationEvent::Tokens(tokens) = event {
                stages.spend(tokens as u64 * token);
            }
            if let GenerationEvent::Finished(index, answer) = event {
                answers += 1;
                stages.count_answers(answers, of);
                let longest = self.chooser.work(self.generator, &prompts[index].tokens);
                stages.credit(longest.saturating_sub(answer.tokens.len() as u64 * token));
                let (line, boundary) = origins[index];
                let row = Row { part, line, boundary, answer: answer.clone() };
                let appended = journal.as_mut().map(|journal| journal.append(std::iter::once(&row)));
                failed = failed.take().or(appended.and_then(Result::err));
                known.insert((part, line, boundary), row.answer);
            }
            if failed.is_some() {
                return ControlFlow::Break(());
            }
            observe(stages.progress())
        });
        match failed {
            Some(error) => return Err(error),
            None => generated.map(drop)?,
        }

        let metric = &self.chooser.measured.metric;
        let value = |sample: &Sample, boundary: usize| -> Result<f64> {
            let missing = || Error::Internal("a sample without an answer".into());
            let answer = self.known.get(&(part, sample.line, boundary)).ok_or_else(missing)?;
            let (_, reference) = self.questions.get(&sample.line).ok_or_else(missing)?;
            let statistics = eval::statistics(metric, &answer.text, std::slice::from_ref(reference));
            Ok(metric.value(&statistics, 1))
        };
        let values = |sample: &&Sample| {
            boundaries.iter().map(|&boundary| Ok((boundary, value(sample, boundary)?))).collect::<Result<_>>()
        };
        samples.iter().map(values).collect()
    }
}

fn options(chooser: &Chooser) -> GenerateOptions {
    GenerateOptions {
        sampling: Sampling { seed: chooser.seed, ..Sampling::GREEDY },
        max_tokens: chooser.task.max_tokens,
        stop: chooser.task.stop.clone(),
        batch: BATCH,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries_near_the_best_nll_answer() {
        // Mean deficit of column 0: 1 with a standard error of 0.1; of column 1: 0.1 with 0.1.
        let nll: Vec<Vec<f64>> = (0..4)
            .map(|i| vec![2.0 + 0.2 * f64::from(i % 2), 1.1 + 0.2 * f64::from(i % 2), 1.1, 1.1, 1.1, 1.6])
            .collect();
        let boundaries = [0, 1, 2, 3, 4, 5];
        assert_eq!(candidates(&nll, &boundaries, 2, 5, 8), [1, 2, 3, 4, 5]);
        assert_eq!(candidates(&nll, &boundaries, 2, 5, 5), [1, 2, 4, 5]);
        assert_eq!(candidates(&nll, &boundaries, 2, 5, 1), [1, 2, 5]);
        // The full adapter is always included.
        assert_eq!(candidates(&nll, &boundaries, 2, 9, 1), [1, 2, 9]);
    }

    #[test]
    fn a_metric_is_named_or_the_first_mean() {
        let names = |text| Chooser::parse(text, 0).map(|chooser| chooser.name()).map_err(|error| error.to_string());
        assert_eq!(names("gsm8k").unwrap(), "gsm8k strict");
        assert_eq!(names("gsm8k:flexible").unwrap(), "gsm8k flexible");
        assert_eq!(names("dialogsum:rouge-l").unwrap(), "dialogsum rougeL (stemmed)");
        assert!(names("multi30k").unwrap_err().contains("it has none"));
        assert!(names("gsm8k:perplexity").unwrap_err().contains("strict, flexible"));
        assert!(names("nothing").unwrap_err().contains("gsm8k"));
    }
}
