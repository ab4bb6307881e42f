//! Texts shared by the terminal, Markdown and the page: the answer in sentences, warnings, and numbers rounded by their
//! interval.

mod answer;
mod numbers;
mod warnings;

pub use answer::sentence;
pub use warnings::forewarning;

pub(super) use answer::{
    Answer, NO_SHARE, Retained, answer, counts_as_shown, disagreement, gain_digits, judging_samples, race,
    scoring_seconds, unit,
};
pub(super) use numbers::{
    NONE, Sign, arithmetic, bytes, count, counted, decimals, estimate, fixed, is_unprintable, non_breaking, number,
    p_value, percent, plain, plus_minus, printable,
};
pub(super) use warnings::{WarningText, warning_text};
