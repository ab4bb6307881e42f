//! Text of untrusted files, as it may stand in a message.
//!
//! ```
//! use plimsoll_formats::text::shown;
//!
//! assert_eq!(shown("one\u{1b}[31m\ntwo"), "one\\u{1b}[31m\\ntwo");
//! ```

/// Longest quotation of a file's text in a message, in characters.
const LONGEST_SHOWN: usize = 200;

/// A file's text for a message: on one line, without its middle where it is long, and with those characters escaped that
/// could steer a terminal or reorder the text.
pub fn shown(text: &str) -> String {
    const END: usize = LONGEST_SHOWN / 4;
    let length = text.chars().count();
    if length <= LONGEST_SHOWN {
        return escaped(text, LineFeeds::Escape);
    }
    let start: String = text.chars().take(LONGEST_SHOWN - END).collect();
    let end: String = text.chars().skip(length - END).collect();
    format!("{}…{}", escaped(&start, LineFeeds::Escape), escaped(&end, LineFeeds::Escape))
}

/// Why a text is not the JSON that is expected, with the column. The line is left out: the parser counts it within the
/// text that it was given.
pub fn json_reason(error: &serde_json::Error) -> String {
    let reason = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let Some(reason) = reason.strip_suffix(&place) else { return shown(&reason) };
    // The parser's word for the rest of `true`, `false` or `null`.
    let reason = if reason == "expected ident" { "unknown word" } else { reason };
    let what = if error.is_data() { "" } else { "text that is not JSON: " };
    format!("{what}{} at column {}", shown(reason), error.column())
}

/// What is done with line feeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineFeeds {
    /// They stay.
    Keep,
    /// They are escaped as `\n`.
    Escape,
}

/// A text with control characters and bidirectional formatting characters escaped.
pub fn escaped(text: &str, line_feeds: LineFeeds) -> String {
    let is_escaped = |c: char| match c {
        '\n' => line_feeds == LineFeeds::Escape,
        '\u{200E}' | '\u{200F}' | '\u{061C}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}' => true,
        c => c.is_control(),
    };
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_escaped(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_text_is_short_and_cannot_steer_the_terminal() {
        assert_eq!(shown("a\u{1b}[31mb\nc\u{202e}d é"), "a\\u{1b}[31mb\\nc\\u{202e}d é");
        let long = format!("{}{}", "a".repeat(1000), "z".repeat(50));
        assert_eq!(shown(&long), format!("{}…{}", "a".repeat(150), "z".repeat(50)));
    }

    #[test]
    fn broken_json_is_named_with_its_column() {
        let reason = |text: &str| json_reason(&serde_json::from_str::<Vec<u8>>(text).unwrap_err());
        assert_eq!(reason("nope"), "text that is not JSON: unknown word at column 2");
        assert_eq!(reason("[1"), "text that is not JSON: EOF while parsing a list at column 2");
        assert_eq!(reason("[\"a\"]"), "invalid type: string \"a\", expected u8 at column 4");
    }
}
