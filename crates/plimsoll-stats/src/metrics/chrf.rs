//! chrF: the share of n-grams of up to six characters that a text has in common with its reference, over all samples.
//!
//! Popović, "chrF: character n-gram F-score for automatic MT evaluation" (WMT 2015), as sacreBLEU 2.6.0 computes it by
//! default. From 0 to 100:
//!
//! `100 · 5PR / (4P + R)`
//!
//! where P is the mean over n = 1..6 of the share of the candidates' n-grams that the references have, and R the same
//! share of the references' n-grams. Recall has twice the weight of precision (β = 2, "chrF2"). Counts are summed over
//! the samples before the division. An order is part of the means only if both sides have n-grams of it. White space is
//! ignored; case matters; there are no word n-grams (chrF++ has them).
//!
//! Of several references the one with which the sample alone has the highest chrF is used, the first one if several
//! have.

use super::text::{is_space, ngrams, overlap};

/// Longest n-gram.
const ORDER: usize = 6;

/// Weight of recall, squared.
const BETA_SQUARED: f64 = 4.0;

/// Number of statistics of a sample: for each order the n-grams of the candidate, of the reference, and the shared
/// ones.
pub(super) const WIDTH: usize = 3 * ORDER;

/// The statistics of one sample.
pub(super) fn statistics(candidate: &str, references: &[String]) -> Vec<f64> {
    let candidate = characters(candidate);
    let mut best = (f64::NEG_INFINITY, vec![0.0; WIDTH]);
    for reference in references {
        let counts = counts(&candidate, &characters(reference));
        let value = value(&counts);
        if value > best.0 {
            best = (value, counts);
        }
    }
    best.1
}

/// chrF of summed statistics.
pub(super) fn value(sums: &[f64]) -> f64 {
    let (mut precision, mut recall, mut orders) = (0.0, 0.0, 0.0);
    for counts in sums.chunks_exact(3) {
        if let &[candidate, reference, shared] = counts
            && candidate > 0.0
            && reference > 0.0
        {
            precision += shared / candidate;
            recall += shared / reference;
            orders += 1.0;
        }
    }
    // Also if there is no order at all.
    if precision + recall == 0.0 {
        return 0.0;
    }
    let (precision, recall) = (precision / orders, recall / orders);
    100.0 * ((1.0 + BETA_SQUARED) * precision * recall / (BETA_SQUARED * precision + recall))
}

fn characters(text: &str) -> Vec<char> {
    text.chars().filter(|&c| !is_space(c)).collect()
}

/// The statistics of a candidate and one reference.
fn counts(candidate: &[char], reference: &[char]) -> Vec<f64> {
    let order = |n: usize| {
        let (candidate, reference) = (ngrams(candidate, n), ngrams(reference, n));
        let shared = overlap(&candidate, &reference);
        // If the reference is too short for an order, the candidate's n-grams of that order do not count.
        let total = if reference.is_empty() { 0 } else { candidate.values().sum() };
        [total, reference.values().sum(), shared]
    };
    (1..=ORDER).flat_map(order).map(|count| count as f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_are_ignored() {
        let references = ["ab c d\u{1f}e\u{3000}f".to_owned()];
        assert_eq!(value(&statistics("a bcdef", &references)), 100.0);
    }

    #[test]
    fn orders_beyond_the_length_of_a_text_are_ignored() {
        assert_eq!(value(&statistics("é", &["é".to_owned()])), 100.0);
        assert_eq!(statistics("abc", &[String::new()]), [0.0; WIDTH]);
        assert_eq!(value(&[0.0; WIDTH]), 0.0);
    }

    #[test]
    fn the_best_reference_is_used() {
        let references = ["xyz".to_owned(), "abd".to_owned(), "abc".to_owned()];
        assert_eq!(value(&statistics("abc", &references)), 100.0);
    }
}
