//! The figure of sufficient layers: the retained share by layers kept, with the margin as a line that can be moved.

use plimsoll_stats::choose::Margin;
use plimsoll_stats::choose::sufficient::RetainedShare;
use serde::Serialize;

use super::page::{Figure, Panel, Row, Table};
use super::sections::{LAYERS_NEEDED, layers_needed_note};
use super::sufficient::sufficient_layers;
use super::svg::{Axis, INNER_HEIGHT, Plot, Point, Series, Shape, Start, Ticks, Tone};
use super::words::{Sign, bytes, counted, estimate, non_breaking, printable};
use crate::lora::Family;
use crate::result::{SearchResult, SufficientLayers, VariantSummary};

/// What the script needs to find the layers for any margin.
#[derive(Serialize)]
struct Data {
    layers: usize,
    /// The margin that was asked for, in percent.
    margin: f64,
    /// Bytes of the whole adapter.
    bytes: String,
    /// The path of the adapter, as the user gave it.
    adapter: String,
    /// The cuts in the order of their tests.
    cuts: Vec<Cut>,
}

#[derive(Serialize)]
struct Cut {
    kept: usize,
    /// The largest share that the cut is shown to retain, in percent.
    low: f64,
    /// The retained share with its interval.
    share: String,
    bytes: String,
}

/// The retained share of every cut of a family; `None` if there is none.
pub(super) fn figure(list: &SufficientLayers, result: &SearchResult) -> Option<Figure> {
    let cut = |share: &RetainedShare| {
        let is_it = |variant: &&VariantSummary| variant.family == list.family && variant.at == share.layers_kept as f64;
        let size = result.variants.iter().find(is_it).map_or(0, |variant| variant.bytes);
        let low = share.retained.low * 100.0;
        Cut { kept: share.layers_kept, low, share: percent(share), bytes: bytes(size) }
    };
    let asked = match result.rules.asked_margin() {
        Margin::Share(share) => share * 100.0,
        // A loss is not a share: the line starts at the default.
        Margin::Nats(_) => 98.0,
    };
    let data = Data {
        layers: result.model.layers,
        margin: asked,
        bytes: bytes(result.adapter.bytes),
        adapter: printable(&result.adapter.path),
        cuts: list.shares.iter().map(cut).collect(),
    };
    let row = |share: &RetainedShare| {
        let [value, low, high] = estimate(&share.retained, 100.0, 2, Sign::Minus);
        let is_chosen = result
            .candidate
            .as_ref()
            .is_some_and(|candidate| candidate.family == list.family && candidate.layers_kept == share.layers_kept);
        Row { cells: vec![share.layers_kept.to_string(), value, low, high], is_chosen }
    };
    let caption =
        format!("Retained share in %, with the ends of its 95 % interval; {}", counted(list.samples, "sample"));
    let shares = Table::new(&caption, ["k", "retained", "low", "high"], list.shares.iter().map(row).collect());
    let grid = sufficient_layers(list, result);
    let chosen = grid.chosen_row();
    let needed = Table::of_grid(&layers_needed_note(list.samples), grid, chosen);
    (!list.shares.is_empty()).then(|| Figure {
        id: "needed",
        title: LAYERS_NEEDED,
        picker: None,
        margin: serde_json::to_string(&data).ok(),
        panels: Panel::alone(plot(list, at_strength(result), asked)),
        caption: non_breaking(&format!(
            "How much of the adapter's gain over the base model is retained if LoRA is kept in k layers ({}). 100 % is the \
             full adapter; above 100 % the cut is better on these samples. The dashed line is the margin: move it to see \
             how many layers it needs.",
            list.family
        )),
        limits: "The band is the 95 % interval of one cut, over samples. Its lower end is what the cut is shown to retain. \
                 The answer for a margin is the last cut before the first whose lower end is below the margin, counted \
                 from the full adapter. A margin that is chosen after a look at the figure is not covered by the error \
                 rate: decide first."
            .to_owned(),
        tables: vec![needed, shares],
    })
}

/// `92.9 % (95 % interval 90.6 to 95.1 %)`.
fn percent(share: &RetainedShare) -> String {
    let [value, low, high] = estimate(&share.retained, 100.0, 2, Sign::Minus);
    format!("{value} % (95 % interval {low} to {high} %)")
}

/// The list of the boundaries at a tuned strength, if there is one.
fn at_strength(result: &SearchResult) -> Option<&SufficientLayers> {
    result.sufficient.iter().find(|list| list.family == Family::BoundaryStrength)
}

fn plot(list: &SufficientLayers, at_strength: Option<&SufficientLayers>, margin: f64) -> String {
    let point = |share: &RetainedShare| Point {
        x: share.layers_kept as f64,
        y: share.retained.value * 100.0,
        low: share.retained.low * 100.0,
        high: share.retained.high * 100.0,
        note: format!("{} layers kept: {}", share.layers_kept, percent(share)),
        label: String::new(),
    };
    let series = |name, tone, list: &SufficientLayers| {
        let points = list.shares.iter().rev().map(point).collect();
        Series { name, tone, shape: Shape::Band, reach: 1.0, points }
    };
    let as_trained = if at_strength.is_some() { "as trained" } else { "retained" };
    let mut curves = vec![series(as_trained, Tone::A, list)];
    curves.extend(at_strength.map(|list| series("at the tuned strength", Tone::B, list)));
    let plot = Plot {
        label: "Line plot of the share of the adapter's gain that is retained, by the number of layers kept; the values \
                are in the table below",
        x: Axis { name: "layers kept (k)", start: Start::Whole, ticks: Ticks::Plain },
        y: Axis { name: "% of the adapter's gain", start: Start::Data, ticks: Ticks::Plain },
        height: INNER_HEIGHT,
        series: curves,
        marks: Vec::new(),
    };
    plot.render_with_level(margin)
}
