//! What a search comes to: the candidate judged, and all that a reader wants to know about it gathered in one result.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use super::controls::Planned;
use super::journal::Known;
use super::metric::{Chooser, Valued};
use super::{Controls, Guard, Scored, Search, Strategy, TOOL};
use super::{competition, controls, effects};
use crate::adapter::{Estimate, OtherBase, Provenance, Source, TrimScores};
use crate::choose::race::Fate;
use crate::choose::{
    self, Choice, ChooseProblem, ControlGains, CutKind, Gain, Input, Interval, Part, Reason, Scores, Verdict, choose,
    choose_nested, cross_validate, judge,
};
use crate::data::TemplateChoice;
use crate::engine::VariantScore;
use crate::error::{Error, Result};
use crate::gates::{Family, Member, Place, Places, Variant};
use crate::lens;
use crate::metrics::compare;
use crate::report::{
    self, AdapterFacts, Control, DataFacts, Depth, DroppedBoundary, Effects, FrontPoint, GuardSummary, LensSummary,
    MetricSummary, MetricVariant, ModelFacts, RaceSummary, Rules, SampleTokens, ScoreSummary, SearchResult, Token,
    VariantSummary, Warning,
};
use crate::stats::{mean_and_se, pareto};

/// Below these numbers of samples a warning stands beside the answer: intervals from fewer are too narrow to trust.
const FEW_SELECTION: usize = 20;
const FEW_HOLDOUT: usize = 10;

/// Below this share of agreeing resamples a warning stands beside the answer.
const STABLE_SHARE: f64 = 0.5;

/// A warning stands beside the answer where one token makes up more than this share of what the adapter gains.
const TOKEN_SHARE: f64 = 1.0 / 3.0;

/// Tokens of a prompt's end that are shown beside its answer.
const PROMPT_TOKENS: usize = 96;

impl Search {
    /// Judges the candidate and gathers all that a reader wants to know about it; also the candidate's gates, and what
    /// every answer token of some samples got.
    pub(super) fn result(&self, scored: &Scored) -> Result<(SearchResult, Variant, Vec<SampleTokens>)> {
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
        let tokens = self.tokens(scored, &candidate.variant)?;
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
            warnings: self.warnings(&choice, by_metric.as_ref(), &candidate, &tokens),
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
        Ok((result, candidate.variant, tokens))
    }

    /// Above the last layer with LoRA a boundary drops nothing.
    fn whole(&self) -> usize {
        self.adapter.layers().last().map_or(self.adapted.len(), |last| last + 1)
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
            skipped: dataset.skipped.len(),
            cut: dataset.cut.len(),
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
            let begin = first.saturating_sub(PROMPT_TOKENS);
            let token = |at: usize| Token {
                id: sample.tokens[at],
                text: text(&sample.tokens[at..=at]),
                scored: sample.answer.binary_search(&at).is_ok(),
            };
            Some(SampleTokens {
                line: sample.line,
                part,
                prompt: text(&sample.tokens[begin..first]),
                sequence: (begin..sample.tokens.len()).map(token).collect(),
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
            cut: self.dataset.cut.len(),
            max_length: self.max_length(),
            endings: self.endings.clone(),
            answer_tokens: scored.selection.iter().chain(&scored.holdout).map(|sample| sample.tokens).sum(),
            template: match &self.options.template {
                TemplateChoice::Given { file, .. } => file.display().to_string(),
                TemplateChoice::Tokenizer | TemplateChoice::None => self.dataset.template.to_string(),
            },
        }
    }

    fn warnings(
        &self,
        choice: &Choice,
        metric: Option<&MetricSummary>,
        candidate: &Member,
        tokens: &[SampleTokens],
    ) -> Vec<Warning> {
        let open = self.endings.iter().find(|ending| ending.token.is_none());
        let (selection, holdout) = (self.split.selection.len(), choice.gain.samples);
        let share = choice.bootstrap[choice.one_se];
        // With a metric there are none to leave out.
        let is_uncontrolled = self.options.controls == Controls::Omitted
            && self.chooser.is_none()
            && controls::is_cut(&self.facts(&[], &[]), &candidate.variant);
        let proven = choice.adapter_gain.mean > 0.0
            && choice.adapter_gain.p < choose::level(choice.adapter_gain.samples, choose::Options::default().alpha);
        let is_few = selection < FEW_SELECTION || holdout < FEW_HOLDOUT;
        let is_said = self.forewarnings.iter().any(|warning| matches!(warning, Warning::CannotShow { .. }));
        let forewarnings = self.forewarnings.iter().cloned().map(Some);
        let warnings = [
            (is_few && !is_said).then_some(Warning::FewSamples { selection, holdout }),
            (!self.dataset.skipped.is_empty())
                .then_some(Warning::Skipped { samples: self.dataset.skipped.len(), context: self.max_length() }),
            (!self.dataset.cut.is_empty())
                .then_some(Warning::Cut { samples: self.dataset.cut.len(), max_length: self.max_length() }),
            open.map(|ending| Warning::OpenEnding { samples: ending.samples }),
            token_share(tokens),
            self.other_base().map(|OtherBase { adapter, model }| Warning::OtherBase { adapter, model }),
            is_uncontrolled.then_some(Warning::ControlsOmitted),
            metric.is_some_and(|metric| !metric.decided).then_some(Warning::MetricUndecided),
            // The resamples pick among boundaries.
            (share < STABLE_SHARE && candidate.family == Family::BottomK).then_some(Warning::Unstable { share }),
            (!proven).then_some(Warning::AdapterUnproven { p: choice.adapter_gain.p }),
        ];
        forewarnings.chain(warnings).flatten().collect()
    }
}

/// The token that makes up most of what the adapter gains over the base model, where its share is large. Shares are of the
/// sum over all answer tokens of some samples.
fn token_share(samples: &[SampleTokens]) -> Option<Warning> {
    let mut gains: BTreeMap<u32, (f64, usize, &str)> = BTreeMap::new();
    let mut whole = 0.0;
    for sample in samples {
        let scored = sample.sequence.iter().filter(|token| token.scored);
        for ((token, base), full) in scored.zip(&sample.base).zip(&sample.full) {
            let gain = f64::from(*base) - f64::from(*full);
            let (sum, count, _) = gains.entry(token.id).or_insert((0.0, 0, &token.text));
            *sum += gain;
            *count += 1;
            whole += gain;
        }
    }
    let (id, (gain, count, text)) = gains.into_iter().max_by(|a, b| a.1.0.total_cmp(&b.1.0))?;
    let share = gain / whole;
    (whole > 0.0 && share > TOKEN_SHARE).then(|| Warning::TokenShare {
        token: text.to_owned(),
        id,
        share,
        count,
        samples: samples.len(),
    })
}

/// The mean NLL of every sample under a variant that all were scored under.
fn nll(samples: &[Known], variant: &Variant) -> Result<Vec<f64>> {
    let gates = variant.spec();
    let missing = || Error::Internal(format!("not every sample was scored under `{gates}`"));
    samples.iter().map(|sample| sample.mean_nll(&gates).ok_or_else(missing)).collect()
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
pub(super) fn provenance(result: &SearchResult) -> Provenance {
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
                retained: choice
                    .retained
                    .filter(|_| choice.adapter_gain.has_shares())
                    .map(|Interval { value, low, high }| Estimate { value, low, high }),
            },
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(tokens: &[(u32, f32, f32)]) -> SampleTokens {
        let prompt = Token { id: 9, text: "prompt".into(), scored: false };
        let answer = tokens.iter().map(|(id, ..)| Token { id: *id, text: format!("<{id}>"), scored: true });
        SampleTokens {
            line: 1,
            part: Part::Selection,
            prompt: "prompt".into(),
            sequence: std::iter::once(prompt).chain(answer).collect(),
            tokens: tokens.iter().map(|(id, ..)| format!("<{id}>")).collect(),
            base: tokens.iter().map(|(_, base, _)| *base).collect(),
            full: tokens.iter().map(|(.., full)| *full).collect(),
            candidate: Vec::new(),
        }
    }

    #[test]
    fn a_token_that_makes_up_a_third_of_the_gain_is_named() {
        // Gains by token: 1 has 1, 2 has 1 in two places, 3 has 4 of 6 in two samples.
        let samples = [sample(&[(1, 2.0, 1.0), (2, 1.0, 0.5), (3, 4.0, 2.0)]), sample(&[(2, 1.0, 0.5), (3, 2.0, 0.0)])];
        let expected = Warning::TokenShare { token: "<3>".into(), id: 3, share: 4.0 / 6.0, count: 2, samples: 2 };
        assert_eq!(token_share(&samples), Some(expected));
        // A third of three tokens each is no more than a third.
        assert_eq!(token_share(&[sample(&[(1, 2.0, 1.0), (2, 2.0, 1.0), (3, 2.0, 1.0)])]), None);
        // Where nothing is gained there is nothing to have a share of.
        assert_eq!(token_share(&[sample(&[(1, 1.0, 3.0), (2, 2.0, 1.0)])]), None);
        assert_eq!(token_share(&[]), None);
    }
}
