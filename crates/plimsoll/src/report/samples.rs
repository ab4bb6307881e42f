//! The samples, token by token, as the page's script reads them.
//!
//! A search of some hundreds of samples has hundreds of thousands of numbers. They go into the page as one line of JSON,
//! NLLs in whole thousandths of a nat, and the script makes a table of them when a reader gets there. What strangers wrote
//! stands in it as data: no `<` that could end it, and no character that could reorder the page's text.

use std::fmt::Write as _;

use plimsoll_stats::choose::Part;
use serde::Serialize;

use super::evidence;
use super::words::is_unruly;
use crate::result::{SampleTokens, SearchResult};

/// Of a prompt so many characters are shown, the last ones.
const PROMPT: usize = 600;
/// Of a prompt's tokens so many are shown one by one, the last ones.
const PROMPT_TOKENS: usize = 24;
/// Beyond this an NLL is not a number that a model gives; the script shows none.
const MOST_MILLINATS: f64 = 1e9;

#[derive(Serialize)]
struct Data<'a> {
    /// What the candidate is called; null where there is none beside base and full.
    candidate: Option<String>,
    samples: Vec<Sample<'a>>,
}

/// One sample. Names are of one letter: they stand in the page once for each.
#[derive(Serialize)]
struct Sample<'a> {
    /// Line in the file.
    l: usize,
    /// Whether it was held out.
    h: u8,
    /// The end of the prompt.
    q: String,
    /// Its tokens as text, from the end of the prompt on.
    t: Vec<&'a str>,
    /// Their ids; none where they are not known.
    i: Vec<u32>,
    /// Which of them are scored: their places in `t`.
    x: Vec<usize>,
    /// NLL of each that is scored with the base model.
    b: Vec<Option<i64>>,
    /// With the full adapter.
    f: Vec<Option<i64>>,
    /// With the candidate.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    c: Vec<Option<i64>>,
}

/// The samples as a line of JSON that can stand in a page; none where there are none.
pub(super) fn data(result: &SearchResult, samples: &[SampleTokens]) -> Option<String> {
    if samples.is_empty() {
        return None;
    }
    let has_candidate = samples.iter().any(|sample| !sample.candidate.is_empty());
    let data = Data {
        candidate: has_candidate.then(|| evidence::candidate(result)),
        samples: samples.iter().map(Sample::of).collect(),
    };
    // Strings and whole numbers only: it cannot fail, and a page without the samples would still be one.
    let text = serde_json::to_string(&data).unwrap_or_default();
    (!text.is_empty()).then(|| harmless(&text))
}

impl<'a> Sample<'a> {
    fn of(sample: &'a SampleTokens) -> Self {
        let length = sample.prompt.chars().count();
        let first = sample.sequence.iter().position(|token| token.scored).unwrap_or(0);
        let shown = &sample.sequence[first.saturating_sub(PROMPT_TOKENS)..];
        // An earlier version knew the scored tokens alone, and not their ids.
        let is_old = sample.sequence.is_empty();
        let texts = shown.iter().map(|token| &token.text).chain(is_old.then_some(&sample.tokens).into_iter().flatten());
        let end: String = sample.prompt.chars().skip(length.saturating_sub(PROMPT)).collect();
        Self {
            l: sample.line,
            h: u8::from(sample.part == Part::Holdout),
            q: if length > PROMPT { format!("…{end}") } else { end },
            t: texts.map(String::as_str).collect(),
            i: shown.iter().map(|token| token.id).collect(),
            x: if is_old {
                (0..sample.tokens.len()).collect()
            } else {
                (0..shown.len()).filter(|&at| shown[at].scored).collect()
            },
            b: millinats(&sample.base),
            f: millinats(&sample.full),
            c: millinats(&sample.candidate),
        }
    }
}

/// Whole thousandths; none for what is not a number.
fn millinats(values: &[f32]) -> Vec<Option<i64>> {
    let rounded = values.iter().map(|value| (f64::from(*value) * 1000.0).round());
    rounded.map(|value| (value.abs() <= MOST_MILLINATS).then_some(value as i64)).collect()
}

/// JSON without what could end an element or reorder text: such characters as JSON's escapes.
fn harmless(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if c == '<' || is_unruly(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                // Writing to a string cannot fail.
                let _ = write!(text, "\\u{unit:04x}");
            }
        } else {
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_ends_no_element_and_is_read_back() {
        let text = "</script><!--\u{202e}\u{85}é\"\n";
        let json = serde_json::to_string(text).unwrap();
        let harmless = harmless(&json);
        assert!(!harmless.contains(['<', '\u{202e}', '\u{85}']), "{harmless}");
        assert_eq!(serde_json::from_str::<String>(&harmless).unwrap(), text);
    }

    #[test]
    fn likelihoods_are_whole_thousandths() {
        assert_eq!(millinats(&[0.0, 1.2345, f32::NAN, f32::INFINITY]), [Some(0), Some(1235), None, None]);
    }

    #[test]
    fn of_a_long_prompt_the_end_is_shown() {
        let prompt = format!("{}é", "a".repeat(2 * PROMPT));
        let sample = SampleTokens {
            line: 1,
            part: Part::Holdout,
            prompt,
            sequence: vec![],
            tokens: vec![],
            base: vec![],
            full: vec![],
            candidate: vec![],
        };
        let sample = Sample::of(&sample);
        assert_eq!((sample.q.chars().count(), sample.h), (PROMPT + 1, 1));
        assert!(sample.q.starts_with('…') && sample.q.ends_with('é'));
    }
}
