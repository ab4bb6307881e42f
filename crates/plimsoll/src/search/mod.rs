//! The main job: score the boundaries, choose one, judge it on held-out samples, and write what the answer calls for.
//!
//! Three steps, so that a bad input costs nobody any time: [`Search::open`] reads and checks everything and writes
//! nothing; [`Search::score`] does the long work and journals it; [`Search::finish`] makes the result and writes it.

mod competition;
mod controls;
mod effects;
mod journal;
mod metric;
mod scoring;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::num::NonZero;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::adapter::{self, Adapter, Estimate, LayerLora, Provenance, Source, TrimScores};
use crate::choose::race::Fate;
use crate::choose::{
    self, Choice, ChooseProblem, ControlGains, CutKind, Gain, Input, Interval, Margin, Part, Reason, Scores,
    Validation, Verdict, choose, choose_nested, cross_validate, judge,
};
use crate::data::{self, DataProblem, Dataset, Sample, Split, TemplateChoice, Turns};
use crate::efficiency::{self, Efficiency, Subject};
use crate::engine::{self, Embedded, EngineOptions, VariantScore};
use crate::error::{Error, Result};
use crate::files;
use crate::gates::{Facts, Family, Member, Place, Places, Projection, Variant, VariantSet};
use crate::journal::{self as journals, Fingerprint, Journal};
pub use crate::journal::{Existing, TOOL};
use crate::lens;
use crate::metrics::compare;
use crate::model::{Checkpoint, Precision};
use crate::report::{
    self, AdapterFacts, Arbitration, Control, Cost, DataFacts, Depth, DroppedBoundary, EffectKind, EffectMeasure,
    Effects, FrontPoint, GuardSummary, LensSummary, MetricSummary, MetricVariant, ModelFacts, RaceSummary, Rules,
    SampleTokens, ScoreSummary, SearchResult, VariantSummary, Warning,
};
use crate::stats::{mean_and_se, pareto, student_t_above};
use competition::{Adaptive, Class};
use controls::Planned;
use journal::{Known, Memory, Set};
use metric::{Answering, Chooser, Valued};
use scoring::{Scoring, Shown, Wanted};

/// Below these numbers of samples a warning stands beside the answer: intervals from fewer are too narrow to trust.
const FEW_SELECTION: usize = 20;
const FEW_HOLDOUT: usize = 10;

/// Fewest samples that are judged in folds.
const FEWEST: usize = 4;

/// Folds in which families compete.
const COMPETITION_FOLDS: usize = 10;

/// A variant that is worse on the guard's samples by a test with a p-value below this cannot be picked.
const GUARD_LEVEL: f64 = 0.05;

/// Tokens of a prompt's end that are shown beside its answer.
const PROMPT_TOKENS: usize = 96;

/// Below this share of agreeing resamples a warning stands beside the answer.
const STABLE_SHARE: f64 = 0.5;

const RESULT: &str = "result.json";
const REPORT: &str = "report.html";
const SCORES: &str = "scores.jsonl";
const TOKENS: &str = "tokens.jsonl";
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
    /// Which samples judge.
    pub judges: Judges,
    /// Which boundaries are scored on which samples.
    pub strategy: Strategy,
    /// Choose by a task's metric in place of the NLL: `TASK`, or `TASK:METRIC`.
    pub metric: Option<String>,
    /// With a metric, at most so many boundaries answer the selection samples.
    pub metric_candidates: usize,
    /// Families whose members are scored and compete; `bottom-k` is always among them.
    pub families: Vec<Family>,
    /// Gates of the user's own that compete too, as [`Variant::parse`] reads them.
    pub given: Vec<String>,
    /// Whether a cut is held against controls.
    pub controls: Controls,
    /// Measure the effects of layers, or of their modules too.
    pub effects: Option<Places>,
    /// Measure effects on at most so many selection samples.
    pub effect_samples: NonZero<usize>,
    /// Pairs of orders behind the Shapley values; none are estimated where there are none.
    pub order_pairs: usize,
    /// Samples on which the cut must not be worse: a JSONL file or a folder.
    pub guard: Option<PathBuf>,
    /// What counts as not worse there: a loss of less than this, in nats per answer token.
    pub guard_margin: f64,
    /// What counts as not worse than the full adapter.
    pub margin: Margin,
    /// Share of the adapter's bytes that what is picked may have at most.
    pub budget: Option<f64>,
    /// Tell what every answer token got, of at most so many samples.
    pub token_samples: usize,
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

/// Which samples judge what was picked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Judges {
    /// What suits their number, and what is searched.
    Suitable,
    /// This share of them, held out.
    HeldOut(f64),
    /// All of them, in so many folds.
    Folds(usize),
}

/// The share that is held out where nothing else is asked for.
const HOLDOUT: f64 = 0.33;

/// Whether a cut is held against controls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controls {
    /// It is.
    Scored,
    /// It is not.
    Omitted,
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

/// The JSON Schema of a line of `scores.jsonl`, as indented JSON. Ends with a line feed.
pub fn scores_schema() -> String {
    report::schema_of::<journal::Row>("Scores of one sample: a line of scores.jsonl")
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
    /// Folds in which all samples judge, in place of a part that is held out.
    folds: Option<usize>,
    guard: Option<Guard>,
    given: Vec<Member>,
    adapted: Vec<[bool; Projection::COUNT]>,
    magnitudes: Vec<[f64; Projection::COUNT]>,
    chooser: Option<Chooser>,
    hashes: Hashes,
}

/// Samples on which the cut must not be worse.
#[derive(Debug)]
struct Guard {
    dataset: Dataset,
    split: Split,
}

/// SHA-256 of what was read.
#[derive(Debug)]
struct Hashes {
    model: String,
    adapter: String,
    data: String,
}

/// All scores of a search, and what was picked by them.
#[derive(Clone, Debug)]
pub struct Scored {
    /// In the order of the lines.
    selection: Vec<Known>,
    holdout: Vec<Known>,
    guard: Option<[Vec<Known>; 2]>,
    /// All that was scored, family by family.
    members: Vec<Member>,
    /// What is judged.
    candidate: Member,
    arbitration: Option<Arbitration>,
    /// Variants that the guard keeps from being picked.
    excluded: HashSet<String>,
    controls: Vec<Planned>,
    /// Effects that needed runs of their own.
    measures: Vec<EffectMeasure>,
    /// What became of each boundary, where they were raced.
    fates: Option<Vec<Fate>>,
    /// What was generated comes to, where that chooses.
    valued: Option<Valued>,
    efficiency: Option<Efficiency>,
    cost: Cost,
}

/// How far scoring is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Multiply-adds that are done.
    pub done: u64,
    /// Multiply-adds in all, as far as they are known.
    pub total: u64,
    /// What is being done.
    pub stage: &'static str,
    /// Samples that are finished in this stage, of how many.
    pub samples: usize,
    /// How many there are.
    pub of: usize,
    /// Samples that were finished in all stages and are journalled.
    pub finished: usize,
    /// While answers are generated: how many there are, of how many.
    pub answers: Option<(usize, usize)>,
}

/// What will be scored of each sample that chooses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Families, with the number of their members; an adaptive one's are not known beforehand.
    pub families: Vec<(Family, usize)>,
    /// Different variants among them.
    pub variants: usize,
    /// Layers that are computed.
    pub passes: usize,
    /// Layers with one run for each variant.
    pub naive: usize,
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
        let load = |path: &Path| {
            let dataset = data::load(path, &tokenizer, &data_options)?;
            let outside = |sample: &&Sample| sample.tokens.iter().any(|&token| token as usize >= config.vocabulary);
            match dataset.samples.iter().find(outside) {
                Some(Sample { line, .. }) => {
                    let problem = DataProblem::Vocabulary { line: *line, vocabulary: config.vocabulary };
                    Err(Error::input(&dataset.file, problem))
                }
                None => Ok(dataset),
            }
        };
        let dataset = load(&options.data)?;
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
        let (split, folds) = judges(&options, dataset.samples.len())?;
        let guard = match &options.guard {
            None => None,
            Some(path) => {
                let dataset = load(path)?;
                let split = data::split(dataset.samples.len(), 0.5, options.seed)?;
                Some(Guard { dataset, split })
            }
        };
        let given = |spec: &String| {
            let variant = Variant::parse(spec, config.layers)?;
            Ok(Member { family: Family::Given, at: 0.0, label: variant.name(), variant })
        };
        let given = options.given.iter().map(given).collect::<Result<Vec<Member>>>()?;
        let adapted = lora.iter().map(|layer| Projection::ALL.map(|p| layer.get(p).is_some())).collect();
        let magnitudes = effects::magnitudes(&adapter, config.layers)?;
        let hashes = Hashes {
            model: checkpoint.sha256()?,
            adapter: files::sha256_of_files(&adapter.files())?,
            data: dataset.sha256.clone(),
        };
        Ok(Self {
            options,
            checkpoint,
            adapter,
            lora,
            dataset,
            split,
            folds,
            guard,
            given,
            adapted,
            magnitudes,
            chooser,
            hashes,
        })
    }

    /// How many samples will be scored.
    pub fn samples(&self) -> usize {
        self.dataset.samples.len()
    }

    /// What will be scored of each sample that chooses, as far as it does not depend on scores.
    pub fn plan(&self) -> Plan {
        // What activations would say of the order of layers is not known yet; its cost is that of another order.
        let norms = effects::joint_norms(&self.magnitudes);
        let set = VariantSet::new(self.members(&self.facts(&norms, &norms)));
        let families = self.families().into_iter().map(|family| (family, set.of(family).count())).collect();
        let (passes, naive) = engine::layer_passes(set.variants(), &self.adapted);
        Plan { families, variants: set.variants().len(), passes, naive }
    }

    /// Scores variants on samples. `observe` may stop the work by breaking; what is finished then stands in the output
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
        let [guarded, guarded_after] = self.guarded();
        // The order of the lines may mean something; a race, and what is measured on some samples only, must not.
        let order = data::race_order(selection.len(), self.options.seed);
        let raced: Vec<&Sample> = order.iter().map(|&index| selection[index]).collect();
        let some: Vec<&Sample> = raced.iter().copied().take(self.options.effect_samples.get()).collect();
        let lines = |samples: &mut dyn Iterator<Item = &&Sample>, most: usize| -> HashSet<usize> {
            samples.take(most).map(|sample| sample.line).collect()
        };
        let shown = Shown {
            lens: lines(&mut raced.iter(), self.options.lens_samples.get()),
            // Held-out samples first: they had no part in the choice.
            tokens: lines(&mut holdout.iter().chain(&raced), self.options.token_samples),
        };
        let (choosing, judging) = (Set::data(Part::Selection), Set::data(Part::Holdout));
        let sets = [
            (choosing, selection.as_slice()),
            (judging, holdout.as_slice()),
            (Set::guard(Part::Selection), guarded.as_slice()),
            (Set::guard(Part::Holdout), guarded_after.as_slice()),
        ];
        let begun = Instant::now();
        let mut scoring = Scoring::new(&engine, journal, shown, &sets)?;

        scoring.begin("outputs of layers");
        let norms = effects::joint_norms(&self.magnitudes);
        let energies = self.energies(&engine, &some, &mut scoring, observe)?;
        let output = effects::joint_energies(&energies);
        let facts = self.facts(&norms, &output);
        let mut set = VariantSet::new(self.members(&facts));
        let of_effects = match self.options.effects {
            Some(places) => effects::variants(&facts, places, self.options.order_pairs),
            None => Vec::new(),
        };

        // What is known to follow, for the time left.
        let boundaries = Variant::every_boundary(layers);
        let all = Wanted::TokensAndLens;
        let ahead = [
            scoring.work(Set::guard(Part::Selection), &guarded, set.variants(), Wanted::Scores),
            scoring.work(judging, &holdout, &boundaries, Wanted::Tokens),
            scoring.work(choosing, &some, &of_effects, Wanted::Scores),
        ];
        let later = |stage: usize| ahead[stage..].iter().sum::<u64>();

        scoring.begin("choosing");
        let fates = match self.options.strategy {
            Strategy::Exact => None,
            Strategy::Racing { error_rate } => {
                let race = scoring.race(&raced, layers, error_rate, later(0), observe)?;
                set = VariantSet::new(set.members().iter().filter(|m| m.family != Family::BottomK).cloned().collect());
                Some(race.fates().collect::<Vec<Fate>>())
            }
        };
        scoring.evaluate(choosing, &selection, set.variants(), all, later(0), observe)?;
        if fates.is_some() {
            set = VariantSet::new(self.members(&facts));
        }
        scoring.begin("guard");
        scoring.evaluate(Set::guard(Part::Selection), &guarded, set.variants(), Wanted::Scores, later(1), observe)?;

        let mut excluded = self.excluded(&scoring, &guarded, &set)?;
        scoring.begin("families");
        let left = self.left(fates.as_deref(), &excluded);
        if self.families().len() > 1 {
            // Whatever left the race: other families are held against the adapter as trained.
            let ends = [boundaries[0].clone(), boundaries[layers].clone()];
            scoring.evaluate(choosing, &selection, &ends, all, later(1), observe)?;
        }
        let mut members = set.members().to_vec();
        let folds = choose::folds(selection.len(), self.folds.unwrap_or(COMPETITION_FOLDS), self.options.seed);
        let mut classes = Vec::new();
        for family in self.families().into_iter().filter(|family| family.competes()) {
            if family.is_adaptive() {
                let mut adaptive = Adaptive::new(family, &facts, &folds);
                while let Some((sets, variants)) = adaptive.step() {
                    scoring.evaluate(choosing, &selection, &variants, Wanted::Scores, later(1), observe)?;
                    let row = |variant: &Variant| scoring.nll(choosing, &selection, &variant.spec());
                    adaptive.record(&sets, &variants.iter().map(row).collect::<Result<Vec<_>>>()?);
                }
                members.extend(adaptive.members());
                let nll = |variant: &Variant| scoring.nll(choosing, &selection, &variant.spec()).ok();
                let Some(class) = adaptive.class(&nll)? else { continue };
                let pick = class.pick().variant.clone();
                let guard = Set::guard(Part::Selection);
                scoring.evaluate(guard, &guarded, std::slice::from_ref(&pick), Wanted::Scores, later(1), observe)?;
                if self.is_worse_on_guard(&scoring, &guarded, &pick)? {
                    excluded.insert(pick.spec());
                } else {
                    classes.push(class);
                }
            } else {
                let is_allowed = |variant: &Variant| self.is_allowed(&excluded, variant);
                let competing = match family {
                    // Those that left a race may be known all the same, by another family.
                    Family::BottomK => {
                        set.of(family).filter(|member| left.contains(&(member.at as usize))).cloned().collect()
                    }
                    _ => competition::allowed(family, set.of(family).cloned(), &self.adapter, layers, &is_allowed),
                };
                let nll = |variant: &Variant| scoring.nll(choosing, &selection, &variant.spec()).ok();
                classes.extend(Class::new(family, competing, &nll, &folds)?);
            }
        }
        if classes.is_empty() {
            return Err(Error::Usage("--budget and --guard leave nothing to choose from: allow more".into()));
        }
        let (winner, arbitration) = competition::decide(&classes, folds_of(&folds), &self.adapter);
        let mut candidate = classes[winner].pick().clone();
        let arbitration = (classes.len() > 1).then_some(arbitration);

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
        // What the rule picks among boundaries is judged too, whichever family won.
        let by_nll = match self.family_pick(&classes, Family::BottomK).and_then(|member| member.variant.boundary()) {
            Some(boundary) => boundary,
            None => layers,
        };
        let mut by_metric = None;
        if let Some(answering) = &mut answering {
            let column = |k: &usize| scoring.nll(choosing, &selection, &boundaries[*k].spec());
            let columns = left.iter().map(column).collect::<Result<Vec<_>>>()?;
            let row = |sample: usize| columns.iter().map(|column| column[sample]).collect::<Vec<f64>>();
            let nll: Vec<Vec<f64>> = (0..selection.len()).map(row).collect();
            let candidates = metric::candidates(&nll, &left, by_nll, layers, self.options.metric_candidates);
            let progress = scoring.progress();
            let values = answering.values(Part::Selection, &selection, &candidates, progress, observe)?;
            let valued = Valued { candidates, selection: values, holdout: Vec::new() };
            let pick = valued.scores(Part::Selection, &valued.candidates)?.pick();
            let variant = boundaries[pick].clone();
            candidate = Member { family: Family::BottomK, at: pick as f64, label: variant.name(), variant };
            by_metric = Some((valued, pick));
        }

        // A metric's gains cannot be held against a control's NLL.
        let wants_controls = self.options.controls == Controls::Scored && self.chooser.is_none();
        let controls = if wants_controls && controls::is_cut(&facts, &candidate.variant) {
            scoring.begin("controls");
            let alphas = Family::GlobalAlpha.members(&facts);
            let variants: Vec<Variant> = alphas.iter().map(|member| member.variant.clone()).collect();
            scoring.evaluate(choosing, &selection, &variants, Wanted::Scores, later(1), observe)?;
            if set.of(Family::GlobalAlpha).next().is_none() {
                members.extend(alphas.iter().cloned());
            }
            let everyone: Vec<usize> = (0..selection.len()).collect();
            let nll = variants.iter().map(|variant| scoring.nll(choosing, &selection, &variant.spec()));
            let best = controls::best(&nll.collect::<Result<Vec<_>>>()?, &everyone);
            let tuned = Planned {
                family: Family::GlobalAlpha,
                label: alphas[best].label.clone(),
                // In folds each one tunes for itself.
                variants: if self.folds.is_some() { variants } else { vec![variants[best].clone()] },
            };
            let planned: Vec<Planned> =
                std::iter::once(tuned).chain(controls::planned(&facts, &candidate.variant)).collect();
            if self.folds.is_some() {
                let variants: Vec<Variant> = planned.iter().flat_map(|control| control.variants.clone()).collect();
                scoring.evaluate(choosing, &selection, &variants, Wanted::Scores, later(1), observe)?;
            }
            planned
        } else {
            Vec::new()
        };

        let ends = [&boundaries[0], &boundaries[by_nll], &candidate.variant, &boundaries[layers]];
        let mut judged: Vec<Variant> = match fates {
            None => boundaries.clone(),
            Some(_) => Vec::new(),
        };
        judged.extend(ends.into_iter().cloned());
        let picked = deduplicated(&judged);
        scoring.begin("judging");
        scoring.evaluate(judging, &holdout, &picked, Wanted::Tokens, later(2), observe)?;
        let variants: Vec<Variant> = controls.iter().flat_map(|control| control.variants.clone()).collect();
        scoring.evaluate(judging, &holdout, &variants, Wanted::Scores, later(2), observe)?;
        let shown = deduplicated(&[boundaries[0].clone(), candidate.variant.clone(), boundaries[layers].clone()]);
        scoring.evaluate(Set::guard(Part::Holdout), &guarded_after, &shown, Wanted::Scores, later(2), observe)?;
        let mut valued = None;
        if let (Some(answering), Some((found, pick))) = (&mut answering, by_metric) {
            let mut judged = vec![0, pick, layers];
            judged.dedup();
            let progress = scoring.progress();
            let holdout = answering.values(Part::Holdout, &holdout, &judged, progress, observe)?;
            valued = Some(Valued { holdout, ..found });
        }
        scoring.begin("effects");
        scoring.evaluate(choosing, &some, &of_effects, Wanted::Scores, 0, observe)?;
        let told: Vec<&Sample> = raced.iter().copied().filter(|sample| scoring.tells(sample)).collect();
        scoring.evaluate(choosing, &told, &shown, Wanted::Tokens, 0, observe)?;
        let seconds = begun.elapsed().as_secs_f64();

        let known_of_some: Vec<&Known> = some.iter().map(|sample| scoring.known(choosing, sample)).collect();
        let measures = self.measures(&facts, &known_of_some, &energies);
        let prompts: Vec<&[u32]> = selection.iter().map(|sample| &sample.tokens[..sample.answer[0]]).collect();
        let (checkpoint, adapter, scratch) = (&self.checkpoint, &self.adapter, &self.options.scratch);
        let subject = Subject { engine: &engine, checkpoint, adapter, scratch };
        let progress = scoring.progress();
        let ends: Vec<Variant> = ends.into_iter().cloned().collect();
        let efficiency = efficiency::measure(&subject, &deduplicated(&ends), &prompts, &mut || observe(progress))?;

        let take = |set, samples: &[&Sample]| -> Vec<Known> {
            samples.iter().map(|sample| scoring.known(set, sample).clone()).collect()
        };
        let samples = selection.len() + holdout.len() + guarded.len() + guarded_after.len();
        let cost = Cost {
            layer_passes: scoring.passes.0.div_ceil(samples),
            layer_passes_naive: scoring.passes.1.div_ceil(samples),
            seconds,
            resumed: scoring.resumed,
            threads: engine.threads(),
            dtype: precision.dtype.to_string(),
            instructions: precision.isa.to_string(),
        };
        let guard = self
            .guard
            .is_some()
            .then(|| [take(Set::guard(Part::Selection), &guarded), take(Set::guard(Part::Holdout), &guarded_after)]);
        Ok(Scored {
            selection: take(choosing, &selection),
            holdout: take(judging, &holdout),
            guard,
            members,
            candidate,
            arbitration,
            excluded,
            controls,
            measures,
            fates,
            valued,
            efficiency: Some(efficiency),
            cost,
        })
    }

    /// The families whose members are scored, from the simplest.
    fn families(&self) -> Vec<Family> {
        let mut families = self.options.families.clone();
        families.push(Family::BottomK);
        if !self.given.is_empty() {
            families.push(Family::Given);
        }
        families.sort_by_key(|family| family.simplicity());
        families.dedup();
        families
    }

    fn members(&self, facts: &Facts<'_>) -> Vec<Member> {
        let listed = self.families().into_iter().flat_map(|family| family.members(facts));
        listed.chain(self.given.iter().cloned()).collect()
    }

    fn facts<'a>(&'a self, magnitude: &'a [f64], output: &'a [f64]) -> Facts<'a> {
        Facts { adapted: &self.adapted, magnitude, output, seed: self.options.seed }
    }

    /// The guard's samples in two parts; none where there is no guard.
    fn guarded(&self) -> [Vec<&Sample>; 2] {
        let Some(Guard { dataset, split }) = &self.guard else { return [Vec::new(), Vec::new()] };
        [&split.selection, &split.holdout].map(|part| part.iter().map(|&index| &dataset.samples[index]).collect())
    }

    /// Energies of all updates on some samples.
    fn energies(
        &self,
        engine: &Embedded,
        samples: &[&Sample],
        scoring: &mut Scoring<'_>,
        observe: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Vec<[f64; Projection::COUNT]>> {
        let samples: Vec<Sample> = samples.iter().map(|&sample| sample.clone()).collect();
        let tokens: usize = samples.iter().map(|sample| sample.tokens.len()).sum();
        let mut left = engine.energy_work(&samples);
        let mut energies = engine.output_energy(&self.lora, &samples, &mut |work| {
            left = left.saturating_sub(work);
            observe(scoring.count(work, left))
        })?;
        energies.iter_mut().flatten().for_each(|energy| *energy /= tokens.max(1) as f64);
        Ok(energies)
    }

    /// Variants that the guard's samples show to be worse than the margin allows: by a one-sided paired t-test.
    fn excluded(&self, scoring: &Scoring<'_>, samples: &[&Sample], set: &VariantSet) -> Result<HashSet<String>> {
        let mut excluded = HashSet::new();
        for variant in set.variants() {
            if self.is_worse_on_guard(scoring, samples, variant)? {
                excluded.insert(variant.spec());
            }
        }
        Ok(excluded)
    }

    fn is_worse_on_guard(&self, scoring: &Scoring<'_>, samples: &[&Sample], variant: &Variant) -> Result<bool> {
        if samples.is_empty() {
            return Ok(false);
        }
        let at = Set::guard(Part::Selection);
        let full = scoring.nll(at, samples, &Variant::uniform(self.adapted.len(), 1.0).spec())?;
        let nll = scoring.nll(at, samples, &variant.spec())?;
        let losses: Vec<f64> = nll.iter().zip(&full).map(|(nll, full)| nll - full).collect();
        let (mean, se) = mean_and_se(&losses);
        let above = mean - self.options.guard_margin;
        // One loss for all samples has no error: it is what it is.
        let p = if se > 0.0 { student_t_above(above / se, losses.len() - 1) } else { 1.0 - f64::from(above > 0.0) };
        Ok(p < GUARD_LEVEL)
    }

    /// What the rule of one family picks, where it competes.
    fn family_pick<'a>(&self, classes: &'a [Class], family: Family) -> Option<&'a Member> {
        classes.iter().map(Class::pick).find(|member| member.family == family)
    }

    /// Measures of all layers on some samples: what needed runs, and what predicts it.
    fn measures(
        &self,
        facts: &Facts<'_>,
        samples: &[&Known],
        energies: &[[f64; Projection::COUNT]],
    ) -> Vec<EffectMeasure> {
        let measured = effects::Measured { facts, samples, seed: self.options.seed };
        let mut measures = Vec::new();
        if self.options.effects.is_some() {
            measures.extend(measured.single(EffectKind::LeaveOneOut));
            measures.extend(measured.single(EffectKind::OneIn));
            measures
                .extend((self.options.order_pairs > 0).then(|| measured.shapley(self.options.order_pairs)).flatten());
        }
        let plain = |kind, samples, joint, modules| effects::plain(kind, facts, samples, joint, modules);
        measures.push(plain(EffectKind::Magnitude, 0, facts.magnitude, &self.magnitudes));
        measures.push(plain(EffectKind::Output, samples.len(), facts.output, energies));
        measures
    }

    /// Chooses, and writes the result, the report, the scores and, where the verdict is to trim, the adapter.
    ///
    /// # Errors
    /// Scores that cannot be chosen from; an output folder that cannot be written.
    pub fn finish(&self, scored: &Scored) -> Result<Written> {
        let (result, candidate) = self.result(scored)?;
        let tokens = self.tokens(scored, &candidate)?;
        let out = &self.options.out;
        let adapter_out = out.join(ADAPTER);
        // An adapter of an earlier run; `check_out` made sure that it is one.
        if adapter_out.exists() {
            fs::remove_dir_all(&adapter_out).map_err(Error::write(&adapter_out))?;
        }
        let trim = result.choice.verdict == Verdict::Trim;
        if trim {
            adapter::write_trimmed(&self.adapter, &candidate, &provenance(&result), &adapter_out)?;
        }
        let guard = scored.guard.iter().flat_map(|[selection, holdout]| {
            [(Set::guard(Part::Selection), selection), (Set::guard(Part::Holdout), holdout)]
        });
        let data = [(Set::data(Part::Selection), &scored.selection), (Set::data(Part::Holdout), &scored.holdout)];
        let rows = data.into_iter().chain(guard);
        let rows = rows.flat_map(|(set, samples)| samples.iter().map(move |sample| sample.row(set)));
        files::write_file(&out.join(SCORES), journals::lines(rows)?.as_bytes())?;
        files::write_file(&out.join(TOKENS), journals::lines(tokens.iter())?.as_bytes())?;
        let report = out.join(REPORT);
        files::write_file(&report, report::html(&result, &tokens).as_bytes())?;
        files::write_file(&out.join(RESULT), report::json(&result)?.as_bytes())?;
        Journal::remove(&out.join(JOURNAL))?;
        Journal::remove(&out.join(ANSWERS))?;
        Ok(Written { result, report, adapter: trim.then_some(adapter_out) })
    }

    /// Judges the candidate and gathers all that a reader wants to know about it; also the candidate's gates.
    fn result(&self, scored: &Scored) -> Result<(SearchResult, Variant)> {
        let layers = self.checkpoint.config().layers;
        let options =
            choose::Options { seed: self.options.seed, margin: self.options.margin, ..choose::Options::default() };
        let curve = |which: usize| {
            let curves: Vec<_> = scored.selection.iter().filter_map(|sample| sample.lens.get(which)).collect();
            (lens::summarise(&curves, options.seed, options.resamples), curves.len())
        };
        let ((base, _), (full, samples)) = (curve(0), curve(1));
        let lens = LensSummary { base, full, samples };
        let full_curve: Vec<f64> = lens.full.iter().map(|point| point.probability).collect();
        let by_nll = self.choose_boundary(scored, &full_curve, &options)?;
        let (mut choice, by_metric) = match (&scored.valued, &self.chooser) {
            (Some(valued), Some(chooser)) => {
                let (selection, holdout) = (
                    valued.scores(Part::Selection, &valued.candidates)?,
                    valued.scores(Part::Holdout, &valued.judged())?,
                );
                let input = Input::of(selection, holdout, &full_curve);
                let input = input.map_err(|problem| Error::Internal(problem.to_string()))?.with_whole(self.whole());
                let by_metric = choose(&input, &options);
                // Where it cannot tell the full adapter from the base model, it cannot choose between cuts either.
                let Gain { low, high, .. } = by_metric.adapter_gain;
                let decided = low > 0.0 || high < 0.0;
                let choice = if decided { by_metric } else { by_nll.clone() };
                (choice, Some(self.metric_summary(chooser, valued, by_nll, decided)))
            }
            _ => (self.judged(scored, by_nll, &options)?, None),
        };
        let undecided = by_metric.as_ref().filter(|metric| !metric.decided);
        let candidate = match undecided {
            // The NLL chose after all.
            Some(metric) => {
                let k = metric.choice_by_nll.one_se;
                let variant = Variant::bottom_k(layers, k);
                Member { family: Family::BottomK, at: k as f64, label: variant.name(), variant }
            }
            None => scored.candidate.clone(),
        };
        let guard = self.guard_summary(scored, &options)?;
        if choice.verdict == Verdict::Trim && guard.as_ref().is_some_and(|guard| !guard.is_held) {
            (choice.verdict, choice.reason, choice.layers_kept) = (Verdict::KeepFull, Reason::GuardNotHeld, layers);
        }
        let kept = match choice.verdict {
            Verdict::Trim => candidate.variant.clone(),
            Verdict::KeepFull => Variant::uniform(layers, 1.0),
            Verdict::UseBase => Variant::uniform(layers, 0.0),
        };
        let effects = self.effects(scored, &lens);
        let variants: Vec<VariantSummary> = self.variants(scored);
        let result = SearchResult {
            schema: 1,
            tool: TOOL.into(),
            command: self.options.command.clone(),
            seed: self.options.seed,
            model: ModelFacts::of(&self.checkpoint, &self.options.model, &self.hashes.model),
            adapter: AdapterFacts::of(&self.adapter, &self.options.adapter, &self.hashes.adapter, &kept),
            data: self.data_facts(scored),
            front: front(&variants),
            variants,
            race: self.race_summary(scored),
            lens,
            rules: Rules::from(&options),
            warnings: self.warnings(&choice, by_metric.as_ref(), &candidate),
            candidate: Some(competition::candidate(&candidate, &self.adapter)),
            arbitration: scored.arbitration.clone(),
            controls: self.controls(scored, &options)?,
            effects: Some(effects),
            guard,
            choice,
            metric: by_metric,
            efficiency: scored.efficiency.clone(),
            cost: scored.cost.clone(),
        };
        Ok((result, candidate.variant))
    }

    /// Above the last layer with LoRA a boundary drops nothing.
    fn whole(&self) -> usize {
        self.adapter.layers().last().map_or(self.adapted.len(), |last| last + 1)
    }

    /// Whether a variant may be picked: within the budget, and not shown to be worse on the guard's samples.
    fn is_allowed(&self, excluded: &HashSet<String>, variant: &Variant) -> bool {
        let most = |share: f64| share * self.adapter.bytes() as f64;
        let has_room = self.options.budget.is_none_or(|share| self.adapter.bytes_kept(variant) as f64 <= most(share));
        has_room && !excluded.contains(&variant.spec())
    }

    /// The boundaries that can be picked: raced to the end, where there was a race, and allowed.
    fn left(&self, fates: Option<&[Fate]>, excluded: &HashSet<String>) -> Vec<usize> {
        let layers = self.adapted.len();
        let is_raced = |k: usize| fates.is_none_or(|fates| fates[k] == Fate::Raced);
        (0..=layers).filter(|&k| is_raced(k) && self.is_allowed(excluded, &Variant::bottom_k(layers, k))).collect()
    }

    /// What the rules say of the boundaries, judged as if nothing else competed.
    fn choose_boundary(&self, scored: &Scored, curve: &[f64], options: &choose::Options) -> Result<Choice> {
        let layers = self.adapted.len();
        let complete = |samples: &[Known], k: usize| {
            let gates = Variant::bottom_k(layers, k).spec();
            samples.iter().all(|sample| sample.scores.contains_key(&gates))
        };
        let boundaries = |samples: &[Known]| (0..=layers).filter(|&k| complete(samples, k)).collect::<Vec<usize>>();
        let internal = |problem: ChooseProblem| Error::Internal(problem.to_string());
        let mut picks = self.left(scored.fates.as_deref(), &scored.excluded);
        if let Some(folds) = self.folds {
            let scores = self.scores(Part::Selection, &scored.selection, &picks)?;
            return choose_nested(&scores, curve, self.whole(), folds, options).map_err(internal);
        }
        if picks.is_empty() {
            picks.push(layers);
        }
        let selection = self.scores(Part::Selection, &scored.selection, &picks)?;
        let holdout = self.scores(Part::Holdout, &scored.holdout, &boundaries(&scored.holdout))?;
        let input = Input::of(selection, holdout, curve).map_err(internal)?;
        Ok(choose(&input.with_whole(self.whole()), options))
    }

    /// The choice with the judgement on the candidate, where that is of another family.
    fn judged(&self, scored: &Scored, by_boundary: Choice, options: &choose::Options) -> Result<Choice> {
        let layers = self.adapted.len();
        let candidate = &scored.candidate.variant;
        if *candidate == Variant::bottom_k(layers, by_boundary.one_se) {
            return Ok(by_boundary);
        }
        let facts = self.facts(&[], &[]);
        let gate = |place: &Place| place.module.map(|module| candidate.gates[place.layer].get(module));
        let kind = if facts.places(Places::Modules).all(|place| gate(&place) == Some(1.0)) {
            CutKind::Whole
        } else if facts.places(Places::Modules).all(|place| gate(&place) == Some(0.0)) {
            CutKind::Nothing
        } else if self.adapter.bytes_kept(candidate) == self.adapter.bytes() {
            CutKind::Changed
        } else {
            CutKind::Cut
        };
        let [base, full, cut] = [&Variant::uniform(layers, 0.0), &Variant::uniform(layers, 1.0), candidate]
            .map(|variant| nll(&scored.holdout, variant));
        let judgement = judge(&base?, &full?, &cut?, kind, options);
        Ok(by_boundary.with(&judgement, candidate.layers_kept()))
    }

    /// What every family's members scored.
    fn variants(&self, scored: &Scored) -> Vec<VariantSummary> {
        let complete = |samples: &[Known], gates: &str| {
            (!samples.is_empty() && samples.iter().all(|sample| sample.scores.contains_key(gates)))
                .then(|| summary(samples, gates))
        };
        let row = |member: &Member| {
            let gates = member.variant.spec();
            let k = member.at as usize;
            let of_race = |fates: &Vec<Fate>| member.family == Family::BottomK && fates[k] != Fate::Skipped;
            let has_left = scored.fates.as_ref().is_some_and(of_race);
            let is_dropped =
                scored.fates.as_ref().is_some_and(|fates| member.family == Family::BottomK && fates[k] != Fate::Raced);
            let selection = complete(&scored.selection, &gates).filter(|_| !is_dropped);
            let holdout = complete(&scored.holdout, &gates);
            let guard = scored.guard.as_ref().and_then(|[selection, _]| complete(selection, &gates));
            (selection.is_some() || holdout.is_some() || has_left).then(|| VariantSummary {
                family: member.family,
                label: member.label.clone(),
                at: member.at,
                layers_kept: member.variant.layers_kept(),
                bytes: self.adapter.bytes_kept(&member.variant),
                gates,
                selection,
                holdout,
                guard,
            })
        };
        scored.members.iter().filter_map(row).collect()
    }

    /// The cut against its controls, on samples that picked neither. In folds each one's own pick stands for the cut, and
    /// its own factor for the tuned one; random layers are as many as the pick on all samples keeps.
    fn controls(&self, scored: &Scored, options: &choose::Options) -> Result<Option<report::Controls>> {
        if scored.controls.is_empty() {
            return Ok(None);
        }
        let layers = self.adapted.len();
        let full = Variant::uniform(layers, 1.0);
        let (full, cut, columns) = match self.folds {
            None => {
                let of = |variant: &Variant| nll(&scored.holdout, variant);
                let column = |control: &Planned| {
                    let columns = control.variants.iter().map(of).collect::<Result<Vec<_>>>()?;
                    Ok(controls::mean_columns(&columns))
                };
                let columns = scored.controls.iter().map(column).collect::<Result<Vec<Vec<f64>>>>()?;
                (of(&full)?, of(&scored.candidate.variant)?, columns)
            }
            Some(folds) => {
                let of = |variant: &Variant| nll(&scored.selection, variant);
                let folds = choose::folds(scored.selection.len(), folds, self.options.seed);
                let column = |control: &Planned| {
                    let columns = control.variants.iter().map(of).collect::<Result<Vec<_>>>()?;
                    Ok(match control.family {
                        Family::GlobalAlpha => controls::tuned_elsewhere(&columns, &folds),
                        _ => controls::mean_columns(&columns),
                    })
                };
                let columns = scored.controls.iter().map(column).collect::<Result<Vec<Vec<f64>>>>()?;
                let boundaries: Vec<usize> = (0..=layers).collect();
                let scores = self.scores(Part::Selection, &scored.selection, &boundaries)?;
                (of(&full)?, cross_validate(&scores, &folds), columns)
            }
        };
        let (gains, is_depth) = choose::controls(&full, &cut, &columns, options);
        let row = |(control, gains): (&Planned, ControlGains)| {
            let ControlGains { over_full, cut_over, p_holm } = gains;
            let gates = control.variants.iter().map(Variant::spec).collect();
            Control { family: control.family, label: control.label.clone(), gates, over_full, cut_over, p_holm }
        };
        let rows = scored.controls.iter().zip(gains).map(row).collect();
        Ok(Some(report::Controls { rows, depth: if is_depth { Depth::Shown } else { Depth::NotShown } }))
    }

    /// All measures of the layers, and how the cheap ones agree with the measured ones.
    fn effects(&self, scored: &Scored, lens: &LensSummary) -> Effects {
        let facts = self.facts(&[], &[]);
        let known: Vec<&Known> = scored.selection.iter().collect();
        let measured = effects::Measured { facts: &facts, samples: &known, seed: self.options.seed };
        let mut measures = scored.measures.clone();
        measures.extend(measured.increments());
        measures.extend(effects::lens(&facts, &lens.base, &lens.full, lens.samples));
        measures.sort_by_key(|measure| measure.kind);
        let agreement = effects::agreement(&measures, self.options.seed);
        Effects { measures, agreement }
    }

    /// What the candidate does to the guard's samples.
    fn guard_summary(&self, scored: &Scored, options: &choose::Options) -> Result<Option<GuardSummary>> {
        let (Some([_, judging]), Some(Guard { dataset, split })) = (&scored.guard, &self.guard) else {
            return Ok(None);
        };
        let layers = self.adapted.len();
        let [base, full, cut] =
            [&Variant::uniform(layers, 0.0), &Variant::uniform(layers, 1.0), &scored.candidate.variant]
                .map(|variant| nll(judging, variant));
        let (base, full, cut) = (base?, full?, cut?);
        let gain = choose::paired_gain(&full, &cut, options);
        Ok(Some(GuardSummary {
            path: self.options.guard.as_deref().unwrap_or(Path::new("")).display().to_string(),
            sha256: dataset.sha256.clone(),
            selection: split.selection.len(),
            holdout: split.holdout.len(),
            margin: self.options.guard_margin,
            excluded: scored.excluded.len(),
            adapter_gain: choose::paired_gain(&base, &full, options),
            gain,
            is_held: gain.low > -self.options.guard_margin,
        }))
    }

    /// Token by token, what the answers of some samples got.
    fn tokens(&self, scored: &Scored, candidate: &Variant) -> Result<Vec<SampleTokens>> {
        let tokenizer = self.checkpoint.tokenizer()?;
        let layers = self.adapted.len();
        let [base, full] = [0.0, 1.0].map(|gate| Variant::uniform(layers, gate).spec());
        let cut = candidate.spec();
        let is_end = [&base, &full].contains(&&cut);
        let text = |tokens: &[u32]| tokenizer.decode(tokens).unwrap_or_default();
        let known = scored.holdout.iter().chain(&scored.selection);
        let samples = self.part(Part::Holdout).chain(self.part(Part::Selection));
        let parts = std::iter::repeat_n(Part::Holdout, scored.holdout.len());
        let parts = parts.chain(std::iter::repeat_n(Part::Selection, scored.selection.len()));
        let told = known.zip(samples).zip(parts).filter_map(|((known, sample), part)| {
            let of = |gates: &String| known.token_nll.get(gates).cloned();
            let candidate = if is_end { Vec::new() } else { of(&cut)? };
            let first = sample.answer[0];
            Some(SampleTokens {
                line: sample.line,
                part,
                prompt: text(&sample.tokens[first.saturating_sub(PROMPT_TOKENS)..first]),
                tokens: sample.answer.iter().map(|&at| text(&sample.tokens[at..=at])).collect(),
                base: of(&base)?,
                full: of(&full)?,
                candidate,
            })
        });
        Ok(told.collect())
    }

    /// The NLL of every sample at some boundaries.
    fn scores(&self, part: Part, samples: &[Known], boundaries: &[usize]) -> Result<Scores> {
        let gates: Vec<String> = boundaries.iter().map(|&k| Variant::bottom_k(self.adapted.len(), k).spec()).collect();
        let row = |sample: &Known| gates.iter().filter_map(|gates| sample.mean_nll(gates)).collect::<Vec<f64>>();
        let rows: Vec<Vec<f64>> = samples.iter().map(row).collect();
        Scores::new(part, boundaries, &rows).map_err(|problem| Error::Internal(problem.to_string()))
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

    fn warnings(&self, choice: &Choice, metric: Option<&MetricSummary>, candidate: &Member) -> Vec<Warning> {
        let (selection, holdout) = (self.split.selection.len(), choice.gain.samples);
        let share = choice.bootstrap[choice.one_se];
        let proven = choice.adapter_gain.mean > 0.0 && choice.adapter_gain.p < choose::Options::default().alpha;
        [
            (selection < FEW_SELECTION || holdout < FEW_HOLDOUT).then_some(Warning::FewSamples { selection, holdout }),
            (!self.dataset.skipped.is_empty()).then_some(Warning::Skipped {
                samples: self.dataset.skipped.len(),
                context: self.checkpoint.config().context,
            }),
            metric.is_some_and(|metric| !metric.decided).then_some(Warning::MetricUndecided),
            // The resamples pick among boundaries.
            (share < STABLE_SHARE && candidate.family == Family::BottomK).then_some(Warning::Unstable { share }),
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
        let guarded = self.guarded().map(|part| -> Vec<_> {
            part.iter().map(|sample| (sample.line, &sample.tokens, &sample.answer)).collect()
        });
        let samples = serde_json::to_vec(&(samples, guarded)).map_err(|error| Error::Internal(error.to_string()))?;
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
    let is_done = holds(&[RESULT]) || (holds(&[REPORT, SCORES, TOKENS, ADAPTER]) && !holds(&[JOURNAL]));
    if is_done && options.existing == Existing::Refuse {
        return refuse("holds results already: give another folder, or --force to replace them");
    }
    files::check_writable(out).or_else(|reason| refuse(&format!("cannot write there: {reason}")))
}

/// The mean NLL of every sample under a variant that all were scored under.
fn nll(samples: &[Known], variant: &Variant) -> Result<Vec<f64>> {
    let gates = variant.spec();
    let missing = || Error::Internal(format!("not every sample was scored under `{gates}`"));
    samples.iter().map(|sample| sample.mean_nll(&gates).ok_or_else(missing)).collect()
}

/// Each variant once, in the order in which it comes first.
fn deduplicated(variants: &[Variant]) -> Vec<Variant> {
    let mut seen = HashSet::new();
    variants.iter().filter(|variant| seen.insert(variant.spec())).cloned().collect()
}

/// Which samples judge: a part that is held out, or all of them in folds.
fn judges(options: &SearchOptions, samples: usize) -> Result<(Split, Option<usize>)> {
    let is_rich = options.families.iter().any(|family| *family != Family::BottomK) || !options.given.is_empty();
    let is_bounded = options.guard.is_some() || options.budget.is_some();
    if options.metric.is_some() && (is_rich || is_bounded) {
        return Err(Error::Usage(
            "--metric chooses among boundaries: it does not go with --families, --gates, --guard or --budget".into(),
        ));
    }
    // What the race drops may be all that is allowed.
    if options.strategy != Strategy::Exact && is_bounded {
        return Err(Error::Usage("--search racing does not go with --guard or --budget".into()));
    }
    // Greedy families stop where the NLL rises, long before most of the adapter is gone.
    if let (Some(_), Some(family)) = (options.budget, options.families.iter().find(|family| family.is_adaptive())) {
        return Err(Error::Usage(format!(
            "--budget does not go with --families {family}: use families that are listed beforehand, such as magnitude-k"
        )));
    }
    // What is picked by more than the NLL of boundaries on all samples has no fold to be picked on again.
    let needs_part = [
        (options.strategy != Strategy::Exact, "--search racing"),
        (options.metric.is_some(), "--metric"),
        (options.families.iter().any(|family| *family != Family::BottomK), "--families other than bottom-k"),
        (!options.given.is_empty(), "--gates"),
        (options.guard.is_some(), "--guard"),
        (options.budget.is_some(), "--budget"),
    ];
    let needs_part = needs_part.iter().find(|(needs, _)| *needs).map(|(_, what)| *what);
    let share = if let Judges::HeldOut(share) = options.judges { share } else { HOLDOUT };
    let folds = match (options.judges, needs_part) {
        (Judges::HeldOut(_), _) | (Judges::Suitable, Some(_)) => None,
        (Judges::Suitable, None) => match choose::validation_for(samples) {
            Validation::Nested { folds } => Some(folds),
            Validation::Holdout => None,
        },
        (Judges::Folds(_), Some(what)) => {
            return Err(Error::Usage(format!("--folds does not go with {what}: hold a part out with --holdout")));
        }
        (Judges::Folds(folds), None) => Some(folds),
    };
    match folds {
        None => {
            let split = data::split(samples, share, options.seed)?;
            match split.selection.len() {
                selection if is_rich && selection < FEWEST => {
                    Err(Error::Usage(format!("{selection} samples to choose on: families compete on {FEWEST} or more")))
                }
                _ => Ok((split, None)),
            }
        }
        Some(folds) if folds < 2 || folds > samples || samples < FEWEST => Err(Error::Usage(format!(
            "samples: {samples}, to be judged in {folds} folds: expected at least {FEWEST} samples, and from 2 folds to one for \
             each sample"
        ))),
        Some(folds) => Ok((Split { selection: (0..samples).collect(), holdout: Vec::new() }, Some(folds))),
    }
}

/// How many folds there are.
fn folds_of(folds: &[usize]) -> usize {
    folds.iter().max().map_or(0, |last| last + 1)
}

/// Everything that was scored, with what no other variant beats.
fn front(variants: &[VariantSummary]) -> Vec<FrontPoint> {
    let mut seen = HashSet::new();
    // With a guard, what was not scored on its samples cannot be compared.
    let has_guard = variants.iter().any(|variant| variant.guard.is_some());
    let is_comparable = |variant: &&VariantSummary| {
        variant.selection.is_some() && variant.guard.is_some() == has_guard && seen.insert(variant.gates.clone())
    };
    let scored: Vec<&VariantSummary> = variants.iter().filter(is_comparable).collect();
    let objectives = |variant: &&VariantSummary| {
        let mut objectives = vec![variant.selection().mean_nll, variant.bytes as f64];
        objectives.extend(variant.guard.map(|guard| guard.mean_nll));
        objectives
    };
    let points: Vec<Vec<f64>> = scored.iter().map(objectives).collect();
    let is_best = pareto(&points);
    let point = |(variant, is_on_front): (&&VariantSummary, bool)| FrontPoint {
        family: variant.family,
        label: variant.label.clone(),
        gates: variant.gates.clone(),
        nll: variant.selection().mean_nll,
        guard: variant.guard.map(|guard| guard.mean_nll),
        bytes: variant.bytes,
        is_on_front,
    };
    scored.iter().zip(is_best).map(point).collect()
}

/// Means over samples that are all scored under some gates.
fn summary(samples: &[Known], gates: &str) -> ScoreSummary {
    let of = |value: &dyn Fn(&Known, &VariantScore) -> f64| -> (f64, f64) {
        let values = samples.iter().filter_map(|sample| Some(value(sample, sample.scores.get(gates)?)));
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
