//! Figures of effects: measures of layers and modules, and the rank correlation of measures.

use std::collections::BTreeSet;

use super::evidence::{self, effect, effect_note, is_signed};
use super::page::{Extra, Figure, Panel, Row, Table};
use super::svg::{Axis, Cell, Heat, HeatRow, Legend, Palette, Plot, Point, Series, Shape, Start, Ticks, Tone};
use super::words::{NONE, Sign, count, counted, decimals, fixed, non_breaking, p_value, printable};
use crate::lora::Projection;
use crate::result::{EffectKind, EffectMeasure, EffectValue, Effects, SearchResult};

/// The figures of effects that have data.
pub(super) fn figures(result: &SearchResult) -> Vec<Figure> {
    let Some(effects) = &result.effects else { return Vec::new() };
    [by_module(effects), by_layer(effects), with_intervals(effects)].into_iter().flatten().collect()
}

/// The rank correlation of measures over the layers.
pub(super) fn agreement(result: &SearchResult) -> Option<Extra> {
    let effects = result.effects.as_ref().filter(|effects| !effects.agreement.is_empty())?;
    let rows = effects.agreement.iter().map(|row| {
        Row::plain(vec![
            effect(row.proxy).to_owned(),
            effect(row.truth).to_owned(),
            fixed(row.rho, 2, Sign::Both),
            p_value(row.p),
            count(row.layers as u64),
        ])
    });
    let caption = "ρ: Spearman's rank correlation over the layers; 1 is the same order, 0 no relation. p: two-sided \
                   permutation test, not adjusted for the number of tests. n: number of layers.";
    Some(Extra {
        id: "agreement",
        title: "Rank correlation of measures",
        text: evidence::agreement(result).map(|text| non_breaking(&text)).into_iter().collect(),
        tables: vec![Table::new(caption, ["cheap measure", "measured effect", "ρ", "p", "n"], rows.collect()).named(2)],
        folded: Vec::new(),
    })
}

/// Name of a measure, and what it was measured on: `alone on the base model (64 samples)`.
fn title(measure: &EffectMeasure) -> String {
    let mut name = effect(measure.kind).to_owned();
    let mut grounds = Vec::new();
    if measure.samples > 0 {
        grounds.push(counted(measure.samples, "sample"));
    }
    if measure.permutations > 0 {
        grounds.push(counted(measure.permutations, "permutation"));
    }
    if !grounds.is_empty() {
        name.push_str(&format!(" ({})", grounds.join(", ")));
    }
    name
}

/// Decimals of a measure: four significant digits of its largest absolute value.
fn digits(measure: &EffectMeasure) -> usize {
    let sizes = measure.values.iter().map(|value| value.value.abs()).filter(|size| size.is_finite());
    decimals(sizes.fold(0.0, f64::max), 4).min(7)
}

/// The interval of a value; `None` for a value without interval.
fn interval(value: &EffectValue, digits: usize) -> Option<String> {
    let [low, high] = value.interval?.map(|end| fixed(end, digits, Sign::Minus));
    Some(format!("{low} to {high}"))
}

/// A value with its interval.
fn value_text(value: &EffectValue, digits: usize) -> String {
    let number = fixed(value.value, digits, Sign::Minus);
    match interval(value, digits) {
        Some(interval) => format!("{number} (95 % interval {interval})"),
        None => number,
    }
}

/// The values of whole layers.
fn of_layers(measure: &EffectMeasure) -> impl Iterator<Item = &EffectValue> {
    measure.values.iter().filter(|value| value.module.is_none())
}

/// The values of modules.
fn of_modules(measure: &EffectMeasure) -> impl Iterator<Item = (&EffectValue, &str)> {
    measure.values.iter().filter_map(|value| Some((value, value.module.as_deref()?)))
}

fn palette<'a>(kind: EffectKind, values: impl Iterator<Item = &'a EffectValue>) -> Palette {
    let values = values.map(|value| value.value);
    if is_signed(kind) { Palette::around_zero(values) } else { Palette::rising(values) }
}

/// The legend of a measure's palette.
fn legend(measure: &EffectMeasure, palette: Palette) -> Legend {
    let number = |value| fixed(value, digits(measure), Sign::Minus);
    let (low, high) = match palette {
        Palette::Diverging { most } => {
            let (low, high) = match measure.kind {
                EffectKind::Lens => ("lowers the probability", "raises it"),
                _ => ("harms", "helps"),
            };
            (format!("{low} −{}", number(most)), format!("+{} {high}", number(most)))
        }
        Palette::Sequential { low, high } => (number(low), number(high)),
    };
    Legend { palette, low, high }
}

/// A heat map of layers × modules for each measure.
fn by_module(effects: &Effects) -> Option<Figure> {
    let measures: Vec<&EffectMeasure> =
        effects.measures.iter().filter(|measure| of_modules(measure).next().is_some()).collect();
    let panel = |measure: &&EffectMeasure| {
        let layers: BTreeSet<usize> = of_modules(measure).map(|(value, _)| value.layer).collect();
        let colours = palette(measure.kind, of_modules(measure).map(|(value, _)| value));
        let row = |module: &String| HeatRow {
            name: printable(module),
            palette: colours,
            scale: String::new(),
            cells: layers
                .iter()
                .map(|layer| {
                    let (value, _) =
                        of_modules(measure).find(|(value, name)| value.layer == *layer && name == module)?;
                    let note = format!(
                        "{}, layer {layer}, {}: {}",
                        effect(measure.kind),
                        printable(module),
                        value_text(value, digits(measure))
                    );
                    Some(Cell { value: value.value, note })
                })
                .collect(),
        };
        let label =
            format!("Heat map by layer and module: {}; the values are in the table below", effect(measure.kind));
        let heat = Heat {
            label: &label,
            x: "layer (0 next to the embedding)",
            columns: layers.iter().map(ToString::to_string).collect(),
            rows: modules(measure).iter().map(row).collect(),
            legends: vec![legend(measure, colours)],
        };
        Panel { name: format!("{}: {}", title(measure), effect_note(measure.kind)), svg: heat.render() }
    };
    let table = |measure: &&EffectMeasure| {
        let layers: BTreeSet<usize> = of_modules(measure).map(|(value, _)| value.layer).collect();
        let names = modules(measure);
        let rows = layers.iter().map(|layer| {
            let value = |name: &String| {
                let found = of_modules(measure).find(|(value, module)| value.layer == *layer && module == name);
                found.map_or_else(|| NONE.to_owned(), |(value, _)| fixed(value.value, digits(measure), Sign::Minus))
            };
            Row::plain([vec![layer.to_string()], names.iter().map(value).collect()].concat())
        });
        let rows = rows.collect();
        let head = [vec!["layer".to_owned()], names.iter().map(|name| printable(name)).collect()].concat();
        let caption = format!("{}: {}", title(measure), effect_note(measure.kind));
        Table { caption, spans: Vec::new(), head, rows, names: 0 }
    };
    (!measures.is_empty()).then(|| Figure {
        id: "modules",
        title: "Effect of each module",
        picker: (measures.len() > 1).then_some("measure"),
        margin: None,
        panels: measures.iter().map(panel).collect(),
        caption: "One cell for each module with LoRA, layer 0 on the left. For signed measures, blue is above 0: LoRA \
             helps. Orange with a minus sign is below 0: LoRA harms, the NLL is lower without it."
            .to_owned(),
        limits: "Modules are measured one by one. The effect of two modules is not the sum of their effects, and \
                 modules that can replace each other look unimportant. Single cells are not tested. Each measure has \
                 its own scale."
            .to_owned(),
        tables: measures.iter().map(table).collect(),
    })
}

/// The modules of a measure, in the order of a block.
fn modules(measure: &EffectMeasure) -> Vec<String> {
    let mut names: Vec<String> = of_modules(measure).map(|(_, module)| module.to_owned()).collect();
    let place = |name: &String| Projection::from_name(name).map_or(Projection::COUNT, |module| module as usize);
    names.sort_by(|a, b| place(a).cmp(&place(b)).then_with(|| a.cmp(b)));
    names.dedup();
    names
}

/// A heat map of all measures of whole layers, one row for each, with its own scale.
fn by_layer(effects: &Effects) -> Option<Figure> {
    let measures: Vec<&EffectMeasure> =
        effects.measures.iter().filter(|measure| of_layers(measure).next().is_some()).collect();
    let layers: BTreeSet<usize> =
        measures.iter().flat_map(|measure| of_layers(measure)).map(|value| value.layer).collect();
    let row = |measure: &&EffectMeasure| {
        let colours = palette(measure.kind, of_layers(measure));
        let cell = |layer: &usize| {
            let value = of_layers(measure).find(|value| value.layer == *layer)?;
            let note = format!("{}, layer {layer}: {}", effect(measure.kind), value_text(value, digits(measure)));
            Some(Cell { value: value.value, note })
        };
        let number = |value| fixed(value, digits(measure), Sign::Minus);
        HeatRow {
            name: effect(measure.kind).to_owned(),
            palette: colours,
            scale: match colours {
                Palette::Diverging { most } => format!("±{}", number(most)),
                Palette::Sequential { low, high } => format!("{} to {}", number(low), number(high)),
            },
            cells: layers.iter().map(cell).collect(),
        }
    };
    let mut legends = Vec::new();
    if measures.iter().any(|measure| is_signed(measure.kind)) {
        let palette = Palette::Diverging { most: 1.0 };
        legends.push(Legend { palette, low: "harms".to_owned(), high: "helps".to_owned() });
    }
    if measures.iter().any(|measure| !is_signed(measure.kind)) {
        let palette = Palette::Sequential { low: 0.0, high: 1.0 };
        legends.push(Legend { palette, low: "least".to_owned(), high: "most".to_owned() });
    }
    let heat = Heat {
        label: "Heat map with one row for each measure of the layers, each with its own scale; the values are in the \
                table below",
        x: "layer (0 next to the embedding)",
        columns: layers.iter().map(ToString::to_string).collect(),
        rows: measures.iter().map(row).collect(),
        legends,
    };
    let rows = layers.iter().map(|layer| {
        let value = |measure: &&EffectMeasure| {
            let found = of_layers(measure).find(|value| value.layer == *layer);
            found.map_or_else(|| NONE.to_owned(), |value| fixed(value.value, digits(measure), Sign::Minus))
        };
        Row::plain([vec![layer.to_string()], measures.iter().map(value).collect()].concat())
    });
    let caption = measures.iter().map(|measure| format!("{}: {}", title(measure), effect_note(measure.kind)));
    let table = Table {
        caption: non_breaking(&caption.collect::<Vec<String>>().join("; ")),
        spans: Vec::new(),
        head: [vec!["layer".to_owned()], measures.iter().map(|measure| effect(measure.kind).to_owned()).collect()]
            .concat(),
        rows: rows.collect(),
        names: 0,
    };
    (!measures.is_empty()).then(|| Figure {
        id: "layers",
        title: "All measures by layer",
        picker: None,
        margin: None,
        panels: Panel::alone(heat.render()),
        caption:
            "One row for each measure of whole layers, with the range of its colours on the right. Rows with the same \
             pattern order the layers in the same way."
                .to_owned(),
        limits: "Each row has its own scale: colours compare layers within a row, not between rows.".to_owned(),
        tables: vec![table],
    })
}

/// Bar plots of the measured effects of whole layers, with intervals.
fn with_intervals(effects: &Effects) -> Option<Figure> {
    const MEASURED: [EffectKind; 3] = [EffectKind::LeaveOneOut, EffectKind::LeaveOneIn, EffectKind::Shapley];
    let measures = effects.measures.iter().filter(|measure| MEASURED.contains(&measure.kind));
    let measures: Vec<&EffectMeasure> = measures.filter(|measure| of_layers(measure).next().is_some()).collect();
    let panel = |measure: &&EffectMeasure| {
        let point = |value: &EffectValue| {
            let [low, high] = value.interval.unwrap_or([value.value; 2]);
            let note =
                format!("{}, layer {}: {}", effect(measure.kind), value.layer, value_text(value, digits(measure)));
            Point { x: value.layer as f64, y: value.value, low, high, note, label: String::new() }
        };
        let label = format!(
            "Bar plot by layer with 95 % intervals: {}; the values are in the table below",
            effect(measure.kind)
        );
        let points = of_layers(measure).map(point).collect();
        let plot = Plot {
            label: &label,
            x: Axis { name: "layer (0 next to the embedding)", start: Start::Whole, ticks: Ticks::Plain },
            y: Axis { name: "nats per token", start: Start::Zero, ticks: Ticks::Plain },
            height: 170.0,
            series: vec![Series { name: "", tone: Tone::A, shape: Shape::Bars, reach: 1.0, points }],
            marks: Vec::new(),
        };
        Panel { name: format!("{}: {}", title(measure), effect_note(measure.kind)), svg: plot.render() }
    };
    let table = |measure: &&EffectMeasure| {
        let rows = of_layers(measure).map(|value| {
            let digits = digits(measure);
            let interval = interval(value, digits).unwrap_or_else(|| NONE.to_owned());
            Row::plain(vec![value.layer.to_string(), fixed(value.value, digits, Sign::Minus), interval])
        });
        let caption = format!("{}: {}", title(measure), effect_note(measure.kind));
        Table::new(&caption, ["layer", "effect", "95 % interval"], rows.collect())
    };
    (!measures.is_empty()).then(|| Figure {
        id: "effects",
        title: "Effect of each layer",
        picker: None,
        margin: None,
        panels: measures.iter().map(panel).collect(),
        caption: "Above 0, the LoRA of the layer helps. Removed from the full adapter: the loss without it \
                  (leave-one-out). Alone on the base model: the gain of this layer only (leave-one-in). Shapley value: \
                  the mean gain of adding the layer, over orders of the layers. Whiskers are 95 % intervals."
            .to_owned(),
        limits:
            "The effect of removing a layer is small if other layers can replace it; the effect of a layer alone is \
                 small if it needs other layers. Each interval holds for one layer: of many, about 5 % miss the true \
                 effect."
                .to_owned(),
        tables: measures.iter().map(table).collect(),
    })
}
