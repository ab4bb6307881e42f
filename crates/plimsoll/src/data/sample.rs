//! Samples, and how they are made of lines.

use std::fmt;
use std::path::{Path, PathBuf};

use plimsoll_formats::files;

use super::ending::Ending;
use crate::error::Result;

/// One sample, ready to be scored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Its line in the file, from 1.
    pub line: usize,
    /// Prompt and answer, as token ids.
    pub tokens: Vec<u32>,
    /// Positions of the answer's tokens in `tokens`, ascending and never 0: what is scored.
    pub answer: Vec<usize>,
}

/// Samples of one data set as tokens.
#[derive(Clone, Debug)]
pub struct TokenizedDataset {
    /// In the order of the file; never empty.
    pub samples: Vec<Sample>,
    /// The answer of each sample as its line has it: its last one, or all of a plain text.
    pub answers: Vec<String>,
    /// The tokens that this answer is generated from. They are those before it in `tokens`, unless a token there stands for the
    /// end of the prompt and the beginning of the answer.
    pub prompts: Vec<Vec<u32>>,
    /// Lines of samples that were left out because they are too long, ascending.
    pub skipped: Vec<usize>,
    /// Lines of samples whose answer was cut because they are too long, ascending.
    pub cut: Vec<usize>,
    /// How answers end that a chat template wrote, and that were not cut, with how many samples end so: the most frequent
    /// first.
    pub endings: Vec<(Ending, usize)>,
    /// The path as the caller gave it: a file, or a folder.
    pub path: PathBuf,
    /// The file that was read.
    pub file: PathBuf,
    /// SHA-256 of the bytes that were read, in lower-case hexadecimal, as `sha256sum` gives it.
    pub sha256: String,
    /// How prompts were rendered.
    pub template: TemplateUse,
}

/// How prompts were rendered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplateUse {
    /// With the tokenizer's own template.
    Tokenizer,
    /// With the template that the caller gave.
    Given,
    /// Not at all, by choice or because the tokenizer has no template.
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

/// How to make samples of lines.
#[derive(Clone, Debug)]
pub struct DataOptions {
    /// The template to render with.
    pub template: TemplateChoice,
    /// Which of the assistant's turns are answers.
    pub turns: Turns,
    /// At most so many samples, drawn at random by `seed`; all of them where it is `None`.
    pub max_samples: Option<usize>,
    /// Seed of that draw.
    pub seed: u64,
    /// Longest sample that is scored, in tokens; a search takes the model's context where that is less.
    pub max_length: usize,
    /// What becomes of longer ones.
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

/// What becomes of samples that are too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LongSamples {
    /// They are left out.
    #[default]
    Skip,
    /// Their last tokens are left out. One that has no answer then is left out whole.
    Cut,
}

/// The template to render with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateChoice {
    /// The tokenizer's own, if it has one; else none.
    Tokenizer,
    /// None.
    None,
    /// This one.
    Given {
        /// Where it comes from.
        file: PathBuf,
        /// Its text, as Jinja.
        source: String,
    },
}

impl TemplateChoice {
    /// The template of a file.
    ///
    /// # Errors
    /// Unreadable, too large or not UTF-8.
    pub fn from_file(path: &Path) -> Result<Self> {
        Ok(Self::Given { file: path.to_owned(), source: files::read_text(path)? })
    }
}

/// Which of the assistant's turns are answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turns {
    /// The last; what follows it is ignored.
    Last,
    /// Each.
    All,
}

impl Sample {
    /// Leaves out what stands behind so many tokens.
    pub(super) fn cut(&mut self, length: usize) {
        self.tokens.truncate(length);
        self.answer.retain(|&position| position < length);
    }
}

/// One line's question, ready to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Its line in the file, from 1.
    pub line: usize,
    /// What the answer follows, as token ids.
    pub tokens: Vec<u32>,
}
