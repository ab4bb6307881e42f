//! The report of a search as one self-contained HTML file, without network access.
//!
//! Paths, names, prompts and answers are untrusted text. The template escapes all values except the figures, which
//! escape their text themselves, and the data of the samples, which the script shows as text only. A content security
//! policy in the page forbids requests, and all scripts except the one whose hash it names. The values of every
//! figure are also in a table below it. Without the script, everything except the samples can be read.

use std::sync::LazyLock;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value};
use plimsoll_stats::choose::{Gain, JudgingSamples, Verdict};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::evaluation::{efficiency, efficiency_note, written, written_note};
use super::page::{Extra, Figure};
use super::sufficient::sufficient_layers;
use super::svg::{self, Kept};
use super::words::{
    self, NONE, Retained, Sign, count, counted, fixed, non_breaking, p_value, percent, plain, printable,
};
use super::{candidate_boundary, effects, evidence, figures, other_candidate, retained, samples, sections, variants};
use crate::lora::{Family, Variant};
use crate::result::{AnswerEnding, DataFacts, SampleTokens, SearchResult, SufficientLayers};

const TEMPLATE: &str = include_str!("report.html.jinja");
/// The style sheet of all pages.
pub(super) const STYLE: &str = include_str!("report.css");
const SCRIPT: &str = include_str!("report.js");

/// The script's hash in the syntax of a content security policy.
static SCRIPT_HASH: LazyLock<String> =
    LazyLock::new(|| format!("sha256-{}", base64(&Sha256::digest(SCRIPT.as_bytes()))));

/// The report of a search as one self-contained HTML page. `samples` are the tokens of the samples with their NLL,
/// which may be empty.
pub fn html(result: &SearchResult, samples: &[SampleTokens]) -> String {
    const RENDERS: &str = "the built-in template parses, and the page has all its fields";
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().expect(RENDERS));
    // The template is built in and reads strings, lists and flags of a fixed structure, so no result can make it
    // fail. The tests render every branch.
    environment
        .render_named_str("report.html", TEMPLATE, Value::from(Serde(Page::new(result, samples))))
        .expect(RENDERS)
}

/// The fields of the template: texts only.
#[derive(Serialize)]
struct Page {
    title: String,
    style: &'static str,
    script: &'static str,
    script_hash: &'static str,
    headline: String,
    grounds: String,
    /// Remarks on the answer: controls that may do as well.
    notes: Vec<String>,
    strip: String,
    tests: String,
    race: Option<String>,
    facts: Vec<Fact>,
    warnings: Vec<Remark>,
    /// Figures and tables, in the order of the page.
    sections: Vec<Section>,
    /// The samples as JSON; null without samples.
    samples: Option<String>,
    /// Whether nothing was generated.
    by_nll: bool,
    provenance: Vec<Group>,
    command: String,
    tool: String,
}

/// A part of the page.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Section {
    Figure(Figure),
    Extra(Extra),
}

/// A number with its name, unit, interval and samples.
#[derive(Serialize)]
struct Fact {
    name: String,
    value: String,
    unit: String,
    lines: Vec<String>,
}

#[derive(Serialize)]
struct Remark {
    problem: String,
    action: &'static str,
}

#[derive(Serialize)]
struct Group {
    name: &'static str,
    entries: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    name: &'static str,
    value: String,
    /// Whether it is printed as code.
    is_code: bool,
}

impl Page {
    fn new(result: &SearchResult, samples: &[SampleTokens]) -> Self {
        let words::Answer { headline, grounds } = words::answer(result);
        let warnings = result.warnings.iter().map(|warning| words::warning_text(warning, result));
        let note = evidence::depth(result);
        Self {
            title: format!("{} · {}", base_name(&result.adapter.path), base_name(&result.model.path)),
            style: STYLE,
            script: SCRIPT,
            script_hash: &SCRIPT_HASH,
            headline: non_breaking(&headline),
            grounds: non_breaking(&grounds),
            notes: note.iter().map(|note| non_breaking(note)).collect(),
            strip: strip(result),
            tests: how_judged(result),
            race: words::race(result).map(|text| non_breaking(&text)),
            facts: facts(result),
            warnings: warnings
                .map(|text| Remark { problem: non_breaking(&text.problem), action: text.action })
                .collect(),
            sections: sections(result),
            samples: samples::data(result, samples),
            by_nll: result.metric.is_none(),
            provenance: provenance(result),
            command: printable(&result.command),
            tool: printable(&result.tool),
        }
    }
}

/// The sections that have data, in the order of the page: the candidate and its controls, effects of layers, and all
/// scored variants.
fn sections(result: &SearchResult) -> Vec<Section> {
    let figure = |figure: Option<Figure>| figure.map(Section::Figure);
    let extra = |extra: Option<Extra>| extra.map(Section::Extra);
    let needed = result.sufficient.iter().enumerate().map(|(index, list)| {
        // One figure: the margin of its line is in the page once.
        let figure = (index == 0).then(|| retained::figure(list, result)).flatten();
        figure.map_or_else(|| Section::Extra(layers_needed(list, result)), Section::Figure)
    });
    let candidate = [
        figure(figures::ablation(result)),
        figure(figures::controls(result)),
        extra(figures::arbitration(result)),
        figure(figures::stability(result)),
        extra(figures::guard(result)),
        figure(figures::lens(result)),
    ];
    let layers = effects::figures(result).into_iter().map(Section::Figure);
    let all = [
        extra(effects::agreement(result)),
        figure(figures::front(result)),
        extra(Some(variants::every_boundary(result))),
        extra(variants::everything(result)),
        extra(generated_answers(result)),
        extra(efficiency_section(result)),
    ];
    needed.chain(candidate.into_iter().flatten()).chain(layers).chain(all.into_iter().flatten()).collect()
}

/// How many layers of a family each margin needs.
fn layers_needed(list: &SufficientLayers, result: &SearchResult) -> Extra {
    let (id, title) = match list.family {
        _ if list.metric.is_some() => ("needed-by-metric", "How many layers are needed (metric of generated answers)"),
        Family::BottomK if result.metric.is_some() => ("needed-by-nll", "How many layers are needed (NLL)"),
        Family::TopK => ("needed-top-k", "How many layers are needed (top-k)"),
        Family::MagnitudeK => ("needed-magnitude-k", "How many layers are needed (magnitude-k)"),
        Family::BoundaryStrength => ("needed-at-strength", "How many layers are needed at the tuned strength"),
        _ => ("needed", sections::LAYERS_NEEDED),
    };
    let grid = sufficient_layers(list, result);
    let chosen = grid.chosen_row();
    Extra::of_grid(id, title, &sections::layers_needed_note(list.samples), grid, chosen)
}

/// The metric of generated answers, if a metric was to choose.
fn generated_answers(result: &SearchResult) -> Option<Extra> {
    let metric = result.metric.as_ref()?;
    let chosen = metric.variants.iter().position(|variant| variant.layers_kept == result.choice.layers_kept);
    let (note, grid) = (written_note(metric), written(metric, result.model.layers));
    Some(Extra::of_grid("written", "Metric of generated answers", &note, grid, chosen))
}

/// Size, load time and speed of variants, if measured.
fn efficiency_section(result: &SearchResult) -> Option<Extra> {
    let measured = result.efficiency.as_ref()?;
    let (note, grid) = (efficiency_note(measured), efficiency(measured));
    Some(Extra::of_grid("efficiency", "Size, load time and speed", &note, grid, None))
}

/// The strip of the layers that the verdict keeps.
fn strip(result: &SearchResult) -> String {
    /// With more layers, only their number is drawn.
    const MOST: usize = 200;
    let (choice, layers) = (&result.choice, result.model.layers);
    let chosen = result.candidate.as_ref().filter(|candidate| {
        choice.verdict == Verdict::Trim && candidate.family != Family::BottomK && (1..=MOST).contains(&layers)
    });
    let variant = chosen.and_then(|candidate| Variant::parse(&candidate.gates, layers).ok());
    let Some(variant) = variant else { return svg::strip(choice.layers_kept, layers) };
    let kept = variant.gates.iter().map(|layer| match &layer.0 {
        strengths if strengths.iter().all(|strength| *strength == 0.0) => Kept::Nothing,
        strengths if strengths.iter().all(|strength| *strength == 1.0) => Kept::Whole,
        _ => Kept::Part,
    });
    svg::strip_of(&kept.collect::<Vec<Kept>>())
}

/// How the numbers of the answer were measured.
fn how_judged(result: &SearchResult) -> String {
    let SearchResult { data, rules, choice, .. } = result;
    let judged = match choice.validation {
        JudgingSamples::All => format!(
            "The cuts were tested on {}, in an order that was fixed before: the cut that drops least first, and each \
             next one only if the one before holds the margin. So no sample picked the candidate, and the chance of a \
             false answer is that of one test, one-sided. The interval of a retained share has the shares that these \
             tests do not exclude.{}",
            counted(choice.gain.samples, "sample"),
            if data.unused > 0 {
                " The search looked at half of the samples, found the answer settled, and ended. The level of this look \
                 is so low that it may be one of two (O'Brien–Fleming type)."
            } else {
                ""
            },
        ),
        JudgingSamples::Holdout => format!(
            "The candidate was picked on {} and judged on {}, which had no part in the pick.",
            counted(data.selection, "selection sample"),
            counted(data.holdout, "held-out sample"),
        ),
        JudgingSamples::Nested { folds } if words::is_at_strength(result) => format!(
            "The strength was tuned on {} by cross-validation in {}: each sample is scored at the strength that is best \
             on the other folds. Boundaries at this strength were tested from the full depth downward, the next one \
             only if the one before is shown to be better than the full adapter as trained.",
            counted(data.selection + data.holdout, "sample"),
            counted(folds, "fold"),
        ),
        JudgingSamples::Nested { folds } => format!(
            "The candidate was picked on {}. It was judged by nested cross-validation in {}: for each fold, the rule \
             picks on the other folds, and its pick is judged on the fold left out. So the gain is the gain of the \
             rule's picks, not of one boundary.",
            counted(data.selection, "sample"),
            counted(folds, "fold"),
        ),
    };
    non_breaking(&format!(
        "{judged} Every comparison is paired by sample. Intervals are 95 % percentile bootstrap intervals over \
         samples ({} resamples). Each p-value is the larger of two two-sided tests: a paired randomisation test, and \
         a t-test corrected for skewness. {}.",
        count(rules.resamples as u64),
        words::counts_as_shown(choice.gain.samples, rules.alpha),
    ))
}

fn facts(result: &SearchResult) -> Vec<Fact> {
    let SearchResult { choice, adapter, data, rules, model, .. } = result;
    let candidate = evidence::candidate(result);
    let adapter_gain =
        gain_fact("Gain of the full adapter over the base model".to_owned(), &choice.adapter_gain, result);
    // A candidate that is the full adapter is not compared with it.
    let mut facts = if candidate_boundary(result) >= model.layers && other_candidate(result).is_none() {
        vec![adapter_gain]
    } else {
        vec![
            gain_fact(format!("Gain of the candidate ({candidate}) over the full adapter"), &choice.gain, result),
            gain_fact(format!("Gain of the candidate ({candidate}) over the base model"), &choice.base_gain, result),
            adapter_gain,
            retained_fact(format!("Retained share of the adapter's gain ({candidate})"), result),
        ]
    };
    let stable = choice.bootstrap.get(choice.one_se).copied().unwrap_or(f64::NAN);
    // The resamples pick by the one-standard-error rule.
    facts.extend((choice.validation != JudgingSamples::All).then(|| Fact {
        name: format!("Stability: resamples that pick k = {}", choice.one_se),
        value: fixed(stable * 100.0, 1, Sign::Minus),
        unit: "%".to_owned(),
        lines: vec![
            format!("of {} bootstrap resamples", count(rules.choice_resamples as u64)),
            counted(data.selection, "selection sample"),
        ],
    }));
    let share = adapter.bytes_kept as f64 / adapter.bytes.max(1) as f64;
    facts.push(Fact {
        name: "Adapter tensors kept".to_owned(),
        value: words::bytes(adapter.bytes_kept),
        unit: String::new(),
        lines: vec![
            non_breaking(&format!("of {} ({})", words::bytes(adapter.bytes), percent(share))),
            format!("{} of {} layers", choice.layers_kept, model.layers),
        ],
    });
    facts
}

fn retained_fact(name: String, result: &SearchResult) -> Fact {
    let held_out = evidence::judged_on(&result.choice.gain, result);
    let none = |why: String| Fact {
        name: name.clone(),
        value: NONE.to_owned(),
        unit: String::new(),
        lines: vec![why, held_out.clone()],
    };
    let share = match Retained::of(result.choice.retained, &result.choice.adapter_gain) {
        None => return none("not given: the adapter's own gain is not clearly above 0".to_owned()),
        Some(Retained::GainTooSmall { .. }) => return none(format!("not given: {}", words::NO_SHARE)),
        Some(Retained::Share(share)) => share,
    };
    let [value, low, high] = words::estimate(&share, 100.0, 2, Sign::Minus);
    let lines = vec![non_breaking(&format!("95 % interval {low} to {high} %")), held_out];
    Fact { name, value, unit: "%".to_owned(), lines }
}

fn gain_fact(name: String, gain: &Gain, result: &SearchResult) -> Fact {
    let [value, low, high] = words::gain_digits(gain, Sign::Both);
    let mut lines = vec![
        non_breaking(&format!("95 % interval {low} to {high}")),
        non_breaking(&format!("{}, {}", p_value(gain.p), evidence::judged_on(gain, result))),
    ];
    lines.extend(words::disagreement(gain, gain.p, result.rules.alpha).map(|why| non_breaking(&why)));
    Fact { name, value, unit: words::unit(result), lines }
}

/// Inputs, settings and cost.
fn provenance(result: &SearchResult) -> Vec<Group> {
    let SearchResult { cost, rules, .. } = result;
    let saved = 1.0 - cost.layer_passes as f64 / cost.layer_passes_naive.max(1) as f64;
    let mut groups = inputs(result);
    groups.push(Group {
        name: "Search",
        entries: vec![
            code("program", &result.tool),
            text("seed", &result.seed.to_string()),
            text("rule", result.choice.rule.name()),
            text("significance level", &plain(rules.alpha)),
            text(
                "margin",
                &match rules.margin_nats {
                    None => format!("retains more than {} % of the adapter's gain", plain(rules.margin * 100.0)),
                    Some(nats) => format!("loses less than {} {}", plain(nats), words::unit(result)),
                },
            ),
            text("resamples", &format!("{} of the pick", count(rules.choice_resamples as u64))),
            text("", &format!("{} of each interval and test", count(rules.resamples as u64))),
        ],
    });
    groups.push(Group {
        name: "Cost",
        entries: vec![
            text("layer passes", &format!("{} per sample", count(cost.layer_passes as u64))),
            text(
                "one run per variant",
                &format!("{} per sample: {} saved", count(cost.layer_passes_naive as u64), percent(saved)),
            ),
            text("scoring time", &words::scoring_seconds(cost.seconds, cost.resumed)),
            text("threads", &count(cost.threads as u64)),
            text("arithmetic", &words::arithmetic(&cost.dtype, &cost.instructions)),
        ],
    });
    groups
}

/// Model, adapter, data and guard.
fn inputs(result: &SearchResult) -> Vec<Group> {
    let SearchResult { model, adapter, data, .. } = result;
    let ranks: Vec<String> = adapter.ranks.iter().map(ToString::to_string).collect();
    let mut groups = vec![
        Group {
            name: "Base model",
            entries: vec![
                code("path", &model.path),
                code("SHA-256", &model.sha256),
                code("architecture", &model.architecture),
                text("layers", &count(model.layers as u64)),
                text("hidden size", &count(model.hidden_size as u64)),
                text("vocabulary", &count(model.vocab_size as u64)),
                text("parameters", &count(model.parameters)),
                code("stored as", &model.stored_as),
            ],
        },
        Group {
            name: "Adapter",
            entries: vec![
                code("path", &adapter.path),
                code("SHA-256", &adapter.sha256),
                text("layers with LoRA", &count(adapter.layers as u64)),
                text("ranks", &ranks.join(", ")),
                code("modules", &adapter.modules.join(", ")),
                text("tensors", &format!("{} bytes", count(adapter.bytes))),
            ],
        },
        Group {
            name: "Data",
            entries: vec![
                code("path", &data.path),
                code("SHA-256", &data.sha256),
                text("selection", &counted(data.selection, "sample")),
                text("held out", &counted(data.holdout, "sample")),
                text("too long, left out", &counted(data.skipped, "sample")),
                text("too long, cut off", &counted(data.cut, "sample")),
                text("answers end with", &endings(data)),
                text("scored", &counted(data.answer_tokens, "answer token")),
                code("template", &data.template),
            ],
        },
    ];
    groups.extend(result.guard.as_ref().map(|guard| Group {
        name: "Guard",
        entries: vec![
            code("path", &guard.path),
            code("SHA-256", &guard.sha256),
            text("selection", &counted(guard.selection, "sample")),
            text("held out", &counted(guard.holdout, "sample")),
        ],
    }));
    groups
}

/// An entry of words and numbers.
fn text(name: &'static str, value: &str) -> Entry {
    Entry { name, value: non_breaking(value), is_code: false }
}

/// An entry of untrusted or technical text.
fn code(name: &'static str, value: &str) -> Entry {
    Entry { name, value: printable(value), is_code: true }
}

/// The tokens that answers end with: `<|im_end|> (46), a token of the text (2)`.
fn endings(data: &DataFacts) -> String {
    if data.endings.is_empty() {
        return "their own text: no chat template".to_owned();
    }
    let ending = |ending: &AnswerEnding| {
        let token = ending.token.as_deref().map_or_else(|| "a token of the text".to_owned(), printable);
        format!("{token} ({})", count(ending.samples as u64))
    };
    data.endings.iter().map(ending).collect::<Vec<_>>().join(", ")
}

/// The last part of a path.
fn base_name(path: &str) -> String {
    let path = path.trim_end_matches(['/', '\\']);
    printable(path.rsplit(['/', '\\']).next().unwrap_or(path))
}

/// Bytes in base64, with padding (RFC 4648).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |three: &[u8]| {
        let byte = |i: usize| u32::from(three.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        let digit = move |i: usize| match i <= three.len() {
            true => char::from(DIGITS[(bits >> (18 - 6 * i) & 63) as usize]),
            false => '=',
        };
        [0, 1, 2, 3].map(digit)
    };
    bytes.chunks(3).flat_map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_as_in_rfc_4648() {
        let cases = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (bytes, expected) in cases {
            assert_eq!(base64(bytes.as_bytes()), expected);
        }
    }

    #[test]
    fn script_and_style_cannot_end_their_elements() {
        for text in [SCRIPT, STYLE] {
            assert!(!text.contains("</") && !text.contains("<!--") && text.is_ascii());
        }
    }
}
