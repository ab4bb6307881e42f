//! The strip of layers: one cell for each layer of the model, coloured by what it keeps of its LoRA.

use super::canvas::{Svg, WIDTH};

/// How much of its LoRA a layer keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::report) enum Kept {
    /// All of it, as trained.
    Whole,
    /// Some of its modules, or a LoRA strength other than 1.
    Part,
    /// Nothing.
    Nothing,
}

/// With more layers, cells would be thinner than the gaps between them.
const CELLS: usize = 200;

/// The strip of a boundary: the lowest `kept` of `layers` layers keep LoRA.
pub(in crate::report) fn strip(kept: usize, layers: usize) -> String {
    let kept = kept.min(layers);
    let label = format!("{kept} of {layers} layers keep LoRA, counted from the embedding");
    let mut svg = Svg::open(&label, 54.0);
    if layers <= CELLS {
        let cell = |layer| if layer < kept { Kept::Whole } else { Kept::Nothing };
        draw_cells(&mut svg, &(0..layers).map(cell).collect::<Vec<Kept>>());
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

/// The strip of any variant.
pub(in crate::report) fn strip_of(layers: &[Kept]) -> String {
    let kept = layers.iter().filter(|layer| **layer != Kept::Nothing).count();
    let part = layers.iter().filter(|layer| **layer == Kept::Part).count();
    let mut label = format!("{kept} of {} layers keep LoRA", layers.len());
    if part > 0 {
        label.push_str(&format!(", {part} of them in part or with a LoRA strength other than 1 (lighter)"));
    }
    let mut svg = Svg::open(&label, 54.0);
    draw_cells(&mut svg, layers);
    svg.text("tick", 0.0, 48.0, &label);
    svg.close()
}

fn draw_cells(svg: &mut Svg, layers: &[Kept]) {
    let cell = WIDTH / layers.len().max(1) as f64;
    let gap = (cell * 0.12).min(3.0);
    for (layer, kept) in layers.iter().enumerate() {
        let (class, what) = match kept {
            Kept::Whole => ("cell-kept", "kept"),
            Kept::Part => ("cell-part", "kept in part"),
            Kept::Nothing => ("cell-dropped", "dropped"),
        };
        let place = [layer as f64 * cell + gap / 2.0, 2.0, cell - gap, 26.0];
        svg.bar(class, place, &format!("layer {layer}: LoRA {what}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_huge_number_of_layers_is_drawn_as_two_bars() {
        let svg = strip(usize::MAX / 2, usize::MAX);
        assert_eq!(svg.matches("<rect").count(), 2);
        assert_eq!(strip(18, 30).matches("cell-kept").count(), 18);
        assert_eq!(strip(0, 0).matches("<rect").count(), 0);
    }
}
