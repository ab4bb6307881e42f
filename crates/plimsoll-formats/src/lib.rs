//! Files that plimsoll reads and writes, none of which it trusts.
//!
//! - [`Tensors`]: weights in safetensors files, mapped and checked;
//! - [`Gguf`]: the GGUF container, its metadata and its quantised tensors;
//! - [`Stored`]: blocks of quantised weights, decoded to `f32`;
//! - [`files`]: reading with limits, hashing, and writing through a temporary file and a rename;
//! - [`text`]: escaping of text that comes from a file and goes to a terminal.
//!
//! Every count and length that a file states is compared with a limit and with the file's size before anything is
//! allocated by it. Nothing here knows a language model.
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
