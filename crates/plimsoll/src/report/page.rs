//! What the page's template is handed: words only, nothing left to compute.

use serde::Serialize;

use super::grid::Grid;
use super::words::glued;

/// A section with a figure, and the tables behind it.
#[derive(Serialize)]
pub(super) struct Figure {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    /// What the panels are to pick from, where only one is to be seen at a time.
    pub(super) picker: Option<&'static str>,
    pub(super) panels: Vec<Panel>,
    pub(super) caption: String,
    /// What it does not show.
    pub(super) limits: String,
    pub(super) tables: Vec<Table>,
}

/// One drawing of a figure.
#[derive(Serialize)]
pub(super) struct Panel {
    /// What it is called; empty where the figure has no other.
    pub(super) name: String,
    pub(super) svg: String,
}

impl Panel {
    /// The one drawing of a figure.
    pub(super) fn alone(svg: String) -> Vec<Self> {
        vec![Self { name: String::new(), svg }]
    }
}

/// A section with words and tables.
#[derive(Serialize)]
pub(super) struct Extra {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    /// What stands before the tables.
    pub(super) text: Vec<String>,
    pub(super) tables: Vec<Table>,
    /// Tables that are closed until somebody wants them, with what they are opened by.
    pub(super) folded: Vec<Folded>,
}

/// A table that is closed.
#[derive(Serialize)]
pub(super) struct Folded {
    pub(super) summary: String,
    pub(super) table: Table,
}

impl Extra {
    /// A section of one grid, with the row that is the answer.
    pub(super) fn of_grid(
        id: &'static str,
        title: &'static str,
        note: &str,
        grid: Grid,
        chosen: Option<usize>,
    ) -> Self {
        let head = grid.head().into_iter().map(str::to_owned).collect();
        let rows = grid.rows.into_iter().enumerate();
        let rows = rows.map(|(index, cells)| Row { cells, is_chosen: Some(index) == chosen }).collect();
        let table = Table { caption: glued(note), spans: Vec::new(), head, rows, names: 1 };
        Self { id, title, text: Vec::new(), tables: vec![table], folded: Vec::new() }
    }
}

#[derive(Serialize)]
pub(super) struct Table {
    pub(super) caption: String,
    /// Names over several columns each; none where every column stands for itself.
    pub(super) spans: Vec<Span>,
    pub(super) head: Vec<String>,
    pub(super) rows: Vec<Row>,
    /// So many columns from the left are words and not numbers.
    pub(super) names: usize,
}

impl Table {
    /// A table whose rows begin with one word or number, and whose columns stand for themselves.
    pub(super) fn new<const N: usize>(caption: &str, head: [&str; N], rows: Vec<Row>) -> Self {
        Self { caption: glued(caption), spans: Vec::new(), head: head.map(str::to_owned).into(), rows, names: 0 }
    }

    /// With names over several columns.
    pub(super) fn under<const N: usize>(self, spans: [(&'static str, usize); N]) -> Self {
        Self { spans: spans.map(|(name, columns)| Span { name, columns }).into(), ..self }
    }

    /// With so many columns of words.
    pub(super) fn named(self, names: usize) -> Self {
        Self { names, ..self }
    }
}

#[derive(Serialize)]
pub(super) struct Span {
    pub(super) name: &'static str,
    pub(super) columns: usize,
}

#[derive(Serialize)]
pub(super) struct Row {
    pub(super) cells: Vec<String>,
    pub(super) is_chosen: bool,
}

impl Row {
    /// A row that is not the answer's.
    pub(super) fn plain(cells: Vec<String>) -> Self {
        Self { cells, is_chosen: false }
    }
}
