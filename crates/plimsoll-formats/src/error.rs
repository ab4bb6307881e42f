//! Errors of files: a path, and what is wrong there.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A file or folder that cannot be read or written as it is.
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
    /// It cannot be read: the operating system's reason, or what it is instead of a readable file.
    #[error("cannot read: {0}")]
    Read(io::Error),
    /// It cannot be written: the operating system's reason.
    #[error("cannot write: {0}")]
    Write(io::Error),
    /// A folder that should be new is there already.
    #[error("exists already: give another folder, or remove it")]
    Exists,
    /// Its content: a [`GgufProblem`](crate::GgufProblem) or a [`TensorsProblem`](crate::TensorsProblem).
    #[error("{0}")]
    Content(Problem),
}

impl FileError {
    /// Content that breaks its format.
    pub fn content(path: impl Into<PathBuf>, problem: impl Into<Problem>) -> Self {
        Self { path: path.into(), problem: FileProblem::Content(problem.into()) }
    }

    /// An unreadable file, for `map_err`.
    pub fn read(path: &Path) -> impl FnOnce(io::Error) -> Self + use<'_> {
        move |reason| Self { path: path.to_owned(), problem: FileProblem::Read(reason) }
    }

    /// An unwritable file, for `map_err`.
    pub fn write(path: &Path) -> impl FnOnce(io::Error) -> Self + use<'_> {
        move |reason| Self { path: path.to_owned(), problem: FileProblem::Write(reason) }
    }
}

/// What is wrong with an input: an error of whichever module reads it.
///
/// It holds any error, so that the types that carry a problem do not depend on the modules that find one.
pub struct Problem(Box<dyn StdError + Send + Sync>);

impl Problem {
    /// The problem as one module's error, where it is that module's.
    pub fn downcast_ref<P: StdError + 'static>(&self) -> Option<&P> {
        self.0.downcast_ref()
    }

    /// The same, by value.
    ///
    /// # Errors
    /// The problem, where it is another module's.
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
