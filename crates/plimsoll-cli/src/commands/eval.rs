//! `plimsoll eval`: how well base, adapter and cuts do at a task.

use std::num::NonZero;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use clap::{Args, ValueEnum};
use plimsoll::Error;
use plimsoll::Existing;
use plimsoll::eval::{EvalOptions, Evaluation};
use plimsoll::generate::BATCH;
use plimsoll::lora::LayersKept;
use plimsoll::report::{self, Form, Style};

use super::inputs::{EmbeddingLoraArgument, EngineArguments, SamplingArguments, at_least_one, template};
use super::output::{colour, command_line, print};
use crate::{hub, interrupt, progress};

/// Measure base, full and trimmed on a task: generated answers against references.
///
/// All variants answer the same prompts side by side. Every value has an interval, every difference a paired test.
/// Nothing but the answers is random, and they are greedy unless a temperature is given.
///
/// An interrupted evaluation goes on where it stopped when the same command is run again, if it has an --out.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  plimsoll eval --model model.gguf --adapter my-adapter --task gsm8k --data test.jsonl --max-samples 200
  plimsoll eval --model model.gguf --adapter my-adapter --task gsm8k --data test.jsonl --layers-kept base,18,full \\
    --out out --log-samples
  plimsoll eval --model model.gguf --adapter my-adapter --task gsm8k --data test.jsonl --gates 20-29=0.5
  plimsoll eval --model model.gguf --adapter my-adapter --task my-task.toml --data test.csv --format markdown

Built-in tasks, and the data that they read:
  dialogsum  summaries of dialogues: dialogue, summary (or summary1 to summary3); ROUGE
  e2e        restaurant descriptions from facts: lines of `facts || text`; BLEU, chrF, ROUGE-L
  gsm8k      grade-school mathematics: question, answer; exact match, strict and flexible
  hotpotqa   questions, closed book: question, answer; SQuAD exact match and F1
  multi30k   English to German: a file that ends with .en and one with .de; BLEU, chrF
  xsum       one-sentence summaries: document and summary, or article and summary_gt; ROUGE
All of them measure perplexity too. Files may end with .jsonl, .json, .csv, and .gz behind.

A task of your own is a TOML file:
  name = \"capitals\"
  prompt = \"What is the capital of {{ country }}?\"
  references = [\"{{ capital }}\"]
  max_tokens = 16
  [[metrics]]
  kind = \"exact-match\"")]
pub(super) struct Arguments {
    /// Base model: a GGUF file, a folder with config.json, safetensors and tokenizer.json, or the id of a repository
    #[arg(long, value_name = "PATH")]
    model: PathBuf,
    /// LoRA adapter, as PEFT or mlx-lm writes it, or an id; the base model alone is evaluated where none is given
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
    /// Which layers keep their LoRA, from the bottom: numbers, `base` for none, `full` for all
    #[arg(long, value_name = "K,…", value_delimiter = ',', requires = "adapter", default_value = "base,full")]
    layers_kept: Vec<LayersKept>,
    /// Strengths of layers and modules to evaluate too, such as 0.5, 20-29=0.5 or 7.q_proj=0 (see `plimsoll trim
    /// --help`); may be given several times
    #[arg(long, value_name = "GATES", allow_hyphen_values = true, requires = "adapter")]
    gates: Vec<String>,
    /// Examples before each prompt [default: as the task says]
    #[arg(long, value_name = "N")]
    shots: Option<usize>,
    /// Take the examples from the first rows of this file, which has the form of --data
    #[arg(long, value_name = "FILE")]
    examples: Option<PathBuf>,
    /// Evaluate at most N samples, drawn by the seed
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    max_samples: Option<NonZero<usize>>,
    /// Tokens of an answer at most [default: as the task says]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    max_tokens: Option<NonZero<usize>>,
    /// How prompts are rendered: `tokenizer` for its own chat template, `none`, or a Jinja file
    #[arg(long, value_name = "tokenizer|none|FILE", default_value = "tokenizer")]
    template: String,
    /// Answers that are generated side by side
    #[arg(long, value_name = "N", default_value_t = NonZero::new(BATCH).unwrap_or(NonZero::<usize>::MIN), value_parser = at_least_one)]
    batch: NonZero<usize>,
    /// Folder for result.json; until it is done, journal.jsonl, from which an interrupted evaluation goes on
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Write every prompt, answer and score into samples.jsonl in --out
    #[arg(long, requires = "out")]
    log_samples: bool,
    /// What to print on stdout
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Replace results, or an interrupted evaluation, that --out holds already
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
    /// For people
    Table,
    /// For a pull request or a model card
    Markdown,
    /// For programs: what result.json holds
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
            "plimsoll: samples of {data} that do not fit into the model's context, skipped: {skipped}"
        ));
    }

    interrupt::install();
    let mut telling = progress::Evaluating::new(arguments.quiet);
    let answered = evaluation.run(&mut |progress| {
        telling.update(progress);
        if interrupt::asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    telling.finish();
    let answered = answered.map_err(|error| match (error, &arguments.out) {
        (Error::Interrupted, Some(out)) if out.join("journal.jsonl").exists() => {
            anyhow!("run the same command again to go on; {} keeps what is finished", out.display())
                .context(Error::Interrupted)
        }
        (Error::Interrupted, Some(_)) => anyhow!("nothing was finished yet").context(Error::Interrupted),
        (Error::Interrupted, None) => anyhow!("nothing is kept without --out").context(Error::Interrupted),
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
