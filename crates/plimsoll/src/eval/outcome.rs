//! The result of an evaluation: metrics of every variant, comparisons, warnings, and the files of the output folder.

use std::num::NonZero;
use std::path::Path;

use plimsoll_formats::files;
use plimsoll_stats::holm;
use plimsoll_stats::metrics::Metric;
use plimsoll_stats::metrics::compare::{self, compare, estimate};

use super::evaluation::{Evaluation, JOURNAL, Question, RESULT, SAMPLES};
use super::run::Answered;
use super::task::Measured;
use crate::error::{Error, Result};
use crate::generate::GenerateOptions;
use crate::journal::{self, Journal, TOOL};
use crate::lora::Variant;
use crate::lora::adapter::OtherBase;
use crate::report;
use crate::result::{
    AdapterFacts, Better, EvalComparison, EvalResult, EvalVariant, EvalWarning, Finish, Generated, Generation,
    MetricResult, TaskFacts,
};

/// With fewer samples, the result has a warning.
const FEW_SAMPLES: usize = 50;

/// With a larger share of answers that are cut off, the result has a warning.
const MANY_CUT: f64 = 0.2;

/// Bootstrap resamples of an interval, and permutations of a test.
const RESAMPLES: usize = 10_000;

impl Evaluation {
    /// Computes the metrics, compares the variants, and writes `result.json` (and `samples.jsonl`) to the output
    /// folder.
    ///
    /// # Errors
    /// An output folder that cannot be written.
    pub fn finish(&self, answered: &Answered) -> Result<EvalResult> {
        let result = self.result(answered)?;
        if let Some(out) = &self.options.out {
            if self.options.log_samples {
                files::write_file(&out.join(SAMPLES), self.log(answered)?.as_bytes())?;
            } else {
                // The samples of an earlier result do not belong to this one.
                Journal::remove(&out.join(SAMPLES))?;
            }
            files::write_file(&out.join(RESULT), report::json(&result)?.as_bytes())?;
            Journal::remove(&out.join(JOURNAL))?;
        }
        Ok(result)
    }

    fn result(&self, answered: &Answered) -> Result<EvalResult> {
        let metrics = self.metrics(answered)?;
        let variants: Vec<EvalVariant> = self.variants.iter().map(|variant| self.variant(variant, answered)).collect();
        let warnings = self.warnings(&variants);
        let whole = Variant::uniform(self.model.config().layers, 1.0);
        let adapter_path = self.options.adapter.as_deref().unwrap_or(Path::new(""));
        let adapter = self.adapter.as_ref().zip(self.hashes.1.as_ref());
        let GenerateOptions { sampling, max_tokens, stop, .. } = self.generation();
        Ok(EvalResult {
            schema: 1,
            tool: TOOL.to_owned(),
            command: self.options.command.clone(),
            task: TaskFacts {
                name: self.task.name.clone(),
                about: self.task.about.clone(),
                file: self.task.file.as_ref().map(|file| file.display().to_string()),
                shots: self.shots,
            },
            model: self.model.facts(&self.options.model, &self.hashes.0),
            adapter: adapter.map(|(adapter, hash)| AdapterFacts::of(adapter, adapter_path, hash, &whole)),
            data: self.facts.clone(),
            generation: Generation { max_tokens, stop, sampling },
            variants,
            metrics,
            efficiency: answered.efficiency.clone(),
            warnings,
            cost: answered.cost.clone(),
        })
    }

    /// The metrics of all variants, with their comparisons.
    fn metrics(&self, answered: &Answered) -> Result<Vec<MetricResult>> {
        let pairs = pairs(&self.variants);
        // Enough resamples for a small p-value after the adjustment for all comparisons.
        let resamples = RESAMPLES.max(100 * pairs.len() * self.task.metrics.len());
        let resamples = NonZero::new(resamples).unwrap_or(NonZero::<usize>::MIN);
        let options = compare::CompareOptions { seed: self.options.sampling.seed, resamples };
        let references = {
            let mut counts = self.questions.iter().map(|question| question.rendered.references.len());
            let first = counts.next();
            first.filter(|first| counts.all(|count| count == *first))
        };
        let mut metrics = Vec::with_capacity(self.task.metrics.len());
        for Measured { name, metric } in &self.task.metrics {
            let rows = self.statistics(metric, answered)?;
            let comparison = |&(one, other): &(usize, usize)| EvalComparison {
                layers_kept: self.variants[one].layers_kept(),
                gates: self.variants[one].spec(),
                against: self.variants[other].layers_kept(),
                difference: compare(metric, &rows[other], &rows[one], options),
                p_holm: 1.0,
            };
            metrics.push(MetricResult {
                name: name.clone(),
                signature: match &metric.extract {
                    Some(extract) => format!("{}|extract:{}", metric.signature(references), extract.take.name()),
                    None => metric.signature(references),
                },
                better: if metric.lower_is_better() { Better::Lower } else { Better::Higher },
                values: rows.iter().map(|rows| estimate(metric, rows, options)).collect(),
                comparisons: pairs.iter().map(comparison).collect(),
            });
        }
        let all = || metrics.iter().flat_map(|metric| &metric.comparisons);
        let adjusted = holm(&all().map(|comparison| comparison.difference.p).collect::<Vec<f64>>());
        let comparisons = metrics.iter_mut().flat_map(|metric| &mut metric.comparisons);
        comparisons.zip(adjusted).for_each(|(comparison, p)| comparison.p_holm = p);
        Ok(metrics)
    }

    fn warnings(&self, variants: &[EvalVariant]) -> Vec<EvalWarning> {
        let mut warnings = Vec::new();
        if self.questions.len() < FEW_SAMPLES {
            warnings.push(EvalWarning::FewSamples { samples: self.questions.len() });
        }
        if self.facts.skipped > 0 {
            let context = self.model.config().context;
            warnings.push(EvalWarning::Skipped { samples: self.facts.skipped, context });
        }
        let rendered = self.questions.iter().map(|question| &question.rendered);
        for template in self.task.unfilled_references(rendered) {
            warnings.push(EvalWarning::UnfilledReference { template });
        }
        warnings
            .extend(self.other_base().map(|OtherBase { adapter, model }| EvalWarning::OtherBase { adapter, model }));
        let share = |variant: &EvalVariant| variant.cut.unwrap_or(0.0);
        let worst = variants.iter().max_by(|a, b| share(a).total_cmp(&share(b)));
        if let Some(variant) = worst.filter(|variant| share(variant) > MANY_CUT) {
            let (share, max_tokens) = (share(variant), self.task.max_tokens);
            warnings.push(EvalWarning::Cut { variant: variant.name.clone(), share, max_tokens });
        }
        warnings
    }

    fn variant(&self, variant: &Variant, answered: &Answered) -> EvalVariant {
        let gates = variant.spec();
        let pieces = self.questions.iter().filter_map(|question| answered.known.get(&(question.line(), gates.clone())));
        let answers: Vec<&Generated> = pieces.filter_map(|piece| piece.answer.as_ref()).collect();
        let mean = |of: &dyn Fn(&Generated) -> f64| {
            (!answers.is_empty()).then(|| answers.iter().map(|answer| of(answer)).sum::<f64>() / answers.len() as f64)
        };
        EvalVariant {
            layers_kept: variant.layers_kept(),
            name: variant.name(),
            gates: gates.clone(),
            answer_tokens: mean(&|answer| answer.tokens.len() as f64),
            cut: mean(&|answer| if answer.finish == Finish::Length { 1.0 } else { 0.0 }),
        }
    }

    /// The statistics of a metric: `[variant][sample]`.
    fn statistics(&self, metric: &Metric, answered: &Answered) -> Result<Vec<Vec<Vec<f64>>>> {
        let missing = || Error::Internal("a sample without an answer or a score".to_owned());
        let of = |question: &Question, variant: &Variant| {
            let piece = answered.known.get(&(question.line(), variant.spec())).ok_or_else(missing)?;
            if metric.is_of_text() {
                let answer = piece.answer.as_ref().ok_or_else(missing)?;
                Ok(statistics(metric, &answer.text, &question.rendered.references))
            } else {
                let (nll, tokens) = piece.score.ok_or_else(missing)?;
                Ok(vec![nll, tokens as f64])
            }
        };
        let rows = |variant| self.questions.iter().map(|question| of(question, variant)).collect();
        self.variants.iter().map(rows).collect()
    }

    /// The lines of `samples.jsonl`: prompt, references, answers and scores of each sample.
    fn log(&self, answered: &Answered) -> Result<String> {
        let mut statistics = Vec::new();
        for Measured { name, metric } in &self.task.metrics {
            statistics.push((name, metric, self.statistics(metric, answered)?));
        }
        let lines = self.questions.iter().enumerate().map(|(sample, question)| {
            let answers = self.variants.iter().enumerate().map(|(index, variant)| {
                let piece = answered.known.get(&(question.line(), variant.spec()));
                let metrics: serde_json::Map<String, serde_json::Value> = statistics
                    .iter()
                    .map(|(name, metric, rows)| ((*name).clone(), metric.value(&rows[index][sample], 1).into()))
                    .collect();
                serde_json::json!({
                    "layers_kept": variant.layers_kept(),
                    "gates": variant.spec(),
                    "answer": piece.and_then(|piece| piece.answer.as_ref()),
                    "nll": piece.and_then(|piece| piece.score).map(|(nll, _)| nll),
                    "metrics": metrics,
                })
            });
            serde_json::json!({
                "line": question.line(),
                "prompt": question.rendered.prompt,
                "references": question.rendered.references,
                "prompt_tokens": question.prompt().len(),
                "answers": answers.collect::<Vec<_>>(),
            })
        });
        journal::lines(lines)
    }
}

/// The statistics of an answer. White space around the answer and around the references is ignored.
pub(crate) fn statistics(metric: &Metric, answer: &str, references: &[String]) -> Vec<f64> {
    let references: Vec<String> = references.iter().map(|reference| reference.trim().to_owned()).collect();
    metric.statistics(answer.trim(), &references)
}

/// The comparisons, as pairs of indices: every variant with the base model and with the full adapter.
fn pairs(variants: &[Variant]) -> Vec<(usize, usize)> {
    let place = |name: &str| variants.iter().position(|variant| variant.name() == name);
    let (base, full) = (place("base"), place("full"));
    let others = (0..variants.len()).filter(|one| Some(*one) != base);
    let of_one =
        |one: usize| [base, full.filter(|full| *full != one)].into_iter().flatten().map(move |other| (one, other));
    others.flat_map(of_one).collect()
}
