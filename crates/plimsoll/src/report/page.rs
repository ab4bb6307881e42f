//! Figures and tables of the HTML page, as its template reads them: texts only.

use serde::Serialize;

use super::grid::Grid;
use super::words::non_breaking;

/// A section with a figure, and the tables behind it.
#[derive(Serialize)]
pub(super) struct Figure {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    /// What a panel shows, such as `measure`, if a reader picks one of several; all panels are visible without it.
    pub(super) picker: Option<&'static str>,
    /// For the figure of retained shares: what the script needs to move its margin, as JSON.
    pub(super) margin: Option<String>,
    pub(super) panels: Vec<Panel>,
    pub(super) caption: String,
    /// Limitations.
    pub(super) limits: String,
    pub(super) tables: Vec<Table>,
}

/// One drawing of a figure.
#[derive(Serialize)]
pub(super) struct Panel {
    /// Its name; empty for the only panel of a figure.
    pub(super) name: String,
    pub(super) svg: String,
}

impl Panel {
    /// The only panel of a figure.
    pub(super) fn alone(svg: String) -> Vec<Self> {
        vec![Self { name: String::new(), svg }]
    }
}

/// A section with text and tables.
#[derive(Serialize)]
pub(super) struct Extra {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    /// Paragraphs before the tables.
    pub(super) text: Vec<String>,
    pub(super) tables: Vec<Table>,
    /// Tables that are folded at first.
    pub(super) folded: Vec<Folded>,
}

/// A folded table with its summary line.
#[derive(Serialize)]
pub(super) struct Folded {
    pub(super) summary: String,
    pub(super) table: Table,
}

impl Extra {
    /// A section of one grid; `chosen` is the row of the verdict.
    pub(super) fn of_grid(
        id: &'static str,
        title: &'static str,
        note: &str,
        grid: Grid,
        chosen: Option<usize>,
    ) -> Self {
        let table = Table::of_grid(note, grid, chosen);
        Self { id, title, text: Vec::new(), tables: vec![table], folded: Vec::new() }
    }
}

#[derive(Serialize)]
pub(super) struct Table {
    pub(super) caption: String,
    /// Names of groups of columns; empty without groups.
    pub(super) spans: Vec<Span>,
    pub(super) head: Vec<String>,
    pub(super) rows: Vec<Row>,
    /// Number of columns from the left that hold words, not numbers.
    pub(super) names: usize,
}

impl Table {
    /// A table of the cells of a grid; `chosen` is the row of the verdict.
    pub(super) fn of_grid(note: &str, grid: Grid, chosen: Option<usize>) -> Self {
        let head = grid.head().into_iter().map(str::to_owned).collect();
        let rows = grid.rows.into_iter().enumerate();
        let rows = rows.map(|(index, cells)| Row { cells, is_chosen: Some(index) == chosen }).collect();
        Self { caption: non_breaking(note), spans: Vec::new(), head, rows, names: 1 }
    }

    /// A table without groups of columns.
    pub(super) fn new<const N: usize>(caption: &str, head: [&str; N], rows: Vec<Row>) -> Self {
        Self { caption: non_breaking(caption), spans: Vec::new(), head: head.map(str::to_owned).into(), rows, names: 0 }
    }

    /// With groups of columns: a name and a number of columns each.
    pub(super) fn under<const N: usize>(self, spans: [(&'static str, usize); N]) -> Self {
        Self { spans: spans.map(|(name, columns)| Span { name, columns }).into(), ..self }
    }

    /// With this number of columns of words.
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
    /// A row without highlight.
    pub(super) fn plain(cells: Vec<String>) -> Self {
        Self { cells, is_chosen: false }
    }
}
