//! The last stage: evidence beside the answer. Effects of layers, scores of tokens, and what a cut saves.

use std::collections::BTreeMap;

use plimsoll_stats::choose::Part;

use super::effects::{self, Measured};
use super::journal::{Known, Set};
use super::judge::{Judged, distinct};
use super::plan;
use super::score::Scored;
use super::scoring::{Counted, Observer, Scoring, Task, Wanted};
use super::study::{Parts, Study};
use crate::data::Sample;
use crate::engine::Engines;
use crate::error::Result;
use crate::lora::Variant;
use crate::result::{EffectKind, EffectMeasure, Effects, Efficiency, SampleTokens, Token, Warning};

/// Tokens of a prompt's end that are shown beside its answer.
const PROMPT_TOKENS: usize = 96;

/// A warning stands beside the answer where one token makes up more than this share of what the adapter gains.
const TOKEN_SHARE: f64 = 1.0 / 3.0;

/// Evidence beside the answer.
#[derive(Debug)]
pub(super) struct Explained {
    pub(super) effects: Effects,
    /// Scores of the answer tokens of some samples.
    pub(super) tokens: Vec<SampleTokens>,
    /// What a cut saves at inference, where an engine measures it.
    pub(super) efficiency: Option<Efficiency>,
}

/// Text of token ids.
pub(super) type Decode<'a> = &'a dyn Fn(&[u32]) -> String;

/// Scores what effects and tokens need, and gathers the evidence. `scored_in` is called once nothing more is scored.
pub(super) fn explain(
    study: &Study,
    parts: &Parts<'_>,
    scored: &Scored,
    judged: &Judged,
    scoring: &mut Scoring<'_>,
    engines: &Engines<'_>,
    decode: Decode<'_>,
    scored_in: &mut dyn FnMut(),
    observe: Observer<'_>,
) -> Result<Explained> {
    let set = Set::data(Part::Selection);
    let facts = scored.facts(study);
    scoring.begin(plan::EFFECTS);
    let variants = study.variants_of_effects(&facts);
    scoring.evaluate(Task::scores(set, &parts.effects, &variants), Counted::Samples, observe)?;
    let [base, full] = study.ends();
    let shown = distinct(&[base, judged.ends[2].clone(), full]);
    let kept: Vec<&Sample> = parts.raced.iter().copied().filter(|sample| scoring.keeps_tokens(sample)).collect();
    scoring.begin(plan::TOKENS);
    let task = Task::scores(set, &kept, &shown).wanting(Wanted::Tokens);
    scoring.evaluate(task, Counted::Samples, observe)?;
    scored_in();

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
                observe(stages.at())
            };
            Some(benchmark.efficiency(&distinct(&judged.ends), &prompts, &mut go_on)?)
        }
        None => None,
    };
    Ok(Explained { effects, tokens, efficiency })
}

/// All measures of the layers, and how the cheap ones agree with the measured ones.
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

/// Token by token, the scores of the answers of some samples: those that were held out first.
fn tokens(
    study: &Study,
    parts: &Parts<'_>,
    scoring: &Scoring<'_>,
    candidate: &Variant,
    decode: Decode<'_>,
) -> Vec<SampleTokens> {
    let table = scoring.table();
    let [base, full] = study.ends();
    let is_end = [&base, &full].contains(&candidate);
    let (Some(base), Some(full), Some(cut)) = (table.get(&base), table.get(&full), table.get(candidate)) else {
        return Vec::new();
    };
    let of_part = |part: Part, samples: &[&Sample]| -> Vec<SampleTokens> {
        let of_sample = |sample: &&Sample| {
            let known = scoring.known(Set::data(part), sample);
            let of = |id| known.token_nll.get(&id).cloned();
            let candidate = if is_end { Vec::new() } else { of(cut)? };
            let first = sample.answer[0];
            let begin = first.saturating_sub(PROMPT_TOKENS);
            let token = |at: usize| Token {
                id: sample.tokens[at],
                text: decode(&sample.tokens[at..=at]),
                scored: sample.answer.binary_search(&at).is_ok(),
            };
            Some(SampleTokens {
                line: sample.line,
                part,
                prompt: decode(&sample.tokens[begin..first]),
                sequence: (begin..sample.tokens.len()).map(token).collect(),
                tokens: sample.answer.iter().map(|&at| decode(&sample.tokens[at..=at])).collect(),
                base: of(base)?,
                full: of(full)?,
                candidate,
            })
        };
        samples.iter().filter_map(of_sample).collect()
    };
    [of_part(Part::Holdout, &parts.holdout), of_part(Part::Selection, &parts.selection)].concat()
}

/// The token that makes up most of what the adapter gains over the base model, where its share is large. Shares are of the
/// sum over all answer tokens of some samples.
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
