//! `plimsoll search`: the main job.

use std::num::NonZero;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use clap::{Args, ValueEnum};
use plimsoll::choose::{Margin, Verdict};
use plimsoll::data::{DataOptions, Dataset, LongSamples, TokenizedDataset, Turns};
use plimsoll::lora::{Family, Places};
use plimsoll::search::{
    ControlScoring, EffectSettings, Found, OutputFolder, PreparedSearch, SearchPlan, SearchSettings, Strategy,
    Validation,
};
use plimsoll::{Adapter, Error, Existing, Model, report};

use super::inputs::{EmbeddingLoraArgument, EngineArguments, at_least_one, template};
use super::output::{Format, colour, command_line, print};
use crate::{hub, interrupt, progress};

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
  plimsoll search --model model.gguf --adapter my-adapter --data data --out out --effects layers
  plimsoll search --model model.gguf --adapter my-adapter --data data --out out --families top-k,greedy,strengths
  plimsoll search --model model.gguf --adapter my-adapter --data data --out out --guard general.jsonl --budget 0.5

Data is JSONL: `messages`, `prompt` and `completion`, `instruction`/`input`/`output`,
`conversations`, or `text`. A folder stands for its valid.jsonl.

Models: the Llama architecture (in GGUF `llama`, in config.json `model_type` llama).

Exit codes: 0 done, 1 internal error or a result that cannot be written, 2 usage, 3 bad input,
4 engine, 5 with --fail-if-kept where the answer is to keep the full adapter or to use the base
model, 130 interrupted.")]
pub(super) struct Arguments {
    /// Base model: a GGUF file, a folder with config.json, safetensors and tokenizer.json, or the id of a repository
    #[arg(long, value_name = "PATH")]
    model: PathBuf,
    /// LoRA adapter: a PEFT folder (adapter_config.json, adapter_model.safetensors), or one of mlx-lm's, or an id
    #[arg(long, value_name = "FOLDER")]
    adapter: PathBuf,
    #[command(flatten)]
    embedding_lora: EmbeddingLoraArgument,
    /// Validation samples: a JSONL file, or a folder with valid.jsonl
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// Folder for result.json, report.html, scores.jsonl, tokens.jsonl and the trimmed adapter; until it is done, journal.jsonl, from
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
    /// Longest sample that is scored, in tokens [default: the model's context]
    #[arg(long, value_name = "TOKENS", value_parser = at_least_one)]
    max_length: Option<NonZero<usize>>,
    /// What becomes of longer samples
    #[arg(long, value_enum, default_value = "skip")]
    long_samples: LongSamplesArgument,
    /// Hold this share of the samples out to judge the boundary [default: 0.33 of 100 samples and more, and wherever
    /// --folds does not go; --folds 10 of fewer]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    holdout: Option<f64>,
    /// Judge in N folds, each by samples that had no part in its pick (nested cross-validation)
    #[arg(long, value_name = "N", conflicts_with = "holdout", value_parser = at_least_one)]
    folds: Option<NonZero<usize>>,
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
    /// Score these families too, and let them compete with the boundaries: top-k, global-alpha, leave-one-out, leave-one-in,
    /// per-module, window, ramp, magnitude-k, output-k, random-k (which only compares), greedy, greedy-modules, strengths
    #[arg(long, value_name = "FAMILY,…", value_delimiter = ',', help_heading = "What is searched")]
    families: Vec<Family>,
    /// Score these gates too, and let them compete, such as 7=0,20-29=0.5 [may be repeated]
    #[arg(long, value_name = "GATES", help_heading = "What is searched")]
    gates: Vec<String>,
    /// Pick nothing with more than this share of the adapter's bytes
    #[arg(long, value_name = "SHARE", value_parser = share, help_heading = "What is searched")]
    budget: Option<f64>,
    /// Samples of another kind, on which the cut must not be worse: a JSONL file or a folder
    #[arg(long, value_name = "PATH", help_heading = "What is searched")]
    guard: Option<PathBuf>,
    /// With --guard: a loss of less than this counts as not worse [default: 0.01 nats per token]
    #[arg(long, value_name = "NATS", requires = "guard", value_parser = nats, help_heading = "What is searched")]
    guard_margin: Option<f64>,
    /// What a cut has to keep to count as not worse: a share of the adapter's gain (98%), or all but a loss per token
    /// (0.005nats; with --metric in its points) [default: 98%]
    #[arg(long, value_name = "SHARE%|LOSSnats", value_parser = margin, help_heading = "What is searched")]
    margin: Option<Margin>,
    /// Do not hold a cut against a tuned factor on the whole adapter, random layers and the highest ones
    #[arg(long, help_heading = "What is searched")]
    no_controls: bool,
    /// Measure what each layer contributes, or each module of each layer (several times as dear): left out, alone, and as its
    /// Shapley value
    #[arg(long, value_enum, value_name = "layers|modules", help_heading = "Evidence")]
    effects: Option<EffectsArgument>,
    /// Measure effects on at most N samples
    #[arg(long, value_name = "N", default_value = "16", value_parser = at_least_one, help_heading = "Evidence")]
    effect_samples: NonZero<usize>,
    /// With --effects: pairs of orders behind the Shapley values, each as dear as two sweeps; 0 leaves them out
    /// [default: 2]
    #[arg(long, value_name = "N", requires = "effects", help_heading = "Evidence")]
    orders: Option<usize>,
    /// Tell in the report what every answer token got, of at most N samples
    #[arg(long, value_name = "N", default_value_t = 64, help_heading = "Evidence")]
    token_samples: usize,
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

#[derive(Clone, Copy, Debug, ValueEnum)]
enum EffectsArgument {
    /// Of layers
    Layers,
    /// Of layers, and of single modules of layers
    Modules,
}

fn nats(text: &str) -> Result<f64, &'static str> {
    let nats = text.parse::<f64>().ok().filter(|nats| nats.is_finite() && *nats >= 0.0);
    nats.ok_or("expected a number of nats per token, 0 or more")
}

fn margin(text: &str) -> Result<Margin, &'static str> {
    match text.strip_suffix('%') {
        Some(percent) => {
            let percent = percent.trim().parse::<f64>().ok().filter(|percent| (0.0..=100.0).contains(percent));
            percent.map(|percent| Margin::Share(percent / 100.0)).ok_or("expected a share from 0% to 100%")
        }
        None => {
            let number = text.strip_suffix("nats");
            let number = number.ok_or("expected a unit: a share such as 98%, or a loss such as 0.005nats")?;
            nats(number.trim()).map(Margin::Nats)
        }
    }
}

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
enum LongSamplesArgument {
    /// They are left out
    Skip,
    /// The end of their answer is left out, at a token border
    Cut,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SearchArgument {
    /// All boundaries on all samples
    Exact,
    /// Boundaries leave once they are significantly worse on the samples so far: many times faster
    Racing,
}

/// Runs the subcommand.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let quiet = arguments.quiet;
    let (model, adapter) = (hub::model(&arguments.model, quiet)?, hub::adapter(&arguments.adapter, quiet)?);
    let opening = progress::spinner("reading model, adapter and data", quiet);
    let existing = if arguments.force { Existing::Replace } else { Existing::Refuse };
    let output = OutputFolder::new(&arguments.out, existing, &adapter)?;
    let model = Model::open(model)?;
    let adapter = Adapter::open(adapter)?.with_embedding_lora(arguments.embedding_lora.choice());
    let data = Dataset::from_jsonl(&arguments.data)?;
    let guard = arguments.guard.as_ref().map(Dataset::from_jsonl).transpose()?;
    let mut search = plimsoll::search(&model, &adapter, &data)
        .settings(arguments.settings()?)
        .data_options(arguments.data_options()?)
        .engine(arguments.engine.options())
        .journal(&output)
        .measure_efficiency(std::env::temp_dir())
        .command(command_line());
    if let Some(guard) = &guard {
        search = search.guard(guard);
    }
    if let Some(metric) = &arguments.metric {
        search = search.metric(metric);
    }
    let search = search.prepare()?;
    opening.finish_and_clear();
    if !quiet {
        say_before(&search, arguments);
    }
    progress::warn_of_base(search.other_base());
    let found = score(&search, arguments)?;

    interrupt::enter(interrupt::Stage::Scored);
    let writing = progress::spinner("writing", quiet);
    let written = found.write(&output)?;
    writing.finish_and_clear();
    match arguments.format {
        Format::Json => print(&report::json(found.result())?)?,
        Format::Table => {
            let style = if colour() { report::Style::Colour } else { report::Style::Plain };
            let mut text = report::table(found.result(), style);
            if let Some(adapter) = &written.adapter {
                text.push_str(&format!("\nTrimmed adapter: {}\n", adapter.display()));
            }
            text.push_str(&format!("Report: {}\n", written.report.display()));
            print(&text)?;
        }
    }
    let is_kept = found.result().choice.verdict != Verdict::Trim;
    Ok(if is_kept && arguments.fail_if_kept { ExitCode::from(5) } else { ExitCode::SUCCESS })
}

/// Says on stderr what will be scored, and what is known before.
fn say_before(search: &PreparedSearch<'_>, arguments: &Arguments) {
    let lines = search.datasets().flat_map(|dataset| long_samples(dataset, search.max_length()));
    lines.for_each(|line| progress::say(&line));
    if !(arguments.families.is_empty() && arguments.gates.is_empty()) {
        progress::say(&plan(&search.plan()));
    }
    for warning in search.forewarnings().iter().filter_map(report::forewarning) {
        progress::say(&format!("plimsoll: warning: {warning}"));
    }
}

/// Searches, with progress on stderr, until it is done or interrupted.
fn score<'a>(search: &PreparedSearch<'a>, arguments: &Arguments) -> Result<Found<'a>> {
    interrupt::install();
    let mut scoring = progress::Scoring::new(search.samples(), arguments.quiet);
    let found = search.run(&mut |progress| {
        scoring.update(progress);
        if interrupt::asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let finished = scoring.finish();
    found.map_err(|error| match error {
        Error::Interrupted if finished == 0 => {
            anyhow!("no sample was finished yet; run the same command again to start over").context(error)
        }
        Error::Interrupted => {
            let out = arguments.out.display();
            anyhow!("run the same command again to go on; {out} keeps what is finished").context(error)
        }
        error => error.into(),
    })
}

/// What becomes of samples that are longer than `most` tokens.
fn long_samples(dataset: &TokenizedDataset, most: usize) -> Vec<String> {
    let line = |lines: &[usize], what: &str| {
        let shown: Vec<String> = lines.iter().take(5).map(usize::to_string).collect();
        let more = if lines.len() > shown.len() { ", …" } else { "" };
        let (noun, verb) = if lines.len() == 1 { ("sample", "is") } else { ("samples", "are") };
        (!lines.is_empty()).then(|| {
            format!(
                "plimsoll: {} {noun} of {} {verb} longer than {most} tokens: {what} (line {}{more})",
                lines.len(),
                dataset.file.display(),
                shown.join(", ")
            )
        })
    };
    let skipped = line(&dataset.skipped, "skipped; --long-samples cut keeps the start of their answers");
    let cut = line(&dataset.cut, "the end of the answer is cut");
    [skipped, cut].into_iter().flatten().collect()
}

/// What is about to be scored, and what it costs.
fn plan(plan: &SearchPlan) -> String {
    let family = |(family, members): &(Family, usize)| match family.is_adaptive() {
        true => format!("{family} (as it goes)"),
        false => format!("{family} ({members})"),
    };
    let families: Vec<String> = plan.families.iter().map(family).collect();
    let SearchPlan { variants, passes, naive, .. } = plan;
    format!(
        "plimsoll: {}: {variants} variants in {passes} layer passes a sample; one by one they would be {naive}",
        families.join(", ")
    )
}

impl Arguments {
    /// As the library wants them. What is not given has the library's default.
    fn settings(&self) -> Result<SearchSettings> {
        let defaults = SearchSettings::default();
        let EffectSettings { order_pairs, .. } = defaults.effects;
        Ok(SearchSettings {
            validation: match (self.holdout, self.folds) {
                (Some(share), _) => Validation::HeldOut(share),
                (None, Some(folds)) => Validation::Folds(folds.get()),
                (None, None) => Validation::Auto,
            },
            strategy: match (self.search, self.error_rate) {
                (SearchArgument::Exact, None) => Strategy::Exact,
                (SearchArgument::Exact, Some(_)) => {
                    return Err(Error::Usage("--error-rate is of no effect without --search racing".into()).into());
                }
                (SearchArgument::Racing, None) => Strategy::RACING,
                (SearchArgument::Racing, Some(error_rate)) => Strategy::Racing { error_rate },
            },
            families: self.families.clone(),
            gates: self.gates.clone(),
            controls: if self.no_controls { ControlScoring::Omitted } else { ControlScoring::Scored },
            effects: EffectSettings {
                places: self.effects.map(|effects| match effects {
                    EffectsArgument::Layers => Places::Layers,
                    EffectsArgument::Modules => Places::Modules,
                }),
                samples: self.effect_samples,
                order_pairs: self.orders.unwrap_or(order_pairs),
            },
            guard_margin: self.guard_margin.unwrap_or(defaults.guard_margin),
            margin: self.margin.unwrap_or(defaults.margin),
            budget: self.budget,
            metric_candidates: self.metric_candidates.map_or(defaults.metric_candidates, NonZero::get),
            token_samples: self.token_samples,
            lens_samples: self.lens_samples,
            seed: self.seed,
        })
    }

    fn data_options(&self) -> Result<DataOptions> {
        Ok(DataOptions {
            template: template(&self.template)?,
            turns: match self.turns {
                TurnsArgument::Last => Turns::Last,
                TurnsArgument::All => Turns::All,
            },
            max_samples: self.max_samples.map(NonZero::get),
            seed: self.seed,
            max_length: self.max_length.map_or(usize::MAX, NonZero::get),
            long: match self.long_samples {
                LongSamplesArgument::Skip => LongSamples::Skip,
                LongSamplesArgument::Cut => LongSamples::Cut,
            },
        })
    }
}
