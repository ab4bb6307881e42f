//! Forest plots: estimates with intervals, one per row, and a line at 0.

use super::axis::{Axis, LARGEST, Scale, extent};
use super::canvas::{RIGHT, Svg, Tone, WIDTH, text_width};

/// Height of a row.
const ROW: f64 = 32.0;
/// Space below the rows: tick labels and the name of the axis.
const BELOW: f64 = 48.0;

/// A forest plot.
pub(in crate::report) struct Forest<'a> {
    /// Text for readers who do not see the figure (`aria-label`).
    pub(in crate::report) label: &'a str,
    /// The horizontal axis.
    pub(in crate::report) x: Axis<'a>,
    /// The estimates, from the top.
    pub(in crate::report) rows: Vec<Estimate>,
}

/// One estimate.
pub(in crate::report) struct Estimate {
    /// Its name.
    pub(in crate::report) name: String,
    /// The estimate and the lower and upper end of its interval.
    pub(in crate::report) ends: [f64; 3],
    /// Its colour and point.
    pub(in crate::report) tone: Tone,
    /// Tooltip.
    pub(in crate::report) note: String,
}

impl Forest<'_> {
    /// Draws the plot.
    pub(in crate::report) fn render(&self) -> String {
        let is_drawn = |row: &&Estimate| row.ends.iter().all(|end| end.abs() <= LARGEST);
        let ends = self.rows.iter().filter(is_drawn).flat_map(|row| row.ends);
        let (from, to) = self.x.range(extent(ends.chain([0.0])));
        let names = self.rows.iter().map(|row| text_width(&row.name)).fold(0.0, f64::max);
        let left = (names + 20.0).min(WIDTH / 2.0);
        let x = Scale { from, to, start: left, end: WIDTH - RIGHT };
        let (top, bottom) = (4.0, 10.0 + ROW * self.rows.len() as f64);
        let mut svg = Svg::open(self.label, bottom + BELOW);
        for (value, text) in self.x.ticks(x, 7) {
            let at = x.at(value);
            svg.line("grid", [at, top, at, bottom]);
            svg.text("tick middle", at, bottom + 19.0, &text);
        }
        svg.line("axis", [x.at(0.0), top, x.at(0.0), bottom]);
        svg.line("axis", [left, bottom, WIDTH - RIGHT, bottom]);
        svg.text("name middle", (left + WIDTH - RIGHT) / 2.0, bottom + BELOW - 6.0, self.x.name);
        for (index, row) in self.rows.iter().enumerate() {
            let y = top + ROW * (index as f64 + 0.5);
            svg.text("name end", left - 12.0, y + 4.0, &row.name);
            if is_drawn(&row) {
                let [value, low, high] = row.ends.map(|end| x.at(end));
                svg.horizontal_whisker(y, [low, high], 5.0);
                svg.dot(row.tone, value, y, &row.note);
            }
        }
        svg.close()
    }
}
