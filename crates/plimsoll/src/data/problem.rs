//! Problems of data files.

use plimsoll_formats::text::json_reason;

use crate::tokenizer::TokenizerProblem;

/// A problem of a data file, with its line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataProblem {
    /// A folder without the expected file.
    #[error("expected the file {looked_for} in this folder, found none")]
    NoFile {
        /// The expected file name.
        looked_for: &'static str,
    },
    /// A file above the limit on its size.
    #[error("expected at most {limit} {unit}, found more")]
    TooMuch {
        /// The limit.
        limit: u64,
        /// The unit of the limit.
        unit: &'static str,
    },
    /// A line above the limit on its length.
    #[error("line {line}: expected at most {limit} bytes, found more")]
    LongLine {
        /// The line, from 1.
        line: usize,
        /// The limit in bytes.
        limit: u64,
    },
    /// A line that is not UTF-8.
    #[error("line {line}: expected UTF-8, found invalid bytes after {valid} bytes of the line")]
    NotUtf8 {
        /// The line, from 1.
        line: usize,
        /// Number of valid bytes before the first invalid one.
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
    /// A JSON list, most likely of all samples.
    #[error("line {line}: expected one JSON object per line, found a JSON list: write one object per line")]
    List {
        /// The line, from 1.
        line: usize,
    },
    /// An object with none of the five shapes.
    #[error(
        "line {line}: expected the fields `messages`, `conversations`, `prompt` and `completion`, `instruction` and \
         `output`, or `text`, found {}",
        if found.is_empty() { "none".to_owned() } else { found.join(", ") }
    )]
    Shape {
        /// The line, from 1.
        line: usize,
        /// The fields of the line.
        found: Vec<String>,
    },
    /// A field of the wrong type.
    #[error("line {line}: `{field}`: expected {expected}, found {found}")]
    Field {
        /// The line, from 1.
        line: usize,
        /// The field, such as `messages[2].content`.
        field: String,
        /// The expected type.
        expected: &'static str,
        /// The type in the file.
        found: String,
    },
    /// A chat without a message of the assistant.
    #[error("line {line}: expected a message of the assistant to score, found none")]
    NoAnswer {
        /// The line, from 1.
        line: usize,
    },
    /// An answer without tokens.
    #[error("line {line}: expected an answer to score, found an empty one")]
    EmptyAnswer {
        /// The line, from 1.
        line: usize,
    },
    /// An answer without a token before it, so that its first token has no prediction.
    #[error("line {line}: expected a prompt before the first token of the answer, found none")]
    NoPrompt {
        /// The line, from 1.
        line: usize,
    },
    /// A shape that needs a chat template.
    #[error(
        "line {line}: {shape} lines need a chat template, but there is none: pass one with --template FILE, or use \
         lines of `prompt` and `completion`"
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
    /// A template that renders a prompt differently if the answer follows.
    #[error(
        "line {line}: this chat template changes the text before message {turn} when message {turn} is added, so the \
         answer cannot be separated from the prompt: {advice}"
    )]
    Rewritten {
        /// The line, from 1.
        line: usize,
        /// The message of the chat, from 1.
        turn: usize,
        /// What to do.
        advice: &'static str,
    },
    /// A question longer than the model's context.
    #[error("line {line}: {tokens} tokens: expected fewer than the model's context of {context}")]
    LongQuestion {
        /// The line, from 1.
        line: usize,
        /// The question's length in tokens.
        tokens: usize,
        /// The context in tokens.
        context: usize,
    },
    /// A sample whose prompt is too short or too long for generation.
    #[error(
        "line {line}: expected a prompt of 2 to {longest} tokens, so that the answer fits in the model's context, found \
         {tokens}"
    )]
    Unanswerable {
        /// The line, from 1.
        line: usize,
        /// The prompt's length in tokens.
        tokens: usize,
        /// The largest length.
        longest: usize,
    },
    /// A token id outside the model's vocabulary.
    #[error(
        "line {line}: expected token ids below {vocabulary}, the model's vocabulary size, found larger ones: the \
         tokenizer belongs to another model"
    )]
    Vocabulary {
        /// The line, from 1.
        line: usize,
        /// The model's vocabulary size.
        vocabulary: usize,
    },
    /// An empty file.
    #[error("expected at least one sample, found an empty file")]
    EmptyFile,
    /// No sample is left.
    #[error("expected at least one sample, found {}", found_samples(*.skipped, *.max_length))]
    NoSamples {
        /// Number of samples that are too long.
        skipped: usize,
        /// The maximum length in tokens.
        max_length: usize,
    },
}

fn found_samples(skipped: usize, max_length: usize) -> String {
    let limit = format!("{max_length} tokens, the limit of --max-length and of the model's context");
    match skipped {
        0 => "only blank lines".to_owned(),
        1 => format!("one, longer than {limit}"),
        _ => format!("{skipped} samples, all longer than {limit}"),
    }
}
