//! What is wrong with a file of samples.

use plimsoll_formats::text::json_reason;

use crate::tokenizer::TokenizerProblem;

/// What can be wrong with a file of samples.
#[derive(Debug, thiserror::Error)]
pub enum DataProblem {
    /// A folder without the file that is looked for.
    #[error("expected the file {looked_for} in this folder, found none")]
    NoFile {
        /// Its name.
        looked_for: &'static str,
    },
    /// A file that is too large to hold in memory.
    #[error("expected at most {limit} {unit}, found more")]
    TooMuch {
        /// The limit.
        limit: u64,
        /// What is counted.
        unit: &'static str,
    },
    /// A line that is too long.
    #[error("line {line}: expected at most {limit} bytes, found more")]
    LongLine {
        /// The line, from 1.
        line: usize,
        /// The limit.
        limit: u64,
    },
    /// A line that is not UTF-8.
    #[error("line {line}: expected UTF-8, found other bytes from byte {valid} of the line on")]
    NotUtf8 {
        /// The line, from 1.
        line: usize,
        /// How many bytes of it are well-formed.
        valid: usize,
    },
    /// A line that is not a JSON object.
    #[error("line {line}: expected one JSON object, found {}", json_reason(.source))]
    NotJson {
        /// The line, from 1.
        line: usize,
        /// The parser's reason.
        source: serde_json::Error,
    },
    /// A list, most likely of all samples.
    #[error("line {line}: expected one JSON object a line, found a JSON list: write one object a line")]
    List {
        /// The line, from 1.
        line: usize,
    },
    /// An object of none of the five shapes.
    #[error(
        "line {line}: expected the fields `messages`, `conversations`, `prompt` and `completion`, `instruction` and \
         `output`, or `text`, found {}",
        if found.is_empty() { "none".to_owned() } else { found.join(", ") }
    )]
    Shape {
        /// The line, from 1.
        line: usize,
        /// Its fields.
        found: Vec<String>,
    },
    /// A field with something else in it than its shape wants.
    #[error("line {line}: `{field}`: expected {expected}, found {found}")]
    Field {
        /// The line, from 1.
        line: usize,
        /// The field, such as `messages[2].content`.
        field: String,
        /// What it should hold.
        expected: &'static str,
        /// What it holds.
        found: String,
    },
    /// A chat in which the assistant says nothing.
    #[error("line {line}: expected an assistant's turn to score, found none")]
    NoAnswer {
        /// The line, from 1.
        line: usize,
    },
    /// An answer without a token in it.
    #[error("line {line}: expected an answer to score, found an empty one")]
    EmptyAnswer {
        /// The line, from 1.
        line: usize,
    },
    /// Nothing in front of the answer: its first token cannot be predicted from anything.
    #[error("line {line}: expected a prompt before the first token of the answer, found none")]
    NoPrompt {
        /// The line, from 1.
        line: usize,
    },
    /// A shape that has no text without a template.
    #[error(
        "line {line}: {shape} lines need a chat template, and there is none: give one with --template FILE, or lines \
         of `prompt` and `completion`"
    )]
    NeedsTemplate {
        /// The line, from 1.
        line: usize,
        /// The shape's name.
        shape: &'static str,
    },
    /// A chat that the template refuses, or a text that the tokenizer refuses.
    #[error("line {line}: {problem}")]
    Refused {
        /// The line, from 1.
        line: usize,
        /// The reason.
        problem: TokenizerProblem,
    },
    /// A template that writes the prompt otherwise once the answer follows.
    #[error(
        "line {line}: this chat template rewrites what stands before turn {turn} of the chat once that turn is there, \
         so the answer cannot be told from the prompt: {advice}"
    )]
    Rewritten {
        /// The line, from 1.
        line: usize,
        /// The turn, from 1.
        turn: usize,
        /// What to do about it.
        advice: &'static str,
    },
    /// A question that the model cannot hold.
    #[error("line {line}: {tokens} tokens: expected fewer than the model's context of {context}")]
    LongQuestion {
        /// The line, from 1.
        line: usize,
        /// Its tokens.
        tokens: usize,
        /// The context, in tokens.
        context: usize,
    },
    /// A sample whose prompt cannot be answered.
    #[error(
        "line {line}: a prompt of {tokens} tokens cannot be answered: expected one of 2 to {room}, which leaves room for \
         the answer in the model's context"
    )]
    Unanswerable {
        /// The line, from 1.
        line: usize,
        /// Tokens of the prompt.
        tokens: usize,
        /// How many there may be.
        room: usize,
    },
    /// A tokenizer of another model.
    #[error(
        "line {line}: expected tokens of the model's vocabulary of {vocabulary}, found others: the tokenizer belongs to \
         another model"
    )]
    Vocabulary {
        /// The line, from 1.
        line: usize,
        /// Number of tokens that the model has.
        vocabulary: usize,
    },
    /// Not one byte.
    #[error("expected at least one sample, found an empty file")]
    EmptyFile,
    /// No sample is left.
    #[error("expected at least one sample, found {}", found_samples(*.skipped, *.max_length))]
    NoSamples {
        /// How many are too long.
        skipped: usize,
        /// The longest that is scored, in tokens.
        max_length: usize,
    },
}

fn found_samples(skipped: usize, max_length: usize) -> String {
    match skipped {
        0 => "only blank lines".to_owned(),
        1 => format!("one, longer than {max_length} tokens, the most that --max-length and the model's context allow"),
        _ => format!(
            "{skipped} samples, all longer than {max_length} tokens, the most that --max-length and the model's context allow"
        ),
    }
}
