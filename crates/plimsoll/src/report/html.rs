//! The report as one HTML file that needs nothing else: no network, no script.
//!
//! Paths and names come from strangers. The template escapes whatever it is handed but for the figures, which escape
//! their own text; a content security policy in the page forbids scripts and requests in any case. Everything a figure
//! shows also stands in a table below it.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value};
use serde::Serialize;

use super::evaluation::{Grid, efficiency, efficiency_note, written, written_note};
use super::result::{LensPoint, LensSummary, SearchResult, VariantSummary};
use super::svg::{self, Axis, Mark, Plot, Point, Series, Shape, Start, Ticks, Tone, Weight};
use super::words::{
    self, NONE, Sign, count, counted, decimals, fixed, glued, number, p_value, percent, plain, plus_minus, tame,
};
use super::{CHOSEN, boundaries, full, lost, marks, picked};
use crate::choose::Gain;

const TEMPLATE: &str = include_str!("report.html.jinja");

/// The report of a search as one self-contained page.
pub fn html(result: &SearchResult) -> String {
    const RENDERS: &str = "the built-in template parses, and the page has all that it asks for";
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().expect(RENDERS));
    // The template is part of the program and is handed strings, lists and flags of a fixed shape only: no result can
    // make it fail, and the tests render every branch of it.
    environment.render_named_str("report.html", TEMPLATE, Value::from(Serde(Page::new(result)))).expect(RENDERS)
}

/// What the template is handed: words only, nothing left to compute.
#[derive(Serialize)]
struct Page {
    title: String,
    headline: String,
    grounds: String,
    strip: String,
    tests: String,
    race: Option<String>,
    facts: Vec<Fact>,
    warnings: Vec<Remark>,
    figures: Vec<Figure>,
    boundaries: Table,
    extras: Vec<Extra>,
    /// Whether nothing was generated.
    by_nll: bool,
    provenance: Vec<Group>,
    command: String,
    tool: String,
}

/// A number with what it is, how sure it is, and what it was measured on.
#[derive(Serialize)]
struct Fact {
    name: String,
    value: String,
    unit: &'static str,
    lines: Vec<String>,
}

#[derive(Serialize)]
struct Remark {
    matter: String,
    remedy: &'static str,
}

#[derive(Serialize)]
struct Figure {
    id: &'static str,
    title: &'static str,
    svg: String,
    caption: String,
    /// What it does not show.
    limits: String,
    table: Table,
}

/// A table with a title of its own.
#[derive(Serialize)]
struct Extra {
    id: &'static str,
    title: &'static str,
    table: Table,
}

impl Extra {
    fn new(id: &'static str, title: &'static str, note: &str, grid: Grid, chosen: Option<usize>) -> Self {
        let head = grid.head();
        let rows = grid.rows.into_iter().enumerate();
        let rows = rows.map(|(index, cells)| Row { cells, is_chosen: Some(index) == chosen }).collect();
        Self { id, title, table: Table { caption: glued(note), spans: Vec::new(), head, rows } }
    }
}

/// What was generated, and what a cut saves, where these are known.
fn extras(result: &SearchResult) -> Vec<Extra> {
    let metric = result.metric.as_ref().map(|metric| {
        let chosen = metric.variants.iter().position(|variant| variant.layers_kept == result.choice.layers_kept);
        let grid = written(metric, result.model.layers);
        Extra::new("written", "What the boundaries wrote", &written_note(metric), grid, chosen)
    });
    let measured = result.efficiency.as_ref().map(|measured| {
        Extra::new("efficiency", "What a cut saves", &efficiency_note(measured), efficiency(measured), None)
    });
    metric.into_iter().chain(measured).collect()
}

#[derive(Serialize)]
struct Table {
    caption: String,
    /// Names over several columns each; none where every column stands for itself.
    spans: Vec<Span>,
    head: Vec<&'static str>,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Span {
    name: &'static str,
    columns: usize,
}

#[derive(Serialize)]
struct Row {
    cells: Vec<String>,
    is_chosen: bool,
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
    fn new(result: &SearchResult) -> Self {
        let words::Answer { headline, grounds } = words::answer(result);
        let warnings = result.warnings.iter().map(|warning| words::advice(warning, result));
        let figures = [ablation(result), lens(result), stability(result)];
        Self {
            title: format!("{} · {}", base_name(&result.adapter.path), base_name(&result.model.path)),
            headline: glued(&headline),
            grounds: glued(&grounds),
            strip: svg::strip(result.choice.layers_kept, result.model.layers),
            tests: tests(result),
            race: words::race(result).map(|text| glued(&text)),
            facts: facts(result),
            warnings: warnings.map(|advice| Remark { matter: glued(&advice.matter), remedy: advice.remedy }).collect(),
            figures: figures.into_iter().flatten().collect(),
            boundaries: every_boundary(result),
            extras: extras(result),
            by_nll: result.metric.is_none(),
            provenance: provenance(result),
            command: tame(&result.command),
            tool: tame(&result.tool),
        }
    }
}

/// How the numbers of the answer came about.
fn tests(result: &SearchResult) -> String {
    let SearchResult { data, rules, .. } = result;
    glued(&format!(
        "The candidate was picked on {}, and judged on {} that had no part in picking it. Every comparison is paired: \
         the same sample under both variants. Intervals are 95 % percentile bootstrap intervals ({} resamples by \
         sample), p-values are two-sided, from the paired randomisation test; below {} counts as shown.",
        counted(data.selection, "selection sample"),
        counted(data.holdout, "other sample"),
        count(rules.resamples as u64),
        plain(rules.alpha),
    ))
}

fn facts(result: &SearchResult) -> Vec<Fact> {
    let SearchResult { choice, adapter, data, rules, model, .. } = result;
    let candidate = format!("k = {}", choice.one_se);
    let adapter_gain = gain_fact("Full adapter over the base model".to_owned(), &choice.adapter_gain);
    // Where the candidate is the full adapter, there is nothing to compare.
    let mut facts = if choice.one_se >= model.layers {
        vec![adapter_gain]
    } else {
        vec![
            gain_fact(format!("Candidate ({candidate}) over the full adapter"), &choice.gain),
            gain_fact(format!("Candidate ({candidate}) over the base model"), &choice.base_gain),
            adapter_gain,
            retained_fact(format!("Share of the adapter's gain that {candidate} retains"), result),
        ]
    };
    let stable = choice.bootstrap.get(choice.one_se).copied().unwrap_or(f64::NAN);
    facts.push(Fact {
        name: format!("Resamples that pick {candidate} as well"),
        value: fixed(stable * 100.0, 1, Sign::Minus),
        unit: "%",
        lines: vec![
            format!("of {} bootstrap resamples", count(rules.choice_resamples as u64)),
            counted(data.selection, "selection sample"),
        ],
    });
    let share = adapter.bytes_kept as f64 / adapter.bytes.max(1) as f64;
    facts.push(Fact {
        name: "Adapter tensors kept".to_owned(),
        value: words::bytes(adapter.bytes_kept),
        unit: "",
        lines: vec![
            glued(&format!("of {} ({})", words::bytes(adapter.bytes), percent(share))),
            format!("{} of {} layers", choice.layers_kept, model.layers),
        ],
    });
    facts
}

fn retained_fact(name: String, result: &SearchResult) -> Fact {
    let held_out = counted(result.choice.gain.samples, "held-out sample");
    let Some(retained) = &result.choice.retained else {
        let lines = vec!["not given: the adapter's own gain is not clear of 0".to_owned(), held_out];
        return Fact { name, value: NONE.to_owned(), unit: "", lines };
    };
    let [value, low, high] = words::estimate(retained, 100.0, 2, Sign::Minus);
    let lines = vec![glued(&format!("95 % interval {low} to {high} %")), held_out];
    Fact { name, value, unit: "%", lines }
}

fn gain_fact(name: String, gain: &Gain) -> Fact {
    let [value, low, high] = words::gain_digits(gain, Sign::Both);
    Fact {
        name,
        value,
        unit: "nats per token",
        lines: vec![
            glued(&format!("95 % interval {low} to {high}")),
            glued(&format!("{}, {}", p_value(gain.p), counted(gain.samples, "held-out sample"))),
        ],
    }
}

/// The score at every boundary, on both parts of the samples.
fn ablation(result: &SearchResult) -> Option<Figure> {
    let rows: Vec<&VariantSummary> = boundaries(result).collect();
    let digits = nll_decimals(&rows);
    let nats = |value| fixed(value, digits, Sign::Minus);
    let (selection, holdout) = (result.data.selection, result.data.holdout);
    let names = [format!("selection, ±1 standard error (n = {selection})"), format!("held out (n = {holdout})")];
    let points = |is_holdout: bool| {
        rows.iter().filter_map(move |row| {
            let (part, score) = if is_holdout { ("held out", row.holdout()) } else { ("selection", row.selection()) };
            let k = row.layers_kept;
            let note = format!("{k} layers kept, {part}: {} ± {} nats per token", nats(score.mean_nll), nats(score.se));
            let room = if is_holdout { 0.0 } else { score.se };
            let (y, low, high) = (score.mean_nll, score.mean_nll - room, score.mean_nll + room);
            let was_scored = if is_holdout { row.holdout.is_some() } else { row.selection.is_some() };
            was_scored.then_some(Point { x: k as f64, y, low, high, note })
        })
    };
    let series = vec![
        Series { name: &names[0], tone: Tone::A, shape: Shape::Band, points: points(false).collect() },
        Series { name: &names[1], tone: Tone::B, shape: Shape::Line, points: points(true).collect() },
    ];
    let layers = result.model.layers;
    let plot = Plot {
        label: "Line plot of the mean negative log-likelihood over the number of layers kept; its numbers stand in the \
                table below",
        x: "layers kept (k)",
        y: Axis { name: "nats per answer token", start: Start::Data, ticks: Ticks::Plain },
        series,
        marks: choice_marks(result),
    };
    let table = Table {
        caption: format!(
            "Mean and standard error, nats per answer token; {selection} selection and {holdout} held-out samples"
        ),
        spans: spans([("", 1), ("selection", 2), ("held out", 2)]),
        head: vec!["k", "NLL", "SE", "NLL", "SE"],
        rows: rows
            .iter()
            .map(|row| Row {
                cells: vec![
                    row.layers_kept.to_string(),
                    nats(row.selection().mean_nll),
                    nats(row.selection().se),
                    nats(row.holdout().mean_nll),
                    nats(row.holdout().se),
                ],
                is_chosen: row.layers_kept == result.choice.layers_kept,
            })
            .collect(),
    };
    (!rows.is_empty()).then(|| Figure {
        id: "ablation",
        title: "How well each cut predicts the right answers",
        svg: plot.render(),
        caption: format!(
            "Each point is the adapter cut at one boundary: LoRA stays in the lowest k layers and is dropped above, \
             from the base model (k = 0) to the full adapter (k = {layers}). The height is the negative log-likelihood \
             of the right answer, so lower is better. Marked are the lowest point on the selection samples (best), the \
             smallest k that is within one paired standard error of it (one-SE, the candidate), the bend of the curve \
             in the next figure (curve), and the answer (chosen)."
        ),
        limits: "The band is the spread between samples, easy and hard ones, not the uncertainty between two \
                 boundaries: those are compared sample by sample, so even a difference well inside the band can be \
                 sure. The lowest of many points looks better than it is, which is why no gain is read off this curve. \
                 The vertical axis does not start at 0."
            .to_owned(),
        table,
    })
}

/// The picks as marks over the number of layers kept.
fn choice_marks(result: &SearchResult) -> Vec<Mark> {
    let mark = |k: usize| {
        let names = marks(result, k);
        let weight = if names.contains(&CHOSEN) { Weight::Strong } else { Weight::Light };
        Mark { x: k as f64, label: format!("{k}: {}", names.join(", ")), weight }
    };
    picked(result).into_iter().map(mark).collect()
}

/// The ground-truth probability after each layer, for base and full.
fn lens(result: &SearchResult) -> Option<Figure> {
    let LensSummary { base, full, samples: n } = &result.lens;
    let n = *n;
    let points = |name: &'static str, curve: &[LensPoint]| {
        let point = |(layer, point): (usize, &LensPoint)| Point {
            x: layer as f64,
            y: point.probability,
            low: point.low,
            high: point.high,
            note: format!(
                "{name}, after layer {layer}: {} (95 % interval {} to {}); right token on top {}",
                number(point.probability),
                number(point.low),
                number(point.high),
                percent(point.top1),
            ),
        };
        curve.iter().enumerate().map(point).collect::<Vec<Point>>()
    };
    let series = vec![
        Series { name: "full adapter, 95 % interval", tone: Tone::A, shape: Shape::Band, points: points("full", full) },
        Series { name: "base model, 95 % interval", tone: Tone::B, shape: Shape::Band, points: points("base", base) },
    ];
    // The change point is a number of layers: it lies between the last layer below and the first above.
    let curve = result.choice.curve;
    let is_bent = 0 < curve && curve < full.len();
    let bend = || Mark {
        x: curve as f64 - 0.5,
        label: format!("bend between layers {} and {curve}", curve - 1),
        weight: Weight::Strong,
    };
    let plot = Plot {
        label: "Line plot of the probability of the right token after each layer, for the base model and the full \
                adapter; its numbers stand in the table below",
        x: "layer (0 next to the embedding)",
        y: Axis { name: "probability of the right token", start: Start::Zero, ticks: Ticks::Plain },
        series,
        marks: is_bent.then(bend).into_iter().collect(),
    };
    let interval =
        |point: &LensPoint| format!("{} to {}", fixed(point.low, 4, Sign::Minus), fixed(point.high, 4, Sign::Minus));
    let cells = |point: Option<&LensPoint>| match point {
        None => vec![NONE.to_owned(); 4],
        Some(point) => vec![
            fixed(point.probability, 4, Sign::Minus),
            interval(point),
            percent(point.top1),
            fixed(point.rank, 1, Sign::Minus),
        ],
    };
    let row = |layer: usize| {
        let cells = [vec![layer.to_string()], cells(base.get(layer)), cells(full.get(layer))].concat();
        Row { cells, is_chosen: false }
    };
    let found = if is_bent {
        format!(
            "The vertical line is the change point of the full curve, the split at which two straight lines fit it \
             best: between layers {} and {curve}.",
            curve - 1
        )
    } else {
        "The full curve has no change point: it is too short, or one straight line fits it.".to_owned()
    };
    let length = base.len().max(full.len());
    (length > 0).then(|| Figure {
        id: "lens",
        title: "Where the right answer appears",
        svg: plot.render(),
        caption: glued(&format!(
            "If the model had to answer after each layer, this is the probability it would give to the right token \
             (the logit lens): the mean over a sample's answer tokens, then over {}, with 95 % bootstrap intervals. \
             {found}",
            counted(n, "selection sample"),
        )),
        limits: "An early layer's state is read with a head made for the last layer's, so a low value there does not \
                 mean that nothing useful is computed. No cut is tested here: both curves are of whole models, and the \
                 change point is an indication only."
            .to_owned(),
        table: Table {
            caption: format!(
                "Probability of the right token with its 95 % interval, share of positions with it on top, and mean \
                 number of tokens above it; {n} selection samples"
            ),
            spans: spans([("", 1), ("base model", 4), ("full adapter", 4)]),
            head: vec!["layer", "mean", "interval", "on top", "above", "mean", "interval", "on top", "above"],
            rows: (0..length).map(row).collect(),
        },
    })
}

/// How often each boundary is picked when the samples are drawn again.
fn stability(result: &SearchResult) -> Option<Figure> {
    let shares = &result.choice.bootstrap;
    let (n, resamples) = (result.data.selection, count(result.rules.choice_resamples as u64));
    let point = |(k, &share): (usize, &f64)| Point {
        x: k as f64,
        y: share,
        low: share,
        high: share,
        note: format!("{k} layers kept: {} of resamples", percent(share)),
    };
    let points = shares.iter().enumerate().map(point).collect();
    let candidate = result.choice.one_se;
    let plot = Plot {
        label: "Bar plot of how often each boundary is picked over bootstrap resamples; its numbers stand in the table \
                below",
        x: "layers kept (k)",
        y: Axis { name: "share of resamples", start: Start::Zero, ticks: Ticks::Percent },
        series: vec![Series { name: "share", tone: Tone::A, shape: Shape::Bars, points }],
        marks: vec![Mark { x: candidate as f64, label: format!("{candidate}: one-SE"), weight: Weight::Light }],
    };
    let rows = shares.iter().enumerate().filter(|(_, share)| **share > 0.0).map(|(k, &share)| Row {
        cells: vec![k.to_string(), percent(share)],
        is_chosen: k == result.choice.layers_kept,
    });
    (!shares.is_empty()).then(|| Figure {
        id: "stability",
        title: "How stable the pick is",
        svg: plot.render(),
        caption: format!(
            "The {n} selection samples are drawn again with replacement {resamples} times, and each time the \
             one-standard-error rule picks anew. One tall bar means that the pick does not hang on single samples; \
             where the bars spread, read the boundary as a range."
        ),
        limits: "It shows the chance in this sample of the data, not what other data or another task would give, and \
                 it says nothing of whether the cut is worth it."
            .to_owned(),
        table: Table {
            caption: format!(
                "Share of {resamples} bootstrap resamples of {n} selection samples; boundaries never picked are left out"
            ),
            spans: vec![],
            head: vec!["k", "share"],
            rows: rows.collect(),
        },
    })
}

fn every_boundary(result: &SearchResult) -> Table {
    let rows: Vec<&VariantSummary> = boundaries(result).collect();
    let digits = nll_decimals(&rows);
    let nats = |value| fixed(value, digits, Sign::Minus);
    let full = full(result);
    let row = |row: &&VariantSummary| {
        let k = row.layers_kept;
        let (selection, holdout) = (row.selection(), row.holdout());
        let delta = full.map_or(f64::NAN, |full| selection.mean_nll - full.selection().mean_nll);
        Row {
            cells: vec![
                k.to_string(),
                plus_minus(nats(selection.mean_nll), &nats(selection.se)),
                fixed(delta, digits, Sign::Both),
                fixed(selection.mean_probability, 4, Sign::Minus),
                percent(selection.token_accuracy),
                plus_minus(nats(holdout.mean_nll), &nats(holdout.se)),
                fixed(holdout.mean_probability, 4, Sign::Minus),
                percent(holdout.token_accuracy),
                marks(result, k).into_iter().map(str::to_owned).chain(lost(result, k)).collect::<Vec<_>>().join(", "),
            ],
            is_chosen: k == result.choice.layers_kept,
        }
    };
    Table {
        caption: format!(
            "NLL: nats per answer token, mean ± standard error; Δ: difference to the full adapter, below 0 is better; \
             prob.: mean probability of the right token; acc.: share of tokens with the right one on top. {} selection \
             samples, {} held-out samples.",
            result.data.selection, result.data.holdout
        ),
        spans: spans([("", 1), ("selection", 4), ("held out", 3), ("", 1)]),
        head: vec!["k", "NLL", "Δ to full", "prob.", "acc.", "NLL", "prob.", "acc.", "picked by"],
        rows: rows.iter().map(row).collect(),
    }
}

fn provenance(result: &SearchResult) -> Vec<Group> {
    let SearchResult { model, adapter, data, cost, rules, .. } = result;
    let text = |name, value: String| Entry { name, value: glued(&value), is_code: false };
    let code = |name, value: &str| Entry { name, value: tame(value), is_code: true };
    let ranks: Vec<String> = adapter.ranks.iter().map(ToString::to_string).collect();
    let saved = 1.0 - cost.layer_passes as f64 / cost.layer_passes_naive.max(1) as f64;
    let resumed = match cost.resumed {
        0 => String::new(),
        resumed => format!(", without {} that an interrupted run had scored", counted(resumed, "sample")),
    };
    vec![
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
                text("left out", counted(data.skipped, "sample")),
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
                text("not worse above", format!("{} % of the adapter's gain", plain(rules.margin * 100.0))),
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
                text("scoring took", format!("{} s{resumed}", number(cost.seconds))),
                text("threads", count(cost.threads as u64)),
                text("arithmetic", format!("{} on {}", tame(&cost.dtype), tame(&cost.instructions))),
            ],
        },
    ]
}

fn spans<const N: usize>(spans: [(&'static str, usize); N]) -> Vec<Span> {
    spans.map(|(name, columns)| Span { name, columns }).into()
}

/// Decimals of the likelihoods: five significant digits of the largest.
fn nll_decimals(rows: &[&VariantSummary]) -> usize {
    let means = rows.iter().map(|row| row.selection().mean_nll).filter(|mean| mean.is_finite());
    decimals(means.fold(f64::NEG_INFINITY, f64::max), 5).min(5)
}

/// The last part of a path.
fn base_name(path: &str) -> String {
    let path = path.trim_end_matches(['/', '\\']);
    tame(path.rsplit(['/', '\\']).next().unwrap_or(path))
}
