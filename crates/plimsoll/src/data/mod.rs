//! Samples: tokens, and which of them are the answer.
//!
//! A sample is one line of a JSONL file, in one of five shapes: `messages`, `prompt` and `completion`, `instruction`,
//! `conversations`, or `text`. Where there is a chat template every shape but `text` is rendered with it, and the answer
//! is what rendering with the assistant's turn adds to the prompt rendered with its generation prompt: so the
//! end-of-turn marker is part of the answer. Prompt and answer are tokenised apart and joined, so that the border
//! between them falls between tokens; text that a tokenizer would have merged across that border is split there.
//!
//! Without a template, prompt and completion are joined as they stand: nothing is added but the BOS that the tokenizer
//! itself adds. A rendered template gets none, since templates write their own.
//!
//! Nothing is ever cut: a sample that does not fit into the context is left out and counted.

mod shape;
mod split;

use std::fmt;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result, shown};
use crate::files;
use crate::tokenizer::{ChatTemplate, GenerationPrompt, Message, Special, Tokenizer, TokenizerProblem};
use shape::Record;

pub(crate) use split::draw_order;
pub use split::{Split, race_order, split};

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
    /// Lines of samples that were left out because they are longer than the context, ascending.
    pub skipped: Vec<usize>,
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
    /// Longest sample that the model takes, in tokens.
    pub context: usize,
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
    #[error("line {line}: expected one JSON object, found {}", without_line(.source))]
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
    #[error("line {line}: expected a prompt before the answer, found none")]
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
    #[error("expected at least one sample, found {}", found_samples(*.skipped, *.context))]
    NoSamples {
        /// How many are longer than the context.
        skipped: usize,
        /// The context, in tokens.
        context: usize,
    },
}

/// The parser's reason without the number of the line, which it counts within the line that it was given.
fn without_line(error: &serde_json::Error) -> String {
    let reason = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match reason.strip_suffix(&place) {
        Some(reason) => format!("{} at column {}", shown(reason), error.column()),
        None => shown(&reason),
    }
}

fn found_samples(skipped: usize, context: usize) -> String {
    match skipped {
        0 => "only blank lines".to_owned(),
        1 => format!("one, longer than the model's context of {context} tokens"),
        _ => format!("{skipped} samples, all longer than the model's context of {context} tokens"),
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
    let (mut samples, mut skipped) = (Vec::new(), Vec::new());
    for index in order {
        if samples.len() == wanted {
            break;
        }
        let (line, record) = &records[index];
        let sample = renderer.sample(*line, record, options.turns).map_err(|problem| Error::input(&file, problem))?;
        if sample.tokens.len() > options.context {
            skipped.push(*line);
        } else {
            samples.push((sample, record.answer()));
        }
    }
    samples.sort_by_key(|(sample, _)| sample.line);
    let (samples, answers): (Vec<Sample>, Vec<String>) = samples.into_iter().unzip();
    skipped.sort_unstable();
    if samples.is_empty() {
        let problem = DataProblem::NoSamples { skipped: skipped.len(), context: options.context };
        return Err(Error::input(file, problem));
    }
    Ok(Dataset { samples, answers, skipped, file, sha256, template: renderer.used() })
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
        return Err(at(DataProblem::NoSamples { skipped: 0, context }));
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

/// A part of a sample's text.
enum Part {
    Prompt(String),
    Answer(String),
}

/// How texts become tokens: a tokenizer, and the chat template that prompts are rendered with, if any.
#[derive(Debug)]
pub struct Renderer<'a> {
    tokenizer: &'a Tokenizer,
    template: Option<ChatTemplate>,
    used: TemplateUse,
}

impl<'a> Renderer<'a> {
    /// Settles which template is used.
    ///
    /// # Errors
    /// A template that does not parse.
    pub fn new(tokenizer: &'a Tokenizer, choice: &TemplateChoice) -> Result<Self> {
        let (template, used) = match choice {
            TemplateChoice::None => (None, TemplateUse::None),
            TemplateChoice::Tokenizer => match tokenizer.template()? {
                Some(template) => (Some(template), TemplateUse::Tokenizer),
                None => (None, TemplateUse::None),
            },
            TemplateChoice::Given { file, source } => {
                let template = tokenizer.parse_template(source).map_err(|problem| Error::input(file, problem))?;
                (Some(template), TemplateUse::Given)
            }
        };
        Ok(Self { tokenizer, template, used })
    }

    /// How prompts are rendered.
    pub fn used(&self) -> TemplateUse {
        self.used
    }

    /// The tokens that an assistant's answer to a chat follows.
    ///
    /// # Errors
    /// There is no template, or it refuses the chat.
    pub fn chat(&self, messages: &[Message]) -> Result<Vec<u32>, TokenizerProblem> {
        let no_template = || TokenizerProblem::Template("a chat needs one, and there is none".to_owned());
        let template = self.template.as_ref().ok_or_else(no_template)?;
        self.tokenizer.encode(&template.render(messages, GenerationPrompt::Add)?, Special::Leave)
    }

    /// The tokens of a plain text that goes on.
    ///
    /// # Errors
    /// The tokenizer refuses it.
    pub fn plain(&self, text: &str) -> Result<Vec<u32>, TokenizerProblem> {
        self.tokenizer.encode(text, Special::Begin)
    }

    /// A chat and its answer as a sample: with a template, all messages and the answer as the assistant's turn; without
    /// one, the messages' contents as they stand, end to end.
    ///
    /// # Errors
    /// See [`DataProblem`].
    pub fn answered(&self, line: usize, messages: &[Message], answer: &str) -> Result<Sample, DataProblem> {
        let record = if self.template.is_some() {
            let answer = Message::new("assistant", answer);
            Record::Chat { messages: [messages, &[answer]].concat(), shape: "chat" }
        } else {
            let prompt = messages.iter().map(|message| message.content.as_str()).collect();
            Record::Pair { prompt, completion: answer.to_owned() }
        };
        self.sample(line, &record, Turns::Last)
    }

    fn question(&self, line: usize, record: &Record) -> Result<Vec<u32>, DataProblem> {
        let tokens = match (record, &self.template) {
            (Record::Text(text), _) => self.plain(text),
            (record, Some(_)) => self.chat(&record.messages()),
            (Record::Pair { prompt, .. }, None) => self.plain(prompt),
            (_, None) => return Err(DataProblem::NeedsTemplate { line, shape: record.shape() }),
        };
        match tokens {
            Ok(tokens) if tokens.is_empty() => Err(DataProblem::NoPrompt { line }),
            Ok(tokens) => Ok(tokens),
            Err(problem) => Err(DataProblem::Refused { line, problem }),
        }
    }

    fn sample(&self, line: usize, record: &Record, turns: Turns) -> Result<Sample, DataProblem> {
        let Self { tokenizer, template, .. } = self;
        let refused = |problem| DataProblem::Refused { line, problem };
        let parts = match (record, template) {
            (Record::Text(text), _) => {
                let tokens = tokenizer.encode(text, Special::Add).map_err(refused)?;
                if tokens.len() < 2 {
                    return Err(DataProblem::EmptyAnswer { line });
                }
                let answer = (1..tokens.len()).collect();
                return Ok(Sample { line, tokens, answer });
            }
            (_, Some(template)) => chat_parts(line, &record.messages(), template, turns)?,
            (Record::Pair { prompt, completion }, None) => {
                vec![Part::Prompt(prompt.clone()), Part::Answer(completion.clone())]
            }
            (_, None) => return Err(DataProblem::NeedsTemplate { line, shape: record.shape() }),
        };
        let begin = if template.is_some() { Special::Leave } else { Special::Begin };
        let (mut tokens, mut answer) = (Vec::new(), Vec::new());
        for (index, part) in parts.iter().enumerate() {
            let (Part::Prompt(text) | Part::Answer(text)) = part;
            let ids = if index == 0 { tokenizer.encode(text, begin) } else { tokenizer.encode_continuation(text) };
            let ids = ids.map_err(refused)?;
            if let Part::Answer(_) = part {
                if tokens.is_empty() {
                    return Err(DataProblem::NoPrompt { line });
                }
                if ids.is_empty() {
                    return Err(DataProblem::EmptyAnswer { line });
                }
                answer.extend(tokens.len()..tokens.len() + ids.len());
            }
            tokens.extend(ids);
        }
        Ok(Sample { line, tokens, answer })
    }
}

/// The rendered chat up to the last answer, cut where each answer begins and ends.
fn chat_parts(
    line: usize,
    messages: &[Message],
    template: &ChatTemplate,
    turns: Turns,
) -> Result<Vec<Part>, DataProblem> {
    let render = |messages: &[Message], prompt| {
        template.render(messages, prompt).map_err(|problem| DataProblem::Refused { line, problem })
    };
    let mut answers: Vec<usize> = (0..messages.len()).filter(|&turn| messages[turn].role == "assistant").collect();
    let Some(&last) = answers.last() else { return Err(DataProblem::NoAnswer { line }) };
    if turns == Turns::Last {
        answers = vec![last];
    }
    let mut parts = Vec::new();
    let mut done = String::new();
    for turn in answers {
        if turn == 0 {
            return Err(DataProblem::NoPrompt { line });
        }
        let rewritten = |advice| DataProblem::Rewritten { line, turn: turn + 1, advice };
        let prompt = render(&messages[..turn], GenerationPrompt::Add)?;
        let added = prompt.strip_prefix(&done).ok_or_else(|| rewritten("score the last turn only"))?;
        parts.push(Part::Prompt(added.to_owned()));
        let whole = render(&messages[..=turn], GenerationPrompt::Leave)?;
        let answer = whole.strip_prefix(&prompt).ok_or_else(|| rewritten("give another with --template FILE"))?;
        parts.push(Part::Answer(answer.to_owned()));
        done = whole;
    }
    Ok(parts)
}
