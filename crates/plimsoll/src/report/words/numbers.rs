//! Numbers and untrusted text as they are printed.
//!
//! An estimate is printed with as many digits as its interval supports. A value that is not finite is printed as `–`.

use plimsoll_stats::choose::Interval;

/// Printed in place of a missing number.
pub(in crate::report) const NONE: &str = "–";

/// Dtype and instruction set of the arithmetic: `bf16, AVX-512 BF16 instructions`.
pub(in crate::report) fn arithmetic(dtype: &str, instructions: &str) -> String {
    let instructions = match instructions {
        "" => String::new(),
        "portable" => "portable code".to_owned(),
        "avx2" => "AVX2 instructions".to_owned(),
        "avx512" => "AVX-512 instructions".to_owned(),
        "avx512bf16" => "AVX-512 BF16 instructions".to_owned(),
        other => printable(other),
    };
    let parts: Vec<String> = [printable(dtype), instructions].into_iter().filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { NONE.to_owned() } else { parts.join(", ") }
}

/// Signs of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::report) enum Sign {
    /// Minus only.
    Minus,
    /// Plus and minus; 0 has none.
    Both,
}

/// An estimate and the ends of its interval, times `scale`, rounded so that the interval's width has `digits`
/// significant digits.
pub(in crate::report) fn estimate(interval: &Interval, scale: f64, digits: i32, sign: Sign) -> [String; 3] {
    let ends = [interval.value, interval.low, interval.high].map(|end| end * scale);
    let width = (ends[2] - ends[1]).abs();
    let decimals = if width > 0.0 { decimals(width, digits) } else { decimals(ends[0], 4) };
    ends.map(|end| fixed(end, decimals, sign))
}

/// The number of decimals, 0 to 9, that gives `value` this number of significant digits.
pub(in crate::report) fn decimals(value: f64, digits: i32) -> usize {
    if value == 0.0 || !value.is_finite() {
        return digits.clamp(1, 9) as usize - 1;
    }
    // The logarithm is a small number, and the clamp makes the conversion exact.
    (f64::from(digits - 1) - value.abs().log10().floor()).clamp(0.0, 9.0) as usize
}

/// A number with fixed decimals and a true minus sign; in scientific notation from 10⁷ on.
pub(in crate::report) fn fixed(value: f64, decimals: usize, sign: Sign) -> String {
    if !value.is_finite() {
        return NONE.to_owned();
    }
    let size = value.abs();
    let digits = if size < 1e7 { format!("{size:.decimals$}") } else { format!("{size:.1e}") };
    // What rounds to 0 has no sign.
    let is_zero = digits.bytes().all(|byte| matches!(byte, b'0' | b'.'));
    match sign {
        _ if is_zero => digits,
        _ if value < 0.0 => format!("−{digits}"),
        Sign::Both => format!("+{digits}"),
        Sign::Minus => digits,
    }
}

/// A number with four significant digits.
pub(in crate::report) fn number(value: f64) -> String {
    fixed(value, decimals(value, 4), Sign::Minus)
}

/// A setting, without trailing zeros: `98`, `0.05`.
pub(in crate::report) fn plain(value: f64) -> String {
    let digits = number(value);
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.').to_owned() } else { digits }
}

/// A share as `45.1 %`.
pub(in crate::report) fn percent(share: f64) -> String {
    if !share.is_finite() {
        return NONE.to_owned();
    }
    format!("{} %", fixed(share * 100.0, 1, Sign::Minus))
}

/// `1.31 ± 0.02`; one dash if the value is missing.
pub(in crate::report) fn plus_minus(value: String, error: &str) -> String {
    if value == NONE { value } else { format!("{value} ± {error}") }
}

/// `p = 0.003`, or `p < 0.001`.
pub(in crate::report) fn p_value(p: f64) -> String {
    match p {
        p if !p.is_finite() => format!("p = {NONE}"),
        p if p < 0.001 => "p < 0.001".to_owned(),
        p if p < 0.1 => format!("p = {p:.3}"),
        p => format!("p = {p:.2}"),
    }
}

/// A count with thousands separators.
pub(in crate::report) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `1 sample`, `32 samples`.
pub(in crate::report) fn counted(value: usize, noun: &str) -> String {
    format!("{} {noun}{}", count(value as u64), if value == 1 { "" } else { "s" })
}

/// A size in decimal units, as on model hubs.
pub(in crate::report) fn bytes(value: u64) -> String {
    let units = ["kB", "MB", "GB", "TB"];
    let mut size = value as f64;
    if value < 1000 {
        return format!("{value} B");
    }
    let mut unit = "B";
    for next in units {
        if size < 1000.0 {
            break;
        }
        size /= 1000.0;
        unit = next;
    }
    format!("{} {unit}", fixed(size, decimals(size, 3), Sign::Minus))
}

/// Text with non-breaking spaces before percent signs and in equations.
pub(in crate::report) fn non_breaking(text: &str) -> String {
    text.replace(" %", "\u{a0}%").replace(" = ", "\u{a0}=\u{a0}").replace(" < ", "\u{a0}<\u{a0}")
}

/// Untrusted text on one line: characters that could control a terminal or reorder text become `\u{FFFD}`.
pub(in crate::report) fn printable(text: &str) -> String {
    text.chars().map(|c| if is_unprintable(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Whether a character could control a terminal or reorder text.
pub(in crate::report) fn is_unprintable(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_four_significant_digits() {
        let cases = [
            (1.23456, "1.235"),
            (0.0123456, "0.01235"),
            (123.456, "123.5"),
            (98765.4, "98765"),
            (-0.5, "−0.5000"),
            (0.0, "0.000"),
            (1e-12, "0.000000000"),
            (1.5e300, "1.5e300"),
            (f64::NAN, NONE),
            (f64::NEG_INFINITY, NONE),
        ];
        for (value, expected) in cases {
            assert_eq!(number(value), expected);
        }
    }

    #[test]
    fn an_estimate_is_rounded_by_its_interval() {
        let interval = Interval { value: 0.012_345_6, low: 0.004_07, high: 0.020_66 };
        assert_eq!(estimate(&interval, 1.0, 3, Sign::Minus), ["0.0123", "0.0041", "0.0207"]);
        let interval = Interval { value: 1.0123, low: -0.2, high: 1.31 };
        assert_eq!(estimate(&interval, 100.0, 2, Sign::Both), ["+101", "−20", "+131"]);
        let point = Interval { value: 0.5, low: 0.5, high: 0.5 };
        assert_eq!(estimate(&point, 1.0, 3, Sign::Minus), ["0.5000", "0.5000", "0.5000"]);
    }

    #[test]
    fn settings_have_no_trailing_zeros() {
        assert_eq!([0.98 * 100.0, 0.05, 0.0, 1000.0, 97.5].map(plain), ["98", "0.05", "0", "1000", "97.5"]);
    }

    #[test]
    fn a_number_that_rounds_to_zero_has_no_sign() {
        assert_eq!(fixed(-0.000_01, 3, Sign::Both), "0.000");
        assert_eq!(fixed(0.0, 1, Sign::Both), "0.0");
    }

    #[test]
    fn counts_and_sizes_are_grouped_and_scaled() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([999, 1000, 9_830_400, u64::MAX].map(bytes), ["999 B", "1.00 kB", "9.83 MB", "1.8e7 TB"]);
        assert_eq!(counted(1, "sample"), "1 sample");
    }

    #[test]
    fn a_p_value_is_never_written_as_zero() {
        assert_eq!([0.0, 0.000_999, 0.0031, 0.25].map(p_value), ["p < 0.001", "p < 0.001", "p = 0.003", "p = 0.25"]);
    }

    #[test]
    fn control_and_bidirectional_characters_are_replaced() {
        assert_eq!(printable("a\u{1b}[31mb\nc\u{202e}d é"), "a\u{fffd}[31mb\u{fffd}c\u{fffd}d é");
    }

    #[test]
    fn instruction_sets_have_readable_names() {
        assert_eq!(arithmetic("f32", "avx512bf16"), "f32, AVX-512 BF16 instructions");
        assert_eq!(arithmetic("bf16", "portable"), "bf16, portable code");
        assert_eq!(arithmetic("f32", "server 1\n"), "f32, server 1\u{fffd}");
        assert_eq!(arithmetic("", ""), NONE);
    }
}
