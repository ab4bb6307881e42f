//! The layout of an adapter folder, recognised by its files.

use std::fs;
use std::path::Path;

use plimsoll_formats::text::shown;

use super::file_names::{CONFIG_FILE, MLX_WEIGHTS_FILE, WEIGHTS_FILE};
use super::problem::AdapterProblem;
use crate::error::{Error, Result};

/// The layout of an adapter folder: file names, config fields and tensor names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AdapterLayout {
    /// PEFT's: `adapter_config.json` and `adapter_model.safetensors`.
    Peft,
    /// mlx-lm's: `adapter_config.json` with other fields, and `adapters.safetensors` with transposed A and B.
    Mlx,
}

impl AdapterLayout {
    /// Whether A is stored as (in, rank) and B as (rank, out), the transposes of PEFT's.
    pub(super) fn is_transposed(self) -> bool {
        match self {
            Self::Peft => false,
            Self::Mlx => true,
        }
    }

    pub(super) fn weights_file(self) -> &'static str {
        match self {
            Self::Peft => WEIGHTS_FILE,
            Self::Mlx => MLX_WEIGHTS_FILE,
        }
    }
}

/// Recognises the layout of a folder by its files. An error lists what the folder has instead.
pub(super) fn layout(folder: &Path) -> Result<AdapterLayout> {
    if !fs::metadata(folder).map_err(Error::read(folder))?.is_dir() {
        return Err(Error::input(folder, AdapterProblem::NotAFolder));
    }
    let has = |name: &str| folder.join(name).exists();
    if has(CONFIG_FILE) && has(MLX_WEIGHTS_FILE) && !has(WEIGHTS_FILE) {
        return Ok(AdapterLayout::Mlx);
    }
    let problem = match [CONFIG_FILE, WEIGHTS_FILE].into_iter().find(|name| !has(name)) {
        None => return Ok(AdapterLayout::Peft),
        Some(_) if has("adapter_model.bin") && !has(WEIGHTS_FILE) => AdapterProblem::Pickle,
        Some(file) => AdapterProblem::NoFile { file, found: contents(folder)? },
    };
    Err(Error::input(folder, problem))
}

/// Some file names of a folder, with a hint if a subfolder is a trainer's checkpoint.
fn contents(folder: &Path) -> Result<String> {
    const NAMES_SHOWN: usize = 5;
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::read(folder))? {
        names.push(entry.map_err(Error::read(folder))?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    let checkpoint =
        names.iter().find(|name| name.starts_with("checkpoint-") && folder.join(name).join(CONFIG_FILE).exists());
    let mut text = match names.len() {
        0 => "an empty folder".to_owned(),
        _ => names.iter().take(NAMES_SHOWN).map(|name| shown(name)).collect::<Vec<_>>().join(", "),
    };
    if names.len() > NAMES_SHOWN {
        text.push_str(&format!(" and {} more", names.len() - NAMES_SHOWN));
    }
    if let Some(checkpoint) = checkpoint {
        text.push_str(&format!("; pass the folder of a checkpoint, such as {}", shown(checkpoint)));
    }
    Ok(text)
}
