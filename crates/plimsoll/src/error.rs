//! The library's error type: a kind, a path, and the problem.
//!
//! Each module has its own enum of problems ([`ModelProblem`](crate::model::ModelProblem),
//! [`AdapterProblem`](crate::lora::adapter::AdapterProblem) and others). [`Problem`] holds any of them, so this module
//! depends on none.

use std::io;
use std::path::{Path, PathBuf};

use plimsoll_formats::text::{LineFeeds, escaped};
use plimsoll_formats::{FileError, FileProblem, Problem};

/// A result of this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this library.
///
/// ```
/// use plimsoll::Error;
/// use plimsoll::Model;
/// use plimsoll::model::ModelProblem;
///
/// let error = Model::open("owner/name").unwrap_err();
/// let Error::Input { problem, .. } = error else { panic!("an input error") };
/// assert!(matches!(problem.downcast_ref::<ModelProblem>(), Some(ModelProblem::NoSuchPath)));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A model, an adapter or data that cannot be used.
    #[error("{}: {}", path.display(), escaped(&problem.to_string(), LineFeeds::Keep))]
    Input {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: Problem,
    },
    /// A result that cannot be written.
    #[error("{}: cannot write: {reason}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        reason: io::Error,
    },
    /// Options that are out of range or exclude each other.
    #[error("{0}")]
    Usage(String),
    /// A failure of an engine.
    #[error("engine: {0}")]
    Engine(String),
    /// The caller asked to stop. No incomplete file is left.
    #[error("interrupted")]
    Interrupted,
    /// A bug in this library.
    #[error("internal error: {0}")]
    Internal(String),
}

/// The kind of an [`Error`], from which a program chooses its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A bug, or a result that cannot be written.
    Internal,
    /// Wrong options.
    Usage,
    /// A wrong model, adapter or data file.
    Input,
    /// A failure of an engine.
    Engine,
    /// The caller asked to stop.
    Interrupted,
}

impl Error {
    /// An [`Error::Input`] at `path`.
    pub fn input(path: impl Into<PathBuf>, problem: impl Into<Problem>) -> Self {
        Self::Input { path: path.into(), problem: problem.into() }
    }

    /// An [`Error::Write`] at `path`, for `map_err`.
    pub fn write(path: &Path) -> impl FnOnce(io::Error) -> Self + use<'_> {
        move |reason| Self::Write { path: path.to_owned(), reason }
    }

    /// An unreadable input at `path`, for `map_err`.
    pub fn read(path: &Path) -> impl FnOnce(io::Error) -> Self + use<'_> {
        move |reason| Self::input(path, FileProblem::Read(reason))
    }

    /// The kind of the error.
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

impl From<FileError> for Error {
    fn from(FileError { path, problem }: FileError) -> Self {
        match problem {
            FileProblem::Write(reason) => Self::Write { path, reason },
            FileProblem::Exists => Self::Usage(format!("{} {problem}", path.display())),
            FileProblem::Content(problem) => Self::Input { path, problem },
            _ => Self::input(path, problem),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("tensor {0} is missing")]
    struct Missing(String);

    #[test]
    fn a_problem_keeps_its_type_and_its_control_characters_are_escaped() {
        let error = Error::input("m", Missing("x\u{1b}]0;y\n".into()));
        assert_eq!(error.to_string(), "m: tensor x\\u{1b}]0;y\n is missing");
        let Error::Input { problem, .. } = error else { panic!("an input error") };
        assert!(problem.downcast_ref::<Missing>().is_some() && problem.downcast_ref::<FileProblem>().is_none());
    }

    #[test]
    fn errors_of_files_become_errors_of_the_library() {
        let of = |problem: FileProblem| Error::from(FileError { path: "f".into(), problem });
        let read = of(FileProblem::Read(io::Error::other("one\u{7}\n  two")));
        assert_eq!((read.to_string().as_str(), read.kind()), ("f: cannot read: one\\u{7}\n  two", ErrorKind::Input));
        let write = of(FileProblem::Write(io::Error::other("full")));
        assert_eq!((write.to_string().as_str(), write.kind()), ("f: cannot write: full", ErrorKind::Internal));
        assert_eq!(of(FileProblem::Exists).kind(), ErrorKind::Usage);
    }
}
