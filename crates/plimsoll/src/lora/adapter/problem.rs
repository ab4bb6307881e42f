//! What is wrong with an adapter.

use std::fmt::{self, Display};
use std::path::Path;

use plimsoll_formats::text::shown;

use super::file_names::{CONFIG_FILE, WEIGHTS_FILE};
use crate::error::{Error, Result};

/// How many faults are told apart in one message; the rest are counted.
const FAULTS_SHOWN: usize = 5;

/// What is wrong with an adapter.
#[derive(Debug, thiserror::Error)]
pub enum AdapterProblem {
    /// The path is not a folder.
    #[error("expected an adapter folder with adapter_config.json and adapter_model.safetensors, found a file")]
    NotAFolder,
    /// One of the two files is not there.
    #[error("{file} is missing: expected an adapter folder with {CONFIG_FILE} and {WEIGHTS_FILE}, found {found}")]
    NoFile {
        /// The file that is missing.
        file: &'static str,
        /// What is there, and what may have been meant.
        found: String,
    },
    /// The weights are a Python pickle.
    #[error(
        "has adapter_model.bin only, which is a Python pickle and is not read: save it again with PEFT's \
         `save_pretrained(..., safe_serialization=True)`"
    )]
    Pickle,
    /// LoRA on an end of the model, and nobody has said what is to become of it.
    #[error(
        "has LoRA on {modules}, which is no layer's: give `--embedding-lora keep` to apply it in every variant, or `--embedding-lora drop`"
    )]
    EmbeddingLora {
        /// The modules' names.
        modules: String,
    },
    /// A strength that a DoRA adapter cannot be written with.
    #[error(
        "it is a DoRA adapter: a strength of {strength} cannot be written into its tensors; keep modules as they are, or \
         drop them"
    )]
    Strength {
        /// The gate.
        strength: f32,
    },
    /// A layout that the adapter cannot be written in.
    #[error("cannot be written in mlx-lm's layout: {0}")]
    NotForMlx(&'static str),
    /// `adapter_config.json` is not what it should be.
    #[error("not an adapter configuration: {}", shown(&.0.to_string()))]
    Json(serde_json::Error),
    /// A setting without which the adapter cannot be applied.
    #[error("{key} is missing")]
    Missing {
        /// The setting.
        key: &'static str,
    },
    /// A setting of a wrong type or out of range.
    #[error("{key}: expected {expected}, found {found}")]
    Value {
        /// The setting.
        key: &'static str,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A setting that asks for something this project does not do.
    #[error("{key} is {value}: {reason}")]
    Unsupported {
        /// The setting.
        key: String,
        /// What it is.
        value: String,
        /// Why it is refused.
        reason: &'static str,
    },
    /// A list or table that is absurdly long.
    #[error("{key} has {found} entries: at most {limit} are read")]
    TooMany {
        /// The setting, or `tensors`.
        key: &'static str,
        /// How many there are.
        found: usize,
        /// How many are read.
        limit: usize,
    },
    /// `layers_pattern` on its own.
    #[error("layers_pattern is set and layers_to_transform is not: PEFT refuses this too")]
    PatternWithoutLayers,
    /// A regular expression as target together with a restriction to layers.
    #[error("target_modules is a text and {key} is set: PEFT refuses this too; give target_modules as a list")]
    StringTargets {
        /// The setting.
        key: &'static str,
    },
    /// A regular expression that is not one, or is not supported.
    #[error("{key}: cannot use the regular expression {pattern:?}: {reason}")]
    Regex {
        /// The setting.
        key: &'static str,
        /// The expression.
        pattern: String,
        /// Why not.
        reason: String,
    },
    /// A regular expression that backtracks without end.
    #[error("{key}: a regular expression takes too many steps on {path}")]
    RegexTooHard {
        /// The setting.
        key: &'static str,
        /// The module's path.
        path: String,
    },
    /// An adapter of a model that is not supported.
    #[error(
        "it has modules such as {}, which models of {model_type} have: that architecture is not supported, see `plimsoll \
         search --help`",
        shown(.module)
    )]
    Architecture {
        /// The `model_type` of such models.
        model_type: &'static str,
        /// The path of a module that such models have.
        module: String,
    },
    /// Tensors that do not fit.
    #[error("{0}")]
    Faults(Faults),
    /// A tensor that cannot be multiplied by its gate and keep its type.
    #[error(
        "{}: its largest value, {value:?}, times the gate {gate} is {product:?}, and {dtype} holds {limit:?} at most: give a \
         gate nearer to 0, or convert the adapter to a type that holds more",
        shown(tensor)
    )]
    Overflow {
        /// The tensor's name in the file.
        tensor: String,
        /// Its largest value.
        value: f32,
        /// The gate.
        gate: f32,
        /// What becomes of the value.
        product: f64,
        /// The type that it is stored in.
        dtype: &'static str,
        /// The largest number of that type.
        limit: f64,
    },
}

/// Tensors that fit neither the config nor each other nor the base model: the first few, and how many there are.
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
