//! Figures of variants: NLL by boundary, the logit lens, stability of the pick, controls, and the Pareto front.

use plimsoll_stats::choose::Gain;

use super::evidence;
use super::page::{Extra, Figure, Panel, Row, Table};
use super::svg::{Axis, Estimate, Forest, INNER_HEIGHT, Mark, Plot, Point, Series, Shape, Start, Ticks, Tone, Weight};
use super::words::{
    self, NONE, Sign, count, counted, decimals, fixed, non_breaking, number, p_value, percent, plus_minus, printable,
};
use super::{CHOSEN, boundaries, chosen, marks, picked};
use crate::lora::Family;
use crate::result::{
    Control, FamilySummary, FrontPoint, LensPoint, LensSummary, ScoreSummary, SearchResult, VariantSummary,
};

/// Families that also keep k layers, and the tones of their lines.
const OTHERS: [(Family, Tone); 4] =
    [(Family::TopK, Tone::C), (Family::RandomK, Tone::D), (Family::MagnitudeK, Tone::E), (Family::OutputK, Tone::F)];

/// Name of an axis of NLL.
const NATS: &str = "nats per answer token";

/// Decimals of NLL: five significant digits of the largest.
pub(super) fn nll_decimals<'a>(rows: impl IntoIterator<Item = &'a VariantSummary>) -> usize {
    let means = rows.into_iter().map(|row| row.selection().mean_nll).filter(|mean| mean.is_finite());
    decimals(means.fold(f64::NEG_INFINITY, f64::max), 5).min(5)
}

fn layers_axis() -> Axis<'static> {
    Axis { name: "layers kept (k)", start: Start::Whole, ticks: Ticks::Plain }
}

/// NLL by boundary on both parts of the samples, with other families that keep k layers.
pub(super) fn ablation(result: &SearchResult) -> Option<Figure> {
    let rows: Vec<&VariantSummary> = boundaries(result).collect();
    let digits = nll_decimals(rows.iter().copied());
    let nats = |value| fixed(value, digits, Sign::Minus);
    let (selection, holdout) = (result.data.selection, result.data.holdout);
    let names = [format!("selection, ±1 standard error (n = {selection})"), format!("held out (n = {holdout})")];
    let point = |k: usize, part: &str, score: &ScoreSummary, width: f64| Point {
        x: k as f64,
        y: score.mean_nll,
        low: score.mean_nll - width,
        high: score.mean_nll + width,
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
    let others: Vec<(Family, Tone, Vec<Point>)> = OTHERS
        .into_iter()
        .map(|(name, tone)| (name, tone, by_count(result, name, digits)))
        .filter(|(.., points)| !points.is_empty())
        .collect();
    for (name, tone, points) in &others {
        let (shape, reach) = (Shape::Line, f64::INFINITY);
        series.push(Series { name: name.name(), tone: *tone, shape, reach, points: points.clone() });
    }
    series.retain(|series| !series.points.is_empty());
    let layers = result.model.layers;
    let plot = Plot {
        label: "Line plot of the mean negative log-likelihood by the number of layers kept; the values are in the \
                table below",
        x: layers_axis(),
        y: Axis { name: NATS, start: Start::Data, ticks: Ticks::Plain },
        height: INNER_HEIGHT,
        series,
        marks: choice_marks(result),
    };
    let mut tables = vec![boundary_table(result, &rows, digits)];
    let mut caption = format!(
        "Each point is one boundary: LoRA is kept in the lowest k layers and dropped above, from the base model (k = \
         0) to the full adapter (k = {layers}). The vertical axis is the negative log-likelihood (NLL) of the \
         reference answers; lower is better. Marks: best = the lowest NLL on the selection samples; one-SE = the \
         smallest k within one paired standard error of the best; curve = the change point of the logit lens; chosen \
         = the boundary that the verdict keeps."
    );
    if !others.is_empty() {
        caption.push_str(
            " The other lines also keep k layers, on the selection samples: the highest (top-k), random ones \
             (random-k, mean over draws), those with the largest norm of the update (magnitude-k), or with the most \
             energy of the update (output-k). They are straight between the values of k that were scored.",
        );
        tables.push(others_table(&others, digits));
    }
    (!rows.is_empty()).then(|| Figure {
        id: "ablation",
        title: "NLL by boundary",
        picker: None,
        margin: None,
        panels: Panel::alone(plot.render()),
        caption: non_breaking(&caption),
        limits: "The band is one standard error of the mean over samples. It is not the uncertainty of a difference \
                 between two boundaries: those are paired by sample, so a difference well inside the band can be \
                 significant. The lowest of many points is low partly by chance; the gain comes from other samples. \
                 The vertical axis does not start at 0."
            .to_owned(),
        tables,
    })
}

/// The values of the boundaries in [`ablation`].
fn boundary_table(result: &SearchResult, rows: &[&VariantSummary], digits: usize) -> Table {
    let nats = |value| fixed(value, digits, Sign::Minus);
    let row = |row: &&VariantSummary| Row {
        cells: vec![
            row.layers_kept.to_string(),
            nats(row.selection().mean_nll),
            nats(row.selection().se),
            nats(row.holdout().mean_nll),
            nats(row.holdout().se),
        ],
        is_chosen: Some(row.layers_kept) == chosen(result),
    };
    let caption = format!(
        "Mean and standard error, nats per answer token; {} selection and {} held-out samples",
        result.data.selection, result.data.holdout
    );
    let table = Table::new(&caption, ["k", "NLL", "SE", "NLL", "SE"], rows.iter().map(row).collect());
    table.under([("", 1), ("selection", 2), ("held out", 2)])
}

/// The values of the other families in [`ablation`].
fn others_table(others: &[(Family, Tone, Vec<Point>)], digits: usize) -> Table {
    let nats = |value| fixed(value, digits, Sign::Minus);
    let mut rows = Vec::new();
    for (name, _, points) in others {
        for point in points {
            let range = if point.low < point.high {
                format!("{} to {}", nats(point.low), nats(point.high))
            } else {
                NONE.to_owned()
            };
            rows.push(Row::plain(vec![name.to_string(), point.x.to_string(), nats(point.y), range]));
        }
    }
    let caption = "Other families that keep k layers: mean NLL on the selection samples, with the lowest and the \
                   highest of several draws.";
    Table::new(caption, ["family", "k", "NLL", "range over draws"], rows).named(1)
}

/// The members of a family by the number of layers kept; the mean of several members with the same number.
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
            1 => format!("{name}, k = {}: {} nats per token", draws[0].0, nats(y)),
            count => format!(
                "{name}, k = {}: {} nats per token, mean of {count} draws ({} to {})",
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

/// Marks at the boundaries that were picked.
fn choice_marks(result: &SearchResult) -> Vec<Mark> {
    let mark = |k: usize| {
        let names = marks(result, k);
        let weight = if names.contains(&CHOSEN) { Weight::Strong } else { Weight::Light };
        Mark { x: k as f64, label: format!("{k}: {}", names.join(", ")), weight }
    };
    picked(result).into_iter().map(mark).collect()
}

/// The logit lens: ground-truth probability after each layer, for base and full.
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
                "{name}, after layer {layer}: {} (95 % interval {} to {}); accuracy {}",
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
    // The change point is a number of layers: it lies between two layers.
    let curve = result.choice.curve.unwrap_or(0);
    let has_change_point = 0 < curve && curve < full.len();
    let change_point = || Mark {
        x: curve as f64 - 0.5,
        label: format!("change point between layers {} and {curve}", curve - 1),
        weight: Weight::Strong,
    };
    let plot = Plot {
        label: "Line plot of the probability of the right token after each layer, for the base model and the full \
                adapter; the values are in the table below",
        x: Axis { name: "layer (0 next to the embedding)", start: Start::Whole, ticks: Ticks::Plain },
        y: Axis { name: "probability of the right token", start: Start::Zero, ticks: Ticks::Plain },
        height: INNER_HEIGHT,
        series: series.into(),
        marks: has_change_point.then(change_point).into_iter().collect(),
    };
    let found = if has_change_point {
        format!(
            "The vertical line is the change point of the full adapter's curve, where two straight lines fit best: \
             between layers {} and {curve}.",
            curve - 1
        )
    } else {
        "The full adapter's curve has no change point: it is too short, or one straight line fits it.".to_owned()
    };
    (!base.is_empty() || !full.is_empty()).then(|| Figure {
        id: "lens",
        title: "Logit lens: probability of the right token by layer",
        picker: None,
        margin: None,
        panels: Panel::alone(plot.render()),
        caption: non_breaking(&format!(
            "The hidden state after each layer is read with the final norm and the head (logit lens). The curve is the \
             probability of the right token: mean over a sample's answer tokens, then over {}, with 95 % bootstrap \
             intervals. {found}",
            counted(n, "selection sample"),
        )),
        limits: "The head was trained for the last layer, so a low probability in an early layer does not mean that \
                 the layer computes nothing useful. Both curves are of whole models, no boundary is tested, and the \
                 change point does not decide."
            .to_owned(),
        tables: vec![lens_table(&result.lens)],
    })
}

/// The values of [`lens`].
fn lens_table(LensSummary { base, full, samples }: &LensSummary) -> Table {
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
    let caption = format!(
        "Probability of the right token with its 95 % interval, accuracy (share of positions where it is the \
         most probable token), and rank (mean number of tokens with a higher logit); {samples} selection samples"
    );
    let head = ["layer", "mean", "interval", "accuracy", "rank", "mean", "interval", "accuracy", "rank"];
    let rows = (0..base.len().max(full.len())).map(row).collect();
    Table::new(&caption, head, rows).under([("", 1), ("base model", 4), ("full adapter", 4)])
}

/// Stability of the pick: how often resampled selection samples pick each boundary.
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
        label: "Bar plot of the share of resamples that pick each boundary; the values are in the table below",
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
        title: "Stability of the pick",
        picker: None,
        margin: None,
        panels: Panel::alone(plot.render()),
        caption: format!(
            "The {n} selection samples are resampled with replacement {resamples} times, and the one-standard-error \
             rule picks on each resample. One tall bar: the pick does not depend on a few samples. Several bars: \
             read the boundary as a range."
        ),
        limits: "Resamples show the random error of these samples. They do not show what other data or another task \
                 would give, or whether the candidate is better than the full adapter."
            .to_owned(),
        tables: vec![Table::new(
            &format!(
                "Share of {resamples} bootstrap resamples of {n} selection samples; boundaries that are never picked \
                 are left out"
            ),
            ["k", "share"],
            rows.collect(),
        )],
    })
}

/// Gains of the candidate and of each control over the full adapter.
pub(super) fn controls(result: &SearchResult) -> Option<Figure> {
    let controls = result.controls.as_ref()?;
    let (choice, candidate) = (&result.choice, evidence::candidate(result));
    let estimate = |name: String, gain: &Gain, tone| {
        let [value, low, high] = words::gain_digits(gain, Sign::Both);
        let note =
            format!("{name} over the full adapter: {value} (95 % interval {low} to {high}, {})", p_value(gain.p));
        Estimate { name, ends: [gain.mean, gain.low, gain.high], tone, note }
    };
    let named = |control: &Control| format!("{}: {}", control.family, printable(&control.label));
    let mut rows = vec![estimate(format!("candidate: {candidate}"), &choice.gain, Tone::A)];
    rows.extend(controls.rows.iter().map(|control| estimate(named(control), &control.over_full, Tone::B)));
    let forest = Forest {
        label: "Forest plot of the gains of the candidate and its controls over the full adapter, with 95 % intervals; \
                the values are in the table below",
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
    let mut rows = vec![Row { cells: cells(format!("candidate: {candidate}"), &choice.gain, None), is_chosen: true }];
    let others = controls.rows.iter();
    rows.extend(others.map(|control| Row::plain(cells(named(control), &control.over_full, Some(control)))));
    let caption = format!(
        "Nats per answer token on {}, with 95 % bootstrap intervals; above 0 is better. p: difference between the \
         candidate and the control, adjusted for all controls (Holm).",
        evidence::judged_on(&choice.gain, result)
    );
    let table = Table::new(&caption, ["", "gain", "95 % interval", "gain", "95 % interval", "p (Holm)"], rows);
    Some(Figure {
        id: "controls",
        title: "Controls: does the choice of layers matter?",
        picker: None,
        margin: None,
        panels: Panel::alone(forest.render()),
        caption: non_breaking(&format!(
            "The candidate compared with controls: one tuned LoRA strength for the whole adapter (global-alpha), \
             equally many random layers (random-k), and equally many of the highest layers (top-k). Lines are 95 % \
             intervals; 0 is the full adapter. {}",
            evidence::depth_shown(controls)
        )),
        limits: "Variants are compared by paired samples, so a difference can be significant although intervals \
                 overlap: the table has the comparison of the candidate with each control. Other controls may do as \
                 well as the candidate."
            .to_owned(),
        tables: vec![table.under([("", 1), ("over the full adapter", 2), ("candidate over the control", 3)]).named(1)],
    })
}

/// Comparison of families by cross-validation.
pub(super) fn arbitration(result: &SearchResult) -> Option<Extra> {
    let arbitration = result.arbitration.as_ref()?;
    let largest = arbitration.families.iter().map(|row| row.mean_nll).filter(|nll| nll.is_finite());
    let digits = decimals(largest.fold(f64::NEG_INFINITY, f64::max), 5).min(5);
    let row = |row: &FamilySummary| Row {
        cells: vec![
            row.family.to_string(),
            printable(&row.pick.label),
            count(row.members as u64),
            words::bytes(row.pick.bytes),
            fixed(row.mean_nll, digits, Sign::Minus),
            plus_minus(fixed(row.deficit, digits, Sign::Minus), &fixed(row.se, digits, Sign::Minus)),
            if row.is_chosen { CHOSEN.to_owned() } else { String::new() },
        ],
        is_chosen: row.is_chosen,
    };
    let caption = format!(
        "The simplest family first. NLL: mean over {}, each scored with the pick of the other folds ({} folds). \
         Deficit: difference to the best family ± one paired standard error.",
        counted(result.data.selection, "selection sample"),
        arbitration.folds,
    );
    let head = ["family", "pick", "of variants", "bytes", "NLL", "deficit ± SE", ""];
    Some(Extra {
        id: "arbitration",
        title: "Comparison of families",
        text: vec![non_breaking(
            "Families were compared by cross-validation on the selection samples: the rule of each family picks on \
             some folds and is scored on the others, so a family with many variants has no advantage. The simplest \
             family within one standard error of the best is taken.",
        )],
        tables: vec![Table::new(&caption, head, arbitration.families.iter().map(row).collect()).named(2)],
        folded: Vec::new(),
    })
}

/// The Pareto front of bytes and NLL.
pub(super) fn front(result: &SearchResult) -> Option<Figure> {
    let has_guard = result.front.iter().any(|point| point.guard.is_some());
    let digits = {
        let largest = result.front.iter().map(|point| point.nll).filter(|nll| nll.is_finite());
        decimals(largest.fold(f64::NEG_INFINITY, f64::max), 5).min(5)
    };
    let nats = |value| fixed(value, digits, Sign::Minus);
    // A front in three dimensions is no line in this plane.
    let shape = if has_guard { Shape::Dots } else { Shape::Stairs };
    let mut series = vec![
        Series {
            name: "dominated",
            tone: Tone::Quiet,
            shape: Shape::Dots,
            reach: 1.0,
            points: front_points(result, false, digits),
        },
        Series { name: "on the front", tone: Tone::A, shape, reach: 1.0, points: front_points(result, true, digits) },
    ];
    series.retain(|series| !series.points.is_empty());
    let plot = Plot {
        label: "Scatter plot of the mean negative log-likelihood by the bytes that a variant keeps; the values of the \
                front are in the table below",
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
            printable(&point.label),
            point.family.to_string(),
            words::bytes(point.bytes),
            nats(point.nll),
            point.guard.map_or_else(|| NONE.to_owned(), nats),
            printable(&point.gates),
        ])
    });
    let caption = format!(
        "The variants on the front, the smallest first: mean NLL in nats per answer token on {}, and on the guard \
         samples if there is a guard; LoRA strengths in the syntax of plimsoll trim --gates.",
        counted(result.data.selection, "selection sample")
    );
    let head = ["variant", "family", "bytes", "NLL", "guard NLL", "LoRA strengths"];
    let measures = if has_guard { "bytes, NLL and NLL on the guard samples" } else { "bytes and NLL" };
    (!result.front.is_empty()).then(|| Figure {
        id: "front",
        title: "Pareto front: bytes and NLL",
        picker: None,
        margin: None,
        panels: Panel::alone(plot.render()),
        caption: format!(
            "All scored variants by bytes and NLL. A variant is on the front if no other variant is at least as good \
             in {measures}, and better in one of them. To use another variant than the verdict's, give its LoRA \
             strengths to plimsoll trim --gates."
        ),
        limits:
            "The NLL is measured on the selection samples, where the lowest of many is low partly by chance. Nothing \
                 is tested: neighbours on the front may not differ. For a merged adapter, size saves no time."
                .to_owned(),
        tables: vec![Table::new(&caption, head, rows.collect()).named(2)],
    })
}

/// The points of [`front`] that are on the front or dominated, by bytes. Short names on the front are labels.
fn front_points(result: &SearchResult, is_on_front: bool, digits: usize) -> Vec<Point> {
    /// Longer names are only in the table.
    const LABEL: usize = 22;
    let nats = |value| fixed(value, digits, Sign::Minus);
    let point = |point: &FrontPoint| {
        let guard = point.guard.map(|guard| format!(", guard {}", nats(guard))).unwrap_or_default();
        let name = printable(&point.label);
        let note = format!(
            "{}, {name}: {} nats per token{guard}, {}",
            point.family,
            nats(point.nll),
            words::bytes(point.bytes)
        );
        let is_short = is_on_front && name.chars().count() <= LABEL;
        let label = if is_short { name } else { String::new() };
        Point { x: point.bytes as f64, y: point.nll, low: point.nll, high: point.nll, note, label }
    };
    let mut points: Vec<Point> =
        result.front.iter().filter(|point| point.is_on_front == is_on_front).map(point).collect();
    points.sort_by(|a, b| a.x.total_cmp(&b.x));
    points
}

/// The guard: gains on samples of other data.
pub(super) fn guard(result: &SearchResult) -> Option<Extra> {
    let guard = result.guard.as_ref()?;
    let row = |name: &str, gain: &Gain| {
        let [mean, low, high] = words::gain_digits(gain, Sign::Both);
        Row::plain(vec![name.to_owned(), mean, format!("{low} to {high}"), p_value(gain.p), count(gain.samples as u64)])
    };
    let caption = format!(
        "Nats per answer token with 95 % bootstrap intervals on the guard's held-out samples; above 0 is better. \
         Another {} were used to exclude variants before the pick.",
        counted(guard.selection, "guard sample"),
    );
    let candidate = format!("candidate ({}) over the full adapter", evidence::candidate(result));
    let rows = vec![row(&candidate, &guard.gain), row("full adapter over the base model", &guard.adapter_gain)];
    Some(Extra {
        id: "guard",
        title: "Guard samples",
        text: vec![non_breaking(&evidence::guard(guard))],
        tables: vec![Table::new(&caption, ["", "gain", "95 % interval", "p", "n"], rows).named(1)],
        folded: Vec::new(),
    })
}
