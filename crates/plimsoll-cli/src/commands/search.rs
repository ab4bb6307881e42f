//! `plimsoll search`: the main job.

use std::num::NonZero;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use clap::{Args, ValueEnum};
use plimsoll::Error;
use plimsoll::choose::Verdict;
use plimsoll::data::Turns;
use plimsoll::report;
use plimsoll::search::{Existing, Search, SearchOptions, Strategy};

use super::inputs::{EngineArguments, at_least_one, template};
use super::{Format, colour, command_line, print};
use crate::{interrupt, progress};

/// Find the boundary layer of an adapter, and write the trimmed adapter and a report.
///
/// Every boundary is scored on the samples in one pass. Some samples choose the boundary, the rest are held out and
/// judge it: the answer is to trim, to keep the full adapter, or to use the base model.
///
/// An interrupted search goes on where it stopped when the same command is run again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  plimsoll search --model model.gguf --adapter my-adapter --data valid.jsonl --out out
  plimsoll search --model ./Llama-3.2-1B --adapter my-adapter --data data --out out --max-samples 64
  plimsoll search --model model.gguf --adapter my-adapter --data data --out out --template none
  plimsoll search --model model.gguf --adapter my-adapter --data data --out out --search racing
  plimsoll search --model model.gguf --adapter my-adapter --data data --out out --metric gsm8k:flexible

Data is JSONL: `messages`, `prompt` and `completion`, `instruction`/`input`/`output`,
`conversations`, or `text`. A folder stands for its valid.jsonl.

Models: the Llama architecture (in GGUF `llama`, in config.json `model_type` llama).

Exit codes: 0 done, 1 internal error or a result that cannot be written, 2 usage, 3 bad input,
4 engine, 5 with --fail-if-kept where the answer is to keep the full adapter or to use the base
model, 130 interrupted.")]
pub(super) struct Arguments {
    /// Base model (Llama): a GGUF file, or a folder with config.json, safetensors and tokenizer.json
    #[arg(long, value_name = "PATH")]
    model: PathBuf,
    /// PEFT LoRA adapter: a folder with adapter_config.json and adapter_model.safetensors
    #[arg(long, value_name = "FOLDER")]
    adapter: PathBuf,
    /// Validation samples: a JSONL file, or a folder with valid.jsonl
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// Folder for result.json, report.html, scores.jsonl and the trimmed adapter; until it is done, journal.jsonl, from
    /// which an interrupted search goes on
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// How prompts are rendered: `tokenizer` for its own chat template, `none`, or a Jinja file
    #[arg(long, value_name = "tokenizer|none|FILE", default_value = "tokenizer")]
    template: String,
    /// Which assistant turns of a conversation are scored
    #[arg(long, value_enum, default_value = "last")]
    turns: TurnsArgument,
    /// Score at most N samples, drawn by the seed
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    max_samples: Option<NonZero<usize>>,
    /// Share of the samples that is held out to judge the boundary, between 0 and 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.33, value_parser = share)]
    holdout: f64,
    /// Which boundaries are scored on which samples
    #[arg(long, value_enum, default_value = "exact")]
    search: SearchArgument,
    /// With `--search racing`: how probable it may be at most that the best boundary leaves the race
    /// [default: 0.05]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    error_rate: Option<f64>,
    /// Choose by a metric of generated answers: a task of `plimsoll eval`, such as gsm8k, or one of its metrics, such as
    /// gsm8k:flexible. The task says how answers end and are measured; prompts and references are those of --data
    #[arg(long, value_name = "TASK[:METRIC]")]
    metric: Option<String>,
    /// With --metric, let at most N boundaries answer, of those whose NLL is near the best [default: 5]
    #[arg(long, value_name = "N", requires = "metric", value_parser = at_least_one)]
    metric_candidates: Option<NonZero<usize>>,
    /// Draw the probability curves from at most N samples: they cost as much as the boundaries do
    #[arg(long, value_name = "N", default_value = "16", value_parser = at_least_one)]
    lens_samples: NonZero<usize>,
    /// Seed of the sample draw, the split and all resampling
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// What to print on stdout
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Replace results, or an interrupted search, that --out holds already
    #[arg(long)]
    force: bool,
    /// Exit with code 5 where the answer is to keep the full adapter or to use the base model
    #[arg(long)]
    fail_if_kept: bool,
    /// No progress on stderr
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    engine: EngineArguments,
}

/// How many boundaries answer, where nothing else is said.
const METRIC_CANDIDATES: usize = 5;

/// How probable it may be that a race loses the best boundary, where nothing else is said.
const ERROR_RATE: f64 = 0.05;

fn share(text: &str) -> Result<f64, &'static str> {
    let share = text.parse::<f64>().ok().filter(|share| *share > 0.0 && *share < 1.0);
    share.ok_or("expected a number between 0 and 1, and neither of them")
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TurnsArgument {
    /// The last one
    Last,
    /// Each of them
    All,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SearchArgument {
    /// All boundaries on all samples
    Exact,
    /// Boundaries leave once they are significantly worse on the samples so far: many times faster
    Racing,
}

/// Runs the verb.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let (quiet, format) = (arguments.quiet, arguments.format);
    let opening = progress::spinner("reading model, adapter and data", quiet);
    let options = arguments.options()?;
    let out = options.out.clone();
    let search = Search::open(options)?;
    opening.finish_and_clear();

    interrupt::install();
    let mut scoring = progress::Scoring::new(search.samples(), quiet);
    let scored = search.score(&mut |progress| {
        scoring.update(progress);
        if interrupt::asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let finished = scoring.finish();
    let scored = scored.map_err(|error| match error {
        Error::Interrupted if finished == 0 => {
            anyhow!("no sample was finished yet; run the same command again to start over").context(error)
        }
        Error::Interrupted => {
            let out = out.display();
            anyhow!("run the same command again to go on; {out} keeps what is finished").context(error)
        }
        error => error.into(),
    })?;

    interrupt::scored();
    let finishing = progress::spinner("choosing", quiet);
    let written = search.finish(&scored)?;
    finishing.finish_and_clear();
    match format {
        Format::Json => print(&report::json(&written.result)?)?,
        Format::Table => {
            let style = if colour() { report::Style::Colour } else { report::Style::Plain };
            let mut text = report::table(&written.result, style);
            if let Some(adapter) = &written.adapter {
                text.push_str(&format!("\nTrimmed adapter: {}\n", adapter.display()));
            }
            text.push_str(&format!("Report: {}\n", written.report.display()));
            print(&text)?;
        }
    }
    let kept = written.result.choice.verdict != Verdict::Trim;
    Ok(if kept && arguments.fail_if_kept { ExitCode::from(5) } else { ExitCode::SUCCESS })
}

impl Arguments {
    fn options(&self) -> Result<SearchOptions> {
        Ok(SearchOptions {
            model: self.model.clone(),
            adapter: self.adapter.clone(),
            data: self.data.clone(),
            out: self.out.clone(),
            template: template(&self.template)?,
            turns: match self.turns {
                TurnsArgument::Last => Turns::Last,
                TurnsArgument::All => Turns::All,
            },
            max_samples: self.max_samples.map(NonZero::get),
            holdout: self.holdout,
            strategy: match (self.search, self.error_rate) {
                (SearchArgument::Exact, None) => Strategy::Exact,
                (SearchArgument::Exact, Some(_)) => {
                    return Err(Error::Usage("--error-rate is of no effect without --search racing".into()).into());
                }
                (SearchArgument::Racing, rate) => Strategy::Racing { error_rate: rate.unwrap_or(ERROR_RATE) },
            },
            metric: self.metric.clone(),
            metric_candidates: self.metric_candidates.map_or(METRIC_CANDIDATES, NonZero::get),
            lens_samples: self.lens_samples,
            seed: self.seed,
            engine: self.engine.options(),
            scratch: std::env::temp_dir(),
            existing: if self.force { Existing::Replace } else { Existing::Refuse },
            command: command_line(),
        })
    }
}
