//! The table of a search for the terminal: boundaries, sections of what else was measured, the answer, and warnings.
//!
//! At most `WIDTH` (100) columns. Names of variants and metrics come from untrusted files: they are shortened, and
//! their control characters are replaced.

use plimsoll_stats::choose::JudgingSamples;

use super::evaluation::{efficiency, efficiency_note, written, written_note};
use super::grid::Form;
use super::sections::{self, Extent, Section};
use super::terminal::{Look, Style, wrap};
use super::words::{self, Sign, count, counted, decimals, fixed, percent, plus_minus};
use super::{CHOSEN, boundaries, chosen, full, marks, other_candidate, race_status};
use crate::result::{SearchResult, VariantSummary};

/// Width of the bar, in columns.
const BAR: usize = 10;

/// Legend of the column "picked by".
fn picks(result: &SearchResult) -> String {
    let best = match result.metric.as_ref().filter(|metric| metric.decided) {
        Some(metric) => format!("the highest {} of the boundaries that answered", words::printable(&metric.name)),
        None => "the lowest NLL".to_owned(),
    };
    let samples = if result.data.holdout > 0 { "the selection samples" } else { "all samples" };
    let is_candidate = other_candidate(result).is_none() && result.choice.validation != JudgingSamples::All;
    let is_candidate = if is_candidate { " (the candidate)" } else { "" };
    let curve = result.choice.curve.map_or("", |_| "; curve = the change point of the logit lens");
    format!(
        "Picked by, on {samples}: best = {best}; one-SE = the smallest k within one paired standard error of the best\
         {is_candidate}{curve}. Δ to full: below 0 is better than the full adapter."
    )
}

/// The table of a search for the terminal, at most 100 columns wide. Ends with a line feed.
pub fn table(result: &SearchResult, style: Style) -> String {
    let form = Form::Text(style);
    let mut out = String::new();
    form.paragraph(&mut out, Look::Dim, &legend(result));
    out.push('\n');
    boundary_rows(&mut out, result, style);
    out.push('\n');
    form.paragraph(&mut out, Look::Dim, &picks(result));
    if let Some(race) = words::race(result) {
        out.push('\n');
        form.paragraph(&mut out, Look::Dim, &race);
    }
    for Section { title, grids, note } in sections::sections(result, Extent::Short) {
        out.push('\n');
        out.push_str(&style.styled(Look::Bold, title));
        out.push('\n');
        for (index, (name, grid)) in grids.iter().enumerate() {
            if index > 0 {
                out.push('\n');
            }
            if let Some(name) = name {
                out.push_str(&style.styled(Look::Dim, name));
                out.push('\n');
            }
            grid.write(&mut out, form);
        }
        form.paragraph(&mut out, Look::Dim, &note);
    }
    if let Some(metric) = &result.metric {
        out.push('\n');
        written(metric, result.model.layers).write(&mut out, form);
        out.push('\n');
        form.paragraph(&mut out, Look::Dim, &written_note(metric));
    }
    if let Some(measured) = &result.efficiency {
        out.push('\n');
        efficiency(measured).write(&mut out, form);
        out.push('\n');
        form.paragraph(&mut out, Look::Dim, &efficiency_note(measured));
    }
    out.push('\n');
    form.paragraph(&mut out, Look::Bold, &words::sentence(result));
    for warning in &result.warnings {
        let words::WarningText { problem, action } = words::warning_text(warning, result);
        out.push('\n');
        for (index, text) in wrap(&format!("{problem} {action}"), 9).iter().enumerate() {
            let start = if index == 0 { "Warning:" } else { "" };
            out.push_str(&style.styled(Look::Warning, &format!("{start:9}{text}")));
            out.push('\n');
        }
    }
    out
}

/// Units and samples of the boundaries' rows.
fn legend(result: &SearchResult) -> String {
    let data = &result.data;
    let samples = match result.choice.validation {
        _ if data.holdout > 0 => {
            format!("{} selection and {} held-out samples", count(data.selection as u64), count(data.holdout as u64))
        }
        JudgingSamples::Nested { folds } => {
            format!("{} samples in nested cross-validation ({folds} folds)", count(data.selection as u64))
        }
        JudgingSamples::Holdout | JudgingSamples::All if data.unused > 0 => {
            format!("{} of {}", count(data.selection as u64), counted(data.selection + data.unused, "sample"))
        }
        JudgingSamples::Holdout | JudgingSamples::All => counted(data.selection, "sample"),
    };
    format!(
        "NLL in nats per answer token, mean over samples; lower is better. {samples}, {} answer tokens. The lowest k \
         layers keep LoRA: k = 0 is the base model, k = {} the full adapter. Bars span the lowest to the highest NLL \
         on the selection samples. ▶ marks what the verdict keeps.",
        count(data.answer_tokens as u64),
        result.model.layers,
    )
}

/// The header and the rows of the boundaries.
fn boundary_rows(out: &mut String, result: &SearchResult, style: Style) {
    let rows: Vec<&VariantSummary> = boundaries(result).collect();
    let format = RowFormat::new(&rows);
    let mut line = |look: Look, text: &str| {
        out.push_str(&style.styled(look, text.trim_end()));
        out.push('\n');
    };
    line(Look::Dim, &RowFormat::groups());
    line(Look::Bold, &RowFormat::header());
    let full = full(result);
    for row in &rows {
        let mut marks = marks(result, row.layers_kept);
        let status = race_status(result, row.layers_kept);
        marks.extend(status.as_deref());
        let look = if Some(row.layers_kept) == chosen(result) { Look::Chosen } else { Look::Plain };
        line(look, &format.row(row, full, &marks));
    }
}

/// Format of the rows.
struct RowFormat {
    /// Decimals of values in nats.
    decimals: usize,
    /// The lowest and the highest mean on the selection samples: the ends of the bar.
    range: (f64, f64),
}

impl RowFormat {
    fn new(rows: &[&VariantSummary]) -> Self {
        let means = || rows.iter().map(|row| row.selection().mean_nll).filter(|mean| mean.is_finite());
        let range = (means().fold(f64::INFINITY, f64::min), means().fold(f64::NEG_INFINITY, f64::max));
        Self { decimals: decimals(range.1, 5).min(5), range }
    }

    /// The line above the header: which samples the columns are of.
    fn groups() -> String {
        // The columns of the selection samples, from the NLL to the bar.
        const SELECTION: usize = 17 + 2 + 9 + 2 + 6 + 2 + 8 + 2 + BAR;
        format!("{:7}{:─^SELECTION$}  {:>8}", "", " selection ", "held out")
    }

    fn header() -> String {
        let cells = ["", "k", "NLL ± SE", "Δ to full", "prob.", "accuracy", "NLL bar", "NLL", "picked by"];
        layout(&cells.map(str::to_owned))
    }

    fn row(&self, row: &VariantSummary, full: Option<&VariantSummary>, marks: &[&str]) -> String {
        let nats = |value| fixed(value, self.decimals, Sign::Minus);
        let delta = full.map_or(f64::NAN, |full| row.selection().mean_nll - full.selection().mean_nll);
        // The arrow stands for `chosen`, which is too long for the line.
        let (chosen, marks): (Vec<&str>, Vec<&str>) = marks.iter().partition(|mark| **mark == CHOSEN);
        let cells = [
            if chosen.is_empty() { "" } else { "▶" }.to_owned(),
            row.layers_kept.to_string(),
            plus_minus(nats(row.selection().mean_nll), &nats(row.selection().se)),
            fixed(delta, self.decimals, Sign::Both),
            fixed(row.selection().mean_probability, 4, Sign::Minus),
            percent(row.selection().token_accuracy),
            self.bar(row.selection().mean_nll),
            nats(row.holdout().mean_nll),
            marks.join(", "),
        ];
        layout(&cells)
    }

    /// The bar of a mean: shortest for the lowest, the full width for the highest.
    fn bar(&self, mean: f64) -> String {
        sections::bar(mean, self.range)
    }
}

/// One line of cells, numbers right-aligned.
fn layout([chosen, k, nll, delta, probability, accuracy, bar, holdout, marks]: &[String; 9]) -> String {
    format!(
        "{chosen:1} {k:>3}  {nll:>17}  {delta:>9}  {probability:>6}  {accuracy:>8}  {bar:BAR$}  {holdout:>8}  {marks}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_grow_to_the_full_width() {
        let format = RowFormat { decimals: 4, range: (1.0, 2.0) };
        assert_eq!(format.bar(1.0), "▏");
        assert_eq!(format.bar(2.0), "█".repeat(BAR));
        assert_eq!(format.bar(1.5).chars().count(), 6);
        assert_eq!(RowFormat { decimals: 4, range: (1.0, 1.0) }.bar(1.0), "▏");
    }
}
