//! Comparisons of several searches: results, size and cost, and inputs of each run.
//!
//! Runs are not tested against each other: that needs the scores of their samples, paired, which a result does not
//! hold. If runs differ in data or in held-out samples, their gains cannot be compared, and every form warns.

use std::collections::BTreeMap;
use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value};
use plimsoll_stats::choose::Verdict;
use serde::Serialize;

use super::grid::{Form, Grid, Side, clipped};
use super::html::STYLE;
use super::sections::{self, p_cell, with_interval};
use super::svg::{Axis, INNER_HEIGHT, Mark, Plot, Point, Series, Shape, Start, Ticks, Tone, Weight};
use super::terminal::Look;
use super::words::{
    self, NONE, Retained, Sign, bytes, count, counted, fixed, non_breaking, number, percent, printable,
};
use super::{boundaries, full};
use crate::result::{ComparedRun, Comparison, CurvePoint, Same, SearchResult};

const TEMPLATE: &str = include_str!("compare.html.jinja");

/// Version of the layout of a comparison.
const COMPARISON_SCHEMA: u32 = 1;

/// Longest name of a run in a table, in characters.
const NAME: usize = 18;

/// Order of the runs in a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sort {
    /// The order of the input.
    Given,
    /// By the candidate's gain over the full adapter, the largest first.
    Gain,
    /// By name.
    Name,
}

/// Compares named results.
pub fn compare(runs: &[(String, SearchResult)], sort: Sort) -> Comparison {
    let same = |of: fn(&SearchResult) -> String| {
        runs.windows(2).all(|pair| matches!(pair, [(_, a), (_, b)] if of(a) == of(b)))
    };
    let metric = |result: &SearchResult| result.metric.as_ref().filter(|m| m.decided).map(|m| m.name.clone());
    let same = Same {
        model: same(|result| result.model.sha256.clone()),
        adapter: same(|result| result.adapter.sha256.clone()),
        data: same(|result| result.data.sha256.clone()),
        samples: same(|result| {
            let data = &result.data;
            format!("{} {} {} {}", data.sha256, result.seed, data.selection, data.holdout)
        }),
        metric: runs.windows(2).all(|pair| matches!(pair, [(_, a), (_, b)] if metric(a) == metric(b))),
    };
    let mut rows: Vec<ComparedRun> = runs
        .iter()
        .map(|(name, result)| ComparedRun {
            name: name.clone(),
            model: result.model.path.clone(),
            model_sha256: result.model.sha256.clone(),
            adapter: result.adapter.path.clone(),
            adapter_sha256: result.adapter.sha256.clone(),
            data: result.data.path.clone(),
            data_sha256: result.data.sha256.clone(),
            seed: result.seed,
            selection: result.data.selection,
            holdout: result.data.holdout,
            verdict: result.choice.verdict,
            reason: result.choice.reason,
            candidate: sections::candidate_name(result),
            layers: result.model.layers,
            metric: metric(result),
            gain: result.choice.gain,
            adapter_gain: result.choice.adapter_gain,
            retained: result.choice.retained,
            bytes_kept: result.adapter.bytes_kept,
            bytes: result.adapter.bytes,
            seconds: result.cost.seconds,
            resumed: result.cost.resumed,
            curve: curve(result),
        })
        .collect();
    match sort {
        Sort::Given => {}
        Sort::Gain => rows.sort_by(|a, b| b.gain.mean.total_cmp(&a.gain.mean)),
        Sort::Name => rows.sort_by(|a, b| a.name.cmp(&b.name)),
    }
    Comparison { schema: COMPARISON_SCHEMA, same, runs: rows }
}

fn curve(result: &SearchResult) -> Vec<CurvePoint> {
    let Some(full) = full(result).and_then(|full| full.selection) else { return Vec::new() };
    let layers = result.model.layers.max(1) as f64;
    let point = |layers_kept: usize, nll: f64| CurvePoint {
        layers_kept,
        depth: layers_kept as f64 / layers,
        over_full: nll - full.mean_nll,
    };
    let points = boundaries(result).filter_map(|row| Some(point(row.layers_kept, row.selection?.mean_nll)));
    points.filter(|point| point.over_full.is_finite()).collect()
}

/// Distinct names for results by their paths: the folder or file name, with the parent folder if two are equal, and a
/// number if they still are.
pub fn unique_names(files: &[&Path]) -> Vec<String> {
    let parts = |file: &Path| -> Vec<String> {
        // `result.json` is no name; its folder is.
        let named = match file.file_name() {
            Some(name) if name == "result.json" => file.parent().unwrap_or(file).to_owned(),
            _ => file.with_extension(""),
        };
        let named = named.canonicalize().unwrap_or(named);
        named.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).rev().collect()
    };
    let parts: Vec<Vec<String>> = files.iter().map(|file| parts(file)).collect();
    let name = |parts: &[String], length: usize| parts.iter().take(length).rev().cloned().collect::<Vec<_>>().join("/");
    let mut names: Vec<String> = parts.iter().map(|parts| name(parts, 1)).collect();
    let is_repeated = |names: &[String], name: &str| names.iter().filter(|other| *other == name).count() > 1;
    let repeated: Vec<bool> = names.iter().map(|name| is_repeated(&names, name)).collect();
    for ((short, parts), is_repeated) in names.iter_mut().zip(&parts).zip(repeated) {
        if is_repeated {
            *short = name(parts, 2);
        }
    }
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for name in &mut names {
        let times = seen.entry(name.clone()).or_default();
        *times += 1;
        if *times > 1 {
            name.push_str(&format!(" ({times})"));
        }
    }
    names
}

/// A comparison as tables. Ends with a line feed.
pub fn comparison(comparison: &Comparison, form: Form) -> String {
    let mut out = String::new();
    for (index, (_, grid)) in grids(comparison).iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        grid.write(&mut out, form);
    }
    for (look, note) in notes(comparison) {
        out.push('\n');
        form.paragraph(&mut out, look, &note);
    }
    out
}

/// Results, size and cost, and inputs of the runs.
fn grids(comparison: &Comparison) -> [(&'static str, Grid); 3] {
    let mut found = Grid::new(&[
        ("run", Side::Left),
        ("verdict", Side::Left),
        ("candidate", Side::Left),
        ("gain", Side::Right),
        ("95 % interval", Side::Left),
        ("p", Side::Left),
        ("adapter gain", Side::Right),
    ]);
    let mut kept = Grid::new(&[
        ("run", Side::Left),
        ("retained", Side::Right),
        ("95 % interval", Side::Left),
        ("tensors kept", Side::Right),
        ("share", Side::Right),
        ("samples", Side::Right),
        ("scoring", Side::Right),
    ]);
    let mut given = Grid::new(&[
        ("run", Side::Left),
        ("model", Side::Left),
        ("adapter", Side::Left),
        ("data", Side::Left),
        ("seed", Side::Right),
    ]);
    for run in &comparison.runs {
        let name = clipped(&run.name, NAME);
        let [gain, interval] = with_interval(&run.gain);
        let [adapter_gain, _] = with_interval(&run.adapter_gain);
        let cells = vec![
            name.clone(),
            verdict(run.verdict).to_owned(),
            clipped(&run.candidate, 14),
            gain,
            interval,
            p_cell(run.gain.p),
            adapter_gain,
        ];
        found.row(cells);
        let [retained, interval] = match Retained::of(run.retained, &run.adapter_gain) {
            None => [NONE.to_owned(), String::new()],
            Some(Retained::GainTooSmall { .. }) => [NONE.to_owned(), "gain too small".to_owned()],
            Some(Retained::Share(share)) => {
                let [value, low, high] = words::estimate(&share, 100.0, 2, Sign::Minus);
                [format!("{value} %"), format!("{low} to {high} %")]
            }
        };
        kept.row(vec![
            name.clone(),
            retained,
            interval,
            format!("{} of {}", bytes(run.bytes_kept), bytes(run.bytes)),
            percent(run.bytes_kept as f64 / run.bytes.max(1) as f64),
            format!("{} + {}", count(run.selection as u64), count(run.holdout as u64)),
            format!("{} s{}", number(run.seconds), if run.resumed > 0 { " †" } else { "" }),
        ]);
        given.row(vec![
            name,
            input(&run.model, &run.model_sha256),
            input(&run.adapter, &run.adapter_sha256),
            input(&run.data, &run.data_sha256),
            run.seed.to_string(),
        ]);
    }
    [("Results", found), ("Size and cost", kept), ("Inputs", given)]
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Trim => "trim",
        Verdict::KeepFull => "keep full",
        Verdict::UseBase => "use base",
    }
}

/// The last part of a path with the start of the hash, which differs for different files of one name.
fn input(path: &str, sha256: &str) -> String {
    let last = path.trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next().unwrap_or(path);
    format!("{} {}", clipped(last, 14), printable(&sha256.chars().take(7).collect::<String>()))
}

/// Warnings on what cannot be compared, and the legend of the tables.
fn notes(comparison: &Comparison) -> Vec<(Look, String)> {
    let Same { model, adapter, data, samples, metric } = comparison.same;
    let mut notes = Vec::new();
    if !data {
        let note =
            "The runs are on different data: their gains are measured on different samples and cannot be compared.";
        notes.push((Look::Warning, note.to_owned()));
    } else if !samples {
        let note = "The runs sampled or split the same data differently: a difference between their gains includes the \
                    variation between samples.";
        notes.push((Look::Warning, note.to_owned()));
    }
    if !metric {
        let note = "The runs used different metrics to choose: their gains are in different units.";
        notes.push((Look::Warning, note.to_owned()));
    }
    let inputs = [("base model", model), ("adapter", adapter), ("data", data)];
    let names = |wanted: bool| {
        let names: Vec<&str> = inputs.iter().filter(|(_, same)| *same == wanted).map(|(name, _)| *name).collect();
        match names[..] {
            [] => None,
            [name] => Some(name.to_owned()),
            [ref first @ .., last] => Some(format!("{} and {last}", first.join(", "))),
        }
    };
    let shared = names(true).map(|names| format!("The same in all runs: {names}.")).unwrap_or_default();
    let differ = names(false).map(|names| format!("Not the same: {names}.")).unwrap_or_default();
    let unit = match comparison.runs.first().and_then(|run| run.metric.as_ref()) {
        _ if !metric => "the unit of each run".to_owned(),
        Some(name) => format!("points of {}", clipped(name, 40)),
        None => "nats per answer token".to_owned(),
    };
    let note = format!(
        "{shared} {differ} Gain: the candidate over the full adapter. Adapter gain: the full adapter over the base \
         model. Gains are in {unit}, on each run's own held-out samples; above 0 is better. Intervals and p-values \
         are of single runs: runs are not tested against each other. Samples: selection + held-out."
    );
    let mut note = note.trim_start().replace("  ", " ");
    if comparison.runs.iter().any(|run| run.resumed > 0) {
        note.push_str(" † Interrupted: without the time of samples that were scored before the interruption.");
    }
    notes.push((Look::Dim, note));
    notes
}

/// The fields of the template: texts only.
#[derive(Serialize)]
struct Page {
    style: &'static str,
    title: String,
    warnings: Vec<String>,
    note: String,
    tables: Vec<PageTable>,
    figures: Vec<Figure>,
    caption: &'static str,
}

#[derive(Serialize)]
struct PageTable {
    title: &'static str,
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

#[derive(Serialize)]
struct Figure {
    title: String,
    svg: String,
}

/// A comparison as one self-contained HTML page, without script.
pub fn comparison_html(comparison: &Comparison) -> String {
    const RENDERS: &str = "the built-in template parses, and the page has all its fields";
    let (warnings, others): (Vec<_>, Vec<_>) =
        notes(comparison).into_iter().partition(|(look, _)| matches!(look, Look::Warning));
    let text = |notes: Vec<(Look, String)>| notes.into_iter().map(|(_, note)| non_breaking(&note)).collect::<Vec<_>>();
    let tables = grids(comparison).map(|(title, grid)| PageTable { title, head: grid.head(), rows: grid.rows });
    let page = Page {
        style: STYLE,
        title: counted(comparison.runs.len(), "search").replace("searchs", "searches"),
        warnings: text(warnings),
        note: text(others).join(" "),
        tables: tables.into(),
        figures: figures(comparison),
        caption: "Mean NLL of each boundary on the selection samples, minus the full adapter's: below 0 the boundary \
                  is better. The horizontal axis is the share of layers that keep LoRA, because models differ in \
                  depth. The lowest of many points is low partly by chance; the gains in the table are from other \
                  samples.",
    };
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().expect(RENDERS));
    environment.render_named_str("compare.html", TEMPLATE, Value::from(Serde(page))).expect(RENDERS)
}

/// Figures of the runs, as many runs in each as there are tones.
fn figures(comparison: &Comparison) -> Vec<Figure> {
    let with_curve: Vec<&ComparedRun> = comparison.runs.iter().filter(|run| !run.curve.is_empty()).collect();
    with_curve.chunks(Tone::ALL.len()).map(figure).collect()
}

fn figure(runs: &[&ComparedRun]) -> Figure {
    let names: Vec<String> = runs.iter().map(|run| clipped(&run.name, 40)).collect();
    let series = runs.iter().zip(&names).zip(Tone::ALL).map(|((run, name), tone)| Series {
        name,
        tone,
        shape: Shape::Line,
        // A race leaves gaps between the scored boundaries: a line crosses gaps of up to two layers.
        reach: 2.5 / run.layers.max(1) as f64,
        points: run.curve.iter().map(|point| plotted(name, run, point)).collect(),
    });
    let plot = Plot {
        label: "Line plot of the mean negative log-likelihood relative to the full adapter, by the share of layers \
                that keep LoRA",
        x: Axis { name: "share of layers that keep LoRA", start: Start::Data, ticks: Ticks::Percent },
        y: Axis {
            name: "NLL minus the full adapter's, nats per answer token",
            start: Start::Data,
            ticks: Ticks::Plain,
        },
        height: INNER_HEIGHT,
        series: series.collect(),
        marks: vec![Mark { x: 1.0, label: "full adapter".to_owned(), weight: Weight::Light }],
    };
    let svg = plot.render();
    Figure { title: names.join(" and "), svg }
}

fn plotted(name: &str, run: &ComparedRun, point: &CurvePoint) -> Point {
    let over_full = point.over_full;
    let note = format!("{name}, {} of {} layers: {}", point.layers_kept, run.layers, fixed(over_full, 5, Sign::Both));
    Point { x: point.depth, y: over_full, low: over_full, high: over_full, note, label: String::new() }
}
