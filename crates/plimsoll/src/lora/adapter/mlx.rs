//! mlx-lm adapters: `adapters.safetensors` and an `adapter_config.json` with fields of mlx-lm.
//!
//! Source: mlx-lm 0.28 (`tuner/utils.py`, `tuner/lora.py`, `tuner/dora.py`). A is `lora_a` (in, rank), B is `lora_b`
//! (rank, out), DoRA's magnitude is `m`. The update is `scale · B·A`, with one scale for all modules. mlx-lm adds LoRA
//! to the last `num_layers` layers (to all if that is not positive). A module without tensors keeps its initial values:
//! a B of zeros, and for DoRA the row norms of the base weight. So it equals the base module, as in PEFT's layout.

use std::collections::BTreeSet;

use plimsoll_formats::Tensors;
use plimsoll_formats::text::shown;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::config::AdapterConfig;
use super::keys::{Key, Part};
use super::layout::AdapterLayout;
use super::problem::AdapterProblem;

/// The fields of `adapter_config.json` that are read, unvalidated.
#[derive(Deserialize)]
struct RawConfig {
    fine_tune_type: Option<String>,
    model: Option<String>,
    lora_parameters: Option<RawParameters>,
    #[serde(default)]
    use_dora: bool,
}

#[derive(Deserialize)]
struct RawParameters {
    rank: Option<u64>,
    scale: Option<f64>,
}

/// The equivalent PEFT config. It targets the modules that have tensors.
pub(super) fn config(text: &str, tensors: &Tensors) -> Result<AdapterConfig, AdapterProblem> {
    let raw: RawConfig = serde_json::from_str(text).map_err(AdapterProblem::Json)?;
    let kind = raw.fine_tune_type.as_deref().unwrap_or(if raw.use_dora { "dora" } else { "lora" });
    if !matches!(kind, "lora" | "dora") {
        return Err(AdapterProblem::Unsupported {
            key: "fine_tune_type".into(),
            value: shown(kind),
            reason: "only lora and dora adapters are read",
        });
    }
    let parameters = raw.lora_parameters.ok_or(AdapterProblem::Missing { key: "lora_parameters" })?;
    let rank = parameters.rank.ok_or(AdapterProblem::Missing { key: "lora_parameters.rank" })?;
    let scale = parameters.scale.ok_or(AdapterProblem::Missing { key: "lora_parameters.scale" })?;
    let targets: BTreeSet<String> = tensors.names().filter_map(module_path).collect();
    let config = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": raw.model,
        "inference_mode": true,
        "r": rank,
        "lora_alpha": scale * rank as f64,
        "use_dora": kind == "dora",
        "target_modules": targets,
    });
    AdapterConfig::from_json(&config.to_string())
}

/// The path of the module that a tensor belongs to.
fn module_path(key: &str) -> Option<String> {
    match Key::of(key, AdapterLayout::Mlx).ok()? {
        Key::Layer { stack, layer, projection, .. } => Some(format!("{stack}.{layer}.{}", projection.path())),
        Key::Embedding { path, .. } => Some(path),
        Key::Saved { .. } => None,
    }
}

/// The tensor name of a part of a module in mlx-lm's layout.
pub(super) fn key(path: &str, part: Part) -> String {
    let suffix = match part {
        Part::A => "lora_a",
        Part::B => "lora_b",
        Part::Magnitude => "m",
    };
    format!("{path}.{suffix}")
}

/// mlx-lm's config for LoRA on these modules, all of one rank and scale.
pub(super) fn written(
    model: Option<&str>,
    use_dora: bool,
    rank: usize,
    scale: f64,
    modules: &BTreeSet<&'static str>,
) -> Map<String, Value> {
    let config = json!({
        "adapter_path": "adapters",
        "fine_tune_type": if use_dora { "dora" } else { "lora" },
        "lora_parameters": { "rank": rank, "scale": scale, "dropout": 0.0, "keys": modules },
        "model": model,
        "num_layers": -1,
    });
    match config {
        Value::Object(config) => config,
        _ => Map::new(),
    }
}
