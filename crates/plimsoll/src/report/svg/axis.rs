//! Linear axes: ranges, ticks, and the map from values to coordinates.

/// Larger values are not drawn, so that ranges and tick steps do not overflow.
pub(super) const LARGEST: f64 = 1e100;

/// An axis.
#[derive(Clone, Copy, Debug)]
pub(in crate::report) struct Axis<'a> {
    /// Its name, with its unit.
    pub(in crate::report) name: &'a str,
    /// Where it starts.
    pub(in crate::report) start: Start,
    /// Format of its tick labels.
    pub(in crate::report) ticks: Ticks,
}

/// Where an axis starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::report) enum Start {
    /// At 0.
    Zero,
    /// Just below the lowest value.
    Data,
    /// Half a step below the lowest value; the axis ends half a step above the highest. For whole numbers with a bar on
    /// each.
    Whole,
}

/// Format of tick labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::report) enum Ticks {
    /// Numbers.
    Plain,
    /// Shares, in per cent.
    Percent,
    /// Sizes, in decimal units.
    Bytes,
}

impl Axis<'_> {
    /// The axis's range for values between `low` and `high`: with a margin, and never of zero width.
    pub(super) fn range(&self, (low, high): (f64, f64)) -> (f64, f64) {
        if self.start == Start::Whole {
            return (low - 0.5, high + 0.5);
        }
        let (low, high) = if self.start == Start::Zero { (low.min(0.0), high.max(0.0)) } else { (low, high) };
        let span = high - low;
        let margin = if span > 0.0 { span * 0.06 } else { (high.abs() * 0.05).max(1e-3) };
        match self.start {
            Start::Zero if low == 0.0 => (0.0, high + margin),
            _ => (low - margin, high + margin),
        }
    }

    /// Round values on the axis, about `wanted` of them, with their labels.
    pub(super) fn ticks(&self, scale: Scale, wanted: usize) -> Vec<(f64, String)> {
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

/// A linear map from values to coordinates.
#[derive(Clone, Copy)]
pub(super) struct Scale {
    /// The lowest value.
    pub(super) from: f64,
    /// The highest value.
    pub(super) to: f64,
    /// The coordinate of `from`.
    pub(super) start: f64,
    /// The coordinate of `to`.
    pub(super) end: f64,
}

impl Scale {
    /// The coordinate of a value, clamped to the drawing.
    pub(super) fn at(self, value: f64) -> f64 {
        let span = self.to - self.from;
        let share = if span > 0.0 { (value - self.from) / span } else { 0.5 };
        self.start + share.clamp(0.0, 1.0) * (self.end - self.start)
    }
}

/// The lowest and the highest of some finite values; (0, 0) if there are none.
pub(super) fn extent(values: impl Iterator<Item = f64>) -> (f64, f64) {
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
