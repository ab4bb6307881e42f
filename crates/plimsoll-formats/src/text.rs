//! Escaping of text from untrusted files, for messages.
//!
//! ```
//! use plimsoll_formats::text::shown;
//!
//! assert_eq!(shown("one\u{1b}[31m\ntwo"), "one\\u{1b}[31m\\ntwo");
//! ```

/// Maximum length of a quotation in a message, in characters.
const LONGEST_SHOWN: usize = 200;

/// A text for a message: on one line, without its middle if it is long, and with characters escaped that control a
/// terminal or reorder the text.
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

/// Why a text is not the expected JSON, with the column. The line is left out, because the parser counts it from the
/// start of its own text.
pub fn json_reason(error: &serde_json::Error) -> String {
    let reason = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let Some(reason) = reason.strip_suffix(&place) else { return shown(&reason) };
    // The parser's message for a wrong `true`, `false` or `null`.
    let reason = if reason == "expected ident" { "unknown word" } else { reason };
    let what = if error.is_data() { "" } else { "text that is not JSON: " };
    format!("{what}{} at column {}", shown(reason), error.column())
}

/// Whether line feeds are escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineFeeds {
    /// Line feeds are kept.
    Keep,
    /// Line feeds are escaped as `\n`.
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
    fn quoted_text_is_short_and_escaped() {
        assert_eq!(shown("a\u{1b}[31mb\nc\u{202e}d é"), "a\\u{1b}[31mb\\nc\\u{202e}d é");
        let long = format!("{}{}", "a".repeat(1000), "z".repeat(50));
        assert_eq!(shown(&long), format!("{}…{}", "a".repeat(150), "z".repeat(50)));
    }

    #[test]
    fn errors_of_json_have_the_column() {
        let reason = |text: &str| json_reason(&serde_json::from_str::<Vec<u8>>(text).unwrap_err());
        assert_eq!(reason("nope"), "text that is not JSON: unknown word at column 2");
        assert_eq!(reason("[1"), "text that is not JSON: EOF while parsing a list at column 2");
        assert_eq!(reason("[\"a\"]"), "invalid type: string \"a\", expected u8 at column 4");
    }
}
