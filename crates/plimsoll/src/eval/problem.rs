//! What is wrong with a task, or with the data that it reads.

use std::path::PathBuf;

use plimsoll_formats::text::{json_reason, shown};
use plimsoll_stats::metrics::PatternProblem;

use super::built_in::names;
use crate::data::DataProblem;

/// Where a row is, as messages name it. All numbers count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line of a file that has a row a line.
    Line(usize),
    /// A place in a list.
    Row(usize),
    /// A row of a table, and the line that it begins on: a quoted field may have several lines.
    TableRow {
        /// The row, from the one below the names.
        row: usize,
        /// The line.
        line: usize,
    },
    /// An example of the task itself.
    Example(usize),
}

impl Place {
    /// The row's number: which of the file's rows it is.
    pub(super) fn number(self) -> usize {
        match self {
            Self::Line(number) | Self::Row(number) | Self::TableRow { row: number, .. } | Self::Example(number) => {
                number
            }
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Row(row) => write!(f, "row {row}"),
            Self::TableRow { row, line } => write!(f, "row {row} (line {line})"),
            Self::Example(example) => write!(f, "example {example}"),
        }
    }
}

/// What can be wrong with a task or with the data that it reads.
#[derive(Debug, thiserror::Error)]
pub enum TaskProblem {
    /// Neither a built-in task nor a file.
    #[error("expected a built-in task ({}) or a TOML file, found neither", names().join(", "))]
    Unknown,
    /// Not TOML, or not a task.
    #[error("not a task: {}", shown(.0.trim_end()))]
    Toml(String),
    /// A field whose value makes no sense.
    #[error("`{field}`: expected {expected}, found {}", shown(.found))]
    Field {
        /// The field.
        field: &'static str,
        /// What it should hold.
        expected: &'static str,
        /// What it holds.
        found: String,
    },
    /// A pattern of a metric that cannot be used.
    #[error("line {line}: {problem}")]
    Pattern {
        /// The line of the task's file, from 1.
        line: usize,
        /// What is wrong with it.
        problem: PatternProblem,
    },
    /// A template that does not parse or render.
    #[error("template `{template}`: {reason}")]
    Template {
        /// The template.
        template: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A row that a template cannot be rendered for.
    #[error("{place}: template `{template}`: {reason}; the row has {fields}")]
    Fields {
        /// The row.
        place: Place,
        /// The template.
        template: String,
        /// What is wrong: which field is undefined.
        reason: String,
        /// The names of the row's fields.
        fields: String,
    },
    /// A row without anything to compare an answer with.
    #[error("{place}: expected a reference, found none: {reasons}; the row has {fields}")]
    NoReference {
        /// The row.
        place: Place,
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
        place: Place,
        /// The task's name for the metric.
        metric: String,
        /// The reference.
        reference: String,
    },
    /// A row of which no sample can be made.
    #[error("{place}: {reason}")]
    Sample {
        /// The row.
        place: Place,
        /// Why.
        reason: String,
    },
    /// Examples that give the answers away.
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
    /// A folder where a file is wanted.
    #[error("expected a data file, found a folder")]
    Folder,
    /// A file that is too large to hold in memory.
    #[error("expected at most {limit} bytes, found more")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// A file of too many rows.
    #[error("expected at most {limit} rows, found more")]
    TooManyRows {
        /// The limit.
        limit: usize,
    },
    /// No rows.
    #[error("expected at least one row, found no rows")]
    NoRows,
    /// A file of a kind that is not read.
    #[error("expected a file that ends with .jsonl, .json or .csv, or one of these with .gz behind")]
    Ending,
    /// Other bytes than text.
    #[error("expected UTF-8, found other bytes from byte {valid} on")]
    NotUtf8 {
        /// How many bytes are well-formed.
        valid: usize,
    },
    /// JSON of another form than the file's ending says.
    #[error("expected {expected}, found {found}")]
    Form {
        /// What the ending says.
        expected: &'static str,
        /// What is there, and what its ending is.
        found: &'static str,
    },
    /// Not the JSON that is wanted.
    #[error("line {line}: {}", json_reason(.source))]
    Json {
        /// The line, from 1.
        line: usize,
        /// The parser's reason.
        source: serde_json::Error,
    },
    /// Not CSV.
    #[error("{}", shown(.0))]
    Csv(String),
    /// A row of a table with more or fewer fields than names.
    #[error("{place}: expected {expected} fields, as the first line has, found {found}")]
    Columns {
        /// The row.
        place: Place,
        /// How many there should be.
        expected: u64,
        /// How many there are.
        found: u64,
    },
    /// A line that falls into another number of parts.
    #[error("line {line}: expected {expected} parts between `{}`, found {found}", shown(.separator))]
    Parts {
        /// The line, from 1.
        line: usize,
        /// What stands between the parts.
        separator: String,
        /// How many there should be.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// A file that belongs to another and is not there.
    #[error("expected the file {} too, plain or with .gz behind; found none", shown(.looked_for))]
    NoFile {
        /// Its name.
        looked_for: String,
    },
    /// Files of which line n should belong to line n.
    #[error("expected {expected} lines, as {} has, found {found}", other.display())]
    Lengths {
        /// The other file.
        other: PathBuf,
        /// Its lines.
        expected: usize,
        /// Lines of this one.
        found: usize,
    },
    /// Every sample is longer than the context.
    #[error(
        "expected at least one sample, found {skipped}, none of which fits into the model's context of {context} tokens with \
         its answer: see --max-tokens"
    )]
    AllTooLong {
        /// How many.
        skipped: usize,
        /// The context, in tokens.
        context: usize,
    },
    /// More examples are asked for than there are.
    #[error("expected at least {expected} examples, found {found}: give a file of more with --examples")]
    TooFewExamples {
        /// How many are wanted.
        expected: usize,
        /// How many there are.
        found: usize,
    },
}

impl TaskProblem {
    /// A row of which no sample can be made. The reason counts lines, which a list or a table does not.
    pub(super) fn sample(place: Place, problem: &DataProblem) -> Self {
        let reason = problem.to_string();
        let line = format!("line {}: ", place.number());
        Self::Sample { place, reason: reason.strip_prefix(&line).unwrap_or(&reason).to_owned() }
    }
}
