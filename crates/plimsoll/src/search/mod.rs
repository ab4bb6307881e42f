//! The main job: score the boundaries, choose one, judge it on held-out samples, and write what the answer calls for.
//!
//! Three steps, so that a bad input costs nobody any time: [`Search::open`] reads and checks everything and writes
//! nothing; [`Search::score`] does the long work and journals it; [`Search::finish`] makes the result and writes it.

mod competition;
mod controls;
mod effects;
mod journal;
mod metric;
mod outcome;
mod plan;
mod progress;
mod scoring;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::num::NonZero;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::adapter::{self, Adapter, Bound, Ends, OtherBase};
use crate::choose::race::{self, Fate};
use crate::choose::{self, Margin, Part, Validation, Verdict};
use crate::data::{self, DataProblem, Dataset, Ending, LongSamples, Sample, Split, TemplateChoice, Turns};
use crate::efficiency::{self, Efficiency, Subject};
use crate::engine::{self, Embedded, EngineOptions};
use crate::error::{Error, Result};
use crate::eval::Place;
use crate::files;
use crate::gates::{Facts, Family, Member, Places, Projection, Variant, VariantSet};
use crate::journal::{self as journals, Fingerprint, Journal};
pub use crate::journal::{Existing, TOOL};
use crate::model::{Checkpoint, Precision};
use crate::report::{self, AnswerEnding, Arbitration, Cost, EffectKind, EffectMeasure, SearchResult, Warning};
use crate::stats::{mean_and_se, student_t_above};
use competition::{Adaptive, Class};
use controls::Planned;
use journal::{Known, Memory, Set};
use metric::{Answering, Chooser, Valued};
use outcome::provenance;
use plan::Parts;
use scoring::{Scoring, Shown, Wanted};

/// Fewest samples that are judged in folds.
const FEWEST: usize = 4;

/// Folds in which families compete.
const COMPETITION_FOLDS: usize = 10;

/// A variant that is worse on the guard's samples by a test with a p-value below this cannot be picked.
const GUARD_LEVEL: f64 = 0.05;

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
    /// The adapter: a PEFT folder, or one of mlx-lm's.
    pub adapter: PathBuf,
    /// What becomes of LoRA on `embed_tokens` and `lm_head`: without a word, an adapter that has any is refused.
    pub ends: Option<Ends>,
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
    /// Longest sample that is scored, in tokens; where it is `None`, as long as the model's context.
    pub max_length: Option<NonZero<usize>>,
    /// What becomes of longer ones.
    pub long: LongSamples,
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
    /// Gates of the user's own that compete too, as [`Variant::parse_for`] reads them.
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
    lora: Bound,
    dataset: Dataset,
    split: Split,
    /// Folds in which all samples judge, in place of a part that is held out.
    folds: Option<usize>,
    guard: Option<Guard>,
    given: Vec<Member>,
    adapted: Vec<[bool; Projection::COUNT]>,
    magnitudes: Vec<[f64; Projection::COUNT]>,
    chooser: Option<Chooser>,
    endings: Vec<AnswerEnding>,
    hashes: Hashes,
    /// What the number of samples says before anything is scored.
    forewarnings: Vec<Warning>,
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

/// How far scoring is. `done` never goes back, `total` is known from the first report on and never changes, and `done` reaches
/// it only at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Progress {
    /// Multiply-adds that are done, or that were planned and turned out not to be needed.
    pub done: u64,
    /// Multiply-adds in all: an upper bound.
    pub total: u64,
    /// Multiply-adds that were computed, for a speed.
    pub spent: u64,
    /// Multiply-adds a second, measured for a moment before the work.
    pub rate: f64,
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
        let adapter = Adapter::open(&options.adapter)?.with_ends(options.ends);
        let config = checkpoint.config();
        let lora = checkpoint.bind(Some(&adapter))?;
        let tokenizer = checkpoint.tokenizer()?;
        let data_options = data::Options {
            template: options.template.clone(),
            turns: options.turns,
            max_samples: options.max_samples,
            seed: options.seed,
            max_length: longest(&options, &checkpoint),
            long: options.long,
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
        if let Some(chooser) = &chooser {
            if options.turns == Turns::All {
                return Err(Error::Usage(
                    "--metric answers the last turn of a chat: it does not go with --turns all".into(),
                ));
            }
            let room = config.context - 1;
            // A text that is all answer has nothing before it but a BOS.
            let mut prompts = dataset.samples.iter().zip(&dataset.prompts);
            if let Some((Sample { line, .. }, prompt)) = prompts.find(|(_, p)| p.len() < 2 || p.len() > room) {
                let problem = DataProblem::Unanswerable { line: *line, tokens: prompt.len(), room };
                return Err(Error::input(&dataset.file, problem));
            }
            for (sample, answer) in dataset.samples.iter().zip(&dataset.answers) {
                let checked = chooser.measured.check(Place::Line(sample.line), answer);
                checked.map_err(|problem| Error::input(&dataset.file, problem))?;
            }
        }
        let samples = dataset.samples.len();
        let (split, folds) = judges(&options, samples)?;
        let (options, split, folds, not_raced) = match options.strategy {
            Strategy::Racing { .. } if split.selection.len() < race::FEWEST => {
                let warning = Warning::NotRaced { selection: split.selection.len(), needed: race::FEWEST };
                let options = SearchOptions { strategy: Strategy::Exact, ..options };
                let (split, folds) = judges(&options, samples)?;
                (options, split, folds, Some(warning))
            }
            _ => (options, split, folds, None),
        };
        let forewarnings = not_raced.into_iter().chain(cannot_show(&options, &split, folds)).collect();
        let guard = match &options.guard {
            None => None,
            Some(path) => {
                let dataset = load(path)?;
                let split = data::split(dataset.samples.len(), 0.5, options.seed)?;
                Some(Guard { dataset, split })
            }
        };
        let places = adapter.places();
        let given = |spec: &String| {
            let variant = Variant::parse_for(spec, config.layers, &places)?;
            Ok(Member { family: Family::Given, at: 0.0, label: variant.name(), variant })
        };
        let given = options.given.iter().map(given).collect::<Result<Vec<Member>>>()?;
        let adapted = lora.iter().map(|layer| Projection::ALL.map(|p| layer.get(p).is_some())).collect();
        let magnitudes = effects::magnitudes(&adapter, config.layers)?;
        let ending = |(ending, samples): &(Ending, usize)| {
            let token = match ending {
                Ending::Token(id) => Some(tokenizer.decode(&[*id]).unwrap_or_default()),
                Ending::Open => None,
            };
            AnswerEnding { token, samples: *samples }
        };
        let endings = dataset.endings.iter().map(ending).collect();
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
            endings,
            hashes,
            forewarnings,
        })
    }

    /// What follows from the number of samples alone, and so is known before anything is scored.
    pub fn forewarnings(&self) -> &[Warning] {
        &self.forewarnings
    }

    /// Whether the base model's name says that it is another one than the adapter was trained on.
    pub fn other_base(&self) -> Option<OtherBase> {
        self.checkpoint.other_base(&self.adapter)
    }

    /// How many samples will be scored.
    pub fn samples(&self) -> usize {
        self.dataset.samples.len()
    }

    /// The samples, and those of the guard, with what became of those that are too long.
    pub fn datasets(&self) -> impl Iterator<Item = &Dataset> {
        std::iter::once(&self.dataset).chain(self.guard.as_ref().map(|guard| &guard.dataset))
    }

    /// The longest sample that is scored, in tokens.
    pub fn max_length(&self) -> usize {
        longest(&self.options, &self.checkpoint)
    }

    /// What will be scored of each sample that chooses, as far as it does not depend on scores.
    pub fn plan(&self) -> Plan {
        let (norms, mut reversed) = (effects::joint_norms(&self.magnitudes), Vec::new());
        let set = VariantSet::new(self.members(&self.facts_before(&norms, &mut reversed)));
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

        let parts = Parts {
            selection: selection.clone(),
            holdout: holdout.clone(),
            guarded: [guarded.clone(), guarded_after.clone()],
            some: some.clone(),
        };
        let rate = engine.measure_rate(&selection[0].tokens);
        scoring.plan(self.stages(&engine, &scoring, &parts), rate, observe)?;

        scoring.begin(plan::OUTPUTS);
        let norms = effects::joint_norms(&self.magnitudes);
        let energies = self.energies(&engine, &some, &mut scoring, observe)?;
        let output = effects::joint_energies(&energies);
        let facts = self.facts(&norms, &output);
        let set = VariantSet::new(self.members(&facts));
        let boundaries = Variant::every_boundary(layers);
        let all = Wanted::TokensAndLens;

        scoring.begin(plan::CHOOSING);
        let fates = match self.options.strategy {
            Strategy::Exact => {
                scoring.evaluate(choosing, &selection, set.variants(), all, observe)?;
                None
            }
            Strategy::Racing { error_rate } => {
                let race = scoring.race(&raced, layers, error_rate, observe)?;
                Some(race.fates().collect::<Vec<Fate>>())
            }
        };
        scoring.begin(plan::GUARD);
        scoring.evaluate(Set::guard(Part::Selection), &guarded, set.variants(), Wanted::Scores, observe)?;

        let mut excluded = self.excluded(&scoring, &guarded, &set)?;
        scoring.begin(plan::FAMILIES);
        if fates.is_some() {
            let others = set.members().iter().filter(|member| member.family != Family::BottomK).cloned();
            scoring.evaluate(choosing, &selection, VariantSet::new(others.collect()).variants(), all, observe)?;
        }
        let left = self.left(fates.as_deref(), &excluded);
        if self.families().len() > 1 {
            // Whatever left the race: other families are held against the adapter as trained.
            let ends = [boundaries[0].clone(), boundaries[layers].clone()];
            scoring.evaluate(choosing, &selection, &ends, all, observe)?;
        }
        let mut members = set.members().to_vec();
        let folds = choose::folds(selection.len(), self.folds.unwrap_or(COMPETITION_FOLDS), self.options.seed);
        let mut classes = Vec::new();
        for family in self.families().into_iter().filter(|family| family.competes()) {
            if family.is_adaptive() {
                scoring.begin(family.name());
                let mut adaptive = Adaptive::new(family, &facts, &folds);
                let alone = scoring.work_alone(&selection);
                while let Some((sets, variants)) = adaptive.step() {
                    scoring.stages().need_at_most(adaptive.most_left() as u64 * alone);
                    scoring.evaluate_round(choosing, &selection, &variants, Wanted::Scores, observe)?;
                    let row = |variant: &Variant| scoring.nll(choosing, &selection, &variant.spec());
                    adaptive.record(&sets, &variants.iter().map(row).collect::<Result<Vec<_>>>()?);
                }
                members.extend(adaptive.members());
                let nll = |variant: &Variant| scoring.nll(choosing, &selection, &variant.spec()).ok();
                let Some(class) = adaptive.class(&nll)? else { continue };
                let pick = class.pick().variant.clone();
                let guard = Set::guard(Part::Selection);
                scoring.evaluate(guard, &guarded, std::slice::from_ref(&pick), Wanted::Scores, observe)?;
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
                self.questions(),
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
            scoring.begin(plan::ANSWERS);
            let values = answering.values(Part::Selection, &selection, &candidates, scoring.stages(), observe)?;
            let valued = Valued { candidates, selection: values, holdout: Vec::new() };
            let pick = valued.scores(Part::Selection, &valued.candidates)?.pick();
            let variant = boundaries[pick].clone();
            candidate = Member { family: Family::BottomK, at: pick as f64, label: variant.name(), variant };
            by_metric = Some((valued, pick));
        }

        let controls = if self.wants_controls() && controls::is_cut(&facts, &candidate.variant) {
            scoring.begin(plan::CONTROLS);
            let alphas = Family::GlobalAlpha.members(&facts);
            let variants: Vec<Variant> = alphas.iter().map(|member| member.variant.clone()).collect();
            let untuned = controls::planned(&facts, &candidate.variant);
            // In folds all samples judge, so that what needs no tuning is scored in the same pass.
            let judging_too = untuned.iter().filter(|_| self.folds.is_some()).flat_map(|control| &control.variants);
            let scored: Vec<Variant> = variants.iter().chain(judging_too).cloned().collect();
            scoring.evaluate(choosing, &selection, &scored, Wanted::Scores, observe)?;
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
            std::iter::once(tuned).chain(untuned).collect::<Vec<Planned>>()
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
        scoring.begin(plan::JUDGING);
        scoring.evaluate(judging, &holdout, &picked, Wanted::Tokens, observe)?;
        let variants: Vec<Variant> = controls.iter().flat_map(|control| control.variants.clone()).collect();
        scoring.begin(plan::JUDGING_CONTROLS);
        scoring.evaluate(judging, &holdout, &variants, Wanted::Scores, observe)?;
        let shown = deduplicated(&[boundaries[0].clone(), candidate.variant.clone(), boundaries[layers].clone()]);
        scoring.begin(plan::JUDGING_GUARD);
        scoring.evaluate(Set::guard(Part::Holdout), &guarded_after, &shown, Wanted::Scores, observe)?;
        let mut valued = None;
        if let (Some(answering), Some((found, pick))) = (&mut answering, by_metric) {
            let mut judged = vec![0, pick, layers];
            judged.dedup();
            scoring.begin(plan::ANSWERS);
            let holdout = answering.values(Part::Holdout, &holdout, &judged, scoring.stages(), observe)?;
            valued = Some(Valued { holdout, ..found });
        }
        scoring.begin(plan::EFFECTS);
        scoring.evaluate(choosing, &some, &self.variants_of_effects(&facts), Wanted::Scores, observe)?;
        let told: Vec<&Sample> = raced.iter().copied().filter(|sample| scoring.tells(sample)).collect();
        scoring.begin(plan::TOKENS);
        scoring.evaluate(choosing, &told, &shown, Wanted::Tokens, observe)?;
        let seconds = begun.elapsed().as_secs_f64();

        let known_of_some: Vec<&Known> = some.iter().map(|sample| scoring.known(choosing, sample)).collect();
        let measures = self.measures(&facts, &known_of_some, &energies);
        let prompts: Vec<&[u32]> = selection.iter().map(|sample| &sample.tokens[..sample.answer[0]]).collect();
        let (checkpoint, adapter, scratch) = (&self.checkpoint, &self.adapter, &self.options.scratch);
        let subject = Subject { engine: &engine, checkpoint, adapter, scratch };
        let ends: Vec<Variant> = ends.into_iter().cloned().collect();
        scoring.begin(plan::EFFICIENCY);
        let (stages, step) = (scoring.stages(), plan::efficiency_step(&engine));
        let mut go_on = || {
            stages.spend(step);
            observe(stages.at())
        };
        let efficiency = efficiency::measure(&subject, &deduplicated(&ends), &prompts, &mut go_on)?;
        stages.end();
        // All of it is done: whoever would break now has nothing to stop.
        let _ = observe(stages.at());

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

    /// A metric's gains cannot be compared with a control's NLL.
    fn wants_controls(&self) -> bool {
        self.options.controls == Controls::Scored && self.chooser.is_none()
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

    /// Prompts and references of all samples, by line.
    fn questions(&self) -> HashMap<usize, (Vec<u32>, String)> {
        let Dataset { samples, prompts, answers, .. } = &self.dataset;
        let questions = prompts.iter().cloned().zip(answers.iter().cloned());
        samples.iter().map(|sample| sample.line).zip(questions).collect()
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
        let mut energies = engine.output_energy(&self.lora, &samples, &mut |work| {
            scoring.stages().spend(work);
            observe(scoring.stages().at())
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
        let (result, candidate, tokens) = self.result(scored)?;
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
        let fingerprint = Fingerprint::new(&self.hashes.model, Some(&self.hashes.adapter), precision, &samples);
        Ok(match self.adapter.ends_choice() {
            Some(ends) => fingerprint.with(&format!("{ends:?}")),
            None => fingerprint,
        })
    }
}

/// The longest sample that is scored, in tokens: never longer than the model's context.
fn longest(options: &SearchOptions, checkpoint: &Checkpoint) -> usize {
    let context = checkpoint.config().context;
    options.max_length.map_or(context, |most| most.get().min(context))
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
    let share = held_out_share(options);
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
        Some(_) if samples < FEWEST => {
            Err(Error::Usage(format!("samples: {samples}, expected at least {FEWEST} samples")))
        }
        Some(folds) if folds < 2 || folds > samples => {
            Err(Error::Usage(format!("--folds {folds}: expected 2 to {samples}, one for each sample")))
        }
        Some(folds) => Ok((Split { selection: (0..samples).collect(), holdout: Vec::new() }, Some(folds))),
    }
}

/// Whether so few samples judge that the tests can show nothing, whatever the scores are.
fn cannot_show(options: &SearchOptions, split: &Split, folds: Option<usize>) -> Option<Warning> {
    let needed = choose::fewest_to_show(choose::Options::default().alpha);
    let (judging, samples) = match folds {
        Some(_) => (split.selection.len(), needed),
        None => (split.holdout.len(), data::fewest(needed, held_out_share(options))),
    };
    (judging < needed).then_some(Warning::CannotShow { judging, needed, samples })
}

/// The share of the samples that is held out, where any is.
fn held_out_share(options: &SearchOptions) -> f64 {
    if let Judges::HeldOut(share) = options.judges { share } else { HOLDOUT }
}

/// How many folds there are.
fn folds_of(folds: &[usize]) -> usize {
    folds.iter().max().map_or(0, |last| last + 1)
}
