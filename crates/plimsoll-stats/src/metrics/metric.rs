//! A metric as in a task file: what is measured, its name, its statistics and its value.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::answers::{ExactMatch, Squad};
use super::numeric::Tolerance;
use super::pattern::{Extract, Pattern};
use super::rouge::{RougeKind, Stemming};
use super::{bleu, chrf, numeric, rouge};

/// A metric, and the part of a candidate that it is applied to.
///
/// In a task file it is a table with a `kind`; the other keys are those of the kind, and `extract`:
///
/// ```toml
/// kind = "exact-match"
/// ignore = [',', '\$', '(?s).*#### ', '\.$']
/// ignore_case = true
/// extract = { pattern = '(-?[$0-9.,]{2,})|(-?[0-9]+)', take = "last" }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "RawMetric", into = "RawMetric")]
pub struct Metric {
    /// What is measured.
    pub measure: Measure,
    /// The part of the candidate that is its answer; `None`: all of it. References are not extracted from, except those
    /// of `numeric` that are not numbers.
    pub extract: Option<Extract>,
}

/// The kind of a metric, with its options.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Measure {
    /// Whether candidate and reference are the same, except for what is ignored.
    ExactMatch(ExactMatch),
    /// Whether both are the same number, within a tolerance.
    Numeric(Tolerance),
    /// Whether they are the same except for case, punctuation, articles and spaces.
    SquadExact,
    /// F1 of the shared words, without case, punctuation and articles.
    SquadF1,
    /// F measure of shared words, pairs of words or subsequences.
    Rouge {
        /// What is counted.
        kind: RougeKind,
        /// Whether words or their stems are compared.
        stemming: Stemming,
    },
    /// BLEU: shared n-grams of words.
    Bleu,
    /// chrF: shared n-grams of characters.
    Chrf,
    /// The model's perplexity on a reference: not a metric of a text. Its statistics are the reference's negative
    /// log-likelihood, in nats, and the number of its tokens.
    Perplexity,
}

impl Metric {
    /// The number of statistics of a sample.
    pub fn width(&self) -> usize {
        match self.measure {
            Measure::Bleu => bleu::WIDTH,
            Measure::Chrf => chrf::WIDTH,
            Measure::Perplexity => 2,
            _ => 1,
        }
    }

    /// Whether the metric is computed from a generated text.
    pub fn is_of_text(&self) -> bool {
        self.measure != Measure::Perplexity
    }

    /// Whether smaller values are better.
    pub fn lower_is_better(&self) -> bool {
        self.measure == Measure::Perplexity
    }

    /// Whether an answer can be compared with this reference. A reference of a numeric metric must be a number, or
    /// contain one that can be extracted.
    pub fn accepts(&self, reference: &str) -> bool {
        !matches!(self.measure, Measure::Numeric(_)) || numeric::reference(reference, self.extract.as_ref()).is_some()
    }

    /// The statistics of one sample. [`value`](Self::value) takes their sums over samples.
    ///
    /// # Panics
    /// If the metric is not computed from a text.
    pub fn statistics(&self, candidate: &str, references: &[String]) -> Vec<f64> {
        let candidate = self.extract.as_ref().map_or(candidate, |extract| extract.answer(candidate));
        let best =
            |score: &dyn Fn(&str) -> f64| vec![references.iter().map(|reference| score(reference)).fold(0.0, f64::max)];
        match &self.measure {
            Measure::ExactMatch(options) => best(&|reference| options.score(candidate, reference)),
            Measure::Numeric(tolerance) => {
                best(&|reference| tolerance.score(candidate, reference, self.extract.as_ref()))
            }
            Measure::SquadExact => vec![Squad::Exact.score(candidate, references)],
            Measure::SquadF1 => vec![Squad::F1.score(candidate, references)],
            Measure::Rouge { kind, stemming } => {
                best(&|reference| rouge::f_measure(*kind, *stemming, candidate, reference))
            }
            Measure::Bleu => bleu::statistics(candidate, references),
            Measure::Chrf => chrf::statistics(candidate, references),
            Measure::Perplexity => panic!("perplexity is not computed from a text"),
        }
    }

    /// The metric's value, from the sums of the statistics and the number of samples; 0 without samples.
    ///
    /// # Panics
    /// If the number of sums is not [`width`](Self::width).
    pub fn value(&self, sums: &[f64], samples: usize) -> f64 {
        assert_eq!(sums.len(), self.width(), "statistics of another metric");
        match self.measure {
            Measure::Bleu => bleu::value(sums),
            Measure::Chrf => chrf::value(sums),
            Measure::Perplexity if sums[1] == 0.0 => 0.0,
            Measure::Perplexity => (sums[0] / sums[1]).exp(),
            _ if samples == 0 => 0.0,
            _ => sums[0] / samples as f64,
        }
    }

    /// Whether the value is the mean of the samples' own values.
    pub fn is_mean(&self) -> bool {
        !matches!(self.measure, Measure::Bleu | Measure::Chrf | Measure::Perplexity)
    }

    /// Whether each sample's value is 0 or 1, so that the metric's value is a rate.
    pub fn is_rate(&self) -> bool {
        match self.measure {
            Measure::ExactMatch(_) | Measure::Numeric(_) | Measure::SquadExact => true,
            Measure::SquadF1 | Measure::Rouge { .. } | Measure::Bleu | Measure::Chrf | Measure::Perplexity => false,
        }
    }

    /// The metric's name in tables, with options that change its meaning: `rougeL (stemmed)`.
    pub fn name(&self) -> Cow<'static, str> {
        let name = match &self.measure {
            Measure::ExactMatch(_) => "exact match",
            Measure::Numeric(_) => "numeric",
            Measure::SquadExact => "SQuAD exact",
            Measure::SquadF1 => "SQuAD F1",
            Measure::Rouge { kind, stemming } => {
                let name = match kind {
                    RougeKind::One => "rouge1",
                    RougeKind::Two => "rouge2",
                    RougeKind::L => "rougeL",
                    RougeKind::Lsum => "rougeLsum",
                };
                return match stemming {
                    Stemming::None => name.into(),
                    Stemming::Porter => format!("{name} (stemmed)").into(),
                };
            }
            Measure::Bleu => "BLEU",
            Measure::Chrf => "chrF2",
            Measure::Perplexity => "perplexity",
        };
        name.into()
    }

    /// The signature: the program whose value this equals, and its options; for BLEU and chrF sacreBLEU's signature.
    ///
    /// `references` is the number of references of each sample, `None` if it differs between samples. The signature
    /// does not contain the extraction, which is not part of the original metrics.
    pub fn signature(&self, references: Option<usize>) -> String {
        let nrefs = references.map_or("var".to_owned(), |count| count.to_string());
        let on_or_off = |is_on| if is_on { "yes" } else { "no" };
        match &self.measure {
            Measure::ExactMatch(ExactMatch { ignore, ignore_case, ignore_punctuation }) => format!(
                "nrefs:{nrefs}|ignore_case:{}|ignore_punctuation:{}|ignored_patterns:{}|lm_eval:0.4.13",
                on_or_off(*ignore_case),
                on_or_off(*ignore_punctuation),
                ignore.len()
            ),
            Measure::Numeric(Tolerance { relative, absolute }) => {
                format!("nrefs:{nrefs}|relative:{relative:?}|absolute:{absolute:?}")
            }
            Measure::SquadExact | Measure::SquadF1 => format!("nrefs:{nrefs}|transformers:4"),
            Measure::Rouge { stemming, .. } => {
                format!("nrefs:{nrefs}|stemmer:{}|rouge_score:0.1.2", on_or_off(*stemming == Stemming::Porter))
            }
            Measure::Bleu => format!("nrefs:{nrefs}|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"),
            Measure::Perplexity => "nrefs:1|tokens:the model's own".to_owned(),
            Measure::Chrf => format!("nrefs:{nrefs}|case:mixed|eff:yes|nc:6|nw:0|space:no|version:2.6.0"),
        }
    }
}

/// A metric as written in a task file. Each kind has its own keys, so that a key of another kind is an error.
#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum RawMetric {
    ExactMatch(RawExactMatch),
    Numeric(RawNumeric),
    SquadExact(RawPlain),
    SquadF1(RawPlain),
    #[serde(rename = "rouge-1")]
    Rouge1(RawRouge),
    #[serde(rename = "rouge-2")]
    Rouge2(RawRouge),
    RougeL(RawRouge),
    RougeLsum(RawRouge),
    Bleu(RawPlain),
    Chrf(RawPlain),
    Perplexity(RawPerplexity),
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPerplexity {}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPlain {
    #[serde(skip_serializing_if = "Option::is_none")]
    extract: Option<Extract>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRouge {
    #[serde(default)]
    stemming: Stemming,
    #[serde(skip_serializing_if = "Option::is_none")]
    extract: Option<Extract>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawExactMatch {
    #[serde(default)]
    ignore: Vec<Pattern>,
    #[serde(default)]
    ignore_case: bool,
    #[serde(default)]
    ignore_punctuation: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    extract: Option<Extract>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNumeric {
    #[serde(default)]
    tolerance: Tolerance,
    #[serde(skip_serializing_if = "Option::is_none")]
    extract: Option<Extract>,
}

impl From<RawMetric> for Metric {
    fn from(raw: RawMetric) -> Self {
        let plain = |measure, RawPlain { extract }| Self { measure, extract };
        let rouge = |kind, RawRouge { stemming, extract }| Self { measure: Measure::Rouge { kind, stemming }, extract };
        match raw {
            RawMetric::ExactMatch(RawExactMatch { ignore, ignore_case, ignore_punctuation, extract }) => {
                Self { measure: Measure::ExactMatch(ExactMatch { ignore, ignore_case, ignore_punctuation }), extract }
            }
            RawMetric::Numeric(RawNumeric { tolerance, extract }) => {
                Self { measure: Measure::Numeric(tolerance), extract }
            }
            RawMetric::SquadExact(raw) => plain(Measure::SquadExact, raw),
            RawMetric::SquadF1(raw) => plain(Measure::SquadF1, raw),
            RawMetric::Rouge1(raw) => rouge(RougeKind::One, raw),
            RawMetric::Rouge2(raw) => rouge(RougeKind::Two, raw),
            RawMetric::RougeL(raw) => rouge(RougeKind::L, raw),
            RawMetric::RougeLsum(raw) => rouge(RougeKind::Lsum, raw),
            RawMetric::Bleu(raw) => plain(Measure::Bleu, raw),
            RawMetric::Chrf(raw) => plain(Measure::Chrf, raw),
            RawMetric::Perplexity(RawPerplexity {}) => Self { measure: Measure::Perplexity, extract: None },
        }
    }
}

impl From<Metric> for RawMetric {
    fn from(Metric { measure, extract }: Metric) -> Self {
        match measure {
            Measure::ExactMatch(ExactMatch { ignore, ignore_case, ignore_punctuation }) => {
                Self::ExactMatch(RawExactMatch { ignore, ignore_case, ignore_punctuation, extract })
            }
            Measure::Numeric(tolerance) => Self::Numeric(RawNumeric { tolerance, extract }),
            Measure::SquadExact => Self::SquadExact(RawPlain { extract }),
            Measure::SquadF1 => Self::SquadF1(RawPlain { extract }),
            Measure::Rouge { kind, stemming } => {
                let raw = RawRouge { stemming, extract };
                match kind {
                    RougeKind::One => Self::Rouge1(raw),
                    RougeKind::Two => Self::Rouge2(raw),
                    RougeKind::L => Self::RougeL(raw),
                    RougeKind::Lsum => Self::RougeLsum(raw),
                }
            }
            Measure::Bleu => Self::Bleu(RawPlain { extract }),
            Measure::Chrf => Self::Chrf(RawPlain { extract }),
            Measure::Perplexity => Self::Perplexity(RawPerplexity {}),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Take;
    use super::*;

    #[test]
    fn a_metric_reads_what_it_writes_and_refuses_keys_of_other_kinds() {
        let metrics = [
            json!({"kind": "exact-match", "ignore": [",", r"\$"], "ignore_case": true, "ignore_punctuation": false}),
            json!({"kind": "numeric", "tolerance": {"relative": 0.01, "absolute": 0.5}}),
            json!({"kind": "squad-exact"}),
            json!({"kind": "squad-f1", "extract": {"pattern": "([a-z]+)", "take": "last", "fallback": "?"}}),
            json!({"kind": "rouge-1", "stemming": "none"}),
            json!({"kind": "rouge-2", "stemming": "porter"}),
            json!({"kind": "rouge-l", "stemming": "porter"}),
            json!({"kind": "rouge-lsum", "stemming": "none"}),
            json!({"kind": "bleu"}),
            json!({"kind": "chrf"}),
        ];
        for mut value in metrics {
            let metric: Metric = serde_json::from_value(value.clone()).unwrap();
            assert_eq!(serde_json::to_value(metric).unwrap(), value);
            value["tokenizer"] = "13a".into();
            assert!(serde_json::from_value::<Metric>(value.clone()).is_err(), "{value}");
        }
        let refused = [
            json!({"kind": "rouge-3"}),
            json!({"kind": "bleu", "stemming": "porter"}),
            json!({"kind": "bleu", "extract": {"pattern": "("}}),
            json!({"kind": "bleu", "extract": {"pattern": "a", "group": 1}}),
            json!({"kind": "exact-match", "ignore": [r"(?<!a)b"]}),
            json!({"kind": "numeric", "tolerance": 0.01}),
            json!({"kind": "numeric", "tolerance": {}}),
            json!({"kind": "numeric", "tolerance": {"relative": -1}}),
            json!({"kind": "numeric", "tolerance": {"absolute": 1, "other": 1}}),
        ];
        for value in refused {
            assert!(serde_json::from_value::<Metric>(value.clone()).is_err(), "{value}");
        }
    }

    #[test]
    fn defaults_are_those_of_the_original_metrics() {
        let metric = |value| serde_json::from_value::<Metric>(value).unwrap();
        assert_eq!(metric(json!({"kind": "exact-match"})).measure, Measure::ExactMatch(ExactMatch::default()));
        assert_eq!(metric(json!({"kind": "rouge-lsum"})).name(), "rougeLsum");
        let extract = metric(json!({"kind": "chrf", "extract": {"pattern": "a"}})).extract.unwrap();
        assert_eq!((extract.take, extract.fallback.as_str()), (Take::First, "[invalid]"));
    }
}
