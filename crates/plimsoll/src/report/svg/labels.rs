//! Placement of labels: beside points, and above vertical marks.

use super::canvas::{Svg, WIDTH, text_width};

/// With up to this many marks all placements of their labels are tried; a figure has at most four marks.
const SEARCHED_MARKS: usize = 6;

/// Writes labels beside points. `points` are in drawing units, `area` is left, top, right, bottom.
///
/// The last point comes first. A label goes to the lower left of its point, or else to another side, inside the area
/// and clear of all points and other labels. A label without a free place is left out; the table has it.
pub(super) fn point_labels<'a>(svg: &mut Svg, points: impl Iterator<Item = ([f64; 2], &'a str)>, area: [f64; 4]) {
    let points: Vec<([f64; 2], &str)> = points.collect();
    let mut taken: Vec<[f64; 4]> = points.iter().map(|&([x, y], _)| [x - 4.0, y - 4.0, x + 4.0, y + 4.0]).collect();
    let overlaps = |a: &[f64; 4], b: &[f64; 4]| a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];
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
            (is_inside && !taken.iter().any(|other| overlaps(&place, other))).then_some((class, at, baseline, place))
        });
        if let Some((class, at, baseline, place)) = free {
            svg.text(class, at, baseline, label);
            taken.push(place);
        }
    }
}

/// Place of a mark's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placement {
    /// Row above the area, from 0.
    pub(super) row: usize,
    /// The side of its line.
    pub(super) side: Side,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

/// Places the labels of marks in as few rows as possible, so that no label overlaps another or crosses a line. Each
/// entry of `labels` is the coordinate of a line and the width of its label.
///
/// Each line rises beside its label's row, so a label that reaches over another's line has to be above that label.
pub(super) fn mark_labels(labels: &[(f64, f64)]) -> Vec<Placement> {
    if labels.len() <= SEARCHED_MARKS {
        let sides = (0..1_usize << labels.len()).map(|bits| {
            let side = |i: usize| if bits >> i & 1 == 1 { Side::Left } else { Side::Right };
            (0..labels.len()).map(side).collect::<Vec<Side>>()
        });
        let rows = |places: &Vec<Placement>| places.iter().map(|place| place.row).max();
        if let Some(places) = sides.filter_map(|sides| stack(labels, &sides)).min_by_key(rows) {
            return places;
        }
    }
    // One row for each label. Lines cross labels, which stay legible because labels have a halo.
    let middle = WIDTH / 2.0;
    let side = |x: f64| if x > middle { Side::Left } else { Side::Right };
    labels.iter().enumerate().map(|(row, (x, _))| Placement { row, side: side(*x) }).collect()
}

/// The rows of labels on given sides; none if a label leaves the drawing, or two reach over each other's line.
fn stack(labels: &[(f64, f64)], sides: &[Side]) -> Option<Vec<Placement>> {
    let spans: Vec<(f64, f64)> = labels
        .iter()
        .zip(sides)
        .map(|(&(x, width), side)| if *side == Side::Right { (x, x + width) } else { (x - width, x) })
        .collect();
    if spans.iter().any(|(from, to)| *from < 0.0 || *to > WIDTH) {
        return None;
    }
    let reaches_over = |i: usize, j: usize| i != j && spans[i].0 - 2.0 < labels[j].0 && labels[j].0 < spans[i].1 + 2.0;
    let overlaps = |i: usize, j: usize| spans[i].0 < spans[j].1 && spans[j].0 < spans[i].1;
    let mut rows: Vec<Option<usize>> = vec![None; labels.len()];
    for _ in labels {
        let is_next =
            |&i: &usize| rows[i].is_none() && (0..rows.len()).all(|j| !reaches_over(i, j) || rows[j].is_some());
        let next = (0..rows.len()).find(is_next)?;
        let below = (0..rows.len()).filter(|&j| reaches_over(next, j)).filter_map(|j| rows[j]).max();
        let mut row = below.map_or(0, |row| row + 1);
        while (0..rows.len()).any(|j| rows[j] == Some(row) && overlaps(next, j)) {
            row += 1;
        }
        rows[next] = Some(row);
    }
    Some(rows.into_iter().zip(sides).map(|(row, side)| Placement { row: row.unwrap_or(0), side: *side }).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::canvas::LEFT;
    use super::*;

    proptest! {
        #[test]
        fn mark_labels_overlap_neither_labels_nor_lines(
            mut xs in prop::collection::btree_set(0_usize..=30, 1..=4),
            widths in prop::collection::vec(50.0..190.0_f64, 4),
        ) {
            xs.insert(30);
            let labels: Vec<(f64, f64)> =
                xs.iter().zip(&widths).map(|(&k, &width)| (LEFT + (k as f64 + 0.5) * 25.0, width)).collect();
            let places = mark_labels(&labels);
            let span = |i: usize| match places[i].side {
                Side::Right => (labels[i].0, labels[i].0 + labels[i].1),
                Side::Left => (labels[i].0 - labels[i].1, labels[i].0),
            };
            for i in 0..labels.len() {
                prop_assert!(span(i).0 >= 0.0 && span(i).1 <= WIDTH, "label {i} leaves the drawing: {places:?}");
                for j in (0..labels.len()).filter(|&j| j != i) {
                    let (a, b) = (span(i), span(j));
                    let is_apart = places[i].row != places[j].row || a.1 <= b.0 || b.1 <= a.0;
                    prop_assert!(is_apart, "labels {i} and {j} overlap: {places:?}");
                    let is_crossed = a.0 < labels[j].0 && labels[j].0 < a.1 && places[i].row <= places[j].row;
                    prop_assert!(!is_crossed, "line {j} crosses label {i}: {places:?}");
                }
            }
        }
    }
}
