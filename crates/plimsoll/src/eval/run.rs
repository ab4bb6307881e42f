//! Generates and scores, and keeps a journal of the finished work.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::evaluation::{Evaluation, JOURNAL, Question};
use crate::data::Sample;
use crate::engine::{Benchmark, CpuBenchmark, CpuEngine, EngineIdentity, Engines, Request, ScoreEvent, Scorer};
use crate::error::{Error, Result};
use crate::generate::{GenerateOptions, GenerationEvent, Prompt};
use crate::journal::{Fingerprint, Journal};
use crate::lora::Variant;
use crate::result::{Efficiency, EvalCost, Generated};

/// Progress of an evaluation.
#[derive(Clone, Copy, Debug)]
pub enum EvalProgress {
    /// References are scored: work done and total work, in the unit of [`Scorer::work`].
    Scoring(u64, u64),
    /// Answers are generated.
    Generating {
        /// Number of finished answers.
        answers: usize,
        /// Number of all answers.
        of: usize,
        /// Number of tokens that were generated in this run.
        tokens: usize,
    },
    /// Speeds are measured.
    Timing,
}

/// Answers and scores of all samples under all variants, from which [`Evaluation::finish`] computes the result.
#[derive(Debug)]
pub struct Answered {
    pub(super) known: Known,
    pub(super) efficiency: Option<Efficiency>,
    pub(super) cost: EvalCost,
}

/// Answers and scores by the sample's line and the variant's LoRA strengths.
pub(super) type Known = HashMap<(usize, String), Piece>;

/// Answer and score of one sample under one variant, as far as they are finished.
#[derive(Clone, Debug, Default)]
pub(super) struct Piece {
    pub(super) answer: Option<Generated>,
    /// NLL of the first reference, in nats, and its number of tokens.
    pub(super) score: Option<(f64, usize)>,
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
    /// Generates and scores on the CPU. Work that is in the journal of the output folder is not repeated.
    ///
    /// # Errors
    /// As [`Generator::generate`](crate::engine::Generator::generate) and [`Scorer::score`]; a journal of another
    /// evaluation; an output folder that cannot be written.
    pub fn run(&self, observe: &mut dyn FnMut(EvalProgress) -> ControlFlow<()>) -> Result<Answered> {
        let engine = CpuEngine::load(&self.model, &self.lora, self.options.engine)?;
        let (model, scratch) = (&self.model, self.options.scratch.as_path());
        let benchmark = self.adapter.as_ref().map(|adapter| CpuBenchmark { engine: &engine, model, adapter, scratch });
        let benchmark = benchmark.as_ref().map(|benchmark| benchmark as &dyn Benchmark);
        self.run_on(&Engines { scorer: &engine, generator: Some(&engine), probe: None, benchmark }, observe)
    }

    /// Like [`run`](Self::run), on other engines.
    ///
    /// # Errors
    /// As [`run`](Self::run); a task that needs generated answers, without a generator; LoRA strengths other than 0 and
    /// 1, on an engine without them.
    pub fn run_on(
        &self,
        engines: &Engines<'_>,
        observe: &mut dyn FnMut(EvalProgress) -> ControlFlow<()>,
    ) -> Result<Answered> {
        let begun = Instant::now();
        let identity = engines.scorer.identity();
        if !engines.scorer.capabilities().strengths && !self.variants.iter().all(Variant::is_binary) {
            return Err(Error::Engine("--gates: this engine has no LoRA strengths other than 0 and 1".into()));
        }
        let mut store = Store::open(self, &identity)?;
        let resumed = store.known.values().filter(|piece| piece.answer.is_some()).count();
        self.score(engines.scorer, &mut store, observe)?;
        let tokens = self.generate(engines, &mut store, observe)?;
        let prompts: Vec<&[u32]> = self.questions.iter().take(8).map(Question::prompt).collect();
        let mut go_on = || observe(EvalProgress::Timing);
        let efficiency = engines
            .benchmark
            .map(|benchmark| benchmark.efficiency(&self.variants, &prompts, &mut go_on))
            .transpose()?;
        let EngineIdentity { dtype, instructions, threads } = identity;
        let cost = EvalCost { seconds: begun.elapsed().as_secs_f64(), tokens, resumed, threads, dtype, instructions };
        Ok(Answered { known: store.known, efficiency, cost })
    }

    /// Scores the first references, if a metric needs them.
    fn score(
        &self,
        engine: &dyn Scorer,
        store: &mut Store,
        observe: &mut dyn FnMut(EvalProgress) -> ControlFlow<()>,
    ) -> Result<()> {
        if self.task.metrics.iter().all(|measured| measured.metric.is_of_text()) {
            return Ok(());
        }
        let is_known = |question: &&Question| {
            self.variants
                .iter()
                .all(|variant| store.piece(question, variant).is_some_and(|piece| piece.score.is_some()))
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
                    failed = failed.take().or(store.add(entries.collect()).err());
                }
            }
            if failed.is_some() { ControlFlow::Break(()) } else { observe(EvalProgress::Scoring(done, total)) }
        });
        match failed {
            Some(error) => Err(error),
            None => scored.map(drop),
        }
    }

    /// Generates answers, if a metric needs them. Returns the number of generated tokens.
    fn generate(
        &self,
        engines: &Engines<'_>,
        store: &mut Store,
        observe: &mut dyn FnMut(EvalProgress) -> ControlFlow<()>,
    ) -> Result<usize> {
        if !self.task.generates() {
            return Ok(0);
        }
        let no_generator =
            || Error::Engine("the task needs generated answers, but this engine has no generator".into());
        let generator = engines.generator.ok_or_else(no_generator)?;
        let tokenizer = self.model.tokenizer()?;
        let (mut prompts, mut origins) = (Vec::new(), Vec::new());
        for question in &self.questions {
            for (index, variant) in self.variants.iter().enumerate() {
                if store.piece(question, variant).is_none_or(|piece| piece.answer.is_none()) {
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
                    failed = failed.take().or(store.add(vec![entry]).err());
                }
            }
            if failed.is_some() {
                ControlFlow::Break(())
            } else {
                observe(EvalProgress::Generating { answers, of, tokens })
            }
        });
        match failed {
            Some(error) => Err(error),
            None => generated.map(|_| tokens),
        }
    }
}

/// The finished work, with its journal.
struct Store {
    journal: Option<Journal>,
    known: Known,
}

impl Store {
    fn open(evaluation: &Evaluation, engine: &EngineIdentity) -> Result<Self> {
        let mut store = Self { journal: None, known: HashMap::new() };
        let Some(out) = &evaluation.options.out else { return Ok(store) };
        // Variants are not part of the fingerprint, so that a run can add some. Nor is the batch: it changes no answer.
        let samples: Vec<_> = evaluation.questions.iter().map(|q| (q.line(), &q.sample.tokens, q.prompt())).collect();
        let GenerateOptions { sampling, max_tokens, stop, .. } = evaluation.generation();
        let ends = evaluation.model.tokenizer()?.end_tokens().to_vec();
        let work = format!("{samples:?} {sampling:?} {max_tokens} {stop:?} {ends:?}");
        let work = match evaluation.options.embedding_lora {
            Some(choice) => format!("{work} {choice:?}"),
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
        entries.into_iter().for_each(|entry| store.insert(entry));
        store.journal = Some(journal);
        Ok(store)
    }

    fn piece(&self, question: &Question, variant: &Variant) -> Option<&Piece> {
        self.known.get(&(question.line(), variant.spec()))
    }

    fn insert(&mut self, entry: Entry) {
        let piece = self.known.entry((entry.line, entry.gates)).or_default();
        piece.answer = entry.answer.or(piece.answer.take());
        piece.score = entry.score.filter(|(nll, tokens)| nll.is_finite() && *tokens > 0).or(piece.score);
    }

    /// Stores finished work and appends it to the journal.
    fn add(&mut self, entries: Vec<Entry>) -> Result<()> {
        if let Some(journal) = &mut self.journal {
            journal.append(entries.iter())?;
        }
        entries.into_iter().for_each(|entry| self.insert(entry));
        Ok(())
    }
}
