//! Errors of tasks and of their data files.

use std::path::PathBuf;

use plimsoll_formats::text::{json_reason, shown};
use plimsoll_stats::metrics::PatternProblem;

use super::built_in::names;
use crate::data::DataProblem;

/// Position of a row in its file, as error messages print it. All numbers count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RowPlace {
    /// A line of a file with one row per line.
    Line(usize),
    /// An element of a list.
    Row(usize),
    /// A row of a table, with its first line: a quoted field may have several lines.
    TableRow {
        /// The row; the row of the names does not count.
        row: usize,
        /// Its first line in the file.
        line: usize,
    },
    /// One of the task's own examples.
    Example(usize),
}

impl RowPlace {
    /// The number of the row.
    pub(super) fn number(self) -> usize {
        match self {
            Self::Line(number) | Self::Row(number) | Self::TableRow { row: number, .. } | Self::Example(number) => {
                number
            }
        }
    }
}

impl std::fmt::Display for RowPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Row(row) => write!(f, "row {row}"),
            Self::TableRow { row, line } => write!(f, "row {row} (line {line})"),
            Self::Example(example) => write!(f, "example {example}"),
        }
    }
}

/// An error of a task or of its data file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskProblem {
    /// Neither a built-in task nor a file.
    #[error("expected a built-in task ({}) or a TOML file, found neither", names().join(", "))]
    Unknown,
    /// Not TOML, or not a task.
    #[error("not a task: {}", shown(.0.trim_end()))]
    Toml(String),
    /// An invalid value of a field.
    #[error("`{field}`: expected {expected}, found {}", shown(.found))]
    Field {
        /// The field.
        field: &'static str,
        /// What is expected.
        expected: &'static str,
        /// The value.
        found: String,
    },
    /// An invalid regular expression of a metric.
    #[error("line {line}: {problem}")]
    Pattern {
        /// The line of the task's file, from 1.
        line: usize,
        /// What is wrong with it.
        problem: PatternProblem,
    },
    /// A template that cannot be parsed or rendered.
    #[error("template `{template}`: {reason}")]
    Template {
        /// The template.
        template: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A template that cannot be rendered for a row.
    #[error("{place}: template `{template}`: {reason}; the row has {fields}")]
    Fields {
        /// The row.
        place: RowPlace,
        /// The template.
        template: String,
        /// What is wrong, such as an undefined field.
        reason: String,
        /// The names of the row's fields.
        fields: String,
    },
    /// A row without a reference.
    #[error("{place}: expected a reference, found none: {reasons}; the row has {fields}")]
    NoReference {
        /// The row.
        place: RowPlace,
        /// Why each of the task's `references` has no text.
        reasons: String,
        /// The names of the row's fields.
        fields: String,
    },
    /// A reference that a numeric metric cannot read.
    #[error(
        "{place}: metric `{}`: expected a reference that is a number, found `{}`",
        shown(.metric),
        shown(.reference)
    )]
    NoNumber {
        /// The row.
        place: RowPlace,
        /// The metric's name in the task.
        metric: String,
        /// The reference.
        reference: String,
    },
    /// A row that cannot become a sample.
    #[error("{place}: {reason}")]
    Sample {
        /// The row.
        place: RowPlace,
        /// Why.
        reason: String,
    },
    /// Examples from the file of the samples: they would contain the answers.
    #[error("expected a file of other samples for --examples, found the samples themselves")]
    OwnExamples,
    /// A line that is too long.
    #[error("line {line}: expected at most {limit} bytes, found more")]
    LongLine {
        /// The line, from 1.
        line: usize,
        /// The limit.
        limit: usize,
    },
    /// A folder instead of a file.
    #[error("expected a data file, found a folder")]
    Folder,
    /// A file that is too large.
    #[error("expected at most {limit} bytes, found more")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// A file with too many rows.
    #[error("expected at most {limit} rows, found more")]
    TooManyRows {
        /// The limit.
        limit: usize,
    },
    /// No rows.
    #[error("expected at least one row, found no rows")]
    NoRows,
    /// An unsupported kind of file.
    #[error("expected a file that ends with .jsonl, .json or .csv, with or without .gz after it")]
    Ending,
    /// Bytes that are not UTF-8.
    #[error("expected UTF-8, found other bytes from byte {valid} on")]
    NotUtf8 {
        /// Number of valid bytes at the start.
        valid: usize,
    },
    /// JSON of another form than the file's ending requires.
    #[error("expected {expected}, found {found}")]
    Form {
        /// The form that the ending requires.
        expected: &'static str,
        /// The form that was found, with its ending.
        found: &'static str,
    },
    /// Invalid JSON.
    #[error("line {line}: {}", json_reason(.source))]
    Json {
        /// The line, from 1.
        line: usize,
        /// The parser's reason.
        source: serde_json::Error,
    },
    /// Invalid CSV.
    #[error("{}", shown(.0))]
    Csv(String),
    /// A row of a table with more or fewer fields than names.
    #[error("{place}: expected {expected} fields, as the first line has, found {found}")]
    Columns {
        /// The row.
        place: RowPlace,
        /// Number of names.
        expected: u64,
        /// Number of fields.
        found: u64,
    },
    /// A line with another number of parts than fields.
    #[error("line {line}: expected {expected} parts between `{}`, found {found}", shown(.separator))]
    Parts {
        /// The line, from 1.
        line: usize,
        /// The separator of the parts.
        separator: String,
        /// Number of fields.
        expected: usize,
        /// Number of parts.
        found: usize,
    },
    /// A missing file of a set of parallel files.
    #[error("expected the file {} too, with or without .gz after it; found none", shown(.looked_for))]
    NoFile {
        /// Its name.
        looked_for: String,
    },
    /// Parallel files with different numbers of lines.
    #[error("expected {expected} lines, as {} has, found {found}", other.display())]
    Lengths {
        /// The other file.
        other: PathBuf,
        /// Number of its lines.
        expected: usize,
        /// Number of lines of this one.
        found: usize,
    },
    /// All samples are longer than the model's context.
    #[error(
        "expected at least one sample that fits with its answer into the model's context of {context} tokens, found \
         none of {skipped}: see --max-tokens"
    )]
    AllTooLong {
        /// Number of samples.
        skipped: usize,
        /// The context, in tokens.
        context: usize,
    },
    /// Fewer examples than requested.
    #[error("expected at least {expected} examples, found {found}: give a file with more with --examples")]
    TooFewExamples {
        /// Number of requested examples.
        expected: usize,
        /// Number of examples.
        found: usize,
    },
}

impl TaskProblem {
    /// The error of a row that cannot become a sample. The position in `problem` is a line; it is replaced by `place`.
    pub(super) fn sample(place: RowPlace, problem: &DataProblem) -> Self {
        let reason = problem.to_string();
        let line = format!("line {}: ", place.number());
        Self::Sample { place, reason: reason.strip_prefix(&line).unwrap_or(&reason).to_owned() }
    }
}
