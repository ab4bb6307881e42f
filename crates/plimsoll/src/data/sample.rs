//! Samples, and the options of reading them.

use std::fmt;
use std::path::{Path, PathBuf};

use plimsoll_formats::files;

use super::ending::Ending;
use crate::error::Result;

/// A sample as token ids, with the positions that are scored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The line in the file, from 1.
    pub line: usize,
    /// Token ids of prompt and answer.
    pub tokens: Vec<u32>,
    /// Positions of the answer's tokens in `tokens`, which are scored: ascending, never 0.
    pub answer: Vec<usize>,
}

/// A data set as token ids.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TokenizedDataset {
    /// The samples in the order of the file; never empty.
    pub samples: Vec<Sample>,
    /// The text of each sample's last answer; of plain text, the whole text.
    pub answers: Vec<String>,
    /// The tokens of each sample from which its last answer is generated. They equal those before the answer in
    /// `tokens`, unless one token covers both the end of the prompt and the start of the answer.
    pub prompts: Vec<Vec<u32>>,
    /// Lines of samples that were left out because they are too long, ascending.
    pub skipped: Vec<usize>,
    /// Lines of samples whose answer was cut because they are too long, ascending.
    pub cut: Vec<usize>,
    /// Endings of the answers that a chat template wrote and that were not cut, with their numbers of samples, the most
    /// frequent first.
    pub endings: Vec<(Ending, usize)>,
    /// The path as the caller gave it: a file, or a folder.
    pub path: PathBuf,
    /// The file that was read.
    pub file: PathBuf,
    /// SHA-256 of the bytes that were read, in lower-case hexadecimal, as printed by `sha256sum`.
    pub sha256: String,
    /// The source of the chat template.
    pub template: TemplateUse,
}

/// The source of the chat template that was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplateUse {
    /// The tokenizer's own template.
    Tokenizer,
    /// The template that the caller gave.
    Given,
    /// No template, by choice or because the tokenizer has none.
    None,
}

impl fmt::Display for TemplateUse {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Tokenizer => "tokenizer",
            Self::Given => "given",
            Self::None => "none",
        })
    }
}

/// Options of reading and tokenising samples.
#[derive(Clone, Debug)]
pub struct DataOptions {
    /// The chat template.
    pub template: TemplateChoice,
    /// Which messages of the assistant are answers.
    pub turns: Turns,
    /// Size of a random subset, sampled with `seed`; `None` for all samples.
    pub max_samples: Option<usize>,
    /// Seed of the subset.
    pub seed: u64,
    /// Maximum length of a sample in tokens. A search also limits it to the model's context.
    pub max_length: usize,
    /// Treatment of longer samples.
    pub long: LongSamples,
}

impl Default for DataOptions {
    fn default() -> Self {
        Self {
            template: TemplateChoice::Tokenizer,
            turns: Turns::Last,
            max_samples: None,
            seed: 0,
            max_length: usize::MAX,
            long: LongSamples::Skip,
        }
    }
}

/// Treatment of samples above the maximum length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LongSamples {
    /// They are left out.
    #[default]
    Skip,
    /// They are truncated. A sample without an answer after that is left out.
    Cut,
}

/// The choice of a chat template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateChoice {
    /// The tokenizer's own template, if it has one.
    Tokenizer,
    /// No template.
    None,
    /// This template.
    Given {
        /// The file, for messages.
        file: PathBuf,
        /// The Jinja source.
        source: String,
    },
}

impl TemplateChoice {
    /// Reads a template from a file.
    ///
    /// # Errors
    /// A file that is unreadable, too large or not UTF-8.
    pub fn from_file(path: &Path) -> Result<Self> {
        Ok(Self::Given { file: path.to_owned(), source: files::read_text(path)? })
    }
}

/// Which messages of the assistant are answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turns {
    /// The last one; later messages are ignored.
    Last,
    /// All.
    All,
}

impl Sample {
    /// Truncates the sample to a length in tokens.
    pub(super) fn cut(&mut self, length: usize) {
        self.tokens.truncate(length);
        self.answer.retain(|&position| position < length);
    }
}

/// The prompt of one line as token ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The line in the file, from 1.
    pub line: usize,
    /// Token ids of the prompt.
    pub tokens: Vec<u32>,
}
