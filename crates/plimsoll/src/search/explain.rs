//! The last stage: evidence for the report. Effects of layers, scores of answer tokens, and efficiency.

use std::collections::BTreeMap;

use plimsoll_stats::choose::Part;

use super::effects::{self, Measured};
use super::journal::{Known, Set};
use super::judge::Judged;
use super::plan;
use super::score::Scored;
use super::scoring::{Counted, Observer, Scoring, Task, Wanted};
use super::study::{Parts, Study};
use crate::data::Sample;
use crate::engine::Engines;
use crate::error::Result;
use crate::lora::Variant;
use crate::result::{EffectKind, EffectMeasure, Effects, Efficiency, SampleTokens, Token, Warning};

/// Number of tokens at the end of a prompt that are shown with its answer.
const PROMPT_TOKENS: usize = 96;

/// A token that makes up more than this share of the adapter's gain is a warning.
const TOKEN_SHARE: f64 = 1.0 / 3.0;

/// The result of the last stage.
#[derive(Debug)]
pub(super) struct Explained {
    pub(super) effects: Effects,
    /// Scores of the answer tokens of some samples.
    pub(super) tokens: Vec<SampleTokens>,
    /// Speed and size of variants, if a benchmark measures them.
    pub(super) efficiency: Option<Efficiency>,
}

/// Decodes token ids to text.
pub(super) type Decode<'a> = &'a dyn Fn(&[u32]) -> String;

/// The inputs of the last stage: the study, the results of the earlier stages, and the engines.
#[derive(Clone, Copy)]
pub(super) struct ExplainInputs<'a> {
    pub(super) study: &'a Study,
    pub(super) parts: &'a Parts<'a>,
    pub(super) scored: &'a Scored,
    pub(super) judged: &'a Judged,
    pub(super) engines: &'a Engines<'a>,
    /// Decodes the tokens that reports show.
    pub(super) decode: Decode<'a>,
}

/// Scores the variants that effects and tokens need, and gathers the evidence. `after_scoring` is called after the last
/// score.
pub(super) fn explain(
    inputs: ExplainInputs<'_>,
    scoring: &mut Scoring<'_>,
    after_scoring: &mut dyn FnMut(),
    observe: Observer<'_>,
) -> Result<Explained> {
    let ExplainInputs { study, parts, scored, judged, engines, decode } = inputs;
    let set = Set::data(Part::Selection);
    let facts = scored.facts(study);
    scoring.begin(plan::EFFECTS);
    let variants = study.variants_of_effects(&facts);
    scoring.evaluate(Task::scores(set, &parts.effects, &variants), Counted::Samples, observe)?;
    let [base, full] = study.base_and_full();
    let shown = Variant::distinct(&[base, judged.main[2].clone(), full]);
    let kept: Vec<&Sample> = parts.raced.iter().copied().filter(|sample| scoring.keeps_tokens(sample)).collect();
    scoring.begin(plan::TOKENS);
    let task = Task::scores(set, &kept, &shown).wanting(Wanted::Tokens);
    scoring.evaluate(task, Counted::Samples, observe)?;
    after_scoring();

    let effects = gather_effects(study, parts, scored, judged, scoring);
    let tokens = tokens(study, parts, scoring, &judged.candidate.variant, decode);
    scoring.begin(plan::EFFICIENCY);
    let efficiency = match engines.benchmark {
        Some(benchmark) => {
            let prompts: Vec<&[u32]> =
                parts.selection.iter().map(|sample| &sample.tokens[..sample.answer[0]]).collect();
            let step = engines.generator.map_or(0, plan::efficiency_step);
            let stages = scoring.stages();
            let mut go_on = || {
                stages.spend(step);
                observe(stages.progress())
            };
            Some(benchmark.efficiency(&Variant::distinct(&judged.main), &prompts, &mut go_on)?)
        }
        None => None,
    };
    Ok(Explained { effects, tokens, efficiency })
}

/// All measures of the layers, and the rank correlations between cheap and measured ones.
fn gather_effects(
    study: &Study,
    parts: &Parts<'_>,
    scored: &Scored,
    judged: &Judged,
    scoring: &Scoring<'_>,
) -> Effects {
    let set = Set::data(Part::Selection);
    let facts = scored.facts(study);
    let seed = study.settings.seed;
    let known = |samples: &[&Sample]| -> Vec<Known> {
        samples.iter().map(|sample| scoring.known(set, sample).clone()).collect()
    };
    let (some, all) = (known(&parts.effects), known(&parts.selection));
    let (some, all): (Vec<&Known>, Vec<&Known>) = (some.iter().collect(), all.iter().collect());
    let on_some = Measured { facts: &facts, samples: &some, table: scoring.table(), seed };
    let on_all = Measured { samples: &all, ..on_some };
    let settings = &study.settings.effects;
    let mut measures: Vec<EffectMeasure> = Vec::new();
    if settings.places.is_some() {
        measures.extend(on_some.single(EffectKind::LeaveOneOut));
        measures.extend(on_some.single(EffectKind::LeaveOneIn));
        measures.extend((settings.order_pairs > 0).then(|| on_some.shapley(settings.order_pairs)).flatten());
    }
    let plain = |kind, samples, joint, modules| effects::plain(kind, &facts, samples, joint, modules);
    measures.push(plain(EffectKind::Magnitude, 0, &scored.norms, &study.table.norms));
    if !scored.energies.is_empty() {
        measures.push(plain(EffectKind::Output, some.len(), &scored.output, &scored.energies));
    }
    measures.extend(on_all.increments());
    measures.extend(effects::lens(&facts, &judged.lens.base, &judged.lens.full, judged.lens.samples));
    measures.sort_by_key(|measure| measure.kind);
    let agreement = effects::agreement(&measures, seed);
    Effects { measures, agreement }
}

/// The scores of the answer tokens of some samples, held-out samples first.
fn tokens(
    study: &Study,
    parts: &Parts<'_>,
    scoring: &Scoring<'_>,
    candidate: &Variant,
    decode: Decode<'_>,
) -> Vec<SampleTokens> {
    let table = scoring.table();
    let [base, full] = study.base_and_full();
    let is_base_or_full = [&base, &full].contains(&candidate);
    let (Some(base), Some(full), Some(cut)) = (table.get(&base), table.get(&full), table.get(candidate)) else {
        return Vec::new();
    };
    let of_part = |part: Part, samples: &[&Sample]| -> Vec<SampleTokens> {
        let of_sample = |sample: &&Sample| {
            let known = scoring.known(Set::data(part), sample);
            let of = |id| known.token_nll.get(&id).cloned();
            let candidate = if is_base_or_full { Vec::new() } else { of(cut)? };
            let first = sample.answer[0];
            let begin = first.saturating_sub(PROMPT_TOKENS);
            let token = |position: usize| Token {
                id: sample.tokens[position],
                text: decode(&sample.tokens[position..=position]),
                scored: sample.answer.binary_search(&position).is_ok(),
            };
            Some(SampleTokens {
                line: sample.line,
                part,
                prompt: decode(&sample.tokens[begin..first]),
                sequence: (begin..sample.tokens.len()).map(token).collect(),
                tokens: sample.answer.iter().map(|&token| decode(&sample.tokens[token..=token])).collect(),
                base: of(base)?,
                full: of(full)?,
                candidate,
            })
        };
        samples.iter().filter_map(of_sample).collect()
    };
    [of_part(Part::Holdout, &parts.holdout), of_part(Part::Selection, &parts.selection)].concat()
}

/// A warning if one token has a large share of the adapter's gain over the base model, summed over all answer tokens of
/// some samples.
pub(super) fn token_share(samples: &[SampleTokens]) -> Option<Warning> {
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
    fn a_token_with_more_than_a_third_of_the_gain_is_a_warning() {
        // Token 1 gains 1, token 2 gains 1 in two places, and token 3 gains 4 of 6 in two samples.
        let samples = [sample(&[(1, 2.0, 1.0), (2, 1.0, 0.5), (3, 4.0, 2.0)]), sample(&[(2, 1.0, 0.5), (3, 2.0, 0.0)])];
        let expected = Warning::TokenShare { token: "<3>".into(), id: 3, share: 4.0 / 6.0, count: 2, samples: 2 };
        assert_eq!(token_share(&samples), Some(expected));
        // Three tokens with a third each: none has more than a third.
        assert_eq!(token_share(&[sample(&[(1, 2.0, 1.0), (2, 2.0, 1.0), (3, 2.0, 1.0)])]), None);
        // Without a gain there are no shares.
        assert_eq!(token_share(&[sample(&[(1, 1.0, 3.0), (2, 2.0, 1.0)])]), None);
        assert_eq!(token_share(&[]), None);
    }
}
