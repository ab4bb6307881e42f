//! What is wrong with a base model.

use plimsoll_formats::text::shown;

/// What is wrong with a base model.
#[derive(Debug, thiserror::Error)]
pub enum ModelProblem {
    /// Neither of the two forms a model is read in.
    #[error("expected a GGUF file, or a folder with config.json and safetensors weights; found {0}")]
    NotAModel(String),
    /// Nothing lies there, and the path reads like the id of a repository.
    #[error("no such file or folder; repository ids are not downloaded: give a local folder or a GGUF file")]
    NoSuchPath,
    /// `config.json` is not what it should be.
    #[error("not a model configuration: {0}")]
    Config(serde_json::Error),
    /// A fact without which the model cannot be run.
    #[error("{} is missing", shown(.0))]
    MissingKey(String),
    /// A fact of the wrong type.
    #[error("{}: expected {expected}", shown(.key))]
    BadKey {
        /// The metadata key.
        key: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// Something that is not implemented.
    #[error("{} is {}, which is not supported: expected {supported}", shown(.key), shown(.found))]
    Unsupported {
        /// Where it stands.
        key: String,
        /// What stands there.
        found: String,
        /// What is supported.
        supported: String,
    },
    /// A dimension that is zero or absurdly large.
    #[error("{name} is {value}: expected 1 to {limit}")]
    OutOfRange {
        /// The dimension.
        name: &'static str,
        /// What it is.
        value: usize,
        /// The largest that is read.
        limit: usize,
    },
    /// A number that must be positive.
    #[error("{name} is {value:?}: expected a positive number")]
    NotPositive {
        /// Its name.
        name: &'static str,
        /// What it is.
        value: f64,
    },
    /// Heads that cannot share keys and values evenly.
    #[error("{heads} attention heads are not a multiple of {kv_heads} key and value heads")]
    Heads {
        /// Query heads.
        heads: usize,
        /// Key and value heads.
        kv_heads: usize,
    },
    /// Divisors of rotary frequencies that do not fit the head.
    #[error("{name} has {found} divisors: expected {expected}, one for each pair of dimensions that are rotated")]
    RopeDivisors {
        /// Where they stand.
        name: &'static str,
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// A tensor that the architecture needs and the file lacks.
    #[error("tensor {} is missing", shown(.0))]
    MissingTensor(String),
    /// A tensor of another shape than the configuration says.
    #[error("tensor {} has shape {found:?}: the configuration says {expected:?}", shown(.name))]
    Shape {
        /// Its name in the file.
        name: String,
        /// Its shape in the file.
        found: Vec<usize>,
        /// What the configuration makes it.
        expected: Vec<usize>,
    },
    /// A tensor that the decoder would leave out of its computation.
    #[error(
        "tensor {} is not part of this architecture as it is implemented: the result would be wrong without it",
        shown(.0)
    )]
    UnusedTensor(String),
    /// A weight that is infinite or not a number.
    #[error("tensor {} holds a value that is not finite", shown(.0))]
    NotFinite(String),
}

pub(super) fn positive(name: &'static str, value: f64) -> Result<(), ModelProblem> {
    if value.is_finite() && value > 0.0 { Ok(()) } else { Err(ModelProblem::NotPositive { name, value }) }
}

pub(super) fn unsupported(key: &str, found: String, supported: impl Into<String>) -> ModelProblem {
    ModelProblem::Unsupported { key: key.into(), found, supported: supported.into() }
}

/// Names in a sentence: `a, b or c`.
pub(super) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => names.concat(),
    }
}
