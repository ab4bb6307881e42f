//! Texts shared by the terminal, Markdown and the page: the answer in sentences, warnings, and numbers rounded by their
//! interval.

mod answer;
mod gains;
mod numbers;
mod strength;
mod sufficient;
mod warnings;

pub use answer::sentence;
pub use warnings::forewarning;

pub(super) use answer::{Answer, NO_SHARE, Retained, answer, judging_samples, race, scoring_seconds};
pub(super) use gains::{counts_as_shown, disagreement, gain_digits, unit};
pub(super) use numbers::{
    NONE, Sign, arithmetic, bytes, count, counted, decimals, estimate, fixed, is_unprintable, non_breaking, number,
    p_value, percent, plain, plus_minus, printable,
};
pub(super) use strength::{is_at_strength, tuned_strength};
pub(super) use sufficient::margin_in_words;
pub(super) use warnings::{WarningText, warning_text};
