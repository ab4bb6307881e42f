//! Tables of an evaluation, of efficiency and of a metric of generated answers, for the terminal and for Markdown.

use plimsoll_stats::choose::Interval;
use plimsoll_stats::metrics::compare::{Difference, Estimate};

use super::grid::{Form, Grid, Side, clipped};
use super::terminal::Look;
use super::words::{self, NONE, Sign, bytes, count, counted, fixed, percent, plain, printable};
use crate::result::{
    Better, Efficiency, EvalComparison, EvalResult, EvalVariant, MetricResult, MetricSummary, MetricVariant, Speed,
    VariantEfficiency,
};

/// The tables of an evaluation: metrics, lengths of answers, efficiency, and a sentence for each comparison. Ends
/// with a line feed.
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
            " Differences are paired by sample; p-values are from randomisation tests{}. * marks p-values below 0.05.",
            match comparisons {
                1 => String::new(),
                many => format!(", adjusted for all {} (Holm)", counted(many, "comparison")),
            }
        ),
    };
    let note = format!(
        "Intervals are 95 % intervals over samples: Wilson for rates such as exact match, bootstrap for other metrics.\
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
        form.paragraph(&mut out, Look::Warning, &format!("Warning: {warning}"));
    }
    out
}

/// The legend of an efficiency table.
pub(super) fn efficiency_note(measured: &Efficiency) -> String {
    format!(
        "Measured on this machine: {} in one batch, {}, {}. Tokens/s: median of {} rounds, in which the variants take \
         turns. Range: slowest to fastest round. Load: median of repeated loads. A merged adapter costs nothing at \
         inference, so its speed is that of the base model.",
        counted(measured.batch, "sequence"),
        clipped(&measured.dtype, 28),
        counted(measured.threads, "thread"),
        measured.variants.first().map_or(0, |variant| variant.tokens_per_second.rounds),
    )
}

/// The table of a metric of generated answers.
pub(super) fn written(metric: &MetricSummary, layers: usize) -> Grid {
    let is_split = metric.variants.iter().any(|variant| variant.holdout.is_some());
    let parts = if is_split { &["selection", "held out"][..] } else { &["all samples"] };
    let columns = parts.iter().flat_map(|part| [(*part, Side::Right), ("95 % interval", Side::Left)]);
    let mut grid = Grid::new(&std::iter::once(("k", Side::Right)).chain(columns).collect::<Vec<_>>());
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
        let mut row = vec![name];
        row.extend(cells(selection));
        row.extend(is_split.then(|| cells(holdout)).into_iter().flatten());
        grid.row(row);
    }
    grid
}

/// The legend of [`written`].
pub(super) fn written_note(metric: &MetricSummary) -> String {
    let by_nll = &metric.choice_by_nll;
    let is_split = metric.variants.iter().any(|variant| variant.holdout.is_some());
    let (answered, by_nll) = if is_split {
        let answered = "The boundaries with an NLL near the best answered the selection samples. The pick, the full \
                        adapter and the base model answered the held-out samples.";
        (answered, by_nll.one_se)
    } else {
        let answered = "The base model, the full adapter and one boundary after the other answered, only as far as the \
                        margin needs.";
        (answered, by_nll.layers_kept)
    };
    format!(
        "{} of generated answers; higher is better; {}. {answered} The NLL alone would pick k = {by_nll}.",
        printable(&metric.name),
        printable(&metric.signature),
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
        other => format!("the template {}", printable(other)),
    };
    let decoding = if result.generation.sampling.temperature == 0.0 {
        "greedy decoding".to_owned()
    } else {
        format!(
            "temperature {}, seed {}",
            plain(f64::from(result.generation.sampling.temperature)),
            result.generation.sampling.seed
        )
    };
    format!(
        "{}: {samples}, {} before each prompt, {template}, {decoding}, answers of at most {}.",
        printable(&result.task.name),
        counted(result.task.shots, "example"),
        counted(result.generation.max_tokens, "token"),
    )
}

/// Every metric of every variant, with its differences to the full adapter and to the base model.
fn values(result: &EvalResult) -> Grid {
    let mut grid = Grid::new(&[
        ("metric", Side::Left),
        ("variant", Side::Left),
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
            let name = if index == 0 { format!("{}{arrow}", printable(&metric.name)) } else { String::new() };
            let [full, full_p] = against(metric, variant, result.model.layers);
            let [base, base_p] = against(metric, variant, 0);
            grid.row(vec![name, variant.name.clone(), value, format!("{low} to {high}"), full, full_p, base, base_p]);
        }
    }
    grid
}

/// The comparison of a variant with the base model (`against` = 0) or the full adapter. Results of earlier versions
/// have boundaries only, without `gates`.
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
    let mut grid = Grid::new(&[
        ("variant", Side::Left),
        ("tokens per answer", Side::Right),
        ("cut off at the limit", Side::Right),
    ]);
    for variant in &result.variants {
        let tokens = variant.answer_tokens.map_or_else(|| NONE.to_owned(), |tokens| fixed(tokens, 1, Sign::Minus));
        grid.row(vec![variant.name.clone(), tokens, variant.cut.map_or_else(|| NONE.to_owned(), percent)]);
    }
    grid
}

/// The table of size, load time and decoding speed.
pub(super) fn efficiency(measured: &Efficiency) -> Grid {
    let mut grid = Grid::new(&[
        ("adapter", Side::Left),
        ("bytes", Side::Right),
        ("load", Side::Right),
        ("tokens/s", Side::Right),
        ("range", Side::Left),
        ("vs merged", Side::Right),
    ]);
    let merged = measured.variants.first().map_or(0.0, |variant| variant.tokens_per_second.median);
    for variant in &measured.variants {
        let Speed { median, low, high, .. } = variant.tokens_per_second;
        grid.row(vec![
            efficiency_label(variant),
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

/// The name of a row of the efficiency table.
fn efficiency_label(variant: &VariantEfficiency) -> String {
    match variant.layers_kept {
        Some(_) => format!("unmerged, {}", clipped(&variant.name, 28)),
        None if variant.name == "merged" => "merged (speed of the base model)".to_owned(),
        None => clipped(&variant.name, 28),
    }
}

/// A sentence for each comparison: in which metrics the variant is better or worse.
fn verdicts(result: &EvalResult) -> Vec<String> {
    let layers = result.model.layers;
    let verdict = |variant: &EvalVariant, name: &str, against: usize, other: &str| {
        let (mut better, mut worse, mut open) = (Vec::new(), Vec::new(), 0);
        for metric in &result.metrics {
            let found = comparison(metric, variant, against)?;
            let gain =
                if metric.better == Better::Lower { -found.difference.difference } else { found.difference.difference };
            match (found.p_holm < 0.05, gain > 0.0) {
                (true, true) => better.push(printable(&metric.name)),
                (true, false) => worse.push(printable(&metric.name)),
                (false, _) => open += 1,
            }
        }
        let mut parts = Vec::new();
        if !better.is_empty() {
            parts.push(format!("better in {}", better.join(", ")));
        }
        if !worse.is_empty() {
            parts.push(format!("worse in {}", worse.join(", ")));
        }
        if open > 0 {
            parts.push(format!("no difference shown in {open} of {}", counted(result.metrics.len(), "metric")));
        }
        Some(format!("{name} compared with {other}: {}.", parts.join("; ")))
    };
    let mut sentences = Vec::new();
    for variant in &result.variants {
        let name = match variant.layers_kept {
            // A boundary has another name than its LoRA strengths.
            _ if variant.name == variant.gates => format!("LoRA strengths {}", variant.name),
            kept if kept == layers => "The full adapter".to_owned(),
            kept => format!("LoRA in {kept} of {layers} layers"),
        };
        sentences.extend(verdict(variant, &name, layers, "the full adapter"));
        sentences.extend(verdict(variant, &name, 0, "the base model"));
    }
    sentences
}
