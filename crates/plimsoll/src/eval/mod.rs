//! Evaluation of the base model, the full adapter and its variants on a task, by metrics of generated answers.
//!
//! Every variant answers the same prompts with the same random stream, and differences are paired by sample. There are
//! three steps: [`Evaluation::open`] reads and checks all inputs and writes nothing; [`Evaluation::run`] generates and
//! scores, and keeps a journal; [`Evaluation::finish`] computes metrics, compares variants and writes the result.
//!
//! ```
//! use plimsoll::eval::{Task, names};
//!
//! let task = Task::open("gsm8k")?;
//! let metrics: Vec<&str> = task.metrics.iter().map(|measured| measured.name.as_str()).collect();
//! assert_eq!(metrics, ["strict", "flexible", "perplexity"]);
//! assert!(names().contains(&"gsm8k"));
//! # Ok::<(), plimsoll::Error>(())
//! ```

mod built_in;
mod evaluation;
mod outcome;
mod problem;
mod rows;
mod run;
mod task;

pub use built_in::names;
pub use evaluation::{EvalOptions, Evaluation};
pub use problem::{RowPlace, TaskProblem};
pub use rows::RowLayout;
pub use run::{Answered, EvalProgress};
pub use task::{Measured, Task};

pub(crate) use outcome::statistics;
