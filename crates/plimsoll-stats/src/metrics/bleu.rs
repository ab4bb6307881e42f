//! BLEU: the share of n-grams of up to four words that a text has in common with its references, over all samples.
//!
//! Papineni, Roukos, Ward & Zhu, "BLEU: a Method for Automatic Evaluation of Machine Translation" (ACL 2002), as
//! sacreBLEU 2.6.0 computes it by default (Post, "A Call for Clarity in Reporting BLEU Scores", WMT 2018). From 0 to
//! 100:
//!
//! `100 · min(1, exp(1 − r/c)) · (p₁ p₂ p₃ p₄)^¼`
//!
//! where `c` is the number of words of the candidates; `r` that of the references (of each sample the reference closest
//! in length; the shorter one if two are as close); and `pₙ` the share of the candidates' n-grams that a reference has,
//! each counted at most as often as in the reference that has it most often. Counts are summed over the samples before
//! the division: BLEU is not a mean over samples.
//!
//! *Words* are those of mteval-v13a: punctuation marks are words of their own, except apostrophes, hyphens that no
//! digit precedes, and full stops and commas between digits. Case matters. *Smoothing* is `exp`: the first order
//! without a shared n-gram counts as half a shared n-gram, the next one as a quarter, and so on. If nothing is shared,
//! or no candidate has four words, BLEU is 0. So the BLEU of a single sample is rarely useful; sacreBLEU's option
//! `effective_order`, meant for that, is off here as it is there by default.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;

use super::text::{is_space, ngrams, overlap, split};

/// Longest n-gram.
const ORDER: usize = 4;

/// Number of statistics of a sample: words of candidate and reference; shared n-grams by order; all n-grams by order.
pub(super) const WIDTH: usize = 2 + 2 * ORDER;

/// Substitutions of mteval-v13a, in their order. They separate punctuation from words.
static RULES: LazyLock<[(Regex, &str); 4]> = LazyLock::new(|| {
    let rule = |pattern, replacement| (Regex::new(pattern).expect("a valid pattern"), replacement);
    [
        // The space, and ASCII punctuation except apostrophe, comma, hyphen and full stop.
        rule(r#"[ !"\#$%\&()*+/:;<=>?@\[\\\]^_`{|}\~]"#, " $0 "),
        rule(r"([^0-9])([.,])", "$1 $2 "),
        rule(r"([.,])([^0-9])", " $1 $2"),
        rule(r"([0-9])(-)", "$1 $2 "),
    ]
});

/// The statistics of one sample.
pub(super) fn statistics(candidate: &str, references: &[String]) -> Vec<f64> {
    let candidate = tokenize(candidate);
    let candidate: Vec<&str> = split(&candidate).collect();
    let references: Vec<String> = references.iter().map(|reference| tokenize(reference)).collect();
    let references: Vec<Vec<&str>> = references.iter().map(|reference| split(reference).collect()).collect();

    let distance = |length: &usize| (length.abs_diff(candidate.len()), *length);
    let closest = references.iter().map(Vec::len).min_by_key(distance).unwrap_or(0);
    let mut shared = [0; ORDER];
    let mut all = [0; ORDER];
    for order in 0..ORDER {
        let mut most: HashMap<&[&str], usize> = HashMap::new();
        for (ngram, count) in references.iter().flat_map(|reference| ngrams(reference, order + 1)) {
            let seen = most.entry(ngram).or_default();
            *seen = count.max(*seen);
        }
        let counts = ngrams(&candidate, order + 1);
        shared[order] = overlap(&counts, &most);
        all[order] = counts.values().sum();
    }
    [candidate.len(), closest].into_iter().chain(shared).chain(all).map(|count| count as f64).collect()
}

/// BLEU of summed statistics.
pub(super) fn value(sums: &[f64]) -> f64 {
    let (lengths, counts) = sums.split_at(2);
    let (shared, all) = counts.split_at(ORDER);
    if shared.iter().all(|&count| count == 0.0) || all.contains(&0.0) {
        return 0.0;
    }
    let brevity = if lengths[0] < lengths[1] { (1.0 - lengths[1] / lengths[0]).exp() } else { 1.0 };
    let mut halving = 1.0;
    let mut logs = 0.0;
    for (&shared, &all) in shared.iter().zip(all) {
        let precision = if shared == 0.0 {
            halving *= 2.0;
            100.0 / (halving * all)
        } else {
            100.0 * shared / all
        };
        logs += precision.ln();
    }
    brevity * (logs / ORDER as f64).exp()
}

/// The words of a text, with white space between them.
fn tokenize(text: &str) -> String {
    let text = text.trim_end_matches(is_space).replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
    // In this order: the result of `&amp;` can be part of another entity.
    let text = text.replace("&quot;", "\"").replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">");
    RULES.iter().fold(format!(" {text} "), |text, (rule, replacement)| match rule.replace_all(&text, *replacement) {
        Cow::Borrowed(_) => text,
        Cow::Owned(changed) => changed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        split(&tokenize(text)).map(str::to_owned).collect()
    }

    #[test]
    fn punctuation_is_separated_except_within_numbers() {
        assert_eq!(words("It's $1,234.50, isn't it?"), ["It's", "$", "1,234.50", ",", "isn't", "it", "?"]);
        assert_eq!(words("&amp;lt; well-\nknown 3-4 a.b"), ["<", "wellknown", "3", "-", "4", "a", ".", "b"]);
        assert_eq!(words("<skipped>[x]~{y}\\"), ["[", "x", "]", "~", "{", "y", "}", "\\"]);
    }

    #[test]
    fn the_closest_reference_gives_the_length() {
        let references = ["a b".to_owned(), "a b c d".to_owned(), "a b c d e f".to_owned()];
        assert_eq!(statistics("a b c", &references)[..2], [3.0, 2.0]);
        assert_eq!(statistics("a a a b", &references), [4.0, 4.0, 2.0, 1.0, 0.0, 0.0, 4.0, 3.0, 2.0, 1.0]);
    }

    #[test]
    fn bleu_of_fewer_than_four_words_is_zero() {
        let references = ["one two three".to_owned()];
        assert_eq!(value(&statistics("one two three", &references)), 0.0);
        assert_eq!(value(&[0.0; WIDTH]), 0.0);
    }
}
