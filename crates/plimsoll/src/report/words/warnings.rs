//! Warnings in sentences.

use plimsoll_stats::choose::JudgingSamples;

use super::answer::is_worse;
use super::numbers::{count, counted, p_value, percent, printable};
use crate::lora::adapter::OtherBase;
use crate::result::{OTHER_BASE_ADVICE, SearchResult, Warning};

/// The text of a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::report) struct WarningText {
    /// The finding.
    pub(in crate::report) problem: String,
    /// What the reader can do.
    pub(in crate::report) action: &'static str,
}

/// The text of a warning that is known before anything is scored; `None` for all others.
pub fn forewarning(warning: &Warning) -> Option<String> {
    let WarningText { problem, action } = match *warning {
        Warning::CannotShow { judging, needed, samples } => cannot_show(judging, needed, samples),
        Warning::NotRaced { selection, needed } => not_raced(selection, needed),
        Warning::OtherBase { ref adapter, ref model } => other_base(adapter, model),
        _ => return None,
    };
    Some(format!("{problem} {action}"))
}

fn cannot_show(judging: usize, needed: usize, samples: usize) -> WarningText {
    WarningText {
        problem: format!(
            "Too few samples to show anything: {} to judge by, and the tests need at least {} ({} in all).",
            counted(judging, "sample"),
            count(needed as u64),
            counted(samples, "sample"),
        ),
        // If a part is held out, more samples are needed than judge.
        action: if samples > needed {
            "Add samples: with so few the verdict can only be to keep the full adapter. An exact search of the \
             boundaries, without --holdout, lets all samples judge."
        } else {
            "Add samples: with so few the verdict can only be to keep the full adapter."
        },
    }
}

fn not_raced(selection: usize, needed: usize) -> WarningText {
    WarningText {
        problem: format!(
            "Exact search instead of racing: a race on {} drops no boundary, it needs at least {}.",
            counted(selection, "selection sample"),
            count(needed as u64),
        ),
        action: "All boundaries are scored on all samples.",
    }
}

fn other_base(adapter: &str, model: &str) -> WarningText {
    let finding = OtherBase { adapter: adapter.to_owned(), model: model.to_owned() }.to_string();
    WarningText { problem: format!("{}.", capitalised(&finding)), action: OTHER_BASE_ADVICE }
}

fn token_share(token: &str, id: u32, share: f64, times: usize, samples: usize) -> WarningText {
    WarningText {
        problem: format!(
            "One token, `{}` (id {id}), makes up {} of the adapter's gain (it occurs {} times in {}).",
            printable(&token.escape_debug().to_string()),
            percent(share),
            count(times as u64),
            counted(samples, "sample")
        ),
        action: "The base model may not know this token, for example an end-of-turn token; then the gain shows little \
                 about the text. Look at the samples token by token.",
    }
}

fn few_samples(selection: usize, holdout: usize, validation: JudgingSamples) -> WarningText {
    let problem = match validation {
        JudgingSamples::Holdout => format!(
            "Few samples: {} and {}.",
            counted(selection, "selection sample"),
            counted(holdout, "held-out sample")
        ),
        JudgingSamples::All => format!("Few samples: {}.", count(selection.max(holdout) as u64)),
        JudgingSamples::Nested { .. } => {
            format!("Few samples: {} in nested cross-validation.", count(selection as u64))
        }
    };
    let action =
        "The intervals are rough. Add samples: the width of an interval falls with the square root of their number.";
    WarningText { problem, action }
}

/// Text with a capital first letter.
fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

/// The text of a warning of a result.
pub(in crate::report) fn warning_text(warning: &Warning, result: &SearchResult) -> WarningText {
    match *warning {
        Warning::CannotShow { judging, needed, samples } => cannot_show(judging, needed, samples),
        Warning::NotRaced { selection, needed } => not_raced(selection, needed),
        Warning::OtherBase { ref adapter, ref model } => other_base(adapter, model),
        Warning::Cut { samples, max_length } => WarningText {
            problem: format!(
                "{} longer than {} tokens: the end of the answer was cut off.",
                counted(samples, "sample"),
                count(max_length as u64)
            ),
            action: "Raise --max-length, or leave such samples out with --long-samples skip.",
        },
        Warning::OpenEnding { samples } => WarningText {
            problem: format!(
                "{} without a token that ends generation: the chat template writes none after the answer.",
                if samples == 1 {
                    "1 answer ends".to_owned()
                } else {
                    format!("{} answers end", count(samples as u64))
                }
            ),
            action: "Whether the adapter learnt to stop is not measured. Check that the template is the one used in \
                     training.",
        },
        Warning::TokenShare { ref token, id, share, count, samples, .. } => {
            token_share(token, id, share, count, samples)
        }
        Warning::FewSamples { selection, holdout } => few_samples(selection, holdout, result.choice.validation),
        Warning::Skipped { samples, context } => WarningText {
            problem: format!("{} left out: longer than {} tokens.", counted(samples, "sample"), count(context as u64)),
            action: "The result does not cover samples of that length. Shorten them, or cut their answers with \
                     --long-samples cut.",
        },
        Warning::ControlsOmitted => WarningText {
            problem: "The candidate was not compared with controls (--no-controls).".to_owned(),
            action: "Whether it matters which layers are kept is unknown: search again without --no-controls.",
        },
        Warning::MetricUndecided => WarningText {
            problem: "The metric does not separate the full adapter from the base model, so the NLL chose.".to_owned(),
            action: "Give more samples, or choose by a metric with more values than right and wrong.",
        },
        Warning::Unstable { share } => WarningText {
            problem: format!("Unstable: {} of the bootstrap resamples picked this boundary.", percent(share)),
            action: "Read the boundary as a range: the boundaries that the resamples pick. More selection samples \
                     narrow it.",
        },
        Warning::AdapterUnproven { p } if is_worse(&result.choice.adapter_gain, result) => WarningText {
            problem: format!("On the held-out samples the adapter is worse than the base model ({}).", p_value(p)),
            action: "Check that base model, template and data are the ones used in training.",
        },
        Warning::AdapterUnproven { p } => WarningText {
            problem: format!(
                "The held-out samples do not show that the adapter is better than the base model ({}).",
                p_value(p)
            ),
            action: "Check that base model, template and data are the ones used in training, or hold out more samples.",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_model_of_another_name_is_a_warning_before_scoring() {
        let warning = Warning::OtherBase { adapter: "b-it".to_owned(), model: "b".to_owned() };
        let text = forewarning(&warning).unwrap();
        assert!(text.starts_with("The adapter names b-it as its base model, and this one is b. Check that"), "{text}");
    }
}
