//! The samples of the HTML page, token by token, as JSON for the page's script.
//!
//! Some hundreds of samples have hundreds of thousands of numbers. NLLs are whole thousandths of a nat, and the
//! script builds the table when the reader scrolls near it. The texts are untrusted: the JSON holds no `<`, which
//! could end its element, and no character that could reorder text.

use std::fmt::Write as _;

use plimsoll_stats::choose::Part;
use serde::Serialize;

use super::evidence;
use super::words::is_unprintable;
use crate::result::{SampleTokens, SearchResult};

/// Characters of a prompt that are shown, from its end.
const PROMPT: usize = 600;
/// Tokens of a prompt that are shown one by one, from its end.
const PROMPT_TOKENS: usize = 24;
/// Larger NLLs are not plausible for a model, and are left out.
const MOST_MILLINATS: f64 = 1e9;

#[derive(Serialize)]
struct Data<'a> {
    /// The candidate's name; null if the candidate is base or full.
    candidate: Option<String>,
    samples: Vec<Sample<'a>>,
}

/// One sample. Field names have one letter, because they are repeated for every sample.
#[derive(Serialize)]
struct Sample<'a> {
    /// Line in the file.
    l: usize,
    /// 1 if it was held out.
    h: u8,
    /// The end of the prompt.
    q: String,
    /// Its tokens as text, from the end of the prompt on.
    t: Vec<&'a str>,
    /// Their ids; empty if unknown.
    i: Vec<u32>,
    /// Indices in `t` of the scored tokens.
    x: Vec<usize>,
    /// NLL of each scored token with the base model.
    b: Vec<Option<i64>>,
    /// With the full adapter.
    f: Vec<Option<i64>>,
    /// With the candidate.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    c: Vec<Option<i64>>,
}

/// The samples as a line of JSON that is safe inside a page; `None` without samples.
pub(super) fn data(result: &SearchResult, samples: &[SampleTokens]) -> Option<String> {
    if samples.is_empty() {
        return None;
    }
    let has_candidate = samples.iter().any(|sample| !sample.candidate.is_empty());
    let data = Data {
        candidate: has_candidate.then(|| evidence::candidate(result)),
        samples: samples.iter().map(Sample::of).collect(),
    };
    // Cannot fail: strings and integers only.
    let text = serde_json::to_string(&data).unwrap_or_default();
    (!text.is_empty()).then(|| safe_json(&text))
}

impl<'a> Sample<'a> {
    fn of(sample: &'a SampleTokens) -> Self {
        let length = sample.prompt.chars().count();
        let first = sample.sequence.iter().position(|token| token.scored).unwrap_or(0);
        let shown = &sample.sequence[first.saturating_sub(PROMPT_TOKENS)..];
        // Earlier versions wrote only the scored tokens, without ids.
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

/// Whole thousandths; `None` for a value that is not finite.
fn millinats(values: &[f32]) -> Vec<Option<i64>> {
    let rounded = values.iter().map(|value| (f64::from(*value) * 1000.0).round());
    rounded.map(|value| (value.abs() <= MOST_MILLINATS).then_some(value as i64)).collect()
}

/// JSON with escapes for characters that could end an element or reorder text.
fn safe_json(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if c == '<' || is_unprintable(c) {
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
    fn data_cannot_end_its_element_and_is_read_back() {
        let text = "</script><!--\u{202e}\u{85}é\"\n";
        let json = serde_json::to_string(text).unwrap();
        let safe = safe_json(&json);
        assert!(!safe.contains(['<', '\u{202e}', '\u{85}']), "{safe}");
        assert_eq!(serde_json::from_str::<String>(&safe).unwrap(), text);
    }

    #[test]
    fn nlls_are_whole_thousandths() {
        assert_eq!(millinats(&[0.0, 1.2345, f32::NAN, f32::INFINITY]), [Some(0), Some(1235), None, None]);
    }

    #[test]
    fn the_end_of_a_long_prompt_is_shown() {
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
