//! The builder of a search, and the order of its stages.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use plimsoll_formats::files;
use plimsoll_stats::choose::{Margin, Part};

use super::explain::{Decode, ExplainInputs, explain};
use super::found::Found;
use super::journal::{Memory, Set};
use super::judge::{Judged, judge_candidate};
use super::metric::{Answering, Chooser};
use super::outcome::{DataNotes, Findings, StageResults, gather};
use super::plan::SearchPlan;
use super::progress::Progress;
use super::score::{Scored, score};
use super::scoring::{Observer, Scoring, Shown};
use super::select::select;
use super::settings::{SearchSettings, Strategy};
use super::study::{Study, affordable};
use super::write::OutputFolder;
use crate::data::{DataOptions, DataProblem, Dataset, Ending, Sample, TemplateChoice, TokenizedDataset, Turns};
use crate::engine::{CpuBenchmark, CpuEngine, CpuOptions, CpuProbe, EngineIdentity, Engines};
use crate::error::{Error, Result};
use crate::eval::RowPlace;
use crate::journal::{Fingerprint, Journal};
use crate::lora::Family;
use crate::lora::adapter::{Adapter, BoundAdapter, OtherBase};
use crate::model::{Config, Model};
use crate::result::{AdapterFacts, AnswerEnding, Arbitration, Cost, DataFacts, GuardSummary, SearchResult, Warning};
use crate::tokenizer::Tokenizer;

/// Builds a search: which LoRA layers of the adapter does inference need on data like these samples?
///
/// ```
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/golden/tiny-gqa-tied");
/// use plimsoll::data::{DataOptions, Dataset, TemplateChoice};
/// use plimsoll::{Adapter, Model};
///
/// let (model, adapter) = (Model::open(folder)?, Adapter::open(format!("{folder}/adapters/trained"))?);
/// let pairs = (0..20).map(|number| (format!("{number} and one are "), format!("{}.", number + 1)));
/// let data = Dataset::from_pairs(pairs)?;
/// let options = DataOptions { template: TemplateChoice::None, ..DataOptions::default() };
/// let found = plimsoll::search(&model, &adapter, &data).data_options(options).run()?;
/// assert_eq!(found.result().data.selection, 20);
/// # Ok::<(), plimsoll::Error>(())
/// ```
pub fn search<'a>(model: &'a Model, adapter: &'a Adapter, data: &'a Dataset) -> Search<'a> {
    Search {
        model,
        adapter,
        data,
        guard: None,
        settings: SearchSettings::default(),
        data_options: DataOptions::default(),
        engine: CpuOptions::default(),
        metric: None,
        output: None,
        scratch: None,
        command: String::new(),
        observe: None,
    }
}

/// A search that has not begun: a builder. It writes files only on request.
pub struct Search<'a> {
    model: &'a Model,
    adapter: &'a Adapter,
    data: &'a Dataset,
    guard: Option<&'a Dataset>,
    settings: SearchSettings,
    data_options: DataOptions,
    engine: CpuOptions,
    metric: Option<String>,
    output: Option<&'a OutputFolder>,
    scratch: Option<PathBuf>,
    command: String,
    observe: Option<Box<dyn FnMut(Progress) -> ControlFlow<()> + 'a>>,
}

impl<'a> Search<'a> {
    /// Sets all settings. Their seed also applies to the sampling of lines.
    #[must_use]
    pub fn settings(mut self, settings: SearchSettings) -> Self {
        self.data_options.seed = settings.seed;
        self.settings = settings;
        self
    }

    /// Sets what counts as not worse than the full adapter.
    #[must_use]
    pub fn margin(mut self, margin: Margin) -> Self {
        self.settings.margin = margin;
        self
    }

    /// Sets the seed of everything that is random.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        (self.settings.seed, self.data_options.seed) = (seed, seed);
        self
    }

    /// Sets how lines become samples. The seed stays that of the search.
    #[must_use]
    pub fn data_options(mut self, options: DataOptions) -> Self {
        self.data_options = DataOptions { seed: self.settings.seed, ..options };
        self
    }

    /// Sets the guard: samples of another kind, on which the candidate must not get worse.
    #[must_use]
    pub fn guard(mut self, guard: &'a Dataset) -> Self {
        self.guard = Some(guard);
        self
    }

    /// Chooses by a metric of generated answers instead of the NLL: `TASK` or `TASK:METRIC`.
    #[must_use]
    pub fn metric(mut self, metric: impl Into<String>) -> Self {
        self.metric = Some(metric.into());
        self
    }

    /// Sets the engine's threads, dtype and memory.
    #[must_use]
    pub fn cpu_options(mut self, options: CpuOptions) -> Self {
        self.engine = options;
        self
    }

    /// Journals scores in this folder, and continues an interrupted search from its journal.
    #[must_use]
    pub fn journal(mut self, output: &'a OutputFolder) -> Self {
        self.output = Some(output);
        self
    }

    /// Measures speed and size of variants on this machine. Temporary adapters are written to the folder `scratch`.
    #[must_use]
    pub fn measure_efficiency(mut self, scratch: impl Into<PathBuf>) -> Self {
        self.scratch = Some(scratch.into());
        self
    }

    /// Sets the command line that the result records.
    #[must_use]
    pub fn command(mut self, command: impl Into<String>) -> Self {
        self.command = command.into();
        self
    }

    /// Calls `observe` with the progress several times per second.
    #[must_use]
    pub fn on_progress(self, mut observe: impl FnMut(Progress) + 'a) -> Self {
        self.on_step(move |progress| {
            observe(progress);
            ControlFlow::Continue(())
        })
    }

    /// Calls `observe` with the progress several times per second. The search stops if it breaks.
    #[must_use]
    pub fn on_step(mut self, observe: impl FnMut(Progress) -> ControlFlow<()> + 'a) -> Self {
        self.observe = Some(Box::new(observe));
        self
    }

    /// Runs the search.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare) and [`PreparedSearch::run`].
    pub fn run(mut self) -> Result<Found<'a>> {
        let mut observe = self.observe.take();
        let prepared = self.prepare()?;
        prepared.run(&mut |progress| match &mut observe {
            Some(observe) => observe(progress),
            None => ControlFlow::Continue(()),
        })
    }

    /// Reads and checks all inputs, before anything is scored.
    ///
    /// # Errors
    /// An adapter, data or settings that cannot be used.
    pub fn prepare(self) -> Result<PreparedSearch<'a>> {
        let Self {
            model, adapter, data, guard, settings, data_options, engine, metric, output, scratch, command, ..
        } = self;
        let metric = metric.as_deref().map(|text| Chooser::parse(text, settings.seed)).transpose()?;
        let config = model.config();
        let lora = model.bind(Some(adapter))?;
        let tokenizer = model.tokenizer()?;
        let data_options = DataOptions { max_length: data_options.max_length.min(config.context), ..data_options };
        let tokenize = |data: &Dataset| {
            let dataset = data.tokenize(&tokenizer, &data_options)?;
            let is_outside = |sample: &&Sample| sample.tokens.iter().any(|&token| token as usize >= config.vocabulary);
            match dataset.samples.iter().find(is_outside) {
                Some(Sample { line, .. }) => {
                    let problem = DataProblem::Vocabulary { line: *line, vocabulary: config.vocabulary };
                    Err(Error::input(&dataset.file, problem))
                }
                None => Ok(dataset),
            }
        };
        let dataset = tokenize(data)?;
        if let Some(metric) = &metric {
            check_questions(&dataset, metric, &data_options, config.context)?;
        }
        let guard = guard.map(tokenize).transpose()?;
        let table = adapter.table(config.layers)?;
        let guard_samples = guard.as_ref().map(|guard| guard.samples.clone());
        let all = multiply_adds_of_all(config, &dataset.samples);
        let (has_guard, has_metric) = (guard.is_some(), metric.is_some());
        let strategy = affordable(&settings, dataset.samples.len(), has_guard, has_metric, all);
        let settings = SearchSettings { strategy, ..settings };
        let study = Study::with_metric(settings, table, dataset.samples.clone(), guard_samples, metric)?;
        let hashes = Hashes { model: model.sha256()?, adapter: files::sha256_of_files(&adapter.files())? };
        let inputs = Inputs { model, adapter, lora, tokenizer, dataset, guard, data_options, hashes };
        Ok(PreparedSearch { study, inputs, engine, output, scratch, command })
    }
}

impl fmt::Debug for Search<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { settings, data_options, engine, metric, .. } = self;
        f.debug_struct("Search")
            .field("settings", settings)
            .field("data_options", data_options)
            .field("engine", engine)
            .field("metric", metric)
            .finish_non_exhaustive()
    }
}

/// Approximate number of multiply-adds that score all boundaries on samples: the weights of the layers, for each token
/// in each layer pass.
fn multiply_adds_of_all(config: &Config, samples: &[Sample]) -> f64 {
    let attention = 2 * config.head_dim * (config.heads + config.kv_heads);
    let layer = config.hidden * (attention + 3 * config.intermediate);
    let passes = config.layers + config.layers * (config.layers + 1) / 2;
    let tokens: usize = samples.iter().map(|sample| sample.tokens.len()).sum();
    layer as f64 * passes as f64 * tokens as f64
}

/// Checks that every prompt can be answered, and that every answer can be compared with its reference.
fn check_questions(dataset: &TokenizedDataset, metric: &Chooser, options: &DataOptions, context: usize) -> Result<()> {
    if options.turns == Turns::All {
        return Err(Error::Usage("--metric scores the last turn of a chat: it cannot be used with --turns all".into()));
    }
    let longest = context - 1;
    // A plain text has no prompt but a BOS.
    let mut prompts = dataset.samples.iter().zip(&dataset.prompts);
    if let Some((Sample { line, .. }, prompt)) = prompts.find(|(_, p)| p.len() < 2 || p.len() > longest) {
        let problem = DataProblem::Unanswerable { line: *line, tokens: prompt.len(), longest };
        return Err(Error::input(&dataset.file, problem));
    }
    for (sample, answer) in dataset.samples.iter().zip(&dataset.answers) {
        let checked = metric.measured.check(RowPlace::Line(sample.line), answer);
        checked.map_err(|problem| Error::input(&dataset.file, problem))?;
    }
    Ok(())
}

/// SHA-256 of the model and the adapter.
#[derive(Debug)]
struct Hashes {
    model: String,
    adapter: String,
}

/// The inputs of a search.
#[derive(Debug)]
struct Inputs<'a> {
    model: &'a Model,
    adapter: &'a Adapter,
    lora: BoundAdapter,
    tokenizer: Tokenizer,
    dataset: TokenizedDataset,
    guard: Option<TokenizedDataset>,
    data_options: DataOptions,
    hashes: Hashes,
}

/// A search whose inputs are read and checked.
#[derive(Debug)]
pub struct PreparedSearch<'a> {
    study: Study,
    inputs: Inputs<'a>,
    engine: CpuOptions,
    output: Option<&'a OutputFolder>,
    scratch: Option<PathBuf>,
    command: String,
}

impl<'a> PreparedSearch<'a> {
    /// Warnings that depend on the number of samples only, so that they are known before scoring.
    pub fn forewarnings(&self) -> &[Warning] {
        self.study.forewarnings()
    }

    /// The names of both models, if the base model has another name than the one that the adapter was trained on.
    pub fn other_base(&self) -> Option<OtherBase> {
        self.inputs.model.other_base(self.inputs.adapter)
    }

    /// The strategy of the search: never [`Strategy::Auto`].
    pub fn strategy(&self) -> Strategy {
        self.study.settings.strategy
    }

    /// The number of samples that will be scored.
    pub fn samples(&self) -> usize {
        self.inputs.dataset.samples.len()
    }

    /// The samples, and the guard's samples, with the lines that are too long.
    pub fn datasets(&self) -> impl Iterator<Item = &TokenizedDataset> {
        std::iter::once(&self.inputs.dataset).chain(&self.inputs.guard)
    }

    /// The maximum length of a sample, in tokens.
    pub fn max_length(&self) -> usize {
        self.inputs.data_options.max_length
    }

    /// The variants that will be scored on each selection sample, without those that depend on scores.
    pub fn plan(&self) -> SearchPlan {
        self.study.plan()
    }

    /// Runs the search on the CPU of this machine. If `observe` breaks, the search stops; finished work is in the
    /// journal, if there is one, and the next run continues from there.
    ///
    /// # Errors
    /// See [`Scorer::score`](crate::engine::Scorer::score); a journal of another search; settings that exclude all
    /// variants.
    pub fn run(&self, observe: &mut dyn FnMut(Progress) -> ControlFlow<()>) -> Result<Found<'a>> {
        let engine = CpuEngine::load(self.inputs.model, &self.inputs.lora, self.engine)?;
        let probe = CpuProbe { engine: &engine, lora: &self.inputs.lora };
        let Inputs { model, adapter, .. } = self.inputs;
        let benchmark =
            self.scratch.as_deref().map(|scratch| CpuBenchmark { engine: &engine, model, adapter, scratch });
        let benchmark = benchmark.as_ref().map(|benchmark| benchmark as &dyn crate::engine::Benchmark);
        let engines = Engines { scorer: &engine, generator: Some(&engine), probe: Some(&probe), benchmark };
        self.run_on(&engines, observe)
    }

    /// Runs the search on other engines.
    ///
    /// # Errors
    /// As [`run`](Self::run), and a metric without a generator.
    pub fn run_on(
        &self,
        engines: &Engines<'_>,
        observe: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Found<'a>> {
        let Self { study, inputs, .. } = self;
        let fingerprint = self.fingerprint(&engines.scorer.identity())?;
        let journal = match self.output {
            Some(output) => {
                let (journal, rows) = Journal::open(&output.journal(), &fingerprint, "search", output.existing())?;
                Some((journal, Memory::of(rows)))
            }
            None => None,
        };
        let answering = match &study.metric {
            Some(chooser) => {
                let no_generator = || Error::Engine("this engine cannot generate answers: --metric needs them".into());
                let generator = engines.generator.ok_or_else(no_generator)?;
                let questions = questions(&inputs.dataset);
                let answering = Answering::new(chooser, generator, &inputs.tokenizer, study.layers(), questions);
                Some(match self.output {
                    Some(output) => answering.with_journal(&output.answers(), &fingerprint, output.existing())?,
                    None => answering,
                })
            }
            None => None,
        };
        let decode = |tokens: &[u32]| inputs.tokenizer.decode(tokens).unwrap_or_default();
        let context = StageContext { engines, journal, answering, decode: &decode, notes: self.notes() };
        let findings = run_stages(study, context, observe)?;
        Ok(self.found(findings))
    }

    fn notes(&self) -> DataNotes {
        let dataset = &self.inputs.dataset;
        let open = dataset.endings.iter().find(|(ending, _)| *ending == Ending::Open);
        DataNotes {
            skipped: dataset.skipped.len(),
            cut: dataset.cut.len(),
            max_length: self.max_length(),
            open_endings: open.map(|(_, samples)| *samples),
            other_base: self.other_base(),
        }
    }

    fn fingerprint(&self, engine: &EngineIdentity) -> Result<Fingerprint> {
        let parts = self.study.parts();
        let of = |samples: &[&Sample]| -> Vec<(usize, Vec<u32>, Vec<usize>)> {
            samples.iter().map(|sample| (sample.line, sample.tokens.clone(), sample.answer.clone())).collect()
        };
        let samples = [of(&parts.selection), of(&parts.holdout)];
        let guard = [of(&parts.guard[0]), of(&parts.guard[1])];
        let work = serde_json::to_vec(&(samples, guard)).map_err(|error| Error::Internal(error.to_string()))?;
        let Hashes { model, adapter } = &self.inputs.hashes;
        let engine = (engine.dtype.as_str(), engine.instructions.as_str());
        let fingerprint = Fingerprint::new(model, Some(adapter), engine, &work);
        Ok(match self.inputs.adapter.embedding_lora() {
            Some(choice) => fingerprint.with(&format!("{choice:?}")),
            None => fingerprint,
        })
    }

    /// The findings, with facts about the files.
    fn found(&self, findings: Findings) -> Found<'a> {
        let Inputs { model, adapter, hashes, .. } = &self.inputs;
        let guard = self.guard_summary(&findings);
        let kept = findings.kept();
        let result = SearchResult {
            schema: crate::result::SCHEMA,
            tool: crate::journal::TOOL.into(),
            command: self.command.clone(),
            seed: self.study.settings.seed,
            model: model.facts(model.path(), &hashes.model),
            adapter: AdapterFacts::of(adapter, adapter.folder(), &hashes.adapter, &kept),
            data: self.data_facts(findings.unused),
            variants: findings.variants,
            race: findings.race,
            lens: findings.lens,
            choice: findings.choice,
            candidate: Some(findings.candidate),
            sufficient: findings.sufficient,
            strength: findings.strength,
            arbitration: findings.arbitration,
            controls: findings.controls,
            effects: Some(findings.effects),
            guard,
            front: findings.front,
            metric: findings.metric,
            efficiency: findings.efficiency,
            rules: findings.rules,
            warnings: findings.warnings,
            cost: findings.cost,
        };
        Found::new(result, findings.variant, findings.scores, findings.tokens, adapter)
    }

    fn guard_summary(&self, findings: &Findings) -> Option<GuardSummary> {
        let (guard, dataset) = (findings.guard?, self.inputs.guard.as_ref()?);
        let (_, split) = self.study.guard.as_ref()?;
        Some(GuardSummary {
            path: dataset.path.display().to_string(),
            sha256: dataset.sha256.clone(),
            selection: split.selection.len(),
            holdout: split.holdout.len(),
            skipped: dataset.skipped.len(),
            cut: dataset.cut.len(),
            margin: self.study.settings.guard_margin,
            excluded: findings.excluded,
            adapter_gain: guard.adapter_gain,
            gain: guard.gain,
            is_held: guard.is_held,
        })
    }

    fn data_facts(&self, unused: usize) -> DataFacts {
        let Inputs { dataset, data_options, tokenizer, .. } = &self.inputs;
        let look = self.study.first_look().filter(|_| unused > 0);
        let study = look.as_ref().unwrap_or(&self.study);
        let (selection, holdout) = study.split();
        let ending = |(ending, samples): &(Ending, usize)| {
            let token = match ending {
                Ending::Token(id) => Some(tokenizer.decode(&[*id]).unwrap_or_default()),
                Ending::Open => None,
            };
            AnswerEnding { token, samples: *samples }
        };
        let scored = [Part::Selection, Part::Holdout].into_iter().flat_map(|part| study.part(part));
        DataFacts {
            path: dataset.path.display().to_string(),
            sha256: dataset.sha256.clone(),
            selection,
            holdout,
            unused,
            skipped: dataset.skipped.len(),
            cut: dataset.cut.len(),
            max_length: data_options.max_length,
            endings: dataset.endings.iter().map(ending).collect(),
            answer_tokens: scored.map(|sample| sample.answer.len()).sum(),
            template: match &data_options.template {
                TemplateChoice::Given { file, .. } => file.display().to_string(),
                TemplateChoice::Tokenizer | TemplateChoice::None => dataset.template.to_string(),
            },
        }
    }
}

/// Prompts and references of all samples, by line.
fn questions(dataset: &TokenizedDataset) -> HashMap<usize, (Vec<u32>, String)> {
    let questions = dataset.prompts.iter().cloned().zip(dataset.answers.iter().cloned());
    dataset.samples.iter().map(|sample| sample.line).zip(questions).collect()
}

/// The inputs of the stages besides the study.
struct StageContext<'a> {
    engines: &'a Engines<'a>,
    journal: Option<(Journal, Memory)>,
    answering: Option<Answering<'a>>,
    decode: Decode<'a>,
    notes: DataNotes,
}

impl Study {
    /// Runs the search on some engines, without files: nothing is journalled, and tokens are shown by their ids.
    ///
    /// # Errors
    /// Scores that cannot be computed; settings that exclude all variants.
    pub fn run(&self, engines: &Engines<'_>, observe: &mut dyn FnMut(Progress) -> ControlFlow<()>) -> Result<Findings> {
        let decode = |tokens: &[u32]| tokens.iter().map(|token| format!("<{token}>")).collect::<String>();
        let notes = DataNotes::default();
        let context = StageContext { engines, journal: None, answering: None, decode: &decode, notes };
        run_stages(self, context, observe)
    }
}

/// Plans all stages and runs them: score, select, judge, explain. A sequential search may end after a look at the first
/// half of the samples.
fn run_stages(study: &Study, context: StageContext<'_>, observe: Observer<'_>) -> Result<Findings> {
    let StageContext { engines, journal, mut answering, decode, notes } = context;
    check_engines(study, engines)?;
    let begun = Instant::now();
    let mut scoring = begin(study, engines, journal)?;
    let rate = engines.scorer.measure_rate(&study.samples[0].tokens)?;
    let look = study.first_look();
    let stages = match &look {
        Some(look) => {
            let first = look.stages(engines, &mut scoring, &look.parts());
            [first, study.stages(engines, &mut scoring, &study.after_first_look(look))].concat()
        }
        None => study.stages(engines, &mut scoring, &study.parts()),
    };
    scoring.plan(stages, rate, observe)?;

    let mut run = |study| run_to_judgement(study, engines, &mut scoring, answering.as_mut(), observe);
    let looked = match &look {
        Some(look) => Some((look, run(look)?)).filter(|(look, run)| run.judged.is_settled(&look.choose_options())),
        None => None,
    };
    let unused = looked.as_ref().map_or(0, |(look, _)| study.samples.len() - look.samples.len());
    let (study, run) = match looked {
        Some(looked) => looked,
        None => (study, run(study)?),
    };
    let ToJudgement { scored, arbitration, excluded, judged } = run;
    let parts = study.parts();
    let mut seconds = 0.0;
    let mut after_scoring = || seconds = begun.elapsed().as_secs_f64();
    let inputs = ExplainInputs { study, parts: &parts, scored: &scored, judged: &judged, engines, decode };
    let explained = explain(inputs, &mut scoring, &mut after_scoring, observe)?;
    scoring.stages().end();
    // All work is done, so a break has no effect.
    let _ = observe(scoring.stages().progress());

    let samples = parts.selection.len() + parts.holdout.len() + parts.guard.iter().map(Vec::len).sum::<usize>();
    let EngineIdentity { dtype, instructions, threads } = engines.scorer.identity();
    let cost = Cost {
        layer_passes: scoring.passes.0.div_ceil(samples),
        layer_passes_naive: scoring.passes.1.div_ceil(samples),
        seconds,
        resumed: scoring.resumed,
        threads,
        dtype,
        instructions,
    };
    let results = StageResults { scored: &scored, arbitration, excluded, judged, explained, cost };
    Ok(Findings { unused, ..gather(study, &parts, results, &scoring, &notes) })
}

/// The results of all stages but the last.
struct ToJudgement {
    scored: Scored,
    arbitration: Option<Arbitration>,
    /// Number of variants that the guard excludes.
    excluded: usize,
    judged: Judged,
}

/// Runs all stages but the last.
fn run_to_judgement(
    study: &Study,
    engines: &Engines<'_>,
    scoring: &mut Scoring<'_>,
    mut answering: Option<&mut Answering<'_>>,
    observe: Observer<'_>,
) -> Result<ToJudgement> {
    let parts = study.parts();
    let scored = score(study, &parts, scoring, engines.probe, observe)?;
    let mut selected = select(study, &parts, &scored, scoring, answering.as_deref_mut(), observe)?;
    let (arbitration, excluded) = (selected.arbitration.take(), selected.excluded.len());
    let judged = judge_candidate(study, &parts, &scored, selected, scoring, answering, observe)?;
    Ok(ToJudgement { scored, arbitration, excluded, judged })
}

/// Checks that the engines can compute what the settings need, before anything is computed.
fn check_engines(study: &Study, engines: &Engines<'_>) -> Result<()> {
    let layers = engines.scorer.layers();
    if layers != study.layers() {
        let expected = study.layers();
        return Err(Error::Engine(format!("the engine's model has {layers} layers: expected {expected}")));
    }
    let families = study.families();
    if engines.probe.is_none() && families.contains(&Family::OutputK) {
        return Err(Error::Engine(
            "--families output-k needs the energies of updates: this engine has no probe".into(),
        ));
    }
    let scales = |family: &Family| matches!(family, Family::Strengths | Family::GlobalAlpha | Family::Ramp);
    let is_given = study.given.iter().any(|member| !member.variant.is_binary());
    if !engines.scorer.capabilities().strengths && (is_given || families.iter().any(scales)) {
        let needs = families.iter().find(|family| scales(family)).map_or("--gates", |family| family.name());
        return Err(Error::Engine(format!(
            "{needs} needs LoRA strengths other than 0 and 1: this engine has only these"
        )));
    }
    Ok(())
}

/// The scoring, with the scores of the journal.
fn begin<'a>(study: &Study, engines: &Engines<'a>, journal: Option<(Journal, Memory)>) -> Result<Scoring<'a>> {
    let parts = study.parts();
    let lines = |samples: &mut dyn Iterator<Item = &&Sample>, most: usize| -> HashSet<usize> {
        samples.take(most).map(|sample| sample.line).collect()
    };
    let capabilities = engines.scorer.capabilities();
    let lens_samples = if capabilities.lens { study.settings.lens_samples.get() } else { 0 };
    let token_samples = if capabilities.token_nll { study.settings.token_samples } else { 0 };
    let shown = Shown {
        lens: lines(&mut parts.raced.iter(), lens_samples),
        // Held-out samples first: they had no part in the choice.
        tokens: lines(&mut parts.holdout.iter().chain(&parts.raced), token_samples),
    };
    let sets = [
        (Set::data(Part::Selection), parts.selection.as_slice()),
        (Set::data(Part::Holdout), parts.holdout.as_slice()),
        (Set::guard(Part::Selection), parts.guard[0].as_slice()),
        (Set::guard(Part::Holdout), parts.guard[1].as_slice()),
    ];
    Scoring::new(engines.scorer, journal, shown, &sets)
}
