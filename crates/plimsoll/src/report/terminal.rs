//! Lines of text for a terminal: colours and line breaks.

use super::words;

/// Largest width of a line, in columns.
pub(super) const WIDTH: usize = 100;

/// Style of terminal output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Style {
    /// Plain text.
    Plain,
    /// Text with ANSI escapes for bold, dim and colours.
    Colour,
}

/// Look of a line in [`Style::Colour`].
#[derive(Clone, Copy)]
pub(super) enum Look {
    Plain,
    Bold,
    Dim,
    Chosen,
    Warning,
}

impl Style {
    pub(super) fn styled(self, look: Look, text: &str) -> String {
        let code = match look {
            Look::Plain => return text.to_owned(),
            Look::Bold => "1",
            Look::Dim => "2",
            Look::Chosen => "1;36",
            Look::Warning => "33",
        };
        match self {
            Self::Plain => text.to_owned(),
            Self::Colour if text.is_empty() => String::new(),
            Self::Colour => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
        }
    }
}

/// Breaks text into lines of at most [`WIDTH`] columns minus an indent, at spaces that
/// [`non_breaking`](words::non_breaking) leaves breakable. A longer word is a line by itself.
pub(super) fn wrap(text: &str, indent: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in words::non_breaking(text).split(' ') {
        let word = word.replace('\u{a0}', " ");
        let length = word.chars().count();
        if used > 0 && used + 1 + length > WIDTH - indent {
            lines.push(String::new());
            used = 0;
        }
        if let Some(line) = lines.last_mut() {
            if used > 0 {
                line.push(' ');
                used += 1;
            }
            line.push_str(&word);
            used += length;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_wraps_at_spaces() {
        let lines = wrap(&"four ".repeat(50), 9);
        assert!(lines.len() == 3 && lines.iter().all(|line| line.chars().count() <= WIDTH - 9), "{lines:?}");
        assert_eq!(wrap(&format!("{} 95 % p = 0.5", "x".repeat(96)), 0), [&"x".repeat(96), "95 % p = 0.5"]);
        assert_eq!(wrap(&"x".repeat(200), 0).len(), 1);
    }
}
