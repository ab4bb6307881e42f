//! An evaluation told as tables: for the terminal, and as Markdown for a pull request or a model card.

use plimsoll_stats::choose::Interval;
use plimsoll_stats::metrics::compare::{Difference, Estimate};

use super::grid::{Form, Grid, Side, clipped};
use super::terminal::Look;
use super::words::{self, NONE, Sign, bytes, count, counted, fixed, percent, plain, tame};
use crate::result::{
    Better, Efficiency, EvalComparison, EvalResult, EvalVariant, MetricResult, MetricSummary, MetricVariant, Speed,
};

/// An evaluation as tables. Ends with a line feed.
pub fn evaluation(result: &EvalResult, form: Form) -> String {
    let mut out = String::new();
    let mut paragraph = |look: Look, text: &str| {
        if !out.is_empty() {
            out.push('\n');
        }
        form.paragraph(&mut out, look, text);
    };
    paragraph(Look::Plain, &heading(result));
    let mut grids = vec![values(result)];
    if result.variants.iter().any(|variant| variant.answer_tokens.is_some()) {
        grids.push(answers(result));
    }
    for grid in &grids {
        out.push('\n');
        grid.write(&mut out, form);
    }
    let compared = match result.metrics.iter().map(|metric| metric.comparisons.len()).sum() {
        0 => String::new(),
        comparisons => format!(
            " Differences are paired by sample; p-values are of randomisation tests{}. A * marks those below 0.05.",
            match comparisons {
                1 => String::new(),
                many => format!(", adjusted for all {} (Holm)", counted(many, "comparison")),
            }
        ),
    };
    let note = format!(
        "Values with 95 % intervals over samples: Wilson's of a rate such as exact match, the bootstrap's of all else.\
         {compared}"
    );
    out.push('\n');
    form.paragraph(&mut out, Look::Dim, &note);
    if let Some(measured) = &result.efficiency {
        out.push('\n');
        efficiency(measured).write(&mut out, form);
        out.push('\n');
        form.paragraph(&mut out, Look::Dim, &efficiency_note(measured));
    }
    out.push('\n');
    for sentence in verdicts(result) {
        form.paragraph(&mut out, Look::Bold, &sentence);
    }
    for warning in &result.warnings {
        out.push('\n');
        form.paragraph(&mut out, Look::Warning, &format!("Warning: {warning}."));
    }
    out
}

/// How the speeds of an efficiency table were measured.
pub(super) fn efficiency_note(measured: &Efficiency) -> String {
    format!(
        "Measured here: {} side by side, {}, {}; the median of {} rounds in turns, with the slowest and the fastest; load: \
         the median of repeated loads. Merged into the weights an adapter costs nothing, whatever its boundary.",
        counted(measured.batch, "sequence"),
        clipped(&measured.dtype, 28),
        counted(measured.threads, "thread"),
        measured.variants.first().map_or(0, |variant| variant.tokens_per_second.rounds),
    )
}

/// A metric of what boundaries wrote.
pub(super) fn written(metric: &MetricSummary, layers: usize) -> Grid {
    let mut grid = Grid::new(&[
        ("k", Side::Right),
        ("selection", Side::Right),
        ("95 % interval", Side::Left),
        ("held-out", Side::Right),
        ("95 % interval", Side::Left),
    ]);
    for MetricVariant { layers_kept, selection, holdout } in &metric.variants {
        let cells = |estimate: &Option<Estimate>| match estimate {
            None => [NONE.to_owned(), String::new()],
            Some(Estimate { value, low, high, .. }) => {
                let (value, low, high) = (*value, *low, *high);
                let [value, low, high] = words::estimate(&Interval { value, low, high }, 1.0, 3, Sign::Minus);
                [value, format!("{low} to {high}")]
            }
        };
        let name = match *layers_kept {
            0 => "0 (base)".to_owned(),
            kept if kept == layers => format!("{kept} (full)"),
            kept => kept.to_string(),
        };
        let [selection, selection_interval] = cells(selection);
        let [holdout, holdout_interval] = cells(holdout);
        grid.row(vec![name, selection, selection_interval, holdout, holdout_interval]);
    }
    grid
}

/// What a table of what was written shows.
pub(super) fn written_note(metric: &MetricSummary) -> String {
    let by_nll = &metric.choice_by_nll;
    format!(
        "{} of generated answers; higher is better; {}. Boundaries whose NLL is near the best answered the selection \
         samples; the pick, the full adapter and the base model answered the held-out ones. By the NLL alone the pick is \
         k = {}.",
        tame(&metric.name),
        tame(&metric.signature),
        by_nll.one_se
    )
}

fn heading(result: &EvalResult) -> String {
    let data = &result.data;
    let samples = if data.samples == data.available {
        counted(data.samples, "sample")
    } else {
        format!("{} of {}", count(data.samples as u64), counted(data.available, "sample"))
    };
    let template = match data.template.as_str() {
        "none" => "no chat template".to_owned(),
        "tokenizer" => "the tokenizer's chat template".to_owned(),
        other => format!("the template {}", tame(other)),
    };
    let picked = if result.generation.sampling.temperature == 0.0 {
        "greedy".to_owned()
    } else {
        format!(
            "temperature {}, seed {}",
            plain(f64::from(result.generation.sampling.temperature)),
            result.generation.sampling.seed
        )
    };
    format!(
        "{}: {samples}, {} before each prompt, {template}, {picked}, at most {}.",
        tame(&result.task.name),
        counted(result.task.shots, "example"),
        counted(result.generation.max_tokens, "token"),
    )
}

/// Every metric of every variant, with what it is held against.
fn values(result: &EvalResult) -> Grid {
    let mut grid = Grid::new(&[
        ("metric", Side::Left),
        ("LoRA kept", Side::Left),
        ("value", Side::Right),
        ("95 % interval", Side::Left),
        ("− full", Side::Right),
        ("p", Side::Left),
        ("− base", Side::Right),
        ("p", Side::Left),
    ]);
    for metric in &result.metrics {
        let arrow = if metric.better == Better::Lower { " ↓" } else { "" };
        for (index, (variant, value)) in result.variants.iter().zip(&metric.values).enumerate() {
            let Estimate { value, low, high, .. } = *value;
            let [value, low, high] = words::estimate(&Interval { value, low, high }, 1.0, 3, Sign::Minus);
            let name = if index == 0 { format!("{}{arrow}", tame(&metric.name)) } else { String::new() };
            let [full, full_p] = against(metric, variant, result.model.layers);
            let [base, base_p] = against(metric, variant, 0);
            grid.row(vec![name, variant.name.clone(), value, format!("{low} to {high}"), full, full_p, base, base_p]);
        }
    }
    grid
}

/// A variant held against the base model or the full adapter. Results of earlier versions have no gates, and are of
/// boundaries.
fn comparison<'a>(metric: &'a MetricResult, of: &EvalVariant, against: usize) -> Option<&'a EvalComparison> {
    let is_it = |c: &&EvalComparison| c.gates == of.gates && c.layers_kept == of.layers_kept && c.against == against;
    metric.comparisons.iter().find(is_it)
}

fn against(metric: &MetricResult, variant: &EvalVariant, against: usize) -> [String; 2] {
    match comparison(metric, variant, against) {
        None => [String::new(), String::new()],
        Some(EvalComparison { difference, p_holm, .. }) => {
            let star = if *p_holm < 0.05 { " *" } else { "" };
            let p = if *p_holm < 0.001 { "< 0.001".to_owned() } else { format!("{p_holm:.3}") };
            let Difference { difference: value, low, high, .. } = *difference;
            let [value, ..] = words::estimate(&Interval { value, low, high }, 1.0, 3, Sign::Both);
            [value, format!("{p}{star}")]
        }
    }
}

fn answers(result: &EvalResult) -> Grid {
    let mut grid =
        Grid::new(&[("LoRA kept", Side::Left), ("tokens an answer", Side::Right), ("cut at the most", Side::Right)]);
    for variant in &result.variants {
        let tokens = variant.answer_tokens.map_or_else(|| NONE.to_owned(), |tokens| fixed(tokens, 1, Sign::Minus));
        grid.row(vec![variant.name.clone(), tokens, variant.cut.map_or_else(|| NONE.to_owned(), percent)]);
    }
    grid
}

pub(super) fn efficiency(measured: &Efficiency) -> Grid {
    let mut grid = Grid::new(&[
        ("adapter", Side::Left),
        ("bytes", Side::Right),
        ("load", Side::Right),
        ("tokens/s", Side::Right),
        ("rounds", Side::Left),
        ("of merged", Side::Right),
    ]);
    let merged = measured.variants.first().map_or(0.0, |variant| variant.tokens_per_second.median);
    for variant in &measured.variants {
        let Speed { median, low, high, .. } = variant.tokens_per_second;
        let name = clipped(&variant.name, 28);
        grid.row(vec![
            if variant.layers_kept.is_some() { format!("unmerged, {name}") } else { name },
            if variant.adapter_bytes > 0 { bytes(variant.adapter_bytes) } else { NONE.to_owned() },
            variant
                .load_seconds
                .map_or_else(|| NONE.to_owned(), |load| format!("{} ms", fixed(load * 1e3, 1, Sign::Minus))),
            fixed(median, 0, Sign::Minus),
            format!("{} to {}", fixed(low, 0, Sign::Minus), fixed(high, 0, Sign::Minus)),
            percent(median / merged),
        ]);
    }
    grid
}

/// For each cut, what the numbers say of it, in a sentence.
fn verdicts(result: &EvalResult) -> Vec<String> {
    let layers = result.model.layers;
    let verdict = |variant: &EvalVariant, name: &str, against: usize, other: &str| {
        let (mut better, mut worse, mut alike) = (Vec::new(), Vec::new(), 0);
        for metric in &result.metrics {
            let found = comparison(metric, variant, against)?;
            let gain =
                if metric.better == Better::Lower { -found.difference.difference } else { found.difference.difference };
            match (found.p_holm < 0.05, gain > 0.0) {
                (true, true) => better.push(tame(&metric.name)),
                (true, false) => worse.push(tame(&metric.name)),
                (false, _) => alike += 1,
            }
        }
        let mut parts = Vec::new();
        if !better.is_empty() {
            parts.push(format!("better in {}", better.join(", ")));
        }
        if !worse.is_empty() {
            parts.push(format!("worse in {}", worse.join(", ")));
        }
        if alike > 0 {
            let rest = if parts.is_empty() { "no difference is shown" } else { "no difference shown" };
            parts.push(format!("{rest} in {} of {}", alike, counted(result.metrics.len(), "metric")));
        }
        Some(format!("{name} against {other}: {}.", parts.join("; ")))
    };
    let mut sentences = Vec::new();
    for variant in &result.variants {
        let name = match variant.layers_kept {
            // What has another name is a boundary.
            _ if variant.name == variant.gates => format!("LoRA at gates {}", variant.name),
            kept if kept == layers => "The full adapter".to_owned(),
            kept => format!("LoRA in {kept} of {layers} layers"),
        };
        sentences.extend(verdict(variant, &name, layers, "the full adapter"));
        sentences.extend(verdict(variant, &name, 0, "the base model"));
    }
    sentences
}
