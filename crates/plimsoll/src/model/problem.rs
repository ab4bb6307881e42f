//! Problems of base models.

use plimsoll_formats::text::shown;

/// A problem of a base model: its path, configuration or tensors.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelProblem {
    /// Neither a GGUF file nor a Hugging Face folder.
    #[error("expected a GGUF file, or a folder with config.json and safetensors weights; found {0}")]
    NotAModel(String),
    /// The path does not exist and has the form of a repository id.
    #[error("no such file or folder; repository ids are not downloaded: pass a local folder or a GGUF file")]
    NoSuchPath,
    /// `config.json` is not JSON, or has a field that is missing or of the wrong type.
    #[error("not a model configuration: {0}")]
    Config(serde_json::Error),
    /// A required key is missing.
    #[error("{} is missing", shown(.0))]
    MissingKey(String),
    /// A metadata key of the wrong type.
    #[error("{}: expected {expected}", shown(.key))]
    BadKey {
        /// The metadata key.
        key: String,
        /// The expected type.
        expected: &'static str,
    },
    /// A setting that is not supported.
    #[error("{} is {}, which is not supported: expected {supported}", shown(.key), shown(.found))]
    Unsupported {
        /// The setting.
        key: String,
        /// The value in the file.
        found: String,
        /// The values that are supported.
        supported: String,
    },
    /// A dimension that is zero or above its limit.
    #[error("{name} is {value}: expected 1 to {limit}")]
    OutOfRange {
        /// The dimension.
        name: &'static str,
        /// The value in the file.
        value: usize,
        /// The limit.
        limit: usize,
    },
    /// A number that must be positive.
    #[error("{name} is {value:?}: expected a positive number")]
    NotPositive {
        /// The setting.
        name: &'static str,
        /// The value in the file.
        value: f64,
    },
    /// A number of query heads that is no multiple of the key and value heads.
    #[error("{heads} attention heads are not a multiple of {kv_heads} key and value heads")]
    Heads {
        /// Query heads.
        heads: usize,
        /// Key and value heads.
        kv_heads: usize,
    },
    /// A wrong number of divisors of rotary frequencies.
    #[error("{name} has {found} divisors: expected {expected}, one for each pair of rotated dimensions")]
    RopeDivisors {
        /// The setting or tensor.
        name: &'static str,
        /// The number in the file.
        found: usize,
        /// The expected number.
        expected: usize,
    },
    /// A tensor that the architecture needs is missing.
    #[error("tensor {} is missing", shown(.0))]
    MissingTensor(String),
    /// A tensor whose shape differs from the configuration.
    #[error("tensor {} has shape {found:?}: the configuration requires {expected:?}", shown(.name))]
    Shape {
        /// The tensor's name in the file.
        name: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The shape by the configuration.
        expected: Vec<usize>,
    },
    /// A tensor that the decoder does not use.
    #[error(
        "tensor {} is not part of this architecture as it is implemented: the result would be wrong without it",
        shown(.0)
    )]
    UnusedTensor(String),
    /// A weight that is infinite or not a number.
    #[error("tensor {} has a value that is not finite", shown(.0))]
    NotFinite(String),
}

pub(super) fn positive(name: &'static str, value: f64) -> Result<(), ModelProblem> {
    if value.is_finite() && value > 0.0 { Ok(()) } else { Err(ModelProblem::NotPositive { name, value }) }
}

pub(super) fn unsupported(key: &str, found: String, supported: impl Into<String>) -> ModelProblem {
    ModelProblem::Unsupported { key: key.into(), found, supported: supported.into() }
}

/// Names as text: `a, b or c`.
pub(super) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => names.concat(),
    }
}
