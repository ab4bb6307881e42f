//! Problems of adapters.

use std::fmt::{self, Display};
use std::path::Path;

use plimsoll_formats::text::shown;

use super::file_names::{CONFIG_FILE, WEIGHTS_FILE};
use crate::error::{Error, Result};

/// Number of faults that one message lists; the others are counted.
const FAULTS_SHOWN: usize = 5;

/// A problem of an adapter: its folder, config or tensors.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterProblem {
    /// The path is not a folder.
    #[error("expected an adapter folder with adapter_config.json and adapter_model.safetensors, found a file")]
    NotAFolder,
    /// The config or the weights are missing.
    #[error("{file} is missing: expected an adapter folder with {CONFIG_FILE} and {WEIGHTS_FILE}, found {found}")]
    NoFile {
        /// The file that is missing.
        file: &'static str,
        /// Some file names of the folder, with a hint.
        found: String,
    },
    /// The weights are a Python pickle.
    #[error(
        "has adapter_model.bin only, which is a Python pickle and is not read: save it again with PEFT's \
         `save_pretrained(..., safe_serialization=True)`"
    )]
    Pickle,
    /// LoRA on embeddings without a choice whether it is kept or dropped.
    #[error(
        "has LoRA on {modules}, which belongs to no layer: pass `--embedding-lora keep` to apply it in every variant, \
         or `--embedding-lora drop` to leave it out"
    )]
    EmbeddingLora {
        /// The modules' names.
        modules: String,
    },
    /// A LoRA strength other than 0 and 1 in a DoRA adapter that is written.
    #[error("a DoRA adapter cannot be written with a LoRA strength of {strength}: expected 0 or 1")]
    Strength {
        /// The LoRA strength.
        strength: f32,
    },
    /// Content that mlx-lm's layout cannot represent.
    #[error("cannot be written in mlx-lm's layout: {0}")]
    NotForMlx(&'static str),
    /// `adapter_config.json` is not JSON, or has a field of the wrong type.
    #[error("not an adapter configuration: {}", shown(&.0.to_string()))]
    Json(serde_json::Error),
    /// A required setting is missing.
    #[error("{key} is missing")]
    Missing {
        /// The setting.
        key: &'static str,
    },
    /// A setting of the wrong type or out of range.
    #[error("{key}: expected {expected}, found {found}")]
    Value {
        /// The setting.
        key: &'static str,
        /// What is expected.
        expected: String,
        /// The value in the file.
        found: String,
    },
    /// A setting that is not supported.
    #[error("{key} is {value}: {reason}")]
    Unsupported {
        /// The setting.
        key: String,
        /// The value in the file.
        value: String,
        /// Why it is refused.
        reason: &'static str,
    },
    /// A list or table above the limit on its length.
    #[error("{key}: expected at most {limit} entries, found {found}")]
    TooMany {
        /// The setting, or `tensors`.
        key: &'static str,
        /// Number of entries.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// `layers_pattern` without `layers_to_transform`.
    #[error("layers_pattern is set without layers_to_transform: PEFT refuses this too")]
    PatternWithoutLayers,
    /// `target_modules` as a regular expression, with a restriction to layers.
    #[error("target_modules is a string and {key} is set: PEFT refuses this too; expected a list as target_modules")]
    StringTargets {
        /// The setting.
        key: &'static str,
    },
    /// A regular expression that is invalid or not supported.
    #[error("{key}: cannot use the regular expression {pattern:?}: {reason}")]
    Regex {
        /// The setting.
        key: &'static str,
        /// The expression.
        pattern: String,
        /// Why it is refused.
        reason: String,
    },
    /// A regular expression that exceeds the limit on backtracking.
    #[error("{key}: a regular expression takes too many steps on {path}")]
    RegexTooHard {
        /// The setting.
        key: &'static str,
        /// The module's path.
        path: String,
    },
    /// An adapter of an architecture that is not supported.
    #[error(
        "has modules such as {}, which belong to {model_type} models: this architecture is not supported, see \
         `plimsoll search --help`",
        shown(.module)
    )]
    Architecture {
        /// The `model_type` of the architecture.
        model_type: &'static str,
        /// The path of a module that shows it.
        module: String,
    },
    /// Tensors that do not fit the config, each other or the base model.
    #[error("{0}")]
    Faults(Faults),
    /// A LoRA strength that exceeds the range of a tensor's dtype.
    #[error(
        "{}: its largest value, {value:?}, times the LoRA strength {strength} is {product:?}, but the largest {dtype} \
         number is {limit:?}: use a strength nearer to 0, or convert the adapter to a dtype with a larger range",
        shown(tensor)
    )]
    Overflow {
        /// The tensor's name in the file.
        tensor: String,
        /// Its value of the largest magnitude.
        value: f32,
        /// The LoRA strength.
        strength: f32,
        /// The exact product.
        product: f64,
        /// The dtype of the tensor.
        dtype: &'static str,
        /// The largest number of that dtype.
        limit: f64,
    },
}

/// Faults of tensors: the first few as text, and their number.
#[derive(Debug, Default)]
pub struct Faults {
    pub(super) first: Vec<String>,
    pub(super) count: usize,
}

impl Faults {
    pub(super) fn push(&mut self, fault: impl Display) {
        if self.count < FAULTS_SHOWN {
            self.first.push(fault.to_string());
        }
        self.count += 1;
    }

    pub(super) fn into_result(self, path: &Path) -> Result<()> {
        if self.count == 0 { Ok(()) } else { Err(Error::input(path, AdapterProblem::Faults(self))) }
    }
}

impl Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.first.join("\n  "))?;
        match self.count - self.first.len() {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_faults_are_counted() {
        let mut faults = Faults::default();
        (0..9).for_each(|n| faults.push(n));
        assert_eq!(faults.to_string(), "0\n  1\n  2\n  3\n  4\n  and 4 more");
    }
}
