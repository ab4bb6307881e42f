//! Samples: tokens, and which of them are the answer.
//!
//! A sample is one line of a JSONL file, in one of five shapes: `messages`, `prompt` and `completion`, `instruction`,
//! `conversations`, or `text`. Where there is a chat template every shape but `text` is rendered with it, and the answer
//! is what rendering with the assistant's turn adds to the prompt rendered with its generation prompt, up to and with the
//! token that ends generation. The whole text is tokenised at once, and the answer's tokens are found in it (`renderer`).
//!
//! Without a template, prompt and completion are joined as they stand: nothing is added but the BOS that the tokenizer
//! itself adds. A rendered template gets none, since templates write their own.
//!
//! A sample that is longer than allowed is left out, or its answer is cut ([`LongSamples`]); both are counted.

mod renderer;
mod shape;
mod split;

use std::fmt;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result, json_reason};
use crate::files;
use crate::tokenizer::{Tokenizer, TokenizerProblem};
use shape::Record;

pub use renderer::{Ending, Renderer};
pub use split::{Split, race_order, split};
pub(crate) use split::{draw_order, fewest};

/// Larger files are refused: validation sets are small, and all of it is held in memory.
const MAX_FILE_BYTES: u64 = 1 << 30;
/// Longer lines are refused.
const MAX_LINE_BYTES: u64 = 16 << 20;
/// Files of more lines are refused.
const MAX_LINES: usize = 2_000_000;
/// The file that is read from a folder.
const FILE_IN_FOLDER: &str = "valid.jsonl";

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

/// Samples of one file.
#[derive(Clone, Debug)]
pub struct Dataset {
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
pub struct Options {
    /// The template to render with.
    pub template: TemplateChoice,
    /// Which of the assistant's turns are answers.
    pub turns: Turns,
    /// At most so many samples, drawn at random by `seed`; all of them where it is `None`.
    pub max_samples: Option<usize>,
    /// Seed of that draw.
    pub seed: u64,
    /// Longest sample that is scored, in tokens: no longer than the model's context.
    pub max_length: usize,
    /// What becomes of longer ones.
    pub long: LongSamples,
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

/// What can be wrong with a file of samples.
#[derive(Debug, thiserror::Error)]
pub enum DataProblem {
    /// A folder without the file that is looked for.
    #[error("expected the file {looked_for} in this folder, found none")]
    NoFile {
        /// Its name.
        looked_for: &'static str,
    },
    /// A file that is too large to hold in memory.
    #[error("expected at most {limit} {unit}, found more")]
    TooMuch {
        /// The limit.
        limit: u64,
        /// What is counted.
        unit: &'static str,
    },
    /// A line that is too long.
    #[error("line {line}: expected at most {limit} bytes, found more")]
    LongLine {
        /// The line, from 1.
        line: usize,
        /// The limit.
        limit: u64,
    },
    /// A line that is not UTF-8.
    #[error("line {line}: expected UTF-8, found other bytes from byte {valid} of the line on")]
    NotUtf8 {
        /// The line, from 1.
        line: usize,
        /// How many bytes of it are well-formed.
        valid: usize,
    },
    /// A line that is not a JSON object.
    #[error("line {line}: expected one JSON object, found {}", json_reason(.source))]
    NotJson {
        /// The line, from 1.
        line: usize,
        /// The parser's reason.
        source: serde_json::Error,
    },
    /// A list, most likely of all samples.
    #[error("line {line}: expected one JSON object a line, found a JSON list: write one object a line")]
    List {
        /// The line, from 1.
        line: usize,
    },
    /// An object of none of the five shapes.
    #[error(
        "line {line}: expected the fields `messages`, `conversations`, `prompt` and `completion`, `instruction` and \
         `output`, or `text`, found {}",
        if found.is_empty() { "none".to_owned() } else { found.join(", ") }
    )]
    Shape {
        /// The line, from 1.
        line: usize,
        /// Its fields.
        found: Vec<String>,
    },
    /// A field with something else in it than its shape wants.
    #[error("line {line}: `{field}`: expected {expected}, found {found}")]
    Field {
        /// The line, from 1.
        line: usize,
        /// The field, such as `messages[2].content`.
        field: String,
        /// What it should hold.
        expected: &'static str,
        /// What it holds.
        found: String,
    },
    /// A chat in which the assistant says nothing.
    #[error("line {line}: expected an assistant's turn to score, found none")]
    NoAnswer {
        /// The line, from 1.
        line: usize,
    },
    /// An answer without a token in it.
    #[error("line {line}: expected an answer to score, found an empty one")]
    EmptyAnswer {
        /// The line, from 1.
        line: usize,
    },
    /// Nothing in front of the answer: its first token cannot be predicted from anything.
    #[error("line {line}: expected a prompt before the first token of the answer, found none")]
    NoPrompt {
        /// The line, from 1.
        line: usize,
    },
    /// A shape that has no text without a template.
    #[error(
        "line {line}: {shape} lines need a chat template, and there is none: give one with --template FILE, or lines \
         of `prompt` and `completion`"
    )]
    NeedsTemplate {
        /// The line, from 1.
        line: usize,
        /// The shape's name.
        shape: &'static str,
    },
    /// A chat that the template refuses, or a text that the tokenizer refuses.
    #[error("line {line}: {problem}")]
    Refused {
        /// The line, from 1.
        line: usize,
        /// The reason.
        problem: TokenizerProblem,
    },
    /// A template that writes the prompt otherwise once the answer follows.
    #[error(
        "line {line}: this chat template rewrites what stands before turn {turn} of the chat once that turn is there, \
         so the answer cannot be told from the prompt: {advice}"
    )]
    Rewritten {
        /// The line, from 1.
        line: usize,
        /// The turn, from 1.
        turn: usize,
        /// What to do about it.
        advice: &'static str,
    },
    /// A question that the model cannot hold.
    #[error("line {line}: {tokens} tokens: expected fewer than the model's context of {context}")]
    LongQuestion {
        /// The line, from 1.
        line: usize,
        /// Its tokens.
        tokens: usize,
        /// The context, in tokens.
        context: usize,
    },
    /// A sample whose prompt cannot be answered.
    #[error(
        "line {line}: a prompt of {tokens} tokens cannot be answered: expected one of 2 to {room}, which leaves room for \
         the answer in the model's context"
    )]
    Unanswerable {
        /// The line, from 1.
        line: usize,
        /// Tokens of the prompt.
        tokens: usize,
        /// How many there may be.
        room: usize,
    },
    /// A tokenizer of another model.
    #[error(
        "line {line}: expected tokens of the model's vocabulary of {vocabulary}, found others: the tokenizer belongs to \
         another model"
    )]
    Vocabulary {
        /// The line, from 1.
        line: usize,
        /// Number of tokens that the model has.
        vocabulary: usize,
    },
    /// Not one byte.
    #[error("expected at least one sample, found an empty file")]
    EmptyFile,
    /// No sample is left.
    #[error("expected at least one sample, found {}", found_samples(*.skipped, *.max_length))]
    NoSamples {
        /// How many are too long.
        skipped: usize,
        /// The longest that is scored, in tokens.
        max_length: usize,
    },
}

fn found_samples(skipped: usize, max_length: usize) -> String {
    match skipped {
        0 => "only blank lines".to_owned(),
        1 => format!("one, longer than {max_length} tokens, the most that --max-length and the model's context allow"),
        _ => format!(
            "{skipped} samples, all longer than {max_length} tokens, the most that --max-length and the model's context allow"
        ),
    }
}

/// Reads the samples of a JSONL file, or of `valid.jsonl` in a folder.
///
/// Every line must be well-formed, also where `max_samples` leaves it out.
///
/// # Errors
/// [`DataProblem`], with the line; an unreadable file; a template of the caller's that does not parse.
pub fn load(path: &Path, tokenizer: &Tokenizer, options: &Options) -> Result<Dataset> {
    let file = file_of(path)?;
    let renderer = Renderer::new(tokenizer, &options.template)?;
    let (records, sha256) = read_records(&file, Record::parse)?;
    let wanted = options.max_samples.unwrap_or(usize::MAX);
    let order = draw_order(records.len(), options.max_samples, options.seed);
    let (mut samples, mut skipped, mut cut) = (Vec::new(), Vec::new(), Vec::new());
    let mut endings: Vec<(Ending, usize)> = Vec::new();
    for index in order {
        if samples.len() == wanted {
            break;
        }
        let (line, record) = &records[index];
        let mut sample =
            renderer.sample(*line, record, options.turns).map_err(|problem| Error::input(&file, problem))?;
        let mut ending = renderer.ending(record, &sample);
        if sample.tokens.len() > options.max_length {
            let first = sample.answer[0];
            if options.long == LongSamples::Skip || first >= options.max_length {
                skipped.push(*line);
                continue;
            }
            sample.cut(options.max_length);
            cut.push(*line);
            ending = None;
        }
        if let Some(ending) = ending {
            match endings.iter_mut().find(|(known, _)| *known == ending) {
                Some((_, count)) => *count += 1,
                None => endings.push((ending, 1)),
            }
        }
        let prompt = renderer.prompt_of(record, &sample).map_err(|problem| Error::input(&file, problem))?;
        samples.push((sample, record.answer(), prompt));
    }
    samples.sort_by_key(|(sample, ..)| sample.line);
    let (samples, answers, prompts) = samples.into_iter().collect::<(Vec<_>, Vec<_>, Vec<_>)>();
    skipped.sort_unstable();
    cut.sort_unstable();
    if samples.is_empty() {
        let problem = DataProblem::NoSamples { skipped: skipped.len(), max_length: options.max_length };
        return Err(Error::input(file, problem));
    }
    endings.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    Ok(Dataset { samples, answers, prompts, skipped, cut, endings, file, sha256, template: renderer.used() })
}

impl Sample {
    /// Leaves out what stands behind so many tokens.
    fn cut(&mut self, length: usize) {
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

/// Reads the questions of a JSONL file: the same shapes as samples have, and their answers may be missing. An assistant's
/// turn at the end of a chat is what is to be answered, and is left out.
///
/// # Errors
/// As [`load`]; a question that is longer than `context`.
pub fn questions(path: &Path, renderer: &Renderer<'_>, context: usize) -> Result<Vec<Question>> {
    let file = file_of(path)?;
    let (records, _) = read_records(&file, Record::parse_question)?;
    let at = |problem| Error::input(&file, problem);
    let mut questions = Vec::with_capacity(records.len());
    for (line, record) in records {
        let tokens = renderer.question(line, &record).map_err(at)?;
        if tokens.len() >= context {
            return Err(at(DataProblem::LongQuestion { line, tokens: tokens.len(), context }));
        }
        questions.push(Question { line, tokens });
    }
    if questions.is_empty() {
        return Err(at(DataProblem::NoSamples { skipped: 0, max_length: context }));
    }
    Ok(questions)
}

/// The file that a path stands for.
fn file_of(path: &Path) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let file = path.join(FILE_IN_FOLDER);
    if file.is_file() { Ok(file) } else { Err(Error::input(path, DataProblem::NoFile { looked_for: FILE_IN_FOLDER })) }
}

/// The records of a file with their lines, from 1, and the SHA-256 of its bytes; blank lines are passed over. The hash is
/// of what was parsed: the file may be a pipe, or be written again meanwhile.
fn read_records(
    path: &Path,
    parse: impl Fn(usize, &str) -> Result<Record, DataProblem>,
) -> Result<(Vec<(usize, Record)>, String)> {
    let mut hasher = Sha256::new();
    let at = |problem: DataProblem| Error::input(path, problem);
    let mut reader = BufReader::new(File::open(path).map_err(Error::read(path))?);
    let (mut records, mut buffer, mut bytes, mut line) = (Vec::new(), Vec::new(), 0_u64, 0);
    loop {
        buffer.clear();
        let read =
            reader.by_ref().take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut buffer).map_err(Error::read(path))? as u64;
        if read == 0 && bytes == 0 {
            return Err(at(DataProblem::EmptyFile));
        }
        if read == 0 {
            return Ok((records, files::hex(&hasher.finalize())));
        }
        hasher.update(&buffer);
        if line == 0 && files::is_lfs_pointer(&buffer) {
            return Err(Error::input(path, files::lfs_pointer()));
        }
        line += 1;
        bytes += read;
        if line > MAX_LINES {
            return Err(at(DataProblem::TooMuch { limit: MAX_LINES as u64, unit: "lines" }));
        }
        if bytes > MAX_FILE_BYTES {
            return Err(at(DataProblem::TooMuch { limit: MAX_FILE_BYTES, unit: "bytes" }));
        }
        if read > MAX_LINE_BYTES {
            return Err(at(DataProblem::LongLine { line, limit: MAX_LINE_BYTES }));
        }
        let text = std::str::from_utf8(&buffer)
            .map_err(|error| at(DataProblem::NotUtf8 { line, valid: error.valid_up_to() }))?;
        // Some editors begin a file with a byte order mark.
        let text = if line == 1 { text.strip_prefix('\u{feff}').unwrap_or(text) } else { text };
        if !text.trim().is_empty() {
            records.push((line, parse(line, text).map_err(at)?));
        }
    }
}
