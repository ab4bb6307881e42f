//! The table of sufficient layers: how many layers each margin needs.

use plimsoll_stats::choose::Margin;
use plimsoll_stats::choose::sufficient::{Stop, Sufficient};

use super::grid::{Grid, Side, add, arrow};
use super::is_candidate;
use super::words::{self, NONE, Sign, bytes, estimate, p_value, plain};
use crate::result::{SearchResult, SufficientLayers, SufficientRow};

/// How many layers of a family each margin needs.
pub(super) fn sufficient_layers(list: &SufficientLayers, result: &SearchResult) -> Grid {
    let mut grid = Grid::new(&[
        ("", Side::Left),
        ("margin", Side::Left),
        ("layers", Side::Right),
        ("bytes", Side::Right),
        ("retained (95 % interval)", Side::Right),
        ("p", Side::Right),
        ("why not fewer", Side::Left),
    ]);
    for row in &list.rows {
        let SufficientRow { answer: Sufficient { margin, layers_kept, p, .. }, bytes: size, gates } = row;
        let is_chosen = *margin == result.rules.asked_margin() && is_candidate(result, list.family, gates);
        let cells = vec![
            arrow(is_chosen),
            short(*margin),
            format!("{layers_kept} of {}", result.model.layers),
            bytes(*size),
            if p.is_some() { retained(list, *layers_kept) } else { "100 %".to_owned() },
            p.map_or_else(|| NONE.to_owned(), number_of_p),
            why(row, list),
        ];
        add(&mut grid, cells, is_chosen);
    }
    grid
}

/// A margin in a table: `98 %`, or `−0.01 nats`.
fn short(margin: Margin) -> String {
    match margin {
        Margin::Share(share) => format!("{} %", plain(share * 100.0)),
        Margin::Nats(nats) => format!("−{}", plain(nats)),
    }
}

/// A p-value without its name: `0.018`, or `< 0.001`.
fn number_of_p(p: f64) -> String {
    p_value(p).trim_start_matches("p ").trim_start_matches("= ").to_owned()
}

/// `92.9 % (90.6 to 95.1)`.
fn retained(list: &SufficientLayers, layers_kept: usize) -> String {
    match list.share(layers_kept) {
        Some(share) => {
            let [value, low, high] = estimate(&share.retained, 100.0, 2, Sign::Minus);
            format!("{value} % ({low} to {high})")
        }
        None => NONE.to_owned(),
    }
}

/// Why fewer layers are not the answer, in a few words.
fn why(row: &SufficientRow, list: &SufficientLayers) -> String {
    let share = |layers_kept: usize| {
        let value = list.share(layers_kept).map(|share| 100.0 * share.retained.value);
        value.map(|value| format!(": {} %", words::fixed(value, 1, Sign::Minus))).unwrap_or_default()
    };
    match row.answer.stop {
        Stop::NotShown { layers_kept, p } => format!("{layers_kept}{}, {}", share(layers_kept), p_value(p)),
        Stop::LosesMore { layers_kept, .. } => format!("{layers_kept}{}, less", share(layers_kept)),
        Stop::NotScored { layers_kept } => format!("{layers_kept}: not scored"),
        Stop::NoMoreCuts => "no cut drops more".to_owned(),
        Stop::AdapterNotShown => "no gain shown".to_owned(),
        _ => String::new(),
    }
}
