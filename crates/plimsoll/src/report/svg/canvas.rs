//! SVG elements as text.

use std::fmt::Write as _;

/// Width of every drawing, in user units.
pub(super) const WIDTH: f64 = 860.0;
/// Left margin of a plot: tick labels and the name of the vertical axis.
pub(super) const LEFT: f64 = 72.0;
/// Right margin of a plot.
pub(super) const RIGHT: f64 = 12.0;
/// Height of a row of the legend, and of a row of mark labels.
pub(super) const ROW: f64 = 19.0;
/// Largest mean width of a character, at the style sheet's font size of 12 units.
const CHARACTER: f64 = 7.2;

/// The look of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::report) enum Tone {
    /// Solid, with round points.
    A,
    /// Dashed, with square points.
    B,
    /// Dotted, with triangles.
    C,
    /// Dashes and dots, with rhombi.
    D,
    /// Long dashes, with inverted triangles.
    E,
    /// Short dashes, with crosses.
    F,
    /// Grey, with small round points: for comparison.
    Quiet,
}

impl Tone {
    /// The tones that differ by colour.
    pub(in crate::report) const ALL: [Self; 6] = [Self::A, Self::B, Self::C, Self::D, Self::E, Self::F];

    pub(super) fn class(self) -> &'static str {
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

/// Width of a text in user units; an upper bound for most texts.
pub(super) fn text_width(text: &str) -> f64 {
    text.chars().count() as f64 * CHARACTER
}

/// An SVG document that is being written. All text of callers is escaped here.
pub(super) struct Svg(String);

impl Svg {
    /// Starts a drawing; `label` is for readers who do not see it.
    pub(super) fn open(label: &str, height: f64) -> Self {
        let label = escape(label);
        Self(format!(r#"<svg viewBox="0 0 {WIDTH} {height:.0}" role="img" aria-label="{label}">"#))
    }

    /// The finished document.
    pub(super) fn close(mut self) -> String {
        self.0.push_str("</svg>");
        self.0
    }

    pub(super) fn line(&mut self, class: &str, [x1, y1, x2, y2]: [f64; 4]) {
        self.add(format_args!(r#"<path class="{class}" d="M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}"/>"#));
    }

    pub(super) fn path(&mut self, class: &str, points: impl Iterator<Item = (f64, f64)>) {
        let mut steps = String::new();
        for (i, (x, y)) in points.enumerate() {
            let step = if i == 0 { 'M' } else { 'L' };
            steps.push_str(&format!("{step}{x:.1} {y:.1}"));
        }
        self.add(format_args!(r#"<path class="{class}" d="{steps}"/>"#));
    }

    /// A horizontal line that the page's script can move. `scale`: the values at both ends of the vertical axis, and
    /// the places of these ends.
    pub(super) fn level(&mut self, y: f64, [left, right]: [f64; 2], scale: [f64; 4]) {
        let [from, to, start, end] = scale;
        let line = format!("M{left:.1} 0H{right:.1}");
        self.add(format_args!(
            r#"<g class="level" transform="translate(0 {y:.1})" data-scale="{from} {to} {start:.1} {end:.1}"><path class="level-line" d="{line}"/><path class="level-grip" d="{line}"/></g>"#
        ));
    }

    /// A vertical interval with a stroke across each end.
    pub(super) fn whisker(&mut self, x: f64, [from, to]: [f64; 2], half: f64) {
        let (left, right) = (x - half, x + half);
        let stroke = format!("M{x:.1} {from:.1}V{to:.1}");
        let ends = format!("M{left:.1} {from:.1}H{right:.1}M{left:.1} {to:.1}H{right:.1}");
        self.add(format_args!(r#"<path class="whisker" d="{stroke}{ends}"/>"#));
    }

    /// A horizontal interval with a stroke across each end.
    pub(super) fn horizontal_whisker(&mut self, y: f64, [from, to]: [f64; 2], half: f64) {
        let (top, bottom) = (y - half, y + half);
        let stroke = format!("M{from:.1} {y:.1}H{to:.1}");
        let ends = format!("M{from:.1} {top:.1}V{bottom:.1}M{to:.1} {top:.1}V{bottom:.1}");
        self.add(format_args!(r#"<path class="whisker" d="{stroke}{ends}"/>"#));
    }

    /// A point, with a tooltip unless `note` is empty.
    pub(super) fn dot(&mut self, tone: Tone, x: f64, y: f64, note: &str) {
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

    /// A filled rectangle, with a tooltip unless `note` is empty.
    pub(super) fn bar(&mut self, class: &str, [x, y, width, height]: [f64; 4], note: &str) {
        let note = title(note);
        let place = format!(r#"x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}""#);
        self.add(format_args!(r#"<rect class="bar {class}" {place} rx="1.5">{note}</rect>"#));
    }

    pub(super) fn text(&mut self, class: &str, x: f64, y: f64, text: &str) {
        let text = escape(text);
        self.add(format_args!(r#"<text class="{class}" x="{x:.1}" y="{y:.1}">{text}</text>"#));
    }

    /// Text that runs upwards.
    pub(super) fn vertical_text(&mut self, class: &str, x: f64, y: f64, text: &str) {
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

/// Escapes text for an element or an attribute.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}
