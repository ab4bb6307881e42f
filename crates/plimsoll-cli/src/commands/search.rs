//! `plimsoll search`: finds the boundary layer of an adapter and writes the trimmed adapter and a report.

use std::num::NonZero;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use clap::{Args, ValueEnum};
use plimsoll::choose::{Margin, Rule, Verdict};
use plimsoll::data::{DataOptions, Dataset, LongSamples, TokenizedDataset, Turns};
use plimsoll::lora::{Family, Places};
use plimsoll::search::{
    ControlScoring, EffectSettings, Found, OutputFolder, PreparedSearch, SearchPlan, SearchSettings, Strategy,
    StrengthSearch, Validation,
};
use plimsoll::{Adapter, Error, Existing, Model, report};

use super::inputs::{
    EmbeddingLoraArgument, EngineArguments, MarginArgument, at_least_one, margin_argument, nats, template,
};
use super::output::{Format, colour, command_line, print};
use crate::{hub, interrupt, progress};

/// The end of the help text. A test checks its list of models.
const AFTER_HELP: &str = "\
Examples:
  plimsoll search --model model.gguf --adapter my-adapter --data valid.jsonl --out out
  plimsoll search --model ./Llama-3.2-1B --adapter my-adapter --data data --out out --max-samples 64
  plimsoll search --model model.gguf --adapter my-adapter --data data --out out --margin 95%
  plimsoll search --model model.gguf --adapter my-adapter --data data --out out --search sequential
  plimsoll search --model model.gguf --adapter my-adapter --data data --out out --template none
  plimsoll search --model model.gguf --adapter my-adapter --data data --out out --search racing
  plimsoll search --model model.gguf --adapter my-adapter --data data --out out --metric gsm8k:flexible
  plimsoll search --model model.gguf --adapter my-adapter --data data --out out --effects layers
  plimsoll search --model model.gguf --adapter my-adapter --data data --out out --families top-k,greedy,strengths
  plimsoll search --model model.gguf --adapter my-adapter --data data --out out --guard general.jsonl --budget 0.5

Data is JSONL: `messages`, `prompt` and `completion`, `instruction`/`input`/`output`,
`conversations`, or `text`. For a folder, its valid.jsonl is read.

Models, with their model_type in config.json (GGUF files of the same models are read too):
  llama        Llama 2, Llama 3, TinyLlama, SmolLM
  mistral      Mistral
  qwen2        Qwen2, Qwen2.5
  qwen3        Qwen3
  gemma2       Gemma 2
  gemma3_text  Gemma 3, text only
  phi3         Phi-3

Exit codes: 0 done, 1 internal error or a result that cannot be written, 2 usage, 3 bad input,
4 engine, 5 with --fail-if-kept if the verdict is to keep the full adapter or to use the base
model, 130 interrupted.";

/// Find the boundary layer of an adapter, and write the trimmed adapter and a report.
///
/// How many layers keep 98 % (or another --margin) of what the adapter gains? Cuts are tested from the
/// full adapter downward. A cut or a LoRA strength that is better comes first; it is judged by samples
/// that did not pick it. The verdict is to trim, to keep the full adapter, or to use the base model.
///
/// To continue an interrupted search, run the same command again.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Arguments {
    /// Base model: a GGUF file, a folder with config.json, safetensors and tokenizer.json, or a repository id
    /// (OWNER/NAME[@REVISION][:FILE])
    #[arg(long, value_name = "PATH")]
    model: PathBuf,
    /// LoRA adapter: a PEFT folder (adapter_config.json, adapter_model.safetensors), an mlx-lm folder, or a repository
    /// id
    #[arg(long, value_name = "FOLDER")]
    adapter: PathBuf,
    #[command(flatten)]
    embedding_lora: EmbeddingLoraArgument,
    /// Validation samples: a JSONL file, or a folder with valid.jsonl
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// Folder for result.json, report.html, scores.jsonl, tokens.jsonl and the trimmed adapter. Until the search is
    /// done it holds journal.jsonl, from which an interrupted search continues
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Chat template of the prompts: `tokenizer` for the tokenizer's own, `none`, or a Jinja file
    #[arg(long, value_name = "tokenizer|none|FILE", default_value = "tokenizer")]
    template: String,
    /// Which assistant turns of a conversation are scored
    #[arg(long, value_enum, default_value = "last")]
    turns: TurnsArgument,
    /// Score at most N samples, sampled with --seed [default: all]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    max_samples: Option<NonZero<usize>>,
    /// Maximum length of a sample, in tokens [default: the model's context length]
    #[arg(long, value_name = "TOKENS", value_parser = at_least_one)]
    max_length: Option<NonZero<usize>>,
    /// Samples longer than --max-length: skip them, or cut their answers
    #[arg(long, value_enum, default_value = "skip")]
    long_samples: LongSamplesArgument,
    /// Share of the samples that is held out to judge the candidate [default: 0.33 with 100 samples or more, or with
    /// --families, --gates, --budget, --guard, --metric or --search racing. Otherwise nothing is held out, and --folds
    /// 10 judges]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    holdout: Option<f64>,
    /// Judge in N folds (nested cross-validation): the samples of a fold judge the pick of the other folds
    #[arg(long, value_name = "N", conflicts_with = "holdout", value_parser = at_least_one)]
    folds: Option<NonZero<usize>>,
    /// Which boundaries are scored on which samples
    #[arg(long, value_enum, default_value = "auto")]
    search: SearchArgument,
    /// With --search racing: largest probability that the best boundary is dropped [default: 0.05]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    error_rate: Option<f64>,
    /// Choose the boundary by a metric of generated answers: a task of `plimsoll eval` (gsm8k), or one of its metrics
    /// (gsm8k:flexible). The task file says where answers end and how to measure them. Prompts and references come from
    /// --data
    #[arg(long, value_name = "TASK[:METRIC]")]
    metric: Option<String>,
    /// With --metric and --rule one-se: generate answers for at most N boundaries with an NLL near the best, at least 4
    /// [default: 5]
    #[arg(long, value_name = "N", requires = "metric", value_parser = at_least_one)]
    metric_candidates: Option<NonZero<usize>>,
    /// Also score these families of variants, which compete with the boundaries: top-k, global-alpha, leave-one-out,
    /// leave-one-in, per-module, window, ramp, magnitude-k, output-k, random-k (only for comparison), greedy,
    /// greedy-modules, strengths
    #[arg(long, value_name = "FAMILY,…", value_delimiter = ',', help_heading = "Variants and verdict")]
    families: Vec<Family>,
    /// Also score a variant with these LoRA strengths, which competes with the boundaries, such as 7=0,20-29=0.5 (see
    /// `plimsoll trim --help`). May be repeated
    #[arg(long, value_name = "PLACE=STRENGTH,…", help_heading = "Variants and verdict")]
    gates: Vec<String>,
    /// Pick only variants with at most this share of the adapter's bytes
    #[arg(long, value_name = "SHARE", value_parser = share, help_heading = "Variants and verdict")]
    budget: Option<f64>,
    /// Samples of another kind, on which the candidate must not get worse: a JSONL file, or a folder with valid.jsonl
    #[arg(long, value_name = "PATH", help_heading = "Variants and verdict")]
    guard: Option<PathBuf>,
    /// With --guard: a loss below this counts as not worse, in nats per answer token [default: 0.01]
    #[arg(long, value_name = "NATS", requires = "guard", value_parser = nats, help_heading = "Variants and verdict")]
    guard_margin: Option<f64>,
    /// Rule that picks the candidate: `sufficient` for the fewest layers that hold the --margin, `one-se` for the
    /// smallest boundary within one standard error of the best, `best` for the lowest NLL, `curve` for the change point
    /// of the probability curve [default: sufficient, or one-se with --search racing]
    #[arg(long, value_enum, help_heading = "Variants and verdict")]
    rule: Option<RuleArgument>,
    /// What a cut must keep: a share of the adapter's gain over the base model (98%), or the largest loss: in nats
    /// per token (0.005nats), or with --metric in points of the metric (0.02points) [default: 98%]
    #[arg(long, value_name = "SHARE%|LOSSnats", value_parser = margin_argument, help_heading = "Variants and verdict")]
    margin: Option<MarginArgument>,
    /// Do not compare the candidate with controls: a tuned LoRA strength on the whole adapter, random layers and the
    /// highest layers
    #[arg(long, help_heading = "Variants and verdict")]
    no_controls: bool,
    /// Do not try other LoRA strengths of the whole adapter. They are tried with --rule sufficient
    #[arg(long, help_heading = "Variants and verdict")]
    no_strength: bool,
    /// Measure the effect of each layer, or of each module of each layer: leave-one-out, leave-one-in and Shapley
    /// value. Modules cost several times as much as layers
    #[arg(long, value_enum, value_name = "layers|modules", help_heading = "Evidence")]
    effects: Option<EffectsArgument>,
    /// Measure effects on at most N samples
    #[arg(long, value_name = "N", default_value = "16", value_parser = at_least_one, help_heading = "Evidence")]
    effect_samples: NonZero<usize>,
    /// With --effects: number of pairs of layer orders that Shapley values are estimated from. A pair costs as much as
    /// scoring all boundaries twice. 0: no Shapley values [default: 2]
    #[arg(long, value_name = "N", requires = "effects", help_heading = "Evidence")]
    orders: Option<usize>,
    /// Keep the score of every answer token of at most N samples, for the report
    #[arg(long, value_name = "N", default_value_t = 64, help_heading = "Evidence")]
    token_samples: usize,
    /// Compute the probability curves (logit lens) from at most N samples. They cost as much as scoring the boundaries
    #[arg(long, value_name = "N", default_value = "16", value_parser = at_least_one)]
    lens_samples: NonZero<usize>,
    /// Seed of the sampling, the split and all resampling
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// What to print on stdout
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Replace existing results, or an interrupted search, in --out
    #[arg(long)]
    force: bool,
    /// Exit with code 5 if the verdict is to keep the full adapter or to use the base model
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
    /// Effects of layers
    Layers,
    /// Effects of layers, and of single modules of layers
    Modules,
}

fn share(text: &str) -> Result<f64, &'static str> {
    let share = text.parse::<f64>().ok().filter(|share| *share > 0.0 && *share < 1.0);
    share.ok_or("expected a number between 0 and 1 (both excluded)")
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TurnsArgument {
    /// Only the last turn
    Last,
    /// All turns
    All,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LongSamplesArgument {
    /// Skip the sample
    Skip,
    /// Cut the end of the answer, at a token boundary
    Cut,
}

#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq)]
enum RuleArgument {
    /// The fewest layers that are shown to hold the margin
    Sufficient,
    /// The smallest boundary within one standard error of the best
    OneSe,
    /// The boundary with the lowest NLL
    Best,
    /// The change point of the probability curve
    Curve,
}

#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq)]
enum SearchArgument {
    /// `exact` if it takes some minutes on a desktop computer (10¹⁴ multiply-adds), else `sequential`
    Auto,
    /// All boundaries on all samples
    Exact,
    /// Boundaries from the full adapter downward, only as far as the margin needs. The fastest; whether a cut is better
    /// than the full adapter is not tested
    Sequential,
    /// Boundaries that are significantly worse on the samples so far are not scored further, which is faster
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
        .cpu_options(arguments.engine.options())
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
        report_inputs(&search, arguments);
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
                text.push_str(&format!("\nAdapter: {}\n", adapter.display()));
            }
            text.push_str(&format!("Report: {}\n", written.report.display()));
            print(&text)?;
        }
    }
    let is_kept = found.result().choice.verdict != Verdict::Trim;
    Ok(if is_kept && arguments.fail_if_kept { ExitCode::from(5) } else { ExitCode::SUCCESS })
}

/// Prints on stderr what will be scored, and the warnings that are known before scoring.
fn report_inputs(search: &PreparedSearch<'_>, arguments: &Arguments) {
    let lines = search.datasets().flat_map(|dataset| long_samples(dataset, search.max_length()));
    lines.for_each(|line| progress::say(&line));
    if !(arguments.families.is_empty() && arguments.gates.is_empty()) {
        progress::say(&plan(&search.plan()));
    }
    if arguments.search == SearchArgument::Auto && search.strategy() == Strategy::Sequential {
        progress::say(
            "plimsoll: only the boundaries that the margin needs are scored, from the full adapter downward \
             (--search exact scores all)",
        );
    }
    for warning in search.forewarnings().iter().filter_map(report::forewarning) {
        progress::say(&format!("plimsoll: warning: {warning}"));
    }
}

/// Runs the search with progress on stderr, until it is done or interrupted.
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
            anyhow!("no sample is finished; run the same command again to start over").context(error)
        }
        Error::Interrupted => {
            let out = arguments.out.display();
            anyhow!("run the same command again to continue; finished work is kept in {out}").context(error)
        }
        error => error.into(),
    })
}

/// Messages about samples that are longer than `most` tokens.
fn long_samples(dataset: &TokenizedDataset, most: usize) -> Vec<String> {
    let line = |lines: &[usize], what: &str| {
        let shown: Vec<String> = lines.iter().take(5).map(usize::to_string).collect();
        let more = if lines.len() > shown.len() { ", …" } else { "" };
        let (samples, are) = if lines.len() == 1 { ("sample", "is") } else { ("samples", "are") };
        (!lines.is_empty()).then(|| {
            format!(
                "plimsoll: {} {samples} of {} {are} longer than {most} tokens: {what} (line {}{more})",
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

/// A line with the families that will be scored, and the number of variants and layer passes.
fn plan(plan: &SearchPlan) -> String {
    let family = |(family, members): &(Family, usize)| match family.is_adaptive() {
        true => format!("{family} (adaptive)"),
        false => format!("{family} ({members})"),
    };
    let families: Vec<String> = plan.families.iter().map(family).collect();
    let SearchPlan { variants, passes, naive, .. } = plan;
    format!(
        "plimsoll: {}: {variants} variants, {passes} layer passes per sample (without sharing: {naive})",
        families.join(", ")
    )
}

impl Arguments {
    /// The library's settings. Options that are not given have the library's defaults.
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
                (SearchArgument::Auto, None) => Strategy::Auto,
                (SearchArgument::Exact, None) => Strategy::Exact,
                (SearchArgument::Sequential, None) => Strategy::Sequential,
                (SearchArgument::Auto | SearchArgument::Exact | SearchArgument::Sequential, Some(_)) => {
                    return Err(Error::Usage("--error-rate has no effect without --search racing".into()).into());
                }
                (SearchArgument::Racing, None) => Strategy::RACING,
                (SearchArgument::Racing, Some(error_rate)) => Strategy::Racing { error_rate },
            },
            families: self.families.clone(),
            gates: self.gates.clone(),
            controls: if self.no_controls { ControlScoring::Omitted } else { ControlScoring::Scored },
            strength: if self.no_strength { StrengthSearch::AsTrained } else { StrengthSearch::Tuned },
            effects: EffectSettings {
                places: self.effects.map(|effects| match effects {
                    EffectsArgument::Layers => Places::Layers,
                    EffectsArgument::Modules => Places::Modules,
                }),
                samples: self.effect_samples,
                order_pairs: self.orders.unwrap_or(order_pairs),
            },
            guard_margin: self.guard_margin.unwrap_or(defaults.guard_margin),
            rule: self.rule.map(|rule| match rule {
                RuleArgument::Sufficient => Rule::Sufficient,
                RuleArgument::OneSe => Rule::OneSe,
                RuleArgument::Best => Rule::Best,
                RuleArgument::Curve => Rule::Curve,
            }),
            margin: match &self.margin {
                None => defaults.margin,
                Some(MarginArgument { margin: Margin::Nats(_), is_in_points })
                    if *is_in_points != self.metric.is_some() =>
                {
                    let unit = if self.metric.is_some() { "points with --metric" } else { "nats without --metric" };
                    return Err(Error::Usage(format!("--margin: expected a share, or a loss in {unit}")).into());
                }
                Some(asked) => asked.margin,
            },
            budget: self.budget,
            metric_candidates: match self.metric_candidates {
                Some(_) if self.rule != Some(RuleArgument::OneSe) && self.search != SearchArgument::Racing => {
                    return Err(Error::Usage("--metric-candidates has no effect without --rule one-se".into()).into());
                }
                candidates => candidates.map_or(defaults.metric_candidates, NonZero::get),
            },
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_help_lists_every_supported_family_of_models() {
        let supported = plimsoll::model::supported_families();
        let words = supported.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let supported: BTreeSet<&str> = words.filter(|word| !["", "or", "and"].contains(word)).collect();
        let list = AFTER_HELP.lines().skip_while(|line| !line.starts_with("Models, ")).skip(1);
        let list = list.take_while(|line| !line.is_empty());
        let listed: BTreeSet<&str> = list.filter_map(|line| line.split_whitespace().next()).collect();
        assert_eq!(listed, supported);
    }

    #[test]
    fn the_help_lists_every_family_of_variants_from_the_simplest() {
        let help = <Arguments as Args>::augment_args(clap::Command::new("search"));
        let families = help.get_arguments().find(|argument| argument.get_id() == "families").unwrap();
        let text = families.get_help().unwrap().to_string();
        let (_, list) = text.split_once(": ").unwrap();
        let listed: Vec<&str> = list.split(", ").map(|name| name.split(' ').next().unwrap_or_default()).collect();
        let searched = Family::ALL.into_iter().filter(|family| family.is_optional());
        let searched: Vec<String> = searched.map(|family| family.to_string()).collect();
        assert_eq!(listed, searched);
    }
}
