//! The library's one error type.
//!
//! Every error about something read from outside names the path and what is wrong there; the rooms own the
//! vocabulary of problems ([`Problem`]), this file only joins them to a path and sorts them into kinds.

use std::io;
use std::path::{Path, PathBuf};

use crate::adapter::AdapterProblem;
use crate::data::DataProblem;
use crate::model::{GgufProblem, ModelProblem};
use crate::tokenizer::TokenizerProblem;

/// A result of this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whatever can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A model, an adapter or data that cannot be used as it is.
    #[error("{}: {problem}", path.display())]
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
