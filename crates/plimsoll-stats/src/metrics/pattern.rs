//! Regular expressions in Python's notation, and the extraction of an answer from a text.
//!
//! Task files of lm-evaluation-harness contain patterns for Python's `re`. Except for the departures below, a pattern
//! has the same meaning here or is refused. Patterns are matched by an automaton, which never backtracks: each match of
//! an untrusted pattern takes time proportional to the text. Look-around and back references are refused. Length and
//! compiled size are limited.
//!
//! *As in Python*: `\s` and `\w` (see [`text`](super::text)), their complements, `\Z`, and the literal characters `[`,
//! `&&`, `~~` and `--` within a class.
//!
//! *Departures.* `$` matches only at the end of the text; in Python also before a line feed at the end. For `\b` and
//! `\B` combining marks and joiners are part of a word. After an empty match, a longer match at the same position is
//! not tried. A `+` after a quantifier repeats it; in Python 3.11 it makes it possessive. Characters newer than the
//! Unicode version of a Python may be of another class there.

use std::fmt::Write as _;

use regex::{Captures, Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use super::text::strip;

/// Longest pattern, in bytes.
const MAX_LENGTH: usize = 1_000;

/// Largest compiled pattern, and largest cache of its lazy automaton, in bytes.
const MAX_SIZE: usize = 4 << 20;

/// An error in a pattern.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PatternProblem {
    /// It is too long.
    #[error("pattern of {0} bytes: expected at most {MAX_LENGTH}")]
    Long(usize),
    /// It cannot be compiled.
    #[error(
        "pattern `{}`: {}{}",
        visible(.pattern),
        visible(.reason),
        .at.map_or_else(String::new, |at| format!(" at character {at}"))
    )]
    Unusable {
        /// The pattern.
        pattern: String,
        /// The reason.
        reason: String,
        /// The position in the pattern, in characters from 1, if known.
        at: Option<usize>,
    },
}

/// A text on one line, with control characters escaped: patterns come from untrusted files.
fn visible(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

impl PatternProblem {
    fn unusable(pattern: String, error: &regex::Error) -> Self {
        // The crate's own message shows the translated pattern, on several lines.
        let (reason, start) = match regex_syntax::parse(&from_python(&pattern)) {
            Err(regex_syntax::Error::Parse(error)) => (error.kind().to_string(), Some(error.span().start.offset)),
            Err(regex_syntax::Error::Translate(error)) => (error.kind().to_string(), Some(error.span().start.offset)),
            _ => (error.to_string(), None),
        };
        let at = start.map(|start| {
            // Translation is from left to right: a prefix of the pattern becomes a prefix of its translation.
            let is_before = |&(index, _): &(usize, char)| from_python(&pattern[..index]).len() <= start;
            pattern.char_indices().take_while(is_before).count()
        });
        Self::Unusable { pattern, reason, at }
    }
}

/// A regular expression in Python's notation.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    source: String,
    regex: Regex,
}

impl Pattern {
    /// The text without what matches: `re.sub(pattern, "", text)`.
    pub(super) fn remove_from(&self, text: &str) -> String {
        self.regex.replace_all(text, "").into_owned()
    }

    /// All matches, in their order: `re.finditer`. An empty match may directly follow another match; `Regex::find_iter`
    /// skips it.
    fn matches<'a>(&'a self, text: &'a str) -> impl Iterator<Item = Captures<'a>> {
        let mut next = Some(0);
        std::iter::from_fn(move || {
            let found = self.regex.captures_at(text, next?)?;
            let whole = found.get_match();
            let step = text[whole.end()..].chars().next().map(char::len_utf8);
            next = if whole.is_empty() { step.map(|step| whole.end() + step) } else { Some(whole.end()) };
            Some(found)
        })
    }
}

impl TryFrom<String> for Pattern {
    type Error = PatternProblem;

    fn try_from(source: String) -> Result<Self, PatternProblem> {
        if source.len() > MAX_LENGTH {
            return Err(PatternProblem::Long(source.len()));
        }
        match RegexBuilder::new(&from_python(&source)).size_limit(MAX_SIZE).dfa_size_limit(MAX_SIZE).build() {
            Ok(regex) => Ok(Self { source, regex }),
            Err(error) => Err(PatternProblem::unusable(source, &error)),
        }
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.source
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

/// Which of several matches is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Take {
    /// The first one.
    #[default]
    First,
    /// The last one.
    Last,
}

impl Take {
    /// The name in task files.
    pub fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Last => "last",
        }
    }
}

/// Extraction of the answer from a candidate: the `regex` filter of lm-evaluation-harness 0.4.13.
///
/// The answer is what the pattern matches; with one group, what the group matches; with several groups, the first that
/// is not empty. White space at its ends is removed. If nothing matches, the answer is the fallback.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extract {
    /// The pattern to search for.
    pub pattern: Pattern,
    /// Which match to take; by default the first.
    #[serde(default)]
    pub take: Take,
    /// The answer if nothing matches; by default `[invalid]`.
    #[serde(default = "invalid")]
    pub fallback: String,
}

fn invalid() -> String {
    "[invalid]".to_owned()
}

impl Extract {
    /// The answer in a text.
    pub fn answer<'a>(&'a self, text: &'a str) -> &'a str {
        let mut matches = self.pattern.matches(text);
        let found = match self.take {
            Take::First => matches.next(),
            Take::Last => matches.last(),
        };
        let Some(found) = found else { return &self.fallback };
        let group = |index| found.get(index).map_or("", |group: regex::Match<'a>| group.as_str());
        strip(match found.len() {
            1 => group(0),
            2 => group(1),
            groups => (1..groups).map(group).find(|text| !text.is_empty()).unwrap_or(&self.fallback),
        })
    }
}

/// Translates a Python pattern to the notation of the crate `regex`. The result of a pattern that Python refuses is
/// unspecified.
fn from_python(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut chars = pattern.chars().peekable();
    let mut is_in_class = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('s') => out.push_str(r"[\s\x1c-\x1f]"),
                Some('S') => out.push_str(r"[^\s\x1c-\x1f]"),
                Some('w') => out.push_str(r"[\p{L}\p{N}_]"),
                Some('W') => out.push_str(r"[^\p{L}\p{N}_]"),
                Some('Z') => out.push_str(r"\z"),
                Some(c @ ('<' | '>')) => out.push(c),
                Some(c) => _ = write!(out, "\\{c}"),
                None => out.push(c),
            },
            '[' if !is_in_class => {
                is_in_class = true;
                out.push(c);
                out.extend(chars.next_if_eq(&'^'));
                // A bracket or hyphen that comes first is literal.
                if let Some(first) = chars.next_if(|&c| matches!(c, ']' | '-')) {
                    _ = write!(out, "\\{first}");
                }
            }
            ']' => {
                is_in_class = false;
                out.push(c);
            }
            '[' | '&' | '~' if is_in_class => _ = write!(out, "\\{c}"),
            '-' if is_in_class && out.ends_with('-') && !out.ends_with(r"\-") => out.push_str(r"\-"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(source: &str) -> Pattern {
        Pattern::try_from(source.to_owned()).unwrap()
    }

    fn answer(source: &str, take: Take, text: &str) -> String {
        Extract { pattern: pattern(source), take, fallback: " none ".to_owned() }.answer(text).to_owned()
    }

    #[test]
    fn a_single_group_may_be_empty_and_of_several_the_first_that_is_not_is_taken() {
        assert_eq!(answer("[0-9]+ kg", Take::First, "3 kg, 4 kg"), "3 kg");
        assert_eq!(answer("([0-9]+) kg", Take::Last, "3 kg, 4 kg"), "4");
        assert_eq!(answer("a(b)?", Take::First, "ac"), "");
        assert_eq!(answer("a(b)?( c)?", Take::First, "a c"), "c");
        assert_eq!(answer("a(b)?(c)?", Take::First, "a"), "none");
        assert_eq!(answer("x", Take::First, "a"), " none ");
    }

    #[test]
    fn empty_matches_are_where_python_finds_them() {
        assert_eq!(answer("[0-9]*", Take::Last, "a12"), "");
        assert_eq!(
            pattern("[0-9]*").matches("a1é").map(|found| found.get_match().range()).collect::<Vec<_>>(),
            [0..0, 1..2, 2..2, 4..4]
        );
    }

    #[test]
    fn classes_are_read_as_python_does() {
        let removed = |source: &str, text: &str| pattern(source).remove_from(text);
        assert_eq!(removed(r"\s", "a\u{1c}b\u{a0}c"), "abc");
        assert_eq!(removed(r"[^\s]", "a\u{1c}b"), "\u{1c}");
        assert_eq!(removed(r"\W", "e\u{301}½_ a"), "e½_a");
        assert_eq!(removed(r"[x\W]", "xe\u{301}"), "e");
        assert_eq!(removed(r"[[&&~~]", "[a&b~]"), "ab]");
        assert_eq!(removed(r"[]a]", "[a]b"), "[b");
        assert_eq!(removed(r"[^]a]", "[a]b"), "a]");
        assert_eq!(removed(r"[+--]", "a+,-.b"), "a.b");
        assert_eq!(removed(r"[--/]", "-./0"), "0");
        assert_eq!(removed(r"\<a\>\Z", "<a><a>"), "<a>");
        assert_eq!(removed(r"[\]\-a]", "]-ab"), "b");
    }

    #[test]
    fn patterns_beyond_the_limits_are_refused() {
        for source in ["(?=a)", r"(a)\1", "(", "[a", &"a".repeat(1_001), r"\w{1000}{1000}"] {
            let message = Pattern::try_from(source.to_owned()).unwrap_err().to_string();
            assert!(message.starts_with("pattern ") && message.chars().count() < 500, "{message}");
        }
    }
}
