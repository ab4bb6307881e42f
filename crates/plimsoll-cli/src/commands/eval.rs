//! `plimsoll eval`: evaluates the base model, the full adapter and variants on a task.

use std::num::NonZero;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use clap::{Args, ValueEnum};
use plimsoll::Error;
use plimsoll::Existing;
use plimsoll::eval::{EvalOptions, Evaluation};
use plimsoll::lora::LayersKept;
use plimsoll::report::{self, Form, Style};

use super::inputs::{EmbeddingLoraArgument, EngineArguments, SamplingArguments, at_least_one, default_batch, template};
use super::output::{colour, command_line, print};
use crate::{hub, interrupt, progress};

/// Evaluate the base model, the full adapter and variants on a task: generated answers are compared with references.
///
/// All variants answer the same prompts. Every value has a 95 % interval, and every difference a paired test. Decoding
/// is greedy unless --temperature is given.
///
/// To continue an interrupted evaluation, run the same command again; this needs --out.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  plimsoll eval --model model.gguf --adapter my-adapter --task gsm8k --data test.jsonl --max-samples 200
  plimsoll eval --model model.gguf --adapter my-adapter --task gsm8k --data test.jsonl --layers-kept base,18,full \\
    --out out --log-samples
  plimsoll eval --model model.gguf --adapter my-adapter --task gsm8k --data test.jsonl --gates 20-29=0.5
  plimsoll eval --model model.gguf --adapter my-adapter --task my-task.toml --data test.csv --format markdown

Built-in tasks, and the fields of their data:
  dialogsum  summaries of dialogues: dialogue, summary (or summary1 to summary3); ROUGE
  e2e        restaurant descriptions from facts: lines of `facts || text`; BLEU, chrF, ROUGE-L
  gsm8k      grade-school mathematics: question, answer; exact match, strict and flexible
  hotpotqa   questions, closed book: question, answer; SQuAD exact match and F1
  multi30k   English to German: a file that ends with .en and one with .de; BLEU, chrF
  xsum       one-sentence summaries: document and summary, or article and summary_gt; ROUGE
All of them also measure perplexity. Data files are .jsonl, .json or .csv, or one of these with .gz.

A task of your own is a TOML file:
  name = \"capitals\"
  prompt = \"What is the capital of {{ country }}?\"
  references = [\"{{ capital }}\"]
  max_tokens = 16
  [[metrics]]
  kind = \"exact-match\"")]
pub(super) struct Arguments {
    /// Base model: a GGUF file, a folder with config.json, safetensors and tokenizer.json, or a repository id
    /// (OWNER/NAME[@REVISION][:FILE])
    #[arg(long, value_name = "PATH")]
    model: PathBuf,
    /// LoRA adapter: a PEFT folder, an mlx-lm folder, or a repository id. Without it only the base model is evaluated
    #[arg(long, value_name = "FOLDER")]
    adapter: Option<PathBuf>,
    #[command(flatten)]
    embedding_lora: EmbeddingLoraArgument,
    /// A built-in task, or a TOML file
    #[arg(long, value_name = "NAME|FILE")]
    task: String,
    /// The task's data
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// How many layers keep their LoRA, from the bottom: numbers, `base` (none) or `full` (all)
    #[arg(long, value_name = "K,…", value_delimiter = ',', requires = "adapter", default_value = "base,full")]
    layers_kept: Vec<LayersKept>,
    /// Also evaluate a variant with these LoRA strengths, such as 0.5, 20-29=0.5 or 7.q_proj=0 (see `plimsoll trim
    /// --help`). May be repeated
    #[arg(long, value_name = "PLACE=STRENGTH,…", allow_hyphen_values = true, requires = "adapter")]
    gates: Vec<String>,
    /// Number of examples before each prompt [default: as in the task]
    #[arg(long, value_name = "N")]
    shots: Option<usize>,
    /// File with the examples, in the format of --data; its first rows are used
    #[arg(long, value_name = "FILE")]
    examples: Option<PathBuf>,
    /// Evaluate at most N samples, sampled with --seed [default: all]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    max_samples: Option<NonZero<usize>>,
    /// Maximum length of an answer, in tokens [default: as in the task]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    max_tokens: Option<NonZero<usize>>,
    /// Chat template of the prompts: `tokenizer` for the tokenizer's own, `none`, or a Jinja file
    #[arg(long, value_name = "tokenizer|none|FILE", default_value = "tokenizer")]
    template: String,
    /// Number of answers that are generated in parallel
    #[arg(long, value_name = "N", default_value_t = default_batch(), value_parser = at_least_one)]
    batch: NonZero<usize>,
    /// Folder for result.json. Until the evaluation is done it holds journal.jsonl, from which an interrupted
    /// evaluation continues
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Write every prompt, answer and score to samples.jsonl in --out
    #[arg(long, requires = "out")]
    log_samples: bool,
    /// What to print on stdout
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Replace existing results, or an interrupted evaluation, in --out
    #[arg(long)]
    force: bool,
    /// No progress on stderr
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    sampling: SamplingArguments,
    #[command(flatten)]
    engine: EngineArguments,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Table for the terminal
    Table,
    /// Markdown for a pull request or a model card
    Markdown,
    /// JSON for programs: the content of result.json
    Json,
}

/// Runs the subcommand.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let adapter = arguments.adapter.as_deref().map(|adapter| hub::adapter(adapter, arguments.quiet)).transpose()?;
    let options = EvalOptions {
        model: hub::model(&arguments.model, arguments.quiet)?,
        adapter,
        embedding_lora: arguments.embedding_lora.choice(),
        task: arguments.task.clone(),
        data: arguments.data.clone(),
        shots: arguments.shots,
        examples: arguments.examples.clone(),
        layers_kept: arguments.layers_kept.clone(),
        gates: arguments.gates.clone(),
        template: template(&arguments.template)?,
        max_samples: arguments.max_samples.map(NonZero::get),
        max_tokens: arguments.max_tokens.map(NonZero::get),
        sampling: arguments.sampling.sampling()?,
        batch: arguments.batch.get(),
        engine: arguments.engine.options(),
        out: arguments.out.clone(),
        log_samples: arguments.log_samples,
        scratch: std::env::temp_dir(),
        existing: if arguments.force { Existing::Replace } else { Existing::Refuse },
        command: command_line(),
    };
    let opening = progress::spinner("reading model, adapter, task and data", arguments.quiet);
    let evaluation = Evaluation::open(options)?;
    opening.finish_and_clear();
    progress::warn_of_base(evaluation.other_base());
    if !arguments.quiet && evaluation.skipped() > 0 {
        let (skipped, data) = (evaluation.skipped(), arguments.data.display());
        progress::say(&format!(
            "plimsoll: samples of {data} skipped, because they do not fit into the model's context: {skipped}"
        ));
    }

    interrupt::install();
    let mut display = progress::Evaluating::new(arguments.quiet);
    let answered = evaluation.run(&mut |progress| {
        display.update(progress);
        if interrupt::asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    display.finish();
    let answered = answered.map_err(|error| match (error, &arguments.out) {
        (Error::Interrupted, Some(out)) if out.join("journal.jsonl").exists() => {
            anyhow!("run the same command again to continue; finished work is kept in {}", out.display())
                .context(Error::Interrupted)
        }
        (Error::Interrupted, Some(_)) => {
            anyhow!("nothing is finished; run the same command again to start over").context(Error::Interrupted)
        }
        (Error::Interrupted, None) => {
            anyhow!("nothing is kept without --out; give a folder with --out to continue later")
                .context(Error::Interrupted)
        }
        (error, _) => error.into(),
    })?;
    let finishing = progress::spinner("comparing", arguments.quiet);
    let result = evaluation.finish(&answered)?;
    finishing.finish_and_clear();
    let style = if colour() { Style::Colour } else { Style::Plain };
    print(&match arguments.format {
        Format::Json => report::json(&result)?,
        Format::Markdown => report::evaluation(&result, Form::Markdown),
        Format::Table => report::evaluation(&result, Form::Text(style)),
    })?;
    Ok(ExitCode::SUCCESS)
}
