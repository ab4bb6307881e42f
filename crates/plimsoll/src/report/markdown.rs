//! The report of a search as Markdown, for a model card or a pull request. The answer, its tests and short tables are
//! visible; long tables are folded.
//!
//! Names and paths come from untrusted files: in sentences and tables their markup is escaped, elsewhere they are
//! printed as code.

use super::evaluation::{efficiency, efficiency_note, written, written_note};
use super::grid::{Form, Grid, Side, code, markup_free};
use super::sections::{self, Extent};
use super::terminal::Look;
use super::words::{self, Sign, bytes, count, counted, decimals, fixed, percent, plus_minus, printable};
use super::{CHOSEN, boundaries, evidence, full, marks, picked, race_status};
use crate::result::{SearchResult, VariantSummary};

/// The report of a search as Markdown (GitHub's, for its tables). Ends with a line feed.
pub fn markdown(result: &SearchResult) -> String {
    let SearchResult { model, rules, .. } = result;
    let mut out = String::new();
    let words::Answer { headline, grounds } = words::answer(result);
    out.push_str(&format!("### {}\n\n", markup_free(&headline)));
    paragraph(&mut out, &grounds);
    for warning in &result.warnings {
        let words::WarningText { problem, action } = words::warning_text(warning, result);
        out.push_str(&format!("> **{}** {}\n\n", markup_free(&problem), markup_free(action)));
    }

    sections::facts(result).write(&mut out, Form::Markdown);
    out.push('\n');
    paragraph(
        &mut out,
        &format!(
            "Gains are in {}, on {}; above 0 is better. Intervals: 95 % bootstrap over samples. p: two-sided, the \
             larger of a paired randomisation test and a skewness-corrected t-test. {}.",
            words::unit(result),
            evidence::judged_on(&result.choice.gain, result),
            words::counts_as_shown(result.choice.gain.samples, rules.alpha),
        ),
    );
    if let Some(candidate) = &result.candidate {
        out.push_str(&format!("LoRA strengths of the candidate (for `--gates`): {}\n\n", code(&candidate.gates)));
    }

    boundary_part(&mut out, result);
    section_part(&mut out, result);
    if let Some(metric) = &result.metric {
        heading(&mut out, "Metric of generated answers");
        written(metric, model.layers).write(&mut out, Form::Markdown);
        out.push('\n');
        paragraph(&mut out, &written_note(metric));
    }
    if let Some(measured) = &result.efficiency {
        heading(&mut out, "Size, load time and speed");
        efficiency(measured).write(&mut out, Form::Markdown);
        out.push('\n');
        paragraph(&mut out, &efficiency_note(measured));
    }

    folded(&mut out, "Inputs, settings and cost", |out| provenance(out, result));
    while out.ends_with("\n\n") {
        out.pop();
    }
    out
}

/// The boundaries that a rule picked, the legend, and all boundaries folded.
fn boundary_part(out: &mut String, result: &SearchResult) {
    let SearchResult { data, model, .. } = result;
    heading(out, "Boundaries");
    let picked = picked(result);
    let is_shown = |row: &VariantSummary| {
        row.layers_kept == 0 || row.layers_kept == model.layers || picked.contains(&row.layers_kept)
    };
    let shown = boundary_table(result, is_shown);
    shown.write(out, Form::Markdown);
    out.push('\n');
    paragraph(
        out,
        &format!(
            "The lowest k of {} layers keep LoRA: k = 0 is the base model. NLL in nats per answer token, mean over {} \
             and {}; lower is better. Picked by, on the selection samples: best = the lowest NLL; one-SE = the \
             smallest k within one paired standard error of the best; curve = the change point of the logit lens.",
            count(model.layers as u64),
            counted(data.selection, "selection sample"),
            counted(data.holdout, "held-out sample"),
        ),
    );
    if let Some(race) = words::race(result) {
        paragraph(out, &race);
    }
    let all = boundary_table(result, |_| true);
    if all.rows.len() > shown.rows.len() {
        folded(out, &format!("All {} boundaries", all.rows.len()), |out| all.write(out, Form::Markdown));
    }
}

/// What was measured in addition to the boundaries.
fn section_part(out: &mut String, result: &SearchResult) {
    // Short tables are visible, whole ones folded.
    for (short, whole) in
        sections::sections(result, Extent::Short).into_iter().zip(sections::sections(result, Extent::Whole))
    {
        heading(out, whole.title);
        for ((name, whole), (_, short)) in whole.grids.into_iter().zip(short.grids) {
            let rows = whole.rows.len();
            if let Some(name) = name {
                let summary = format!("{name}: {}", counted(rows, "variant"));
                folded(out, &summary, |out| whole.write(out, Form::Markdown));
                continue;
            }
            short.write(out, Form::Markdown);
            out.push('\n');
            if rows > short.rows.len() {
                folded(out, &format!("All {}", counted(rows, "row")), |out| whole.write(out, Form::Markdown));
            }
        }
        paragraph(out, &whole.note);
    }
}

fn heading(out: &mut String, title: &str) {
    out.push_str(&format!("#### {}\n\n", markup_free(title)));
}

fn paragraph(out: &mut String, text: &str) {
    Form::Markdown.paragraph(out, Look::Plain, text);
    out.push('\n');
}

/// Writes a folded block. Markdown inside HTML needs empty lines around it.
fn folded(out: &mut String, summary: &str, write: impl FnOnce(&mut String)) {
    out.push_str(&format!("<details>\n<summary>{}</summary>\n\n", markup_free(summary)));
    write(out);
    out.push_str("\n</details>\n\n");
}

fn boundary_table(result: &SearchResult, is_shown: impl Fn(&VariantSummary) -> bool) -> Grid {
    let rows: Vec<&VariantSummary> = boundaries(result).collect();
    let means = rows.iter().map(|row| row.selection().mean_nll).filter(|mean| mean.is_finite());
    let digits = decimals(means.fold(f64::NEG_INFINITY, f64::max), 5).min(5);
    let nats = |value| fixed(value, digits, Sign::Minus);
    let full = full(result).map_or(f64::NAN, |full| full.selection().mean_nll);
    let has_guard = result.guard.is_some();
    let mut columns = vec![
        ("k", Side::Right),
        ("NLL ± SE", Side::Right),
        ("Δ to full", Side::Right),
        ("prob.", Side::Right),
        ("accuracy", Side::Right),
        ("held-out NLL", Side::Right),
    ];
    columns.extend(has_guard.then_some(("guard", Side::Right)));
    columns.extend([("bytes", Side::Right), ("picked by", Side::Left)]);
    let mut grid = Grid::new(&columns);
    for row in rows.into_iter().filter(|row| is_shown(row)) {
        let (selection, k) = (row.selection(), row.layers_kept);
        let marks = marks(result, k);
        let is_chosen = marks.contains(&CHOSEN);
        let mut cells = vec![
            k.to_string(),
            plus_minus(nats(selection.mean_nll), &nats(selection.se)),
            fixed(selection.mean_nll - full, digits, Sign::Both),
            fixed(selection.mean_probability, 4, Sign::Minus),
            percent(selection.token_accuracy),
            nats(row.holdout().mean_nll),
        ];
        cells.extend(has_guard.then(|| nats(row.guard.map_or(f64::NAN, |guard| guard.mean_nll))));
        let picked_by = marks.into_iter().map(str::to_owned).chain(race_status(result, k));
        cells.extend([bytes(row.bytes), picked_by.collect::<Vec<_>>().join(", ")]);
        if is_chosen { grid.chosen(cells) } else { grid.row(cells) }
    }
    grid
}

/// Inputs with their hashes, settings, cost and the command.
fn provenance(out: &mut String, result: &SearchResult) {
    let SearchResult { model, adapter, data, cost, .. } = result;
    let ranks: Vec<String> = adapter.ranks.iter().map(ToString::to_string).collect();
    let modules: Vec<String> = adapter.modules.iter().map(|module| code(module)).collect();
    let mut lines = vec![
        format!(
            "base model {}: {}, {} layers, {} parameters, stored as {}, SHA-256 {}",
            code(&model.path),
            code(&model.architecture),
            count(model.layers as u64),
            count(model.parameters),
            code(&model.stored_as),
            code(&model.sha256),
        ),
        format!(
            "adapter {}: rank {} in {} of {} layers, {}, SHA-256 {}",
            code(&adapter.path),
            ranks.join(", "),
            modules.join(", "),
            count(adapter.layers as u64),
            bytes(adapter.bytes),
            code(&adapter.sha256),
        ),
        format!(
            "data {}: {} and {}, {}, template {}, SHA-256 {}",
            code(&data.path),
            counted(data.selection, "selection sample"),
            counted(data.holdout, "held-out sample"),
            counted(data.answer_tokens, "answer token"),
            code(&data.template),
            code(&data.sha256),
        ),
    ];
    lines.extend(result.guard.as_ref().map(|guard| {
        format!(
            "guard {}: {} and {}, SHA-256 {}",
            code(&guard.path),
            counted(guard.selection, "selection sample"),
            counted(guard.holdout, "held-out sample"),
            code(&guard.sha256),
        )
    }));
    lines.push(format!(
        "{}, seed {}, {}, {}; scored in {}",
        code(&result.tool),
        result.seed,
        counted(cost.threads, "thread"),
        markup_free(&words::arithmetic(&cost.dtype, &cost.instructions)),
        words::scoring_seconds(cost.seconds, cost.resumed),
    ));
    for line in lines {
        out.push_str(&format!("- {line}\n"));
    }
    let command = printable(&result.command);
    // A fence that is longer than any run of backticks in the command.
    let runs = command.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(runs.max(2) + 1);
    out.push_str(&format!("\n{fence}sh\n{command}\n{fence}\n"));
}
