//! Text functions of the metrics: Python's spaces and words, ASCII punctuation, and n-grams.
//!
//! The original metrics are written in Python, so its definitions are used: a space is a character for which
//! `str.isspace` is true, a word character is what `\w` matches. Rust's definitions differ (U+001C to U+001F are spaces
//! in Python only; in Rust a combining mark is part of a word). Both languages lower-case with full case mapping.
//!
//! *Unicode versions.* Letters, digits and cases added to Unicode after the version of a Python (14 for 3.11, 16 for
//! 3.14) are known here but not there. For all other characters the two agree.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::LazyLock;

use regex::Regex;

/// Runs of what Python's `\w` matches: letters, numbers of all kinds and the underscore, without combining marks.
static WORDS: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"[\p{L}\p{N}_]+").expect("a valid pattern"));

/// Whether a character is white space in Python.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Whether a character is one of the 32 in Python's `string.punctuation`.
pub(super) fn is_punctuation(c: char) -> bool {
    c.is_ascii_punctuation()
}

/// The parts between white space, none of them empty: Python's `str.split`.
pub(super) fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|part| !part.is_empty())
}

/// A text without white space at its ends: Python's `str.strip`.
pub(super) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// A text with a space in place of every whole word for which `is_blanked` holds.
pub(super) fn blank_words(text: &str, is_blanked: impl Fn(&str) -> bool) -> String {
    let blanked = |word: &regex::Captures<'_>| if is_blanked(&word[0]) { " " } else { &word[0] }.to_owned();
    WORDS.replace_all(text, blanked).into_owned()
}

/// Counts of n-grams: of all sequences of `n` adjacent items.
pub(super) fn ngrams<T: Hash + Eq>(items: &[T], n: usize) -> HashMap<&[T], usize> {
    let mut counts = HashMap::new();
    for ngram in items.windows(n) {
        *counts.entry(ngram).or_insert(0) += 1;
    }
    counts
}

/// The number of occurrences that two counts have in common: `Σ min(a, b)`.
pub(super) fn overlap<K: Hash + Eq>(a: &HashMap<K, usize>, b: &HashMap<K, usize>) -> usize {
    a.iter().map(|(key, &count)| count.min(b.get(key).copied().unwrap_or(0))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_are_pythons() {
        let parts: Vec<&str> = split("\u{1c}a\u{1f}\u{a0}b\u{3000}c\u{200b}d\u{2028}").collect();
        assert_eq!(parts, ["a", "b", "c\u{200b}d"]);
        assert_eq!(strip(" \u{1d}x y\u{85}\n"), "x y");
        assert_eq!(split("").count() + split(" \u{1e}").count(), 0);
    }

    #[test]
    fn a_combining_mark_ends_a_word() {
        let blanked = |text| blank_words(text, |word| word == "a");
        assert_eq!(blanked("a ab a_ a1 a² á a"), "  ab a_ a1 a² á  ");
        assert_eq!(blanked("a\u{301}b"), " \u{301}b");
    }

    #[test]
    fn ngrams_are_counted_with_repeats() {
        let counts = ngrams(&[1, 2, 1, 2], 2);
        assert_eq!((counts[&[1, 2][..]], counts[&[2, 1][..]], counts.len()), (2, 1, 2));
        assert_eq!(overlap(&counts, &ngrams(&[0, 1, 2], 2)), 1);
        assert!(ngrams(&[1], 2).is_empty());
    }
}
