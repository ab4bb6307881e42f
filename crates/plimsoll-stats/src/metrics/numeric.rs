//! Numeric match: 1 if an answer is the same number as the reference in any notation, else 0. A rate over samples.
//!
//! *What is a number.* Digits, with these parts:
//!
//! | part | forms | the same as |
//! |---|---|---|
//! | sign | `-5`, `−5` (U+2212), `+5`, before or after a currency sign | |
//! | decimal point | `18.0`, `18.`, `.5` | `18`, `18`, `0.5` |
//! | separators of thousands | `1,000`, `1_000`, `1 000` (also U+00A0, U+2009, U+202F), one kind in a number | `1000` |
//! | exponent | `1e3`, `1E+3` | `1000` |
//! | unit | `$`, `€`, `£`, `¥` or `₹` before the number; one of these or `%` after it | the number without it |
//! | end of a sentence | one `.` or `,` | the number without it |
//!
//! A percent sign is a unit: `25%` equals `25`, not `0.25`. Groups of thousands have three digits, so `1,5` is not a
//! number. Fractions, words, digits of other scripts and values beyond the range of `f64` are not numbers either.
//!
//! *When two numbers are equal.* `|answer - reference| ≤ max(relative · |reference|, absolute)`, as in NumPy's
//! `isclose`, but with the larger of the two tolerances in place of their sum. A difference that equals the tolerance
//! in decimal notation is within it: four roundings of `f64` are allowed for, so that about 15 digits are compared even
//! if the tolerance is 0.

use serde::{Deserialize, Serialize};

use super::pattern::Extract;
use super::text::strip;

/// The allowed difference between an answer and a reference.
///
/// By default 1e-9 of the reference, as in Python's `math.isclose`: more than the rounding of a sum that a program
/// printed, and less than the difference of two integers below a billion.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawTolerance")]
pub struct Tolerance {
    /// As a share of the reference's absolute value.
    pub relative: f64,
    /// As an absolute difference.
    pub absolute: f64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { relative: 1e-9, absolute: 0.0 }
    }
}

impl Tolerance {
    /// 1 if the candidate is a number that equals the [`reference`] within the tolerance, else 0.
    pub(super) fn score(&self, candidate: &str, text: &str, extract: Option<&Extract>) -> f64 {
        let numbers = number(candidate).zip(reference(text, extract));
        let is_near = numbers.is_some_and(|(one, other)| self.holds(one, other));
        f64::from(u8::from(is_near))
    }

    fn holds(&self, candidate: f64, reference: f64) -> bool {
        let allowed = (self.relative * reference.abs()).max(self.absolute);
        let rounding = 4.0 * f64::EPSILON * candidate.abs().max(reference.abs());
        (candidate - reference).abs() <= allowed + rounding
    }
}

/// A tolerance as written in a task file: a key that is not given is 0.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table with `relative` or `absolute`, such as { absolute = 0.5 }")]
struct RawTolerance {
    relative: Option<f64>,
    absolute: Option<f64>,
}

impl TryFrom<RawTolerance> for Tolerance {
    type Error = String;

    fn try_from(RawTolerance { relative, absolute }: RawTolerance) -> Result<Self, String> {
        if relative.is_none() && absolute.is_none() {
            return Err("`tolerance`: expected `relative` or `absolute`, found neither".to_owned());
        }
        let given = |tolerance: Option<f64>| match tolerance.unwrap_or(0.0) {
            value if value.is_finite() && value >= 0.0 => Ok(value),
            value => Err(format!("`tolerance`: expected finite numbers of at least 0, found {value}")),
        };
        Ok(Self { relative: given(relative)?, absolute: given(absolute)? })
    }
}

/// The number of a reference: the whole text, or else what the metric extracts from it.
pub(super) fn reference(text: &str, extract: Option<&Extract>) -> Option<f64> {
    let extracted = || {
        // The fallback stands for a missing answer: it is not a reference.
        let extract = Extract { fallback: String::new(), ..extract?.clone() };
        number(extract.answer(text))
    };
    number(text).or_else(extracted)
}

/// Parses a text as a number; `None` if it is not one.
pub(super) fn number(text: &str) -> Option<f64> {
    let text = strip(text);
    let text = text.strip_suffix(['.', ',']).unwrap_or(text);
    let text = strip(text.strip_suffix(is_unit).unwrap_or(text));
    let (sign, text) = signed(text);
    let unsigned = text.strip_prefix(is_currency).map(str::trim_start);
    let (sign, text) = match (sign, unsigned) {
        ("", Some(text)) => signed(text),
        (sign, unsigned) => (sign, unsigned.unwrap_or(text)),
    };
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let whole = ungrouped(whole)?;
    let is_number = !(whole.is_empty() && fraction.is_empty())
        && is_digits(&whole)
        && is_digits(fraction)
        && !signed(exponent).1.is_empty()
        && is_digits(signed(exponent).1);
    if !is_number {
        return None;
    }
    let (exponent_sign, exponent) = signed(exponent);
    let value: f64 = format!("{sign}{whole}.{fraction}e{exponent_sign}{exponent}").parse().ok()?;
    value.is_finite().then_some(value)
}

/// The sign as Rust parses it, and the text after it.
fn signed(text: &str) -> (&'static str, &str) {
    match text.strip_prefix(['-', '\u{2212}']) {
        Some(text) => ("-", text),
        None => text.strip_prefix('+').map_or(("", text), |text| ("+", text)),
    }
}

/// Digits without their separators; `None` if these are of several kinds or elsewhere than between thousands.
fn ungrouped(text: &str) -> Option<String> {
    let Some(separator) = text.chars().find(|&c| is_separator(c)) else { return Some(text.to_owned()) };
    let mut groups = text.split(separator);
    let first = groups.next().is_some_and(|group| (1..=3).contains(&group.len()));
    (first && groups.all(|group| group.len() == 3)).then(|| text.replace(separator, ""))
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_separator(c: char) -> bool {
    matches!(c, ',' | '_' | ' ' | '\u{a0}' | '\u{2009}' | '\u{202f}')
}

fn is_currency(c: char) -> bool {
    matches!(c, '$' | '€' | '£' | '¥' | '₹')
}

fn is_unit(c: char) -> bool {
    c == '%' || is_currency(c)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_read_in_all_their_forms() {
        for (value, texts) in [
            (18.0, &["18", "18.0", "18.", "$18", "18 €", "+18", " 18%\n", "18.00%.", "1.8e1", "018", "18,"][..]),
            (1000.0, &["1,000", "1 000", "1\u{a0}000", "1_000", "1e3", "1E+3", "$1,000.00.", "¥ 1000"]),
            (-5.0, &["-5", "\u{2212}5", "-$5", "$-5", "-5.0", "-50e-1"]),
            (0.5, &[".5", "0.5", "+.5", "5e-1"]),
            (1_234_567.5, &["1,234,567.5", "1234567.50"]),
        ] {
            for text in texts {
                assert_eq!(number(text), Some(value), "{text:?}");
            }
        }
    }

    #[test]
    fn text_that_is_not_a_number_is_refused() {
        for text in [
            "",
            " ",
            ".",
            "-",
            "$",
            "%",
            "e3",
            "1e",
            "1e+",
            "1,5",
            "1,00",
            "1,0000",
            ",100",
            "1,000_000",
            "1,000,",
            "--5",
            "-$-5",
            "$$5",
            "5%%",
            "1/2",
            "18 apples",
            "eighteen",
            "1.2.3",
            "1.2,345",
            "1e1.5",
            "1e999",
            "inf",
            "nan",
            "0x1f",
            "１８",
            "5-",
            "[invalid]",
            "1,,000",
            "5 -",
            "1 e3",
        ] {
            // One comma at the end is punctuation.
            let expected = (text == "1,000,").then_some(1000.0);
            assert_eq!(number(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_difference_of_the_tolerance_is_within_it() {
        let score = |tolerance: &Tolerance, one: &str, other: &str| tolerance.score(one, other, None);
        let absolute = Tolerance { relative: 0.0, absolute: 0.1 };
        assert_eq!([score(&absolute, "1.1", "1"), score(&absolute, "1.1000001", "1")], [1.0, 0.0]);
        let relative = Tolerance { relative: 0.01, absolute: 0.0 };
        assert_eq!([score(&relative, "-99", "-100"), score(&relative, "-98.99", "-100")], [1.0, 0.0]);
        assert_eq!([score(&relative, "0", "0.0"), score(&relative, "1e-300", "0")], [1.0, 0.0]);
        let exact = Tolerance::default();
        assert_eq!(score(&exact, "18.000000000000004", "18"), 1.0);
        assert_eq!(score(&exact, "12345679", "12345678"), 0.0);
        // About 15 digits are compared.
        let none = Tolerance { relative: 0.0, absolute: 0.0 };
        let close = [("3805595471.9999999", "3805595472"), ("5471.99999999", "5472")];
        assert_eq!(close.map(|(one, other)| score(&none, one, other)), [1.0, 0.0]);
        assert_eq!([("many", "18"), ("18", "many"), ("", "")].map(|(one, other)| score(&exact, one, other)), [0.0; 3]);
    }

    #[test]
    fn a_reference_is_extracted_from_only_if_it_is_not_a_number() {
        let extract = |fallback: &str| -> Extract {
            let pattern = r"-?\$?[0-9][0-9,.]*";
            serde_json::from_value(json!({"pattern": pattern, "take": "last", "fallback": fallback})).unwrap()
        };
        let number = |text: &str| reference(text, Some(&extract("7")));
        assert_eq!(number("48 / 2 = <<48/2=24>>24 clips.\n#### 1,072"), Some(1072.0));
        // The pattern would find 000 in the first text. The fallback is not a reference.
        assert_eq!([number("1 000"), number("many"), reference("so 72", None)], [Some(1000.0), None, None]);
        let (tolerance, found) = (Tolerance::default(), extract("[invalid]"));
        assert_eq!(["72", "48"].map(|answer| tolerance.score(answer, "48 + 24 #### 72", Some(&found))), [1.0, 0.0]);
    }
}
