//! The figures of cuts: how well they predict, how stable the pick is, what the controls gain, and what is best at its
//! price.

use plimsoll_stats::choose::Gain;

use super::evidence::{self, family};
use super::page::{Extra, Figure, Panel, Row, Table};
use super::svg::{Axis, Estimate, Forest, INNER_HEIGHT, Mark, Plot, Point, Series, Shape, Start, Ticks, Tone, Weight};
use super::words::{
    self, NONE, Sign, count, counted, decimals, fixed, glued, number, p_value, percent, plus_minus, tame,
};
use super::{CHOSEN, boundaries, chosen, marks, picked};
use crate::lora::Family;
use crate::result::{Control, FamilySummary, LensPoint, LensSummary, ScoreSummary, SearchResult, VariantSummary};

/// Families whose members are so many layers as a cut has, and the looks of their lines.
const BESIDE: [(Family, Tone); 4] =
    [(Family::TopK, Tone::C), (Family::RandomK, Tone::D), (Family::MagnitudeK, Tone::E), (Family::OutputK, Tone::F)];

/// The name of an axis of likelihoods.
const NATS: &str = "nats per answer token";

/// Decimals of the likelihoods: five significant digits of the largest.
pub(super) fn nll_decimals<'a>(rows: impl IntoIterator<Item = &'a VariantSummary>) -> usize {
    let means = rows.into_iter().map(|row| row.selection().mean_nll).filter(|mean| mean.is_finite());
    decimals(means.fold(f64::NEG_INFINITY, f64::max), 5).min(5)
}

fn layers_axis() -> Axis<'static> {
    Axis { name: "layers kept (k)", start: Start::Whole, ticks: Ticks::Plain }
}

/// The score at every boundary, on both parts of the samples, and beside it other ways to keep as many layers.
pub(super) fn ablation(result: &SearchResult) -> Option<Figure> {
    let rows: Vec<&VariantSummary> = boundaries(result).collect();
    let digits = nll_decimals(rows.iter().copied());
    let nats = |value| fixed(value, digits, Sign::Minus);
    let (selection, holdout) = (result.data.selection, result.data.holdout);
    let names = [format!("selection, ±1 standard error (n = {selection})"), format!("held out (n = {holdout})")];
    let point = |k: usize, part: &str, score: &ScoreSummary, room: f64| Point {
        x: k as f64,
        y: score.mean_nll,
        low: score.mean_nll - room,
        high: score.mean_nll + room,
        note: format!("{k} layers kept, {part}: {} ± {} nats per token", nats(score.mean_nll), nats(score.se)),
        label: String::new(),
    };
    let selected = rows.iter().filter_map(|row| Some((row, row.selection?)));
    let judged = rows.iter().filter_map(|row| Some((row, row.holdout?)));
    let selected: Vec<Point> =
        selected.map(|(row, score)| point(row.layers_kept, "selection", &score, score.se)).collect();
    let judged: Vec<Point> = judged.map(|(row, score)| point(row.layers_kept, "held out", &score, 0.0)).collect();
    let mut series = vec![
        Series { name: &names[0], tone: Tone::A, shape: Shape::Band, reach: 1.0, points: selected },
        Series { name: &names[1], tone: Tone::B, shape: Shape::Line, reach: 1.0, points: judged },
    ];
    let beside: Vec<(Family, Tone, Vec<Point>)> = BESIDE
        .into_iter()
        .map(|(name, tone)| (name, tone, by_count(result, name, digits)))
        .filter(|(.., points)| !points.is_empty())
        .collect();
    for (name, tone, points) in &beside {
        let (shape, reach) = (Shape::Line, f64::INFINITY);
        series.push(Series { name: family(*name), tone: *tone, shape, reach, points: points.clone() });
    }
    series.retain(|series| !series.points.is_empty());
    let layers = result.model.layers;
    let plot = Plot {
        label: "Line plot of the mean negative log-likelihood over the number of layers kept; its numbers stand in the \
                table below",
        x: layers_axis(),
        y: Axis { name: NATS, start: Start::Data, ticks: Ticks::Plain },
        height: INNER_HEIGHT,
        series,
        marks: choice_marks(result),
    };
    let numbers = |row: &&VariantSummary| Row {
        cells: vec![
            row.layers_kept.to_string(),
            nats(row.selection().mean_nll),
            nats(row.selection().se),
            nats(row.holdout().mean_nll),
            nats(row.holdout().se),
        ],
        is_chosen: Some(row.layers_kept) == chosen(result),
    };
    let caption =
        format!("Mean and standard error, nats per answer token; {selection} selection and {holdout} held-out samples");
    let table = Table::new(&caption, ["k", "NLL", "SE", "NLL", "SE"], rows.iter().map(numbers).collect());
    let mut tables = vec![table.under([("", 1), ("selection", 2), ("held out", 2)])];
    let mut caption = format!(
        "Each point is the adapter cut at one boundary: LoRA stays in the lowest k layers and is dropped above, from the \
         base model (k = 0) to the full adapter (k = {layers}). The height is the negative log-likelihood of the right \
         answer, so lower is better. Marked are the lowest point on the selection samples (best), the smallest k that is \
         within one paired standard error of it (one-SE, the candidate), the bend of the full adapter's probability \
         curve (curve), and the answer (chosen)."
    );
    if !beside.is_empty() {
        caption.push_str(
            " The other lines keep as many layers, but others: the highest (top-k), drawn ones (random-k, mean over the \
             draws), those with the largest update (magnitude-k), or with the most energy on samples (output-k), on the \
             selection samples. They run straight over counts that were not scored.",
        );
        let rows = beside.iter().flat_map(|(name, _, points)| {
            points.iter().map(move |point| {
                let range = if point.low < point.high {
                    format!("{} to {}", nats(point.low), nats(point.high))
                } else {
                    NONE.to_owned()
                };
                Row::plain(vec![family(*name).to_owned(), point.x.to_string(), nats(point.y), range])
            })
        });
        let caption = "Other ways to keep as many layers: mean NLL on the selection samples, and where several were \
                       drawn the least and the greatest.";
        tables.push(Table::new(caption, ["family", "k", "NLL", "range over draws"], rows.collect()).named(1));
    }
    (!rows.is_empty()).then(|| Figure {
        id: "ablation",
        title: "How well each cut predicts the right answers",
        picker: None,
        panels: Panel::alone(plot.render()),
        caption: glued(&caption),
        limits: "The band is the spread between samples, easy and hard ones, not the uncertainty between two \
                 boundaries: those are compared sample by sample, so even a difference well inside the band can be \
                 sure. The lowest of many points looks better than it is, which is why no gain is read off this curve. \
                 The vertical axis does not start at 0."
            .to_owned(),
        tables,
    })
}

/// The members of a family by the number of layers that they keep: the mean where there are several of one number.
fn by_count(result: &SearchResult, name: Family, digits: usize) -> Vec<Point> {
    let nats = |value| fixed(value, digits, Sign::Minus);
    let members = result.variants.iter().filter(|variant| variant.family == name && variant.at.is_finite());
    let mut members: Vec<(f64, f64)> =
        members.filter_map(|variant| Some((variant.at, variant.selection?.mean_nll))).collect();
    members.sort_by(|a, b| a.0.total_cmp(&b.0));
    let point = |draws: &[(f64, f64)]| {
        let y = draws.iter().map(|draw| draw.1).sum::<f64>() / draws.len() as f64;
        let low = draws.iter().map(|draw| draw.1).fold(f64::INFINITY, f64::min);
        let high = draws.iter().map(|draw| draw.1).fold(f64::NEG_INFINITY, f64::max);
        let note = match draws.len() {
            1 => format!("{}, k = {}: {} nats per token", family(name), draws[0].0, nats(y)),
            count => format!(
                "{}, k = {}: {} nats per token, mean of {count} draws ({} to {})",
                family(name),
                draws[0].0,
                nats(y),
                nats(low),
                nats(high)
            ),
        };
        Point { x: draws[0].0, y, low, high, note, label: String::new() }
    };
    members.chunk_by(|a, b| a.0 == b.0).map(point).collect()
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
pub(super) fn lens(result: &SearchResult) -> Option<Figure> {
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
            label: String::new(),
        };
        curve.iter().enumerate().map(point).collect::<Vec<Point>>()
    };
    let series = [
        ("full adapter, 95 % interval", Tone::A, points("full", full)),
        ("base model, 95 % interval", Tone::B, points("base", base)),
    ];
    let series = series.map(|(name, tone, points)| Series { name, tone, shape: Shape::Band, reach: 1.0, points });
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
        x: Axis { name: "layer (0 next to the embedding)", start: Start::Whole, ticks: Ticks::Plain },
        y: Axis { name: "probability of the right token", start: Start::Zero, ticks: Ticks::Plain },
        height: INNER_HEIGHT,
        series: series.into(),
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
    let row =
        |layer: usize| Row::plain([vec![layer.to_string()], cells(base.get(layer)), cells(full.get(layer))].concat());
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
        picker: None,
        panels: Panel::alone(plot.render()),
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
        tables: vec![
            Table::new(
                &format!(
                    "Probability of the right token with its 95 % interval, share of positions with it on top, and mean \
                     number of tokens above it; {n} selection samples"
                ),
                ["layer", "mean", "interval", "on top", "above", "mean", "interval", "on top", "above"],
                (0..length).map(row).collect(),
            )
            .under([("", 1), ("base model", 4), ("full adapter", 4)]),
        ],
    })
}

/// How often each boundary is picked when the samples are drawn again.
pub(super) fn stability(result: &SearchResult) -> Option<Figure> {
    let shares = &result.choice.bootstrap;
    let (n, resamples) = (result.data.selection, count(result.rules.choice_resamples as u64));
    let point = |(k, &share): (usize, &f64)| Point {
        x: k as f64,
        y: share,
        low: share,
        high: share,
        note: format!("{k} layers kept: {} of resamples", percent(share)),
        label: String::new(),
    };
    let points = shares.iter().enumerate().map(point).collect();
    let candidate = result.choice.one_se;
    let plot = Plot {
        label: "Bar plot of how often each boundary is picked over bootstrap resamples; its numbers stand in the table \
                below",
        x: layers_axis(),
        y: Axis { name: "share of resamples", start: Start::Zero, ticks: Ticks::Percent },
        height: INNER_HEIGHT,
        series: vec![Series { name: "share", tone: Tone::A, shape: Shape::Bars, reach: 1.0, points }],
        marks: vec![Mark { x: candidate as f64, label: format!("{candidate}: one-SE"), weight: Weight::Light }],
    };
    let rows = shares
        .iter()
        .enumerate()
        .filter(|(_, share)| **share > 0.0)
        .map(|(k, &share)| Row { cells: vec![k.to_string(), percent(share)], is_chosen: Some(k) == chosen(result) });
    (!shares.is_empty()).then(|| Figure {
        id: "stability",
        title: "How stable the pick is",
        picker: None,
        panels: Panel::alone(plot.render()),
        caption: format!(
            "The {n} selection samples are drawn again with replacement {resamples} times, and each time the \
             one-standard-error rule picks anew. One tall bar means that the pick does not hang on single samples; \
             where the bars spread, read the boundary as a range."
        ),
        limits: "It shows the chance in this sample of the data, not what other data or another task would give, and \
                 it says nothing of whether the cut is worth it."
            .to_owned(),
        tables: vec![Table::new(
            &format!(
                "Share of {resamples} bootstrap resamples of {n} selection samples; boundaries never picked are left out"
            ),
            ["k", "share"],
            rows.collect(),
        )],
    })
}

/// What the cut and each control gain over the full adapter.
pub(super) fn controls(result: &SearchResult) -> Option<Figure> {
    let controls = result.controls.as_ref()?;
    let (choice, cut) = (&result.choice, evidence::candidate(result));
    let estimate = |name: String, gain: &Gain, tone| {
        let [value, low, high] = words::gain_digits(gain, Sign::Both);
        let note =
            format!("{name} over the full adapter: {value} (95 % interval {low} to {high}, {})", p_value(gain.p));
        Estimate { name, ends: [gain.mean, gain.low, gain.high], tone, note }
    };
    let named = |control: &Control| format!("{}: {}", family(control.family), tame(&control.label));
    let mut rows = vec![estimate(format!("the cut: {cut}"), &choice.gain, Tone::A)];
    rows.extend(controls.rows.iter().map(|control| estimate(named(control), &control.over_full, Tone::B)));
    let forest = Forest {
        label: "Estimates with 95 % intervals of what the cut and its controls gain over the full adapter; the numbers \
                stand in the table below",
        x: Axis {
            name: "gain over the full adapter, nats per answer token (right of 0 is better)",
            start: Start::Data,
            ticks: Ticks::Plain,
        },
        rows,
    };
    let cells = |name: String, over_full: &Gain, control: Option<&Control>| {
        let [gain, low, high] = words::gain_digits(over_full, Sign::Both);
        let mut cells = vec![name, gain, format!("{low} to {high}")];
        match control {
            None => cells.extend([NONE, NONE, NONE].map(str::to_owned)),
            Some(control) => {
                let [over, low, high] = words::gain_digits(&control.cut_over, Sign::Both);
                cells.extend([over, format!("{low} to {high}"), p_value(control.p_holm)]);
            }
        }
        cells
    };
    let mut rows = vec![Row { cells: cells(format!("the cut: {cut}"), &choice.gain, None), is_chosen: true }];
    let others = controls.rows.iter();
    rows.extend(others.map(|control| Row::plain(cells(named(control), &control.over_full, Some(control)))));
    let caption = format!(
        "Nats per answer token on {}, with 95 % bootstrap intervals; positive is better. p: of the difference between the \
         cut and the control, adjusted for all controls (Holm).",
        evidence::judged_on(&choice.gain, result)
    );
    let table = Table::new(&caption, ["", "gain", "95 % interval", "gain", "95 % interval", "p (Holm)"], rows);
    Some(Figure {
        id: "controls",
        title: "Is it depth that helps?",
        picker: None,
        panels: Panel::alone(forest.render()),
        caption: glued(&format!(
            "The cut beside controls that know nothing of depth, or the opposite of it: one tuned factor on the whole \
             adapter (global-alpha), as many layers that were drawn (random-k), or as many of the highest (top-k). Lines \
             are 95 % intervals; 0 is the full adapter. {}",
            evidence::depth_shown(controls)
        )),
        limits: "Two intervals that overlap can belong to variants that differ for sure, because these are compared \
                 sample by sample: the comparison of the cut with each control stands in the table. A control that was \
                 not tried could still do as well."
            .to_owned(),
        tables: vec![table.under([("", 1), ("over the full adapter", 2), ("the cut over it", 3)]).named(1)],
    })
}

/// How families of candidates competed.
pub(super) fn arbitration(result: &SearchResult) -> Option<Extra> {
    let arbitration = result.arbitration.as_ref()?;
    let largest = arbitration.families.iter().map(|row| row.mean_nll).filter(|nll| nll.is_finite());
    let digits = decimals(largest.fold(f64::NEG_INFINITY, f64::max), 5).min(5);
    let row = |row: &FamilySummary| Row {
        cells: vec![
            family(row.family).to_owned(),
            tame(&row.pick.label),
            count(row.members as u64),
            words::bytes(row.pick.bytes),
            fixed(row.mean_nll, digits, Sign::Minus),
            plus_minus(fixed(row.deficit, digits, Sign::Minus), &fixed(row.se, digits, Sign::Minus)),
            if row.is_chosen { CHOSEN.to_owned() } else { String::new() },
        ],
        is_chosen: row.is_chosen,
    };
    let caption = format!(
        "From the simplest family. NLL: mean over {} of what the pick of the other folds scores on them, {} folds; deficit: \
         above the best family's, ± one paired standard error.",
        counted(result.data.selection, "selection sample"),
        arbitration.folds,
    );
    let head = ["family", "picks", "of variants", "size", "NLL", "deficit ± SE", ""];
    Some(Extra {
        id: "arbitration",
        title: "Which kind of cut",
        text: vec![glued(
            "Several families of variants offered a candidate. Each picked on some of the selection samples and was scored \
             on the others, so that a family of many variants has no advantage from having more to pick from. The simplest \
             family within one standard error of the best is taken.",
        )],
        tables: vec![Table::new(&caption, head, arbitration.families.iter().map(row).collect()).named(2)],
        folded: Vec::new(),
    })
}

/// What is best at its price: bytes against NLL.
pub(super) fn front(result: &SearchResult) -> Option<Figure> {
    /// Longer names go into the table alone.
    const LABEL: usize = 22;
    let has_guard = result.front.iter().any(|point| point.guard.is_some());
    let digits = {
        let largest = result.front.iter().map(|point| point.nll).filter(|nll| nll.is_finite());
        decimals(largest.fold(f64::NEG_INFINITY, f64::max), 5).min(5)
    };
    let nats = |value| fixed(value, digits, Sign::Minus);
    let points = |is_on_front: bool| {
        let mut points: Vec<Point> = result
            .front
            .iter()
            .filter(|point| point.is_on_front == is_on_front)
            .map(|point| {
                let guard = point.guard.map(|guard| format!(", guard {}", nats(guard))).unwrap_or_default();
                let name = tame(&point.label);
                let note = format!(
                    "{}, {name}: {} nats per token{guard}, {}",
                    family(point.family),
                    nats(point.nll),
                    words::bytes(point.bytes)
                );
                let is_short = is_on_front && name.chars().count() <= LABEL;
                let label = if is_short { name } else { String::new() };
                Point { x: point.bytes as f64, y: point.nll, low: point.nll, high: point.nll, note, label }
            })
            .collect();
        points.sort_by(|a, b| a.x.total_cmp(&b.x));
        points
    };
    // With a third price, a front is no line in this plane.
    let shape = if has_guard { Shape::Dots } else { Shape::Stairs };
    let mut series = vec![
        Series { name: "others", tone: Tone::Quiet, shape: Shape::Dots, reach: 1.0, points: points(false) },
        Series { name: "on the front", tone: Tone::A, shape, reach: 1.0, points: points(true) },
    ];
    series.retain(|series| !series.points.is_empty());
    let plot = Plot {
        label: "Scatter plot of the mean negative log-likelihood over the bytes that a variant keeps; the numbers of the \
                front stand in the table below",
        x: Axis { name: "bytes of the tensors kept", start: Start::Zero, ticks: Ticks::Bytes },
        y: Axis { name: NATS, start: Start::Data, ticks: Ticks::Plain },
        height: 340.0,
        series,
        marks: Vec::new(),
    };
    let mut best: Vec<_> = result.front.iter().filter(|point| point.is_on_front).collect();
    best.sort_by(|a, b| a.bytes.cmp(&b.bytes).then(a.nll.total_cmp(&b.nll)));
    let rows = best.iter().map(|point| {
        Row::plain(vec![
            tame(&point.label),
            family(point.family).to_owned(),
            words::bytes(point.bytes),
            nats(point.nll),
            point.guard.map_or_else(|| NONE.to_owned(), nats),
            tame(&point.gates),
        ])
    });
    let caption = format!(
        "The variants on the front, from the smallest: mean NLL in nats per answer token on {}, and on the guard's where \
         there is a guard; gates as plimsoll trim --gates takes them.",
        counted(result.data.selection, "selection sample")
    );
    let head = ["variant", "family", "size", "NLL", "guard NLL", "gates"];
    let guard = if has_guard { " and as good on the guard's samples" } else { "" };
    (!result.front.is_empty()).then(|| Figure {
        id: "front",
        title: "What is best at its price",
        picker: None,
        panels: Panel::alone(plot.render()),
        caption: format!(
            "Every variant that was scored, by what it keeps and by how well it predicts. Those on the front are beaten by \
             nothing that is as small{guard}: whoever wants another trade than the answer's can pick there and cut with \
             the gates in the table."
        ),
        limits: "The front is drawn from the selection samples, and the best of many is better there than elsewhere. \
                 Neighbours on it may not differ: nothing here is tested. Where an adapter is merged, size saves nothing."
            .to_owned(),
        tables: vec![Table::new(&caption, head, rows.collect()).named(2)],
    })
}

/// What the samples of another kind say.
pub(super) fn guard(result: &SearchResult) -> Option<Extra> {
    let guard = result.guard.as_ref()?;
    let row = |name: &str, gain: &Gain| {
        let [mean, low, high] = words::gain_digits(gain, Sign::Both);
        Row::plain(vec![name.to_owned(), mean, format!("{low} to {high}"), p_value(gain.p), count(gain.samples as u64)])
    };
    let caption = format!(
        "Nats per answer token with 95 % bootstrap intervals on the guard's held-out samples; positive is better. {} more \
         kept variants from being picked.",
        counted(guard.selection, "sample"),
    );
    let candidate = format!("candidate ({}) over the full adapter", evidence::candidate(result));
    let rows = vec![row(&candidate, &guard.gain), row("full adapter over the base model", &guard.adapter_gain)];
    Some(Extra {
        id: "guard",
        title: "What it does to other data",
        text: vec![glued(&evidence::guard(guard))],
        tables: vec![Table::new(&caption, ["", "gain", "95 % interval", "p", "n"], rows).named(1)],
        folded: Vec::new(),
    })
}
