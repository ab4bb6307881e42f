//! Tables of short texts for the terminal and for Markdown, and escaping of untrusted text in Markdown.

use super::terminal::{Look, Style, WIDTH, wrap};
use super::words::printable;

/// Output format of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Form {
    /// Text for a terminal.
    Text(Style),
    /// Markdown (GitHub's, for its tables).
    Markdown,
}

/// Alignment of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
    /// Left; left out of Markdown, whose font need not be monospaced.
    Bar,
}

/// A table of short texts.
pub(super) struct Grid {
    columns: Vec<(&'static str, Side)>,
    pub(super) rows: Vec<Vec<String>>,
    /// Indices of highlighted rows.
    chosen: Vec<usize>,
}

impl Grid {
    pub(super) fn new(columns: &[(&'static str, Side)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new(), chosen: Vec::new() }
    }

    /// Names of the columns.
    pub(super) fn head(&self) -> Vec<&'static str> {
        self.columns.iter().map(|(name, _)| *name).collect()
    }

    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The first highlighted row.
    pub(super) fn chosen_row(&self) -> Option<usize> {
        self.chosen.first().copied()
    }

    /// Adds a highlighted row.
    pub(super) fn chosen(&mut self, cells: Vec<String>) {
        self.chosen.push(self.rows.len());
        self.rows.push(cells);
    }

    pub(super) fn write(&self, out: &mut String, form: Form) {
        let header: Vec<String> = self.head().into_iter().map(str::to_owned).collect();
        match form {
            Form::Markdown => {
                let is_written = |side: Side| side != Side::Bar;
                let line = |cells: &[String], around: &str| {
                    let written = cells.iter().zip(&self.columns).filter(|(_, (_, side))| is_written(*side));
                    let cells: Vec<String> = written
                        .map(|(cell, _)| match cell.trim() {
                            "" => String::new(),
                            cell => format!("{around}{}{around}", markup_free(cell)),
                        })
                        .collect();
                    format!("| {} |\n", cells.join(" | "))
                };
                out.push_str(&line(&header, ""));
                let sides = self.columns.iter().map(|(_, side)| *side).filter(|side| is_written(*side));
                let rule = sides.map(|side| if side == Side::Left { "---" } else { "---:" });
                out.push_str(&format!("|{}|\n", rule.collect::<Vec<_>>().join("|")));
                for (index, row) in self.rows.iter().enumerate() {
                    out.push_str(&line(row, if self.chosen.contains(&index) { "**" } else { "" }));
                }
            }
            Form::Text(style) => {
                let width = |column: usize| {
                    let cells = self.rows.iter().map(|row| &row[column]).chain([&header[column]]);
                    cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
                };
                let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
                let line = |cells: &[String]| {
                    let cells =
                        cells.iter().zip(&self.columns).zip(&widths).map(|((cell, (_, side)), width)| match side {
                            Side::Left | Side::Bar => format!("{cell:<width$}"),
                            Side::Right => format!("{cell:>width$}"),
                        });
                    // Only extreme numbers make a row too long.
                    clipped(cells.collect::<Vec<_>>().join("  ").trim_end(), WIDTH)
                };
                out.push_str(&style.styled(Look::Bold, &line(&header)));
                out.push('\n');
                for (index, row) in self.rows.iter().enumerate() {
                    let look = if self.chosen.contains(&index) { Look::Chosen } else { Look::Plain };
                    out.push_str(&style.styled(look, &line(row)));
                    out.push('\n');
                }
            }
        }
    }
}

impl Form {
    pub(super) fn paragraph(self, out: &mut String, look: Look, text: &str) {
        match self {
            Self::Markdown => {
                // These characters would start a list or underline a heading.
                let number = text.trim_start_matches(|c: char| c.is_ascii_digit());
                if text.starts_with(['-', '+', '=', ' ']) {
                    out.push_str(if text.starts_with(' ') { "&#32;" } else { "\\" });
                    out.push_str(&markup_free(text.strip_prefix(' ').unwrap_or(text)));
                } else if number.len() < text.len() && number.starts_with(['.', ')']) {
                    out.push_str(&format!("{}\\{}", &text[..text.len() - number.len()], markup_free(number)));
                } else {
                    out.push_str(&markup_free(text));
                }
                out.push('\n');
                if matches!(look, Look::Bold) {
                    out.push('\n');
                }
            }
            Self::Text(style) => {
                for line in wrap(text, 0) {
                    out.push_str(&style.styled(look, &line));
                    out.push('\n');
                }
            }
        }
    }
}

/// Escapes text for Markdown: untrusted text must not become markup, a link or a mention of a user.
pub(super) fn markup_free(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let is_link = rest.starts_with("://") || rest.starts_with("www.");
        match c {
            // An empty comment separates the sign from the name.
            '@' => out.push_str("@<!-- -->"),
            'w' if is_link => {
                out.push_str("www\\.");
                rest = &rest["www.".len()..];
                continue;
            }
            c if "\\`*_[]<>#|~&".contains(c) || is_link => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
        rest = &rest[c.len_utf8()..];
    }
    out
}

/// Untrusted text as code in Markdown.
pub(super) fn code(text: &str) -> String {
    let text = printable(text);
    // Backticks cannot hold all texts, and a bar would split a cell of a table. Character references are never markup.
    if !text.is_empty() && !text.starts_with(' ') && !text.ends_with(' ') && !text.contains(['`', '|']) {
        return format!("`{text}`");
    }
    let escape = |c: char| if c.is_alphanumeric() { c.to_string() } else { format!("&#{};", u32::from(c)) };
    format!("<code>{}</code>", text.chars().map(escape).collect::<String>())
}

/// Untrusted text on one line, shortened to `most` characters.
pub(super) fn clipped(text: &str, most: usize) -> String {
    let text = printable(text);
    if text.chars().count() <= most {
        return text;
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// The mark of a highlighted row.
pub(super) fn arrow(is_chosen: bool) -> String {
    if is_chosen { "▶" } else { "" }.to_owned()
}

/// Adds a row, highlighted if it is chosen.
pub(super) fn add(grid: &mut Grid, cells: Vec<String>, is_chosen: bool) {
    if is_chosen { grid.chosen(cells) } else { grid.row(cells) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_does_not_become_markup() {
        let text = "a|b\\|c *d* <e> [f](http://g) @h www.i `j` &lt; ~~k~~";
        let free = "a\\|b\\\\\\|c \\*d\\* \\<e\\> \\[f\\](http\\://g) @<!-- -->h www\\.i \\`j\\` \\&lt; \\~\\~k\\~\\~";
        assert_eq!(markup_free(text), free);
        assert_eq!(code("my adapter/*x*"), "`my adapter/*x*`");
        assert_eq!(code("a`b|c\n"), "<code>a&#96;b&#124;c&#65533;</code>");
    }
}
