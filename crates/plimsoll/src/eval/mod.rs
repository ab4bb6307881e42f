//! How well the base model, the adapter and its cuts do at a task.
//!
//! Every variant answers the same prompts, with the same luck, and is held against the others by sample. Three steps, as
//! in a search: [`Evaluation::open`] reads and checks everything and writes nothing; [`Evaluation::run`] does the long
//! work and journals it; [`Evaluation::finish`] measures, compares and writes.

mod built_in;
mod problem;
mod rows;
mod task;

use std::collections::HashMap;
use std::num::NonZero;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use plimsoll_formats::files;
use plimsoll_stats::holm;
use plimsoll_stats::metrics::Metric;
use plimsoll_stats::metrics::compare::{self, compare, estimate};
use serde::{Deserialize, Serialize};

use crate::data::{self, Renderer, Sample, TemplateChoice, TemplateUse};
use crate::engine::{
    Benchmark, CpuBenchmark, CpuEngine, CpuOptions, EngineIdentity, Engines, Request, ScoreEvent, Scorer,
};
use crate::error::{Error, Result};
use crate::generate::{GenerateOptions, GenerationEvent, Prompt};
use crate::journal::{self, Existing, Fingerprint, Journal, TOOL};
use crate::lora::adapter::{Adapter, BoundAdapter, EmbeddingLora, OtherBase};
use crate::lora::{LayersKept, Variant};
use crate::model::Model;
use crate::report;
use crate::result::{
    AdapterFacts, Better, Efficiency, EvalComparison, EvalCost, EvalData, EvalResult, EvalVariant, EvalWarning, Finish,
    Generated, Generation, MetricResult, Sampling, TaskFacts,
};

pub use built_in::names;
pub use problem::{Place, TaskProblem};
pub use rows::Layout;
pub use task::{Measured, Task};

use rows::Row;
use task::Rendered;

/// Below this number of samples a warning stands beside the numbers.
const FEW_SAMPLES: usize = 50;

/// Above this share of cut answers too.
const MANY_CUT: f64 = 0.2;

/// Bootstrap resamples of an interval, and random swaps of a test.
const RESAMPLES: usize = 10_000;

const RESULT: &str = "result.json";
const SAMPLES: &str = "samples.jsonl";
const JOURNAL: &str = "journal.jsonl";

/// What to evaluate, and how.
#[derive(Clone, Debug)]
pub struct EvalOptions {
    /// The base model: a GGUF file or a folder.
    pub model: PathBuf,
    /// The adapter: a PEFT folder, or one of mlx-lm's; none for the base model alone.
    pub adapter: Option<PathBuf>,
    /// Whether LoRA on `embed_tokens` and `lm_head` is kept; an adapter that has such LoRA is refused where it is `None`.
    pub embedding_lora: Option<EmbeddingLora>,
    /// A built-in task's name, or a TOML file.
    pub task: String,
    /// The data, as the task lays them out.
    pub data: PathBuf,
    /// Examples before each prompt, where not as many as the task says.
    pub shots: Option<usize>,
    /// Where examples are taken from, where not from the task.
    pub examples: Option<PathBuf>,
    /// What to evaluate: boundaries.
    pub layers_kept: Vec<LayersKept>,
    /// What to evaluate beside them: gates, as [`Variant::parse_for`] reads them.
    pub gates: Vec<String>,
    /// How prompts are rendered.
    pub template: TemplateChoice,
    /// Evaluate at most so many samples, drawn by the seed.
    pub max_samples: Option<usize>,
    /// Tokens of an answer at most, where not as many as the task says.
    pub max_tokens: Option<usize>,
    /// How the next token is picked; its seed is that of everything that is drawn.
    pub sampling: Sampling,
    /// Answers that are generated side by side.
    pub batch: usize,
    /// Bounds of the engine.
    pub engine: CpuOptions,
    /// Where results go; nothing is written where there is none.
    pub out: Option<PathBuf>,
    /// Whether to write every prompt, answer and score beside the result.
    pub log_samples: bool,
    /// Where trimmed adapters are written for a moment, to see how long they take to load.
    pub scratch: PathBuf,
    /// What to do with results that are there already.
    pub existing: Existing,
    /// The command that repeats the evaluation, for the result.
    pub command: String,
}

/// An evaluation whose inputs are read and checked.
#[derive(Debug)]
pub struct Evaluation {
    options: EvalOptions,
    model: Model,
    adapter: Option<Adapter>,
    lora: BoundAdapter,
    task: Task,
    variants: Vec<Variant>,
    questions: Vec<Question>,
    facts: EvalData,
    shots: usize,
    hashes: (String, Option<String>),
}

/// One sample.
#[derive(Debug)]
struct Question {
    /// Prompt and first reference, for perplexity.
    sample: Sample,
    /// What is answered.
    prompt: Vec<u32>,
    rendered: Rendered,
}

impl Question {
    fn line(&self) -> usize {
        self.sample.line
    }

    fn prompt(&self) -> &[u32] {
        &self.prompt
    }
}

/// How far an evaluation is.
#[derive(Clone, Copy, Debug)]
pub enum Progress {
    /// References are scored: work done, of how much.
    Scoring(u64, u64),
    /// Answers that are generated, of how many, and tokens of answers so far.
    Generating {
        /// Finished answers.
        answers: usize,
        /// All answers.
        of: usize,
        /// Tokens in this run.
        tokens: usize,
    },
    /// Speeds are measured.
    Timing,
}

/// Answers and scores of all samples under all variants.
#[derive(Debug)]
pub struct Answered {
    known: Known,
    efficiency: Option<Efficiency>,
    cost: EvalCost,
}

/// What is known, by line and gates.
type Known = HashMap<(usize, String), Piece>;

/// What is known of one sample under one variant.
#[derive(Clone, Debug, Default)]
struct Piece {
    answer: Option<Generated>,
    /// NLL of the first reference, in nats, and its tokens.
    score: Option<(f64, usize)>,
}

/// One line of the journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    line: usize,
    gates: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer: Option<Generated>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    score: Option<(f64, usize)>,
}

impl Evaluation {
    /// Reads and checks all inputs.
    ///
    /// # Errors
    /// Whatever is wrong with the model, the adapter, the task or the data; an output folder that holds other results.
    pub fn open(options: EvalOptions) -> Result<Self> {
        check_out(&options)?;
        let mut task = Task::open(&options.task)?;
        task.max_tokens = options.max_tokens.unwrap_or(task.max_tokens);
        if !(1..=task::MAX_TOKENS).contains(&task.max_tokens) || options.batch == 0 {
            let (tokens, limit) = (task.max_tokens, task::MAX_TOKENS);
            return Err(Error::Usage(format!(
                "answers of {tokens} tokens: expected 1 to {limit}, in batches of 1 or more"
            )));
        }
        options.sampling.check()?;
        let model = Model::open(&options.model)?;
        let config = model.config();
        let adapter = options.adapter.as_deref().map(Adapter::open).transpose()?;
        let adapter = adapter.map(|adapter| adapter.with_embedding_lora(options.embedding_lora));
        let lora = model.bind(adapter.as_ref())?;
        let variants = match &adapter {
            Some(adapter) => {
                LayersKept::variants(&options.layers_kept, &options.gates, config.layers, &adapter.places())?
            }
            None => vec![Variant::bottom_k(config.layers, 0)],
        };
        let tokenizer = model.tokenizer()?;
        let renderer = Renderer::new(&tokenizer, &options.template)?;

        let read = |path: &Path| {
            let rows = rows::read(path, &task.layout)?;
            let grouped = match &task.group {
                Some(field) => rows::grouped(rows.rows, field),
                None => rows.rows,
            };
            Ok::<_, Error>((grouped, rows.sha256))
        };
        let (rows, sha256) = read(&options.data)?;
        let shots = options.shots.unwrap_or(task.shots);
        let examples = match &options.examples {
            Some(path) => {
                let is_own =
                    path.canonicalize().ok().zip(options.data.canonicalize().ok()).is_some_and(|(a, b)| a == b);
                if is_own {
                    return Err(Error::input(path, TaskProblem::OwnExamples));
                }
                task.examples_of(path, &read(path)?.0, shots)?
            }
            None => {
                let fields = task.examples.iter().cloned();
                let rows = (1..).map(Place::Example).zip(fields).map(|(place, fields)| Row::single(place, fields));
                task.examples_of(Path::new(&options.task), &rows.collect::<Vec<_>>(), shots)?
            }
        };
        let at = |problem: TaskProblem| Error::input(&options.data, problem);
        let available = rows.len();
        let (mut questions, mut skipped) = (Vec::new(), 0);
        let wanted = options.max_samples.unwrap_or(usize::MAX);
        for index in data::draw_order(rows.len(), options.max_samples, options.sampling.seed) {
            if questions.len() == wanted {
                break;
            }
            let question = question(&task, &renderer, &examples, &rows[index]).map_err(at)?;
            let answered = question.prompt().len() + if task.generates() { task.max_tokens } else { 0 };
            let longest = question.sample.tokens.len().max(answered);
            if question.sample.tokens.iter().any(|&token| token as usize >= config.vocabulary) {
                let problem = data::DataProblem::Vocabulary { line: question.line(), vocabulary: config.vocabulary };
                return Err(at(TaskProblem::sample(rows[index].place(), &problem)));
            }
            if longest > config.context { skipped += 1 } else { questions.push(question) }
        }
        if questions.is_empty() {
            return Err(at(TaskProblem::AllTooLong { skipped, context: config.context }));
        }
        questions.sort_by_key(Question::line);
        let prompt_tokens: usize = questions.iter().map(|question| question.prompt().len()).sum();
        let facts = EvalData {
            path: options.data.display().to_string(),
            sha256,
            samples: questions.len(),
            available,
            skipped,
            template: match &options.template {
                TemplateChoice::Given { file, .. } => file.display().to_string(),
                TemplateChoice::Tokenizer | TemplateChoice::None => renderer.used().to_string(),
            },
            prompt_tokens: prompt_tokens as f64 / questions.len() as f64,
        };
        let adapter_hash = adapter.as_ref().map(|adapter| files::sha256_of_files(&adapter.files())).transpose()?;
        let hashes = (model.sha256()?, adapter_hash);
        Ok(Self { options, model, adapter, lora, task, variants, questions, facts, shots, hashes })
    }

    /// How many samples are left out because prompt and answer do not fit into the model's context.
    pub fn skipped(&self) -> usize {
        self.facts.skipped
    }

    /// Whether the base model's name says that it is another one than the adapter was trained on.
    pub fn other_base(&self) -> Option<OtherBase> {
        self.model.other_base(self.adapter.as_ref()?)
    }

    /// Generates and scores on this machine's CPU what no earlier run has left in the output folder's journal.
    ///
    /// # Errors
    /// See [`Generator::generate`] and [`Scorer::score`]; a journal of another evaluation; an output folder that cannot be
    /// written.
    pub fn run(&self, observe: &mut dyn FnMut(Progress) -> ControlFlow<()>) -> Result<Answered> {
        let engine = CpuEngine::load(&self.model, &self.lora, self.options.engine)?;
        let (model, scratch) = (&self.model, self.options.scratch.as_path());
        let benchmark = self.adapter.as_ref().map(|adapter| CpuBenchmark { engine: &engine, model, adapter, scratch });
        let benchmark = benchmark.as_ref().map(|benchmark| benchmark as &dyn Benchmark);
        self.run_on(&Engines { scorer: &engine, generator: Some(&engine), probe: None, benchmark }, observe)
    }

    /// The same on engines of the caller's.
    ///
    /// # Errors
    /// As [`run`](Self::run), and a task of generated answers without a generator.
    pub fn run_on(
        &self,
        engines: &Engines<'_>,
        observe: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Answered> {
        let begun = Instant::now();
        let identity = engines.scorer.identity();
        let mut keeper = Keeper::open(self, &identity)?;
        let resumed = keeper.known.values().filter(|piece| piece.answer.is_some()).count();
        self.score(engines.scorer, &mut keeper, observe)?;
        let tokens = self.generate(engines, &mut keeper, observe)?;
        let prompts: Vec<&[u32]> = self.questions.iter().take(8).map(Question::prompt).collect();
        let mut go_on = || observe(Progress::Timing);
        let efficiency = engines
            .benchmark
            .map(|benchmark| benchmark.efficiency(&self.variants, &prompts, &mut go_on))
            .transpose()?;
        let EngineIdentity { dtype, instructions, threads } = identity;
        let cost = EvalCost { seconds: begun.elapsed().as_secs_f64(), tokens, resumed, threads, dtype, instructions };
        Ok(Answered { known: keeper.known, efficiency, cost })
    }

    /// Scores the first references, where a metric is of them.
    fn score(
        &self,
        engine: &dyn Scorer,
        keeper: &mut Keeper,
        observe: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<()> {
        if self.task.metrics.iter().all(|measured| measured.metric.is_of_text()) {
            return Ok(());
        }
        let is_known = |question: &&Question| {
            self.variants
                .iter()
                .all(|variant| keeper.piece(question, variant).is_some_and(|piece| piece.score.is_some()))
        };
        let samples: Vec<Sample> = self
            .questions
            .iter()
            .filter(|question| !is_known(question))
            .map(|question| question.sample.clone())
            .collect();
        let request = Request { variants: self.variants.clone(), ..Request::default() };
        let (mut done, total) = (0, engine.work(&samples, &request));
        let mut failed = None;
        let scored = engine.score(&samples, &request, &mut |event| {
            match event {
                ScoreEvent::Work(work) => done += work,
                ScoreEvent::Scored(scores) => {
                    let entries = scores.iter().flat_map(|sample| {
                        self.variants.iter().zip(&sample.variants).map(|(variant, score)| Entry {
                            line: sample.line,
                            gates: variant.spec(),
                            answer: None,
                            score: Some((score.nll, sample.tokens)),
                        })
                    });
                    failed = failed.take().or(keeper.take(entries.collect()).err());
                }
            }
            if failed.is_some() { ControlFlow::Break(()) } else { observe(Progress::Scoring(done, total)) }
        });
        match failed {
            Some(error) => Err(error),
            None => scored.map(drop),
        }
    }

    /// Generates answers, where a metric is of them; returns how many tokens that took.
    fn generate(
        &self,
        engines: &Engines<'_>,
        keeper: &mut Keeper,
        observe: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<usize> {
        if !self.task.generates() {
            return Ok(0);
        }
        let no_generator = || Error::Engine("this engine generates no answers, and the task measures them".into());
        let generator = engines.generator.ok_or_else(no_generator)?;
        let tokenizer = self.model.tokenizer()?;
        let (mut prompts, mut origins) = (Vec::new(), Vec::new());
        for question in &self.questions {
            for (index, variant) in self.variants.iter().enumerate() {
                if keeper.piece(question, variant).is_none_or(|piece| piece.answer.is_none()) {
                    let (tokens, number) = (question.prompt().to_vec(), question.line() as u64);
                    prompts.push(Prompt { tokens, variant: index, number });
                    origins.push((question.line(), variant.spec()));
                }
            }
        }
        let of = self.questions.len() * self.variants.len();
        let (mut answers, mut tokens, mut failed) = (of - prompts.len(), 0, None);
        let options = self.generation();
        let generated = generator.generate(&tokenizer, &self.variants, &prompts, &options, &mut |event| {
            match event {
                GenerationEvent::Text(..) => return ControlFlow::Continue(()),
                GenerationEvent::Tokens(more) => tokens += more,
                GenerationEvent::Finished(index, answer) => {
                    answers += 1;
                    let (line, gates) = origins[index].clone();
                    let entry = Entry { line, gates, answer: Some(answer.clone()), score: None };
                    failed = failed.take().or(keeper.take(vec![entry]).err());
                }
            }
            if failed.is_some() {
                ControlFlow::Break(())
            } else {
                observe(Progress::Generating { answers, of, tokens })
            }
        });
        match failed {
            Some(error) => Err(error),
            None => generated.map(|_| tokens),
        }
    }

    fn generation(&self) -> GenerateOptions {
        GenerateOptions {
            sampling: self.options.sampling,
            max_tokens: self.task.max_tokens,
            stop: self.task.stop.clone(),
            batch: self.options.batch,
        }
    }

    /// Measures and compares, and writes what there is to write.
    ///
    /// # Errors
    /// An output folder that cannot be written.
    pub fn finish(&self, answered: &Answered) -> Result<EvalResult> {
        let result = self.result(answered)?;
        if let Some(out) = &self.options.out {
            if self.options.log_samples {
                files::write_file(&out.join(SAMPLES), self.log(answered)?.as_bytes())?;
            } else {
                // Those of an earlier result would be taken for this one's.
                Journal::remove(&out.join(SAMPLES))?;
            }
            files::write_file(&out.join(RESULT), report::json(&result)?.as_bytes())?;
            Journal::remove(&out.join(JOURNAL))?;
        }
        Ok(result)
    }

    fn result(&self, answered: &Answered) -> Result<EvalResult> {
        let layers = self.model.config().layers;
        let pairs = pairs(&self.variants);
        // Enough for the smallest p-value to stay small once it is adjusted for all comparisons.
        let resamples = RESAMPLES.max(100 * pairs.len() * self.task.metrics.len());
        let resamples = NonZero::new(resamples).unwrap_or(NonZero::<usize>::MIN);
        let options = compare::Options { seed: self.options.sampling.seed, resamples };
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

        let variants: Vec<EvalVariant> = self.variants.iter().map(|variant| self.variant(variant, answered)).collect();
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
            adapter: self.adapter.as_ref().zip(self.hashes.1.as_ref()).map(|(adapter, hash)| {
                AdapterFacts::of(
                    adapter,
                    self.options.adapter.as_deref().unwrap_or(Path::new("")),
                    hash,
                    &Variant::uniform(layers, 1.0),
                )
            }),
            data: self.facts.clone(),
            generation: Generation { max_tokens, stop, sampling },
            variants,
            metrics,
            efficiency: answered.efficiency.clone(),
            warnings,
            cost: answered.cost.clone(),
        })
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

    /// A metric's statistics: `[variant][sample]`.
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

    /// Every sample as a line: what was asked and answered, and how it scored.
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

/// The statistics of an answer. White space around it and around its references counts for nothing.
pub(crate) fn statistics(metric: &Metric, answer: &str, references: &[String]) -> Vec<f64> {
    let references: Vec<String> = references.iter().map(|reference| reference.trim().to_owned()).collect();
    metric.statistics(answer.trim(), &references)
}

/// What is held against what, by its place: every variant against the full adapter and against the base, and these two.
fn pairs(variants: &[Variant]) -> Vec<(usize, usize)> {
    let place = |name: &str| variants.iter().position(|variant| variant.name() == name);
    let (base, full) = (place("base"), place("full"));
    let others = (0..variants.len()).filter(|one| Some(*one) != base);
    let of_one =
        |one: usize| [base, full.filter(|full| *full != one)].into_iter().flatten().map(move |other| (one, other));
    others.flat_map(of_one).collect()
}

fn question(task: &Task, renderer: &Renderer<'_>, examples: &[Rendered], row: &Row) -> Result<Question, TaskProblem> {
    let rendered = task.render(row)?;
    task.check_references(row)?;
    let (messages, answer) = if renderer.used() == TemplateUse::None {
        let text = task.text(examples, &rendered)?;
        (vec![crate::tokenizer::Message::new("user", text)], task.plain_answer(&rendered)?)
    } else {
        (task.turns(examples, &rendered), rendered.answer.clone())
    };
    let place = row.place();
    let at = |problem: data::DataProblem| TaskProblem::sample(place, &problem);
    let sample = renderer.answered(place.number(), &messages, &answer).map_err(at)?;
    let refused = |problem| at(data::DataProblem::Refused { line: place.number(), problem });
    let prompt = renderer.prompt(&messages).map_err(refused)?;
    Ok(Question { sample, prompt, rendered })
}

/// What is known, and where it is kept.
struct Keeper {
    journal: Option<Journal>,
    known: Known,
}

impl Keeper {
    fn open(evaluation: &Evaluation, engine: &EngineIdentity) -> Result<Self> {
        let mut keeper = Self { journal: None, known: HashMap::new() };
        let Some(out) = &evaluation.options.out else { return Ok(keeper) };
        // The variants are none of it: more of them go on from what is known. Nor is the batch, which changes no answer.
        let samples: Vec<_> = evaluation.questions.iter().map(|q| (q.line(), &q.sample.tokens, q.prompt())).collect();
        let GenerateOptions { sampling, max_tokens, stop, .. } = evaluation.generation();
        let ends = evaluation.model.tokenizer()?.ends().to_vec();
        let work = format!("{samples:?} {sampling:?} {max_tokens} {stop:?} {ends:?}");
        let work = match evaluation.options.embedding_lora {
            Some(ends) => format!("{work} {ends:?}"),
            None => work,
        };
        let (model, adapter) = &evaluation.hashes;
        let engine = (engine.dtype.as_str(), engine.instructions.as_str());
        let fingerprint = Fingerprint::new(model, adapter.as_deref(), engine, work.as_bytes());
        let existing = evaluation.options.existing;
        let (mut journal, entries): (_, Vec<Entry>) =
            Journal::open(&out.join(JOURNAL), &fingerprint, "evaluation", existing)?;
        if !entries.is_empty() {
            journal.begin(entries.iter())?;
        }
        entries.into_iter().for_each(|entry| keeper.note(entry));
        keeper.journal = Some(journal);
        Ok(keeper)
    }

    fn piece(&self, question: &Question, variant: &Variant) -> Option<&Piece> {
        self.known.get(&(question.line(), variant.spec()))
    }

    fn note(&mut self, entry: Entry) {
        let piece = self.known.entry((entry.line, entry.gates)).or_default();
        piece.answer = entry.answer.or(piece.answer.take());
        piece.score = entry.score.filter(|(nll, tokens)| nll.is_finite() && *tokens > 0).or(piece.score);
    }

    /// Takes finished work in, and journals it.
    fn take(&mut self, entries: Vec<Entry>) -> Result<()> {
        if let Some(journal) = &mut self.journal {
            journal.append(entries.iter())?;
        }
        entries.into_iter().for_each(|entry| self.note(entry));
        Ok(())
    }
}

/// Makes sure, before any work, that results can be written and that nothing of the user's is in their place.
fn check_out(options: &EvalOptions) -> Result<()> {
    let Some(out) = &options.out else {
        return match options.log_samples {
            true => Err(Error::Usage("--log-samples needs a folder to write to: give --out".to_owned())),
            false => Ok(()),
        };
    };
    let refuse = |reason: &str| Err(Error::Usage(format!("--out {}: {reason}", out.display())));
    if out.join("adapter_config.json").exists() {
        return refuse("is an adapter's folder: give another folder");
    }
    // The result is written last: samples beside a journal are the rest of a run that could not finish.
    let is_done = out.join(RESULT).exists() || (out.join(SAMPLES).exists() && !out.join(JOURNAL).exists());
    if is_done && options.existing == Existing::Refuse {
        return refuse("holds results already: give another folder, or --force to replace them");
    }
    files::check_writable(out).or_else(|reason| refuse(&format!("cannot write there: {reason}")))
}
