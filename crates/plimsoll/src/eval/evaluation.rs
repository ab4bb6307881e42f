//! Inputs of an evaluation: its settings, the model, the task, and the samples as prompts and references.

use std::path::{Path, PathBuf};

use plimsoll_formats::files;

use super::problem::{RowPlace, TaskProblem};
use super::rows::{self, Row};
use super::task::{self, Rendered, Task};
use crate::data::{self, Renderer, Sample, TemplateChoice, TemplateUse};
use crate::engine::CpuOptions;
use crate::error::{Error, Result};
use crate::generate::GenerateOptions;
use crate::journal::Existing;
use crate::lora::adapter::{Adapter, BoundAdapter, EmbeddingLora, OtherBase};
use crate::lora::{LayersKept, Variant};
use crate::model::Model;
use crate::result::{EvalData, Sampling};

pub(super) const RESULT: &str = "result.json";
pub(super) const SAMPLES: &str = "samples.jsonl";
pub(super) const JOURNAL: &str = "journal.jsonl";

/// Inputs and settings of an evaluation.
#[derive(Clone, Debug)]
pub struct EvalOptions {
    /// The base model: a GGUF file or a folder.
    pub model: PathBuf,
    /// The adapter: a folder in PEFT's or mlx-lm's layout; `None` evaluates the base model alone.
    pub adapter: Option<PathBuf>,
    /// Whether LoRA on `embed_tokens` and `lm_head` is kept; with `None`, an adapter with such LoRA is an error.
    pub embedding_lora: Option<EmbeddingLora>,
    /// Name of a built-in task, or path of a TOML file.
    pub task: String,
    /// The data file, in the layout of the task.
    pub data: PathBuf,
    /// Number of examples before each prompt; by default the task's.
    pub shots: Option<usize>,
    /// File of the examples; by default the task's own examples.
    pub examples: Option<PathBuf>,
    /// The boundaries to evaluate.
    pub layers_kept: Vec<LayersKept>,
    /// Further variants to evaluate: LoRA strengths in the syntax of [`Variant::parse_for`].
    pub gates: Vec<String>,
    /// Chat template of the prompts.
    pub template: TemplateChoice,
    /// Largest number of samples, chosen at random with the seed; by default all.
    pub max_samples: Option<usize>,
    /// Largest number of tokens of an answer; by default the task's.
    pub max_tokens: Option<usize>,
    /// Settings of sampling. The seed is used for all random choices of the evaluation.
    pub sampling: Sampling,
    /// Number of answers that are generated in one batch.
    pub batch: usize,
    /// Settings of the CPU engine.
    pub engine: CpuOptions,
    /// Folder of the results; with `None`, nothing is written.
    pub out: Option<PathBuf>,
    /// Whether to write all prompts, answers and scores to `samples.jsonl`.
    pub log_samples: bool,
    /// Folder for temporary trimmed adapters, whose load time is measured.
    pub scratch: PathBuf,
    /// What to do with existing results in `out`.
    pub existing: Existing,
    /// The command that repeats the evaluation, copied into the result.
    pub command: String,
}

/// An evaluation with checked inputs.
#[derive(Debug)]
pub struct Evaluation {
    pub(super) options: EvalOptions,
    pub(super) model: Model,
    pub(super) adapter: Option<Adapter>,
    pub(super) lora: BoundAdapter,
    pub(super) task: Task,
    pub(super) variants: Vec<Variant>,
    pub(super) questions: Vec<Question>,
    pub(super) facts: EvalData,
    pub(super) shots: usize,
    pub(super) hashes: (String, Option<String>),
}

/// One sample of an evaluation.
#[derive(Debug)]
pub(super) struct Question {
    /// Prompt and first reference, for perplexity.
    pub(super) sample: Sample,
    /// Tokens of the prompt.
    pub(super) prompt: Vec<u32>,
    pub(super) rendered: Rendered,
}

impl Question {
    pub(super) fn line(&self) -> usize {
        self.sample.line
    }

    pub(super) fn prompt(&self) -> &[u32] {
        &self.prompt
    }
}

impl Evaluation {
    /// Reads and checks all inputs. Writes nothing.
    ///
    /// # Errors
    /// An invalid model, adapter, task, data file or setting; an output folder that holds other results.
    pub fn open(options: EvalOptions) -> Result<Self> {
        check_out(&options)?;
        let mut task = Task::open(&options.task)?;
        task.max_tokens = options.max_tokens.unwrap_or(task.max_tokens);
        if !(1..=task::MAX_TOKENS).contains(&task.max_tokens) || options.batch == 0 {
            let (tokens, limit) = (task.max_tokens, task::MAX_TOKENS);
            return Err(Error::Usage(format!(
                "answers of {tokens} tokens: expected 1 to {limit} tokens, and a batch of at least 1"
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

        let (rows, sha256) = read_rows(&options.data, &task)?;
        let shots = options.shots.unwrap_or(task.shots);
        let examples = examples(&options, &task, shots)?;
        let (questions, skipped) = questions(&options, &task, &model, &renderer, &rows, &examples)?;
        let prompt_tokens: usize = questions.iter().map(|question| question.prompt().len()).sum();
        let facts = EvalData {
            path: options.data.display().to_string(),
            sha256,
            samples: questions.len(),
            available: rows.len(),
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

    /// Number of samples that are left out because prompt and answer do not fit into the model's context.
    pub fn skipped(&self) -> usize {
        self.facts.skipped
    }

    /// The mismatch of names if the base model is not the one that the adapter was trained on.
    pub fn other_base(&self) -> Option<OtherBase> {
        self.model.other_base(self.adapter.as_ref()?)
    }

    /// Settings of generation.
    pub(super) fn generation(&self) -> GenerateOptions {
        GenerateOptions {
            sampling: self.options.sampling,
            max_tokens: self.task.max_tokens,
            stop: self.task.stop.clone(),
            batch: self.options.batch,
        }
    }
}

/// The rows of a data file in the task's layout, and the SHA-256 of the file.
fn read_rows(path: &Path, task: &Task) -> Result<(Vec<Row>, String)> {
    let rows = rows::read(path, &task.layout)?;
    let grouped = match &task.group {
        Some(field) => rows::grouped(rows.rows, field),
        None => rows.rows,
    };
    Ok((grouped, rows.sha256))
}

/// The examples before each prompt: the first rows of `--examples`, or the task's own.
fn examples(options: &EvalOptions, task: &Task, shots: usize) -> Result<Vec<Rendered>> {
    let Some(path) = &options.examples else {
        let places = (1..).map(RowPlace::Example);
        let rows = places.zip(&task.examples).map(|(place, fields)| Row::single(place, fields.clone()));
        return task.examples_of(Path::new(&options.task), &rows.collect::<Vec<Row>>(), shots);
    };
    let is_data = path.canonicalize().ok().zip(options.data.canonicalize().ok()).is_some_and(|(a, b)| a == b);
    if is_data {
        return Err(Error::input(path, TaskProblem::OwnExamples));
    }
    task.examples_of(path, &read_rows(path, task)?.0, shots)
}

/// The samples that fit into the model's context, by line, and the number of those that do not.
fn questions(
    options: &EvalOptions,
    task: &Task,
    model: &Model,
    renderer: &Renderer<'_>,
    rows: &[Row],
    examples: &[Rendered],
) -> Result<(Vec<Question>, usize)> {
    let at = |problem: TaskProblem| Error::input(&options.data, problem);
    let config = model.config();
    let wanted = options.max_samples.unwrap_or(usize::MAX);
    let (mut questions, mut skipped) = (Vec::new(), 0);
    for index in data::draw_order(rows.len(), options.max_samples, options.sampling.seed) {
        if questions.len() == wanted {
            break;
        }
        let question = question(task, renderer, examples, &rows[index]).map_err(at)?;
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
    Ok((questions, skipped))
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

/// Checks that results can be written and that no existing file is replaced without permission.
fn check_out(options: &EvalOptions) -> Result<()> {
    let Some(out) = &options.out else {
        return match options.log_samples {
            true => Err(Error::Usage("--log-samples needs an output folder: give --out".to_owned())),
            false => Ok(()),
        };
    };
    let refuse = |reason: &str| Err(Error::Usage(format!("--out {}: {reason}", out.display())));
    if out.join("adapter_config.json").exists() {
        return refuse("is the folder of an adapter: give another folder");
    }
    // The result is written last: `samples.jsonl` with a journal is from an interrupted run.
    let is_done = out.join(RESULT).exists() || (out.join(SAMPLES).exists() && !out.join(JOURNAL).exists());
    if is_done && options.existing == Existing::Refuse {
        return refuse("holds results already: give another folder, or --force to replace them");
    }
    files::check_writable(out).or_else(|reason| refuse(&format!("cannot write there: {reason}")))
}
