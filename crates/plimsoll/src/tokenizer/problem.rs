//! What is wrong with a tokenizer or a chat template.

use plimsoll_formats::text::shown;

/// What can be wrong with a tokenizer or a chat template.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerProblem {
    /// Not the JSON that a tokenizer's file holds.
    #[error("not a tokenizer that is understood: {}", shown(&.0.to_string()))]
    Json(serde_json::Error),
    /// A metadata key of a GGUF file that is missing or of the wrong kind.
    #[error("metadata `{key}`: expected {expected}, found {found}")]
    Key {
        /// The key.
        key: &'static str,
        /// What it should hold.
        expected: &'static str,
        /// What it holds.
        found: String,
    },
    /// Something that real tokenizers use and this program does not implement.
    #[error("{what} `{}` is not supported: {supported} are", shown(.found))]
    Unsupported {
        /// What it is, such as `pre-tokenizer`.
        what: &'static str,
        /// Its name in the file.
        found: String,
        /// The names that are understood.
        supported: &'static str,
    },
    /// Two tokens with one id, or one token with two.
    #[error("token `{}` with id {id} is in the vocabulary twice, by its text or by its id", shown(.token))]
    Duplicate {
        /// The token.
        token: String,
        /// Its id.
        id: u32,
    },
    /// A merge whose parts or whose result is no token.
    #[error("merge {number}: expected two tokens that join to a third, found `{}`", shown(.merge))]
    Merge {
        /// Its place in the list, from 1.
        number: usize,
        /// As it stands in the file.
        merge: String,
    },
    /// An added token that does not get the id that the file gives it.
    #[error("added token `{}`: expected id {expected}, found {found:?}", shown(.token))]
    AddedToken {
        /// The token.
        token: String,
        /// The id in the file.
        expected: u32,
        /// The id it has.
        found: Option<u32>,
    },
    /// A special token that is no token.
    #[error("{what}: {} is not in the vocabulary", shown(.token))]
    NoSuchToken {
        /// What it is for, such as `bos_token`.
        what: &'static str,
        /// The token, or its id.
        token: String,
    },
    /// A part that the tokenizers library does not accept, or text that it cannot encode.
    #[error("the tokenizer refuses this {what}: {}", shown(.message))]
    Refused {
        /// The part.
        what: &'static str,
        /// The library's reason.
        message: String,
    },
    /// A chat template that is too large.
    #[error("chat template: expected at most {limit} bytes, found {found}")]
    TemplateSize {
        /// The limit, in bytes.
        limit: usize,
        /// Its size, in bytes.
        found: usize,
    },
    /// Several named templates and none called `default`.
    #[error("chat template: expected one named `default`, found {}", shown(&found.join(", ")))]
    NoDefaultTemplate {
        /// The names there are.
        found: Vec<String>,
    },
    /// A chat template that cannot be parsed, or that refuses the chat it is given.
    #[error("chat template: {0}")]
    Template(String),
}

/// The library's own error as one of ours, in the shape that `map_err` wants.
pub(super) fn refused<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> TokenizerProblem {
    move |error| TokenizerProblem::Refused { what, message: error.to_string() }
}
