//! Figures as SVG text: lines, bands, bars and labelled vertical marks on two linear axes ([`Plot`]), fields of coloured
//! cells ([`Heat`]), and estimates one below the other ([`Forest`]).
//!
//! Colours, fonts and strokes are the page's business: an element carries a class (`tone-a`, `grid`, `mark-strong`, …)
//! and the page's style sheet gives it a look in the light and in the dark. Series differ by colour, by dash and by the
//! shape of their points, so that no reader depends on one of them. Points tell their numbers in a `<title>`.
//!
//! Coordinates are in user units of a drawing [`WIDTH`] wide. What is not finite, or beyond all reason, is left out.

mod forest;
mod heat;

pub(super) use forest::{Estimate, Forest};
pub(super) use heat::{Cell, Heat, HeatRow, Legend, Palette};

use std::fmt::Write as _;

/// Width of every drawing, in user units.
const WIDTH: f64 = 860.0;
/// Height of the area between the axes, where nothing speaks for another.
pub(super) const INNER_HEIGHT: f64 = 280.0;
/// Room left of the area, for the tick labels and the axis's name.
const LEFT: f64 = 72.0;
/// Room right of the area.
const RIGHT: f64 = 12.0;
/// Height of the legend, and of each row of mark labels.
const ROW: f64 = 19.0;
/// Room below the area, for the tick labels and the axis's name.
const BELOW: f64 = 48.0;
/// What a character is wide at most on average, at the style sheet's 12 units of font size.
const CHARACTER: f64 = 7.2;
/// Beyond this nothing is drawn: spans and steps stay far from overflow.
const LARGEST: f64 = 1e100;
/// Up to so many marks the best placing of their labels is searched for; a figure has four at most.
const SEARCHED_MARKS: usize = 6;

/// A figure.
pub(super) struct Plot<'a> {
    /// What a reader who does not see the figure is told.
    pub(super) label: &'a str,
    /// The horizontal axis.
    pub(super) x: Axis<'a>,
    /// The vertical axis.
    pub(super) y: Axis<'a>,
    /// Height of the area between the axes.
    pub(super) height: f64,
    /// What is drawn, from back to front.
    pub(super) series: Vec<Series<'a>>,
    /// Vertical lines with a label.
    pub(super) marks: Vec<Mark>,
}

/// An axis.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis<'a> {
    /// Its name, with its unit.
    pub(super) name: &'a str,
    /// Where it starts.
    pub(super) start: Start,
    /// What its tick labels look like.
    pub(super) ticks: Ticks,
}

/// Where an axis starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// At 0.
    Zero,
    /// Just below the lowest value.
    Data,
    /// Half a step below the lowest value, and it ends half a step above the highest: values are whole numbers, and a bar
    /// stands on each.
    Whole,
}

/// What tick labels look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ticks {
    /// Numbers.
    Plain,
    /// Shares, in per cent.
    Percent,
    /// Sizes, in decimal units.
    Bytes,
}

/// Values over the horizontal axis.
pub(super) struct Series<'a> {
    /// Its name in the legend.
    pub(super) name: &'a str,
    /// Its colour, dash and points.
    pub(super) tone: Tone,
    /// How it is drawn.
    pub(super) shape: Shape,
    /// The longest way along the horizontal axis that its line crosses between two points: over places where nothing was
    /// measured, a line makes up what lies there.
    pub(super) reach: f64,
    /// Its values, ascending in x.
    pub(super) points: Vec<Point>,
}

/// The look of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// Solid, with round points.
    A,
    /// Dashed, with square points.
    B,
    /// Dotted, with triangles.
    C,
    /// Dashes and dots, with rhombi.
    D,
    /// Long dashes, with triangles upside down.
    E,
    /// Short dashes, with crosses.
    F,
    /// Grey, with small round points: what is there for comparison.
    Quiet,
}

impl Tone {
    /// All of them.
    pub(super) const ALL: [Self; 6] = [Self::A, Self::B, Self::C, Self::D, Self::E, Self::F];

    fn class(self) -> &'static str {
        match self {
            Self::A => "tone-a",
            Self::B => "tone-b",
            Self::C => "tone-c",
            Self::D => "tone-d",
            Self::E => "tone-e",
            Self::F => "tone-f",
            Self::Quiet => "tone-quiet",
        }
    }
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A line through the points.
    Line,
    /// A line through the points, and a band from `low` to `high`.
    Band,
    /// A bar from 0 to each value, and a whisker from `low` to `high` where these differ.
    Bars,
    /// Points alone.
    Dots,
    /// Points, and the steps between them: what can be had at a price of x or less.
    Stairs,
}

/// One value of a series.
#[derive(Clone, Debug)]
pub(super) struct Point {
    /// Along the horizontal axis.
    pub(super) x: f64,
    /// Along the vertical axis.
    pub(super) y: f64,
    /// Lower end of the band.
    pub(super) low: f64,
    /// Upper end of the band.
    pub(super) high: f64,
    /// What it says when pointed at.
    pub(super) note: String,
    /// What stands beside it where there is room; nothing where it is empty.
    pub(super) label: String,
}

/// A labelled vertical line.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    /// Along the horizontal axis.
    pub(super) x: f64,
    /// Its label.
    pub(super) label: String,
    /// How loud it is.
    pub(super) weight: Weight,
}

/// How loud a mark is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// What the figure is about.
    Strong,
    /// For comparison.
    Light,
}

impl Plot<'_> {
    /// Draws the figure.
    pub(super) fn render(&self) -> String {
        let is_drawn =
            |point: &&Point| [point.x, point.y, point.low, point.high].iter().all(|value| value.abs() <= LARGEST);
        let points = || self.series.iter().flat_map(|series| &series.points).filter(is_drawn);
        let xs = extent(points().map(|point| point.x));
        let ys = extent(points().flat_map(|point| [point.y, point.low, point.high]));

        let (from, to) = self.x.range(xs);
        let x = Scale { from, to, start: LEFT, end: WIDTH - RIGHT };
        let marks: Vec<&Mark> = self.marks.iter().filter(|mark| (x.from..=x.to).contains(&mark.x)).collect();
        let labels: Vec<(f64, f64)> = marks.iter().map(|mark| (x.at(mark.x), text_width(&mark.label) + 8.0)).collect();
        let places = place(&labels);
        let rows = places.iter().map(|place| place.row + 1).max().unwrap_or(0);

        let legend = self.legend();
        let legend_rows = legend.last().map_or(0.0, |&(row, _)| row as f64 + 1.0);
        let top = ROW * (rows as f64 + legend_rows + 0.6);
        let bottom = top + self.height;
        let height = bottom + BELOW;
        let (from, to) = self.y.range(ys);
        let y = Scale { from, to, start: bottom, end: top };
        let mut svg = Svg::open(self.label, height);

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
        svg.text("name middle", (LEFT + WIDTH - RIGHT) / 2.0, height - 6.0, self.x.name);
        svg.turned("name middle", 14.0, (top + bottom) / 2.0, self.y.name);

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
        let labelled = self.series.iter().flat_map(|series| &series.points).filter(is_drawn);
        beside(&mut svg, labelled.map(|point| ([x.at(point.x), y.at(point.y)], point.label.as_str())), area);
        for (series, &(row, at)) in self.series.iter().zip(&legend) {
            let tone = series.tone.class();
            let middle = 10.0 + ROW * row as f64;
            if matches!(series.shape, Shape::Line | Shape::Band | Shape::Stairs) {
                svg.line(&format!("line {tone}"), [at, middle, at + 30.0, middle]);
            }
            svg.dot(series.tone, at + 15.0, middle, "");
            svg.text("tick", at + 37.0, middle + 4.0, series.name);
        }
        svg.close()
    }

    /// Row and left end of each name in the legend; none where there is nothing to tell apart.
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

/// Writes labels beside points that are given in drawing units: left and below, where a front leaves room, or else around them, wherever they leave
/// the area and meet neither a point nor another label. The last point comes first; a label that finds no room is left out,
/// and the table has it.
fn beside<'a>(svg: &mut Svg, points: impl Iterator<Item = ([f64; 2], &'a str)>, area: [f64; 4]) {
    let points: Vec<([f64; 2], &str)> = points.collect();
    let mut taken: Vec<[f64; 4]> = points.iter().map(|&([x, y], _)| [x - 4.0, y - 4.0, x + 4.0, y + 4.0]).collect();
    let meets = |a: &[f64; 4], b: &[f64; 4]| a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];
    for &([x, y], label) in points.iter().rev().filter(|(_, label)| !label.is_empty()) {
        let (width, half) = (text_width(label), text_width(label) / 2.0);
        let places = [
            ("label end", x - 5.0, y + 15.0, x - 5.0 - width),
            ("label end", x - 8.0, y + 4.0, x - 8.0 - width),
            ("label middle", x, y + 18.0, x - half),
            ("label", x + 8.0, y + 4.0, x + 8.0),
            ("label middle", x, y - 9.0, x - half),
        ];
        let free = places.into_iter().find_map(|(class, at, baseline, left)| {
            let place = [left, baseline - 11.0, left + width, baseline + 3.0];
            let is_inside = place[0] >= area[0] && place[1] >= area[1] && place[2] <= area[2] && place[3] <= area[3];
            (is_inside && !taken.iter().any(|other| meets(&place, other))).then_some((class, at, baseline, place))
        });
        if let Some((class, at, baseline, place)) = free {
            svg.text(class, at, baseline, label);
            taken.push(place);
        }
    }
}

impl Axis<'_> {
    /// The axis's range for values of an extent: with room around them, and never of zero width.
    fn range(&self, (low, high): (f64, f64)) -> (f64, f64) {
        if self.start == Start::Whole {
            return (low - 0.5, high + 0.5);
        }
        let (low, high) = if self.start == Start::Zero { (low.min(0.0), high.max(0.0)) } else { (low, high) };
        let span = high - low;
        let room = if span > 0.0 { span * 0.06 } else { (high.abs() * 0.05).max(1e-3) };
        match self.start {
            Start::Zero if low == 0.0 => (0.0, high + room),
            _ => (low - room, high + room),
        }
    }

    /// Round values on the axis, about `wanted` of them, with their labels.
    fn ticks(&self, scale: Scale, wanted: usize) -> Vec<(f64, String)> {
        let Scale { from, to, .. } = scale;
        match self.ticks {
            Ticks::Plain if self.start == Start::Whole => ticks(from + 0.5, to - 0.5, wanted, 1.0),
            Ticks::Plain => ticks(from, to, wanted, 0.0),
            Ticks::Percent => {
                let shares = ticks(from, to, wanted, 0.0).into_iter();
                shares.map(|(value, _)| (value, format!("{:.0} %", value * 100.0))).collect()
            }
            Ticks::Bytes => {
                let units = [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
                let (size, unit) = units.into_iter().find(|(size, _)| to >= *size).unwrap_or((1.0, "B"));
                let sizes = ticks(from / size, to / size, wanted, 0.0).into_iter();
                sizes.map(|(value, text)| (value * size, format!("{text} {unit}"))).collect()
            }
        }
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

/// What a layer keeps of its LoRA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// All of it, as trained.
    Whole,
    /// Some of its modules, or a factor that is not 1.
    Part,
    /// Nothing.
    Nothing,
}

/// More cells than this would be thinner than their gaps.
const CELLS: usize = 200;

/// The model as a row of cells, one for each layer, those that keep LoRA filled.
pub(super) fn strip(kept: usize, layers: usize) -> String {
    let kept = kept.min(layers);
    let label = format!("{kept} of {layers} layers keep LoRA, counted from the embedding");
    let mut svg = Svg::open(&label, 54.0);
    if layers <= CELLS {
        let cell = |layer| if layer < kept { Kept::Whole } else { Kept::Nothing };
        svg.cells(&(0..layers).map(cell).collect::<Vec<Kept>>());
    } else {
        let share = kept as f64 / layers as f64;
        svg.bar("cell-kept", [0.0, 2.0, WIDTH * share, 26.0], "");
        svg.bar("cell-dropped", [WIDTH * share, 2.0, WIDTH * (1.0 - share), 26.0], "");
    }
    let range =
        |from: usize, to: usize| if to == from + 1 { format!("layer {from}") } else { format!("{from}–{}", to - 1) };
    if kept > 0 {
        svg.text("tick", 0.0, 48.0, &format!("{}: LoRA kept", range(0, kept)));
    }
    if kept < layers {
        svg.text("tick end", WIDTH, 48.0, &format!("{}: LoRA dropped", range(kept, layers)));
    }
    svg.close()
}

/// The same where any layers keep LoRA, or parts of it.
pub(super) fn strip_of(layers: &[Kept]) -> String {
    let kept = layers.iter().filter(|layer| **layer != Kept::Nothing).count();
    let part = layers.iter().filter(|layer| **layer == Kept::Part).count();
    let mut label = format!("{kept} of {} layers keep LoRA", layers.len());
    if part > 0 {
        label.push_str(&format!(", {part} of them a part of it or a factor that is not 1 (lighter)"));
    }
    let mut svg = Svg::open(&label, 54.0);
    svg.cells(layers);
    svg.text("tick", 0.0, 48.0, &label);
    svg.close()
}

/// A linear map from values to coordinates.
#[derive(Clone, Copy)]
struct Scale {
    from: f64,
    to: f64,
    start: f64,
    end: f64,
}

impl Scale {
    /// The coordinate of a value, kept inside the drawing.
    fn at(self, value: f64) -> f64 {
        let span = self.to - self.from;
        let share = if span > 0.0 { (value - self.from) / span } else { 0.5 };
        self.start + share.clamp(0.0, 1.0) * (self.end - self.start)
    }
}

/// Least and greatest of some finite values; (0, 0) of none.
fn extent(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values
        .fold(None, |range: Option<(f64, f64)>, value| {
            Some(range.map_or((value, value), |(low, high)| (low.min(value), high.max(value))))
        })
        .unwrap_or((0.0, 0.0))
}

/// Round values from `from` to `to`, about `wanted` of them, each at least `least` from the next, with their labels.
///
/// Steps are 1, 2 or 5 times a power of ten (Heckbert, "Nice numbers for graph labels", Graphics Gems, 1990).
fn ticks(from: f64, to: f64, wanted: usize, least: f64) -> Vec<(f64, String)> {
    let rough = (to - from) / wanted as f64;
    if !rough.is_finite() || rough <= 0.0 {
        return vec![(from, format!("{from}"))];
    }
    let exponent = rough.log10().floor();
    let unit = 10_f64.powf(exponent);
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| rough <= factor * unit * 1.001).unwrap_or(10.0);
    let step = (factor * unit).max(least);
    let decimals = (-(step.log10() + 1e-9).floor()).clamp(0.0, 12.0) as usize;
    let first = (from / step - 1e-6).ceil();
    (0..=2 * wanted)
        .map(|i| (first + i as f64) * step)
        .take_while(|value| *value <= to + step * 1e-6)
        .map(|value| {
            // A step that is lost in the rounding of the value can give −0.
            let value = if value.abs() < step * 1e-6 { 0.0 } else { value };
            let text = if value.abs() < 1e6 { format!("{value:.decimals$}") } else { format!("{value:e}") };
            (value, text.replace('-', "−"))
        })
        .collect()
}

/// Where a mark's label goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// Rows above the area, from 0.
    row: usize,
    /// The side of its line.
    side: Side,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// Places the labels of marks, given as the coordinate of the line and the label's width, so that no label meets
/// another or crosses a line, in as few rows as possible.
///
/// Each line rises beside its label's row: a label that reaches over another's line has to be above that label.
fn place(labels: &[(f64, f64)]) -> Vec<Place> {
    if labels.len() <= SEARCHED_MARKS {
        let sides = (0..1_usize << labels.len()).map(|bits| {
            let side = |i: usize| if bits >> i & 1 == 1 { Side::Left } else { Side::Right };
            (0..labels.len()).map(side).collect::<Vec<Side>>()
        });
        let rows = |places: &Vec<Place>| places.iter().map(|place| place.row).max();
        if let Some(places) = sides.filter_map(|sides| stack(labels, &sides)).min_by_key(rows) {
            return places;
        }
    }
    // A row for each, read over the lines that pass: still legible, as labels have a halo.
    let middle = WIDTH / 2.0;
    let side = |x: f64| if x > middle { Side::Left } else { Side::Right };
    labels.iter().enumerate().map(|(row, (x, _))| Place { row, side: side(*x) }).collect()
}

/// The rows of labels on given sides: none where a label leaves the drawing, or two reach over each other's line.
fn stack(labels: &[(f64, f64)], sides: &[Side]) -> Option<Vec<Place>> {
    let spans: Vec<(f64, f64)> = labels
        .iter()
        .zip(sides)
        .map(|(&(x, width), side)| if *side == Side::Right { (x, x + width) } else { (x - width, x) })
        .collect();
    if spans.iter().any(|(from, to)| *from < 0.0 || *to > WIDTH) {
        return None;
    }
    let reaches_over = |i: usize, j: usize| i != j && spans[i].0 - 2.0 < labels[j].0 && labels[j].0 < spans[i].1 + 2.0;
    let meets = |i: usize, j: usize| spans[i].0 < spans[j].1 && spans[j].0 < spans[i].1;
    let mut rows: Vec<Option<usize>> = vec![None; labels.len()];
    for _ in labels {
        let is_next =
            |&i: &usize| rows[i].is_none() && (0..rows.len()).all(|j| !reaches_over(i, j) || rows[j].is_some());
        let next = (0..rows.len()).find(is_next)?;
        let below = (0..rows.len()).filter(|&j| reaches_over(next, j)).filter_map(|j| rows[j]).max();
        let mut row = below.map_or(0, |row| row + 1);
        while (0..rows.len()).any(|j| rows[j] == Some(row) && meets(next, j)) {
            row += 1;
        }
        rows[next] = Some(row);
    }
    Some(rows.into_iter().zip(sides).map(|(row, side)| Place { row: row.unwrap_or(0), side: *side }).collect())
}

fn text_width(text: &str) -> f64 {
    text.chars().count() as f64 * CHARACTER
}

/// SVG text in the making. Everything a caller hands over is escaped here.
struct Svg(String);

impl Svg {
    fn open(label: &str, height: f64) -> Self {
        let label = escape(label);
        Self(format!(r#"<svg viewBox="0 0 {WIDTH} {height:.0}" role="img" aria-label="{label}">"#))
    }

    fn close(mut self) -> String {
        self.0.push_str("</svg>");
        self.0
    }

    fn line(&mut self, class: &str, [x1, y1, x2, y2]: [f64; 4]) {
        self.add(format_args!(r#"<path class="{class}" d="M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}"/>"#));
    }

    fn path(&mut self, class: &str, points: impl Iterator<Item = (f64, f64)>) {
        let mut steps = String::new();
        for (i, (x, y)) in points.enumerate() {
            let step = if i == 0 { 'M' } else { 'L' };
            steps.push_str(&format!("{step}{x:.1} {y:.1}"));
        }
        self.add(format_args!(r#"<path class="{class}" d="{steps}"/>"#));
    }

    /// An upright interval, with a stroke across each end.
    fn whisker(&mut self, x: f64, [from, to]: [f64; 2], half: f64) {
        let (left, right) = (x - half, x + half);
        self.add(format_args!(
            r#"<path class="whisker" d="M{x:.1} {from:.1}V{to:.1}M{left:.1} {from:.1}H{right:.1}M{left:.1} {to:.1}H{right:.1}"/>"#
        ));
    }

    /// The same lying.
    fn lying_whisker(&mut self, y: f64, [from, to]: [f64; 2], half: f64) {
        let (top, bottom) = (y - half, y + half);
        self.add(format_args!(
            r#"<path class="whisker" d="M{from:.1} {y:.1}H{to:.1}M{from:.1} {top:.1}V{bottom:.1}M{to:.1} {top:.1}V{bottom:.1}"/>"#
        ));
    }

    fn dot(&mut self, tone: Tone, x: f64, y: f64, note: &str) {
        let class = tone.class();
        let note = title(note);
        match tone {
            Tone::A | Tone::Quiet => {
                let radius = if tone == Tone::A { "3" } else { "2.2" };
                self.add(format_args!(
                    r#"<circle class="dot {class}" cx="{x:.1}" cy="{y:.1}" r="{radius}">{note}</circle>"#
                ));
            }
            Tone::B => {
                let (x, y) = (x - 2.7, y - 2.7);
                self.add(format_args!(
                    r#"<rect class="dot {class}" x="{x:.1}" y="{y:.1}" width="5.4" height="5.4">{note}</rect>"#
                ));
            }
            Tone::C => self.glyph(class, x, y, "m0-3.8 3.6 6.4h-7.2z", &note),
            Tone::D => self.glyph(class, x, y, "m0-4 4 4-4 4-4-4z", &note),
            Tone::E => self.glyph(class, x, y, "m0 3.8 3.6-6.4h-7.2z", &note),
            Tone::F => self.glyph(class, x, y, "m-1-3.5h2v2.5h2.5v2h-2.5v2.5h-2v-2.5h-2.5v-2h2.5z", &note),
        }
    }

    fn glyph(&mut self, class: &str, x: f64, y: f64, outline: &str, note: &str) {
        self.add(format_args!(r#"<path class="dot {class}" d="M{x:.1} {y:.1}{outline}">{note}</path>"#));
    }

    fn bar(&mut self, class: &str, [x, y, width, height]: [f64; 4], note: &str) {
        let note = title(note);
        let place = format!(r#"x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}""#);
        self.add(format_args!(r#"<rect class="bar {class}" {place} rx="1.5">{note}</rect>"#));
    }

    fn cells(&mut self, layers: &[Kept]) {
        let cell = WIDTH / layers.len().max(1) as f64;
        let gap = (cell * 0.12).min(3.0);
        for (layer, kept) in layers.iter().enumerate() {
            let (class, what) = match kept {
                Kept::Whole => ("cell-kept", "kept"),
                Kept::Part => ("cell-part", "kept in part"),
                Kept::Nothing => ("cell-dropped", "dropped"),
            };
            let place = [layer as f64 * cell + gap / 2.0, 2.0, cell - gap, 26.0];
            self.bar(class, place, &format!("layer {layer}: LoRA {what}"));
        }
    }

    fn text(&mut self, class: &str, x: f64, y: f64, text: &str) {
        let text = escape(text);
        self.add(format_args!(r#"<text class="{class}" x="{x:.1}" y="{y:.1}">{text}</text>"#));
    }

    fn turned(&mut self, class: &str, x: f64, y: f64, text: &str) {
        let text = escape(text);
        self.add(format_args!(
            r#"<text class="{class}" transform="translate({x:.1} {y:.1}) rotate(-90)">{text}</text>"#
        ));
    }

    fn add(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.0.write_fmt(element);
        self.0.push('\n');
    }
}

fn title(note: &str) -> String {
    if note.is_empty() { String::new() } else { format!("<title>{}</title>", escape(note)) }
}

/// Text as it may stand in an element or an attribute.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
    fn ticks_are_round() {
        let labels =
            |from, to, wanted, least| ticks(from, to, wanted, least).into_iter().map(|tick| tick.1).collect::<Vec<_>>();
        assert_eq!(labels(0.0, 30.0, 12, 1.0), ["0", "5", "10", "15", "20", "25", "30"]);
        assert_eq!(labels(0.0, 2.0, 12, 1.0), ["0", "1", "2"]);
        assert_eq!(labels(1.62, 1.95, 6, 0.0), ["1.7", "1.8", "1.9"]);
        assert_eq!(labels(-0.1, 0.1, 4, 0.0), ["−0.10", "−0.05", "0.00", "0.05", "0.10"]);
        assert_eq!(labels(3.0, 3.0, 6, 0.0), ["3"]);
    }

    #[test]
    fn text_is_escaped() {
        let svg = plot(&[(0.0, 1.0)], vec![Mark { x: 0.0, label: "a<b".to_owned(), weight: Weight::Strong }]);
        assert!(
            svg.contains("&quot;quoted&quot;") && svg.contains("<title>&lt;note&gt;</title>") && svg.contains("a&lt;b")
        );
    }

    #[test]
    fn nothing_equal_or_enormous_breaks_a_plot() {
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
    fn no_line_is_drawn_where_nothing_was_measured() {
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

    #[test]
    fn layers_without_number_cost_nothing() {
        let svg = strip(usize::MAX / 2, usize::MAX);
        assert_eq!(svg.matches("<rect").count(), 2);
        assert_eq!(strip(18, 30).matches("cell-kept").count(), 18);
        assert_eq!(strip(0, 0).matches("<rect").count(), 0);
    }

    proptest! {
        #[test]
        fn labels_meet_neither_labels_nor_lines(
            mut xs in prop::collection::btree_set(0_usize..=30, 1..=4),
            widths in prop::collection::vec(50.0..190.0_f64, 4),
        ) {
            xs.insert(30);
            let labels: Vec<(f64, f64)> =
                xs.iter().zip(&widths).map(|(&k, &width)| (LEFT + (k as f64 + 0.5) * 25.0, width)).collect();
            let places = place(&labels);
            let span = |i: usize| match places[i].side {
                Side::Right => (labels[i].0, labels[i].0 + labels[i].1),
                Side::Left => (labels[i].0 - labels[i].1, labels[i].0),
            };
            for i in 0..labels.len() {
                prop_assert!(span(i).0 >= 0.0 && span(i).1 <= WIDTH, "label {i} leaves the drawing: {places:?}");
                for j in (0..labels.len()).filter(|&j| j != i) {
                    let (a, b) = (span(i), span(j));
                    let is_apart = places[i].row != places[j].row || a.1 <= b.0 || b.1 <= a.0;
                    prop_assert!(is_apart, "labels {i} and {j} meet: {places:?}");
                    let is_crossed = a.0 < labels[j].0 && labels[j].0 < a.1 && places[i].row <= places[j].row;
                    prop_assert!(!is_crossed, "line {j} crosses label {i}: {places:?}");
                }
            }
        }
    }
}
