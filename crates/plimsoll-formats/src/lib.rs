//! File formats of plimsoll: safe readers for untrusted files, and atomic writers.
//!
//! - [`Tensors`]: weights in safetensors files, memory-mapped and checked;
//! - [`Gguf`]: the GGUF container, its metadata and its quantised tensors;
//! - [`Stored`]: blocks of quantised weights, decoded to `f32`;
//! - [`files`]: reading with limits, hashing, and writing through a temporary file and a rename;
//! - [`text`]: escaping of text from files for messages on a terminal.
//!
//! Every count and length in a file is compared with a limit and with the file's size before memory is allocated for
//! it. Nothing here depends on language models.
//!
//! ```
//! use plimsoll_formats::{FileProblem, Gguf, GgufProblem, files};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("model.gguf");
//! files::write_file(&path, b"not a GGUF file")?;
//! let FileProblem::Content(problem) = Gguf::open(&path).unwrap_err().problem else { panic!("readable") };
//! assert_eq!(problem.downcast_ref(), Some(&GgufProblem::Magic));
//! # Ok(())
//! # }
//! ```

mod blocks;
mod error;
pub mod files;
mod gguf;
mod safetensors;
pub mod text;

pub use blocks::{BlockType, Stored};
pub use error::{FileError, FileProblem, Problem};
pub use gguf::{Gguf, GgufProblem, Metadata, Value};
pub use safetensors::{Tensors, TensorsProblem};
