//! Errors of files: a path and the problem.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// An error of a file or folder: its path and the problem.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct FileError {
    /// The file or folder.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: FileProblem,
}

/// What is wrong with a file or folder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileProblem {
    /// It cannot be read: the operating system's reason, or what is there instead of a file.
    #[error("cannot read: {0}")]
    Read(io::Error),
    /// It cannot be written: the operating system's reason.
    #[error("cannot write: {0}")]
    Write(io::Error),
    /// A folder that must be new exists already.
    #[error("exists already: give another folder, or remove it")]
    Exists,
    /// Its content is wrong: a [`GgufProblem`](crate::GgufProblem) or a [`TensorsProblem`](crate::TensorsProblem).
    #[error("{0}")]
    Content(Problem),
}

impl FileError {
    /// An error of content that breaks its format.
    pub fn content(path: impl Into<PathBuf>, problem: impl Into<Problem>) -> Self {
        Self { path: path.into(), problem: FileProblem::Content(problem.into()) }
    }

    /// An error of a file that cannot be read, for `map_err`.
    pub fn read(path: &Path) -> impl FnOnce(io::Error) -> Self + use<'_> {
        move |reason| Self { path: path.to_owned(), problem: FileProblem::Read(reason) }
    }

    /// An error of a file that cannot be written, for `map_err`.
    pub fn write(path: &Path) -> impl FnOnce(io::Error) -> Self + use<'_> {
        move |reason| Self { path: path.to_owned(), problem: FileProblem::Write(reason) }
    }
}

/// What is wrong with an input: the error of the module that reads it.
///
/// It holds an error of any type, so types with a problem do not depend on the modules that find it.
pub struct Problem(Box<dyn StdError + Send + Sync>);

impl Problem {
    /// The problem as an error of type `P`, if it is one.
    pub fn downcast_ref<P: StdError + 'static>(&self) -> Option<&P> {
        self.0.downcast_ref()
    }

    /// The problem as an error of type `P`, by value.
    ///
    /// # Errors
    /// The problem itself, if it is of another type.
    pub fn downcast<P: StdError + 'static>(self) -> Result<P, Self> {
        self.0.downcast().map(|problem| *problem).map_err(Self)
    }
}

impl<P: StdError + Send + Sync + 'static> From<P> for Problem {
    fn from(problem: P) -> Self {
        Self(Box::new(problem))
    }
}

impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
