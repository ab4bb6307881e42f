//! `metrics` compared with the original implementations (`reference/metrics_golden.py`), and its invariants.

// A failed unwrap is a failed test.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::slice::from_ref;

use plimsoll_stats::holm;
use plimsoll_stats::metrics::compare::{CompareOptions, Difference, Estimate, compare, estimate};
use plimsoll_stats::metrics::{Extract, Measure, Metric, stem};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

/// Relative tolerance. Python and Rust do the same operations in the same order, except for NumPy's order of sums and
/// the last digits of logarithms.
const TOLERANCE: f64 = 1e-12;

#[derive(Deserialize)]
struct Golden {
    exact_matches: Vec<Value>,
    gsm8k: Gsm8k,
    extracts: Vec<ExtractCase>,
    cases: Vec<Case>,
    tolerances: Vec<Option<Value>>,
    numbers: Vec<Number>,
    corpora: Vec<Corpus>,
    stems: Vec<(String, String)>,
    comparisons: Vec<Comparison>,
    holm: Vec<Holm>,
}

#[derive(Deserialize)]
struct Gsm8k {
    options: Value,
    filters: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct ExtractCase {
    answers: Vec<String>,
    #[serde(flatten)]
    extract: Value,
}

#[derive(Deserialize)]
struct Case {
    candidate: String,
    references: Vec<String>,
    exact_match: Vec<f64>,
    gsm8k: BTreeMap<String, f64>,
    squad: [f64; 2],
    rouge: BTreeMap<String, f64>,
    stemmed: BTreeMap<String, f64>,
    bleu: f64,
    chrf: f64,
    bleu_statistics: Vec<f64>,
    chrf_statistics: Vec<f64>,
}

#[derive(Deserialize)]
struct Number {
    candidate: String,
    references: Vec<String>,
    are_numbers: Vec<bool>,
    scores: Vec<f64>,
}

#[derive(Deserialize)]
struct Corpus {
    pairs: Vec<usize>,
    references: Option<usize>,
    bleu: f64,
    chrf: f64,
    bleu_signature: String,
    chrf_signature: String,
}

#[derive(Deserialize)]
struct Comparison {
    kind: String,
    a: Vec<String>,
    b: Vec<String>,
    references: Vec<Vec<String>>,
    seed: u64,
    resamples: NonZeroUsize,
    estimate: Estimate,
    difference: Difference,
    sacrebleu_p: Option<f64>,
}

#[derive(Deserialize)]
struct Holm {
    p: Vec<f64>,
    adjusted: Vec<f64>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("fixtures/metrics.json")).unwrap()
}

fn metric(value: Value) -> Metric {
    serde_json::from_value(value).unwrap()
}

/// The metric's value for one sample.
fn score(metric: &Metric, candidate: &str, references: &[String]) -> f64 {
    metric.value(&metric.statistics(candidate, references), 1)
}

#[track_caller]
fn assert_close(found: f64, expected: f64, what: &str) {
    assert!((found - expected).abs() <= TOLERANCE * expected.abs(), "{what}: {found}, expected {expected}");
}

/// Compares a metric with the original implementation on every pair.
fn assert_scores(metric: &Metric, expected: impl Fn(&Case) -> f64) {
    for (index, case) in golden().cases.iter().enumerate() {
        let found = score(metric, &case.candidate, &case.references);
        let what = || format!("{} of pair {index}: {:?} {:?}", metric.name(), case.candidate, case.references);
        assert_close(found, expected(case), &what());
    }
}

#[test]
fn rouge_is_that_of_rouge_score() {
    for kind in ["rouge-1", "rouge-2", "rouge-l", "rouge-lsum"] {
        assert_scores(&metric(json!({"kind": kind})), |case| case.rouge[kind]);
        assert_scores(&metric(json!({"kind": kind, "stemming": "porter"})), |case| case.stemmed[kind]);
    }
}

#[test]
fn stems_are_those_of_nltk() {
    for (word, expected) in golden().stems {
        assert_eq!(stem(&word), expected, "{word}");
    }
}

#[test]
fn squad_scores_are_those_of_transformers() {
    assert_scores(&metric(json!({"kind": "squad-exact"})), |case| case.squad[0]);
    assert_scores(&metric(json!({"kind": "squad-f1"})), |case| case.squad[1]);
}

#[test]
fn exact_match_is_that_of_the_harness() {
    for (index, mut options) in golden().exact_matches.into_iter().enumerate() {
        options["kind"] = "exact-match".into();
        assert_scores(&metric(options), |case| case.exact_match[index]);
    }
}

#[test]
fn numbers_are_those_of_decimal_arithmetic() {
    let golden = golden();
    for (index, tolerance) in golden.tolerances.into_iter().enumerate() {
        let mut value = json!({"kind": "numeric"});
        if let Some(tolerance) = tolerance {
            value["tolerance"] = tolerance;
        }
        let metric = metric(value);
        let mut correct = 0;
        for Number { candidate, references, are_numbers, scores } in &golden.numbers {
            let accepted: Vec<bool> = references.iter().map(|reference| metric.accepts(reference)).collect();
            assert_eq!(&accepted, are_numbers, "{references:?}");
            let found = score(&metric, candidate, references);
            assert_eq!(found, scores[index], "{candidate:?} {references:?} {:?}", metric.measure);
            correct += usize::from(found == 1.0);
        }
        assert!((50..550).contains(&correct), "{correct} of {}", golden.numbers.len());
    }
}

#[test]
fn extraction_is_that_of_the_harness() {
    let golden = golden();
    for ExtractCase { answers, extract } in &golden.extracts {
        let extract: Extract = serde_json::from_value(extract.clone()).unwrap();
        for (case, expected) in golden.cases.iter().zip(answers) {
            assert_eq!(extract.answer(&case.candidate), expected, "{extract:?} {:?}", case.candidate);
        }
    }
}

#[test]
fn gsm8k_is_that_of_the_harness() {
    let Gsm8k { options, filters } = golden().gsm8k;
    assert_eq!(filters.keys().collect::<Vec<_>>(), ["flexible-extract", "strict-match"]);
    for (name, filter) in filters {
        let mut options = options.clone();
        options["kind"] = "exact-match".into();
        options["extract"] = filter;
        assert_scores(&metric(options), |case| case.gsm8k[&name]);
    }
}

#[test]
fn corpus_metrics_are_those_of_sacrebleu() {
    let golden = golden();
    let (bleu, chrf) = (metric(json!({"kind": "bleu"})), metric(json!({"kind": "chrf"})));
    assert_scores(&bleu, |case| case.bleu);
    assert_scores(&chrf, |case| case.chrf);
    for case in &golden.cases {
        assert_eq!(bleu.statistics(&case.candidate, &case.references), case.bleu_statistics, "{:?}", case.candidate);
        assert_eq!(chrf.statistics(&case.candidate, &case.references), case.chrf_statistics, "{:?}", case.candidate);
    }
    for corpus in &golden.corpora {
        let cases = || corpus.pairs.iter().map(|&pair| &golden.cases[pair]);
        let rows = |metric: &Metric| -> Vec<Vec<f64>> {
            cases().map(|case| metric.statistics(&case.candidate, &case.references)).collect()
        };
        let options = CompareOptions { seed: 0, resamples: NonZeroUsize::MIN };
        for (metric, expected, signature) in
            [(&bleu, corpus.bleu, &corpus.bleu_signature), (&chrf, corpus.chrf, &corpus.chrf_signature)]
        {
            let what = format!("{} of {} pairs", metric.name(), corpus.pairs.len());
            assert_close(estimate(metric, &rows(metric), options).value, expected, &what);
            assert_eq!(metric.signature(corpus.references), *signature);
        }
    }
}

#[test]
fn comparisons_are_those_of_scipy_and_sacrebleu() {
    for case in golden().comparisons {
        let metric = metric(json!({"kind": case.kind}));
        let rows = |candidates: &[String]| -> Vec<Vec<f64>> {
            candidates.iter().zip(&case.references).map(|(text, refs)| metric.statistics(text, refs)).collect()
        };
        let (a, b) = (rows(&case.a), rows(&case.b));
        let options = CompareOptions { seed: case.seed, resamples: case.resamples };
        let what = |name| format!("{name} of {} on {} samples", case.kind, a.len());

        let (found, expected) = (estimate(&metric, &b, options), case.estimate);
        assert_close(found.value, expected.value, &what("value"));
        assert_close(found.low, expected.low, &what("low"));
        assert_close(found.high, expected.high, &what("high"));
        assert_eq!(found.samples, expected.samples);

        let (found, expected) = (compare(&metric, &a, &b, options), case.difference);
        // The tolerance of a difference is relative to the scale of the values that are subtracted.
        let size = TOLERANCE * highest(&metric);
        for (name, found, expected) in [
            ("difference", found.difference, expected.difference),
            ("low", found.low, expected.low),
            ("high", found.high, expected.high),
        ] {
            assert!((found - expected).abs() <= size, "{}: {found}, expected {expected}", what(name));
        }
        assert_close(found.p, expected.p, &what("p"));
        if let Some(p) = case.sacrebleu_p {
            // Other random numbers: both are shares of many draws, and differ by at most four standard errors.
            let share = p.clamp(1e-3, 1.0 - 1e-3);
            let error = (share * (1.0 - share) / case.resamples.get() as f64).sqrt();
            assert!((found.p - p).abs() <= 4.0 * error, "{}: {}, expected about {p}", what("p"), found.p);
        }
    }
}

#[test]
fn adjusted_p_values_are_those_of_statsmodels() {
    for Holm { p, adjusted } in golden().holm {
        for (found, expected) in holm(&p).into_iter().zip(adjusted) {
            assert_close(found, expected, "adjusted p-value");
        }
    }
}

/// One metric of every kind, and two with an extraction.
fn every_metric() -> Vec<Metric> {
    let plain =
        ["exact-match", "squad-exact", "squad-f1", "rouge-1", "rouge-2", "rouge-l", "rouge-lsum", "bleu", "chrf"];
    let mut metrics: Vec<Metric> = plain.iter().map(|kind| metric(json!({"kind": kind}))).collect();
    metrics.push(metric(json!({"kind": "numeric"})));
    metrics.push(metric(json!({"kind": "rouge-lsum", "stemming": "porter"})));
    metrics.push(metric(json!({"kind": "exact-match", "ignore": [r"\W", "x*"], "ignore_punctuation": true})));
    metrics.push(metric(json!({"kind": "chrf", "extract": {"pattern": r"(\w*)\s|(.)", "take": "last"}})));
    metrics
}

/// Arbitrary characters, and texts that are likely to have words in common.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "(The|a|cat|sat|[0-9]{1,2}|[.,&\n\u{301}\u{1c} -]){0,12}", "([ab.]{1,3}[ \n]){0,30}"]
}

proptest! {
    #[test]
    fn values_are_within_the_scale(candidate in text(), references in prop::collection::vec(text(), 0..4)) {
        for metric in every_metric() {
            let statistics = metric.statistics(&candidate, &references);
            prop_assert_eq!(statistics.len(), metric.width());
            let value = metric.value(&statistics, 1);
            // The mean of four logarithms of 100 is that of 100 except for its last digits.
            prop_assert!((0.0..=highest(&metric) * (1.0 + 1e-14)).contains(&value), "{}: {value}", metric.name());
        }
    }

    #[test]
    fn a_text_compared_with_itself_has_the_highest_value(text in text()) {
        for metric in every_metric().into_iter().filter(|metric| metric.extract.is_none()) {
            let value = score(&metric, &text, from_ref(&text));
            // A text may have no words, or too few for n-grams; as an answer it is correct nevertheless.
            let is_answer = matches!(metric.measure, Measure::ExactMatch(_) | Measure::SquadExact | Measure::SquadF1);
            prop_assert!(
                (value - highest(&metric)).abs() < 1e-12 || value == 0.0 && !is_answer,
                "{}: {value}",
                metric.name()
            );
        }
    }

    #[test]
    fn another_reference_does_not_lower_the_best_score(candidate in text(), one in text(), other in text()) {
        for kind in ["exact-match", "numeric", "rouge-1", "rouge-2", "rouge-l", "rouge-lsum", "chrf"] {
            let metric = metric(json!({"kind": kind}));
            let both = score(&metric, &candidate, &[one.clone(), other.clone()]);
            prop_assert!(both >= score(&metric, &candidate, from_ref(&one)), "{kind}");
        }
    }

    #[test]
    fn f_measures_are_symmetric(a in text(), b in text()) {
        for kind in ["exact-match", "squad-exact", "squad-f1", "rouge-1", "rouge-2", "rouge-l"] {
            let metric = metric(json!({"kind": kind}));
            let (found, swapped) = (score(&metric, &a, from_ref(&b)), score(&metric, &b, from_ref(&a)));
            prop_assert!((found - swapped).abs() < 1e-15, "{kind}: {found} {swapped}");
        }
    }

    #[test]
    fn the_order_of_references_does_not_matter(
        candidate in text(),
        mut references in prop::collection::vec(text(), 1..4),
    ) {
        for metric in every_metric() {
            let found = score(&metric, &candidate, &references);
            references.reverse();
            prop_assert_eq!(found, score(&metric, &candidate, &references), "{}", metric.name());
        }
    }

    #[test]
    fn any_word_has_a_stem(word in ".{0,12}(ies|ied|eed|ed|ing|y|alli|logi|ational|ll|e|ss|s)?") {
        prop_assert!(stem(&word).len() <= word.len() + 1);
    }
}

/// The highest value of a metric: that of a candidate equal to its reference, if it has anything to count.
fn highest(metric: &Metric) -> f64 {
    if metric.is_mean() { 1.0 } else { 100.0 }
}
