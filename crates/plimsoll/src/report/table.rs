//! The terminal's table: one row for each boundary, then the answer and what to mind.
//!
//! Never wider than [`WIDTH`] columns. It holds numbers and this crate's own words; the few names that a result gives to
//! variants and metrics are cut to a length, and nothing in them can steer a terminal.

use plimsoll_stats::choose::Validation;

use super::evaluation::{efficiency, efficiency_note, written, written_note};
use super::grid::Form;
use super::sections::{self, Extent, Section};
use super::terminal::{Look, Style, wrap};
use super::words::{self, Sign, count, decimals, fixed, percent, plus_minus};
use super::{CHOSEN, beyond, boundaries, chosen, full, lost, marks};
use crate::result::{SearchResult, VariantSummary};

/// Columns of the bar.
const BAR: usize = 10;

/// What the names in the last column mean.
fn picks(result: &SearchResult) -> String {
    let best = match result.metric.as_ref().filter(|metric| metric.decided) {
        Some(metric) => format!("the highest {} of those that answered", words::tame(&metric.name)),
        None => "the lowest NLL".to_owned(),
    };
    let samples = match result.choice.validation {
        Validation::Holdout => "the selection samples",
        Validation::Nested { .. } => "all samples",
    };
    let is_candidate = if beyond(result).is_none() { ", which is the candidate" } else { "" };
    format!(
        "Picked by, on {samples}: best, {best}; one-SE, the smallest k within one paired standard error of the best\
         {is_candidate}; curve, the bend of the probability after each layer."
    )
}

/// The table of a search's result, with the answer and the warnings below. Ends with a line feed.
pub fn table(result: &SearchResult, style: Style) -> String {
    let rows: Vec<&VariantSummary> = boundaries(result).collect();
    let column = Column::new(&rows);
    let data = &result.data;
    let mut out = String::new();
    let mut line = |look: Look, text: &str| {
        out.push_str(&style.dress(look, text.trim_end()));
        out.push('\n');
    };

    let samples = match result.choice.validation {
        Validation::Holdout => {
            format!("{} selection and {} held-out samples", count(data.selection as u64), count(data.holdout as u64))
        }
        Validation::Nested { folds } => {
            format!("{} samples, each of which judges in turn ({folds} folds)", count(data.selection as u64))
        }
    };
    let note = format!(
        "Nats per answer token, mean over samples; lower is better. {samples}, {} answer tokens. k layers keep LoRA, counted from the embedding: k = 0 is the base model, k = {} the full adapter. \
         Bars span the lowest to the highest NLL of the selection. ▶ marks the answer.",
        count(data.answer_tokens as u64),
        result.model.layers,
    );
    for text in wrap(&note, 0) {
        line(Look::Dim, &text);
    }
    line(Look::Plain, "");
    line(Look::Dim, &Column::groups());
    line(Look::Bold, &Column::header());
    let full = full(result);
    for row in &rows {
        let mut marks = marks(result, row.layers_kept);
        let lost = lost(result, row.layers_kept);
        marks.extend(lost.as_deref());
        let look = if Some(row.layers_kept) == chosen(result) { Look::Chosen } else { Look::Plain };
        line(look, &column.row(row, full, &marks));
    }
    line(Look::Plain, "");
    for text in wrap(&picks(result), 0) {
        line(Look::Dim, &text);
    }
    if let Some(race) = words::race(result) {
        line(Look::Plain, "");
        for text in wrap(&race, 0) {
            line(Look::Dim, &text);
        }
    }
    let form = Form::Text(style);
    for Section { title, grids, note } in sections::sections(result, Extent::Short) {
        out.push('\n');
        out.push_str(&style.dress(Look::Bold, title));
        out.push('\n');
        for (index, (name, grid)) in grids.iter().enumerate() {
            if index > 0 {
                out.push('\n');
            }
            if let Some(name) = name {
                out.push_str(&style.dress(Look::Dim, name));
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
    let mut line = |look: Look, text: &str| {
        out.push_str(&style.dress(look, text.trim_end()));
        out.push('\n');
    };
    line(Look::Plain, "");
    for text in wrap(&words::sentence(result), 0) {
        line(Look::Bold, &text);
    }
    for warning in &result.warnings {
        let words::Advice { matter, remedy } = words::advice(warning, result);
        line(Look::Plain, "");
        for (i, text) in wrap(&format!("{matter} {remedy}"), 9).iter().enumerate() {
            line(Look::Warning, &format!("{:9}{text}", if i == 0 { "Warning:" } else { "" }));
        }
    }
    out
}

/// What the rows have in common.
struct Column {
    /// Decimals of everything in nats.
    decimals: usize,
    /// Lowest and highest mean on the selection samples: the ends of the bar.
    range: (f64, f64),
}

impl Column {
    fn new(rows: &[&VariantSummary]) -> Self {
        let means = || rows.iter().map(|row| row.selection().mean_nll).filter(|mean| mean.is_finite());
        let range = (means().fold(f64::INFINITY, f64::min), means().fold(f64::NEG_INFINITY, f64::max));
        Self { decimals: decimals(range.1, 5).min(5), range }
    }

    /// The names of the samples that the columns below stand for.
    fn groups() -> String {
        // From the first column that the selection samples have to the bar.
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
        // The arrow takes the place of the word, for which the line has no room.
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

    /// The mean between the lowest, a sliver, and the highest, the whole width.
    fn bar(&self, mean: f64) -> String {
        sections::bar(mean, self.range)
    }
}

/// One line of cells: the selection samples' from the mean to the bar, the held-out samples', and the names. Numbers
/// are right-aligned.
fn layout([chosen, k, nll, delta, probability, accuracy, bar, holdout, marks]: &[String; 9]) -> String {
    format!(
        "{chosen:1} {k:>3}  {nll:>17}  {delta:>9}  {probability:>6}  {accuracy:>8}  {bar:BAR$}  {holdout:>8}  {marks}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_grow_from_a_sliver_to_the_whole_width() {
        let column = Column { decimals: 4, range: (1.0, 2.0) };
        assert_eq!(column.bar(1.0), "▏");
        assert_eq!(column.bar(2.0), "█".repeat(BAR));
        assert_eq!(column.bar(1.5).chars().count(), 6);
        assert_eq!(Column { decimals: 4, range: (1.0, 1.0) }.bar(1.0), "▏");
    }
}
