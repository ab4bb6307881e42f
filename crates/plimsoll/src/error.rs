//! The library's one error type.
//!
//! Every error about something read from outside names the path and what is wrong there; the rooms own the
//! vocabulary of problems ([`Problem`]), this file only joins them to a path and sorts them into kinds.

use std::io;
use std::path::{Path, PathBuf};

use crate::adapter::AdapterProblem;
use crate::data::DataProblem;
use crate::eval::TaskProblem;
use crate::model::{GgufProblem, ModelProblem};
use crate::report::ReportProblem;
use crate::tokenizer::TokenizerProblem;

/// A result of this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whatever can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A model, an adapter or data that cannot be used as it is.
    #[error("{}: {}", path.display(), escaped(&problem.to_string(), Lines::Keep))]
    Input {
        /// The file or folder at fault.
        path: PathBuf,
        /// What is wrong with it.
        problem: Problem,
    },
    /// A result that could not be written.
    #[error("{}: cannot write: {reason}", path.display())]
    Write {
        /// The file or folder that was being written.
        path: PathBuf,
        /// The operating system's reason.
        reason: io::Error,
    },
    /// The request itself makes no sense.
    #[error("{0}")]
    Usage(String),
    /// An engine that cannot do its work.
    #[error("engine: {0}")]
    Engine(String),
    /// The caller asked to stop; nothing half-written is left.
    #[error("interrupted")]
    Interrupted,
    /// A bug: not the user's doing.
    #[error("internal error: {0}")]
    Internal(String),
}

/// What is wrong with an input, in the words of the room that reads it.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The operating system refused the read.
    #[error("cannot read: {0}")]
    Read(#[from] io::Error),
    /// The base model.
    #[error(transparent)]
    Model(#[from] ModelProblem),
    /// The structure of a GGUF file.
    #[error(transparent)]
    Gguf(#[from] GgufProblem),
    /// The tokenizer or the chat template.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerProblem),
    /// The adapter.
    #[error(transparent)]
    Adapter(#[from] AdapterProblem),
    /// The samples.
    #[error(transparent)]
    Data(#[from] DataProblem),
    /// A task, or the data that it reads.
    #[error(transparent)]
    Task(#[from] TaskProblem),
    /// What a search is said to have written.
    #[error(transparent)]
    Report(#[from] ReportProblem),
}

/// The sort of an [`Error`], from which a program decides its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Not the user's doing.
    Internal,
    /// The request.
    Usage,
    /// The model, the adapter or the data.
    Input,
    /// An engine, or what it reaches for.
    Engine,
    /// The caller asked to stop.
    Interrupted,
}

/// The longest text of a stranger that a message quotes, in characters.
const LONGEST_SHOWN: usize = 200;

/// What a file says, as it may stand in a message: on one line, with the characters escaped that could steer a terminal
/// or reorder the text, and without its middle where it is long.
pub(crate) fn shown(text: &str) -> String {
    const END: usize = LONGEST_SHOWN / 4;
    let length = text.chars().count();
    if length <= LONGEST_SHOWN {
        return escaped(text, Lines::Join);
    }
    let start: String = text.chars().take(LONGEST_SHOWN - END).collect();
    let end: String = text.chars().skip(length - END).collect();
    format!("{}…{}", escaped(&start, Lines::Join), escaped(&end, Lines::Join))
}

/// Why a text is not the JSON that is expected, with the column. The line is left out: the parser counts it within the
/// text that it was given.
pub(crate) fn json_reason(error: &serde_json::Error) -> String {
    let reason = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let Some(reason) = reason.strip_suffix(&place) else { return shown(&reason) };
    // The parser's word for the rest of `true`, `false` or `null`.
    let reason = if reason == "expected ident" { "unknown word" } else { reason };
    let what = if error.is_data() { "" } else { "text that is not JSON: " };
    format!("{what}{} at column {}", shown(reason), error.column())
}

/// What becomes of the ends of lines.
#[derive(Clone, Copy, PartialEq)]
enum Lines {
    Keep,
    Join,
}

fn escaped(text: &str, lines: Lines) -> String {
    let is_unruly = |c: char| match c {
        '\n' => lines == Lines::Join,
        '\u{200E}' | '\u{200F}' | '\u{061C}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}' => true,
        c => c.is_control(),
    };
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unruly(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

impl Error {
    /// An [`Error::Input`] at `path`.
    pub fn input(path: impl Into<PathBuf>, problem: impl Into<Problem>) -> Self {
        Self::Input { path: path.into(), problem: problem.into() }
    }

    /// An [`Error::Write`] at `path`, in the shape that `map_err` wants.
    pub fn write(path: &Path) -> impl FnOnce(io::Error) -> Self + use<'_> {
        move |reason| Self::Write { path: path.to_owned(), reason }
    }

    /// An unreadable input at `path`, in the shape that `map_err` wants.
    pub fn read(path: &Path) -> impl FnOnce(io::Error) -> Self + use<'_> {
        move |source| Self::input(path, source)
    }

    /// What sort of error this is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Input { .. } => ErrorKind::Input,
            Self::Usage(_) => ErrorKind::Usage,
            Self::Engine(_) => ErrorKind::Engine,
            Self::Interrupted => ErrorKind::Interrupted,
            Self::Write { .. } | Self::Internal(_) => ErrorKind::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_text_is_short_and_cannot_steer_the_terminal() {
        assert_eq!(shown("a\u{1b}[31mb\nc\u{202e}d é"), "a\\u{1b}[31mb\\nc\\u{202e}d é");
        let long = format!("{}{}", "a".repeat(1000), "z".repeat(50));
        assert_eq!(shown(&long), format!("{}…{}", "a".repeat(150), "z".repeat(50)));
        let model = ModelProblem::MissingTensor("x\u{1b}]0;y".repeat(999));
        let message = Error::input("m", model).to_string();
        assert!(message.chars().count() < 300 * 6 && !message.contains('\u{1b}'), "{message}");
    }

    #[test]
    fn what_is_not_json_is_said_to_be() {
        let reason = |text: &str| json_reason(&serde_json::from_str::<Vec<u8>>(text).unwrap_err());
        assert_eq!(reason("nope"), "text that is not JSON: unknown word at column 2");
        assert_eq!(reason("[1"), "text that is not JSON: EOF while parsing a list at column 2");
        assert_eq!(reason("[\"a\"]"), "invalid type: string \"a\", expected u8 at column 4");
    }

    #[test]
    fn what_no_room_escaped_is_escaped_in_the_end() {
        let problem = io::Error::other("one\u{7}\n  two");
        assert_eq!(Error::input("m", problem).to_string(), "m: cannot read: one\\u{7}\n  two");
    }
}
