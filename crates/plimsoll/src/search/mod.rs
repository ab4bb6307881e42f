//! The main job: score the boundaries, choose one, judge it on held-out samples, and write what the answer calls for.
//!
//! Three steps, so that a bad input costs nobody any time: [`Search::open`] reads and checks everything and writes
//! nothing; [`Search::score`] does the long work and journals it; [`Search::finish`] makes the result and writes it.

mod journal;
mod metric;
mod scoring;

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZero;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use crate::adapter::{self, Adapter, Estimate, LayerLora, Provenance, Source, TrimScores};
use crate::choose::race::Fate;
use crate::choose::{self, Choice, Gain, Input, Interval, Part, Scores, Verdict, choose};
use crate::data::{self, DataProblem, Dataset, Sample, Split, TemplateChoice, Turns};
use crate::efficiency::{self, Efficiency, Subject};
use crate::engine::{Embedded, EngineOptions, VariantScore};
use crate::error::{Error, Result};
use crate::files;
use crate::gates::{Family, Variant};
use crate::journal::{self as journals, Fingerprint, Journal};
pub use crate::journal::{Existing, TOOL};
use crate::lens;
use crate::metrics::compare;
use crate::model::{Checkpoint, Precision};
use crate::report::{
    self, AdapterFacts, Cost, DataFacts, DroppedBoundary, LensSummary, MetricSummary, MetricVariant, ModelFacts,
    RaceSummary, Rules, ScoreSummary, SearchResult, VariantSummary, Warning,
};
use crate::stats::mean_and_se;
use journal::{Known, Memory};
use metric::{Answering, Chooser, Valued};
use scoring::Scoring;

/// Below these numbers of samples a warning stands beside the answer: intervals from fewer are too narrow to trust.
const FEW_SELECTION: usize = 20;
const FEW_HOLDOUT: usize = 10;

/// Below this share of agreeing resamples a warning stands beside the answer.
const STABLE_SHARE: f64 = 0.5;

const RESULT: &str = "result.json";
const REPORT: &str = "report.html";
const SCORES: &str = "scores.jsonl";
const ADAPTER: &str = "adapter";
const JOURNAL: &str = "journal.jsonl";
const ANSWERS: &str = "answers.journal.jsonl";

/// What to search, and how.
#[derive(Clone, Debug)]
pub struct SearchOptions {
    /// The base model: a GGUF file or a folder.
    pub model: PathBuf,
    /// The adapter: a PEFT folder.
    pub adapter: PathBuf,
    /// The samples: a JSONL file or a folder.
    pub data: PathBuf,
    /// Where results go.
    pub out: PathBuf,
    /// How prompts are rendered.
    pub template: TemplateChoice,
    /// Which assistant turns are scored.
    pub turns: Turns,
    /// Score at most so many samples.
    pub max_samples: Option<usize>,
    /// Share of the samples that is held out.
    pub holdout: f64,
    /// Which boundaries are scored on which samples.
    pub strategy: Strategy,
    /// Choose by a task's metric in place of the NLL: `TASK`, or `TASK:METRIC`.
    pub metric: Option<String>,
    /// With a metric, at most so many boundaries answer the selection samples.
    pub metric_candidates: usize,
    /// Draw the curves of the ground truth's probability from at most so many selection samples.
    pub lens_samples: NonZero<usize>,
    /// Seed of everything that is drawn.
    pub seed: u64,
    /// Bounds of the engine.
    pub engine: EngineOptions,
    /// Where trimmed adapters are written for a moment, to see how long they take to load.
    pub scratch: PathBuf,
    /// What to do with results that are there already.
    pub existing: Existing,
    /// The command that repeats the search, for the result.
    pub command: String,
}

/// Which boundaries are scored on which samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Strategy {
    /// All on all.
    Exact,
    /// Boundaries leave once they are significantly worse (see [`choose::race`]).
    Racing {
        /// The most probable that the best of those that are raced is lost.
        error_rate: f64,
    },
}

/// A search whose inputs are read and checked.
#[derive(Debug)]
pub struct Search {
    options: SearchOptions,
    checkpoint: Checkpoint,
    adapter: Adapter,
    lora: Vec<LayerLora>,
    dataset: Dataset,
    split: Split,
    chooser: Option<Chooser>,
    hashes: Hashes,
}

/// SHA-256 of what was read.
#[derive(Debug)]
struct Hashes {
    model: String,
    adapter: String,
    data: String,
}

/// All scores of a search.
#[derive(Clone, Debug)]
pub struct Scored {
    /// In the order of the lines.
    selection: Vec<Known>,
    holdout: Vec<Known>,
    /// What became of each boundary, where they were raced.
    fates: Option<Vec<Fate>>,
    /// What was generated comes to, where that chooses.
    valued: Option<Valued>,
    efficiency: Option<Efficiency>,
    cost: Cost,
}

/// How far scoring is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Multiply-adds that are done.
    pub done: u64,
    /// Multiply-adds in all.
    pub total: u64,
    /// Samples that are finished.
    pub samples: usize,
    /// While answers are generated: how many there are, of how many.
    pub answers: Option<(usize, usize)>,
}

/// What was written, and where.
#[derive(Clone, Debug)]
pub struct Written {
    /// The result.
    pub result: SearchResult,
    /// The HTML report.
    pub report: PathBuf,
    /// The trimmed adapter, where the verdict is to trim.
    pub adapter: Option<PathBuf>,
}

impl Search {
    /// Reads and checks all inputs.
    ///
    /// # Errors
    /// Whatever is wrong with the model, the adapter or the data; an output folder that holds other results.
    pub fn open(options: SearchOptions) -> Result<Self> {
        check_out(&options)?;
        let chooser = options.metric.as_deref().map(|text| Chooser::parse(text, options.seed)).transpose()?;
        let checkpoint = Checkpoint::open(&options.model)?;
        let adapter = Adapter::open(&options.adapter)?;
        let config = checkpoint.config();
        let lora = checkpoint.bind(Some(&adapter))?;
        let tokenizer = checkpoint.tokenizer()?;
        let data_options = data::Options {
            template: options.template.clone(),
            turns: options.turns,
            max_samples: options.max_samples,
            seed: options.seed,
            context: config.context,
        };
        let dataset = data::load(&options.data, &tokenizer, &data_options)?;
        let outside = |sample: &&Sample| sample.tokens.iter().any(|&token| token as usize >= config.vocabulary);
        if let Some(sample) = dataset.samples.iter().find(outside) {
            let line = sample.line;
            return Err(Error::input(&dataset.file, DataProblem::Vocabulary { line, vocabulary: config.vocabulary }));
        }
        if chooser.is_some() {
            if options.turns == Turns::All {
                return Err(Error::Usage(
                    "--metric answers the last turn of a chat: it does not go with --turns all".into(),
                ));
            }
            let room = config.context - 1;
            // A text that is all answer has nothing before it but a BOS.
            let is_unfit = |sample: &&Sample| sample.answer[0] < 2 || sample.answer[0] > room;
            if let Some(Sample { line, answer, .. }) = dataset.samples.iter().find(is_unfit) {
                let problem = DataProblem::Unanswerable { line: *line, tokens: answer[0], room };
                return Err(Error::input(&dataset.file, problem));
            }
        }
        let split = data::split(dataset.samples.len(), options.holdout, options.seed)?;
        let hashes = Hashes {
            model: checkpoint.sha256()?,
            adapter: files::sha256_of_files(&adapter.files())?,
            data: dataset.sha256.clone(),
        };
        Ok(Self { options, checkpoint, adapter, lora, dataset, split, chooser, hashes })
    }

    /// How many samples will be scored.
    pub fn samples(&self) -> usize {
        self.dataset.samples.len()
    }

    /// Scores boundaries on samples. `observe` may stop the work by breaking; what is finished then stands in the output
    /// folder's journal, and the next call goes on from there.
    ///
    /// # Errors
    /// See [`crate::engine::Engine::score`]; a journal of another search; an output folder that cannot be written.
    pub fn score(&self, observe: &mut dyn FnMut(Progress) -> ControlFlow<()>) -> Result<Scored> {
        let layers = self.checkpoint.config().layers;
        let engine = Embedded::load(&self.checkpoint, &self.lora, self.options.engine)?;
        let precision = engine.model().precision();
        let fingerprint = self.fingerprint(precision)?;
        let (journal, rows) =
            Journal::open(&self.options.out.join(JOURNAL), &fingerprint, "search", self.options.existing)?;
        let journal = (journal, Memory::of(rows));

        let selection: Vec<&Sample> = self.part(Part::Selection).collect();
        let holdout: Vec<&Sample> = self.part(Part::Holdout).collect();
        // The order of the lines may mean something; a race must not.
        let order = data::race_order(selection.len(), self.options.seed);
        let raced: Vec<&Sample> = order.iter().map(|&index| selection[index]).collect();
        let lens = raced.iter().take(self.options.lens_samples.get()).map(|sample| sample.line).collect();
        let begun = Instant::now();
        let mut scoring = Scoring::new(&engine, journal, lens, &selection, &holdout)?;

        let all: Vec<usize> = (0..=layers).collect();
        let (fates, left) = match self.options.strategy {
            Strategy::Exact => {
                let later = scoring.work(Part::Holdout, &holdout, &all);
                scoring.evaluate(Part::Selection, &selection, &all, later, observe)?;
                (None, all.clone())
            }
            Strategy::Racing { error_rate } => {
                let race = scoring.race(&raced, &holdout, layers, error_rate, observe)?;
                (Some(race.fates().collect()), race.left())
            }
        };
        let known = || selection.iter().map(|sample| scoring.known(Part::Selection, sample));
        let pick = scores(Part::Selection, known(), &left)?.pick();
        let tokenizer = self.checkpoint.tokenizer()?;
        let mut answering = match &self.chooser {
            Some(chooser) => Some(Answering::open(
                chooser,
                &engine,
                &tokenizer,
                &self.options.out.join(ANSWERS),
                &fingerprint,
                self.options.existing,
                self.dataset.samples.iter().map(|sample| sample.line).zip(self.dataset.answers.clone()).collect(),
            )?),
            None => None,
        };
        let mut by_metric = None;
        if let Some(answering) = &mut answering {
            let nll: Vec<Vec<f64>> =
                known().map(|known| left.iter().filter_map(|&k| known.mean_nll(k)).collect()).collect();
            let candidates = metric::candidates(&nll, &left, pick, layers, self.options.metric_candidates);
            let progress = scoring.progress();
            let values = answering.values(Part::Selection, &selection, &candidates, progress, observe)?;
            let valued = Valued { candidates, selection: values, holdout: Vec::new() };
            let pick = valued.scores(Part::Selection, &valued.candidates)?.pick();
            by_metric = Some((valued, pick));
        }

        let mut picks = vec![0, pick, by_metric.as_ref().map_or(pick, |(_, pick)| *pick), layers];
        picks.sort_unstable();
        picks.dedup();
        let judged = if fates.is_none() { all } else { picks.clone() };
        scoring.evaluate(Part::Holdout, &holdout, &judged, 0, observe)?;
        let mut valued = None;
        if let (Some(answering), Some((found, pick))) = (&mut answering, by_metric) {
            let mut judged = vec![0, pick, layers];
            judged.dedup();
            let progress = scoring.progress();
            let holdout = answering.values(Part::Holdout, &holdout, &judged, progress, observe)?;
            valued = Some(Valued { holdout, ..found });
        }
        let seconds = begun.elapsed().as_secs_f64();
        let prompts: Vec<&[u32]> = selection.iter().map(|sample| &sample.tokens[..sample.answer[0]]).collect();
        let (checkpoint, adapter, scratch) = (&self.checkpoint, &self.adapter, &self.options.scratch);
        let subject = Subject { engine: &engine, checkpoint, adapter, scratch };
        let progress = scoring.progress();
        let efficiency = efficiency::measure(&subject, &picks, &prompts, &mut || observe(progress))?;

        let take =
            |part, samples: &[&Sample]| samples.iter().map(|sample| scoring.known(part, sample).clone()).collect();
        let cost = Cost {
            layer_passes: scoring.passes.div_ceil(selection.len() + holdout.len()),
            layer_passes_naive: (layers + 1) * layers,
            seconds,
            resumed: scoring.resumed,
            threads: engine.threads(),
            dtype: precision.dtype.to_string(),
            instructions: precision.isa.to_string(),
        };
        Ok(Scored {
            selection: take(Part::Selection, &selection),
            holdout: take(Part::Holdout, &holdout),
            fates,
            valued,
            efficiency: Some(efficiency),
            cost,
        })
    }

    /// Chooses, and writes the result, the report, the scores and, where the verdict is to trim, the adapter.
    ///
    /// # Errors
    /// Scores that cannot be chosen from; an output folder that cannot be written.
    pub fn finish(&self, scored: &Scored) -> Result<Written> {
        let result = self.result(scored)?;
        let out = &self.options.out;
        let adapter_out = out.join(ADAPTER);
        // An adapter of an earlier run; `check_out` made sure that it is one.
        if adapter_out.exists() {
            fs::remove_dir_all(&adapter_out).map_err(Error::write(&adapter_out))?;
        }
        let trim = result.choice.verdict == Verdict::Trim;
        if trim {
            let keep: Vec<usize> = (0..result.choice.layers_kept).collect();
            adapter::write_trimmed(&self.adapter, &keep, &provenance(&result), &adapter_out)?;
        }
        let rows = [(Part::Selection, &scored.selection), (Part::Holdout, &scored.holdout)];
        let rows = rows.into_iter().flat_map(|(part, samples)| samples.iter().map(move |sample| sample.row(part)));
        files::write_file(&out.join(SCORES), journals::lines(rows)?.as_bytes())?;
        let report = out.join(REPORT);
        files::write_file(&report, report::html(&result, &[]).as_bytes())?;
        files::write_file(&out.join(RESULT), report::json(&result)?.as_bytes())?;
        Journal::remove(&out.join(JOURNAL))?;
        Journal::remove(&out.join(ANSWERS))?;
        Ok(Written { result, report, adapter: trim.then_some(adapter_out) })
    }

    /// Chooses a boundary and gathers all that a reader wants to know about it.
    fn result(&self, scored: &Scored) -> Result<SearchResult> {
        let layers = self.checkpoint.config().layers;
        let options = choose::Options { seed: self.options.seed, ..choose::Options::default() };
        let curve = |which: usize| {
            let curves: Vec<_> = scored.selection.iter().filter_map(|sample| sample.lens.get(which)).collect();
            (lens::summarise(&curves, options.seed, options.resamples), curves.len())
        };
        let ((base, _), (full, samples)) = (curve(0), curve(1));
        let lens = LensSummary { base, full, samples };
        let full_curve: Vec<f64> = lens.full.iter().map(|point| point.probability).collect();
        let complete = |samples: &[Known]| -> Vec<usize> {
            (0..=layers).filter(|k| samples.iter().all(|sample| sample.scores.contains_key(k))).collect()
        };
        let left = match &scored.fates {
            None => complete(&scored.selection),
            Some(fates) => (0..=layers).filter(|&k| fates[k] == Fate::Raced).collect(),
        };
        let judged = complete(&scored.holdout);
        let selection = scores(Part::Selection, scored.selection.iter(), &left)?;
        let holdout = scores(Part::Holdout, scored.holdout.iter(), &judged)?;
        let input =
            Input::of(selection, holdout, &full_curve).map_err(|problem| Error::Internal(problem.to_string()))?;
        // Above the last layer with LoRA a boundary drops nothing.
        let whole = self.adapter.layers().last().map_or(layers, |last| last + 1);
        let by_nll = choose(&input.with_whole(whole), &options);
        let (choice, by_metric) = match (&scored.valued, &self.chooser) {
            (Some(valued), Some(chooser)) => {
                let (selection, holdout) = (
                    valued.scores(Part::Selection, &valued.candidates)?,
                    valued.scores(Part::Holdout, &valued.judged())?,
                );
                let input = Input::of(selection, holdout, &full_curve);
                let input = input.map_err(|problem| Error::Internal(problem.to_string()))?.with_whole(whole);
                let by_metric = choose(&input, &options);
                // Where it cannot tell the full adapter from the base model, it cannot choose between cuts either.
                let Gain { low, high, .. } = by_metric.adapter_gain;
                let decided = low > 0.0 || high < 0.0;
                let choice = if decided { by_metric } else { by_nll.clone() };
                (choice, Some(self.metric_summary(chooser, valued, by_nll, decided)))
            }
            _ => (by_nll, None),
        };
        let variants = Variant::every_boundary(layers).into_iter().enumerate().filter_map(|(k, variant)| {
            let selection = left.contains(&k).then(|| summary(&scored.selection, k));
            let holdout = judged.contains(&k).then(|| summary(&scored.holdout, k));
            let was_raced = scored.fates.as_ref().is_some_and(|fates| fates[k] != Fate::Skipped);
            (selection.is_some() || holdout.is_some() || was_raced).then_some(VariantSummary {
                family: Family::BottomK,
                label: variant.name(),
                at: k as f64,
                gates: variant.spec(),
                layers_kept: k,
                bytes: self.adapter.bytes_below(k),
                selection,
                holdout,
                guard: None,
            })
        });
        Ok(SearchResult {
            schema: 1,
            tool: TOOL.into(),
            command: self.options.command.clone(),
            seed: self.options.seed,
            model: ModelFacts::of(&self.checkpoint, &self.options.model, &self.hashes.model),
            adapter: AdapterFacts::of(&self.adapter, &self.options.adapter, &self.hashes.adapter, choice.layers_kept),
            data: self.data_facts(scored),
            variants: variants.collect(),
            race: self.race_summary(scored),
            lens,
            rules: Rules::from(&options),
            warnings: self.warnings(&choice, by_metric.as_ref()),
            choice,
            candidate: None,
            arbitration: None,
            controls: None,
            effects: None,
            guard: None,
            front: Vec::new(),
            metric: by_metric,
            efficiency: scored.efficiency.clone(),
            cost: scored.cost.clone(),
        })
    }

    /// What was generated, and what the NLL alone would have chosen.
    fn metric_summary(&self, chooser: &Chooser, valued: &Valued, by_nll: Choice, decided: bool) -> MetricSummary {
        let options = compare::Options { seed: self.options.seed, ..compare::Options::default() };
        let metric = &chooser.measured.metric;
        let estimate = |samples: &[BTreeMap<usize, f64>], k: usize| {
            let rows: Vec<Vec<f64>> = samples.iter().filter_map(|values| Some(vec![*values.get(&k)?])).collect();
            (!rows.is_empty()).then(|| compare::estimate(metric, &rows, options))
        };
        let mut boundaries: Vec<usize> = valued.candidates.iter().copied().chain(valued.judged()).collect();
        boundaries.sort_unstable();
        boundaries.dedup();
        let variants = boundaries.into_iter().map(|k| MetricVariant {
            layers_kept: k,
            selection: estimate(&valued.selection, k),
            holdout: estimate(&valued.holdout, k),
        });
        MetricSummary {
            name: chooser.name(),
            signature: metric.signature(Some(1)),
            variants: variants.collect(),
            decided,
            choice_by_nll: by_nll,
        }
    }

    fn race_summary(&self, scored: &Scored) -> Option<RaceSummary> {
        let (Strategy::Racing { error_rate }, Some(fates)) = (self.options.strategy, &scored.fates) else {
            return None;
        };
        let fates = || fates.iter().enumerate();
        let dropped = fates().filter_map(|(layers_kept, &fate)| match fate {
            Fate::Dropped { samples, leader, deficit, p } => {
                Some(DroppedBoundary { layers_kept, samples, leader, deficit, p })
            }
            Fate::Raced | Fate::Skipped => None,
        });
        let skipped = fates().filter(|(_, fate)| **fate == Fate::Skipped).map(|(k, _)| k);
        Some(RaceSummary { error_rate, dropped: dropped.collect(), skipped: skipped.collect() })
    }

    fn data_facts(&self, scored: &Scored) -> DataFacts {
        DataFacts {
            path: self.options.data.display().to_string(),
            sha256: self.hashes.data.clone(),
            selection: scored.selection.len(),
            holdout: scored.holdout.len(),
            skipped: self.dataset.skipped.len(),
            answer_tokens: scored.selection.iter().chain(&scored.holdout).map(|sample| sample.tokens).sum(),
            template: match &self.options.template {
                TemplateChoice::Given { file, .. } => file.display().to_string(),
                TemplateChoice::Tokenizer | TemplateChoice::None => self.dataset.template.to_string(),
            },
        }
    }

    fn warnings(&self, choice: &Choice, metric: Option<&MetricSummary>) -> Vec<Warning> {
        let (selection, holdout) = (self.split.selection.len(), self.split.holdout.len());
        let share = choice.bootstrap[choice.one_se];
        let proven = choice.adapter_gain.mean > 0.0 && choice.adapter_gain.p < choose::Options::default().alpha;
        [
            (selection < FEW_SELECTION || holdout < FEW_HOLDOUT).then_some(Warning::FewSamples { selection, holdout }),
            (!self.dataset.skipped.is_empty()).then_some(Warning::Skipped {
                samples: self.dataset.skipped.len(),
                context: self.checkpoint.config().context,
            }),
            metric.is_some_and(|metric| !metric.decided).then_some(Warning::MetricUndecided),
            (share < STABLE_SHARE).then_some(Warning::Unstable { share }),
            (!proven).then_some(Warning::AdapterUnproven { p: choice.adapter_gain.p }),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn part(&self, part: Part) -> impl Iterator<Item = &Sample> {
        let indices = match part {
            Part::Selection => &self.split.selection,
            Part::Holdout => &self.split.holdout,
        };
        indices.iter().map(|&index| &self.dataset.samples[index])
    }

    fn fingerprint(&self, precision: Precision) -> Result<Fingerprint> {
        let samples: Vec<_> = [Part::Selection, Part::Holdout]
            .into_iter()
            .map(|part| self.part(part).map(|sample| (sample.line, &sample.tokens, &sample.answer)).collect::<Vec<_>>())
            .collect();
        let samples = serde_json::to_vec(&samples).map_err(|error| Error::Internal(error.to_string()))?;
        Ok(Fingerprint::new(&self.hashes.model, Some(&self.hashes.adapter), precision, &samples))
    }
}

/// Makes sure, before any work, that results can be written and that nothing of the user's is in their place.
fn check_out(options: &SearchOptions) -> Result<()> {
    let SearchOptions { out, adapter, .. } = options;
    let refuse = |reason: &str| Err(Error::Usage(format!("--out {}: {reason}", out.display())));
    let target = out.join(ADAPTER);
    // What is not there yet lies where its nearest ancestor does.
    let existing = out.ancestors().find_map(|ancestor| ancestor.canonicalize().ok());
    if let (Ok(adapter), Some(existing)) = (adapter.canonicalize(), existing)
        && (existing.starts_with(&adapter) || target.canonicalize().is_ok_and(|target| target == adapter))
    {
        return refuse("results would take the place of the adapter that is searched: give another folder");
    }
    if target.exists() && !target.join(adapter::PROVENANCE_FILE).exists() {
        return refuse("its folder `adapter` was not written by plimsoll: give another folder");
    }
    let holds = |names: &[&str]| names.iter().any(|name| out.join(name).exists());
    // The result is written last: what lies beside a journal is the rest of a run that could not finish.
    let is_done = holds(&[RESULT]) || (holds(&[REPORT, SCORES, ADAPTER]) && !holds(&[JOURNAL]));
    if is_done && options.existing == Existing::Refuse {
        return refuse("holds results already: give another folder, or --force to replace them");
    }
    files::check_writable(out).or_else(|reason| refuse(&format!("cannot write there: {reason}")))
}

/// The mean NLL of some samples at some boundaries.
fn scores<'a>(part: Part, samples: impl Iterator<Item = &'a Known>, boundaries: &[usize]) -> Result<Scores> {
    let row = |sample: &Known| boundaries.iter().filter_map(|&k| sample.mean_nll(k)).collect::<Vec<f64>>();
    let rows: Vec<Vec<f64>> = samples.map(row).collect();
    Scores::new(part, boundaries, &rows).map_err(|problem| Error::Internal(problem.to_string()))
}

/// Means over samples that are all scored at a boundary.
fn summary(samples: &[Known], boundary: usize) -> ScoreSummary {
    let of = |value: &dyn Fn(&Known, &VariantScore) -> f64| -> (f64, f64) {
        let values = samples.iter().filter_map(|sample| Some(value(sample, sample.scores.get(&boundary)?)));
        mean_and_se(&values.collect::<Vec<f64>>())
    };
    let (mean_nll, se) = of(&|sample, score| score.nll / sample.tokens as f64);
    let (mean_probability, _) = of(&|_, score| score.probability);
    let (token_accuracy, _) = of(&|sample, score| score.correct as f64 / sample.tokens as f64);
    ScoreSummary { mean_nll, se, mean_probability, token_accuracy }
}

/// What the trimmed adapter's card says of where it comes from.
fn provenance(result: &SearchResult) -> Provenance {
    let source = |path: &str, sha256: &str| Some(Source { path: path.into(), sha256: sha256.into() });
    let choice = &result.choice;
    let metric = result.metric.as_ref().filter(|metric| metric.decided);
    let held_out = |layers_kept: usize| match metric {
        Some(metric) => {
            let variant = metric.variants.iter().find(|variant| variant.layers_kept == layers_kept);
            variant.and_then(|variant| variant.holdout).map(|holdout| holdout.value)
        }
        None => {
            let variant = result.variants.iter().find(|variant| variant.layers_kept == layers_kept);
            variant.and_then(|variant| variant.holdout).map(|holdout| holdout.mean_nll)
        }
    };
    let gain = Estimate { value: choice.gain.mean, low: choice.gain.low, high: choice.gain.high };
    Provenance {
        tool: result.tool.clone(),
        command: Some(result.command.clone()),
        adapter: source(&result.adapter.path, &result.adapter.sha256),
        model: source(&result.model.path, &result.model.sha256),
        model_layers: Some(result.model.layers),
        data: source(&result.data.path, &result.data.sha256),
        seed: Some(result.seed),
        scores: held_out(0).zip(held_out(result.model.layers)).zip(held_out(choice.layers_kept)).map(
            |((base, full), trimmed)| TrimScores {
                metric: metric.map(|metric| metric.name.clone()),
                samples: result.data.holdout,
                base,
                full,
                trimmed,
                gain,
                retained: choice.retained.map(|Interval { value, low, high }| Estimate { value, low, high }),
            },
        ),
    }
}
