//! Problems of tokenizers and chat templates.

use plimsoll_formats::text::shown;

/// A problem of a tokenizer or a chat template.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerProblem {
    /// A file that is not JSON, or has a field that is missing, unknown or of the wrong type.
    #[error("not a supported tokenizer: {}", shown(&.0.to_string()))]
    Json(serde_json::Error),
    /// A metadata key of a GGUF file that is missing or of the wrong type.
    #[error("metadata `{key}`: expected {expected}, found {found}")]
    Key {
        /// The key.
        key: &'static str,
        /// The expected type.
        expected: &'static str,
        /// The value in the file.
        found: String,
    },
    /// A component or setting that is not supported.
    #[error("{what} `{}` is not supported: expected {supported}", shown(.found))]
    Unsupported {
        /// The kind of component, such as `tokenizer model`.
        what: &'static str,
        /// The value in the file.
        found: String,
        /// The values that are supported.
        supported: &'static str,
    },
    /// Two tokens with one id, or one token with two ids.
    #[error("token `{}` with id {id}: its text or its id is in the vocabulary twice", shown(.token))]
    Duplicate {
        /// The token.
        token: String,
        /// Its id.
        id: u32,
    },
    /// A merge whose parts or whose result is not a token.
    #[error("merge {number}: expected two tokens that join to a third, found `{}`", shown(.merge))]
    Merge {
        /// Number of the merge in the list, from 1.
        number: usize,
        /// The merge in the file.
        merge: String,
    },
    /// An added token whose id differs from the file.
    #[error("added token `{}`: expected id {expected}, found {found:?}", shown(.token))]
    AddedToken {
        /// The token.
        token: String,
        /// The id in the file.
        expected: u32,
        /// The id that the library gives it.
        found: Option<u32>,
    },
    /// A special token that is not in the vocabulary.
    #[error("{what}: {} is not in the vocabulary", shown(.token))]
    NoSuchToken {
        /// The setting, such as `tokenizer.ggml.bos_token_id`.
        what: &'static str,
        /// The token, or its id.
        token: String,
    },
    /// A component that the `tokenizers` library refuses, or a text that it cannot encode.
    #[error("the tokenizer refuses this {what}: {}", shown(.message))]
    Refused {
        /// The component.
        what: &'static str,
        /// The library's reason.
        message: String,
    },
    /// A chat template above the limit on its size.
    #[error("chat template: expected at most {limit} bytes, found {found}")]
    TemplateSize {
        /// The limit in bytes.
        limit: usize,
        /// The size in bytes.
        found: usize,
    },
    /// Named templates without one called `default`.
    #[error("chat template: expected one named `default`, found {}", shown(&found.join(", ")))]
    NoDefaultTemplate {
        /// The names of the templates.
        found: Vec<String>,
    },
    /// A chat template that cannot be parsed, or that refuses a chat.
    #[error("chat template: {0}")]
    Template(String),
}

/// Converts an error of the `tokenizers` library, for `map_err`.
pub(super) fn refused<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> TokenizerProblem {
    move |error| TokenizerProblem::Refused { what, message: error.to_string() }
}
