//! Figures as SVG text: line, band, bar and scatter plots on two linear axes ([`Plot`]), heat maps ([`Heat`]), lists of
//! estimates with intervals ([`Forest`]), and the strip of layers ([`strip()`]).
//!
//! Elements carry classes (`tone-a`, `grid`, `mark-strong`, …); the page's style sheet gives each class its colours for
//! the light and the dark theme. Series differ by colour, by dash and by the shape of their points, so that a reader
//! needs only one of the three. The values of a point are in its `<title>`.
//!
//! Coordinates are in user units; every drawing is 860 units wide. Values that are not finite, or too large to draw,
//! are left out.

mod axis;
mod canvas;
mod forest;
mod heat;
mod labels;
mod plot;
mod strip;

pub(super) use axis::{Axis, Start, Ticks};
pub(super) use canvas::Tone;
pub(super) use forest::{Estimate, Forest};
pub(super) use heat::{Cell, Heat, HeatRow, Legend, Palette};
pub(super) use plot::{INNER_HEIGHT, Mark, Plot, Point, Series, Shape, Weight};
pub(super) use strip::{Kept, strip, strip_of};
