//! The report as one HTML file that needs nothing else: no network, and no program but the one script in it.
//!
//! Paths, names, prompts and answers come from strangers. The template escapes whatever it is handed but for the figures,
//! which escape their own text, and the data of the samples, which the script shows as text only. A content security policy
//! in the page forbids requests, and every script but the one whose hash it names. Everything a figure shows also stands in
//! a table below it, and without the script all of the page but the samples can be read.

use std::sync::LazyLock;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value};
use plimsoll_stats::choose::{Gain, Validation, Verdict};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::evaluation::{efficiency, efficiency_note, written, written_note};
use super::page::{Extra, Figure};
use super::svg::{self, Kept};
use super::words::{self, NONE, Retained, Sign, count, counted, fixed, glued, p_value, percent, plain, tame};
use super::{beyond, effects, evidence, figures, samples, variants};
use crate::lora::{Family, Variant};
use crate::result::{AnswerEnding, DataFacts, SampleTokens, SearchResult};

const TEMPLATE: &str = include_str!("report.html.jinja");
/// The look of every page.
pub(super) const STYLE: &str = include_str!("report.css");
const SCRIPT: &str = include_str!("report.js");

/// The script's hash, as a content security policy names it.
static SCRIPT_HASH: LazyLock<String> =
    LazyLock::new(|| format!("sha256-{}", base64(&Sha256::digest(SCRIPT.as_bytes()))));

/// The report of a search as one self-contained page, with what each sample's tokens got where that is at hand.
pub fn html(result: &SearchResult, samples: &[SampleTokens]) -> String {
    const RENDERS: &str = "the built-in template parses, and the page has all that it asks for";
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().expect(RENDERS));
    // The template is part of the program and is handed strings, lists and flags of a fixed shape only: no result can
    // make it fail, and the tests render every branch of it.
    environment
        .render_named_str("report.html", TEMPLATE, Value::from(Serde(Page::new(result, samples))))
        .expect(RENDERS)
}

/// What the template is handed: words only, nothing left to compute.
#[derive(Serialize)]
struct Page {
    title: String,
    style: &'static str,
    script: &'static str,
    script_hash: &'static str,
    headline: String,
    grounds: String,
    /// What has to be said beside the answer: that it is not shown, or not by depth.
    notes: Vec<String>,
    strip: String,
    tests: String,
    race: Option<String>,
    facts: Vec<Fact>,
    warnings: Vec<Remark>,
    /// Figures and tables, in the order of the page.
    sections: Vec<Section>,
    /// The samples as JSON; null where there are none.
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

/// A number with what it is, how sure it is, and what it was measured on.
#[derive(Serialize)]
struct Fact {
    name: String,
    value: String,
    unit: String,
    lines: Vec<String>,
}

#[derive(Serialize)]
struct Remark {
    matter: String,
    remedy: &'static str,
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
    /// Whether it is a stranger's or a machine's string, set apart from words.
    is_code: bool,
}

impl Page {
    fn new(result: &SearchResult, samples: &[SampleTokens]) -> Self {
        let words::Answer { headline, grounds } = words::answer(result);
        let warnings = result.warnings.iter().map(|warning| words::advice(warning, result));
        // What the samples settle, and how many would, is among the grounds.
        let note = evidence::depth(result);
        Self {
            title: format!("{} · {}", base_name(&result.adapter.path), base_name(&result.model.path)),
            style: STYLE,
            script: SCRIPT,
            script_hash: &SCRIPT_HASH,
            headline: glued(&headline),
            grounds: glued(&grounds),
            notes: note.iter().map(|note| glued(note)).collect(),
            strip: strip(result),
            tests: how_judged(result),
            race: words::race(result).map(|text| glued(&text)),
            facts: facts(result),
            warnings: warnings.map(|advice| Remark { matter: glued(&advice.matter), remedy: advice.remedy }).collect(),
            sections: sections(result),
            samples: samples::data(result, samples),
            by_nll: result.metric.is_none(),
            provenance: provenance(result),
            command: tame(&result.command),
            tool: tame(&result.tool),
        }
    }
}

/// What there is to show, in the order of the page: the cut, what else could explain it, what the layers do, and then
/// everything.
fn sections(result: &SearchResult) -> Vec<Section> {
    let figure = |figure: Option<Figure>| figure.map(Section::Figure);
    let extra = |extra: Option<Extra>| extra.map(Section::Extra);
    let cut = [
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
        extra(what_was_written(result)),
        extra(what_is_saved(result)),
    ];
    cut.into_iter().flatten().chain(layers).chain(all.into_iter().flatten()).collect()
}

/// What was generated, where it was.
fn what_was_written(result: &SearchResult) -> Option<Extra> {
    let metric = result.metric.as_ref()?;
    let chosen = metric.variants.iter().position(|variant| variant.layers_kept == result.choice.layers_kept);
    let (note, grid) = (written_note(metric), written(metric, result.model.layers));
    Some(Extra::of_grid("written", "What the boundaries wrote", &note, grid, chosen))
}

/// What a cut saves, where that was measured.
fn what_is_saved(result: &SearchResult) -> Option<Extra> {
    let measured = result.efficiency.as_ref()?;
    let (note, grid) = (efficiency_note(measured), efficiency(measured));
    Some(Extra::of_grid("efficiency", "What a cut saves", &note, grid, None))
}

/// The layers of the answer.
fn strip(result: &SearchResult) -> String {
    /// Beyond this the answer is drawn by its number of layers alone.
    const MOST: usize = 200;
    let (choice, layers) = (&result.choice, result.model.layers);
    let chosen = result.candidate.as_ref().filter(|candidate| {
        choice.verdict == Verdict::Trim && candidate.family != Family::BottomK && (1..=MOST).contains(&layers)
    });
    let gates = chosen.and_then(|candidate| Variant::parse(&candidate.gates, layers).ok());
    let Some(gates) = gates else { return svg::strip(choice.layers_kept, layers) };
    let kept = gates.gates.iter().map(|gates| match &gates.0 {
        gates if gates.iter().all(|gate| *gate == 0.0) => Kept::Nothing,
        gates if gates.iter().all(|gate| *gate == 1.0) => Kept::Whole,
        _ => Kept::Part,
    });
    svg::strip_of(&kept.collect::<Vec<Kept>>())
}

/// How the numbers of the answer came about.
fn how_judged(result: &SearchResult) -> String {
    let SearchResult { data, rules, choice, .. } = result;
    let judged = match choice.validation {
        Validation::Holdout => format!(
            "The candidate was picked on {}, and judged on {} that had no part in picking it.",
            counted(data.selection, "selection sample"),
            counted(data.holdout, "other sample"),
        ),
        Validation::Nested { folds } => format!(
            "The candidate was picked on {}. They were judged in {}: the rule picks on all folds but one, and its pick is \
             judged on that one, so what is judged is the rule's picks and not one boundary.",
            counted(data.selection, "sample"),
            counted(folds, "fold"),
        ),
    };
    let power = if choice.abstains { None } else { evidence::power(result) };
    glued(&format!(
        "{judged} Every comparison is paired: the same sample under both variants. Intervals are 95 % percentile bootstrap \
         intervals ({} resamples by sample), p-values are two-sided, the larger of the paired randomisation test's and that of a t-test corrected for skewness; \
         {}. {}",
        count(rules.resamples as u64),
        words::counts_as_shown(choice.gain.samples, rules.alpha),
        power.unwrap_or_default(),
    ))
}

fn facts(result: &SearchResult) -> Vec<Fact> {
    let SearchResult { choice, adapter, data, rules, model, .. } = result;
    let candidate = evidence::candidate(result);
    let adapter_gain = gain_fact("Full adapter over the base model".to_owned(), &choice.adapter_gain, result);
    // Where the candidate is the full adapter, there is nothing to compare.
    let mut facts = if choice.one_se >= model.layers && beyond(result).is_none() {
        vec![adapter_gain]
    } else {
        vec![
            gain_fact(format!("Candidate ({candidate}) over the full adapter"), &choice.gain, result),
            gain_fact(format!("Candidate ({candidate}) over the base model"), &choice.base_gain, result),
            adapter_gain,
            retained_fact(format!("Share of the adapter's gain that {candidate} retains"), result),
        ]
    };
    let stable = choice.bootstrap.get(choice.one_se).copied().unwrap_or(f64::NAN);
    facts.push(Fact {
        name: format!("Resamples that pick k = {} of the boundaries as well", choice.one_se),
        value: fixed(stable * 100.0, 1, Sign::Minus),
        unit: "%".to_owned(),
        lines: vec![
            format!("of {} bootstrap resamples", count(rules.choice_resamples as u64)),
            counted(data.selection, "selection sample"),
        ],
    });
    let share = adapter.bytes_kept as f64 / adapter.bytes.max(1) as f64;
    facts.push(Fact {
        name: "Adapter tensors kept".to_owned(),
        value: words::bytes(adapter.bytes_kept),
        unit: String::new(),
        lines: vec![
            glued(&format!("of {} ({})", words::bytes(adapter.bytes), percent(share))),
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
        None => return none("not given: the adapter's own gain is not clear of 0".to_owned()),
        Some(Retained::GainTooSmall { .. }) => return none(format!("not given: {}", words::NO_SHARE)),
        Some(Retained::Share(share)) => share,
    };
    let [value, low, high] = words::estimate(&share, 100.0, 2, Sign::Minus);
    let lines = vec![glued(&format!("95 % interval {low} to {high} %")), held_out];
    Fact { name, value, unit: "%".to_owned(), lines }
}

fn gain_fact(name: String, gain: &Gain, result: &SearchResult) -> Fact {
    let [value, low, high] = words::gain_digits(gain, Sign::Both);
    let mut lines = vec![
        glued(&format!("95 % interval {low} to {high}")),
        glued(&format!("{}, {}", p_value(gain.p), evidence::judged_on(gain, result))),
    ];
    lines.extend(words::disagreement(gain, gain.p, result.rules.alpha).map(|why| glued(&why)));
    Fact { name, value, unit: words::unit(result), lines }
}

fn provenance(result: &SearchResult) -> Vec<Group> {
    let SearchResult { model, adapter, data, cost, rules, .. } = result;
    let text = |name, value: String| Entry { name, value: glued(&value), is_code: false };
    let code = |name, value: &str| Entry { name, value: tame(value), is_code: true };
    let ranks: Vec<String> = adapter.ranks.iter().map(ToString::to_string).collect();
    let saved = 1.0 - cost.layer_passes as f64 / cost.layer_passes_naive.max(1) as f64;
    let mut groups = vec![
        Group {
            name: "Base model",
            entries: vec![
                code("path", &model.path),
                code("SHA-256", &model.sha256),
                code("architecture", &model.architecture),
                text("layers", count(model.layers as u64)),
                text("hidden size", count(model.hidden_size as u64)),
                text("vocabulary", count(model.vocab_size as u64)),
                text("parameters", count(model.parameters)),
                code("stored as", &model.stored_as),
            ],
        },
        Group {
            name: "Adapter",
            entries: vec![
                code("path", &adapter.path),
                code("SHA-256", &adapter.sha256),
                text("layers with LoRA", count(adapter.layers as u64)),
                text("ranks", ranks.join(", ")),
                code("modules", &adapter.modules.join(", ")),
                text("tensors", format!("{} bytes", count(adapter.bytes))),
            ],
        },
        Group {
            name: "Data",
            entries: vec![
                code("path", &data.path),
                code("SHA-256", &data.sha256),
                text("selection", counted(data.selection, "sample")),
                text("held out", counted(data.holdout, "sample")),
                text("too long, left out", counted(data.skipped, "sample")),
                text("too long, cut", counted(data.cut, "sample")),
                text("answers end with", endings(data)),
                text("scored", counted(data.answer_tokens, "answer token")),
                code("template", &data.template),
            ],
        },
        Group {
            name: "Search",
            entries: vec![
                code("program", &result.tool),
                text("seed", result.seed.to_string()),
                text("shown below", format!("p = {}", plain(rules.alpha))),
                match rules.margin_nats {
                    None => text("not worse above", format!("{} % of the adapter's gain", plain(rules.margin * 100.0))),
                    Some(nats) => {
                        text("not worse", format!("where less than {} {} is lost", plain(nats), words::unit(result)))
                    }
                },
                text("resamples", format!("{} of the pick", count(rules.choice_resamples as u64))),
                text("", format!("{} of each interval and test", count(rules.resamples as u64))),
            ],
        },
        Group {
            name: "Cost",
            entries: vec![
                text("layer passes", format!("{} per sample", count(cost.layer_passes as u64))),
                text(
                    "one run per variant",
                    format!("{} per sample: {} saved", count(cost.layer_passes_naive as u64), percent(saved)),
                ),
                text("scoring took", words::scoring_seconds(cost.seconds, cost.resumed)),
                text("threads", count(cost.threads as u64)),
                text("arithmetic", format!("{} on {}", tame(&cost.dtype), tame(&cost.instructions))),
            ],
        },
    ];
    if let Some(guard) = &result.guard {
        let entries = vec![
            code("path", &guard.path),
            code("SHA-256", &guard.sha256),
            text("selection", counted(guard.selection, "sample")),
            text("held out", counted(guard.holdout, "sample")),
        ];
        groups.insert(3, Group { name: "Guard", entries });
    }
    groups
}

/// The tokens that answers end with: `<|im_end|> (46), a token of the text (2)`.
fn endings(data: &DataFacts) -> String {
    if data.endings.is_empty() {
        return "what the data has: no chat template".to_owned();
    }
    let ending = |ending: &AnswerEnding| {
        let token = ending.token.as_deref().map_or_else(|| "a token of the text".to_owned(), tame);
        format!("{token} ({})", count(ending.samples as u64))
    };
    data.endings.iter().map(ending).collect::<Vec<_>>().join(", ")
}

/// The last part of a path.
fn base_name(path: &str) -> String {
    let path = path.trim_end_matches(['/', '\\']);
    tame(path.rsplit(['/', '\\']).next().unwrap_or(path))
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
    fn base64_is_that_of_the_standard() {
        let cases = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (bytes, expected) in cases {
            assert_eq!(base64(bytes.as_bytes()), expected);
        }
    }

    #[test]
    fn script_and_style_end_no_element() {
        for text in [SCRIPT, STYLE] {
            assert!(!text.contains("</") && !text.contains("<!--") && text.is_ascii());
        }
    }
}
