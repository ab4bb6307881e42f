//! Reader of samples and questions from JSONL files.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use plimsoll_formats::files;
use sha2::{Digest as _, Sha256};

use super::ending::Ending;
use super::problem::DataProblem;
use super::renderer::Renderer;
use super::sample::{DataOptions, LongSamples, Question, TokenizedDataset};
use super::shape::Record;
use super::split::draw_order;
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// Most bytes of a file: all samples are held in memory.
const MAX_FILE_BYTES: u64 = 1 << 30;
/// Most bytes of a line.
const MAX_LINE_BYTES: u64 = 16 << 20;
/// Most lines of a file.
const MAX_LINES: usize = 2_000_000;
/// The file that is read in a folder.
const FILE_IN_FOLDER: &str = "valid.jsonl";

/// A data set as text: lines of a JSONL file, or samples in memory. [`tokenize`](Self::tokenize) turns it into tokens.
///
/// ```
/// use plimsoll::data::Dataset;
///
/// let data = Dataset::from_pairs([("1 + 1 = ", "2"), ("2 + 2 = ", "4")])?;
/// assert_eq!(data.len(), 2);
/// # Ok::<(), plimsoll::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Dataset {
    records: Vec<(usize, Record)>,
    path: PathBuf,
    file: PathBuf,
    sha256: String,
}

impl Dataset {
    /// Reads a JSONL file, or `valid.jsonl` in a folder. Every line is validated, also if `max_samples` leaves it out
    /// later.
    ///
    /// # Errors
    /// An unreadable file, or a [`DataProblem`].
    pub fn from_jsonl(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let file = file_of(&path)?;
        let (records, sha256) = read_records(&file, Record::parse)?;
        Ok(Self { records, path, file, sha256 })
    }

    /// Makes a data set of prompts with their completions.
    ///
    /// # Errors
    /// [`DataProblem::EmptyAnswer`], with the number of the pair as the line.
    pub fn from_pairs<P: AsRef<str>, C: AsRef<str>>(pairs: impl IntoIterator<Item = (P, C)>) -> Result<Self> {
        let file = PathBuf::from("samples in memory");
        let (mut records, mut lines) = (Vec::new(), String::new());
        for (line, (prompt, completion)) in (1..).zip(pairs) {
            let text = serde_json::json!({ "prompt": prompt.as_ref(), "completion": completion.as_ref() }).to_string();
            let record = Record::parse(line, &text).map_err(|problem| Error::input(&file, problem))?;
            records.push((line, record));
            lines.push_str(&text);
            lines.push('\n');
        }
        Ok(Self { records, path: file.clone(), file, sha256: files::sha256(lines.as_bytes()) })
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The file that was read.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Renders and tokenises the samples.
    ///
    /// # Errors
    /// A [`DataProblem`], or a chat template that does not parse.
    pub fn tokenize(&self, tokenizer: &Tokenizer, options: &DataOptions) -> Result<TokenizedDataset> {
        let Self { records, path, file, sha256 } = self;
        let renderer = Renderer::new(tokenizer, &options.template)?;
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
                renderer.sample(*line, record, options.turns).map_err(|problem| Error::input(file, problem))?;
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
            let prompt = renderer.prompt_of(record, &sample).map_err(|problem| Error::input(file, problem))?;
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
        Ok(TokenizedDataset {
            samples,
            answers,
            prompts,
            skipped,
            cut,
            endings,
            path: path.clone(),
            file: file.clone(),
            sha256: sha256.clone(),
            template: renderer.used(),
        })
    }
}

/// Reads and tokenises the samples of a JSONL file, or of `valid.jsonl` in a folder.
///
/// # Errors
/// As [`Dataset::from_jsonl`] and [`Dataset::tokenize`].
pub fn load(path: &Path, tokenizer: &Tokenizer, options: &DataOptions) -> Result<TokenizedDataset> {
    Dataset::from_jsonl(path)?.tokenize(tokenizer, options)
}

/// Reads and tokenises the questions of a JSONL file. They have the shapes of samples, but need no answers. A message
/// of the assistant at the end of a chat is left out.
///
/// # Errors
/// As [`load`], and a question longer than `context`.
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

/// The file of a path: itself, or `valid.jsonl` in a folder.
fn file_of(path: &Path) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let file = path.join(FILE_IN_FOLDER);
    if file.is_file() { Ok(file) } else { Err(Error::input(path, DataProblem::NoFile { looked_for: FILE_IN_FOLDER })) }
}

/// Reads the records of a file with their lines, from 1, and the SHA-256 of its bytes. Blank lines are skipped. The
/// hash is of the bytes that were parsed, because the file can be a pipe, or change meanwhile.
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
            return Err(Error::read(path)(files::lfs_pointer()));
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
        // Some editors write a byte order mark.
        let text = if line == 1 { text.strip_prefix('\u{feff}').unwrap_or(text) } else { text };
        if !text.trim().is_empty() {
            records.push((line, parse(line, text).map_err(at)?));
        }
    }
}
