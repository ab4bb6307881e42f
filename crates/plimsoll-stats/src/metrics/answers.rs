//! Metrics of short answers: exact match, and SQuAD's exact match and F1. All from 0 to 1, means over samples.

use super::pattern::Pattern;
use super::text::{blank_words, is_punctuation, ngrams, overlap, split};

/// Options of exact match: what is ignored, as `exact_match` of lm-evaluation-harness 0.4.13
/// (`exact_match_hf_evaluate`) does it. The options are applied in the order of the fields, to the candidate and the
/// reference. The remaining texts must be equal, spaces included.
///
/// *Departure.* The harness holds the texts in NumPy arrays, which cut a text to its old length when lower case makes
/// it longer (only `İ` does), and lose NUL characters at its end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExactMatch {
    /// Patterns whose matches are removed, one pattern after the other.
    pub ignore: Vec<Pattern>,
    /// Whether upper and lower case are the same.
    pub ignore_case: bool,
    /// Whether ASCII punctuation is removed.
    pub ignore_punctuation: bool,
}

impl ExactMatch {
    /// 1 if candidate and reference are the same, else 0.
    pub(super) fn score(&self, candidate: &str, reference: &str) -> f64 {
        f64::from(u8::from(self.normalised(candidate) == self.normalised(reference)))
    }

    fn normalised(&self, text: &str) -> String {
        let mut text = self.ignore.iter().fold(text.to_owned(), |text, pattern| pattern.remove_from(&text));
        if self.ignore_case {
            text = text.to_lowercase();
        }
        if self.ignore_punctuation {
            text.retain(|c| !is_punctuation(c));
        }
        text
    }
}

/// SQuAD's metrics of an answer.
///
/// Rajpurkar et al., arXiv:1606.05250 and 1806.03822 (version 2.0), as `squad_metrics` of transformers 4 computes them.
/// Answers are compared in lower case, without ASCII punctuation, without the words a, an and the, and with single
/// spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Squad {
    /// 1 if the words are equal, else 0.
    Exact,
    /// `2pr / (p + r)` of the words that candidate and reference share, each counted as often as both have it. If
    /// either has no words: 1 if neither has, else 0.
    F1,
}

impl Squad {
    /// The largest score over the references. References without words are ignored. If no reference has words, the
    /// question has no answer, and only an empty candidate is right.
    pub(super) fn score(self, candidate: &str, references: &[String]) -> f64 {
        let candidate = normalised(candidate);
        let candidate: Vec<&str> = candidate.split_terminator(' ').collect();
        let references = references.iter().map(|reference| normalised(reference)).filter(|text| !text.is_empty());
        let score = |reference: String| {
            let reference: Vec<&str> = reference.split(' ').collect();
            match self {
                Self::Exact => f64::from(u8::from(candidate == reference)),
                Self::F1 => f1(&candidate, &reference),
            }
        };
        let unanswerable = f64::from(u8::from(candidate.is_empty()));
        references.map(score).reduce(f64::max).unwrap_or(unanswerable)
    }
}

fn f1(candidate: &[&str], reference: &[&str]) -> f64 {
    let shared = overlap(&ngrams(candidate, 1), &ngrams(reference, 1));
    if shared == 0 {
        return 0.0;
    }
    let (precision, recall) = (shared as f64 / candidate.len() as f64, shared as f64 / reference.len() as f64);
    2.0 * precision * recall / (precision + recall)
}

/// The words that are compared, with single spaces between them.
fn normalised(text: &str) -> String {
    let mut text = text.to_lowercase();
    text.retain(|c| !is_punctuation(c));
    let text = blank_words(&text, |word| matches!(word, "a" | "an" | "the"));
    split(&text).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn articles_and_punctuation_are_ignored() {
        assert_eq!(normalised("The  theatre, an A-side: a\u{1c}b"), "theatre aside b");
        // To Python a combining accent ends a word.
        assert_eq!(normalised("a\u{301}"), "\u{301}");
    }

    #[test]
    fn an_empty_answer_is_right_for_a_question_without_answer() {
        let references = ["The".to_owned(), String::new()];
        assert_eq!(Squad::F1.score("a", &references), 1.0);
        assert_eq!(Squad::Exact.score("b", &references), 0.0);
        assert_eq!(Squad::Exact.score("", &["the".to_owned(), "b".to_owned()]), 0.0);
        assert_eq!(Squad::F1.score("", &[]), 1.0);
    }

    #[test]
    fn exact_match_ignores_only_what_its_options_name() {
        let strict = ExactMatch::default();
        assert_eq!([strict.score("a ", "a"), strict.score("A", "a"), strict.score("a", "a")], [0.0, 0.0, 1.0]);
        let lax = ExactMatch { ignore_case: true, ignore_punctuation: true, ..ExactMatch::default() };
        assert_eq!(lax.score("A.B!", "ab"), 1.0);
        // Patterns are applied in their order, before the text is lower-cased.
        let ignore = ["A", "bc"].map(|source| Pattern::try_from(source.to_owned()).unwrap()).to_vec();
        let ignoring = ExactMatch { ignore, ignore_case: true, ..ExactMatch::default() };
        assert_eq!([ignoring.score("bAc", ""), ignoring.score("bac", "")], [1.0, 0.0]);
    }
}
