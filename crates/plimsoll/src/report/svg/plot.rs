//! Plots: series over a horizontal axis, with a legend and labelled vertical marks.

use super::axis::{Axis, LARGEST, Scale, Ticks, extent};
use super::canvas::{LEFT, RIGHT, ROW, Svg, Tone, WIDTH, text_width};
use super::labels::{Side, mark_labels, point_labels};

/// Default height of the area between the axes.
pub(in crate::report) const INNER_HEIGHT: f64 = 280.0;
/// Space below the area: tick labels and the name of the horizontal axis.
const BELOW: f64 = 48.0;

/// A plot.
pub(in crate::report) struct Plot<'a> {
    /// Text for readers who do not see the figure (`aria-label`).
    pub(in crate::report) label: &'a str,
    /// The horizontal axis.
    pub(in crate::report) x: Axis<'a>,
    /// The vertical axis.
    pub(in crate::report) y: Axis<'a>,
    /// Height of the area between the axes.
    pub(in crate::report) height: f64,
    /// The series, from back to front.
    pub(in crate::report) series: Vec<Series<'a>>,
    /// Vertical lines with a label.
    pub(in crate::report) marks: Vec<Mark>,
}

/// Values over the horizontal axis.
pub(in crate::report) struct Series<'a> {
    /// Its name in the legend.
    pub(in crate::report) name: &'a str,
    /// Its colour, dash and points.
    pub(in crate::report) tone: Tone,
    /// How it is drawn.
    pub(in crate::report) shape: Shape,
    /// Longest gap in x that its line crosses between two points: a line over places without a measurement would show
    /// values that nobody measured.
    pub(in crate::report) reach: f64,
    /// Its values, ascending in x.
    pub(in crate::report) points: Vec<Point>,
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::report) enum Shape {
    /// A line through the points.
    Line,
    /// A line through the points, and a band from `low` to `high`.
    Band,
    /// A bar from 0 to each value, and a whisker from `low` to `high` if these differ.
    Bars,
    /// Points only.
    Dots,
    /// Points, and the steps between them: the best value at a cost of x or less.
    Stairs,
}

/// One value of a series.
#[derive(Clone, Debug)]
pub(in crate::report) struct Point {
    /// Along the horizontal axis.
    pub(in crate::report) x: f64,
    /// Along the vertical axis.
    pub(in crate::report) y: f64,
    /// Lower end of the band.
    pub(in crate::report) low: f64,
    /// Upper end of the band.
    pub(in crate::report) high: f64,
    /// Tooltip.
    pub(in crate::report) note: String,
    /// Label beside it, if there is space; none if empty.
    pub(in crate::report) label: String,
}

/// A labelled vertical line.
#[derive(Clone, Debug)]
pub(in crate::report) struct Mark {
    /// Along the horizontal axis.
    pub(in crate::report) x: f64,
    /// Its label.
    pub(in crate::report) label: String,
    /// Its emphasis.
    pub(in crate::report) weight: Weight,
}

/// Emphasis of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::report) enum Weight {
    /// The subject of the figure.
    Strong,
    /// For comparison.
    Light,
}

impl Plot<'_> {
    /// Draws the plot.
    pub(in crate::report) fn render(&self) -> String {
        self.draw(None)
    }

    /// Draws the plot with a horizontal line at a value, which the page's script can move.
    pub(in crate::report) fn render_with_level(&self, level: f64) -> String {
        self.draw(Some(level).filter(|level| level.is_finite()))
    }

    fn draw(&self, level: Option<f64>) -> String {
        // Finite and not too large.
        let is_drawn =
            |point: &&Point| [point.x, point.y, point.low, point.high].iter().all(|value| value.abs() <= LARGEST);
        let points = || self.series.iter().flat_map(|series| &series.points).filter(is_drawn);
        let xs = extent(points().map(|point| point.x));
        let ys = extent(points().flat_map(|point| [point.y, point.low, point.high]).chain(level));

        let (from, to) = self.x.range(xs);
        let x = Scale { from, to, start: LEFT, end: WIDTH - RIGHT };
        let marks: Vec<&Mark> = self.marks.iter().filter(|mark| (x.from..=x.to).contains(&mark.x)).collect();
        let labels: Vec<(f64, f64)> = marks.iter().map(|mark| (x.at(mark.x), text_width(&mark.label) + 8.0)).collect();
        let places = mark_labels(&labels);
        let rows = places.iter().map(|place| place.row + 1).max().unwrap_or(0);

        let legend = self.legend();
        let legend_rows = legend.last().map_or(0.0, |&(row, _)| row as f64 + 1.0);
        let top = ROW * (rows as f64 + legend_rows + 0.6);
        let bottom = top + self.height;
        let (from, to) = self.y.range(ys);
        let y = Scale { from, to, start: bottom, end: top };
        let mut svg = Svg::open(self.label, bottom + BELOW);
        self.draw_axes(&mut svg, x, y);

        for (mark, place) in marks.iter().zip(&places) {
            let at = x.at(mark.x);
            let class = match mark.weight {
                Weight::Strong => "mark-strong",
                Weight::Light => "mark-light",
            };
            // The baseline of row 0 lies just above the area; the line ends beside its own label.
            let baseline = top - 7.0 - ROW * place.row as f64;
            svg.line(class, [at, baseline - 9.0, at, bottom]);
            match place.side {
                Side::Right => svg.text(&format!("label {class}"), at + 5.0, baseline, &mark.label),
                Side::Left => svg.text(&format!("label {class} end"), at - 5.0, baseline, &mark.label),
            }
        }

        for series in &self.series {
            let points: Vec<&Point> = series.points.iter().filter(is_drawn).collect();
            series.draw(&mut svg, &points, x, y);
        }
        let area = [LEFT, top, WIDTH - RIGHT, bottom - 4.0];
        point_labels(&mut svg, points().map(|point| ([x.at(point.x), y.at(point.y)], point.label.as_str())), area);
        for (series, &(row, at)) in self.series.iter().zip(&legend) {
            let tone = series.tone.class();
            let middle = 10.0 + ROW * row as f64;
            if matches!(series.shape, Shape::Line | Shape::Band | Shape::Stairs) {
                svg.line(&format!("line {tone}"), [at, middle, at + 30.0, middle]);
            }
            svg.dot(series.tone, at + 15.0, middle, "");
            svg.text("tick", at + 37.0, middle + 4.0, series.name);
        }
        if let Some(level) = level {
            svg.level(y.at(level), [LEFT, WIDTH - RIGHT], [y.from, y.to, y.start, y.end]);
        }
        svg.close()
    }

    /// Grid lines, axes, tick labels and names.
    fn draw_axes(&self, svg: &mut Svg, x: Scale, y: Scale) {
        let (top, bottom) = (y.end, y.start);
        for (value, text) in self.y.ticks(y, (self.height / 46.0).max(5.0) as usize) {
            let at = y.at(value);
            svg.line("grid", [LEFT, at, WIDTH - RIGHT, at]);
            svg.text("tick end", LEFT - 8.0, at + 4.0, &text);
        }
        if y.from < 0.0 && 0.0 < y.to {
            svg.line("axis", [LEFT, y.at(0.0), WIDTH - RIGHT, y.at(0.0)]);
        }
        svg.line("axis", [LEFT, bottom, WIDTH - RIGHT, bottom]);
        for (value, text) in self.x.ticks(x, if self.x.ticks == Ticks::Bytes { 8 } else { 12 }) {
            let at = x.at(value);
            svg.line("axis", [at, bottom, at, bottom + 5.0]);
            svg.text("tick middle", at, bottom + 19.0, &text);
        }
        svg.text("name middle", (LEFT + WIDTH - RIGHT) / 2.0, bottom + BELOW - 6.0, self.x.name);
        svg.vertical_text("name middle", 14.0, (top + bottom) / 2.0, self.y.name);
    }

    /// Row and left end of each name in the legend; empty with fewer than two series.
    fn legend(&self) -> Vec<(usize, f64)> {
        if self.series.len() < 2 {
            return Vec::new();
        }
        let (mut row, mut at) = (0, LEFT);
        let mut places = Vec::new();
        for series in &self.series {
            let width = 37.0 + text_width(series.name);
            if at > LEFT && at + width > WIDTH {
                (row, at) = (row + 1, LEFT);
            }
            places.push((row, at));
            at += width + 20.0;
        }
        places
    }
}

impl Series<'_> {
    fn draw(&self, svg: &mut Svg, points: &[&Point], x: Scale, y: Scale) {
        let tone = self.tone.class();
        if self.shape == Shape::Bars {
            let half = (x.at(x.from + 1.0) - x.start).abs() * 0.38;
            let floor = y.at(0.0);
            for point in points {
                let (at, end) = (x.at(point.x), y.at(point.y));
                svg.bar(tone, [at - half, end.min(floor), half * 2.0, (floor - end).abs()], &point.note);
                if point.low < point.high {
                    svg.whisker(at, [y.at(point.low), y.at(point.high)], half.min(4.0));
                }
            }
            return;
        }
        if self.shape == Shape::Stairs {
            let steps = points.iter().flat_map(|point| [point, point]).map(|point| (x.at(point.x), y.at(point.y)));
            let (across, down) = (steps.clone().skip(1).map(|step| step.0), steps.map(|step| step.1));
            svg.path(&format!("line {tone}"), across.zip(down));
        }
        let is_line = matches!(self.shape, Shape::Line | Shape::Band);
        for run in points.chunk_by(|a, b| b.x - a.x <= self.reach).filter(|run| is_line && run.len() > 1) {
            if self.shape == Shape::Band {
                let upper = run.iter().map(|point| (x.at(point.x), y.at(point.high)));
                let lower = run.iter().rev().map(|point| (x.at(point.x), y.at(point.low)));
                svg.path(&format!("band {tone}"), upper.chain(lower));
            }
            svg.path(&format!("line {tone}"), run.iter().map(|point| (x.at(point.x), y.at(point.y))));
        }
        for point in points {
            svg.dot(self.tone, x.at(point.x), y.at(point.y), &point.note);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::axis::Start;
    use super::*;

    fn plot(points: &[(f64, f64)], marks: Vec<Mark>) -> String {
        let points = points
            .iter()
            .map(|&(x, y)| Point { x, y, low: y, high: y, note: "<note>".to_owned(), label: String::new() })
            .collect();
        let series = vec![Series { name: "a & b", tone: Tone::A, shape: Shape::Band, reach: 1.0, points }];
        let x = Axis { name: "k", start: Start::Whole, ticks: Ticks::Plain };
        let y = Axis { name: "nats", start: Start::Data, ticks: Ticks::Plain };
        Plot { label: "\"quoted\"", x, y, height: INNER_HEIGHT, series, marks }.render()
    }

    #[test]
    fn text_is_escaped() {
        let svg = plot(&[(0.0, 1.0)], vec![Mark { x: 0.0, label: "a<b".to_owned(), weight: Weight::Strong }]);
        assert!(
            svg.contains("&quot;quoted&quot;") && svg.contains("<title>&lt;note&gt;</title>") && svg.contains("a&lt;b")
        );
    }

    #[test]
    fn equal_and_enormous_values_do_not_break_a_plot() {
        let cases: [&[(f64, f64)]; 5] = [
            &[],
            &[(0.0, 1.5)],
            &[(0.0, 0.0), (1.0, 0.0)],
            &[(0.0, f64::MAX), (1.0, f64::MIN)],
            &[(0.0, f64::NAN), (1.0, f64::INFINITY), (2.0, 1.0)],
        ];
        for points in cases {
            let svg = plot(points, vec![Mark { x: 1.0, label: "one".to_owned(), weight: Weight::Light }]);
            assert!(svg.ends_with("</svg>") && !svg.contains("NaN") && !svg.contains("inf"), "{points:?}: {svg}");
        }
    }

    #[test]
    fn no_line_crosses_a_gap_without_measurements() {
        let svg = plot(&[(0.0, 1.0), (3.0, 2.0), (4.0, 3.0), (5.0, 2.5), (9.0, 1.0)], vec![]);
        let lines: Vec<&str> = svg.split("class=\"line").skip(1).map(|rest| rest.split_once("/>").unwrap().0).collect();
        assert_eq!(lines.len(), 1, "{svg}");
        assert_eq!((lines[0].matches('M').count(), lines[0].matches('L').count()), (1, 2), "{svg}");
        assert_eq!(svg.matches("<title>").count(), 5, "every point has its dot: {svg}");
    }

    #[test]
    fn a_flat_line_runs_through_the_middle() {
        let svg = plot(&[(0.0, 2.0), (1.0, 2.0)], vec![]);
        let middle = ROW * 0.6 + INNER_HEIGHT / 2.0;
        assert!(svg.contains(&format!(" {middle:.1}L")), "{svg}");
    }
}
