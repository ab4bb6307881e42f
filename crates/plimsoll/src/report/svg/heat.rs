//! Heat maps: one row of coloured cells for each module or measure, one column for each layer.
//!
//! Colours come in a few steps, each a class of the page's style sheet, so that a cell can be found in the legend. A
//! cell below 0 also carries a minus sign, because two colours of equal lightness look the same in print.

use super::axis::extent;
use super::canvas::{ROW, Svg, WIDTH, text_width};

/// Steps on each side of 0, and of a palette from low to high.
const STEPS: f64 = 5.0;
/// Height of a row of cells.
const CELL: f64 = 24.0;
/// Largest width of a cell.
const WIDEST: f64 = 64.0;

/// A heat map.
pub(in crate::report) struct Heat<'a> {
    /// Text for readers who do not see the figure (`aria-label`).
    pub(in crate::report) label: &'a str,
    /// Name of the horizontal axis.
    pub(in crate::report) x: &'a str,
    /// Name of each column.
    pub(in crate::report) columns: Vec<String>,
    /// The rows, from the top.
    pub(in crate::report) rows: Vec<HeatRow>,
    /// The legends of the colours.
    pub(in crate::report) legends: Vec<Legend>,
}

/// One row of cells.
pub(in crate::report) struct HeatRow {
    /// Its name.
    pub(in crate::report) name: String,
    /// Its colours.
    pub(in crate::report) palette: Palette,
    /// The range of its colours, unless that is in the legend; empty otherwise.
    pub(in crate::report) scale: String,
    /// A cell for each column; `None` without a measurement.
    pub(in crate::report) cells: Vec<Option<Cell>>,
}

/// One cell.
pub(in crate::report) struct Cell {
    /// Its value.
    pub(in crate::report) value: f64,
    /// Tooltip.
    pub(in crate::report) note: String,
}

/// A map from values to colours.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::report) enum Palette {
    /// Two colours on both sides of 0, strongest at `±most`.
    Diverging {
        /// The largest absolute value.
        most: f64,
    },
    /// One colour, weakest at `low`.
    Sequential {
        /// The lowest value.
        low: f64,
        /// The highest value.
        high: f64,
    },
}

/// A palette with the meaning of its ends.
pub(in crate::report) struct Legend {
    /// The palette.
    pub(in crate::report) palette: Palette,
    /// Meaning of its first colour.
    pub(in crate::report) low: String,
    /// Meaning of its last colour.
    pub(in crate::report) high: String,
}

impl Palette {
    /// The diverging palette of some values.
    pub(in crate::report) fn around_zero(values: impl Iterator<Item = f64>) -> Self {
        Self::Diverging { most: values.map(f64::abs).filter(|value| value.is_finite()).fold(0.0, f64::max) }
    }

    /// The sequential palette of some values.
    pub(in crate::report) fn rising(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = extent(values.filter(|value| value.is_finite()));
        Self::Sequential { low, high }
    }

    /// The step of a value: from −5 to 5, or from 0 to 5.
    fn step(self, value: f64) -> i32 {
        let share = match self {
            Self::Diverging { most } if most > 0.0 => (value / most).clamp(-1.0, 1.0),
            Self::Sequential { low, high } if high > low => ((value - low) / (high - low)).clamp(0.0, 1.0),
            _ => 0.0,
        };
        (share * STEPS).round() as i32
    }

    fn class(self, step: i32) -> String {
        match self {
            Self::Sequential { .. } => format!("heat-s{step}"),
            Self::Diverging { .. } if step < 0 => format!("heat-n{}", -step),
            Self::Diverging { .. } => format!("heat-p{step}"),
        }
    }

    fn steps(self) -> std::ops::RangeInclusive<i32> {
        match self {
            Self::Diverging { .. } => -(STEPS as i32)..=STEPS as i32,
            Self::Sequential { .. } => 0..=STEPS as i32,
        }
    }
}

impl Heat<'_> {
    /// Draws the heat map.
    pub(in crate::report) fn render(&self) -> String {
        let widest = |texts: &mut dyn Iterator<Item = &str>| texts.map(text_width).fold(0.0, f64::max);
        let left = widest(&mut self.rows.iter().map(|row| row.name.as_str())).clamp(40.0, 210.0) + 14.0;
        let scales = widest(&mut self.rows.iter().map(|row| row.scale.as_str())).min(200.0);
        let right = if scales > 0.0 { scales + 12.0 } else { 4.0 };
        let width = ((WIDTH - left - right) / self.columns.len().max(1) as f64).min(WIDEST);
        let top = ROW * self.legends.len() as f64 + 14.0;
        let bottom = top + CELL * self.rows.len() as f64;
        let mut svg = Svg::open(self.label, bottom + 46.0);

        for (line, legend) in self.legends.iter().enumerate() {
            legend.draw(&mut svg, left, ROW * line as f64);
        }
        let gap = (width * 0.08).clamp(0.3, 2.0);
        for (index, row) in self.rows.iter().enumerate() {
            let y = top + CELL * index as f64;
            svg.text("name end", left - 10.0, y + CELL / 2.0 + 4.0, &row.name);
            for (column, cell) in row.cells.iter().enumerate() {
                let x = left + width * column as f64;
                let place = [x + gap / 2.0, y + 1.0, width - gap, CELL - 2.0];
                let Some(cell) = cell.as_ref().filter(|cell| cell.value.is_finite()) else {
                    svg.bar("heat-none", place, "");
                    continue;
                };
                let step = row.palette.step(cell.value);
                svg.bar(&row.palette.class(step), place, &cell.note);
                if step < 0 && width > 7.0 {
                    let (middle, y) = (x + width / 2.0, y + CELL / 2.0);
                    svg.line("minus", [middle - 2.5, y, middle + 2.5, y]);
                }
            }
            if !row.scale.is_empty() {
                svg.text("tick", left + width * self.columns.len() as f64 + 10.0, y + CELL / 2.0 + 4.0, &row.scale);
            }
        }
        // Columns from one label to the next, so that no two labels overlap.
        let longest = widest(&mut self.columns.iter().map(String::as_str));
        let every = [1, 2, 5, 10, 20, 50, 100, 1000].into_iter().find(|step| *step as f64 * width > longest + 4.0);
        for (column, name) in self.columns.iter().enumerate().step_by(every.unwrap_or(1000)) {
            svg.text("tick middle", left + width * (column as f64 + 0.5), bottom + 16.0, name);
        }
        let middle = left + width * self.columns.len() as f64 / 2.0;
        svg.text("name middle", middle, bottom + 38.0, self.x);
        svg.close()
    }
}

impl Legend {
    fn draw(&self, svg: &mut Svg, left: f64, y: f64) {
        const BOX: f64 = 18.0;
        svg.text("tick", left, y + 12.0, &self.low);
        let mut x = left + text_width(&self.low) + 10.0;
        for step in self.palette.steps() {
            svg.bar(&self.palette.class(step), [x, y + 2.0, BOX - 1.0, 12.0], "");
            if step < 0 {
                svg.line("minus", [x + BOX / 2.0 - 3.0, y + 8.0, x + BOX / 2.0 + 2.0, y + 8.0]);
            }
            x += BOX;
        }
        svg.text("tick", x + 8.0, y + 12.0, &self.high);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_step_of_a_value_is_its_share_of_the_range() {
        let round = Palette::around_zero([0.1, -0.4, f64::NAN].into_iter());
        assert_eq!([-0.4, -0.1, 0.0, 0.03, 0.4, 9.0].map(|value| round.step(value)), [-5, -1, 0, 0, 5, 5]);
        let rising = Palette::rising([2.0, 3.0].into_iter());
        assert_eq!([2.0, 2.5, 3.0].map(|value| rising.step(value)), [0, 3, 5]);
        let flat = Palette::rising([2.0, 2.0].into_iter());
        assert_eq!((flat.step(2.0), Palette::around_zero(std::iter::empty()).step(1.0)), (0, 0));
    }

    #[test]
    fn cells_without_a_finite_value_are_empty() {
        let cell = |value: f64| Some(Cell { value, note: "<b>".to_owned() });
        let row = HeatRow {
            name: "a<b".to_owned(),
            palette: Palette::Diverging { most: 1.0 },
            scale: String::new(),
            cells: vec![cell(f64::NAN), cell(-1.0), None, cell(1.0)],
        };
        let columns = (0..4).map(|column| column.to_string()).collect();
        let svg = Heat { label: "h", x: "layer", columns, rows: vec![row], legends: vec![] }.render();
        assert_eq!(svg.matches("heat-none").count(), 2);
        assert_eq!((svg.matches("heat-n5").count(), svg.matches("\"minus\"").count()), (1, 1));
        assert!(svg.contains("a&lt;b") && svg.contains("<title>&lt;b&gt;</title>") && !svg.contains("NaN"), "{svg}");
    }
}
